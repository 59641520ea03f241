package syntax

import "strings"

// group reads an item that begins with a parenthesis.
func (p *perlParser) group() (*Node, bool, error) {
	if p.has("(*)") {
		p.i += 2
		return nil, false, p.fail("quantifier does not follow a repeatable item")
	}
	if p.has("(*") {
		return p.verb()
	}
	if !p.has("(?") {
		p.i++
		if p.noCap {
			n, err := p.inner()
			return n, true, err
		}
		return p.capture("")
	}
	p.i += 2
	if !p.more() {
		return nil, false, p.fail("unrecognized character after (? or (?-")
	}
	for _, kind := range groupKinds {
		if p.has(kind.prefix) {
			p.i += len(kind.prefix)
			return p.wrap(kind.op, kind.negate)
		}
	}
	switch c := p.s[p.i]; {
	case c == ':':
		p.i++
		n, err := p.inner()
		return n, true, err
	case c == '|':
		p.i++
		return p.branchReset()
	case c == '<', c == '\'', p.has("P<"):
		return p.named()
	case p.has("P="):
		p.i += 2
		name, err := p.name(')')
		if err != nil {
			return nil, false, err
		}
		return p.backrefName(name), true, nil
	case c == '(':
		return p.conditional()
	case c == 'R', c == '&', p.has("P>"), isDigit(c), (c == '+' || c == '-') && p.i+1 < len(p.s) && isDigit(p.s[p.i+1]):
		return nil, false, p.fail("recursion and subroutine calls are not supported")
	case c == 'C':
		return nil, false, p.fail("callouts are not supported")
	}
	return p.options()
}

var groupKinds = []struct {
	prefix string
	op     Op
	negate bool
}{
	{"<=", OpLookbehind, false},
	{"<!", OpLookbehind, true},
	{"=", OpLookahead, false},
	{"!", OpLookahead, true},
	{">", OpAtomic, false},
}

// verb reads (*NAME) and the spelled-out groups (*atomic:...), (*pla:...) and so on.
func (p *perlParser) verb() (*Node, bool, error) {
	rest := p.s[p.i+2:]
	for _, name := range []string{"FAIL)", "F)"} {
		if strings.HasPrefix(rest, name) {
			p.i += 2 + len(name)
			return &Node{Op: OpFail}, false, nil
		}
	}
	word, _, ok := strings.Cut(rest, ":")
	if ok && rest[0] != ':' {
		op, negate := OpLookahead, false
		switch word {
		case "atomic":
			op = OpAtomic
		case "pla", "positive_lookahead":
		case "nla", "negative_lookahead":
			negate = true
		case "plb", "positive_lookbehind":
			op = OpLookbehind
		case "nlb", "negative_lookbehind":
			op, negate = OpLookbehind, true
		default:
			if rest[0] < 'a' || rest[0] > 'z' {
				return nil, false, p.fail("(*VERB) not recognized or malformed")
			}
			return nil, false, p.fail("(*alpha_assertion) not recognized")
		}
		p.i += 2 + len(word) + 1
		return p.wrap(op, negate)
	}
	return nil, false, p.fail("(*VERB) not recognized or malformed")
}

func (p *perlParser) named() (*Node, bool, error) {
	if p.s[p.i] == 'P' {
		p.i++
	}
	end := byte('>')
	if p.s[p.i] == '\'' {
		end = '\''
	}
	p.i++
	name, err := p.name(end)
	if err != nil {
		return nil, false, err
	}
	return p.capture(name)
}

// name reads a group name and the byte that ends it.
func (p *perlParser) name(end byte) (string, error) {
	start := p.i
	for p.more() && IsWord(p.s[p.i]) {
		p.i++
	}
	name := p.s[start:p.i]
	switch {
	case name == "":
		return "", p.fail("subpattern name expected")
	case isDigit(name[0]):
		p.i = start
		return "", p.fail("subpattern name must start with a non-digit")
	case len(name) > 32:
		return "", p.fail("subpattern name is too long (maximum 32 code units)")
	case !p.more() || p.s[p.i] != end:
		return "", p.fail("syntax error in subpattern name (missing terminator?)")
	}
	p.i++
	return name, nil
}

func (p *perlParser) backrefName(name string) *Node {
	n := &Node{Op: OpBackref, Fold: p.fold()}
	p.pending = append(p.pending, reference{n, name, p.i - 1 - len(name)})
	return n
}

func (p *perlParser) backref(index int) *Node {
	n := &Node{Op: OpBackref, Fold: p.fold(), Index: index}
	p.pending = append(p.pending, reference{n, "", p.i - 1})
	return n
}

