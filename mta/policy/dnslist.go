package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"postilion/resolve"
)

// zone is a DNS list: its domain, and which of its answers count.
type zone struct {
	// text is as written, domain without the filter.
	text, domain string
	filter       *addressPattern
}

// parseZone reads domain or domain=pattern, with a pattern such as 127.0.0.[2..11;15].
func parseZone(text string) (*zone, error) {
	z := &zone{text: text, domain: text}
	domain, pattern, has := strings.Cut(text, "=")
	if !has {
		return z, nil
	}
	filter, err := parseAddressPattern(pattern)
	if err != nil {
		return nil, fmt.Errorf("bad DNSXL filter in %q: %w", text, err)
	}
	z.domain, z.filter = domain, filter
	return z, nil
}

// addressPattern matches IPv4 addresses octet by octet.
type addressPattern [4]octetSet

// octetSet holds the octets that match, as bits.
type octetSet [4]uint64

func (s *octetSet) add(from, to int) {
	for n := from; n <= to; n++ {
		s[n/64] |= 1 << (n % 64)
	}
}

func (s *octetSet) has(n byte) bool { return s[n/64]>>(n%64)&1 != 0 }

func (p *addressPattern) matches(address netip.Addr) bool {
	octets := address.Unmap()
	if !octets.Is4() {
		return false
	}
	for i, octet := range octets.As4() {
		if !p[i].has(octet) {
			return false
		}
	}
	return true
}

func parseAddressPattern(text string) (*addressPattern, error) {
	p := new(addressPattern)
	rest := text
	for i := range p {
		var part string
		if strings.HasPrefix(rest, "[") {
			inner, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				return nil, fmt.Errorf("no ] in %q", text)
			}
			part, rest = inner, after
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			part, rest = rest[:end], rest[end:]
			if strings.ContainsAny(part, ";") {
				return nil, fmt.Errorf("bad octet %q in %q", part, text)
			}
		}
		for _, span := range strings.Split(part, ";") {
			low, high, isRange := strings.Cut(span, "..")
			from, err := parseOctet(low)
			to := from
			if err == nil && isRange {
				to, err = parseOctet(high)
			}
			if err != nil || to < from {
				return nil, fmt.Errorf("bad octet %q in %q", span, text)
			}
			p[i].add(from, to)
		}
		if i < 3 {
			if !strings.HasPrefix(rest, ".") {
				return nil, fmt.Errorf("%q has too few octets", text)
			}
			rest = rest[1:]
		}
	}
	if rest != "" {
		return nil, fmt.Errorf("%q has too many octets", text)
	}
	return p, nil
}

