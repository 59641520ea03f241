// Package route says what an address means here: its full form, its class (local, virtual alias, virtual mailbox, relay or elsewhere), the transport and
// next hop for it, whether its recipient is listed, and what virtual aliases and aliases(5) make of it. Each answer comes with the steps that
// led to it.
//
// It delivers nothing and speaks no protocol. It follows trivial-rewrite(8), ADDRESS_CLASS_README, ADDRESS_REWRITING_README, virtual(5), transport(5)
// and aliases(5) of Postfix 3.7.
package route

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postilion/config/postfix"
	"postilion/table"
	"postilion/table/matchlist"
)

// Class is one of Postfix's address classes.
type Class uint8

// The classes in the order in which they are looked for.
const (
	Local Class = iota
	VirtualAlias
	VirtualMailbox
	Relay
	Elsewhere
)

func (c Class) String() string {
	return [...]string{"local", "virtual alias", "virtual mailbox", "relay", "default"}[c]
}

// Step is one line of a trace.
type Step struct {
	// What names the parameter or stage, Where its file:line ("" for a default), Result what it gave.
	What, Where, Result string
}

// Resolution is where an address goes.
type Resolution struct {
	Class Class
	// Recipient is the address in its full form; Local and Domain are its parts.
	Recipient, Local, Domain string
	// Transport is the name of a service of master.cf, Nexthop what it is told.
	Transport, Nexthop string
	// Routed is true for addresses that name another destination inside (user@elsewhere@here, user%elsewhere@here): relay control looks
	// at them twice.
	Routed bool
	Trace  []Step
}

// Options are what a Router needs beside main.cf.
type Options struct {
	// Open returns the table; aliases says that its keys have the form of aliases(5).
	Open func(spec string, aliases bool) table.Table
	// LocalAddresses are inet_interfaces and proxy_interfaces, for user@[192.0.2.1].
	LocalAddresses []netip.Addr
	// Known, when not nil, is asked whether a recipient exists whose class has no table of recipients: decided is false when it does not know
	// either.
	Known func(ctx context.Context, r *Resolution) (exists, decided bool, err error)
}

// Router answers for one configuration. It does not change; its methods may be called at the same time.
type Router struct {
	view    *postfix.View
	options Options

	myorigin, mydomain, myhostname            string
	appendMyDomain, appendAtMyorigin          bool
	swapBangpath, percentHack                 bool
	delimiter                                 string
	destination, aliasDomains, mailboxDomains *matchlist.List
	relayDomains                              *matchlist.List
	transports, aliases, virtualAliases       maps
	virtualMailboxes, localRecipients         maps
	relayRecipients, canonical                maps
	senderCanonical, recipientCanonical       maps
	relocated                                 maps
	propagate                                 map[string]bool
	failed                                    error
}

// New reads the parameters. A list or table that cannot be used does not keep a server from starting: every answer that needs it is an error
// then, as in Postfix, and Broken tells the first one.
func New(view *postfix.View, options Options) *Router {
	r := &Router{
		view: view, options: options,
		mydomain: view.String("mydomain"), myhostname: view.String("myhostname"),
		appendMyDomain: view.Bool("append_dot_mydomain"), appendAtMyorigin: view.Bool("append_at_myorigin"),
		swapBangpath: view.Bool("swap_bangpath"), percentHack: view.Bool("allow_percent_hack"),
		delimiter: view.String("recipient_delimiter"), propagate: map[string]bool{},
	}
	r.myorigin = view.String("myorigin")
	for _, word := range view.List("propagate_unmatched_extensions") {
		r.propagate[word] = true
	}
	parents := map[string]bool{}
	for _, word := range view.List("parent_domain_matches_subdomains") {
		parents[word] = true
	}
	r.destination = r.list("mydestination", parents)
	r.aliasDomains = r.list("virtual_alias_domains", parents)
	r.mailboxDomains = r.list("virtual_mailbox_domains", parents)
	r.relayDomains = r.list("relay_domains", parents)
	r.transports = r.maps("transport_maps", false)
	r.aliases = r.maps("alias_maps", true)
	r.virtualAliases = r.maps("virtual_alias_maps", false)
	r.virtualMailboxes = r.maps("virtual_mailbox_maps", false)
	r.localRecipients = r.localRecipientMaps()
	r.relayRecipients = r.maps("relay_recipient_maps", false)
	r.canonical = r.maps("canonical_maps", false)
	r.senderCanonical = r.maps("sender_canonical_maps", false)
	r.recipientCanonical = r.maps("recipient_canonical_maps", false)
	r.relocated = r.maps("relocated_maps", false)
	return r
}

