package rx

import (
	"fmt"

	"postilion/rx/syntax"
)

type opcode uint8

const (
	opMatch opcode = iota
	opFail
	opByte     // b
	opText     // text
	opFoldText // text, in lower case
	opSet      // set
	opSplit    // next first, then other
	opSave     // n: slot
	opLoop     // set, least, most, mode: a repeated byte class
	opMark     // n: slot that holds where an iteration began
	opCopy     // n, least: slots, copy least to n
	opProgress // n: when the iteration took nothing, leave the loop by other
	opBackref  // n: group
	opBackrefFold
	opLook     // body at other, negate
	opAtomic   // body at other
	opEndBody  // end of the body of opLook or opAtomic
	opBack     // n: bytes to step back
	opGroupSet // n: group; next when it has matched, else other
	opAssert   // assert
)

// inst is one instruction.
type inst struct {
	op     opcode
	mode   syntax.Mode
	negate bool
	b      byte
	assert syntax.Op
	next   int32
	other  int32
	n      int32
	least  int32
	most   int32
	memo   int32 // row in the table of visited states; a loop has the next row too, for its ends
	run    int32 // opLoop: where the machine keeps the last run of the class
	set    *syntax.Set
	text   []byte
}

// maxProgram bounds the instructions of one pattern; repetition counts are expanded.
const maxProgram = 100_000

// program is a compiled pattern.
type program struct {
	insts        []inst
	start        int32
	slots        int // captures, then marks
	memoRows     int
	loops        int
	canMemo      bool // what follows a state depends on nothing but the state
	needCaptures bool // back-references or conditions look at captures
	longest      bool // POSIX: the longest of the leftmost matches
	posix        bool
}

// compiler lays out one program.
type compiler struct {
	*program
	tooBig   bool
	work     int // nodes compiled, copies counted
	selfRef  map[int]bool
	nullable map[*syntax.Node]bool
}

func (p *program) compile(parsed *syntax.Pattern, posix bool) error {
	p.slots = 2 * (parsed.Captures + 1)
	p.canMemo = true
	p.posix = posix
	p.longest = posix
	c := compiler{program: p, selfRef: parsed.Root.SelfReferences(), nullable: map[*syntax.Node]bool{}}
	end := c.emit(inst{op: opMatch})
	p.start = c.node(parsed.Root, end)
	if c.tooBig {
		return &Error{Offset: 0, Reason: fmt.Sprintf("regular expression is too large (more than %d steps when expanded)", maxProgram)}
	}
	for i := range p.insts {
		in := &p.insts[i]
		in.memo = int32(p.memoRows)
		switch in.op {
		case opSplit:
			p.memoRows++
		case opLoop:
			in.run = int32(p.loops)
			p.loops++
			p.memoRows += 2
		}
	}
	p.canMemo = p.canMemo && p.memoRows > 0
	return nil
}

func (p *compiler) emit(in inst) int32 {
	if len(p.insts) >= maxProgram {
		p.tooBig = true
		return 0
	}
	p.insts = append(p.insts, in)
	return int32(len(p.insts) - 1)
}

// node compiles n so that it goes on at next, and returns where it begins. Code is laid from the end backwards.
func (p *compiler) node(n *syntax.Node, next int32) int32 {
	if p.work++; p.work > 4*maxProgram {
		p.tooBig = true
	}
	if p.tooBig {
		return 0
	}
	switch n.Op {
	case syntax.OpEmpty:
		return next
	case syntax.OpFail:
		return p.emit(inst{op: opFail})
	case syntax.OpLiteral:
		return p.emitLiteral(n, next)
	case syntax.OpSet:
		return p.emit(inst{op: opSet, set: n.Set, next: next})
	case syntax.OpConcat:
		for i := len(n.Sub) - 1; i >= 0; i-- {
			next = p.node(n.Sub[i], next)
		}
		return next
	case syntax.OpAlternate:
		at := p.node(n.Sub[len(n.Sub)-1], next)
		for i := len(n.Sub) - 2; i >= 0; i-- {
			at = p.emit(inst{op: opSplit, next: p.node(n.Sub[i], next), other: at})
		}
		return at
	case syntax.OpRepeat:
		return p.repeat(n, next)
	case syntax.OpCapture:
		return p.capture(n, next)
	case syntax.OpAtomic:
		return p.emit(inst{op: opAtomic, other: p.body(n.Sub[0]), next: next})
	case syntax.OpLookahead:
		return p.emit(inst{op: opLook, negate: n.Negate, other: p.body(n.Sub[0]), next: next})
	case syntax.OpLookbehind:
		end := p.emit(inst{op: opEndBody})
		return p.emit(inst{op: opLook, negate: n.Negate, other: p.behind(n.Sub[0], end), next: next})
	case syntax.OpBackref:
		p.canMemo = false
		p.needCaptures = true
		op := opBackref
		if n.Fold {
			op = opBackrefFold
		}
		return p.emit(inst{op: op, n: int32(n.Index), next: next})
	case syntax.OpConditional:
		return p.conditional(n, next)
	case syntax.OpKeep:
		return p.emit(inst{op: opSave, n: 0, next: next})
	}
	return p.emit(inst{op: opAssert, assert: n.Op, next: next})
}

