package smtp

import (
	"bytes"
	"net/netip"
	"strings"
)

// pathRules say which addresses a service takes beyond the plain ones.
type pathRules struct {
	strict, nullDomain, numericDomain, minUser bool
}

// parsePath reads the argument of MAIL FROM: and RCPT TO: in the lenient way of Postfix: brackets may be missing, comments and source routes
// are skipped, quoted local parts lose their quotes, and blanks around operators do not matter. The address comes back in its internal form;
// ok is false where Postfix says "bad address syntax". An empty address is ok; the caller decides.
func parsePath(raw []byte, rules pathRules) (address string, ok bool) {
	text := raw
	if len(text) >= 2 && text[0] == '<' && text[len(text)-1] == '>' {
		text = text[1 : len(text)-1]
	}
	if len(text) > 0 && text[0] == '@' {
		if colon := bytes.IndexByte(text, ':'); colon >= 0 {
			text = text[colon+1:]
		}
	}
	var buffer [128]byte
	scan := pathScan{text: text, out: buffer[:0]}
	scan.run()
	if scan.several || rules.strict && (scan.junk || len(raw) == 0 || raw[0] != '<') {
		return "", false
	}
	address = string(scan.out)
	if address == "" {
		return "", true
	}
	if rules.strict && address[0] == '@' || !rules.minUser && address[0] == '-' || !rules.validDomain(address) {
		return "", false
	}
	return address, true
}

// pathScan reads the tokens of RFC 822 that make up one address.
type pathScan struct {
	text, out []byte
	i         int
	// word: the token before was a word, so that another one begins a second address.
	word bool
	// comma: an address list went on.
	comma bool
	// group is the offset in out after a colon, where a group's member begins.
	group int
	// several addresses, or junk beside the address, were seen.
	several, junk bool
}

func (p *pathScan) run() {
	for p.i < len(p.text) {
		switch c := p.text[p.i]; c {
		case ' ', '\t', '\r', '\n', '\v', '\f':
			p.i++
		case '(':
			p.junk = true
			p.comment()
		case '"':
			p.startWord()
			p.quoted()
		case '[':
			p.startWord()
			p.literal()
		case '<':
			if len(p.out) > 0 {
				p.junk, p.out, p.group, p.word = true, p.out[:0], 0, false
			}
			p.i++
		case '>':
			p.i++
		case ')':
			p.junk = true
			p.i++
		case ',':
			p.comma = p.comma || len(p.out) > 0
			p.word = false
			p.i++
		case ';':
			p.junk = true
			p.out = append(p.out[:0], p.out[p.group:]...)
			p.group, p.word = 0, true
			p.i++
		case '@', '.', ':':
			p.out = append(p.out, c)
			if c == ':' {
				p.group = len(p.out)
			}
			p.word = false
			p.i++
		default:
			p.startWord()
			p.atom()
		}
	}
}

func (p *pathScan) startWord() {
	p.several = p.several || p.word || p.comma
	p.word = true
}

func (p *pathScan) atom() {
	for p.i < len(p.text) {
		c := p.text[p.i]
		if isSpace(c) || strings.IndexByte("()<>@,;:\".[]", c) >= 0 && c != ']' {
			return
		}
		if c == '\\' {
			if p.i++; p.i >= len(p.text) {
				return
			}
			c = p.text[p.i]
		}
		p.out = append(p.out, c)
		p.i++
	}
}

func (p *pathScan) quoted() {
	for p.i++; p.i < len(p.text); p.i++ {
		c := p.text[p.i]
		if c == '"' {
			p.i++
			return
		}
		if c == '\\' && p.i+1 < len(p.text) {
			p.i++
			c = p.text[p.i]
		}
		p.out = append(p.out, c)
	}
}

func (p *pathScan) literal() {
	end := bytes.IndexByte(p.text[p.i:], ']')
	if end < 0 {
		p.out = append(append(p.out, p.text[p.i:]...), ']')
		p.i = len(p.text)
		return
	}
	p.out = append(p.out, p.text[p.i:p.i+end+1]...)
	p.i += end + 1
}

func (p *pathScan) comment() {
	for depth := 0; p.i < len(p.text); {
		c := p.text[p.i]
		p.i++
		switch c {
		case '\\':
			p.i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return
			}
		}
	}
}

func (rules pathRules) validDomain(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return true
	}
	domain := strings.TrimSuffix(address[at+1:], ".")
	switch {
	case domain == "":
		// With a percent sign in the local part the domain is that of the rest.
		return rules.nullDomain || strings.IndexByte(address[:at], '%') > 0
	case domain[0] == '[':
		return validLiteral(domain)
	case numeric(domain):
		return rules.numericDomain
	}
	return validHostname(domain)
}

// numeric tells whether a domain consists of digits and dots, which is no domain.
func numeric(domain string) bool {
	return strings.Trim(domain, "0123456789.") == ""
}

func validLiteral(domain string) bool {
	inner, ok := strings.CutSuffix(domain[1:], "]")
	return ok && validAddressLiteral(inner)
}

// validAddressLiteral accepts an IPv4 address, or an IPv6 address after "IPv6:".
func validAddressLiteral(text string) bool {
	if len(text) > 5 && equalFold(text[:5], "ipv6:") {
		a, err := netip.ParseAddr(text[5:])
		return err == nil && a.Is6() && a.Zone() == ""
	}
	a, err := netip.ParseAddr(text)
	return err == nil && a.Is4()
}

// validHostname is Postfix's notion of a domain name: letters, digits, "_" and "-", labels of 1 to 63 octets that do not begin or end with
// "-", 255 octets in all, not only digits. Labels beyond ASCII are taken as they are.
func validHostname(name string) bool {
	if name == "" || len(name) > 255 || numeric(name) {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if c < 128 && c != '-' && c != '_' && (c < '0' || c > '9') && (toLower(c) < 'a' || toLower(c) > 'z') {
				return false
			}
		}
	}
	return true
}

// QuoteLocal returns an address in its external form: the local part in quotes when it needs them.
func QuoteLocal(address string) string {
	at := strings.LastIndexByte(address, '@')
	local, domain := address, ""
	if at >= 0 {
		local, domain = address[:at], address[at:]
	}
	if address == "" || plainLocal(local, at >= 0) {
		return address
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' || c == '\r' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	b.WriteString(domain)
	return b.String()
}

func plainLocal(local string, hasDomain bool) bool {
	if local == "" {
		return !hasDomain
	}
	if local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return false
	}
	for i := range len(local) {
		if c := local[i]; c <= ' ' || c == 127 || strings.IndexByte("()<>@,;:\\\"[]", c) >= 0 {
			return false
		}
	}
	return true
}
