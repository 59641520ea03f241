package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"postilion/mta/route"
)

// verdict is what a restriction gives.
type verdict uint8

const (
	dunno verdict = iota
	permit
	refuse
)

// subject is what a reply is about: a name, and what kind of thing it names.
type subject struct{ name, class string }

// The kinds of things that replies are about.
const (
	clientClass      = "Client host"
	reverseClass     = "Unverified Client host"
	certificateClass = "Client certificate"
	loginClass       = "SASL login name"
	heloClass        = "Helo command"
	senderClass      = "Sender address"
	recipientClass   = "Recipient address"
	etrnClass        = "Etrn command"
	dataClass        = "Data command"
	endOfDataClass   = "End-of-data"
)

// maxDepth bounds restriction classes and access tables that lead to each other.
const maxDepth = 100

// evaluation is one call of Check.
type evaluation struct {
	rules    *Rules
	ctx      context.Context
	session  *Session
	stage    Stage
	verify   bool
	decision Decision
	// detail is what the present restriction has to say for the trace.
	detail string

	// bare is the check that a type:table without one stands for in the present list, "" where none does.
	bare                        string
	depth, warnDepth            int
	ifPermit, ifReject          deferral
	senderListed, rcptListed    bool
	discard                     bool
	resolvedAddress, resolved2  string
	resolution, otherResolution *route.Resolution
}

func (e *evaluation) check() {
	s, r := e.session, e.rules
	if e.stage == Mail {
		s.memory.discard = false
	}
	e.discard = s.memory.discard
	result := dunno
	switch e.stage {
	case Connect:
		s.memory = memory{}
		e.discard = false
		if !r.delayReject {
			result = e.checkClient()
		}
	case Helo:
		if !r.delayReject {
			result = e.checkHelo()
		}
	case Mail:
		if !r.delayReject {
			result = e.checkSender()
		}
	case Rcpt:
		result = e.checkRecipient()
	case Data:
		result = e.checkAlone(r.data, subject{"DATA", dataClass})
	case EndOfData:
		result = e.checkAlone(r.endOfData, subject{"END-OF-MESSAGE", endOfDataClass})
	case Etrn:
		result = e.checkEtrn()
	}
	// A refusal takes the place of DISCARD: what comes behind it is checked again.
	if result != refuse {
		s.memory.discard = e.discard
	}
}

func (e *evaluation) begin(bare string, carried deferral) {
	e.bare, e.depth, e.warnDepth, e.ifReject, e.ifPermit = bare, 0, 0, deferral{}, carried
}

func (e *evaluation) checkClient() verdict {
	e.begin("check_client_access", deferral{})
	result := e.run(e.rules.client, subject{e.client(), clientClass})
	e.session.memory.client = e.ifPermit
	return result
}

func (e *evaluation) checkHelo() verdict {
	e.begin("check_helo_access", e.session.memory.client)
	result := dunno
	if e.session.Helo != "" || e.rules.delayReject {
		result = e.run(e.rules.helo, subject{e.session.Helo, heloClass})
	}
	e.session.memory.helo = e.ifPermit
	return result
}

func (e *evaluation) checkSender() verdict {
	e.begin("check_sender_access", e.session.memory.helo)
	result := e.run(e.rules.sender, subject{e.session.Sender, senderClass})
	e.session.memory.sender = e.ifPermit
	if result != refuse && e.session.Sender != "" && !e.senderListed && !e.discard && e.rules.rejectUnlistedSender {
		result = e.builtin("smtpd_reject_unlisted_sender", rejectUnlistedSender, subject{e.session.Sender, senderClass})
	}
	return result
}

func (e *evaluation) checkRecipient() verdict {
	r := e.rules
	// RFC 5321 section 4.5.1 wants this one accepted.
	if strings.EqualFold(e.session.Recipient, "postmaster") {
		return permit
	}
	about := subject{e.session.Recipient, recipientClass}
	if r.delayReject {
		if e.checkClient() == refuse || e.checkHelo() == refuse || e.checkSender() == refuse {
			return refuse
		}
	}
	e.begin("check_recipient_access", e.session.memory.sender)
	if r.openRelay != nil {
		// The log has the reason already, once.
		return e.refuse(e.reply(451, "4.3.5", "Server configuration error"))
	}
	lists := [2]*program{r.recipient, r.relay}
	if r.relayFirst {
		lists[0], lists[1] = lists[1], lists[0]
	}
	result := dunno
	for _, list := range lists {
		e.depth, e.warnDepth, e.ifReject = 0, 0, deferral{}
		if result = e.run(list, about); result == refuse {
			return refuse
		}
	}
	if result = e.settle(); result == refuse {
		return refuse
	}
	if !e.rcptListed && !e.discard && r.rejectUnlistedRcpt {
		result = e.builtin("smtpd_reject_unlisted_recipient", rejectUnlistedRecipient, about)
	}
	return result
}

