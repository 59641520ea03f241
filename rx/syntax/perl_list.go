package syntax

import "strings"

// list reads a bracket expression. Bytes and classes are gathered in one set; a hyphen makes a range only between two
// single bytes.
func (p *perlParser) list() (*Node, bool, error) {
	for mark, op := range map[string]Op{"[[:<:]]": OpWordStart, "[[:>:]]": OpWordEnd} {
		if p.has(mark) {
			p.i += len(mark)
			return &Node{Op: op}, true, nil
		}
	}
	if err := p.classOutsideList(); err != nil {
		return nil, false, err
	}
	p.i++
	set := &Set{}
	negate := p.has("^")
	if negate {
		p.i++
	}
	for first := true; ; first = false {
		if !p.skipInList() {
			return nil, false, p.fail("missing terminating ] for character class")
		}
		if p.s[p.i] == ']' && !first && !p.quoted {
			p.i++
			break
		}
		if err := p.member(set); err != nil {
			return nil, false, err
		}
	}
	if negate {
		set.Negate()
	}
	return &Node{Op: OpSet, Set: set}, true, nil
}

// classOutsideList refuses [:alpha:] standing alone, as PCRE2 does: it is always a mistake.
func (p *perlParser) classOutsideList() error {
	for _, mark := range []string{":", ".", "="} {
		if !p.has("[" + mark) {
			continue
		}
		rest := p.s[p.i+2:]
		end := strings.Index(rest, mark+"]")
		if end >= 0 && !strings.ContainsAny(rest[:end], "[]\\") && (end > 0 || mark == ":") && strings.Trim(rest[:end], "^abcdefghijklmnopqrstuvwxyz") == "" {
			return p.fail("POSIX named classes are supported only within a class")
		}
	}
	return nil
}

// skipInList passes over \Q, \E and, with (?xx), blanks. It says whether something follows.
func (p *perlParser) skipInList() bool {
	for p.more() {
		switch {
		case p.has(`\E`):
			p.quoted = false
			p.i += 2
		case !p.quoted && p.has(`\Q`):
			p.quoted = true
			p.i += 2
		case !p.quoted && p.allSpace && (p.s[p.i] == ' ' || p.s[p.i] == '\t'):
			p.i++
		default:
			return true
		}
	}
	return false
}

// member reads one byte, class or range into set.
func (p *perlParser) member(set *Set) error {
	lo, class, err := p.element()
	if err != nil {
		return err
	}
	if class != nil {
		set.AddSet(class)
		return p.noRangeAfterClass()
	}
	if !p.rangeFollows() {
		set.AddByte(lo, p.fold())
		return nil
	}
	p.i++
	if !p.skipInList() {
		return p.fail("missing terminating ] for character class")
	}
	hi, class, err := p.element()
	switch {
	case err != nil:
		return err
	case class != nil:
		return p.fail("invalid range in character class")
	case hi < lo:
		p.i--
		return p.fail("range out of order in character class")
	}
	set.AddRange(lo, hi, p.fold())
	return nil
}

// rangeFollows says whether the next byte is a hyphen that is not the last of the list.
func (p *perlParser) rangeFollows() bool {
	if !p.skipInList() || p.quoted || p.s[p.i] != '-' {
		return false
	}
	ahead := *p
	ahead.i++
	return !ahead.skipInList() || ahead.quoted || ahead.s[ahead.i] != ']'
}

func (p *perlParser) noRangeAfterClass() error {
	if p.rangeFollows() {
		return p.fail("invalid range in character class")
	}
	return nil
}

// element reads one byte or one class.
func (p *perlParser) element() (byte, *Set, error) {
	c := p.s[p.i]
	if p.quoted {
		p.i++
		return c, nil, nil
	}
	if c == '[' {
		if set, err := p.namedClass(); set != nil || err != nil {
			return 0, set, err
		}
	}
	if c != '\\' {
		p.i++
		return c, nil, nil
	}
	if p.i+1 >= len(p.s) {
		p.i++
		return 0, nil, p.fail(`\ at end of pattern`)
	}
	next := p.s[p.i+1]
	if set, ok := perlClass(next); ok {
		p.i += 2
		return 0, set, nil
	}
	switch next {
	case 'g':
		p.i += 2
		return 'g', nil, nil
	case 'p', 'P':
		set, err := p.property()
		return 0, set, err
	case 'N':
		p.i += 2
		return 0, nil, p.fail(`\N is not supported in a class`)
	case 'A', 'B', 'C', 'G', 'K', 'R', 'X', 'Z', 'k', 'z':
		p.i += 2
		return 0, nil, p.fail("escape sequence is invalid in character class")
	}
	b, err := p.escapedByte(true)
	return b, nil, err
}

// namedClass reads [:name:] inside a list; nil without error means that the bracket is an ordinary byte.
func (p *perlParser) namedClass() (*Set, error) {
	rest := p.s[p.i+1:]
	if rest == "" || !strings.Contains(":.=", rest[:1]) {
		return nil, nil
	}
	end := strings.Index(rest[1:], rest[:1]+"]")
	if end < 0 || strings.ContainsAny(rest[1:1+end], `[]\`) {
		return nil, nil
	}
	name := rest[1 : 1+end]
	if rest[0] != ':' {
		return nil, p.fail("POSIX collating elements are not supported")
	}
	negate := strings.HasPrefix(name, "^")
	name = strings.TrimPrefix(name, "^")
	set, ok := class(name)
	if name == "word" {
		set, ok = perlClass('w')
	}
	if name == "ascii" {
		set, ok = setOf(func(b byte) bool { return b < 0x80 }), true
	}
	if !ok {
		p.i += 2
		return nil, p.fail("unknown POSIX class name")
	}
	if p.fold() && (name == "upper" || name == "lower") {
		set, _ = class("alpha")
	}
	if negate {
		set = negated(set)
	}
	p.i += 1 + 1 + end + 2
	return set, nil
}
