package message

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// binaryVersion is the first byte of the binary form. A change of the form takes a new number; Decode reads all that were ever written.
const binaryVersion = 1

// decodeDepth is how deeply parts may lie in each other in the binary form.
const decodeDepth = 256

// ErrBinary is what Decode returns, wrapped, for bytes that AppendBinary did not write.
var ErrBinary = errors.New("message: not a stored message structure")

// AppendBinary appends the compact form that Decode reads. It holds everything the message structure holds.
func (m *Message) AppendBinary(dst []byte) []byte {
	dst = append(dst, binaryVersion)
	dst = binary.AppendUvarint(dst, uint64(m.Size))
	dst = binary.AppendUvarint(dst, uint64(m.Lines))
	dst = binary.AppendUvarint(dst, uint64(m.BareLF))
	return appendPart(dst, &m.Root, 0)
}

const (
	partEnvelope = 1 << iota
	partParams
	partEncoding
	partTexts
	partDisposition
	partLanguage
	partChildren
)

// appendPart writes positions as distances from base, the beginning of the part around this one.
func appendPart(dst []byte, p *Part, base int64) []byte {
	content := byte(0)
	mark := func(bit byte, yes bool) {
		if yes {
			content |= bit
		}
	}
	mark(partEnvelope, p.Envelope != nil)
	mark(partParams, len(p.Params) > 0)
	mark(partEncoding, p.Encoding != "")
	mark(partTexts, p.ID != "" || p.Description != "" || p.MD5 != "" || p.Location != "" || p.Present&^HasDisposition != 0)
	mark(partDisposition, p.Disposition != "" || len(p.DispositionParams) > 0 || p.Present&HasDisposition != 0)
	mark(partLanguage, len(p.Language) > 0)
	mark(partChildren, len(p.Children) > 0)
	dst = append(dst, content, byte(p.Kind), byte(p.Present))
	dst = binary.AppendVarint(dst, p.HeaderStart-base)
	dst = binary.AppendUvarint(dst, uint64(p.BodyStart-p.HeaderStart))
	dst = binary.AppendUvarint(dst, uint64(p.BodyEnd-p.BodyStart))
	dst = binary.AppendUvarint(dst, uint64(p.BodyLines))
	dst = appendText(appendText(dst, p.Type), p.Subtype)
	if content&partParams != 0 {
		dst = appendParamList(dst, p.Params)
	}
	if content&partEncoding != 0 {
		dst = appendText(dst, p.Encoding)
	}
	if content&partTexts != 0 {
		dst = appendText(appendText(dst, p.ID), p.Description)
		dst = appendText(appendText(dst, p.MD5), p.Location)
	}
	if content&partDisposition != 0 {
		dst = appendText(dst, p.Disposition)
		dst = appendParamList(dst, p.DispositionParams)
	}
	if content&partLanguage != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(p.Language)))
		for _, tag := range p.Language {
			dst = appendText(dst, tag)
		}
	}
	if content&partEnvelope != 0 {
		dst = appendEnvelopeBinary(dst, p.Envelope)
	}
	if content&partChildren != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(p.Children)))
		for i := range p.Children {
			dst = appendPart(dst, &p.Children[i], p.HeaderStart)
		}
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// appendPointer writes nil as 0 and a text with its length and one more.
func appendPointer(dst []byte, s *string) []byte {
	if s == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(*s))+1)
	return append(dst, *s...)
}

func appendParamList(dst []byte, params []Param) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(params)))
	for i := range params {
		dst = appendText(appendText(dst, params[i].Name), params[i].Value)
	}
	return dst
}

func appendEnvelopeBinary(dst []byte, e *Envelope) []byte {
	folded := byte(0)
	if e.SubjectFolded {
		folded = 1
	}
	dst = append(dst, folded)
	for _, text := range [...]*string{e.Date, e.Subject, e.InReplyTo, e.MessageID} {
		dst = appendPointer(dst, text)
	}
	for _, list := range [...][]Address{e.From, e.Sender, e.ReplyTo, e.To, e.Cc, e.Bcc} {
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		for i := range list {
			a := &list[i]
			dst = appendPointer(appendPointer(dst, a.Name), a.Route)
			dst = appendPointer(appendPointer(dst, a.Mailbox), a.Host)
		}
	}
	return dst
}

// Decode reads what AppendBinary wrote. Any bytes may be given: what was not written by AppendBinary is an error that wraps ErrBinary, and no
// more memory is taken than about 50 times len(data).
func Decode(data []byte) (*Message, error) {
	d := decoder{rest: string(data)}
	if version := d.byte(); version != binaryVersion && d.err == nil {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrBinary, version, binaryVersion)
	}
	m := &Message{Size: d.length(), Lines: d.length(), BareLF: d.length()}
	d.part(&m.Root, 0, m.Size, 0)
	if d.err == nil && d.rest != "" {
		d.fail("has bytes left over")
	}
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}

