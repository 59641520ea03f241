package remote

import (
	"context"
	"fmt"
	"sync"

	"postilion/store"
)

// account implements store.Account.
type account struct {
	client  *Client
	id      uint64
	owner   store.Owner
	closing sync.Once
}

func (a *account) User() string { return a.owner.User }

func (a *account) Close() error {
	a.closing.Do(func() { a.client.drop(a.id) })
	return nil
}

// do makes a call about the account: ask writes the request after the account's id, read reads the answer. Either may be nil.
func (a *account) do(ctx context.Context, op operation, mailbox string, ask func(e *encoder), read func(d *decoder) error) (err error) {
	k, err := a.client.begin(ctx, op, a.owner.User, mailbox)
	defer k.end(&err)
	if err != nil {
		return err
	}
	k.out.number(a.id)
	if ask != nil {
		ask(&k.out)
	}
	if err := k.answer(); err != nil {
		return err
	}
	if read != nil {
		if err := read(&k.in); err != nil {
			return err
		}
	}
	return k.in.finish()
}

func (a *account) List(ctx context.Context) (listed []store.Listed, err error) {
	return listed, a.do(ctx, opList, "", nil, func(d *decoder) error {
		left := maxNames
		for range d.number() {
			l := d.listed()
			if left -= len(l.Name) + len(l.Use) + len(l.ID) + nameCost; left < 0 {
				return fmt.Errorf("%w: too many mailboxes to list", store.ErrTooMany)
			}
			if d.err != nil {
				break
			}
			listed = append(listed, l)
		}
		return nil
	})
}

func (a *account) Subscriptions(ctx context.Context) (names []string, err error) {
	return names, a.do(ctx, opSubscriptions, "", nil, func(d *decoder) error {
		left := maxNames
		for range d.number() {
			name := d.mailboxName()
			if left -= len(name) + nameCost; left < 0 {
				return fmt.Errorf("%w: too many subscriptions to list", store.ErrTooMany)
			}
			if d.err != nil {
				break
			}
			names = append(names, name)
		}
		return nil
	})
}

func (a *account) Subscribe(ctx context.Context, name string, subscribed bool) error {
	return a.do(ctx, opSubscribe, name, func(e *encoder) {
		e.text(name, maxName)
		e.truth(subscribed)
	}, nil)
}

func (a *account) Create(ctx context.Context, name, use string) error {
	return a.do(ctx, opCreate, name, func(e *encoder) {
		e.text(name, maxName)
		e.text(use, maxName)
	}, nil)
}

func (a *account) Delete(ctx context.Context, name string) error {
	return a.do(ctx, opDelete, name, func(e *encoder) { e.text(name, maxName) }, nil)
}

func (a *account) Rename(ctx context.Context, from, to string) error {
	return a.do(ctx, opRename, from, func(e *encoder) {
		e.text(from, maxName)
		e.text(to, maxName)
	}, nil)
}

func (a *account) Status(ctx context.Context, name string) (status store.Status, err error) {
	return status, a.do(ctx, opStatus, name, func(e *encoder) { e.text(name, maxName) }, func(d *decoder) error {
		status = d.status()
		return nil
	})
}

func (a *account) QuotaUsage(ctx context.Context) (usage store.QuotaUsage, err error) {
	return usage, a.do(ctx, opQuota, "", nil, func(d *decoder) error {
		for _, number := range [...]*int64{&usage.Bytes, &usage.Messages, &usage.LimitBytes, &usage.LimitMessages} {
			*number = d.signed()
		}
		return nil
	})
}

func (a *account) Mailbox(ctx context.Context, name string) (m store.Mailbox, err error) {
	k, err := a.client.begin(ctx, opMailbox, a.owner.User, name)
	defer k.end(&err)
	if err != nil {
		return nil, err
	}
	k.out.number(a.id)
	k.out.text(name, maxName)
	if err := k.answer(); err != nil {
		return nil, err
	}
	if err := k.in.finish(); err != nil {
		return nil, err
	}
	return newMailbox(a, k.id(), name), nil
}
