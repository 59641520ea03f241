package message

import "bytes"

// Limits bounds what a Parser keeps. A zero field stands for its default. Whatever comes in, a Parser holds at most about
// 3*FieldBytes + 20*KeptBytes + 1000*Parts bytes, and works in time linear in its input.
type Limits struct {
	// Depth is how deeply parts may lie in each other; what lies deeper is one leaf. Default 100, as Dovecot; 256
	// at most.
	Depth int
	// Parts is how many parts a message may have; boundaries after that many are text. Default 10,000, as Dovecot.
	Parts int
	// FieldBytes is how much of the value of one header field is read: the rest is as if it were not there. Default 256 KiB.
	FieldBytes int
	// KeptBytes is how much of all values that become part of the structure is kept, where an address counts 64 more than its text;
	// fields after that are as if they were absent. Default 4 MiB.
	KeptBytes int
	// Addresses is how many entries an address list of an envelope may have. Default 16,384.
	Addresses int
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, standard int) {
		if *v <= 0 {
			*v = standard
		}
	}
	set(&l.Depth, 100)
	set(&l.Parts, 10000)
	set(&l.FieldBytes, 256<<10)
	set(&l.KeptBytes, 4<<20)
	set(&l.Addresses, 16384)
	l.Depth = min(l.Depth, decodeDepth)
	return l
}

const (
	// boundaryMax is how much of a boundary parameter counts: the 70 of RFC 2046 section 5.1.1 and some more.
	boundaryMax = 80
	// boundaryLine is how much of a line is looked at to know whether it is a boundary: dashes on both sides and a line end.
	boundaryLine = 2 + boundaryMax + 2 + 2
)

type state uint8

const (
	inHeader state = iota
	inBody
	inBoundaryLine
)

type boundary struct {
	node int
	text string
}

// node is a part under construction. Parts are kept flat in the order in which they begin; parent is an index.
type node struct {
	part      Part
	startLine int64
	parent    int
	depth     int
	digest    bool
}

// Parser reads one message as a stream and builds its structure. Only NewParser makes a usable one. It is for one goroutine.
type Parser struct {
	limits Limits
	kept   int

	// pos and lines count what was consumed, in network form; lastCR tells that the last byte consumed was CR.
	pos, lines, bareLF int64
	lastCR             bool

	nodes      []*node
	current    int
	boundaries []boundary
	state      state

	// midLine tells that the line at hand is known not to be a boundary. firstLine tells that it is the first of its region, so that no
	// line end before it belongs to a boundary; afterHeader that the region began with the end of a header.
	midLine, firstLine, afterHeader bool
	// held is the beginning of a line that is not yet complete: in a body not yet counted, in a header counted. holding tells of the
	// latter that there is one. linePos and lineLines are where the header line at hand began.
	held               []byte
	holding            bool
	linePos, lineLines int64

	header headerState
}

// NewParser returns a parser for one message.
func NewParser(limits Limits) *Parser {
	p := &Parser{limits: limits.withDefaults()}
	p.nodes = append(p.nodes, &node{parent: -1})
	p.header.begin(true)
	return p
}

// Write feeds the next piece of the message, of any size. It never fails.
func (p *Parser) Write(data []byte) (int, error) {
	for rest := data; len(rest) > 0; {
		switch p.state {
		case inHeader:
			rest = p.headerBytes(rest)
		case inBody:
			if len(p.boundaries) == 0 {
				p.count(rest)
				rest = nil
				break
			}
			rest = p.bodyBytes(rest)
		case inBoundaryLine:
			rest = p.boundaryBytes(rest)
		}
	}
	return len(data), nil
}

// Parse returns the structure of a message that lies in memory, with the default limits.
func Parse(data []byte) *Message {
	p := NewParser(Limits{})
	_, _ = p.Write(data)
	return p.Finish()
}

// count consumes bytes that need not be looked at.
func (p *Parser) count(data []byte) {
	if len(data) == 0 {
		return
	}
	lf := bytes.Count(data, newline)
	bare := lf
	if lf > 0 {
		bare -= bytes.Count(data, crlf)
		if data[0] == '\n' && p.lastCR {
			bare--
		}
	}
	p.pos += int64(len(data) + bare)
	p.lines += int64(lf)
	p.bareLF += int64(bare)
	p.lastCR = data[len(data)-1] == '\r'
}

// countLine consumes the rest of one line, its line end included.
func (p *Parser) countLine(line []byte) {
	n := len(line)
	p.lines++
	p.pos += int64(n)
	if n > 1 && line[n-2] != '\r' || n == 1 && !p.lastCR {
		p.pos++
		p.bareLF++
	}
	p.lastCR = false
}

// bodyBytes consumes body text up to the end of data or of a boundary's line start.
func (p *Parser) bodyBytes(data []byte) []byte {
	if !p.midLine {
		return p.lineStart(data)
	}
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			p.count(data)
			return nil
		}
		p.countLine(data[:i+1])
		p.firstLine = false
		data = data[i+1:]
		if len(data) == 0 || data[0] == '-' {
			p.midLine = false
			return data
		}
	}
}

// lineStart looks at the beginning of a line until it is known whether it is a boundary.
func (p *Parser) lineStart(data []byte) []byte {
	if len(p.held) == 0 && data[0] != '-' {
		p.midLine = true
		return data
	}
	for len(data) > 0 {
		c := data[0]
		p.held = append(p.held, c)
		data = data[1:]
		if n := len(p.held); c == '\n' || n == boundaryLine || n == 2 && c != '-' {
			p.decideLine(c == '\n')
			return data
		}
	}
	return nil
}

