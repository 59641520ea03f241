package syntax

import (
	"strings"
)

// perlParser reads the Perl notation. Flags change while it reads: (?i) holds to the end of its group.
type perlParser struct {
	s        string
	i        int
	flags    Flags
	noCap    bool // (?n)
	allSpace bool // (?xx): blanks inside lists too
	dupNames bool // (?J)
	quoted   bool // between \Q and \E
	depth    int
	looks    int // look-around groups around this place
	captures int
	names    map[string]int
	pending  []reference
	behind   []lookbehind
	keep     int // where a misplaced \K ends, 0: none
}

// lookbehind is checked at the end, as PCRE2 does: other errors come first.
type lookbehind struct {
	body   *Node
	offset int
}

// reference is a group number or name that was used; whether the group exists is known at the end.
type reference struct {
	node   *Node
	name   string
	offset int
}

func parsePerl(pattern string, flags Flags) (*Pattern, error) {
	p := &perlParser{s: pattern, flags: flags, names: map[string]int{}}
	if p.has("(*") {
		if name := p.s[2:]; len(name) > 0 && 'A' <= name[0] && name[0] <= 'Z' && !strings.HasPrefix(name, "F)") && !strings.HasPrefix(name, "FAIL)") {
			return nil, p.fail("backtracking verbs and pattern options such as (*UTF) are not supported")
		}
	}
	root, err := p.alternation()
	if err != nil {
		return nil, err
	}
	if p.i < len(p.s) {
		return nil, p.fail("unmatched closing parenthesis")
	}
	for _, look := range p.behind {
		if err := fixedWidths(look.body, look.offset); err != nil {
			return nil, err
		}
	}
	if p.keep > 0 {
		return nil, &Error{p.keep, `\K is not allowed in lookarounds (but see PCRE2_EXTRA_ALLOW_LOOKAROUND_BSK)`}
	}
	for _, ref := range p.pending {
		if ref.name != "" {
			index, ok := p.names[ref.name]
			if !ok {
				return nil, &Error{ref.offset, "reference to non-existent subpattern"}
			}
			ref.node.Index = index
		}
		if ref.node.Index > p.captures {
			return nil, &Error{ref.offset, "reference to non-existent subpattern"}
		}
	}
	return &Pattern{Root: root, Captures: p.captures, Names: p.names, Anchored: flags&Anchored != 0}, nil
}

func (p *perlParser) fail(reason string) error { return &Error{p.i, reason} }

func (p *perlParser) has(prefix string) bool { return strings.HasPrefix(p.s[p.i:], prefix) }

func (p *perlParser) more() bool { return p.i < len(p.s) }

func (p *perlParser) fold() bool { return p.flags&FoldCase != 0 }

// alternation reads branches up to the closing parenthesis, which it leaves, or to the end.
func (p *perlParser) alternation() (*Node, error) {
	all, err := p.branches()
	if err != nil {
		return nil, err
	}
	return alternate(all), nil
}

func (p *perlParser) branches() ([]*Node, error) {
	var all []*Node
	for {
		branch, err := p.branch()
		if err != nil {
			return nil, err
		}
		all = append(all, branch)
		if !p.more() || p.s[p.i] != '|' {
			return all, nil
		}
		p.i++
	}
}

func (p *perlParser) branch() (*Node, error) {
	var nodes []*Node
	for {
		if err := p.skipIgnored(); err != nil {
			return nil, err
		}
		if !p.more() || !p.quoted && (p.s[p.i] == '|' || p.s[p.i] == ')') {
			return concat(nodes), nil
		}
		atom, quantifiable, err := p.atom()
		if err != nil {
			return nil, err
		}
		if atom == nil {
			continue
		}
		if err := p.skipIgnored(); err != nil {
			return nil, err
		}
		atom, err = p.quantified(atom, quantifiable)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, atom)
	}
}