// Broken is the first list that could not be read.
func (r *Router) Broken() error { return r.failed }

func (r *Router) list(name string, parents map[string]bool) *matchlist.List {
	list, err := matchlist.New(name, r.view.List(name), matchlist.Options{
		Open:          func(spec string) (matchlist.Table, error) { return r.options.Open(spec, false), nil },
		ParentDomains: parents[name], Where: r.view.Where(name).String(),
	})
	if err != nil && r.failed == nil {
		r.failed = err
	}
	return list
}

func (r *Router) maps(name string, aliases bool) maps {
	m := maps{name: name, where: r.view.Where(name).String()}
	for _, spec := range r.view.List(name) {
		m.tables = append(m.tables, r.options.Open(spec, aliases))
	}
	return m
}

// localRecipientMaps reads local_recipient_maps, whose default holds the tables of alias_maps.
func (r *Router) localRecipientMaps() maps {
	m := maps{name: "local_recipient_maps", where: r.view.Where("local_recipient_maps").String()}
	aliases := r.view.List("alias_maps")
	for _, spec := range r.view.List("local_recipient_maps") {
		m.tables = append(m.tables, r.options.Open(spec, slices.Contains(aliases, spec)))
	}
	return m
}

// maps is the list of tables of one parameter.
type maps struct {
	name, where string
	tables      []table.Table
}

func (m *maps) find(ctx context.Context, key string, whole bool) (table.Entry, bool, error) {
	for _, t := range m.tables {
		if !whole && t.Pattern() {
			continue
		}
		entry, found, err := t.Find(ctx, key)
		if err != nil {
			return entry, false, fmt.Errorf("%s: %s: %w", m.where, m.name, err)
		}
		if found {
			return entry, true, nil
		}
	}
	return table.Entry{}, false, nil
}

// split divides an address at its last @ outside quotes.
func split(address string) (local, domain string, hasDomain bool) {
	quoted := false
	at := -1
	for i := 0; i < len(address); i++ {
		switch address[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '@':
			if !quoted {
				at = i
			}
		}
	}
	if at < 0 {
		return address, "", false
	}
	return address[:at], address[at+1:], true
}

// Rewrite completes an address as trivial-rewrite does for local clients: bang paths, percent forms, missing and incomplete domains.
func (r *Router) Rewrite(address string) string {
	if address == "" {
		return ""
	}
	if strings.HasPrefix(address, "@") {
		if i := strings.IndexByte(address, ':'); i > 0 {
			address = address[i+1:]
		}
	}
	local, domain, hasDomain := split(address)
	if !hasDomain && r.swapBangpath {
		if host, user, found := strings.Cut(local, "!"); found && host != "" && user != "" && !strings.HasPrefix(local, `"`) {
			local, domain, hasDomain = user, host, true
		}
	}
	if !hasDomain && r.percentHack {
		if i := strings.LastIndexByte(local, '%'); i > 0 && !strings.HasPrefix(local, `"`) {
			local, domain, hasDomain = local[:i], local[i+1:], true
		}
	}
	if !hasDomain {
		if !r.appendAtMyorigin || r.myorigin == "" {
			return local
		}
		domain = r.myorigin
	}
	domain = strings.TrimSuffix(domain, ".")
	if domain != "" && !strings.HasPrefix(domain, "[") && !strings.Contains(domain, ".") && r.appendMyDomain && r.mydomain != "" {
		domain += "." + r.mydomain
	}
	return local + "@" + domain
}