// decideLine consumes the held beginning of a line, which is the whole line when complete is set.
func (p *Parser) decideLine(complete bool) {
	b, ending := -1, false
	if len(p.held) >= 2 && p.held[0] == '-' && p.held[1] == '-' {
		line := p.held
		if complete {
			line = bytes.TrimSuffix(line[:len(line)-1], cr)
		}
		b, ending = p.findBoundary(line, complete)
	}
	p.midLine = true
	if b >= 0 {
		p.bodyBoundary(b, ending)
	}
	p.consumeHeld(complete)
}

func (p *Parser) consumeHeld(complete bool) {
	held := p.held
	if complete {
		p.countLine(held)
		p.lineDone()
	} else {
		p.count(held)
	}
	p.held = p.held[:0]
}

// lineDone says that a line of the body, or a boundary's line, has ended.
func (p *Parser) lineDone() {
	p.midLine = false
	if p.state != inBoundaryLine {
		p.firstLine = false
		return
	}
	if n := len(p.boundaries); n > 0 && p.boundaries[n-1].node == p.current {
		p.beginPart()
		return
	}
	p.beginBody()
}

func (p *Parser) boundaryBytes(data []byte) []byte {
	i := bytes.IndexByte(data, '\n')
	if i < 0 {
		p.count(data)
		return nil
	}
	p.countLine(data[:i+1])
	p.lineDone()
	return data[i+1:]
}

// findBoundary tells which boundary the line, which begins with two dashes and has no line end, is, -1 for none, and whether it is the last of
// its multipart. The innermost one that is the whole line wins, else the longest that the line begins with (Dovecot; RFC 2046 asks for the
// beginning only).
func (p *Parser) findBoundary(line []byte, complete bool) (found int, ending bool) {
	if len(p.nodes) >= p.limits.Parts {
		return -1, false
	}
	name := line[2:]
	dashes := complete && len(name) > 2 && name[len(name)-1] == '-' && name[len(name)-2] == '-'
	found, longest := -1, -1
	for i := len(p.boundaries) - 1; i >= 0; i-- {
		b := p.boundaries[i].text
		if len(b) > len(name) || len(b) <= longest || string(name[:len(b)]) != b {
			continue
		}
		found, longest = i, len(b)
		if len(b) == len(name) || dashes && len(b) == len(name)-2 {
			break
		}
	}
	return found, found >= 0 && bytes.HasPrefix(name[longest:], []byte("--"))
}

// bodyBoundary ends parts at the boundary that begins at the current position.
func (p *Parser) bodyBoundary(b int, ending bool) {
	end, endLine := p.pos, p.lines
	switch {
	case !p.firstLine:
		end, endLine = end-2, endLine-1
	case p.afterHeader && p.boundaries[b].node != p.current:
		// The empty line that ended the header is the line end before the boundary.
		n := p.nodes[p.current]
		n.part.BodyStart, n.startLine = end-2, endLine-1
		p.closePart(end-2, endLine-1)
	}
	p.enterBoundary(b, ending, end, endLine)
}

// enterBoundary ends at the offset end the parts that a boundary ends.
func (p *Parser) enterBoundary(b int, ending bool, end, endLine int64) {
	owner := p.boundaries[b].node
	for p.current != owner {
		p.closePart(end, endLine)
	}
	if ending {
		b--
	}
	p.boundaries = p.boundaries[:b+1]
	p.state = inBoundaryLine
}

// closePart ends the body of the current part and goes back to its parent.
func (p *Parser) closePart(end, endLine int64) {
	n := p.nodes[p.current]
	n.part.BodyEnd = end
	n.part.BodyLines = endLine - n.startLine
	p.current = n.parent
}

// beginPart begins the next part of the current multipart.
func (p *Parser) beginPart() {
	p.appendNode(p.pos)
	p.header.begin(false)
	p.header.mime = true
	p.state = inHeader
}

func (p *Parser) appendNode(start int64) {
	n := &node{parent: p.current, depth: p.nodes[p.current].depth + 1}
	n.part.HeaderStart = start
	p.current = len(p.nodes)
	p.nodes = append(p.nodes, n)
}

func (p *Parser) beginBody() {
	p.state = inBody
	p.midLine = false
	p.firstLine = true
	p.afterHeader = false
}

// Finish ends the message and returns its structure. The parser is used up.
func (p *Parser) Finish() *Message {
	if p.state == inHeader {
		p.finishHeader()
	} else if len(p.held) > 0 {
		p.decideLine(false)
	}
	for p.current >= 0 {
		p.closePart(p.pos, p.lines)
	}
	return &Message{Size: p.pos, Lines: p.lines, BareLF: p.bareLF, Root: p.assemble()}
}

// assemble makes the tree from the flat list. A part comes after its parent, so that going backwards each part is complete when its parent
// takes it.
func (p *Parser) assemble() Part {
	counts := make([]int, len(p.nodes))
	for i := 1; i < len(p.nodes); i++ {
		counts[p.nodes[i].parent]++
	}
	for i := len(p.nodes) - 1; i > 0; i-- {
		parent := &p.nodes[p.nodes[i].parent].part
		left := &counts[p.nodes[i].parent]
		if parent.Children == nil {
			parent.Children = make([]Part, *left)
		}
		*left--
		parent.Children[*left] = p.nodes[i].part
		p.nodes[i] = nil
	}
	return p.nodes[0].part
}
