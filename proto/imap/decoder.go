package imap

import (
	"bytes"
	"math"
)

// Event is what Decoder.Next came to.
type Event uint8

// The events.
const (
	// NeedInput: nothing more can be said before further bytes come.
	NeedInput Event = iota
	// Continue: the client waits for a continuation request ("+ OK") before it sends a literal.
	Continue
	// Ready: Command holds a command, or what has been read of it up to a Pending literal.
	Ready
	// Bad: the client made a mistake, see Failure. The decoder goes on with the next line.
	Bad
	// Fatal: the connection must end with "* BYE " and Failure's text.
	Fatal
)

// Command is a command as read.
type Command struct {
	// Tag is empty when the tag itself was no tag.
	Tag string
	// Name is in capitals, "" when there was none. UID commands are named "UID FETCH" and so on.
	Name string
	Spec *CommandSpec
	Args []Arg
	// Literal is true when the last argument read is Pending and waits for AcceptLiteral.
	Literal bool
}

type phase uint8

const (
	atTag phase = iota
	atName
	atUIDName
	atArgs
	inLiteral
	streaming
	passing
)

// Decoder reads commands from bytes that come in any portions. The zero value is not usable; see NewDecoder.
type Decoder struct {
	grammar *Grammar
	limits  Limits

	buf     []byte
	command int // where the present command begins in buf
	pos     int // what has been understood
	scan    int // how far the token at pos has been looked at

	phase   phase
	cmd     Command
	failure string
	// lists are the lists that are open, outermost first; their arguments so far are in args.
	lists   [][]Arg
	args    []Arg
	literal uint64
	binary  bool
	emit    bool // passing ends in Ready; streaming: the literal comes unasked
	resumed bool
}

// NewDecoder makes a decoder of grammar's commands.
func NewDecoder(grammar *Grammar, limits Limits) *Decoder {
	d := &Decoder{}
	d.Reset(grammar, limits)
	return d
}

// Reset changes grammar and limits between two commands, as at login; buffered input stays.
func (d *Decoder) Reset(grammar *Grammar, limits Limits) {
	if limits.Line <= 0 {
		limits.Line = DefaultLine
	}
	if limits.Depth <= 0 {
		limits.Depth = DefaultDepth
	}
	d.grammar, d.limits = grammar, limits
}

const (
	firstSpace = 1 << 10
	mostSpace  = 32 << 10
)

// Space returns where the next bytes of input may be put, at least some hundred octets. Arguments of a command that was returned before
// become invalid.
func (d *Decoder) Space() []byte {
	if d.command > 0 {
		if d.phase == atTag || d.phase == streaming || d.phase == passing && !d.emit {
			d.drop(d.command)
		} else {
			d.move()
		}
	}
	if cap(d.buf)-len(d.buf) < firstSpace/2 {
		size := min(max(2*cap(d.buf), firstSpace), cap(d.buf)+mostSpace)
		d.buf = append(make([]byte, 0, size), d.buf...)
	}
	return d.buf[len(d.buf):cap(d.buf)]
}

// Filled tells that n bytes were put where Space said.
func (d *Decoder) Filled(n int) { d.buf = d.buf[:len(d.buf)+n] }

// Feed copies input; it is Space and Filled for callers that have the bytes already.
func (d *Decoder) Feed(input []byte) {
	for len(input) > 0 {
		n := copy(d.Space(), input)
		d.Filled(n)
		input = input[n:]
	}
}

// move gives the present command a buffer of its own, so that what was read of it stays where it is.
func (d *Decoder) move() {
	rest := d.buf[d.command:]
	d.buf = append(make([]byte, 0, max(firstSpace, 2*len(rest))), rest...)
	d.pos, d.scan, d.command = d.pos-d.command, max(d.scan-d.command, 0), 0
}

func (d *Decoder) drop(n int) {
	d.buf = d.buf[:copy(d.buf, d.buf[n:])]
	d.pos, d.scan, d.command = d.pos-n, max(d.scan-n, 0), 0
}