func parseOctet(text string) (int, error) {
	if len(text) > 3 || !allDigits(text) {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.Atoi(text)
	if err != nil || n > 255 {
		return 0, strconv.ErrRange
	}
	return n, nil
}

// ask looks a name up in a list. reason is the list's text about it.
func (e *evaluation) ask(z *zone, name string) (listed bool, reason string, err error) {
	query := name + "." + z.domain
	addresses, err := e.rules.options.Resolver.AddressesOfType(e.ctx, query, false)
	if err != nil {
		if notFound(err) {
			return false, "", nil
		}
		e.warn("%s: RBL lookup error: %v", query, err)
		return false, "", err
	}
	for _, address := range addresses {
		if z.filter == nil || z.filter.matches(address) {
			listed = true
			e.detail = query + " " + address.String()
			break
		}
	}
	if !listed {
		return false, "", nil
	}
	texts, err := e.rules.options.Resolver.Texts(e.ctx, query)
	if err == nil && len(texts) > 0 {
		reason = texts[0]
	}
	return true, reason, nil
}

// reversed gives an address in the form in which lists are asked (RFC 5782 sections 2.1 and 2.4).
func reversed(address netip.Addr) string {
	address = address.Unmap()
	var b strings.Builder
	if address.Is4() {
		octets := address.As4()
		for i := 3; i >= 0; i-- {
			if i < 3 {
				b.WriteByte('.')
			}
			b.WriteString(strconv.Itoa(int(octets[i])))
		}
		return b.String()
	}
	octets := address.As16()
	const digits = "0123456789abcdef"
	for i := 15; i >= 0; i-- {
		if i < 15 {
			b.WriteByte('.')
		}
		b.WriteByte(digits[octets[i]&15])
		b.WriteByte('.')
		b.WriteByte(digits[octets[i]>>4])
	}
	return b.String()
}

func rejectListedClient(e *evaluation, z *zone) verdict {
	listed, reason, err := e.ask(z, reversed(e.session.ClientAddress))
	if err != nil || !listed {
		return dunno
	}
	return e.rejectListed(z, e.clientAddress(), clientClass, reason)
}

// rejectOldLists is reject_maps_rbl, which names its lists in maps_rbl_domains.
func rejectOldLists(e *evaluation, _ subject) verdict {
	for _, domain := range e.rules.view.List("maps_rbl_domains") {
		if result := rejectListedClient(e, &zone{text: domain, domain: domain}); result != dunno {
			return result
		}
	}
	return dunno
}

// listName is the domain of what is looked up; ok is false for what no list can hold.
func listName(name string) (string, bool) {
	domain := strings.TrimSuffix(name[strings.LastIndexByte(name, '@')+1:], ".")
	if domain == "" || domain[0] == '[' || isAddress(domain) {
		return "", false
	}
	return domain, true
}

func (e *evaluation) rejectListedName(z *zone, name, class string) verdict {
	domain, ok := listName(name)
	if !ok {
		return dunno
	}
	listed, reason, err := e.ask(z, domain)
	if err != nil || !listed {
		return dunno
	}
	return e.rejectListed(z, name, class, reason)
}

// strangersMail tells that a recipient is none of ours: lists of friends must not open the relay.
func (e *evaluation) strangersMail() bool {
	if e.stage != Rcpt || e.session.Recipient == "" {
		return false
	}
	result, err := e.destination()
	return err != nil || result != permit
}

func permitListedClient(e *evaluation, z *zone) verdict {
	return e.permitListed(z, reversed(e.session.ClientAddress))
}

func (e *evaluation) permitListedName(z *zone, name string) verdict {
	domain, ok := listName(name)
	if !ok {
		return dunno
	}
	return e.permitListed(z, domain)
}

func (e *evaluation) permitListed(z *zone, name string) verdict {
	if e.strangersMail() {
		return dunno
	}
	listed, _, err := e.ask(z, name)
	switch {
	case errors.Is(err, resolve.ErrTemporary):
		return e.deferIfReject(450, "4.7.1", "<%s>: %s rejected: Service unavailable; allowlist lookup failure: %s", e.client(), clientClass, z.text)
	case listed:
		return permit
	}
	return dunno
}

// rejectListed words the refusal by rbl_reply_maps or default_rbl_reply.
func (e *evaluation) rejectListed(z *zone, what, class, reason string) verdict {
	template := e.rules.view.String("default_rbl_reply")
	for _, t := range e.rules.blocklistReplies {
		entry, ok, err := t.Find(e.ctx, z.text)
		if err != nil {
			return e.lookupError(what, err)
		}
		if ok {
			template = entry.Value
			break
		}
	}
	text, err := expand(template, func(name string) (string, bool) { return e.macro(name, z, what, class, reason) }, e.rules.printable)
	if err != nil {
		e.warn("rbl_reply_maps: %s: %v", z.text, err)
	}
	code, rest, ok := replyCode(text)
	if !ok {
		e.warn("rbl response code configuration error: %s", text)
		code, rest = 450, "Service unavailable"
	}
	status, rest := splitStatus("4.7.1", rest)
	return e.reject(code, status, "%s", orElse(rest, "Service unavailable"))
}

// macro gives the value of a $name in a reply about a list.
func (e *evaluation) macro(name string, z *zone, what, class, reason string) (string, bool) {
	s := e.session
	value := ""
	switch name {
	case "rbl_code":
		value = strconv.Itoa(e.rules.codes.blocklist)
	case "rbl_domain":
		value = z.domain
	case "rbl_reason", "rbl_txt":
		value = reason
	case "rbl_what":
		value = what
	case "rbl_class":
		value = class
	case "client":
		value = e.client()
	case "client_address":
		value = e.clientAddress()
	case "client_name":
		value = s.ClientName
	case "reverse_client_name":
		value = s.ReverseName
	case "helo_name":
		value = s.Helo
	case "sender", "sender_name", "sender_domain":
		if !s.HasSender {
			return "", false
		}
		value = partOf(orElse(s.Sender, "<>"), name)
	case "recipient", "recipient_name", "recipient_domain":
		value = partOf(s.Recipient, name)
	default:
		e.warn("unknown macro name %q in expansion request", name)
		return "", false
	}
	return value, value != ""
}

// partOf takes the part of an address that a macro name asks for.
func partOf(address, name string) string {
	at := strings.LastIndexByte(address, '@')
	switch {
	case strings.HasSuffix(name, "_name") && at >= 0:
		return address[:at]
	case strings.HasSuffix(name, "_domain"):
		if at < 0 {
			return ""
		}
		return address[at+1:]
	}
	return address
}
