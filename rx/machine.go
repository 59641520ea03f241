package rx

import (
	"bytes"
	"math/bits"

	"postilion/rx/syntax"
)

// machine is the state of one match: an explicit stack of choices not yet tried, instead of recursion.
type machine struct {
	prog  *program
	text  []byte
	slots []int32
	best  []int32
	stack []frame
	steps int
	err   error

	wantCaptures bool
	longest      bool
	bestEnd      int

	runs []run // for each loop, the run of its class that was measured last

	remember bool     // states are being remembered
	visited  []uint64 // one bit for each state: row and offset
	bodies   int      // nesting of look-around and atomic bodies
	marked   []int    // states remembered inside a body, forgotten again when it succeeds
}

// frame is a choice not yet tried, or a slot to put back.
type frame struct {
	kind frameKind
	pc   int32
	pos  int32
	aux  int32
}

// run is a stretch of text whose bytes all belong to a class.
type run struct{ from, end int32 }

type frameKind uint8

const (
	tryAt       frameKind = iota // go on at pc and pos
	restoreSlot                  // slot pc held pos
	giveBack                     // greedy loop pc: try one byte less, down to aux
	takeMore                     // lazy loop pc: take one byte more, aux already taken
)

const (
	maxStack   = 1 << 20
	maxVisited = 1 << 26 // bits: 8 MiB
)

// search tries every start that the prefilter leaves open.
func (m *machine) search(filter *prefilter) (bool, error) {
	if len(m.text) > maxText {
		return false, errTooLong(len(m.text))
	}
	m.remember = false
	for i := range m.runs {
		m.runs[i] = run{}
	}
	rememberAt := m.steps - 16*(len(m.text)+64)
	for start := 0; start <= len(m.text); start++ {
		if start = filter.next(m.text, start); start < 0 {
			return false, nil
		}
		if m.steps < rememberAt && m.prog.canMemo && !m.remember {
			m.startRemembering()
		}
		if m.matchAt(start) {
			return true, nil
		}
		if m.err != nil {
			return false, m.err
		}
		if filter.startOnly {
			return false, nil
		}
	}
	return false, nil
}

func (m *machine) startRemembering() {
	states := m.prog.memoRows * (len(m.text) + 1)
	if states > maxVisited {
		return
	}
	words := (states + 63) / 64
	if cap(m.visited) < words {
		m.visited = make([]uint64, words)
	} else {
		m.visited = m.visited[:words]
		clear(m.visited)
	}
	m.remember = true
	m.marked = m.marked[:0]
}

func (m *machine) matchAt(start int) bool {
	for i := range m.slots {
		m.slots[i] = -1
	}
	m.steps -= len(m.slots) >> 3
	m.slots[0] = int32(start)
	m.stack = m.stack[:0]
	m.bestEnd = -1
	m.bodies = 0
	end, ok := m.run(m.prog.start, start)
	if m.longest && m.err == nil && m.bestEnd >= 0 {
		copy(m.slots, m.best)
		end, ok = m.bestEnd, true
	}
	if ok && m.err == nil {
		m.slots[1] = int32(end)
		return true
	}
	return false
}

// seen says whether the state was explored before without success, and remembers it.
func (m *machine) seen(memo int32, pos int) bool {
	if !m.remember {
		return false
	}
	bit := int(memo)*(len(m.text)+1) + pos
	word, mask := bit>>6, uint64(1)<<(bit&63)
	if m.visited[word]&mask != 0 {
		return true
	}
	m.visited[word] |= mask
	if m.bodies > 0 {
		m.marked = append(m.marked, bit)
	}
	return false
}

// run executes from pc until a match, the end of a body, or failure. Frames below the current top belong to the
// caller.
func (m *machine) run(pc int32, pos int) (int, bool) {
	base := len(m.stack)
	text := m.text
	tick := max(m.steps-16*(len(text)+64), 0)
	for {
		m.steps--
		if m.steps < tick {
			if m.steps < 0 || len(m.stack) > maxStack {
				m.err = ErrBudget
				return 0, false
			}
			if !m.remember && m.prog.canMemo {
				m.startRemembering()
			}
			tick = max(m.steps-4096, 0)
		}
		in := &m.prog.insts[pc]
		ok := true
		switch in.op {
		case opByte:
			if ok = pos < len(text) && text[pos] == in.b; ok {
				pos++
			}
		case opSet:
			if ok = pos < len(text) && in.set.Has(text[pos]); ok {
				pos++
			}
		case opText:
			if ok = bytes.HasPrefix(text[pos:], in.text); ok {
				pos += len(in.text)
			}
		case opFoldText:
			if ok = hasFoldPrefix(text[pos:], in.text); ok {
				pos += len(in.text)
			}
		case opSplit:
			if ok = !m.seen(in.memo, pos); ok {
				m.stack = append(m.stack, frame{kind: tryAt, pc: in.other, pos: int32(pos)})
			}
		case opLoop:
			pos, ok = m.loop(in, pc, pos)
		case opMatch:
			if !m.longest {
				return pos, true
			}
			ok = false
			if pos > m.bestEnd {
				m.bestEnd = pos
				m.steps -= len(m.slots) >> 3
				copy(m.best, m.slots)
				if pos == len(text) {
					return pos, true
				}
			}
		case opEndBody:
			return pos, true
		default:
			pc, pos, ok = m.control(in, pos)
			if ok {
				continue
			}
		}
		if ok {
			pc = in.next
			continue
		}
		if m.err != nil {
			return 0, false
		}
		if pc, pos, ok = m.backtrack(base); !ok {
			return 0, false
		}
	}
}

