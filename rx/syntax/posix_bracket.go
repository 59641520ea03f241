package syntax

import "strings"

// bracket reads a bracket expression up to its closing bracket; the opening one is the current token. With case folding
// the GNU library turns the pattern to upper case before it looks at ranges, so [a-Z] is a range there and [_-z] is not.
func (p *posixParser) bracket() (*Set, error) {
	b := &bracketReader{p: p, set: &Set{}}
	if p.i >= len(p.s) {
		return nil, b.fail(reasonPattern)
	}
	negate := strings.HasPrefix(p.s[p.i:], "^")
	if negate {
		p.i++
		if p.newline {
			b.set.Add('\n')
		}
	}
	for first := true; ; first = false {
		if p.i >= len(p.s) {
			return nil, b.fail(reasonBracket)
		}
		if p.s[p.i] == ']' && !first {
			p.i++
			break
		}
		if err := b.member(first); err != nil {
			return nil, err
		}
	}
	if negate {
		b.set.Negate()
	}
	return b.set, nil
}

type bracketReader struct {
	p   *posixParser
	set *Set
}

func (b *bracketReader) fail(reason string) error { return &Error{b.p.i, reason} }

// member reads one byte, class or range.
func (b *bracketReader) member(first bool) error {
	p := b.p
	lo, class, err := b.element(first)
	if err != nil {
		return err
	}
	if class != nil {
		b.set.AddSet(class)
		return nil
	}
	rest := p.s[p.i:]
	if rest == "" {
		return b.fail(reasonBracket)
	}
	if rest[0] != '-' || strings.HasPrefix(rest, "-]") {
		b.set.AddByte(lo, p.fold)
		return nil
	}
	p.i++
	if p.i >= len(p.s) {
		return b.fail(reasonBracket)
	}
	hi, class, err := b.element(true)
	if err != nil {
		return err
	}
	if class != nil || lo > hi {
		return b.fail(reasonRange)
	}
	b.set.AddRange(lo, hi, p.fold)
	return nil
}

// element reads one byte, or a class. A hyphen that is neither first nor last nor in a range is an error.
func (b *bracketReader) element(hyphenOK bool) (byte, *Set, error) {
	p := b.p
	c := p.s[p.i]
	if c == '[' && p.i+1 < len(p.s) && strings.IndexByte(":.=", p.s[p.i+1]) >= 0 {
		return b.symbol(p.s[p.i+1])
	}
	p.i++
	if c == '-' && !hyphenOK && !strings.HasPrefix(p.s[p.i:], "]") {
		return 0, nil, b.fail(reasonRange)
	}
	return b.upper(c), nil, nil
}

func (b *bracketReader) upper(c byte) byte {
	if b.p.fold && 'a' <= c && c <= 'z' {
		return c - 0x20
	}
	return c
}

// symbol reads [:class:], [.element.] or [=equivalence=].
func (b *bracketReader) symbol(kind byte) (byte, *Set, error) {
	p := b.p
	start := p.i + 2
	end := strings.Index(p.s[start:], string(kind)+"]")
	if end < 0 || end >= 32 {
		return 0, nil, b.fail(reasonBracket)
	}
	name := p.s[start : start+end]
	p.i = start + end + 2
	if kind == ':' {
		set, ok := class(name)
		if !ok {
			return 0, nil, b.fail(reasonClass)
		}
		if p.fold && (name == "upper" || name == "lower") {
			set, _ = class("alpha")
		}
		return 0, set, nil
	}
	if len(name) != 1 {
		return 0, nil, b.fail(reasonCollate)
	}
	c := b.upper(name[0])
	if kind == '=' {
		set := &Set{}
		set.AddByte(c, p.fold)
		return 0, set, nil
	}
	return c, nil, nil
}
