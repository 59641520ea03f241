package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"postilion/store"
)

// encoder writes the outgoing stream of an exchange. After a failure it writes nothing more.
type encoder struct {
	exchange *exchange
	ctx      context.Context
	frame    *buffer
	// begun tells that a frame was sent.
	begun bool
	err   error
	// structures is the sum of the structures so far.
	structures int
}

func (e *encoder) begin(ctx context.Context, x *exchange) {
	*e = encoder{exchange: x, ctx: ctx, frame: x.link.take(0)}
}

// need makes room for n octets in the frame.
func (e *encoder) need(n int) {
	if len(e.frame.octets)+n > cap(e.frame.octets) {
		e.grow(n)
	}
}

func (e *encoder) grow(n int) {
	l := e.exchange.link
	if cap(e.frame.octets) < maxPayload {
		larger := l.take(maxPayload)
		larger.octets = append(larger.octets[:0], e.frame.octets...)
		l.give(e.frame)
		e.frame = larger
	}
	if len(e.frame.octets)+n > maxPayload {
		e.flush(false)
	}
}

// flush sends the frame and begins a new one.
func (e *encoder) flush(last bool) {
	if e.err == nil {
		e.err = e.exchange.send(e.ctx, e.frame.octets, !e.begun && !e.exchange.link.server, last)
		e.begun = e.begun || e.err == nil
	}
	e.frame.octets = e.frame.octets[:0]
}

// end sends what is left as the last frame.
func (e *encoder) end() error {
	e.flush(true)
	return e.err
}

// release gives the frame back.
func (e *encoder) release() {
	e.exchange.link.give(e.frame)
	e.frame = nil
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *encoder) octet(b byte) {
	e.need(1)
	e.frame.octets = append(e.frame.octets, b)
}

func (e *encoder) truth(b bool) {
	if b {
		e.octet(1)
	} else {
		e.octet(0)
	}
}

func (e *encoder) number(n uint64) {
	e.need(binary.MaxVarintLen64)
	e.frame.octets = binary.AppendUvarint(e.frame.octets, n)
}

func (e *encoder) signed(n int64) {
	e.need(binary.MaxVarintLen64)
	e.frame.octets = binary.AppendVarint(e.frame.octets, n)
}

// text writes a text that may not be longer than limit.
func (e *encoder) text(s string, limit int) {
	if len(s) > limit {
		e.fail(fmt.Errorf("%w: a text of %d octets, %d are the most: %.40q", store.ErrName, len(s), limit, s))
		return
	}
	e.number(uint64(len(s)))
	if len(s) <= smallBuffer-binary.MaxVarintLen64 {
		e.need(len(s))
		e.frame.octets = append(e.frame.octets, s...)
		return
	}
	e.raw([]byte(s))
}

// raw writes octets without their number, through as many frames as it takes.
func (e *encoder) raw(p []byte) {
	for len(p) > 0 && e.err == nil {
		e.need(min(len(p), chunk))
		n := min(len(p), cap(e.frame.octets)-len(e.frame.octets))
		e.frame.octets = append(e.frame.octets, p[:n]...)
		p = p[n:]
	}
}

// content writes a message: its size and its octets, read as they are sent.
func (e *encoder) content(content store.Content) {
	size := content.Size()
	if size < 0 || size > maxMessage {
		e.fail(fmt.Errorf("%w: a message of %d octets", store.ErrTooMany, size))
		return
	}
	e.number(uint64(size))
	for from := int64(0); from < size && e.err == nil; {
		n := int(min(size-from, chunk))
		e.need(n)
		at := len(e.frame.octets)
		part := e.frame.octets[at : at+n]
		if got, err := content.ReadAt(part, from); got < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			e.fail(fmt.Errorf("reading the message: %w", err))
			return
		}
		e.frame.octets = e.frame.octets[:at+n]
		from += int64(n)
	}
}