// settle turns permission into a deferral when something could not be found out.
func (e *evaluation) settle() verdict {
	if !e.ifPermit.active {
		return dunno
	}
	d := e.ifPermit
	return e.reject(d.code, d.status, "%s", d.text)
}

// checkAlone evaluates a list about no single recipient when there are several.
func (e *evaluation) checkAlone(list *program, about subject) verdict {
	if e.session.RecipientCount > 1 {
		saved := e.session.Recipient
		e.session.Recipient = ""
		defer func() { e.session.Recipient = saved }()
	}
	e.begin("", deferral{})
	if e.run(list, about) == refuse {
		return refuse
	}
	return e.settle()
}

func (e *evaluation) checkEtrn() verdict {
	if e.rules.delayReject && (e.checkClient() == refuse || e.checkHelo() == refuse) {
		return refuse
	}
	e.begin("check_etrn_access", e.session.memory.helo)
	if e.run(e.rules.etrn, subject{e.session.ETRN, etrnClass}) == refuse {
		return refuse
	}
	return e.settle()
}

// run evaluates a list until a member decides.
func (e *evaluation) run(list *program, about subject) verdict {
	if list == nil || len(list.members) == 0 {
		return dunno
	}
	saved := e.depth
	e.depth++
	defer func() { e.depth = saved }()
	if e.depth > maxDepth {
		return e.serverError(fmt.Errorf("%s: restrictions lead to each other more than %d deep", list.where, maxDepth))
	}
	if e.decision.Trace == nil {
		e.decision.Trace = make([]Step, 0, 16)
	}
	for i := range list.members {
		if e.discard {
			break
		}
		m := &list.members[i]
		if m.warn {
			if e.warnDepth == 0 {
				e.warnDepth = e.depth
			}
			continue
		}
		result := e.step(m, list.where, about)
		if e.warnDepth >= e.depth {
			e.warnDepth = 0
		}
		if result != dunno {
			return result
		}
	}
	return dunno
}

func (e *evaluation) step(m *member, where string, about subject) verdict {
	at := len(e.decision.Trace)
	e.decision.Trace = append(e.decision.Trace, Step{Restriction: m.text, Where: where})
	e.detail = ""
	result := m.apply(e, about)
	step := &e.decision.Trace[at]
	step.Detail, e.detail = e.detail, ""
	switch result {
	case dunno:
		step.Result = "DUNNO"
	case permit:
		step.Result = "OK"
	default:
		step.Result = e.decision.Reply
	}
	return result
}

// builtin applies a check that follows from a parameter of its own.
func (e *evaluation) builtin(parameter string, apply func(*evaluation, subject) verdict, about subject) verdict {
	return e.step(&member{text: parameter, apply: apply}, e.rules.wheres[parameter], about)
}

// client is the client's name and address as replies show them.
func (e *evaluation) client() string {
	return e.session.ClientName + "[" + e.clientAddress() + "]"
}

func (e *evaluation) clientAddress() string { return e.session.ClientAddress.Unmap().String() }

// reject refuses, warns only after warn_if_reject, or says what an earlier defer_if_reject asked for.
func (e *evaluation) reject(code int, status, format string, arguments ...any) verdict {
	reply := e.reply(code, status, fmt.Sprintf(format, arguments...))
	if e.warnDepth > 0 {
		e.decision.Warnings = append(e.decision.Warnings, reply)
		return dunno
	}
	return e.refuse(reply)
}

func (e *evaluation) refuse(reply string) verdict {
	if e.ifReject.active && reply[0] == '5' {
		d := e.ifReject
		e.ifReject = deferral{}
		return e.refuse(e.reply(d.code, d.status, d.text))
	}
	e.decision.Action, e.decision.Reply = Refuse, reply
	if strings.HasPrefix(reply, "421") || strings.HasPrefix(reply, "521") {
		e.decision.Action = Drop
	}
	return refuse
}

// reply makes a reply whose code and enhanced status code agree.
func (e *evaluation) reply(code int, status, text string) string {
	if code < 400 || code > 599 {
		e.warn("response code configuration error: %d %s %s", code, status, text)
		code, status, text = 450, "4.7.1", "Service unavailable"
	}
	class := byte('0' + code/100)
	if e.rules.softBounce && class == '5' {
		code, class = code-100, '4'
	}
	b := make([]byte, 0, 8+len(status)+len(text))
	b = fmt.Appendf(b, "%d %c%s ", code, class, status[1:])
	b = append(b, text...)
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	return string(b)
}

