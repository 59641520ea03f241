package smtpd

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"postilion/proto/smtp"
)

const (
	// headerProbe is how much of a line is looked at to know whether it is a header: the longest record of Postfix.
	headerProbe = 2048
	// messageIDLimit is how much of Message-Id is kept for the log.
	messageIDLimit = 1000
)

// cleaner does to a message's header what Postfix's cleanup(8) does: headers that must not be there go, missing ones come, what is no
// header begins the body, Received headers are counted. It works on the stream, and the body passes through untouched.
type cleaner struct {
	options     *Options
	transaction *transaction

	partial []byte
	// run is what is written next: pieces of the input that lie behind each other.
	run []byte
	// body: the header is over. midLine: the rest of a long header line follows. started: a line was seen.
	body, midLine, started bool
	// dropping the present header; size counts what it has so far, and open says that its last line is not complete.
	dropping bool
	size     int
	open     bool
	// messageID collects the value while collecting is set.
	messageID  []byte
	collecting bool

	seen       headerSet
	resent     bool
	hops       int
	header8Bit bool
	forbidden  bool
}

// headerSet holds which headers there were; those of Resent- stand apart.
type headerSet struct{ messageID, date, from, resentMessageID, resentDate, resentFrom bool }

func (c *cleaner) write(data []byte) {
	if c.options.MessageRejectCharacters != "" && bytes.ContainsAny(data, c.options.MessageRejectCharacters) {
		c.forbidden = true
	}
	if strip := c.options.MessageStripCharacters; strip != "" && bytes.ContainsAny(data, strip) {
		data = slices.DeleteFunc(bytes.Clone(data), func(b byte) bool { return strings.IndexByte(strip, b) >= 0 })
	}
	for len(data) > 0 && !c.body {
		end := bytes.IndexByte(data, '\n')
		piece := data
		if end >= 0 {
			piece = data[:end+1]
		}
		data = data[len(piece):]
		switch {
		case c.midLine:
			c.keep(piece)
			c.midLine = end < 0
		case end < 0 && len(c.partial)+len(piece) < headerProbe:
			c.partial = append(c.partial, piece...)
		default:
			if len(c.partial) > 0 {
				piece = append(c.partial, piece...)
				c.partial = nil
			}
			c.line(piece)
			c.midLine = end < 0
		}
	}
	c.flush()
	c.transaction.put(data)
}

// emit writes octets of the input. Pieces that lie behind each other go on together.
func (c *cleaner) emit(piece []byte) {
	if n := len(c.run); n > 0 && len(piece) > 0 && cap(c.run) > n && &c.run[:n+1][n] == &piece[0] {
		c.run = c.run[:n+len(piece)]
		return
	}
	c.flush()
	c.run = piece
}

func (c *cleaner) flush() {
	if len(c.run) > 0 {
		c.transaction.put(c.run)
	}
	c.run = nil
}

// put writes octets that are not of the input.
func (c *cleaner) put(text string) { c.emit([]byte(text)) }

// line takes a line of the header, or its beginning when it is long.
func (c *cleaner) line(line []byte) {
	if !c.header8Bit && c.options.Strict7BitHeaders {
		c.header8Bit = slices.ContainsFunc(line, func(b byte) bool { return b >= 128 })
	}
	if !c.started {
		if bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
			c.put("X-Mailbox-Line: ")
			c.emit(line)
			return
		}
		c.started = true
		if line[0] == ' ' || line[0] == '\t' {
			c.endHeader(true)
			c.emit(line)
			return
		}
	}
	switch {
	case line[0] == '\r' || line[0] == '\n':
		c.endHeader(false)
		c.emit(line)
	case line[0] == ' ' || line[0] == '\t':
		c.keep(line)
	default:
		name, colon := headerName(line)
		if name == nil {
			c.endHeader(true)
			c.emit(line)
			return
		}
		c.begin(name)
		if colon > len(name) {
			// The old syntax "name : value".
			c.keep(name)
			line = line[colon:]
		}
		c.keep(line)
		if c.collecting && len(c.messageID) > 0 {
			c.messageID = c.messageID[bytes.IndexByte(c.messageID, ':')+1:]
		}
	}
}

