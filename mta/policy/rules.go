package policy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"postilion/config/postfix"
	"postilion/mta/route"
	"postilion/resolve"
	"postilion/table"
	"postilion/table/matchlist"
)

// Resolver asks the DNS. *resolve.Resolver is one.
type Resolver interface {
	Addresses(ctx context.Context, host string) ([]netip.Addr, error)
	AddressesOfType(ctx context.Context, host string, ipv6 bool) ([]netip.Addr, error)
	Names(ctx context.Context, address netip.Addr) ([]string, error)
	Exchangers(ctx context.Context, domain string) ([]resolve.MX, error)
	Texts(ctx context.Context, name string) ([]string, error)
	Nameservers(ctx context.Context, domain string) ([]string, error)
}

// Verifier probes whether an address can be delivered to, as verify(8) does.
type Verifier interface {
	// VerifyAddress returns what a probe said: reason is the text behind "undeliverable address: " or "unverified address: ".
	VerifyAddress(ctx context.Context, address string) (result Probe, reason string)
}

// Probe is the result of an address verification.
type Probe uint8

// The results. A probe that is still under way, and one that failed for now, are Unverified.
const (
	Deliverable Probe = iota
	Undeliverable
	Unverified
)

// Options are what the rules of one smtpd service are made of.
type Options struct {
	// View gives the parameters of the service. Required.
	View *postfix.View
	// Router tells what addresses mean. Required.
	Router *route.Router
	// Open opens a table. Required. A table that cannot be opened fails at each look-up.
	Open func(spec string) table.Table
	// Resolver asks the DNS. Required.
	Resolver Resolver
	// Verifier serves reject_unverified_sender and reject_unverified_recipient; without one every address is unverified.
	Verifier Verifier
	// LocalAddresses are inet_interfaces, ProxyAddresses proxy_interfaces.
	LocalAddresses, ProxyAddresses []netip.Addr
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Sleep waits for the restriction of that name; nil means for real, until ctx ends.
	Sleep func(ctx context.Context, d time.Duration)
	// Warn receives what Postfix would log as a warning; nil drops it.
	Warn func(text string)
}

// Rules are the restrictions of one smtpd service. They do not change.
type Rules struct {
	options Options
	view    *postfix.View
	router  *route.Router

	client, helo, sender, relay, recipient, data, endOfData, etrn *program
	classes                                                       map[string]*program
	tables                                                        map[string]table.Table
	services                                                      map[string]*policyService

	delayReject, relayFirst, softBounce        bool
	rejectUnlistedSender, rejectUnlistedRcpt   bool
	showTable, untrustedRouting, accessParents bool
	saslEnabled                                bool
	nullKey                                    string
	codes                                      codes
	networks, backupNetworks                   *list
	owners                                     *route.Tables
	relayCertificates                          []table.Table
	blocklistReplies                           []table.Table
	local                                      map[netip.Addr]bool
	openRelay                                  error
	wheres                                     map[string]string
	expansion                                  [256]bool
}

var _ Checker = (*Rules)(nil)

// codes are the *_code parameters, and the *_tempfail_action ones: true means defer_if_permit.
type codes struct {
	accessReject, accessDefer, reject, deferral, relay, badName, nonFQDN, plaintext, multiBounce int
	unknownAddress, unknownClient, unknownName, blocklist                                        int
	unknownLocal, unknownAlias, unknownMailbox, unknownRelay                                     int
	senderReject, senderDefer, recipientReject, recipientDefer                                   int
	addressLater, nameLater, senderLater, recipientLater                                         bool
}

// list is a matchlist, or the reason why there is none.
type list struct {
	matches *matchlist.List
	err     error
}

