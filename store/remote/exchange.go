package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"postilion/store"
)

// exchange is a call at one end: what has arrived of the one stream and what may still be sent of the other. One goroutine takes and sends; the
// reader of the link puts in.
type exchange struct {
	link *link

	// The rest is guarded by link.mu.

	// id is 0 until a client sent the first frame.
	id     uint64
	frames []*buffer
	space  [2]*buffer
	// ended tells that the last frame has arrived, void that the answer broke off.
	ended, void bool
	// allowance is what the far side may still send, consumed what was taken since it was last told, credit what may be sent to it.
	allowance, consumed, credit int
	// abandoned tells that nobody will take what arrives. At a server it is the client that does not want the result.
	abandoned bool
	// cancel ends the context of the call at a server.
	cancel context.CancelFunc
	// changed gets a word whenever something of the above changed.
	changed chan struct{}
}

func newExchange(l *link, id uint64) *exchange {
	x := &exchange{link: l, id: id, allowance: window, credit: window, changed: make(chan struct{}, 1)}
	x.frames = x.space[:0]
	return x
}

func (x *exchange) signal() {
	select {
	case x.changed <- struct{}{}:
	default:
	}
}

var (
	// errVoid is what reading an answer gives that the far side broke off.
	errVoid = errors.New("the far side gave up in the middle of its answer")
	// errAnswered is what sending a request gives when the answer is there already.
	errAnswered = errors.New("answered before the request ended")
)

// cost is what a data frame takes of the window: short ones as much as the buffer they come in, so that many of them fill no more memory.
func cost(payload int) int { return max(payload, smallBuffer) }

// put takes in a data frame; link.mu is held.
func (x *exchange) put(f frame) error {
	n := cost(len(f.payload.octets))
	if x.ended || n > x.allowance {
		return fmt.Errorf("%w: more data than was granted", ErrProtocol)
	}
	x.allowance -= n
	x.ended = f.last
	if x.abandoned {
		x.link.give(f.payload)
		return nil
	}
	x.frames = append(x.frames, f.payload)
	x.signal()
	return nil
}

// grant takes in a credit frame; link.mu is held.
func (x *exchange) grant(f frame) error {
	if len(f.payload.octets) != 4 {
		return fmt.Errorf("%w: a credit of %d octets", ErrProtocol, len(f.payload.octets))
	}
	n := int64(binary.LittleEndian.Uint32(f.payload.octets))
	if int64(x.credit)+n > window {
		return fmt.Errorf("%w: a credit above the window", ErrProtocol)
	}
	x.credit += int(n)
	x.link.give(f.payload)
	x.signal()
	return nil
}

// next returns the next frame of the incoming stream, which the caller gives back to the link; io.EOF after the last one.
func (x *exchange) next(ctx context.Context) (*buffer, error) {
	l := x.link
	l.mu.Lock()
	for {
		switch {
		case len(x.frames) > 0:
			b := x.frames[0]
			x.frames = slices.Delete(x.frames, 0, 1)
			x.consume(cost(len(b.octets)))
			l.mu.Unlock()
			return b, nil
		case x.void:
			l.mu.Unlock()
			return nil, errVoid
		case x.ended:
			l.mu.Unlock()
			return nil, io.EOF
		case l.err != nil:
			err := lost(l.err)
			l.mu.Unlock()
			return nil, err
		}
		l.mu.Unlock()
		if err := x.wait(ctx); err != nil {
			return nil, err
		}
		l.mu.Lock()
	}
}

// consume grants what was taken once it is worth a frame; link.mu is held.
func (x *exchange) consume(n int) {
	x.consumed += n
	if x.ended || x.consumed < window/2 {
		return
	}
	var payload [4]byte
	binary.LittleEndian.PutUint32(payload[:], uint32(x.consumed))
	x.allowance += x.consumed
	x.consumed = 0
	x.link.queue(kindCredit, x.id, payload[:])
}

// wait returns when something changed, the context ended or the connection did.
func (x *exchange) wait(ctx context.Context) error {
	select {
	case <-x.changed:
	case <-x.link.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// send sends a piece of the outgoing stream when it is granted. A client stops with errAnswered when the answer has begun.
func (x *exchange) send(ctx context.Context, payload []byte, first, last bool) error {
	l := x.link
	for {
		if err := l.room(ctx); err != nil {
			broken := l.err != nil
			l.mu.Unlock()
			if broken {
				return lost(err)
			}
			return err
		}
		if !l.server && (len(x.frames) > 0 || x.ended || x.void) {
			l.mu.Unlock()
			return errAnswered
		}
		if x.credit >= cost(len(payload)) {
			break
		}
		l.mu.Unlock()
		if err := x.wait(ctx); err != nil {
			return err
		}
	}
	x.credit -= cost(len(payload))
	mark := kindData
	if first {
		// Ids rise in the order in which the far side hears of them.
		l.lastID++
		x.id = l.lastID
		l.exchanges[x.id] = x
		mark |= markFirst
	}
	if last {
		mark |= markLast
		if l.server {
			delete(l.exchanges, x.id)
		}
	}
	l.queue(mark, x.id, payload)
	l.mu.Unlock()
	return nil
}

// clear gives back what arrived and was not taken; link.mu is held.
func (x *exchange) clear() {
	for _, b := range x.frames {
		x.link.give(b)
	}
	x.frames = nil
}

// lost makes the reason of an ended connection the error of a call.
func lost(reason error) error {
	switch {
	case errors.Is(reason, store.ErrClosed):
		return reason
	case errors.Is(reason, io.EOF):
		// Whoever reads a body must not take it for the end of the message.
		return fmt.Errorf("%w: the far side closed it", ErrLost)
	}
	return fmt.Errorf("%w: %w", ErrLost, reason)
}
