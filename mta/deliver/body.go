package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"strings"

	"postilion/mail/envelope"
	"postilion/mail/message"
	"postilion/proto/smtp"
	"postilion/store"
)

// messageBody reads a message in the form in which one server can take it: 8-bit parts as quoted-printable for a server without 8BITMIME
// (RFC 6152 section 3), overlong lines broken.
type messageBody struct {
	content  store.Content
	segments []segment
	// kind is the BODY parameter.
	kind envelope.BodyType
	// needsUTF8: the message needs SMTPUTF8 and the server lacks it.
	needsUTF8 bool

	lineLimit int
	column    int
	broken    []byte
	buffer    [16 << 10]byte
	encoded   bytes.Buffer
	encoder   *quotedprintable.Writer
}

// segment is a piece of what is sent: literal text, or a range of the message, as it is or encoded.
type segment struct {
	literal  []byte
	from, to int64
	encode   bool
}

const (
	// headerLimit is the longest header of a part that is written anew.
	headerLimit = 256 << 10
	// partLimit is how many parts are converted.
	partLimit = 10_000
)

var errUnconvertible = errors.New("8-bit data, which the server does not take, cannot be converted")

func newMessageBody(job *Job, server *smtp.Extensions, lineLimit int, noConversion bool) (*messageBody, error) {
	b := &messageBody{content: job.Content, segments: []segment{{to: job.Content.Size()}}, lineLimit: lineLimit, kind: job.Envelope.Body}
	if job.Envelope.UTF8 && !server.Has("SMTPUTF8") {
		needs, err := b.isInternational(job)
		if b.needsUTF8 = needs; needs || err != nil {
			return b, err
		}
	}
	has8Bit := job.Structure != nil && hasEncoding8Bit(&job.Structure.Root)
	if has8Bit && b.kind == envelope.SevenBit {
		b.kind = envelope.EightBitMIME
	}
	if server.Has("8BITMIME") || noConversion || !has8Bit || job.Structure.BareLF > 0 {
		return b, nil
	}
	b.kind = envelope.SevenBit
	c := conversion{content: job.Content}
	if err := c.part(&job.Structure.Root); err != nil {
		return nil, err
	}
	c.copy(c.done, job.Content.Size())
	b.segments = c.segments
	return b, nil
}