// isLocalDomain tells whether mail for the domain is ours to deliver to local users.
func (r *Router) isLocalDomain(ctx context.Context, domain string) (matchlist.Match, error) {
	if r.destination == nil {
		return matchlist.Match{}, r.failed
	}
	if literal, ok := strings.CutPrefix(domain, "["); ok {
		text := strings.TrimPrefix(strings.TrimSuffix(literal, "]"), "IPv6:")
		address, err := netip.ParseAddr(text)
		if err != nil {
			return matchlist.Match{}, nil
		}
		for _, ours := range r.options.LocalAddresses {
			if ours.Unmap() == address.Unmap() {
				return matchlist.Match{Found: true, Pattern: domain, Where: "inet_interfaces"}, nil
			}
		}
		return matchlist.Match{}, nil
	}
	return r.destination.Domain(ctx, domain)
}

// maxHops bounds how many destinations one address may name inside itself.
const maxHops = 100

// Resolve finds class, transport and next hop of an address. sender decides where that matters; "" is the null sender.
func (r *Router) Resolve(ctx context.Context, sender, address string) (*Resolution, error) {
	if r.failed != nil {
		return nil, r.failed
	}
	result := &Resolution{}
	full := r.Rewrite(address)
	if full != address {
		result.note("rewrite", "", full)
	}
	local, domain, _ := split(full)
	for range maxHops {
		match, err := r.isLocalDomain(ctx, domain)
		if err != nil {
			return nil, err
		}
		if !match.Found {
			break
		}
		inner, hasInner := r.inner(local)
		if !hasInner {
			result.note("mydestination", match.Where, match.Pattern)
			return r.local(ctx, result, local, domain)
		}
		result.Routed = true
		full = r.Rewrite(inner)
		local, domain, _ = split(full)
	}
	result.Routed = result.Routed || isRouted(local)
	result.Local, result.Domain, result.Recipient = local, domain, local+"@"+domain
	if err := r.classify(ctx, result); err != nil {
		return nil, err
	}
	return result, r.override(ctx, sender, result)
}

// inner finds a destination inside a local part.
func (r *Router) inner(local string) (string, bool) {
	if strings.HasPrefix(local, `"`) {
		return "", false
	}
	if strings.Contains(local, "@") {
		return local, true
	}
	if r.swapBangpath && strings.Contains(strings.Trim(local, "!"), "!") {
		return local, true
	}
	if r.percentHack && strings.LastIndexByte(local, '%') > 0 {
		return local, true
	}
	return "", false
}

// isRouted tells whether a local part has routing operators for another host to act on, whether or not this host acts on them: the host that the
// mail goes to may, and would be blamed for relaying.
func isRouted(local string) bool { return strings.ContainsAny(local, "@%!") }

func (result *Resolution) note(what, where, text string) {
	result.Trace = append(result.Trace, Step{What: what, Where: where, Result: text})
}

func (r *Router) local(ctx context.Context, result *Resolution, local, domain string) (*Resolution, error) {
	result.Class, result.Local, result.Domain, result.Recipient = Local, local, domain, local+"@"+domain
	result.Routed = result.Routed || isRouted(local)
	r.transport(result, "local_transport", r.myhostname)
	return result, r.override(ctx, "", result)
}

// transport sets what a parameter of the form transport:nexthop says.
func (r *Router) transport(result *Resolution, parameter, nexthop string) {
	name, hop, _ := strings.Cut(r.view.String(parameter), ":")
	result.Transport, result.Nexthop = name, nexthop
	if hop != "" {
		result.Nexthop = hop
	}
	result.note(parameter, r.view.Where(parameter).String(), r.view.String(parameter))
}

