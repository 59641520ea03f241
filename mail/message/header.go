package message

import (
	"bytes"
	"strings"
)

var (
	newline = []byte("\n")
	cr      = []byte("\r")
	crlf    = []byte("\r\n")
)

// headerState is what the parser knows of the header it reads.
type headerState struct {
	// envelope tells that the header is a message's, so that its envelope fields are wanted.
	envelope bool
	// mime tells that Content fields count: the part lies in a multipart, or MIME-Version or Content-Type is there.
	mime bool
	// any tells that a line was read, which the next one may continue.
	any bool

	field fieldID
	value []byte

	// typed tells that Content-Type was there. digest and boundary are what it said.
	typed, digest bool
	hasBoundary   bool
	boundary      string
}

func (h *headerState) begin(envelope bool) {
	*h = headerState{envelope: envelope, value: h.value[:0]}
}

type fieldID uint8

const (
	otherField fieldID = iota
	fieldDate
	fieldSubject
	fieldFrom
	fieldSender
	fieldReplyTo
	fieldTo
	fieldCc
	fieldBcc
	fieldInReplyTo
	fieldMessageID
	fieldMIMEVersion
	fieldContentType
	fieldContentEncoding
	fieldContentID
	fieldContentDescription
	fieldContentMD5
	fieldContentDisposition
	fieldContentLanguage
	fieldContentLocation
)

// identify returns which of the fields that are part of the structure has this name.
func identify(name []byte) fieldID {
	is := func(s string) bool { return len(name) == len(s) && strings.EqualFold(string(name), s) }
	if len(name) < 2 {
		return otherField
	}
	switch name[0] | 0x20 {
	case 'd':
		return pick(is("date"), fieldDate)
	case 's':
		return pick(is("subject"), fieldSubject) | pick(is("sender"), fieldSender)
	case 'f':
		return pick(is("from"), fieldFrom)
	case 'r':
		return pick(is("reply-to"), fieldReplyTo)
	case 't':
		return pick(is("to"), fieldTo)
	case 'b':
		return pick(is("bcc"), fieldBcc)
	case 'i':
		return pick(is("in-reply-to"), fieldInReplyTo)
	case 'm':
		return pick(is("message-id"), fieldMessageID) | pick(is("mime-version"), fieldMIMEVersion)
	case 'c':
		if is("cc") {
			return fieldCc
		}
		if len(name) > 8 && strings.EqualFold(string(name[:8]), "content-") {
			return identifyContent(strings.ToLower(string(name[8:])))
		}
	}
	return otherField
}

func pick(yes bool, id fieldID) fieldID {
	if yes {
		return id
	}
	return otherField
}

func identifyContent(rest string) fieldID {
	switch rest {
	case "type":
		return fieldContentType
	case "transfer-encoding":
		return fieldContentEncoding
	case "id":
		return fieldContentID
	case "description":
		return fieldContentDescription
	case "md5":
		return fieldContentMD5
	case "disposition":
		return fieldContentDisposition
	case "language":
		return fieldContentLanguage
	case "location":
		return fieldContentLocation
	}
	return otherField
}

// headerBytes consumes header lines up to the end of data or of the header.
func (p *Parser) headerBytes(data []byte) []byte {
	for len(data) > 0 && p.state == inHeader {
		if !p.holding {
			p.linePos, p.lineLines = p.pos, p.lines
		}
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			p.count(data)
			p.holdHeader(data)
			return nil
		}
		line := data[:i]
		p.countLine(data[:i+1])
		if p.holding {
			p.holdHeader(line)
			line = p.held
		}
		p.headerLine(bytes.TrimSuffix(line, cr))
		p.held, p.holding = p.held[:0], false
		data = data[i+1:]
	}
	return data
}

// holdHeader keeps the piece of an unfinished header line as far as anything can come of it. What is beyond that is only counted.
func (p *Parser) holdHeader(piece []byte) {
	room := p.limits.FieldBytes + boundaryLine - len(p.held)
	p.held = append(p.held, piece[:min(room, len(piece))]...)
	p.holding = true
}

// headerLine takes one line, without its line end, that began at linePos and is already counted.
func (p *Parser) headerLine(line []byte) {
	h := &p.header
	switch {
	case len(line) == 0:
		p.endHeader(p.pos, p.lines, true)
	case h.any && (line[0] == ' ' || line[0] == '\t'):
		h.continueField(line, p.limits.FieldBytes)
	case len(line) >= 2 && line[0] == '-' && line[1] == '-' && p.headerBoundary(line, true):
	default:
		p.finishField()
		h.beginField(line, p.limits.FieldBytes)
	}
}