// Buffered returns how many bytes of input have not been used.
func (d *Decoder) Buffered() int { return len(d.buf) - d.pos }

// Discard drops all input that has not been used.
func (d *Decoder) Discard() { d.buf = d.buf[:d.pos] }

// Idle gives memory back while nothing is expected to come soon.
func (d *Decoder) Idle() {
	if d.phase != atTag || d.Buffered() > 0 {
		return
	}
	if cap(d.buf) > firstSpace {
		d.buf = nil
	} else {
		d.buf = d.buf[:0]
	}
	d.pos, d.scan, d.command = 0, 0, 0
	d.args, d.lists, d.cmd = nil, nil, Command{}
}

// Command returns what Next found; it is valid until Next is called again.
func (d *Decoder) Command() *Command { return &d.cmd }

// Failure tells the mistake after Bad and Fatal.
func (d *Decoder) Failure() string { return d.failure }

// Next goes on with what is buffered.
func (d *Decoder) Next() Event {
	for {
		var event Event
		var more bool
		switch d.phase {
		case atTag:
			event, more = d.readTag()
		case atName, atUIDName:
			event, more = d.readName()
		case atArgs:
			event, more = d.readArg()
		case inLiteral:
			event, more = d.keepLiteral()
		case passing:
			event, more = d.pass()
		case streaming:
			return NeedInput
		}
		if !more {
			return event
		}
	}
}

// word finds the end of the word at pos: the position of a space, or of the end of line; ok is false when more input is needed.
func (d *Decoder) word() (end int, ok bool) {
	for i := max(d.scan, d.pos); i < len(d.buf); i++ {
		switch d.buf[i] {
		case ' ', '\n':
			return i, true
		case '\r':
			if i+1 == len(d.buf) {
				d.scan = i
				return 0, false
			}
			return i, true
		}
	}
	d.scan = len(d.buf)
	return 0, false
}

func (d *Decoder) tooLong() bool { return len(d.buf)-d.command > d.limits.Line }

func (d *Decoder) overlong() (Event, bool) {
	if d.limits.LineFatal {
		return d.fatal("Input buffer full, aborting")
	}
	return d.bad("Too long argument")
}

func (d *Decoder) bad(text string) (Event, bool) {
	d.failure, d.phase, d.emit = text, passing, false
	d.scan = d.pos
	return Bad, false
}

func (d *Decoder) fatal(text string) (Event, bool) {
	d.failure = text
	return Fatal, false
}

func (d *Decoder) readTag() (Event, bool) {
	d.command = d.pos
	d.cmd = Command{Args: d.cmd.Args[:0]}
	d.args, d.lists, d.resumed = d.args[:0], d.lists[:0], false
	end, ok := d.word()
	if !ok {
		if d.tooLong() {
			return d.overlong()
		}
		return NeedInput, false
	}
	tag := d.buf[d.pos:end]
	if !validTag(tag) {
		return d.bad("Invalid tag")
	}
	d.cmd.Tag = string(tag)
	d.pos, d.phase = end, atName
	d.scan = d.pos
	return 0, true
}