// loop runs a repeated class.
func (m *machine) loop(in *inst, pc int32, pos int) (int, bool) {
	if m.seen(in.memo, pos) {
		return pos, false
	}
	least, most := int(in.least), len(m.text)-pos
	if in.most >= 0 {
		most = min(most, int(in.most))
	}
	if most < least {
		return pos, false
	}
	if in.mode == syntax.Lazy {
		for n := range least {
			if !in.set.Has(m.text[pos+n]) {
				return pos, false
			}
		}
		m.steps -= least >> 3
		m.stack = append(m.stack, frame{takeMore, pc, int32(pos + least), int32(least)})
		return pos + least, true
	}
	n := min(most, m.measure(in, pos)-pos)
	if n < least {
		return pos, false
	}
	if in.mode == syntax.Possessive {
		return pos + n, true
	}
	f := frame{giveBack, pc, int32(pos + n + 1), int32(pos + least)}
	at, ok := m.shorten(&f)
	if ok && at > pos+least {
		m.stack = append(m.stack, f)
	}
	return at, ok
}

// measure gives the end of the run of the loop's class that begins at pos.
func (m *machine) measure(in *inst, pos int) int {
	known := &m.runs[in.run]
	if int(known.from) <= pos && pos < int(known.end) {
		return int(known.end)
	}
	end := pos
	for end < len(m.text) && in.set.Has(m.text[end]) {
		end++
	}
	m.steps -= (end - pos) >> 3
	*known = run{int32(pos), int32(end)}
	return end
}

// backtrack takes up the latest choice above base.
func (m *machine) backtrack(base int) (pc int32, pos int, ok bool) {
	for len(m.stack) > base {
		top := len(m.stack) - 1
		f := &m.stack[top]
		switch f.kind {
		case tryAt:
			pc, pos = f.pc, int(f.pos)
			m.stack = m.stack[:top]
			return pc, pos, true
		case restoreSlot:
			m.slots[f.pc] = f.pos
			m.stack = m.stack[:top]
		case giveBack:
			if at, ok := m.shorten(f); ok {
				pc = m.prog.insts[f.pc].next
				if at == int(f.aux) {
					m.stack = m.stack[:top]
				}
				return pc, at, true
			}
			m.stack = m.stack[:top]
		case takeMore:
			in := &m.prog.insts[f.pc]
			at := int(f.pos)
			if at < len(m.text) && (in.most < 0 || f.aux < in.most) && in.set.Has(m.text[at]) {
				f.pos++
				f.aux++
				if m.steps--; m.steps < 0 {
					m.err = ErrBudget
					return 0, 0, false
				}
				if m.seen(in.memo+1, at+1) {
					continue
				}
				return in.next, at + 1, true
			}
			m.stack = m.stack[:top]
		}
	}
	return 0, 0, false
}

// shorten finds the next shorter length of a greedy loop. Lengths after which a certain byte must follow and does not,
// and those that were tried before from another beginning, are passed over.
func (m *machine) shorten(f *frame) (int, bool) {
	in := &m.prog.insts[f.pc]
	least, at := int(f.aux), int(f.pos)-1
	follow := &m.prog.insts[in.next]
	b, fixed := follow.b, follow.op == opByte
	if follow.op == opText {
		b, fixed = follow.text[0], true
	}
	for at >= least {
		from := at
		if fixed {
			if at = min(at, len(m.text)-1); at < least {
				return 0, false
			}
			n := bytes.LastIndexByte(m.text[least:at+1], b)
			at = least + n
			if n < 0 {
				at = least - 1
			}
		}
		if m.remember {
			at = m.lastUnseen(in.memo+1, least, at)
		}
		m.steps -= (from - at) >> 5
		if at < least || !m.remember {
			break
		}
		if !fixed || m.text[at] == b {
			m.seen(in.memo+1, at)
			break
		}
	}
	f.pos = int32(at)
	return at, at >= least
}

