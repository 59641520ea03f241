package remote

import (
	"context"

	"postilion/store"
)

// origin is the names that a message has outside of the store.
type origin struct{ filename, guid string }

// maxOrigin bounds a file's base name and a global identifier in octets.
const maxOrigin = 255

// origins answers with the names of every message of the mailbox that has some.
func (n *session) origins(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		if err := r.in.finish(); err != nil {
			return err
		}
		now, err := h.mailbox.View(ctx)
		if err != nil {
			return err
		}
		names, ok := now.(store.Origins)
		if ok {
			err = names.LoadOrigins(ctx)
		}
		if err != nil {
			return err
		}
		r.out.octet(statusDone)
		r.out.number(uint64(now.UIDValidity()))
		if !ok {
			r.out.number(0)
			return nil
		}
		r.out.number(uint64(now.Len()))
		for i := 0; i < now.Len() && r.out.err == nil; i++ {
			r.out.number(uint64(now.UID(i)))
			r.out.text(names.Filename(i), maxOrigin)
			r.out.text(names.GUID(i), maxOrigin)
		}
		return nil
	})
}

// LoadOrigins implements store.Origins. A message that was expunged since the view was made has no names any more.
func (v *view) LoadOrigins(ctx context.Context) error {
	v.originsMu.Lock()
	defer v.originsMu.Unlock()
	if v.origins != nil {
		return nil
	}
	limit := uint64(v.mailbox.client.options.MaxMessages)
	found := map[store.UID]origin{}
	err := v.mailbox.do(ctx, opOrigins, nil, func(d *decoder) error {
		validity := d.number()
		for n := d.below(limit, "a number of messages"); n > 0 && d.err == nil; n-- {
			uid := d.uid()
			o := origin{d.text(maxOrigin, "a file name"), d.text(maxOrigin, "a global identifier")}
			if _, present := v.Index(uid); present && validity == uint64(v.validity) {
				found[uid] = o
			}
		}
		return nil
	})
	if err == nil {
		v.origins = found
	}
	return err
}

// Filename implements store.Origins.
func (v *view) Filename(index int) string { return v.origin(index).filename }

// GUID implements store.Origins.
func (v *view) GUID(index int) string { return v.origin(index).guid }

func (v *view) origin(index int) origin {
	v.originsMu.Lock()
	defer v.originsMu.Unlock()
	return v.origins[v.UID(index)]
}