// headerName returns the name of a header and where its colon is; nil when the line is no header.
func headerName(line []byte) (name []byte, colon int) {
	colon = bytes.IndexByte(line, ':')
	if colon <= 0 {
		return nil, 0
	}
	name = bytes.TrimRight(line[:colon], " \t")
	for _, b := range name {
		if b <= ' ' || b >= 127 {
			return nil, 0
		}
	}
	if len(name) == 0 {
		return nil, 0
	}
	return name, colon
}

// begin starts a header.
func (c *cleaner) begin(name []byte) {
	c.size, c.open, c.dropping, c.collecting = 0, false, false, false
	for _, drop := range c.options.MessageDropHeaders {
		if len(name) == len(drop) && bytes.EqualFold(name, []byte(drop)) {
			c.dropping = true
			return
		}
	}
	is := func(other string) bool { return len(name) == len(other) && bytes.EqualFold(name, []byte(other)) }
	switch {
	case is("received"):
		c.hops++
	case is("message-id"):
		c.seen.messageID, c.collecting, c.messageID = true, true, c.messageID[:0]
	case is("date"):
		c.seen.date = true
	case is("from"):
		c.seen.from = true
	case len(name) > 7 && bytes.EqualFold(name[:7], []byte("resent-")):
		c.resent = true
		c.seen.resentMessageID = c.seen.resentMessageID || is("resent-message-id")
		c.seen.resentDate = c.seen.resentDate || is("resent-date")
		c.seen.resentFrom = c.seen.resentFrom || is("resent-from")
	}
}

// keep writes a piece of the present header unless the header is unwanted or too long already.
func (c *cleaner) keep(piece []byte) {
	if c.dropping {
		return
	}
	if c.collecting && len(c.messageID) < messageIDLimit {
		c.messageID = append(c.messageID, piece...)
	}
	text := bytes.TrimRight(piece, "\r\n")
	room := c.options.HeaderSizeLimit - c.size
	ended := len(text) < len(piece)
	if len(text) <= room && ended {
		c.emit(piece)
		c.size, c.open = c.size+len(text)+1, false
		return
	}
	if part := text[:max(min(len(text), room), 0)]; len(part) > 0 {
		c.emit(part)
		c.size, c.open = c.size+len(part), true
	}
	if ended && c.open {
		c.put("\r\n")
		c.size, c.open = c.size+1, false
	}
}

// endHeader ends the header: missing fields are added. blank adds the empty line that the message lacks.
func (c *cleaner) endHeader(blank bool) {
	if c.body {
		return
	}
	c.body = true
	t := c.transaction
	x := t.session
	if t.local || c.options.AlwaysAddMissingHeaders {
		c.flush()
		t.pass(c.missing())
	}
	id := "<>"
	if c.seen.messageID {
		id = string(bytes.TrimSpace(c.messageID))
		if strings.ContainsAny(id, " \t\r\n") {
			id = strings.Join(strings.Fields(id), " ")
		}
	}
	x.lines.cleanupAbout(t.id, "message-id="+id)
	if blank {
		c.put("\r\n")
	}
}

// missing returns the fields that RFC 5322 wants and the message does not have.
func (c *cleaner) missing() []byte {
	t := c.transaction
	x := t.session
	prefix, seen := "", [3]bool{c.seen.messageID, c.seen.date, c.seen.from}
	if c.resent {
		prefix, seen = "Resent-", [3]bool{c.seen.resentMessageID, c.seen.resentDate, c.seen.resentFrom}
	}
	var out []byte
	if !seen[0] {
		id := "<" + t.arrival.UTC().Format("20060102150405") + "." + t.id + "@" + x.options.Hostname + ">"
		out = append(out, prefix+"Message-Id: "+id+"\r\n"...)
		if c.resent {
			x.lines.cleanupAbout(t.id, "resent-message-id="+id)
		} else {
			c.seen.messageID, c.messageID = true, append(c.messageID[:0], id...)
		}
	}
	if !seen[1] {
		out = append(out, prefix+"Date: "+x.server.dates.format(t.arrival)+"\r\n"...)
	}
	if !seen[2] {
		from := "MAILER-DAEMON"
		if sender := x.engine.Envelope().Sender; sender != "" {
			from = smtp.QuoteLocal(sender)
		}
		out = append(out, prefix+"From: "+from+"\r\n"...)
	}
	return out
}

// finish ends the message, which may have ended inside its header.
func (c *cleaner) finish() {
	if c.body {
		return
	}
	if len(c.partial) > 0 {
		partial := c.partial
		c.partial = nil
		c.line(partial)
	}
	c.endHeader(false)
	c.flush()
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