func (p *compiler) capture(n *syntax.Node, next int32) int32 {
	begin, end := int32(2*n.Index), int32(2*n.Index+1)
	if !p.selfRef[n.Index] {
		leave := p.emit(inst{op: opSave, n: end, next: next})
		return p.emit(inst{op: opSave, n: begin, next: p.node(n.Sub[0], leave)})
	}
	// A group that refers to itself sees its former value until it closes: its beginning waits in a slot of its own.
	slot := int32(p.slots)
	p.slots++
	leave := p.emit(inst{op: opSave, n: end, next: next})
	leave = p.emit(inst{op: opCopy, n: begin, least: slot, next: leave})
	return p.emit(inst{op: opMark, n: slot, next: p.node(n.Sub[0], leave)})
}

func (p *compiler) emitLiteral(n *syntax.Node, next int32) int32 {
	switch {
	case n.Fold:
		return p.emit(inst{op: opFoldText, text: n.Text, next: next})
	case len(n.Text) == 1:
		return p.emit(inst{op: opByte, b: n.Text[0], next: next})
	}
	return p.emit(inst{op: opText, text: n.Text, next: next})
}

func (p *compiler) body(n *syntax.Node) int32 {
	return p.node(n, p.emit(inst{op: opEndBody}))
}

// behind compiles a look-behind: each alternative steps back by its own width.
func (p *compiler) behind(n *syntax.Node, end int32) int32 {
	if n.Op != syntax.OpAlternate {
		width, _ := n.Width()
		return p.emit(inst{op: opBack, n: int32(width), next: p.node(n, end)})
	}
	at := p.behind(n.Sub[len(n.Sub)-1], end)
	for i := len(n.Sub) - 2; i >= 0; i-- {
		at = p.emit(inst{op: opSplit, next: p.behind(n.Sub[i], end), other: at})
	}
	return at
}

func (p *compiler) conditional(n *syntax.Node, next int32) int32 {
	yes, no := p.node(n.Sub[0], next), p.node(n.Sub[1], next)
	if len(n.Sub) == 2 {
		p.canMemo = false
		p.needCaptures = true
		return p.emit(inst{op: opGroupSet, n: int32(n.Index), next: yes, other: no})
	}
	// The assertion is decided once: the second branch is open only where it does not hold.
	look := *n.Sub[2]
	holds := p.node(&look, yes)
	look.Negate = !look.Negate
	fails := p.node(&look, no)
	return p.emit(inst{op: opSplit, next: holds, other: fails})
}

func (p *compiler) repeat(n *syntax.Node, next int32) int32 {
	sub := n.Sub[0]
	if n.Max == 0 {
		return next
	}
	if set, ok := sub.SingleByte(); ok {
		return p.emit(inst{op: opLoop, set: set, least: int32(n.Min), most: int32(n.Max), mode: n.Mode, next: next})
	}
	if n.Mode == syntax.Possessive {
		end := p.emit(inst{op: opEndBody})
		greedy := &syntax.Node{Op: syntax.OpRepeat, Min: n.Min, Max: n.Max, Sub: n.Sub}
		return p.emit(inst{op: opAtomic, other: p.repeat(greedy, end), next: next})
	}
	at, copies := next, n.Min
	if n.Max < 0 {
		at, copies = p.endless(n, next)
	}
	for i := n.Min; i < n.Max && !p.tooBig; i++ {
		at = p.split(n.Mode, p.node(sub, at), next)
	}
	for i := 0; i < copies && !p.tooBig; i++ {
		at = p.node(sub, at)
	}
	return at
}

func (p *compiler) split(mode syntax.Mode, again, leave int32) int32 {
	if mode == syntax.Lazy {
		again, leave = leave, again
	}
	return p.emit(inst{op: opSplit, next: again, other: leave})
}

// endless compiles a loop without end and tells how many copies of the body must still stand before it. A body that can
// match nothing gets a mark, so that an empty iteration ends the loop.
func (p *compiler) endless(n *syntax.Node, next int32) (at int32, copies int) {
	sub := n.Sub[0]
	split := p.split(n.Mode, -1, next)
	nullable, known := p.nullable[sub]
	if !known {
		least, _ := sub.Width()
		nullable = least == 0
		p.nullable[sub] = nullable
	}
	again := int32(0)
	if !nullable {
		again = p.node(sub, split)
	} else {
		slot := int32(p.slots)
		p.slots++
		progress := p.emit(inst{op: opProgress, n: slot, next: split, other: next})
		again = p.emit(inst{op: opMark, n: slot, next: p.node(sub, progress)})
	}
	if p.tooBig {
		return 0, 0
	}
	if in := &p.insts[split]; n.Mode == syntax.Lazy {
		in.other = again
	} else {
		in.next = again
	}
	switch {
	case n.Min > 0 && (!nullable || !p.posix):
		return again, n.Min - 1
	case n.Min == 0 && nullable && p.posix:
		// The first iteration may be empty, so that its groups count as matched.
		return p.split(n.Mode, p.node(sub, split), next), 0
	}
	return split, n.Min
}