// headerBoundary ends the header when its line is a boundary of a multipart around it. The line end before the boundary belongs to it.
func (p *Parser) headerBoundary(line []byte, complete bool) bool {
	if len(p.boundaries) == 0 {
		return false
	}
	b, ending := p.findBoundary(line, complete)
	if b < 0 {
		return false
	}
	end, endLine := p.linePos, p.lineLines
	if p.header.any {
		end, endLine = end-2, endLine-1
	}
	parent := p.nodes[p.current].parent
	if n := p.nodes[p.current]; !p.header.any && parent >= 0 && p.nodes[parent].part.Kind == Embedded {
		// An embedded message of nothing: the empty line that ended the header around it is the line end before the boundary.
		end, endLine = end-2, endLine-1
		n.part.HeaderStart = end
		p.nodes[parent].part.BodyStart, p.nodes[parent].startLine = end, endLine
		parent = p.nodes[parent].parent
	}
	p.endHeader(end, endLine, false)
	if p.state == inHeader {
		p.endHeader(end, endLine, false)
	}
	// The line end before the boundary is in the bodies of the parts around this one, if the boundary ends them too.
	for p.current != parent {
		p.closePart(end, endLine)
	}
	p.enterBoundary(b, ending, p.linePos, p.lineLines)
	if complete {
		p.lineDone()
	}
	return true
}

// finishHeader ends a header at the end of the message.
func (p *Parser) finishHeader() {
	if line := p.held; p.holding && len(line) > 0 {
		p.held, p.holding = nil, false
		boundary := len(line) >= 2 && line[0] == '-' && line[1] == '-' && p.headerBoundary(line, false)
		if boundary {
			return
		}
		p.headerLineAtEnd(line)
	}
	p.endHeader(p.pos, p.lines, false)
	if p.state == inHeader {
		p.endHeader(p.pos, p.lines, false)
	}
}

func (p *Parser) headerLineAtEnd(line []byte) {
	h := &p.header
	if h.any && (line[0] == ' ' || line[0] == '\t') {
		h.continueField(line, p.limits.FieldBytes)
		return
	}
	p.finishField()
	h.beginField(line, p.limits.FieldBytes)
}

// beginField reads the first line of a field. A line without a colon is no field.
func (h *headerState) beginField(line []byte, limit int) {
	h.any = true
	h.field = otherField
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return
	}
	value := line[colon+1:]
	h.field = identify(bytes.TrimRight(line[:colon], " \t"))
	if h.field == otherField || h.field <= fieldMessageID && !h.envelope {
		h.field = otherField
		return
	}
	if trimmed := bytes.TrimLeft(value, " \t"); len(trimmed) > 0 {
		value = trimmed
	} else if len(value) > 0 {
		value = value[1:]
	}
	h.value = append(h.value[:0], value[:min(len(value), limit)]...)
}

func (h *headerState) continueField(line []byte, limit int) {
	if h.field == otherField {
		return
	}
	room := limit - len(h.value) - 1
	if room <= 0 {
		return
	}
	h.value = append(h.value, '\n')
	h.value = append(h.value, line[:min(len(line), room)]...)
}

// endHeader ends the header of the current part at the offset end and goes on to what the header announced.
func (p *Parser) endHeader(end, endLine int64, blankLine bool) {
	p.finishField()
	h := &p.header
	n := p.nodes[p.current]
	n.part.BodyStart, n.startLine = end, endLine
	if h.envelope && n.part.Envelope == nil {
		n.part.Envelope = &Envelope{}
	}
	if !h.mime {
		p.forgetMIME(n)
	}
	p.settleType(n)
	if n.part.Kind != Leaf && (n.depth >= p.limits.Depth-1 || len(p.nodes) >= p.limits.Parts) {
		n.part.becomeOpaque()
	}
	n.digest = n.part.Kind == Multipart && h.digest
	if n.part.Kind == Embedded {
		p.appendNode(end)
		h.begin(true)
		return
	}
	if n.part.Kind == Multipart && h.hasBoundary && blankLine {
		p.boundaries = append(p.boundaries, boundary{p.current, h.boundary})
	}
	p.beginBody()
	p.afterHeader = blankLine
}

// forgetMIME drops what Content fields said in a header that is not MIME at all.
func (p *Parser) forgetMIME(n *node) {
	old := n.part
	n.part = Part{HeaderStart: old.HeaderStart, BodyStart: old.BodyStart, Envelope: old.Envelope}
	p.header.typed = false
	p.header.hasBoundary, p.header.digest = false, false
}

func (p *Parser) settleType(n *node) {
	h := &p.header
	switch {
	case h.typed:
		if n.part.Kind == Embedded {
			n.part.Type, n.part.Subtype = "message", "rfc822"
		} else if n.part.Kind == Leaf && strings.EqualFold(n.part.Type, "multipart") {
			n.part.becomeOpaque()
		}
	case n.parent >= 0 && p.nodes[n.parent].digest:
		n.part.Kind = Embedded
		n.part.Type, n.part.Subtype = "message", "rfc822"
	default:
		n.part.Type, n.part.Subtype = "text", "plain"
	}
}

// becomeOpaque makes a part whose children cannot be looked for a leaf.
func (p *Part) becomeOpaque() {
	p.Kind = Leaf
	p.Type, p.Subtype = "application", "octet-stream"
}
