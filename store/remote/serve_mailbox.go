package remote

import (
	"context"
	"errors"
	"io"

	"postilion/store"
)

// withMailbox runs fn with the mailbox whose id comes first in the request.
func (n *session) withMailbox(r *request, fn func(ctx context.Context, h *handle) error) error {
	h, err := n.use(r.in.number(), isMailbox)
	if err != nil {
		return err
	}
	defer n.done(h)
	return fn(r.in.ctx, h)
}

// body opens a message and sends its beginning along, or all of it when it is small; then nothing stays open.
func (n *session) body(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		uid := r.in.uid()
		if err := r.in.finish(); err != nil {
			return err
		}
		body, err := h.mailbox.Open(ctx, uid)
		if err != nil {
			return err
		}
		opened := &handle{body: body}
		size := body.Size()
		first := int(min(size, firstChunk))
		if size <= chunk {
			first = int(size)
		}
		r.out.octet(statusDone)
		r.out.number(uint64(size))
		if err := r.out.readAt(body, 0, first); err != nil || size <= chunk {
			n.close(opened)
			return err
		}
		return n.keep(r, opened)
	})
}

// readAt writes n octets of a body from offset on.
func (e *encoder) readAt(body store.Body, offset int64, n int) error {
	e.number(uint64(n))
	e.need(n)
	if e.err != nil {
		return e.err
	}
	at := len(e.frame.octets)
	part := e.frame.octets[at : at+n]
	if got, err := body.ReadAt(part, offset); got < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	e.frame.octets = e.frame.octets[:at+n]
	return nil
}

// read sends a part of an open body.
func (n *session) read(r *request) error {
	h, err := n.use(r.in.number(), isBody)
	if err != nil {
		return err
	}
	defer n.done(h)
	offset, length := int64(r.in.below(maxMessage, "an offset")), int64(r.in.below(chunk, "a length"))
	if err := r.in.finish(); err != nil {
		return err
	}
	r.out.octet(statusDone)
	return r.out.readAt(h.body, offset, int(max(0, min(length, h.body.Size()-offset))))
}

func (n *session) structure(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		uid := r.in.uid()
		if err := r.in.finish(); err != nil {
			return err
		}
		m, err := h.mailbox.Structure(ctx, uid)
		r.out.octet(statusDone)
		r.out.structure(m)
		return err
	})
}

func (n *session) copy(r *request) error { return n.transfer(r, store.Mailbox.Copy) }
func (n *session) move(r *request) error { return n.transfer(r, store.Mailbox.Move) }

func (n *session) transfer(r *request, act func(store.Mailbox, context.Context, store.UIDSet, store.Mailbox) (store.Copied, error)) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		target, err := n.use(r.in.number(), isMailbox)
		if err != nil {
			return err
		}
		defer n.done(target)
		uids := r.in.set()
		if err := r.in.finish(); err != nil {
			return err
		}
		copied, err := act(h.mailbox, ctx, uids, target.mailbox)
		r.out.octet(statusDone)
		r.out.number(uint64(copied.UIDValidity))
		r.out.uids(copied.Source)
		r.out.uids(copied.Target)
		return err
	})
}

func (n *session) setFlags(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		uids := r.in.set()
		change := store.FlagChange{Operation: store.FlagOperation(r.in.below(uint64(store.RemoveFlags), "a flag operation")), Flags: r.in.flags(), Keywords: r.in.keywords()}
		if r.in.truth() {
			unchanged := r.in.modSeq()
			change.UnchangedSince = &unchanged
		}
		if err := r.in.finish(); err != nil {
			return err
		}
		changed, err := h.mailbox.SetFlags(ctx, uids, change)
		r.out.octet(statusDone)
		r.out.set(changed.Changed)
		r.out.set(changed.Modified)
		r.out.number(uint64(changed.ModSeq))
		return err
	})
}

func (n *session) expunge(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		uids, onlyDeleted := r.in.set(), r.in.truth()
		if err := r.in.finish(); err != nil {
			return err
		}
		gone, err := h.mailbox.Expunge(ctx, uids, onlyDeleted)
		r.out.octet(statusDone)
		r.out.set(gone)
		return err
	})
}

func (n *session) takeRecent(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		if err := r.in.finish(); err != nil {
			return err
		}
		first, err := h.mailbox.TakeRecent(ctx)
		r.out.octet(statusDone)
		r.out.number(uint64(first))
		return err
	})
}

// watch subscribes to the mailbox until its handle is closed. Watching twice is watching once.
func (n *session) watch(r *request) error {
	return n.withMailbox(r, func(_ context.Context, h *handle) error {
		if err := r.in.finish(); err != nil {
			return err
		}
		h.watching.Lock()
		defer h.watching.Unlock()
		if h.unwatch == nil {
			h.unwatch = h.mailbox.Subscribe(func() { n.event(h) })
		}
		r.out.octet(statusDone)
		return nil
	})
}
