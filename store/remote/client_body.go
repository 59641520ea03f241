package remote

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"postilion/store"
)

// body implements store.Body: it holds one piece of the message, of a small one all of it, and asks for others as they are read.
type body struct {
	mailbox *mailbox
	size    int64
	// id is the handle of the far side, 0 when nothing is open there.
	id uint64

	mu     sync.Mutex
	closed bool
	// held are the octets from offset on. Their buffer goes back to the link when others take their place.
	held   []byte
	offset int64
	buffer *buffer
}

func (m *mailbox) Open(ctx context.Context, uid store.UID) (opened store.Body, err error) {
	k, err := m.begin(ctx, opBody)
	defer k.end(&err)
	if err != nil {
		return nil, err
	}
	k.out.number(uint64(uid))
	if err := k.answer(); err != nil {
		return nil, err
	}
	b := &body{mailbox: m, size: int64(k.in.below(maxMessage, "a message's size"))}
	b.held = k.in.octets(chunk, "a piece of a message")
	if whole := b.size <= chunk; k.in.err == nil && (int64(len(b.held)) > b.size || (whole && int64(len(b.held)) < b.size)) {
		k.in.fail(malformed("%d octets of a message of %d", len(b.held), b.size))
	} else if !whole {
		b.id = k.id()
	}
	if err := b.keep(&k.in); err != nil {
		return nil, err
	}
	return b, nil
}

// keep takes over the frame in which held lies, which is the last of its answer.
func (b *body) keep(d *decoder) error {
	if d.err != nil {
		return d.err
	}
	if d.joined != nil {
		// It came in more frames than one and was put together.
		d.joined = nil
		return d.finish()
	}
	frame, left := d.frame, len(d.rest)
	d.frame, d.rest = nil, nil
	if left > 0 {
		return malformed("%d octets are left over", left)
	}
	if err := d.finish(); err != nil {
		return err
	}
	b.buffer = frame
	return nil
}

func (b *body) Size() int64 { return b.size }

func (b *body) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(p) {
		at := offset + int64(n)
		if b.closed {
			return n, fs.ErrClosed
		}
		if at >= b.size {
			return n, io.EOF
		}
		if from := at - b.offset; from >= 0 && from < int64(len(b.held)) {
			n += copy(p[n:], b.held[from:])
			continue
		}
		if err := b.fetch(at); err != nil {
			return n, err
		}
	}
	return n, nil
}

// fetch takes the piece from offset on in place of the one that is held.
func (b *body) fetch(offset int64) (err error) {
	if b.id == 0 {
		return io.ErrUnexpectedEOF
	}
	m := b.mailbox
	ctx, done := m.client.timeout()
	defer done()
	k, err := m.client.begin(ctx, opRead, m.account.owner.User, m.name)
	defer k.end(&err)
	if err != nil {
		return err
	}
	wanted := min(chunk, b.size-offset)
	k.out.number(b.id)
	k.out.number(uint64(offset))
	k.out.number(uint64(wanted))
	if err := k.answer(); err != nil {
		return err
	}
	fetched := &body{}
	if fetched.held = k.in.octets(chunk, "a piece of a message"); k.in.err == nil && int64(len(fetched.held)) != wanted {
		return fmt.Errorf("%w: %d octets of a message where %d were asked for", ErrProtocol, len(fetched.held), wanted)
	}
	if err := fetched.keep(&k.in); err != nil {
		return err
	}
	m.client.link.give(b.buffer)
	b.held, b.offset, b.buffer = fetched.held, offset, fetched.buffer
	return nil
}

func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	b.mailbox.client.link.give(b.buffer)
	b.held, b.buffer = nil, nil
	if b.id != 0 {
		b.mailbox.client.drop(b.id)
	}
	return nil
}
