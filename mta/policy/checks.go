package policy

import (
	"fmt"
	"strings"

	"postilion/mta/route"
	"postilion/table"
)

func rejectAll(e *evaluation, about subject) verdict {
	return e.reject(e.rules.codes.reject, "5.7.1", "<%s>: %s rejected: Access denied", about.name, about.class)
}

func deferAll(e *evaluation, about subject) verdict {
	return e.reject(e.rules.codes.deferral, "4.3.2", "<%s>: %s rejected: Try again later", about.name, about.class)
}

func deferIfPermit(e *evaluation, about subject) verdict {
	return e.deferIfPermit(true, 450, "4.7.0", "<%s>: %s rejected: defer_if_permit requested", about.name, about.class)
}

func deferIfReject(e *evaluation, about subject) verdict {
	return e.deferIfReject(450, "4.7.0", "<%s>: %s rejected: defer_if_reject requested", about.name, about.class)
}

func permitMynetworks(e *evaluation, about subject) verdict {
	match, err := e.rules.networks.host(e.ctx, e.session.ClientName, e.session.ClientAddress)
	if err != nil {
		return e.lookupError(about.name, err)
	}
	if match.Found {
		e.detail = match.Pattern
		return permit
	}
	return dunno
}

func permitInetInterfaces(e *evaluation, _ subject) verdict {
	if e.rules.local[e.session.ClientAddress.Unmap()] {
		return permit
	}
	return dunno
}

func permitAuthenticated(e *evaluation, _ subject) verdict {
	if e.session.SASLUsername != "" && e.rules.saslEnabled {
		e.detail = e.session.SASLUsername
		return permit
	}
	return dunno
}

func permitAllCertificates(e *evaluation, _ subject) verdict {
	if e.session.Encryption.Trusted {
		return permit
	}
	return dunno
}

func permitCertificates(e *evaluation, about subject) verdict {
	c := &e.session.Encryption
	for _, fingerprint := range []string{c.Fingerprint, c.PublicKeyFingerprint} {
		if fingerprint == "" {
			continue
		}
		for _, t := range e.rules.relayCertificates {
			entry, ok, err := t.Find(e.ctx, fingerprint)
			if err != nil {
				return e.lookupError(about.name, err)
			}
			if ok {
				e.detail = entry.Source
				return permit
			}
		}
	}
	return dunno
}

func checkCertificateAccess(e *evaluation, t table.Table, _ subject) verdict {
	c := &e.session.Encryption
	for _, fingerprint := range []string{c.Fingerprint, c.PublicKeyFingerprint} {
		if fingerprint == "" {
			continue
		}
		if f := e.access(t, fingerprint, false, subject{e.client(), certificateClass}); f.ok {
			return f.verdict
		}
	}
	return dunno
}

func checkSenderAccess(e *evaluation, t table.Table, _ subject) verdict {
	about := subject{e.session.Sender, senderClass}
	switch {
	case e.session.Sender != "":
		return e.accessMail(t, e.session.Sender, about)
	case e.session.HasSender && e.rules.nullKey != "":
		return e.access(t, e.rules.nullKey, false, about).verdict
	}
	return dunno
}

func (e *evaluation) accessName(t table.Table, name, class string) verdict {
	if name == "" {
		return dunno
	}
	return e.accessDomain(t, name, false, subject{name, class}).verdict
}

// forbidPermit refuses the use of OK where the client alone decides what is looked up.
func (e *evaluation) forbidPermit(restriction, target string, result verdict) verdict {
	if result != permit || e.discard {
		return result
	}
	return e.serverError(fmt.Errorf("restriction %s returns OK for %s, which is not allowed for security reasons: "+
		"use DUNNO instead of OK if you want to make an exception", restriction, target))
}

func rejectUnknownClient(e *evaluation, _ subject) verdict {
	return e.rejectUnnamed(e.session.NameStatus, "4.7.25", "hostname")
}

func rejectUnknownReverse(e *evaluation, _ subject) verdict {
	return e.rejectUnnamed(e.session.ReverseNameStatus, "4.7.1", "reverse hostname")
}

func (e *evaluation) rejectUnnamed(status NameStatus, enhanced, what string) verdict {
	if status == NameFound {
		return dunno
	}
	code := e.rules.codes.unknownClient
	if status == NameUnknownNow {
		code = 450
	}
	return e.reject(code, enhanced, "Client host rejected: cannot find your %s, [%s]", what, e.clientAddress())
}

func rejectPipelining(e *evaluation, about subject) verdict {
	if !e.session.Pipelined {
		return dunno
	}
	return e.reject(503, "5.5.0", "<%s>: %s rejected: Improper use of SMTP command pipelining", about.name, about.class)
}

func rejectPlaintext(e *evaluation, _ subject) verdict {
	if e.session.Encryption.Protocol != "" {
		return dunno
	}
	return e.reject(e.rules.codes.plaintext, "5.7.1", "Session encryption is required")
}

