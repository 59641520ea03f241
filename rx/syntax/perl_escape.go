package syntax

import "strings"

// escape reads an item that begins with a backslash, outside a list.
func (p *perlParser) escape() (*Node, bool, error) {
	if p.i+1 >= len(p.s) {
		p.i++
		return nil, false, p.fail(`\ at end of pattern`)
	}
	c := p.s[p.i+1]
	if op, ok := perlAssertion(c); ok {
		p.i += 2
		if op == OpKeep && p.looks > 0 {
			p.keep = p.i
		}
		return &Node{Op: op}, false, nil
	}
	if set, ok := perlClass(c); ok {
		p.i += 2
		return &Node{Op: OpSet, Set: set}, true, nil
	}
	switch c {
	case 'R':
		p.i += 2
		return lineBreak(), true, nil
	case 'N':
		if p.i+2 < len(p.s) && p.s[p.i+2] == '{' {
			if _, _, length, err := (&perlParser{s: p.s, i: p.i + 2}).quantifier(); err != nil || length == 0 {
				p.i += 2
				return nil, false, p.fail(`PCRE2 does not support \F, \L, \l, \N{name}, \U, or \u`)
			}
		}
		p.i += 2
		return &Node{Op: OpSet, Set: negated(&Set{1 << '\n'})}, true, nil
	case 'C':
		p.i += 2
		return &Node{Op: OpSet, Set: negated(&Set{})}, true, nil
	case 'X':
		return nil, false, p.fail(`\X is not supported`)
	case 'p', 'P':
		set, err := p.property()
		return &Node{Op: OpSet, Set: set}, true, err
	case 'g', 'k':
		n, err := p.namedReference(c)
		return n, true, err
	}
	if '1' <= c && c <= '9' {
		if n := p.numberedReference(); n != nil {
			return n, true, nil
		}
	}
	b, err := p.escapedByte(false)
	if err != nil {
		return nil, false, err
	}
	return literal(b, p.fold()), true, nil
}

func perlAssertion(c byte) (Op, bool) {
	switch c {
	case 'A':
		return OpBeginText, true
	case 'z':
		return OpEndText, true
	case 'Z':
		return OpEndTextLine, true
	case 'b':
		return OpWordBoundary, true
	case 'B':
		return OpNoWordBoundary, true
	case 'G':
		return OpBeginSearch, true
	case 'K':
		return OpKeep, true
	}
	return 0, false
}

// lineBreak is \R: CRLF, or one vertical space, as a whole.
func lineBreak() *Node {
	vertical, _ := perlClass('v')
	crlf := &Node{Op: OpLiteral, Text: []byte("\r\n")}
	either := &Node{Op: OpAlternate, Sub: []*Node{crlf, {Op: OpSet, Set: vertical}}}
	return &Node{Op: OpAtomic, Sub: []*Node{either}}
}

// property reads \pL, \p{Lu}, \p{^Lu} and \P forms.
func (p *perlParser) property() (*Set, error) {
	negate := p.s[p.i+1] == 'P'
	p.i += 2
	if !p.more() {
		return nil, p.fail(`malformed \P or \p sequence`)
	}
	name := p.s[p.i : p.i+1]
	length := 1
	if name == "{" {
		end := strings.IndexByte(p.s[p.i:], '}')
		if end < 0 {
			return nil, p.fail(`malformed \P or \p sequence`)
		}
		name, length = p.s[p.i+1:p.i+end], end+1
		if strings.HasPrefix(name, "^") {
			name, negate = name[1:], !negate
		}
	}
	p.i += length
	set, ok := property(name)
	if !ok {
		return nil, p.fail(`unknown property after \P or \p`)
	}
	if negate {
		set = negated(set)
	}
	return set, nil
}

// numberedReference reads \1 and its like; nil means that the digits are an octal number.
func (p *perlParser) numberedReference() *Node {
	end := p.i + 1
	for end < len(p.s) && isDigit(p.s[end]) {
		end++
	}
	number := decimal(p.s[p.i+1 : end])
	if number >= 10 && p.s[p.i+1] < '8' && number > p.captures {
		return nil
	}
	p.i = end
	return p.backref(number)
}