// serverError refuses because the configuration cannot be used; warn_if_reject does not soften that.
func (e *evaluation) serverError(problem error) verdict {
	if e.decision.Problem == nil {
		e.decision.Problem = problem
	}
	return e.refuse(e.reply(451, "4.3.5", "Server configuration error"))
}

// lookupError refuses because a table gave no answer about name.
func (e *evaluation) lookupError(name string, problem error) verdict {
	if e.decision.Problem == nil {
		e.decision.Problem = problem
	}
	return e.refuse(e.reply(451, "4.3.0", "<"+name+">: Temporary lookup failure"))
}

// deferIfPermit keeps a refusal for the case that mail would be accepted; a tempfail action of defer, and warn_if_reject, make it one at once.
func (e *evaluation) deferIfPermit(later bool, code int, status, format string, arguments ...any) verdict {
	if !later || e.warnDepth > 0 {
		return e.reject(code, status, format, arguments...)
	}
	keep(&e.ifPermit, code, status, fmt.Sprintf(format, arguments...))
	return dunno
}

func (e *evaluation) deferIfReject(code int, status, format string, arguments ...any) verdict {
	keep(&e.ifReject, code, status, fmt.Sprintf(format, arguments...))
	return dunno
}

// keep keeps the first of several.
func keep(d *deferral, code int, status, text string) {
	if !d.active {
		*d = deferral{true, code, status, text}
	}
}

func (e *evaluation) warn(format string, arguments ...any) {
	e.rules.options.Warn(fmt.Sprintf(format, arguments...))
}

func (e *evaluation) effect(kind, argument, text string) {
	e.decision.Effects = append(e.decision.Effects, Effect{Kind: kind, Argument: argument, Text: text})
}

// resolve tells where an address goes. The last two answers are kept, which are those about sender and recipient.
func (e *evaluation) resolve(address string) (*route.Resolution, error) {
	switch {
	case e.resolution != nil && e.resolvedAddress == address:
		return e.resolution, nil
	case e.otherResolution != nil && e.resolved2 == address:
		return e.otherResolution, nil
	}
	result, err := e.rules.router.Resolve(e.ctx, e.session.Sender, address)
	if err != nil {
		return nil, err
	}
	e.otherResolution, e.resolved2 = e.resolution, e.resolvedAddress
	e.resolution, e.resolvedAddress = result, address
	return result, nil
}

// final tells of the classes for which this is the last host.
func final(class route.Class) bool {
	return class == route.Local || class == route.VirtualAlias || class == route.VirtualMailbox
}

var errNoAddress = errors.New("not an address")

// literalAddress reads the address of [192.0.2.1] or [IPv6:2001:db8::1].
func literalAddress(text string) (netip.Addr, error) {
	inner, ok := strings.CutPrefix(text, "[")
	if !ok || !strings.HasSuffix(inner, "]") {
		return netip.Addr{}, errNoAddress
	}
	return mailAddress(strings.TrimSuffix(inner, "]"))
}

// mailAddress reads 192.0.2.1 or IPv6:2001:db8::1, the forms between the brackets of an address literal (RFC 5321 section 4.1.3).
func mailAddress(text string) (netip.Addr, error) {
	v6 := len(text) > 5 && strings.EqualFold(text[:5], "IPv6:")
	if v6 {
		text = text[5:]
	}
	address, ok := parseAddress(text)
	if !ok || address.Is4() == v6 {
		return netip.Addr{}, errNoAddress
	}
	return address, nil
}

// parseAddress reads a network address without brackets. Zeros in front of an octet are let pass, as in valid_hostaddr(3); a first octet of 0 is not.
func parseAddress(text string) (netip.Addr, bool) {
	if strings.IndexByte(text, ':') >= 0 {
		address, err := netip.ParseAddr(text)
		return address, err == nil && address.Zone() == ""
	}
	var octets [4]byte
	n, digits, at := 0, 0, 0
	for i := range len(text) {
		switch c := text[i]; {
		case c >= '0' && c <= '9':
			n, digits = n*10+int(c-'0'), digits+1
			if n > 255 {
				return netip.Addr{}, false
			}
		case c == '.' && digits > 0 && at < 3:
			octets[at] = byte(n)
			n, digits, at = 0, 0, at+1
		default:
			return netip.Addr{}, false
		}
	}
	if at != 3 || digits == 0 || octets[0] == 0 {
		return netip.Addr{}, false
	}
	octets[3] = byte(n)
	return netip.AddrFrom4(octets), true
}