func (r *Router) classify(ctx context.Context, result *Resolution) error {
	lists := []struct {
		list  *matchlist.List
		name  string
		class Class
	}{
		{r.aliasDomains, "virtual_alias_domains", VirtualAlias},
		{r.mailboxDomains, "virtual_mailbox_domains", VirtualMailbox},
		{r.relayDomains, "relay_domains", Relay},
	}
	result.Class = Elsewhere
	for _, l := range lists {
		match, err := l.list.Domain(ctx, result.Domain)
		if err != nil {
			return err
		}
		if match.Found {
			result.Class = l.class
			result.note(l.name, match.Where, match.Pattern)
			break
		}
	}
	nexthop := result.Domain
	switch result.Class {
	case VirtualAlias:
		result.Transport, result.Nexthop = "error", "5.1.1 User unknown in virtual alias table"
		return nil
	case VirtualMailbox:
		r.transport(result, "virtual_transport", nexthop)
	case Relay:
		r.transport(result, "relay_transport", r.relayhost(result, nexthop))
	default:
		r.transport(result, "default_transport", r.relayhost(result, nexthop))
	}
	return nil
}

func (r *Router) relayhost(result *Resolution, nexthop string) string {
	if host := r.view.String("relayhost"); host != "" && (result.Class == Elsewhere || result.Class == Relay) {
		result.note("relayhost", r.view.Where("relayhost").String(), host)
		return host
	}
	return nexthop
}

// override applies transport_maps: the address with and without extension, the domain, its parents, and *.
func (r *Router) override(ctx context.Context, _ string, result *Resolution) error {
	if len(r.relocated.tables) > 0 {
		entry, _, found, err := r.lookup(ctx, &r.relocated, result.Recipient)
		if err != nil {
			return err
		}
		if found {
			result.Transport, result.Nexthop = "error", "5.1.6 User has moved to "+entry.Value
			result.note("relocated_maps", entry.Source, entry.Value)
			return nil
		}
	}
	if len(r.transports.tables) == 0 {
		return nil
	}
	keys := []string{result.Recipient}
	if base, _, has := r.SplitExtension(result.Local); has {
		keys = append(keys, base+"@"+result.Domain)
	}
	keys = append(keys, result.Domain)
	domain := result.Domain
	for {
		i := strings.IndexByte(strings.TrimPrefix(domain, "."), '.')
		if i < 0 {
			break
		}
		domain = strings.TrimPrefix(domain, ".")[i:]
		keys = append(keys, domain)
	}
	keys = append(keys, "*")
	for i, key := range keys {
		entry, found, err := r.transports.find(ctx, strings.ToLower(key), i == 0)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		name, hop, _ := strings.Cut(entry.Value, ":")
		if name != "" {
			result.Transport = name
			if hop == "" {
				result.Nexthop = result.Domain
			}
		}
		if hop != "" {
			result.Nexthop = hop
		}
		result.note("transport_maps", entry.Source, entry.Value)
		return nil
	}
	return nil
}

// SplitExtension divides user+extension at the first delimiter; owner- and -request names and double-bounce stay whole.
func (r *Router) SplitExtension(local string) (base, extension string, has bool) {
	if r.delimiter == "" || strings.EqualFold(local, "postmaster") || strings.EqualFold(local, "mailer-daemon") || strings.EqualFold(local, r.view.String("double_bounce_sender")) {
		return local, "", false
	}
	if strings.Contains(r.delimiter, "-") && r.view.Bool("owner_request_special") {
		lower := strings.ToLower(local)
		if strings.HasPrefix(lower, "owner-") || strings.HasSuffix(lower, "-request") {
			return local, "", false
		}
	}
	i := strings.IndexAny(local, r.delimiter)
	if i <= 0 {
		return local, "", false
	}
	return local[:i], local[i:], true
}

// ErrLoop tells that aliases lead to more addresses than virtual_alias_expansion_limit, or deeper than virtual_alias_recursion_limit.
var ErrLoop = errors.New("aliases lead too far")
