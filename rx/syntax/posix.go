package syntax

// Reasons as regerror(3) words them.
const (
	reasonCollate  = "Invalid collation character"
	reasonClass    = "Invalid character class name"
	reasonEscape   = "Trailing backslash"
	reasonSubexpr  = "Invalid back reference"
	reasonBracket  = "Unmatched [, [^, [:, [., or [="
	reasonParen    = `Unmatched ( or \(`
	reasonBrace    = `Unmatched \{`
	reasonBadBrace = `Invalid content of \{\}`
	reasonRange    = "Invalid range end"
	reasonRepeat   = "Invalid preceding regular expression"
	reasonTooBig   = "Regular expression too big"
	reasonPattern  = "Invalid regular expression"
)

type token uint8

const (
	tokEnd token = iota
	tokByte
	tokAny
	tokOpen
	tokClose
	tokOr
	tokStar
	tokPlus
	tokQuestion
	tokOpenBrace
	tokCloseBrace
	tokBracket
	tokBackref
	tokSet
	tokAnchor
	tokTrailingBackslash
)

// posixParser reads both POSIX notations. It keeps one token of look-ahead, as whether a token is special depends on
// what stands before it.
type posixParser struct {
	s        string
	i        int // after the token
	extended bool
	fold     bool
	newline  bool
	caretOK  bool // basic notation: ^ is an anchor here
	depth    int
	captures int
	closed   [10]bool

	tok token
	at  int // where the token begins
	b   byte
	op  Op
	set *Set
}

func parsePOSIX(pattern string, flags Flags, extended bool) (*Pattern, error) {
	p := &posixParser{s: pattern, extended: extended, fold: flags&FoldCase != 0, newline: flags&MultiLine != 0, caretOK: true}
	p.next()
	root, err := p.alternation()
	if err != nil {
		return nil, err
	}
	if p.tok != tokEnd {
		return nil, p.fail(reasonParen)
	}
	return &Pattern{Root: root, Captures: p.captures}, nil
}

func (p *posixParser) fail(reason string) error { return &Error{p.at, reason} }

func (p *posixParser) anchor(op Op) {
	p.tok, p.op = tokAnchor, op
}

// next reads a token.
func (p *posixParser) next() {
	caretOK := p.caretOK || p.extended
	p.caretOK = false
	p.at = p.i
	if p.i >= len(p.s) {
		p.tok = tokEnd
		return
	}
	p.b = p.s[p.i]
	p.i++
	p.tok = tokByte
	switch p.b {
	case '\\':
		p.nextEscape()
	case '*':
		p.tok = tokStar
	case '.':
		p.tok = tokAny
	case '[':
		p.tok = tokBracket
	case '^':
		if caretOK {
			p.anchor(OpBeginText)
			if p.newline {
				p.op = OpBeginLineAny
			}
		}
	case '$':
		if p.extended || p.dollarEnds() {
			p.anchor(OpEndText)
			if p.newline {
				p.op = OpEndLine
			}
		}
	default:
		if p.extended {
			p.nextOperator()
		}
	}
}

func (p *posixParser) nextOperator() {
	switch p.b {
	case '(':
		p.tok = tokOpen
	case ')':
		p.tok = tokClose
	case '|':
		p.tok = tokOr
	case '+':
		p.tok = tokPlus
	case '?':
		p.tok = tokQuestion
	case '{':
		p.tok = tokOpenBrace
	case '}':
		p.tok = tokCloseBrace
	}
}

// dollarEnds says whether, in basic notation, the dollar just read ends a branch and so is an anchor.
func (p *posixParser) dollarEnds() bool {
	rest := p.s[p.i:]
	return rest == "" || len(rest) > 1 && rest[0] == '\\' && (rest[1] == ')' || rest[1] == '|')
}

func (p *posixParser) nextEscape() {
	if p.i >= len(p.s) {
		p.tok = tokTrailingBackslash
		return
	}
	p.b = p.s[p.i]
	p.i++
	switch p.b {
	case '<':
		p.anchor(OpWordStart)
	case '>':
		p.anchor(OpWordEnd)
	case 'b':
		p.anchor(OpWordBoundary)
	case 'B':
		p.anchor(OpNoWordBoundary)
	case '`':
		p.anchor(OpBeginText)
	case '\'':
		p.anchor(OpEndText)
	case 'w', 'W', 's', 'S':
		p.tok = tokSet
		p.set, _ = perlClass(p.b)
	case '1', '2', '3', '4', '5', '6', '7', '8', '9':
		p.tok = tokBackref
	case '(', ')', '|', '+', '?', '{', '}':
		if !p.extended {
			p.nextOperator()
		}
	default:
		// The GNU library folds by turning text and pattern to upper case, but leaves the letter after a backslash as it
		// is: in lower case it then matches nothing at all.
		if p.fold && 'a' <= p.b && p.b <= 'z' {
			p.tok, p.set = tokSet, &Set{}
		}
	}
}