// namedReference reads \g1, \g{1}, \g{-1}, \g{name}, \k<name>, \k'name' and \k{name}.
func (p *perlParser) namedReference(letter byte) (*Node, error) {
	p.i += 2
	if !p.more() {
		return nil, p.fail(`a numbered reference must not be zero`)
	}
	open := p.s[p.i]
	if letter == 'k' {
		ends := map[byte]byte{'<': '>', '\'': '\'', '{': '}'}
		end, ok := ends[open]
		if !ok {
			return nil, p.fail(`\k is not followed by a braced, angle-bracketed, or quoted name`)
		}
		p.i++
		name, err := p.name(end)
		if err != nil {
			return nil, err
		}
		return p.backrefName(name), nil
	}
	if open == '<' || open == '\'' {
		return nil, p.fail("recursion and subroutine calls are not supported")
	}
	braced := open == '{'
	if braced {
		p.i++
	}
	start := p.i
	for p.more() && (isDigit(p.s[p.i]) || p.i == start && (p.s[p.i] == '-' || p.s[p.i] == '+')) {
		p.i++
	}
	text := p.s[start:p.i]
	if text == "" && braced {
		name, err := p.name('}')
		if err != nil {
			return nil, err
		}
		return p.backrefName(name), nil
	}
	if text == "" {
		return nil, p.fail(`\g is not followed by a braced, angle-bracketed, or quoted name/number or by a plain number`)
	}
	if braced {
		if !p.more() || p.s[p.i] != '}' {
			return nil, p.fail(`\g is not followed by a braced, angle-bracketed, or quoted name/number or by a plain number`)
		}
		p.i++
	}
	number := decimal(strings.TrimLeft(text, "+-"))
	switch text[0] {
	case '-':
		number = p.captures + 1 - number
	case '+':
		number += p.captures
	}
	if number <= 0 {
		return nil, p.fail("reference to non-existent subpattern")
	}
	return p.backref(number), nil
}

// escapedByte reads an escape that stands for one byte, inside or outside a list.
func (p *perlParser) escapedByte(inList bool) (byte, error) {
	c := p.s[p.i+1]
	p.i += 2
	switch c {
	case 'a':
		return '\a', nil
	case 'e':
		return 0x1b, nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'b':
		if inList {
			return '\b', nil
		}
	case 'c':
		return p.controlByte()
	case 'x':
		return p.hexByte()
	case 'o':
		if !p.has("{") {
			return 0, p.fail(`missing opening brace after \o`)
		}
		return p.bracedNumber(8)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		return p.octalByte(c)
	case '8', '9':
		return c, nil
	case 'F', 'L', 'l', 'U', 'u':
		return 0, p.fail(`PCRE2 does not support \F, \L, \l, \N{name}, \U, or \u`)
	}
	if isLetter(c) {
		p.i--
		return 0, p.fail(`unrecognized character follows \`)
	}
	return c, nil
}

func (p *perlParser) controlByte() (byte, error) {
	if !p.more() {
		return 0, p.fail(`\c at end of pattern`)
	}
	c := p.s[p.i]
	p.i++
	if c < ' ' || c > '~' {
		return 0, p.fail(`\c must be followed by a printable ASCII character`)
	}
	if 'a' <= c && c <= 'z' {
		c -= 0x20
	}
	return c ^ 0x40, nil
}

func (p *perlParser) octalByte(first byte) (byte, error) {
	n := int(first - '0')
	for range 2 {
		if !p.more() || p.s[p.i] < '0' || p.s[p.i] > '7' {
			break
		}
		n = n*8 + int(p.s[p.i]-'0')
		p.i++
	}
	if n > 0xff {
		return 0, p.fail(`octal value is greater than \377 in 8-bit non-UTF-8 mode`)
	}
	return byte(n), nil
}

func (p *perlParser) hexByte() (byte, error) {
	if p.has("{") {
		return p.bracedNumber(16)
	}
	n := 0
	for range 2 {
		if !p.more() || !isHexDigit(p.s[p.i]) {
			break
		}
		n = n*16 + hexValue(p.s[p.i])
		p.i++
	}
	return byte(n), nil
}

func hexValue(c byte) int {
	if isDigit(c) {
		return int(c - '0')
	}
	return int(c|0x20-'a') + 10
}

func (p *perlParser) bracedNumber(base int) (byte, error) {
	end := strings.IndexByte(p.s[p.i:], '}')
	if end < 0 {
		p.i = len(p.s)
		return 0, p.fail(`missing terminating brace`)
	}
	digits := p.s[p.i+1 : p.i+end]
	if digits == "" {
		p.i += end
		return 0, p.fail(`digits missing in \x{} or \o{} or \N{U+}`)
	}
	n := 0
	for i := range len(digits) {
		c := digits[i]
		if !isHexDigit(c) || hexValue(c) >= base {
			p.i += 1 + i
			if base == 8 {
				return 0, p.fail(`non-octal character in \o{} (closing brace missing?)`)
			}
			return 0, p.fail(`non-hex character in \x{} (closing brace missing?)`)
		}
		n = n*base + hexValue(c)
		if n > 0xff {
			p.i += 2 + i
			return 0, p.fail(`character code point value in \x{} or \o{} is too large`)
		}
	}
	p.i += end + 1
	return byte(n), nil
}