// skipIgnored passes over what is not part of the expression: \E, empty \Q\E, (?#...), and with x white space and
// comments.
func (p *perlParser) skipIgnored() error {
	for p.more() {
		switch {
		case p.quoted && p.has(`\E`):
			p.quoted = false
			p.i += 2
		case p.quoted:
			return nil
		case p.has(`\E`):
			p.i += 2
		case p.has(`\Q`):
			p.quoted = true
			p.i += 2
		case p.has("(?#"):
			end := strings.IndexByte(p.s[p.i:], ')')
			if end < 0 {
				p.i = len(p.s)
				return p.fail("missing ) after (?# comment")
			}
			p.i += end + 1
		case p.flags&Extended != 0 && isSpace(p.s[p.i]):
			p.i++
		case p.flags&Extended != 0 && p.s[p.i] == '#':
			end := strings.IndexByte(p.s[p.i:], '\n')
			if end < 0 {
				p.i = len(p.s)
				return nil
			}
			p.i += end + 1
		default:
			return nil
		}
	}
	return nil
}

// quantified reads a quantifier after atom, if there is one.
func (p *perlParser) quantified(atom *Node, quantifiable bool) (*Node, error) {
	if p.quoted || !p.more() {
		return atom, nil
	}
	least, most, length, err := p.quantifier()
	if err != nil {
		return nil, err
	}
	if length == 0 {
		return atom, nil
	}
	p.i += length
	if !quantifiable {
		return nil, p.fail("quantifier does not follow a repeatable item")
	}
	mode := Greedy
	if p.flags&Ungreedy != 0 {
		mode = Lazy
	}
	if p.more() && p.s[p.i] == '?' {
		p.i++
		mode = Lazy - mode
	} else if p.more() && p.s[p.i] == '+' {
		p.i++
		mode = Possessive
	}
	return repeat(atom, least, most, mode), nil
}

func repeat(n *Node, least, most int, mode Mode) *Node {
	switch {
	case most == 0 && n.Op != OpCapture:
		return &Node{Op: OpRepeat, Sub: []*Node{n}}
	case least == 1 && most == 1 && mode != Possessive:
		return n
	}
	return &Node{Op: OpRepeat, Min: least, Max: most, Mode: mode, Sub: []*Node{n}}
}

// quantifier looks at a quantifier without consuming it; length 0 means that there is none.
func (p *perlParser) quantifier() (least, most, length int, err error) {
	switch p.s[p.i] {
	case '*':
		return 0, -1, 1, nil
	case '+':
		return 1, -1, 1, nil
	case '?':
		return 0, 1, 1, nil
	case '{':
	default:
		return 0, 0, 0, nil
	}
	rest := p.s[p.i+1:]
	end := strings.IndexByte(rest, '}')
	if end < 0 {
		return 0, 0, 0, nil
	}
	low, high, comma := strings.Cut(rest[:end], ",")
	if low == "" || !allDigits(low) || !allDigits(high) {
		return 0, 0, 0, nil
	}
	least, most = decimal(low), decimal(low)
	if comma {
		most = -1
		if high != "" {
			most = decimal(high)
		}
	}
	if least > maxPerlRepeat || most > maxPerlRepeat {
		return 0, 0, 0, &Error{p.i + 1 + min(end, 6), "number too big in {} quantifier"}
	}
	if most >= 0 && most < least {
		return 0, 0, 0, &Error{p.i + end + 1, "numbers out of order in {} quantifier"}
	}
	return least, most, end + 2, nil
}

func allDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return true
}

// decimal reads a number; one too great for any use comes out as a great number.
func decimal(s string) int {
	n := 0
	for i := range len(s) {
		n = min(n*10+int(s[i]-'0'), 1<<24)
	}
	return n
}

// atom reads one item. A nil node is an item that only changed flags.
func (p *perlParser) atom() (n *Node, quantifiable bool, err error) {
	c := p.s[p.i]
	if p.quoted {
		p.i++
		return literal(c, p.fold()), true, nil
	}
	switch c {
	case '(':
		return p.group()
	case '[':
		return p.list()
	case '\\':
		return p.escape()
	case '.':
		p.i++
		set := &Set{}
		if p.flags&DotAll == 0 {
			set.Add('\n')
		}
		return &Node{Op: OpSet, Set: negated(set)}, true, nil
	case '^':
		p.i++
		if p.flags&MultiLine != 0 {
			return &Node{Op: OpBeginLine}, false, nil
		}
		return &Node{Op: OpBeginText}, false, nil
	case '$':
		p.i++
		return p.dollar(), false, nil
	case '*', '+', '?':
		return nil, false, p.fail("quantifier does not follow a repeatable item")
	case '{':
		_, _, length, err := p.quantifier()
		if err == nil && length > 0 {
			p.i += length
			err = p.fail("quantifier does not follow a repeatable item")
		}
		if err != nil {
			return nil, false, err
		}
	}
	p.i++
	return literal(c, p.fold()), true, nil
}