// alternation reads branches. A back-reference may only name a group that is complete before it or in its own branch.
func (p *posixParser) alternation() (*Node, error) {
	var all []*Node
	before, closed := p.closed, p.closed
	for {
		var nodes []*Node
		for p.tok != tokOr && p.tok != tokEnd && (p.depth == 0 || p.tok != tokClose) {
			n, err := p.expression()
			if err != nil {
				return nil, err
			}
			nodes = append(nodes, n)
		}
		all = append(all, concat(nodes))
		for i := range closed {
			closed[i] = closed[i] || p.closed[i]
		}
		p.closed = closed
		if p.tok != tokOr {
			return alternate(all), nil
		}
		p.closed = before
		p.caretOK = true
		p.next()
	}
}

// expression reads one item and its repetitions.
func (p *posixParser) expression() (*Node, error) {
	var n *Node
	switch p.tok {
	case tokAnchor:
		n = &Node{Op: p.op}
		p.caretOK = true
		p.next()
		return n, nil
	case tokOpen:
		group, err := p.group()
		if err != nil {
			return nil, err
		}
		n = group
	case tokBracket:
		set, err := p.bracket()
		if err != nil {
			return nil, err
		}
		n = &Node{Op: OpSet, Set: set}
	case tokBackref:
		index := int(p.b - '0')
		if !p.closed[index] {
			return nil, p.fail(reasonSubexpr)
		}
		n = &Node{Op: OpBackref, Index: index, Fold: p.fold}
	case tokAny:
		set := &Set{1}
		if p.newline {
			set.Add('\n')
		}
		n = &Node{Op: OpSet, Set: negated(set)}
	case tokSet:
		n = &Node{Op: OpSet, Set: p.set}
	case tokTrailingBackslash:
		return nil, p.fail(reasonEscape)
	case tokOpenBrace:
		return nil, p.fail(reasonRepeat)
	case tokStar, tokPlus, tokQuestion:
		if p.extended {
			return nil, p.fail(reasonRepeat)
		}
		n = literal(p.b, p.fold)
	case tokClose:
		if !p.extended {
			return nil, p.fail(reasonParen)
		}
		n = literal(p.b, p.fold)
	default:
		n = literal(p.b, p.fold)
	}
	p.next()
	return p.repetitions(n)
}

func (p *posixParser) group() (*Node, error) {
	p.depth++
	p.captures++
	index := p.captures
	if p.depth > MaxNesting || index > MaxCaptures {
		return nil, p.fail(reasonTooBig)
	}
	p.caretOK = true
	p.next()
	inner, err := p.alternation()
	if err != nil {
		return nil, err
	}
	if p.tok != tokClose {
		return nil, p.fail(reasonParen)
	}
	if index < len(p.closed) {
		p.closed[index] = true
	}
	p.depth--
	return &Node{Op: OpCapture, Index: index, Sub: []*Node{inner}}, nil
}

func (p *posixParser) repetitions(n *Node) (*Node, error) {
	for count := 0; ; count++ {
		least, most := 0, -1
		switch p.tok {
		case tokStar:
		case tokPlus:
			least = 1
		case tokQuestion:
			most = 1
		case tokOpenBrace:
			var err error
			if least, most, err = p.interval(); err != nil {
				return nil, err
			}
		default:
			return n, nil
		}
		if count > MaxNesting {
			return nil, p.fail(reasonTooBig)
		}
		p.next()
		if !p.extended && (p.tok == tokStar || p.tok == tokOpenBrace) {
			return nil, p.fail(reasonRepeat)
		}
		n = repeatPOSIX(n, least, most)
	}
}

func repeatPOSIX(n *Node, least, most int) *Node {
	if most == 0 {
		return &Node{Op: OpEmpty}
	}
	if n.Op == OpEmpty {
		return n
	}
	return repeat(n, least, most, Greedy)
}

// interval reads {n}, {n,}, {n,m} or {,m}; the token is then the closing brace.
func (p *posixParser) interval() (least, most int, err error) {
	p.next()
	least = p.number()
	comma := p.tok == tokByte && p.b == ','
	if least == -1 {
		if !comma {
			return 0, 0, p.braceError()
		}
		least = 0
	}
	most = least
	if least >= 0 && p.tok != tokCloseBrace {
		if !comma {
			return 0, 0, p.braceError()
		}
		p.next()
		most = p.number()
	}
	if least == -2 || most == -2 {
		return 0, 0, p.braceError()
	}
	if most != -1 && least > most || p.tok != tokCloseBrace {
		return 0, 0, p.fail(reasonBadBrace)
	}
	if max(least, most) > maxPOSIXRepeat {
		return 0, 0, p.fail(reasonTooBig)
	}
	return least, most, nil
}

func (p *posixParser) braceError() error {
	if p.tok == tokEnd {
		return p.fail(reasonBrace)
	}
	return p.fail(reasonBadBrace)
}

// number reads digits up to a comma, a closing brace or the end: -1 when there are none, -2 when something else stands
// there or nothing follows.
func (p *posixParser) number() int {
	n := -1
	for {
		switch {
		case p.tok == tokEnd:
			return -2
		case p.tok == tokCloseBrace || p.tok == tokByte && p.b == ',':
			return n
		case p.tok != tokByte || !isDigit(p.b) || n == -2:
			n = -2
		default:
			n = min(max(n, 0)*10+int(p.b-'0'), maxPOSIXRepeat+1)
		}
		p.next()
	}
}