func rejectMultiBounce(e *evaluation, about subject) verdict {
	if !e.session.HasSender || e.session.Sender != "" || e.session.RecipientCount < 2 {
		return dunno
	}
	return e.reject(e.rules.codes.multiBounce, "5.5.3", "<%s>: %s rejected: Multi-recipient bounce", about.name, about.class)
}

func permitNakedAddress(e *evaluation, about subject) verdict {
	name := e.session.Helo
	if name == "" || strings.Trim(name, "0123456789.:") != "" || !isAddress(name) {
		return dunno
	}
	return permit
}

func rejectInvalidName(e *evaluation, about subject) verdict {
	if about.name[0] == '[' {
		return rejectInvalidLiteral(e, about)
	}
	if name := trimDot(about.name); ValidHostname(name) || isAddress(name) {
		return dunno
	}
	return e.reject(e.rules.codes.badName, "5.5.2", "<%s>: %s rejected: Invalid name", about.name, about.class)
}

func rejectInvalidLiteral(e *evaluation, about subject) verdict {
	if _, err := literalAddress(about.name); err == nil {
		return dunno
	}
	return e.reject(e.rules.codes.badName, "5.5.2", "<%s>: %s rejected: invalid ip address", about.name, about.class)
}

func rejectNonFQDNName(e *evaluation, about subject) verdict {
	if about.name[0] == '[' {
		return rejectInvalidLiteral(e, about)
	}
	if qualified(trimDot(about.name)) {
		return dunno
	}
	return e.reject(e.rules.codes.nonFQDN, "5.5.2", "<%s>: %s rejected: need fully-qualified hostname", about.name, about.class)
}

func rejectNonFQDNAddress(e *evaluation, about subject) verdict {
	at := strings.LastIndexByte(about.name, '@')
	domain := about.name[at+1:]
	if at < 0 {
		domain = ""
	}
	if strings.HasPrefix(domain, "[") || qualified(asciiDomain(trimDot(domain))) {
		return dunno
	}
	return e.reject(e.rules.codes.nonFQDN, "4.5.2", "<%s>: %s rejected: need fully-qualified address", about.name, about.class)
}

// destination tells whether a recipient is for this host or for a relay domain.
func (e *evaluation) destination() (verdict, error) {
	resolved, err := e.resolve(e.session.Recipient)
	if err != nil {
		return refuse, err
	}
	if resolved.Routed && !e.rules.untrustedRouting {
		return dunno, nil
	}
	if final(resolved.Class) || resolved.Class == route.Relay {
		return permit, nil
	}
	return dunno, nil
}

func permitAuthDestination(e *evaluation, _ subject) verdict {
	if e.session.Recipient == "" {
		return dunno
	}
	result, err := e.destination()
	if err != nil {
		return e.lookupError(e.session.Recipient, err)
	}
	return result
}

func rejectUnauthDestination(e *evaluation, _ subject) verdict {
	return e.refuseRelay(e.rules.codes.relay, "5.7.1")
}

// checkRelayDomains is how Postfix before 2.2 kept relays closed.
func checkRelayDomains(e *evaluation, about subject) verdict {
	e.warn("support for restriction \"check_relay_domains\" will be removed from %s; use \"reject_unauth_destination\" instead", e.rules.view.String("mail_name"))
	if e.session.Recipient == "" {
		return dunno
	}
	switch result, err := e.destination(); {
	case err != nil:
		return e.lookupError(e.session.Recipient, err)
	case result == permit:
		return permit
	}
	return e.reject(e.rules.codes.relay, "5.7.1", "<%s>: %s rejected: Relay access denied", about.name, about.class)
}

func deferUnauthDestination(e *evaluation, _ subject) verdict {
	return e.refuseRelay(e.rules.codes.relay-100, "4.7.1")
}

func (e *evaluation) refuseRelay(code int, status string) verdict {
	if e.session.Recipient == "" {
		return dunno
	}
	switch result, err := e.destination(); {
	case err != nil:
		return e.lookupError(e.session.Recipient, err)
	case result == permit:
		return dunno
	}
	return e.reject(code, status, "<%s>: Relay access denied", e.session.Recipient)
}

func rejectUnlistedSender(e *evaluation, about subject) verdict {
	if e.warnDepth == 0 {
		e.senderListed = true
	}
	listing, err := e.rules.router.ListedSender(e.ctx, about.name)
	return e.rejectUnlisted(listing, err, "5.1.0", about)
}

func rejectUnlistedRecipient(e *evaluation, about subject) verdict {
	if e.warnDepth == 0 {
		e.rcptListed = true
	}
	listing, err := e.rules.router.Listed(e.ctx, about.name)
	return e.rejectUnlisted(listing, err, "5.1.1", about)
}