// New reads the restrictions. A member that cannot be used refuses mail with 451 when its turn comes, as in Postfix, and does not keep the
// server from starting; an error means that the options are incomplete.
func New(options Options) (*Rules, error) {
	if options.View == nil || options.Router == nil || options.Open == nil || options.Resolver == nil {
		return nil, fmt.Errorf("access rules need a configuration, a router, tables and a resolver")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Sleep == nil {
		options.Sleep = sleep
	}
	if options.Warn == nil {
		options.Warn = func(string) {}
	}
	view := options.View
	r := &Rules{
		options: options, view: view, router: options.Router,
		classes: map[string]*program{}, tables: map[string]table.Table{}, services: map[string]*policyService{}, local: map[netip.Addr]bool{},
		delayReject: view.Bool("smtpd_delay_reject"), relayFirst: view.Bool("smtpd_relay_before_recipient_restrictions"),
		softBounce: view.Bool("soft_bounce"), showTable: view.Bool("show_user_unknown_table_name"),
		rejectUnlistedSender: view.Bool("smtpd_reject_unlisted_sender"), rejectUnlistedRcpt: view.Bool("smtpd_reject_unlisted_recipient"),
		untrustedRouting: view.Bool("allow_untrusted_routing"), saslEnabled: view.Bool("smtpd_sasl_auth_enable"),
		nullKey: view.String("smtpd_null_access_lookup_key"),
		codes:   readCodes(view),
	}
	for _, word := range view.List("parent_domain_matches_subdomains") {
		r.accessParents = r.accessParents || word == "smtpd_access_maps"
	}
	for _, address := range append(options.LocalAddresses, options.ProxyAddresses...) {
		r.local[address.Unmap()] = true
	}
	r.networks, r.backupNetworks = r.list("mynetworks"), r.list("permit_mx_backup_networks")
	r.owners = r.router.Tables("smtpd_sender_login_maps")
	r.relayCertificates = r.tablesOf("relay_clientcerts")
	r.blocklistReplies = r.tablesOf("rbl_reply_maps")
	r.expansion = readFilter(view.String("smtpd_expansion_filter"))
	r.compile()
	return r, nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func readCodes(view *postfix.View) codes {
	later := func(name string) bool { return strings.EqualFold(view.String(name), "defer_if_permit") }
	return codes{
		accessReject: view.Int("access_map_reject_code"), accessDefer: view.Int("access_map_defer_code"),
		reject: view.Int("reject_code"), deferral: view.Int("defer_code"), relay: view.Int("relay_domains_reject_code"),
		badName: view.Int("invalid_hostname_reject_code"), nonFQDN: view.Int("non_fqdn_reject_code"),
		plaintext: view.Int("plaintext_reject_code"), multiBounce: view.Int("multi_recipient_bounce_reject_code"),
		unknownAddress: view.Int("unknown_address_reject_code"), unknownClient: view.Int("unknown_client_reject_code"),
		unknownName: view.Int("unknown_hostname_reject_code"), blocklist: view.Int("maps_rbl_reject_code"),
		unknownLocal: view.Int("unknown_local_recipient_reject_code"), unknownAlias: view.Int("unknown_virtual_alias_reject_code"),
		unknownMailbox: view.Int("unknown_virtual_mailbox_reject_code"), unknownRelay: view.Int("unknown_relay_recipient_reject_code"),
		senderReject: view.Int("unverified_sender_reject_code"), senderDefer: view.Int("unverified_sender_defer_code"),
		recipientReject: view.Int("unverified_recipient_reject_code"), recipientDefer: view.Int("unverified_recipient_defer_code"),
		addressLater: later("unknown_address_tempfail_action"), nameLater: later("unknown_helo_hostname_tempfail_action"),
		senderLater: later("unverified_sender_tempfail_action"), recipientLater: later("unverified_recipient_tempfail_action"),
	}
}

func (r *Rules) list(parameter string) *list {
	parents := false
	for _, word := range r.view.List("parent_domain_matches_subdomains") {
		parents = parents || word == parameter
	}
	matches, err := matchlist.New(parameter, r.view.List(parameter), matchlist.Options{
		Open:          func(spec string) (matchlist.Table, error) { return r.table(spec), nil },
		ParentDomains: parents, Where: r.view.Where(parameter).String(),
	})
	if err != nil {
		r.options.Warn(err.Error())
	}
	return &list{matches, err}
}

func (l *list) host(ctx context.Context, name string, address netip.Addr) (matchlist.Match, error) {
	if l.err != nil {
		return matchlist.Match{}, l.err
	}
	return l.matches.Host(ctx, name, address)
}

// table opens each table once.
func (r *Rules) table(spec string) table.Table {
	t, ok := r.tables[spec]
	if !ok {
		t = r.options.Open(spec)
		r.tables[spec] = t
	}
	return t
}

func (r *Rules) tablesOf(parameter string) []table.Table {
	var tables []table.Table
	for _, spec := range r.view.List(parameter) {
		tables = append(tables, r.table(spec))
	}
	return tables
}

// OpenRelay tells that no list keeps strangers from relaying; every recipient is refused then.
func (r *Rules) OpenRelay() error { return r.openRelay }

// Close ends the connections to policy services.
func (r *Rules) Close() error {
	for _, service := range r.services {
		service.close()
	}
	return nil
}

// Check evaluates what is due at the stage.
func (r *Rules) Check(ctx context.Context, stage Stage, session *Session) Decision {
	e := evaluation{rules: r, ctx: ctx, session: session, stage: stage}
	e.check()
	return e.decision
}

// Verify answers VRFY by the rules for recipients.
func (r *Rules) Verify(ctx context.Context, session *Session, address string) Decision {
	saved := session.Recipient
	session.Recipient = address
	e := evaluation{rules: r, ctx: ctx, session: session, stage: Rcpt, verify: true}
	e.check()
	session.Recipient = saved
	return e.decision
}