// decoder takes values from the front of rest. After a failure everything it takes is zero.
type decoder struct {
	rest string
	err  error
	// texts is where the next pointers point to, so that they need few allocations.
	texts []string
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: it %s", ErrBinary, what)
	}
	d.rest = ""
}

func (d *decoder) byte() byte {
	if d.rest == "" {
		d.fail("is cut off")
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b := d.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	d.fail("has a number that is too long")
	return 0
}

func (d *decoder) length() int64 {
	v := d.uvarint()
	if v > 1<<62 {
		d.fail("has a size that is too large")
		return 0
	}
	return int64(v)
}

func (d *decoder) varint() int64 {
	v := d.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// count takes the number of elements of which each takes at least size bytes.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.rest)/size) {
		d.fail("has a list that is longer than the rest")
		return 0
	}
	return int(v)
}

func (d *decoder) text() string { return d.take(d.uvarint()) }

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.rest)) {
		d.fail("has a text that is longer than the rest")
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) pointer() *string {
	n := d.uvarint()
	if n == 0 {
		return nil
	}
	if len(d.texts) == 0 {
		d.texts = make([]string, 16)
	}
	p := &d.texts[0]
	d.texts = d.texts[1:]
	*p = d.take(n - 1)
	return p
}

// part reads one part, which must lie within end.
func (d *decoder) part(p *Part, base, end int64, depth int) {
	if depth >= decodeDepth {
		d.fail("has parts that lie too deeply in each other")
		return
	}
	content := d.byte()
	p.Kind = Kind(d.byte())
	p.Present = Presence(d.byte())
	p.HeaderStart = base + d.varint()
	p.BodyStart = p.HeaderStart + d.length()
	p.BodyEnd = p.BodyStart + d.length()
	p.BodyLines = d.length()
	if p.Kind > Embedded || p.HeaderStart < 0 || p.BodyStart < p.HeaderStart || p.BodyEnd < p.BodyStart || p.BodyEnd > end {
		d.fail("has a part outside of the message")
		return
	}
	p.Type, p.Subtype = d.text(), d.text()
	if content&partParams != 0 {
		p.Params = d.params()
	}
	if content&partEncoding != 0 {
		p.Encoding = d.text()
	}
	if content&partTexts != 0 {
		p.ID, p.Description = d.text(), d.text()
		p.MD5, p.Location = d.text(), d.text()
	}
	if content&partDisposition != 0 {
		p.Disposition = d.text()
		p.DispositionParams = d.params()
	}
	if content&partLanguage != 0 {
		for range d.count(1) {
			p.Language = append(p.Language, d.text())
		}
	}
	if content&partEnvelope != 0 {
		p.Envelope = d.envelope()
	}
	if content&partChildren != 0 {
		const smallestPart = 9
		if n := d.count(smallestPart); n > 0 {
			p.Children = make([]Part, n)
		}
		for i := range p.Children {
			if d.part(&p.Children[i], p.HeaderStart, end, depth+1); d.err != nil {
				return
			}
		}
	}
}

func (d *decoder) params() []Param {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	params := make([]Param, n)
	for i := range params {
		params[i].Name, params[i].Value = d.text(), d.text()
	}
	return params
}

func (d *decoder) envelope() *Envelope {
	e := &Envelope{SubjectFolded: d.byte() != 0}
	e.Date, e.Subject = d.pointer(), d.pointer()
	e.InReplyTo, e.MessageID = d.pointer(), d.pointer()
	for _, list := range [...]*[]Address{&e.From, &e.Sender, &e.ReplyTo, &e.To, &e.Cc, &e.Bcc} {
		n := d.count(4)
		if n == 0 {
			continue
		}
		*list = make([]Address, n)
		for i := range *list {
			a := &(*list)[i]
			a.Name, a.Route = d.pointer(), d.pointer()
			a.Mailbox, a.Host = d.pointer(), d.pointer()
		}
	}
	return e
}

// Shift returns the message as it is after complete header lines, prefixLen bytes and prefixLines lines in network form, were put in front of
// it. The lines must be trace fields (Return-Path, Delivered-To, Received and the like), which are no part of the structure.
func (m *Message) Shift(prefixLen, prefixLines int64) *Message {
	shifted := &Message{Size: m.Size + prefixLen, Lines: m.Lines + prefixLines, BareLF: m.BareLF, Root: shiftPart(m.Root, prefixLen)}
	shifted.Root.HeaderStart = 0
	return shifted
}

func shiftPart(p Part, by int64) Part {
	p.HeaderStart += by
	p.BodyStart += by
	p.BodyEnd += by
	if p.Children != nil {
		children := make([]Part, len(p.Children))
		for i := range p.Children {
			children[i] = shiftPart(p.Children[i], by)
		}
		p.Children = children
	}
	return p
}