// lastUnseen gives the greatest offset from least to at whose state is not remembered, or least-1.
func (m *machine) lastUnseen(row int32, least, at int) int {
	base := int(row) * (len(m.text) + 1)
	for at >= least {
		bit := base + at
		word := m.visited[bit>>6] << (63 - bit&63)
		free := bits.LeadingZeros64(^word)
		if free <= bit&63 {
			return max(at-free, least-1)
		}
		at -= bit&63 + 1
	}
	return least - 1
}

func (m *machine) setSlot(slot int32, value int) {
	m.stack = append(m.stack, frame{kind: restoreSlot, pc: slot, pos: m.slots[slot]})
	m.slots[slot] = int32(value)
}

// control executes what is not plain consumption.
func (m *machine) control(in *inst, pos int) (int32, int, bool) {
	switch in.op {
	case opSave:
		if m.wantCaptures {
			m.setSlot(in.n, pos)
		}
		return in.next, pos, true
	case opMark:
		m.setSlot(in.n, pos)
		return in.next, pos, true
	case opCopy:
		m.setSlot(in.n, int(m.slots[in.least]))
		return in.next, pos, true
	case opProgress:
		if int(m.slots[in.n]) != pos {
			return in.next, pos, true
		}
		// POSIX never takes an empty iteration after the first way out was open.
		return in.other, pos, !m.prog.posix
	case opBackref, opBackrefFold:
		end, ok := m.backref(in, pos)
		return in.next, end, ok
	case opAtomic:
		end, ok := m.body(in.other, pos, true)
		return in.next, end, ok
	case opLook:
		_, ok := m.body(in.other, pos, !in.negate)
		return in.next, pos, ok != in.negate && m.err == nil
	case opBack:
		return in.next, pos - int(in.n), pos >= int(in.n)
	case opGroupSet:
		if m.slots[2*in.n+1] >= 0 {
			return in.next, pos, true
		}
		return in.other, pos, true
	case opAssert:
		return in.next, pos, m.holds(in.assert, pos)
	}
	return 0, pos, false
}

// body runs the body of a look-around or an atomic group. On success its choices are dropped; what it captured is kept
// when keep is set, with the frames that undo it.
func (m *machine) body(pc int32, pos int, keep bool) (int, bool) {
	base, marks := len(m.stack), len(m.marked)
	m.bodies++
	end, ok := m.run(pc, pos)
	m.bodies--
	if ok {
		for _, bit := range m.marked[min(marks, len(m.marked)):] {
			m.visited[bit>>6] &^= 1 << (bit & 63)
		}
	}
	m.marked = m.marked[:min(marks, len(m.marked))]
	if !ok {
		return 0, false
	}
	kept := base
	for i := base; i < len(m.stack); i++ {
		if m.stack[i].kind == restoreSlot {
			m.stack[kept] = m.stack[i]
			kept++
		}
	}
	m.stack = m.stack[:kept]
	if !keep {
		for i := kept - 1; i >= base; i-- {
			m.slots[m.stack[i].pc] = m.stack[i].pos
		}
		m.stack = m.stack[:base]
	}
	return end, true
}

func (m *machine) backref(in *inst, pos int) (int, bool) {
	from, to := m.slots[2*in.n], m.slots[2*in.n+1]
	if from < 0 || to < from {
		return pos, false
	}
	want := m.text[from:to]
	m.steps -= len(want) >> 3
	if len(m.text)-pos < len(want) {
		return pos, false
	}
	have := m.text[pos : pos+len(want)]
	if in.op == opBackref && bytes.Equal(have, want) {
		return pos + len(want), true
	}
	if in.op == opBackref {
		return pos, false
	}
	for i := range have {
		if lower(have[i]) != lower(want[i]) {
			return pos, false
		}
	}
	return pos + len(want), true
}

// holds decides an assertion.
func (m *machine) holds(op syntax.Op, pos int) bool {
	text, end := m.text, len(m.text)
	switch op {
	case syntax.OpBeginText, syntax.OpBeginSearch:
		return pos == 0
	case syntax.OpBeginLine:
		return pos == 0 || pos < end && text[pos-1] == '\n'
	case syntax.OpBeginLineAny:
		return pos == 0 || text[pos-1] == '\n'
	case syntax.OpEndText:
		return pos == end
	case syntax.OpEndTextLine:
		return pos == end || pos == end-1 && text[pos] == '\n'
	case syntax.OpEndLine:
		return pos == end || text[pos] == '\n'
	}
	before := pos > 0 && syntax.IsWord(text[pos-1])
	after := pos < end && syntax.IsWord(text[pos])
	switch op {
	case syntax.OpWordBoundary:
		return before != after
	case syntax.OpNoWordBoundary:
		return before == after
	case syntax.OpWordStart:
		return !before && after
	case syntax.OpWordEnd:
		return before && !after
	}
	return false
}