// decoder reads the incoming stream of an exchange. After a failure everything it reads is zero.
type decoder struct {
	source source
	ctx    context.Context
	frame  *buffer
	rest   []byte
	joined []byte
	err    error
	// structures is the sum of the structures so far.
	structures int
	zone       zone
}

// source is where a decoder gets frames from, io.EOF after the last.
type source interface {
	next(ctx context.Context) (*buffer, error)
	back(b *buffer)
}

func (x *exchange) back(b *buffer) { x.link.give(b) }

// malformed is the error for octets that no encoder of this version writes.
func malformed(format string, arguments ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, arguments...)...)
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}

// more takes the next frame. It tells false when there is none, which is a failure but at the end of the stream.
func (d *decoder) more() bool {
	if d.err != nil {
		return false
	}
	b, err := d.source.next(d.ctx)
	if err != nil {
		if err != io.EOF {
			d.fail(err)
		}
		return false
	}
	d.release()
	d.frame, d.rest = b, b.octets
	return true
}

func (d *decoder) release() {
	if d.frame != nil {
		d.source.back(d.frame)
	}
	d.frame, d.rest = nil, nil
}

func (d *decoder) octet() byte {
	for len(d.rest) == 0 {
		if !d.more() {
			d.fail(malformed("it is cut off"))
			return 0
		}
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) truth() bool {
	b := d.octet()
	if b > 1 {
		d.fail(malformed("%d is neither yes nor no", b))
	}
	return b == 1
}

func (d *decoder) number() uint64 {
	if n, size := binary.Uvarint(d.rest); size > 0 {
		d.rest = d.rest[size:]
		return n
	}
	var n uint64
	for shift := 0; shift < 64; shift += 7 {
		b := d.octet()
		if shift == 63 && b > 1 {
			break
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	d.fail(malformed("a number is too long"))
	return 0
}

func (d *decoder) signed() int64 {
	n := d.number()
	return int64(n>>1) ^ -int64(n&1)
}

// below reads a number that is at most limit.
func (d *decoder) below(limit uint64, what string) uint64 {
	n := d.number()
	if n > limit {
		d.fail(malformed("%s is %d, %d is the most", what, n, limit))
		return 0
	}
	return n
}

// take returns the next n octets, which are valid until the next read.
func (d *decoder) take(n int) []byte {
	if n <= len(d.rest) {
		p := d.rest[:n]
		d.rest = d.rest[n:]
		return p
	}
	d.joined = append(d.joined[:0], d.rest...)
	for d.rest = nil; len(d.joined) < n; {
		if !d.more() {
			d.fail(malformed("a text is cut off"))
			return nil
		}
		m := min(n-len(d.joined), len(d.rest))
		d.joined = append(d.joined, d.rest[:m]...)
		d.rest = d.rest[m:]
	}
	return d.joined
}

func (d *decoder) octets(limit int, what string) []byte {
	return d.take(int(d.below(uint64(limit), what)))
}

func (d *decoder) text(limit int, what string) string { return string(d.octets(limit, what)) }

// content reads a message into w and returns its size.
func (d *decoder) content(w io.Writer) int64 {
	size := int64(d.below(maxMessage, "a message's size"))
	for left := size; left > 0; {
		if len(d.rest) == 0 {
			if !d.more() {
				d.fail(malformed("a message is cut off"))
				return 0
			}
			continue
		}
		n := int(min(left, int64(len(d.rest))))
		if _, err := w.Write(d.rest[:n]); err != nil {
			d.fail(spoolFailure(err))
			return 0
		}
		d.rest = d.rest[n:]
		left -= int64(n)
	}
	return size
}

// finish wants the stream to be at its end and tells what went wrong.
func (d *decoder) finish() error {
	for d.err == nil && len(d.rest) == 0 {
		if !d.more() {
			return d.err
		}
	}
	if d.err == nil {
		d.err = malformed("%d octets are left over", len(d.rest))
	}
	return d.err
}