// options reads (?i-m) and (?i-m:...).
func (p *perlParser) options() (*Node, bool, error) {
	saved := *p
	off, caret := false, false
	if p.s[p.i] == '^' {
		p.i++
		caret = true
		p.flags &^= FoldCase | MultiLine | DotAll | Extended
		p.noCap, p.allSpace = false, false
	}
	for p.more() {
		c := p.s[p.i]
		p.i++
		switch c {
		case ')':
			return nil, false, nil
		case ':':
			flags, noCap, allSpace, dupNames := p.flags, p.noCap, p.allSpace, p.dupNames
			p.flags, p.noCap, p.allSpace, p.dupNames = saved.flags, saved.noCap, saved.allSpace, saved.dupNames
			outer := *p
			p.flags, p.noCap, p.allSpace, p.dupNames = flags, noCap, allSpace, dupNames
			n, err := p.inner()
			p.flags, p.noCap, p.allSpace, p.dupNames = outer.flags, outer.noCap, outer.allSpace, outer.dupNames
			return n, true, err
		case '-':
			if off || caret {
				return nil, false, p.fail("invalid hyphen in option setting")
			}
			off = true
		default:
			if !p.option(c, !off) {
				p.i--
				return nil, false, p.fail("unrecognized character after (? or (?-")
			}
		}
	}
	return nil, false, p.fail("missing closing parenthesis")
}

func (p *perlParser) option(c byte, on bool) bool {
	var flag Flags
	switch c {
	case 'i':
		flag = FoldCase
	case 'm':
		flag = MultiLine
	case 's':
		flag = DotAll
	case 'x':
		flag = Extended
		p.allSpace = on && p.has("x")
		if p.has("x") {
			p.i++
		}
	case 'U':
		flag = Ungreedy
	case 'n':
		p.noCap = on
		return true
	case 'J':
		p.dupNames = on
		return true
	default:
		return false
	}
	p.flags &^= flag
	if on {
		p.flags |= flag
	}
	return true
}

// conditional reads (?(condition)yes|no) from the second parenthesis on.
func (p *perlParser) conditional() (*Node, bool, error) {
	n := &Node{Op: OpConditional}
	var assertion *Node
	if p.has("(?") || p.has("(*") {
		start := p.i
		look, _, err := p.group()
		if err != nil {
			return nil, false, err
		}
		if look == nil || look.Op != OpLookahead && look.Op != OpLookbehind {
			p.i = start + 2
			return nil, false, p.fail("assertion expected after (?( or (?(?C)")
		}
		assertion = look
	} else if err := p.condition(n); err != nil {
		return nil, false, err
	}
	all, err := p.innerBranches()
	if err != nil {
		return nil, false, err
	}
	if len(all) > 2 {
		return nil, false, p.fail("conditional subpattern contains more than two branches")
	}
	n.Sub = append(all, &Node{Op: OpEmpty})[:2]
	if assertion != nil {
		n.Sub = append(n.Sub, assertion)
	}
	return n, true, nil
}

// condition reads the number or name of a group in parentheses.
func (p *perlParser) condition(n *Node) error {
	p.i++
	end := strings.IndexByte(p.s[p.i:], ')')
	if end < 0 {
		p.i = len(p.s)
		return p.fail("missing closing parenthesis for condition")
	}
	text := p.s[p.i : p.i+end]
	digits := strings.TrimLeft(text, "+-")
	if digits != "" && len(text)-len(digits) <= 1 && allDigits(digits) {
		n.Index = decimal(digits)
		switch text[0] {
		case '+':
			n.Index += p.captures
		case '-':
			n.Index = p.captures - n.Index + 1
		}
		if n.Index <= 0 {
			return p.fail("reference to non-existent subpattern")
		}
		p.pending = append(p.pending, reference{n, "", p.i - 1})
		p.i += end + 1
		return nil
	}
	if text == "R" || strings.HasPrefix(text, "R&") || text == "DEFINE" {
		return p.fail("recursion and subroutine calls are not supported")
	}
	if len(text) > 2 && (text[0] == '<' && text[len(text)-1] == '>' || text[0] == '\'' && text[len(text)-1] == '\'') {
		text = text[1 : len(text)-1]
	}
	for i := range len(text) {
		if !IsWord(text[i]) {
			return p.fail("malformed number or name after (?(")
		}
	}
	if text == "" {
		return p.fail("subpattern name expected")
	}
	p.pending = append(p.pending, reference{n, text, p.i})
	p.i += end + 1
	return nil
}