func (p *perlParser) dollar() *Node {
	switch {
	case p.flags&MultiLine != 0:
		return &Node{Op: OpEndLine}
	case p.flags&DollarEndOnly != 0:
		return &Node{Op: OpEndText}
	}
	return &Node{Op: OpEndTextLine}
}

// inner reads what stands in a group up to and with its closing parenthesis, and puts the flags back.
func (p *perlParser) inner() (*Node, error) {
	all, err := p.innerBranches()
	if err != nil {
		return nil, err
	}
	return alternate(all), nil
}

func (p *perlParser) innerBranches() ([]*Node, error) {
	saved := *p
	p.depth++
	if p.depth > MaxNesting {
		return nil, p.fail("parentheses are too deeply nested")
	}
	all, err := p.branches()
	if err != nil {
		return nil, err
	}
	if !p.more() {
		return nil, p.fail("missing closing parenthesis")
	}
	p.i++
	p.depth, p.flags, p.noCap, p.allSpace, p.dupNames = saved.depth, saved.flags, saved.noCap, saved.allSpace, saved.dupNames
	return all, nil
}

func (p *perlParser) capture(name string) (*Node, bool, error) {
	p.captures++
	if p.captures > MaxCaptures {
		return nil, false, p.fail("too many capturing groups")
	}
	index := p.captures
	if name != "" {
		if old, ok := p.names[name]; ok && old != index && !p.dupNames {
			return nil, false, p.fail("two named subpatterns have the same name (PCRE2_DUPNAMES not set)")
		} else if !ok {
			p.names[name] = index
		}
	}
	n, err := p.inner()
	if err != nil {
		return nil, false, err
	}
	return &Node{Op: OpCapture, Index: index, Sub: []*Node{n}}, true, nil
}

// branchReset reads (?|...): every branch numbers its groups from the same start.
func (p *perlParser) branchReset() (*Node, bool, error) {
	saved := *p
	p.depth++
	if p.depth > MaxNesting {
		return nil, false, p.fail("parentheses are too deeply nested")
	}
	start, most := p.captures, p.captures
	var all []*Node
	for {
		p.captures = start
		branch, err := p.branch()
		if err != nil {
			return nil, false, err
		}
		all = append(all, branch)
		most = max(most, p.captures)
		if !p.more() {
			return nil, false, p.fail("missing closing parenthesis")
		}
		p.i++
		if p.s[p.i-1] == ')' {
			break
		}
	}
	p.captures = most
	p.depth, p.flags, p.noCap, p.allSpace, p.dupNames = saved.depth, saved.flags, saved.noCap, saved.allSpace, saved.dupNames
	return alternate(all), true, nil
}

// wrap reads the rest of a group and puts it into a node of the given kind.
func (p *perlParser) wrap(op Op, negate bool) (*Node, bool, error) {
	start := p.i
	if op != OpAtomic {
		p.looks++
		defer func() { p.looks-- }()
	}
	n, err := p.inner()
	if err != nil {
		return nil, false, err
	}
	if op == OpLookbehind {
		p.behind = append(p.behind, lookbehind{n, start - len("(?<=")})
	}
	return &Node{Op: op, Negate: negate, Sub: []*Node{n}}, true, nil
}

// fixedWidths checks what PCRE2 asks of a look-behind: each of its top branches has one width.
func fixedWidths(n *Node, offset int) error {
	if n.Op == OpAlternate {
		for _, sub := range n.Sub {
			if err := fixedWidths(sub, offset); err != nil {
				return err
			}
		}
		return nil
	}
	if least, most := n.Width(); least != most {
		return &Error{offset, "lookbehind assertion is not fixed length"}
	}
	return nil
}