// isInternational tells whether addresses or header of the message are more than ASCII.
func (b *messageBody) isInternational(job *Job) (bool, error) {
	isASCII := func(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r >= 128 }) < 0 }
	if !isASCII(job.Envelope.Sender) {
		return true, nil
	}
	for _, r := range job.Envelope.Recipients {
		if !isASCII(r.Address) {
			return true, nil
		}
	}
	end := job.Content.Size()
	if job.Structure != nil && job.Structure.BareLF == 0 {
		end = job.Structure.Root.BodyStart
	}
	header := io.NewSectionReader(job.Content, 0, end)
	for {
		n, err := header.Read(b.buffer[:])
		for _, c := range b.buffer[:n] {
			if c >= 128 {
				return true, nil
			}
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func is8Bit(encoding string) bool {
	return strings.EqualFold(encoding, "8bit") || strings.EqualFold(encoding, "binary")
}

func hasEncoding8Bit(p *message.Part) bool {
	if is8Bit(p.Encoding) {
		return true
	}
	for i := range p.Children {
		if hasEncoding8Bit(&p.Children[i]) {
			return true
		}
	}
	return false
}

// conversion lists what is sent of a message whose 8-bit parts become quoted-printable.
type conversion struct {
	content  store.Content
	segments []segment
	done     int64
	parts    int
}

func (c *conversion) copy(from, to int64) {
	if to > from {
		c.segments = append(c.segments, segment{from: from, to: to})
	}
	c.done = max(c.done, to)
}

func (c *conversion) part(p *message.Part) error {
	if is8Bit(p.Encoding) {
		if err := c.header(p); err != nil {
			return err
		}
		if p.Kind == message.Leaf {
			c.segments = append(c.segments, segment{from: p.BodyStart, to: p.BodyEnd, encode: true})
			c.done = p.BodyEnd
		}
	}
	for i := range p.Children {
		if err := c.part(&p.Children[i]); err != nil {
			return err
		}
	}
	return nil
}

// header writes a part's header with its new encoding.
func (c *conversion) header(p *message.Part) error {
	if c.parts++; c.parts > partLimit || p.BodyStart-p.HeaderStart > headerLimit || p.HeaderStart < c.done {
		return errUnconvertible
	}
	c.copy(c.done, p.HeaderStart)
	header := make([]byte, p.BodyStart-p.HeaderStart)
	if _, err := c.content.ReadAt(header, p.HeaderStart); err != nil && err != io.EOF {
		return err
	}
	encoding := "7bit"
	if p.Kind == message.Leaf {
		encoding = "quoted-printable"
	}
	var literal []byte
	for field := range message.Fields(header) {
		if field.Is("Content-Transfer-Encoding") {
			literal = fmt.Appendf(literal, "Content-Transfer-Encoding: %s\r\n", encoding)
			continue
		}
		literal = append(literal, field.Raw...)
	}
	c.segments = append(c.segments, segment{literal: append(literal, "\r\n"...)})
	c.done = p.BodyStart
	return nil
}

// next returns the next octets, none at the end. They are valid until the next call.
func (b *messageBody) next() ([]byte, error) {
	for len(b.segments) > 0 {
		s := &b.segments[0]
		if s.literal != nil {
			literal := s.literal
			b.segments = b.segments[1:]
			return b.breakLines(literal), nil
		}
		if s.from == s.to {
			encode := s.encode
			b.segments = b.segments[1:]
			if encode {
				return b.finishEncoding()
			}
			continue
		}
		n, err := b.content.ReadAt(b.buffer[:min(int64(len(b.buffer)), s.to-s.from)], s.from)
		if n == 0 {
			return nil, orUnexpected(err)
		}
		s.from += int64(n)
		if !s.encode {
			return b.breakLines(b.buffer[:n]), nil
		}
		if piece, err := b.encode(b.buffer[:n]); len(piece) > 0 || err != nil {
			return piece, err
		}
	}
	return nil, nil
}

func orUnexpected(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (b *messageBody) encode(data []byte) ([]byte, error) {
	if b.encoder == nil {
		b.encoder = quotedprintable.NewWriter(&b.encoded)
	}
	b.encoded.Reset()
	_, err := b.encoder.Write(data)
	return b.encoded.Bytes(), err
}

func (b *messageBody) finishEncoding() ([]byte, error) {
	if b.encoder == nil {
		return b.next()
	}
	b.encoded.Reset()
	err := b.encoder.Close()
	b.encoder = nil
	if b.encoded.Len() == 0 && err == nil {
		return b.next()
	}
	return b.encoded.Bytes(), err
}

// breakLines breaks lines that are longer than lmtp_line_length_limit, as Postfix does: by a line end and a blank.
func (b *messageBody) breakLines(data []byte) []byte {
	if b.lineLimit <= 0 {
		return data
	}
	out, start := b.broken[:0], 0
	for at := 0; at < len(data); {
		end := bytes.IndexByte(data[at:], '\n')
		ended := end >= 0
		length := len(data) - at
		if ended {
			length = end + 1
		}
		text := len(bytes.TrimRight(data[at:at+length], "\r\n"))
		for b.column+text > b.lineLimit {
			room := b.lineLimit - b.column
			out = append(append(out, data[start:at+room]...), "\r\n "...)
			at += room
			start, text, length, b.column = at, text-room, length-room, 1
		}
		b.column += text
		at += length
		if ended {
			b.column = 0
		}
	}
	if start == 0 && len(out) == 0 {
		return data
	}
	out = append(out, data[start:]...)
	b.broken = out
	return out
}
