// Package pop3 is the server's side of POP3 as a language: it turns the bytes of a client into commands, reads their arguments, keeps the books
// of a session's maildrop (which messages are marked deleted or were retrieved), and writes multi-line responses with their dots stuffed. It
// follows RFC 1939 (POP3), RFC 2449 (CAPA, response codes), RFC 2595 (STLS) and RFC 5034 (AUTH); what is refused with which words follows
// Dovecot 2.3.
//
// It is not a server: it has no socket, no clock, no goroutine, no mailbox and no policy. Package server/pop3d is the session around it.
package pop3

import "bytes"

// Limits of a client's input, in octets of one line without its end.
const (
	// PreloginLine is what Dovecot's login process accepts as one command.
	PreloginLine = 8 << 10
	// Line is what Dovecot's pop3 process accepts as one command.
	Line = 8 << 10
	// SASLLine is the longest response of a SASL exchange (RFC 5034 section 4 asks for more than its 12288).
	SASLLine = 16 << 10
)

// Event is what Decoder.Next came to.
type Event uint8

// The events.
const (
	// NeedInput: there is no whole line yet.
	NeedInput Event = iota
	// Ready: Command holds a command, Response a line.
	Ready
	// TooLong: the line exceeds the limit; nothing after it can be understood.
	TooLong
)

// Command is a line of the client.
type Command struct {
	// Name is in capitals, "" when the line is empty or begins with a space.
	Name string
	// Args is what follows the name and its space. It is valid until the Decoder is used again.
	Args []byte
}

// Decoder reads lines that end with LF or CRLF from bytes that come in any portions. The zero value is ready for use.
type Decoder struct {
	buf  []byte
	pos  int // what has been understood
	scan int // up to where no end of line was found
	cmd  Command
	line []byte
}

const firstSpace = 512

// Space returns where the next bytes of input may be put, never empty. Command and Response become invalid.
func (d *Decoder) Space() []byte {
	if d.pos > 0 {
		d.buf = d.buf[:copy(d.buf, d.buf[d.pos:])]
		d.scan = max(d.scan-d.pos, 0)
		d.pos = 0
	}
	if cap(d.buf)-len(d.buf) < firstSpace/2 {
		d.buf = append(make([]byte, 0, max(2*cap(d.buf), firstSpace)), d.buf...)
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

// Buffered returns how many bytes of input have not been used.
func (d *Decoder) Buffered() int { return len(d.buf) - d.pos }

// Discard drops all input that has not been used.
func (d *Decoder) Discard() { d.buf, d.scan = d.buf[:d.pos], d.pos }

// Idle gives memory back while nothing is expected to come soon.
func (d *Decoder) Idle() {
	if d.Buffered() == 0 {
		*d = Decoder{}
	}
}

// next finds a line of at most limit octets.
func (d *Decoder) next(limit int) Event {
	from := max(d.scan, d.pos)
	end := bytes.IndexByte(d.buf[from:], '\n')
	if end < 0 {
		d.scan = len(d.buf)
		if d.Buffered() > limit+1 {
			return TooLong
		}
		return NeedInput
	}
	line := d.buf[d.pos : from+end]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) > limit {
		return TooLong
	}
	d.line, d.pos = line, from+end+1
	d.scan = d.pos
	return Ready
}

// Next looks for the next command of at most limit octets.
func (d *Decoder) Next(limit int) Event {
	event := d.next(limit)
	if event != Ready {
		return event
	}
	name, args, _ := bytes.Cut(d.line, []byte(" "))
	d.cmd = Command{Name: commandName(name), Args: args}
	return Ready
}

// Command returns what Next found.
func (d *Decoder) Command() *Command { return &d.cmd }

// NextResponse looks for the client's next line in a SASL exchange.
func (d *Decoder) NextResponse(limit int) Event { return d.next(limit) }

// Response returns the line that NextResponse found.
func (d *Decoder) Response() []byte { return d.line }

// commandName turns a word into capitals; the known names cost no allocation.
func commandName(word []byte) string {
	var upper [8]byte
	if len(word) > len(upper) {
		return string(bytes.ToUpper(word))
	}
	for i, c := range word {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	for _, name := range names {
		if string(upper[:len(word)]) == name {
			return name
		}
	}
	return string(upper[:len(word)])
}

var names = [...]string{
	"RETR", "DELE", "TOP", "UIDL", "LIST", "STAT", "NOOP", "QUIT", "RSET", "LAST", "CAPA", "USER", "PASS", "APOP", "AUTH", "STLS", "UTF8", "LANG",
}
