package remote

import (
	"context"
	"fmt"
	"io"

	"postilion/store"
)

func (n *session) open(r *request) error {
	owner := r.in.owner()
	if err := r.in.finish(); err != nil {
		return err
	}
	account, err := n.store.Open(r.in.ctx, owner)
	if err != nil {
		return err
	}
	r.out.octet(statusDone)
	return n.keep(r, &handle{account: account})
}

func (n *session) accounts(r *request) error {
	if err := r.in.finish(); err != nil {
		return err
	}
	r.out.octet(statusDone)
	err := n.store.Accounts(r.in.ctx, func(user string) bool {
		r.out.truth(true)
		r.out.text(user, maxName)
		return r.out.err == nil
	})
	r.out.truth(false)
	return err
}

// withAccount runs fn with the account whose id comes first in the request.
func (n *session) withAccount(r *request, fn func(ctx context.Context, h *handle) error) error {
	h, err := n.use(r.in.number(), isAccount)
	if err != nil {
		return err
	}
	defer n.done(h)
	return fn(r.in.ctx, h)
}

func (n *session) list(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		if err := r.in.finish(); err != nil {
			return err
		}
		listed, err := h.account.List(ctx)
		if err != nil {
			return err
		}
		r.out.octet(statusDone)
		r.out.number(uint64(len(listed)))
		for i := range listed {
			r.out.listed(&listed[i])
		}
		return nil
	})
}

func (n *session) subscriptions(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		if err := r.in.finish(); err != nil {
			return err
		}
		names, err := h.account.Subscriptions(ctx)
		if err != nil {
			return err
		}
		r.out.octet(statusDone)
		r.out.number(uint64(len(names)))
		for _, name := range names {
			r.out.text(name, maxListed)
		}
		return nil
	})
}

func (n *session) subscribe(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		name, subscribed := r.in.text(maxName, "a mailbox"), r.in.truth()
		if err := r.in.finish(); err != nil {
			return err
		}
		r.out.octet(statusDone)
		return h.account.Subscribe(ctx, name, subscribed)
	})
}

func (n *session) create(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		name, use := r.in.text(maxName, "a mailbox"), r.in.text(maxName, "a special use")
		if err := r.in.finish(); err != nil {
			return err
		}
		r.out.octet(statusDone)
		return h.account.Create(ctx, name, use)
	})
}

func (n *session) delete(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		name := r.in.text(maxName, "a mailbox")
		if err := r.in.finish(); err != nil {
			return err
		}
		r.out.octet(statusDone)
		return h.account.Delete(ctx, name)
	})
}

func (n *session) rename(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		from, to := r.in.text(maxName, "a mailbox"), r.in.text(maxName, "a mailbox")
		if err := r.in.finish(); err != nil {
			return err
		}
		r.out.octet(statusDone)
		return h.account.Rename(ctx, from, to)
	})
}

func (n *session) status(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		name := r.in.text(maxName, "a mailbox")
		if err := r.in.finish(); err != nil {
			return err
		}
		status, err := h.account.Status(ctx, name)
		r.out.octet(statusDone)
		r.out.status(&status)
		return err
	})
}

func (n *session) mailbox(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		name := r.in.text(maxName, "a mailbox")
		if err := r.in.finish(); err != nil {
			return err
		}
		mailbox, err := h.account.Mailbox(ctx, name)
		if err != nil {
			return err
		}
		r.out.octet(statusDone)
		return n.keep(r, &handle{mailbox: mailbox, parent: h})
	})
}

func (n *session) quota(r *request) error {
	return n.withAccount(r, func(ctx context.Context, h *handle) error {
		if err := r.in.finish(); err != nil {
			return err
		}
		usage, err := h.account.QuotaUsage(ctx)
		r.out.octet(statusDone)
		for _, number := range [...]int64{usage.Bytes, usage.Messages, usage.LimitBytes, usage.LimitMessages} {
			r.out.signed(number)
		}
		return err
	})
}

// deliver keeps the message in the spool while it comes in: the store may read it more than once.
func (n *session) deliver(r *request) error {
	d := store.Delivery{ID: r.in.text(maxName, "a delivery's id"), AllOrNothing: r.in.truth(), InternalDate: r.in.time(), Structure: r.in.structure()}
	for range r.in.below(maxTargets, "the number of targets") {
		if d.Targets = append(d.Targets, r.in.target()); r.in.err != nil {
			break
		}
	}
	spooled := n.spool.Create()
	defer spooled.Release()
	r.in.content(spooled)
	if err := r.in.finish(); err != nil {
		return err
	}
	d.Content = spooled
	outcomes, err := n.store.Deliver(r.in.ctx, &d)
	if err != nil {
		return err
	}
	if len(outcomes) != len(d.Targets) {
		return fmt.Errorf("the store tells %d outcomes of %d targets", len(outcomes), len(d.Targets))
	}
	r.out.octet(statusDone)
	for i := range outcomes {
		r.out.number(uint64(outcomes[i].UID))
		r.out.truth(outcomes[i].Duplicate)
		if r.out.truth(outcomes[i].Err != nil); outcomes[i].Err != nil {
			r.out.error(outcomes[i].Err)
		}
	}
	return nil
}

// append keeps all drafts in one spooled file one after the other.
func (n *session) append(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		spooled := n.spool.Create()
		defer spooled.Release()
		var drafts []store.Draft
		for range r.in.below(maxDrafts, "the number of drafts") {
			d := store.Draft{Flags: r.in.flags(), Keywords: r.in.keywords(), InternalDate: r.in.time(), Structure: r.in.structure()}
			from := spooled.Size()
			d.Content = io.NewSectionReader(spooled, from, r.in.content(spooled))
			if drafts = append(drafts, d); r.in.err != nil {
				break
			}
		}
		if err := r.in.finish(); err != nil {
			return err
		}
		uids, err := h.mailbox.Append(ctx, drafts)
		r.out.octet(statusDone)
		r.out.uids(uids)
		return err
	})
}