func validTag(tag []byte) bool {
	for _, c := range tag {
		if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte(`+(){%*"\`), c) >= 0 {
			return false
		}
	}
	return len(tag) > 0
}

func (d *Decoder) readName() (Event, bool) {
	if d.pos == len(d.buf) {
		return NeedInput, false
	}
	if d.buf[d.pos] == ' ' && d.scan <= d.pos {
		d.scan = d.pos + 1
	}
	start := d.pos + 1
	if d.buf[d.pos] != ' ' {
		return d.bad("Invalid command name")
	}
	end, ok := d.word()
	if !ok {
		if d.tooLong() {
			return d.overlong()
		}
		return NeedInput, false
	}
	word := d.buf[start:end]
	if len(word) == 0 || !validName(word) {
		return d.bad("Invalid command name")
	}
	d.pos, d.scan = end, end
	if d.phase == atUIDName {
		d.cmd.Name = "UID " + upper(word)
	} else if d.cmd.Name = upper(word); d.cmd.Name == "UID" {
		d.phase, d.cmd.Name = atUIDName, ""
		return 0, true
	}
	d.cmd.Spec = d.grammar.commands[d.cmd.Name]
	switch {
	case d.cmd.Spec == nil:
		return d.bad("Unknown command")
	case d.cmd.Spec.Args == NoArgs:
		d.phase, d.emit = passing, true
	default:
		d.phase = atArgs
	}
	return 0, true
}

func validName(word []byte) bool {
	for _, c := range word {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(word) <= 64
}

// pass goes over the rest of the line. A line without end is dropped as it comes.
func (d *Decoder) pass() (Event, bool) {
	i := bytes.IndexByte(d.buf[d.pos:], '\n')
	if i < 0 {
		if !d.emit {
			d.pos = len(d.buf)
			d.command = d.pos
		} else if d.scan = len(d.buf); d.tooLong() {
			return d.overlong()
		}
		return NeedInput, false
	}
	d.pos += i + 1
	d.scan, d.phase = d.pos, atTag
	if !d.emit {
		d.command = d.pos
		return 0, true
	}
	d.emit = false
	d.cmd.Args = d.args
	return Ready, false
}

// AcceptLiteral takes a Pending literal: its octets are read with ReadLiteral from then on. It tells whether the client waits for a continuation
// request first.
func (d *Decoder) AcceptLiteral() (sync bool) {
	d.cmd.Literal = false
	d.phase = streaming
	sync = !d.nonSync()
	d.command = d.pos
	d.args, d.cmd.Args = nil, nil
	clear(d.lists)
	return sync
}

// RefuseLiteral leaves a Pending literal. A client that waits for a continuation request does not send it, the octets of a non-synchronising
// one are passed over by the caller with AcceptLiteral and ReadLiteral. It tells which.
func (d *Decoder) RefuseLiteral() (comes bool) {
	if d.nonSync() {
		return true
	}
	d.cmd.Literal = false
	d.phase, d.command, d.scan = atTag, d.pos, d.pos
	return false
}

// nonSync looks at the literal's head, which ends at pos.
func (d *Decoder) nonSync() bool { return d.emit }

// ReadLiteral returns the literal's octets that are buffered; done is true with the last of them. The bytes are valid until the next call.
func (d *Decoder) ReadLiteral() (part []byte, done bool) {
	n := min(uint64(len(d.buf)-d.pos), d.literal)
	part = d.buf[d.pos : d.pos+int(n)]
	d.pos += int(n)
	d.command, d.scan = d.pos, d.pos
	d.literal -= n
	return part, d.literal == 0
}

// Resume goes on with the arguments that follow a literal that ReadLiteral finished. They are told by a further Ready of the same command.
func (d *Decoder) Resume() { d.phase, d.emit, d.resumed = atArgs, false, true }

// Abandon passes over the rest of the present command's line.
func (d *Decoder) Abandon() {
	d.phase, d.emit, d.scan = passing, false, d.pos
}

// Line returns the next line without its end, for the exchanges that are no commands (AUTHENTICATE, IDLE). more is true when it has not
// arrived yet; tooLong when it is longer than limit.
func (d *Decoder) Line(limit int) (line []byte, more, tooLong bool) {
	i := bytes.IndexByte(d.buf[d.pos:], '\n')
	if i < 0 {
		return nil, true, len(d.buf)-d.pos > limit
	}
	line = d.buf[d.pos : d.pos+i]
	d.pos += i + 1
	d.command, d.scan = d.pos, d.pos
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, false, len(line) > limit
}

// literalTooLarge tells whether size does not fit what is left of the command.
func (d *Decoder) literalTooLarge(size uint64) bool {
	left := d.limits.Line - (d.pos - d.command)
	return left < 0 || size > uint64(left) || size > math.MaxInt32
}
