package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"postilion/kv"
	"postilion/store"
)

// Limits of names, in octets.
const (
	maxNameLen    = 1000
	maxUseLen     = 100
	maxKeywordLen = 255
)

// checkName tells whether a mailbox may have that name.
func checkName(name string) error {
	switch {
	case name == "" || len(name) > maxNameLen:
		return fmt.Errorf("%w: %d octets, 1 to %d are possible", store.ErrName, len(name), maxNameLen)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: not UTF-8", store.ErrName)
	case name[0] == '/' || name[len(name)-1] == '/' || strings.Contains(name, "//"):
		return fmt.Errorf("%w: a level is empty", store.ErrName)
	case strings.IndexFunc(name, func(r rune) bool { return r < ' ' || (r >= 0x7f && r < 0xa0) }) >= 0:
		return fmt.Errorf("%w: control character", store.ErrName)
	case name != store.Inbox && strings.EqualFold(name, store.Inbox):
		return fmt.Errorf("%w: INBOX is spelt in capitals", store.ErrName)
	}
	return nil
}

// accountHandle implements store.Account.
type accountHandle struct {
	*account
	quota  store.Quota
	closed atomic.Bool
}

var _ store.Account = (*accountHandle)(nil)

// Open implements store.Store.
func (s *Store) Open(ctx context.Context, owner store.Owner) (store.Account, error) {
	if err := s.enter(ctx); err != nil {
		return nil, wrap("open account", owner.User, "", err)
	}
	defer s.leave()
	a, err := s.acquire(owner.User)
	if err != nil {
		return nil, wrap("open account", owner.User, "", err)
	}
	if err := a.settle(); err != nil {
		s.release(a)
		return nil, wrap("open account", owner.User, "", err)
	}
	return &accountHandle{account: a, quota: owner.Quota}, nil
}

func (h *accountHandle) User() string { return h.user }

// Close releases the handle. Its mailboxes keep their own hold on the account until they are closed.
func (h *accountHandle) Close() error {
	h.store.drop(h.account, &h.closed)
	return nil
}

// enter begins an operation of the handle, leave ends it; the account stays in memory between them.
func (h *accountHandle) enter(ctx context.Context) error {
	return h.store.enterWith(ctx, h.account, &h.closed)
}

func (h *accountHandle) leave() { h.store.leaveWith(h.account) }

// names calls fn for each mailbox of the account below prefix, in the order of names. a.mu need not be held; rows are those that were started.
func (a *account) names(prefix string, fn func(name string, row nameRow) error) error {
	lower := keyName(rowName, a.row.id, prefix)
	skip := len(lower) - len(prefix)
	return a.store.scan(lower, after(lower), func(key, value []byte) error {
		row, err := decodeName(value)
		if err != nil {
			return err
		}
		return fn(string(key[skip:]), row)
	})
}

// after returns the least key behind all that begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func (h *accountHandle) List(ctx context.Context) ([]store.Listed, error) {
	if err := h.enter(ctx); err != nil {
		return nil, wrap("list", h.user, "", err)
	}
	defer h.leave()
	var listed []store.Listed
	at := map[string]int{}
	err := h.names("", func(name string, row nameRow) error {
		for i := range len(name) {
			if level := name[:i]; name[i] == '/' {
				if _, ok := at[level]; !ok {
					at[level] = len(listed)
					listed = append(listed, store.Listed{Name: level})
				}
			}
		}
		l := store.Listed{Name: name, Selectable: true, Use: row.use, ID: mailboxID(row.id)}
		if i, ok := at[name]; ok {
			listed[i] = l
			return nil
		}
		at[name] = len(listed)
		listed = append(listed, l)
		return nil
	})
	return listed, wrap("list", h.user, "", err)
}

func (h *accountHandle) Subscriptions(ctx context.Context) ([]string, error) {
	if err := h.enter(ctx); err != nil {
		return nil, wrap("list subscriptions", h.user, "", err)
	}
	defer h.leave()
	names, err := h.subscriptions()
	return names, wrap("list subscriptions", h.user, "", err)
}

func (a *account) subscriptions() ([]string, error) {
	names := []string{}
	lower := keyName(rowSubscription, a.row.id, "")
	err := a.store.scan(lower, after(lower), func(key, _ []byte) error {
		names = append(names, string(key[len(lower):]))
		return nil
	})
	return names, err
}

func (h *accountHandle) Subscribe(ctx context.Context, name string, subscribed bool) error {
	return h.change(ctx, "subscribe", name, func(c *change, ac *accountChange) error {
		if !subscribed {
			if len(name) <= maxNameLen {
				c.batch.Delete(h.store.space, keyName(rowSubscription, ac.row.id, name))
			}
			return nil
		}
		if err := checkName(name); err != nil {
			return err
		}
		names, err := h.subscriptions()
		if err != nil {
			return err
		}
		if len(names) >= h.store.options.MaxMailboxes {
			return fmt.Errorf("%w: %d subscriptions", store.ErrTooMany, len(names))
		}
		c.batch.Set(h.store.space, keyName(rowSubscription, ac.row.id, name), nil)
		return nil
	})
}

// change runs plan under the account's lock and commits what it planned.
func (h *accountHandle) change(ctx context.Context, operation, name string, plan func(c *change, ac *accountChange) error) error {
	if err := h.enter(ctx); err != nil {
		return wrap(operation, h.user, name, err)
	}
	defer h.leave()
	c := h.store.change()
	defer c.close()
	c.lock(h.account)
	err := plan(c, c.accounts[0])
	if err == nil {
		err = c.commit()
	}
	return wrap(operation, h.user, name, err)
}

