package address

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// PathMax is the longest path that ParsePath reads, in bytes. RFC 5321 section 4.5.3.1.3 asks for 256.
const PathMax = 1024

// Errors of ParsePath and ParseMailbox.
var (
	ErrTooLong  = errors.New("address is too long")
	ErrSyntax   = errors.New("bad address syntax")
	ErrNotASCII = errors.New("address needs SMTPUTF8")
)

// Mailbox is an address of an SMTP envelope. The zero Mailbox is the null path <>.
type Mailbox struct {
	// Local is the local part with quoting removed: what it means, not how it was written.
	Local string
	// Domain is as written; an address literal has its brackets. It is empty for a local part alone, such as postmaster.
	Domain string
}

// IsNull tells whether this is the null path.
func (m Mailbox) IsNull() bool { return m.Local == "" && m.Domain == "" }

// IsASCII tells whether the address can be sent without SMTPUTF8 (RFC 6531).
func (m Mailbox) IsASCII() bool { return isASCII(m.Local) && isASCII(m.Domain) }

// String writes the address, its local part quoted when it must be. The null path is the empty string.
func (m Mailbox) String() string {
	if m.IsNull() {
		return ""
	}
	local := QuoteLocal(m.Local)
	if m.Domain == "" {
		return local
	}
	return local + "@" + m.Domain
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// ParsePath reads the path at the beginning of s, as MAIL FROM and RCPT TO have it: "<" [source route ":"] mailbox ">" (RFC 5321 section
// 4.1.2). It returns what follows. "<>" is the null path, "<local>" has no domain. A source route is read and dropped. smtputf8 allows
// what RFC 6531 allows.
func ParsePath(s string, smtputf8 bool) (m Mailbox, rest string, err error) {
	if s == "" || s[0] != '<' {
		return m, s, ErrSyntax
	}
	p := pathReader{s: s, pos: 1, utf8: smtputf8}
	if p.peek() == '@' && !p.route() {
		return m, s, p.failure()
	}
	if p.peek() != '>' {
		if m, err = p.mailbox(); err != nil {
			return Mailbox{}, s, err
		}
	}
	if p.peek() != '>' || p.pos > PathMax {
		return Mailbox{}, s, p.failure()
	}
	return m, s[p.pos+1:], nil
}

// ParseMailbox reads s, which is a mailbox and nothing else: local@domain or a local part alone.
func ParseMailbox(s string, smtputf8 bool) (Mailbox, error) {
	p := pathReader{s: s, utf8: smtputf8}
	m, err := p.mailbox()
	if err == nil && (p.pos != len(s) || p.pos > PathMax) {
		err = p.failure()
	}
	if err != nil {
		return Mailbox{}, err
	}
	return m, nil
}

type pathReader struct {
	s    string
	pos  int
	utf8 bool
	// wide tells that a byte stood in the way that SMTPUTF8 would have allowed.
	wide bool
}

func (p *pathReader) peek() byte {
	if p.pos >= len(p.s) {
		return 0
	}
	return p.s[p.pos]
}

func (p *pathReader) failure() error {
	switch {
	case p.pos > PathMax:
		return ErrTooLong
	case p.wide && !p.utf8:
		return ErrNotASCII
	}
	return ErrSyntax
}

// run takes bytes as long as accept allows them, and UTF-8 if that is allowed.
func (p *pathReader) run(accept func(byte) bool) string {
	start := p.pos
	for p.pos < len(p.s) && p.pos <= PathMax {
		if c := p.s[p.pos]; c < utf8.RuneSelf {
			if !accept(c) {
				break
			}
			p.pos++
			continue
		}
		r, n := utf8.DecodeRuneInString(p.s[p.pos:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		if !p.utf8 {
			p.wide = true
			break
		}
		p.pos += n
	}
	return p.s[start:p.pos]
}

func isAtext(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isDomainByte(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '_'
}

func (p *pathReader) mailbox() (m Mailbox, err error) {
	ok := false
	if p.peek() == '"' {
		m.Local, ok = p.quoted()
	} else {
		m.Local, ok = p.dotted(isAtext)
	}
	if !ok {
		return m, p.failure()
	}
	if p.peek() == '@' {
		p.pos++
		if m.Domain, ok = p.domain(); !ok {
			return m, p.failure()
		}
	}
	return m, nil
}

// dotted reads words with single dots between them.
func (p *pathReader) dotted(accept func(byte) bool) (string, bool) {
	start := p.pos
	for {
		if p.run(accept) == "" {
			return "", false
		}
		if p.peek() != '.' {
			return p.s[start:p.pos], true
		}
		p.pos++
	}
}

func (p *pathReader) quoted() (string, bool) {
	p.pos++
	var text strings.Builder
	for {
		text.WriteString(p.run(func(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }))
		switch p.peek() {
		case '"':
			p.pos++
			return text.String(), text.Len() > 0
		case '\\':
			p.pos++
			c := p.peek()
			if c < ' ' || c >= 0x7f {
				return "", false
			}
			text.WriteByte(c)
			p.pos++
		default:
			return "", false
		}
	}
}

func (p *pathReader) domain() (string, bool) {
	if p.peek() != '[' {
		return p.dotted(isDomainByte)
	}
	start := p.pos
	p.pos++
	p.run(func(c byte) bool { return c > ' ' && c < 0x7f && c != '[' && c != ']' && c != '\\' })
	if p.peek() != ']' {
		return "", false
	}
	p.pos++
	literal := p.s[start:p.pos]
	_, ok := ParseLiteral(literal)
	return literal, ok
}

// route reads "@a,@b:" and drops it.
func (p *pathReader) route() bool {
	for p.peek() == '@' {
		p.pos++
		if _, ok := p.domain(); !ok {
			return false
		}
		if p.peek() == ',' {
			p.pos++
		}
	}
	if p.peek() != ':' {
		return false
	}
	p.pos++
	return p.peek() != '>'
}

// ParseLiteral reads an address literal with its brackets: [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321 section 4.1.3).
func ParseLiteral(literal string) (netip.Addr, bool) {
	inner, ok := strings.CutPrefix(literal, "[")
	if !ok {
		return netip.Addr{}, false
	}
	if inner, ok = strings.CutSuffix(inner, "]"); !ok {
		return netip.Addr{}, false
	}
	if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
		a, err := netip.ParseAddr(inner[5:])
		return a, err == nil && a.Is6() && a.Zone() == ""
	}
	a, err := netip.ParseAddr(inner)
	return a, err == nil && a.Is4()
}

// QuoteLocal writes a local part as it stands in an address: as it is when it is atoms with dots between them, else quoted.
func QuoteLocal(local string) string {
	p := pathReader{s: local, utf8: true}
	if dotted, ok := p.dotted(isAtext); ok && len(dotted) == len(local) {
		return local
	}
	var quoted strings.Builder
	quoted.WriteByte('"')
	for i := 0; i < len(local); i++ {
		if local[i] == '"' || local[i] == '\\' {
			quoted.WriteByte('\\')
		}
		quoted.WriteByte(local[i])
	}
	quoted.WriteByte('"')
	return quoted.String()
}