func (e *evaluation) rejectUnlisted(listing route.Listing, err error, status string, about subject) verdict {
	if err != nil {
		return e.lookupError(about.name, err)
	}
	if listing.Listed {
		return dunno
	}
	e.detail = listing.Where
	if listing.Refusal != "" {
		code := 550
		if listing.Temporary {
			code, status = 450, "4"+status[1:]
		}
		status, text := splitStatus(status, listing.Refusal)
		return e.reject(code, fitStatus(status, about.class), "<%s>: %s rejected: %s", about.name, about.class, text)
	}
	c := &e.rules.codes
	code := c.unknownLocal
	switch listing.Class {
	case route.VirtualAlias:
		code = c.unknownAlias
	case route.VirtualMailbox:
		code = c.unknownMailbox
	case route.Relay:
		code = c.unknownRelay
	}
	in := ""
	if e.rules.showTable {
		in = " in " + listing.Table
	}
	return e.reject(code, status, "<%s>: %s rejected: User unknown%s", about.name, about.class, in)
}

// probe tells whether an address can be delivered to. What the error and the retry transport would say needs no probe. Without somebody who
// makes probes all other addresses are unverified.
func (e *evaluation) probe(address string) (Probe, string, error) {
	resolved, err := e.resolve(address)
	if err != nil {
		return Unverified, "", err
	}
	switch resolved.Transport {
	case "error":
		_, reason := splitStatus("", resolved.Nexthop)
		return Undeliverable, reason, nil
	case "retry":
		_, reason := splitStatus("", resolved.Nexthop)
		return Unverified, reason, nil
	}
	if e.rules.options.Verifier == nil {
		return Unverified, "Address verification in progress", nil
	}
	result, reason := e.rules.options.Verifier.VerifyAddress(e.ctx, resolved.Recipient)
	return result, reason, nil
}

// rejectUnverified refuses what cannot be delivered to, and defers what is not known to be deliverable.
func rejectUnverified(e *evaluation, about subject) verdict {
	c := &e.rules.codes
	rejectCode, deferCode, later, status := c.recipientReject, c.recipientDefer, c.recipientLater, ".1.1"
	if about.class == senderClass {
		rejectCode, deferCode, later, status = c.senderReject, c.senderDefer, c.senderLater, ".1.7"
	}
	result, reason, err := e.probe(about.name)
	if err != nil {
		return e.lookupError(about.name, err)
	}
	switch result {
	case Deliverable:
		return dunno
	case Undeliverable:
		return e.reject(rejectCode, "5"+status, "<%s>: %s rejected: undeliverable address: %s", about.name, about.class, reason)
	}
	return e.deferIfPermit(later, deferCode, "4"+status, "<%s>: %s rejected: unverified address: %s", about.name, about.class, reason)
}

func rejectLoginMismatch(e *evaluation, about subject) verdict {
	if e.session.SASLUsername == "" {
		return rejectUnauthenticatedMismatch(e, about)
	}
	return rejectAuthenticatedMismatch(e, about)
}

func rejectAuthenticatedMismatch(e *evaluation, about subject) verdict {
	return e.rejectStranger(about, false)
}

func rejectKnownMismatch(e *evaluation, about subject) verdict {
	if e.session.SASLUsername == "" {
		return rejectUnauthenticatedMismatch(e, about)
	}
	return e.rejectStranger(about, true)
}

// owner gives the logins that a sender address belongs to.
func (e *evaluation) owner(address string) (logins string, found bool, err error) {
	resolved, err := e.resolve(address)
	if err != nil {
		return "", false, err
	}
	entry, found, err := e.rules.router.Find(e.ctx, e.rules.owners, resolved.Recipient)
	if found {
		e.detail = entry.Value + " (" + entry.Source + ")"
	}
	return entry.Value, found, err
}

// rejectStranger refuses a login that does not own the sender address.
func (e *evaluation) rejectStranger(about subject, allowUnowned bool) verdict {
	if !e.rules.saslEnabled {
		e.warn("restriction on sender logins ignored: no SASL support")
		return dunno
	}
	if e.session.SASLUsername == "" || e.rules.owners.Empty() {
		return dunno
	}
	logins, found, err := e.owner(about.name)
	if err != nil {
		return e.lookupError(about.name, err)
	}
	if !found && allowUnowned {
		return dunno
	}
	for _, login := range strings.FieldsFunc(logins, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' }) {
		if strings.EqualFold(login, e.session.SASLUsername) {
			return dunno
		}
	}
	return e.reject(553, "5.7.1", "<%s>: %s rejected: not owned by user %s", about.name, about.class, e.session.SASLUsername)
}

// rejectUnauthenticatedMismatch refuses a sender address with an owner to a client that did not log in.
func rejectUnauthenticatedMismatch(e *evaluation, about subject) verdict {
	if !e.rules.saslEnabled {
		e.warn("restriction on sender logins ignored: no SASL support")
		return dunno
	}
	if e.session.SASLUsername != "" || e.rules.owners.Empty() {
		return dunno
	}
	_, found, err := e.owner(about.name)
	if err != nil {
		return e.lookupError(about.name, err)
	}
	if !found {
		return dunno
	}
	return e.reject(553, "5.7.1", "<%s>: %s rejected: not logged in", about.name, about.class)
}