// free tells whether a mailbox of that name can be made.
func (ac *accountChange) free(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	switch _, err := ac.find(name); {
	case err == nil:
		return store.ErrExists
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	n := 0
	if err := ac.account.names("", func(string, nameRow) error { n++; return nil }); err != nil {
		return err
	}
	if limit := ac.account.store.options.MaxMailboxes; n >= limit {
		return fmt.Errorf("%w: account has %d mailboxes", store.ErrTooMany, n)
	}
	return nil
}

func (h *accountHandle) Create(ctx context.Context, name, use string) error {
	return h.change(ctx, "create", name, func(c *change, ac *accountChange) error {
		if len(use) > maxUseLen {
			return fmt.Errorf("%w: special use of %d octets", store.ErrName, len(use))
		}
		if err := errors.Join(h.store.checkSpace(), ac.free(name)); err != nil {
			return err
		}
		c.create(ac, name, use)
		return nil
	})
}

// Delete removes the name and the counters at once; the messages follow in the background in small batches, also after a crash.
func (h *accountHandle) Delete(ctx context.Context, name string) error {
	err := h.change(ctx, "delete", name, func(c *change, ac *accountChange) error {
		if name == store.Inbox {
			return fmt.Errorf("%w: INBOX cannot be deleted", store.ErrName)
		}
		box, err := ac.find(name)
		if err != nil {
			return err
		}
		ac.usage.bytes -= box.working.state.size
		ac.usage.messages -= int64(box.working.state.messages)
		ac.dropped = append(ac.dropped, box)
		c.batch.Delete(h.store.space, keyName(rowName, ac.row.id, name))
		c.batch.Set(h.store.space, key1(rowDeleted, box.row.id), nil)
		c.notify = append(c.notify, box)
		return nil
	})
	if err == nil {
		h.store.wakeCollector()
	}
	return err
}

func (h *accountHandle) Rename(ctx context.Context, from, to string) error {
	return h.change(ctx, "rename", from, func(c *change, ac *accountChange) error {
		if err := ac.free(to); err != nil {
			return err
		}
		// A name that is only a level above others is taken too.
		if err := ac.account.names(to+"/", func(string, nameRow) error { return store.ErrExists }); err != nil {
			return err
		}
		if from == store.Inbox {
			return c.renameInbox(ac, to)
		}
		if strings.HasPrefix(to, from+"/") {
			return fmt.Errorf("%w: it lies below the mailbox itself", store.ErrName)
		}
		return c.renameTree(ac, from, to)
	})
}

func (c *change) renameTree(ac *accountChange, from, to string) error {
	var moved []string
	if _, err := ac.find(from); err == nil {
		moved = append(moved, from)
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	err := ac.account.names(from+"/", func(name string, _ nameRow) error {
		if len(name)-len(from)+len(to) > maxNameLen {
			return fmt.Errorf("%w: a name below would become too long", store.ErrName)
		}
		moved = append(moved, name)
		return nil
	})
	if err != nil {
		return err
	}
	if len(moved) == 0 {
		return store.ErrNotFound
	}
	ac.renamed = map[*mailbox]string{}
	for _, name := range moved {
		box, err := ac.find(name)
		if err != nil {
			return err
		}
		renamed := to + name[len(from):]
		c.batch.Delete(c.store.space, keyName(rowName, ac.row.id, name))
		c.batch.Set(c.store.space, keyName(rowName, ac.row.id, renamed), box.row.append(nil))
		ac.renamed[box] = renamed
	}
	return nil
}

// renameInbox moves the messages of INBOX to a new mailbox; INBOX keeps its identity (RFC 8474 section 4).
func (c *change) renameInbox(ac *accountChange, to string) error {
	inbox, err := ac.find(store.Inbox)
	if err != nil {
		return err
	}
	if err := inbox.load(); err != nil {
		return err
	}
	box := c.create(ac, to, "")
	_, err = c.move(ac, inbox, box, store.AllUIDs())
	return err
}

func (h *accountHandle) Status(ctx context.Context, name string) (store.Status, error) {
	if err := h.enter(ctx); err != nil {
		return store.Status{}, wrap("status", h.user, name, err)
	}
	defer h.leave()
	h.mu.Lock()
	row, counters, err := h.peek(name)
	h.mu.Unlock()
	if err != nil {
		return store.Status{}, wrap("status", h.user, name, err)
	}
	return store.Status{
		Messages: counters.messages, Recent: counters.recent, Unseen: counters.unseen, Deleted: counters.deleted, UIDNext: store.UID(counters.uidNext),
		UIDValidity: row.uidValidity, HighestModSeq: counters.highestModSeq, Size: counters.size, ID: mailboxID(row.id),
	}, nil
}

func (h *accountHandle) Mailbox(ctx context.Context, name string) (store.Mailbox, error) {
	if err := h.enter(ctx); err != nil {
		return nil, wrap("open", h.user, name, err)
	}
	defer h.leave()
	h.mu.Lock()
	defer h.mu.Unlock()
	box, err := h.find(name)
	if err != nil {
		return nil, wrap("open", h.user, name, err)
	}
	if err := h.store.hold(h.account, &h.closed); err != nil {
		return nil, wrap("open", h.user, name, err)
	}
	box.handles.Add(1)
	return &handle{box: box, store: h.store, name: name, quota: h.quota}, nil
}

func isNotFound(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, kv.ErrNotFound)
}
