package syntax

import "unicode"

// Set is a set of bytes.
type Set [4]uint64

// Has says whether b is in the set.
func (s *Set) Has(b byte) bool { return s[b>>6]>>(b&63)&1 != 0 }

// Add puts b into the set.
func (s *Set) Add(b byte) { s[b>>6] |= 1 << (b & 63) }

// AddByte puts b into the set, in both cases when fold is set.
func (s *Set) AddByte(b byte, fold bool) {
	s.Add(b)
	if fold && isLetter(b) {
		s.Add(b ^ 0x20)
	}
}

// AddRange puts lo to hi, both included, into the set.
func (s *Set) AddRange(lo, hi byte, fold bool) {
	for c := int(lo); c <= int(hi); c++ {
		s.AddByte(byte(c), fold)
	}
}

// AddSet puts all of t into the set.
func (s *Set) AddSet(t *Set) {
	for i := range s {
		s[i] |= t[i]
	}
}

// Negate turns the set into its complement.
func (s *Set) Negate() {
	for i := range s {
		s[i] = ^s[i]
	}
}

// Empty says whether no byte is in the set.
func (s *Set) Empty() bool { return *s == Set{} }

func setOf(test func(b byte) bool) *Set {
	s := &Set{}
	for c := range 256 {
		if test(byte(c)) {
			s.Add(byte(c))
		}
	}
	return s
}

func negated(s *Set) *Set {
	t := *s
	t.Negate()
	return &t
}

// IsWord says whether b is a letter, a digit or an underscore.
func IsWord(b byte) bool { return isLetter(b) || isDigit(b) || b == '_' }

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

func isSpace(b byte) bool { return b == ' ' || '\t' <= b && b <= '\r' }

func isHexDigit(b byte) bool { return isDigit(b) || 'a' <= b|0x20 && b|0x20 <= 'f' }

// class gives the set of a POSIX class name in the C locale.
func class(name string) (*Set, bool) {
	var test func(b byte) bool
	switch name {
	case "alpha":
		test = isLetter
	case "digit":
		test = isDigit
	case "alnum":
		test = func(b byte) bool { return isLetter(b) || isDigit(b) }
	case "upper":
		test = func(b byte) bool { return 'A' <= b && b <= 'Z' }
	case "lower":
		test = func(b byte) bool { return 'a' <= b && b <= 'z' }
	case "space":
		test = isSpace
	case "blank":
		test = func(b byte) bool { return b == ' ' || b == '\t' }
	case "punct":
		test = func(b byte) bool { return '!' <= b && b <= '~' && !isLetter(b) && !isDigit(b) }
	case "print":
		test = func(b byte) bool { return ' ' <= b && b <= '~' }
	case "graph":
		test = func(b byte) bool { return '!' <= b && b <= '~' }
	case "cntrl":
		test = func(b byte) bool { return b < ' ' || b == 0x7f }
	case "xdigit":
		test = isHexDigit
	default:
		return nil, false
	}
	return setOf(test), true
}

// perlClass gives the set of \d \s \w \h \v and their capitals.
func perlClass(letter byte) (*Set, bool) {
	var set *Set
	switch letter | 0x20 {
	case 'd':
		set = setOf(isDigit)
	case 's':
		set = setOf(isSpace)
	case 'w':
		set = setOf(IsWord)
	case 'h':
		set = setOf(func(b byte) bool { return b == ' ' || b == '\t' || b == 0xa0 })
	case 'v':
		set = setOf(func(b byte) bool { return '\n' <= b && b <= '\r' || b == 0x85 })
	default:
		return nil, false
	}
	if letter&0x20 == 0 {
		set = negated(set)
	}
	return set, true
}

// property gives the bytes that have a Unicode property when taken as Latin-1, as PCRE2 takes them outside UTF mode.
func property(name string) (*Set, bool) {
	if name == "Any" {
		return setOf(func(byte) bool { return true }), true
	}
	if name == "L&" {
		return setOf(func(b byte) bool { return unicode.In(rune(b), unicode.Lu, unicode.Ll, unicode.Lt) }), true
	}
	table, ok := unicode.Categories[name]
	if !ok {
		table, ok = unicode.Scripts[name]
	}
	if !ok {
		return nil, false
	}
	return setOf(func(b byte) bool { return unicode.Is(table, rune(b)) }), true
}
