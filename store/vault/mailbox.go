package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"postilion/kv"
	"postilion/mail/message"
	"postilion/store"
)

// handle implements store.Mailbox.
type handle struct {
	store  *Store
	box    *mailbox
	name   string
	quota  store.Quota
	closed atomic.Bool
}

var _ store.Mailbox = (*handle)(nil)

func (h *handle) Name() string { return h.name }

func (h *handle) fail(operation string, err error) error {
	return wrap(operation, h.box.account.user, h.name, err)
}

func (h *handle) enter(ctx context.Context) error {
	if err := h.store.enterWith(ctx, h.box.account, &h.closed); err != nil {
		return err
	}
	if h.box.gone.Load() {
		h.leave()
		return store.ErrNotFound
	}
	return nil
}

func (h *handle) leave() { h.store.leaveWith(h.box.account) }

// Close releases the handle; the last one of a mailbox lets its entries go.
func (h *handle) Close() error {
	a := h.box.account
	a.mu.Lock()
	if !h.closed.Load() {
		h.box.handles.Add(-1)
		h.box.unload()
	}
	h.store.drop(a, &h.closed)
	a.mu.Unlock()
	return nil
}

func (h *handle) View(ctx context.Context) (store.View, error) {
	if err := h.enter(ctx); err != nil {
		return nil, h.fail("view", err)
	}
	defer h.leave()
	if v := h.box.published.Load(); v != nil && v.loaded {
		return v, nil
	}
	h.box.account.mu.Lock()
	defer h.box.account.mu.Unlock()
	if err := h.box.load(); err != nil {
		return nil, h.fail("view", err)
	}
	return h.box.shown(), nil
}

// entry finds a message: in memory when the mailbox is loaded, else by its row.
func (h *handle) entry(uid store.UID) (entry, error) {
	if v := h.box.shown(); v.loaded {
		i, ok := v.index.find(uid)
		if !ok {
			return entry{}, store.ErrExpunged
		}
		return *v.index.at(i), nil
	}
	var buffer [128]byte
	row, err := h.store.db.Get(h.store.space, buffer[:0], keyUID(rowEntry, h.box.row.id, uid))
	if errors.Is(err, kv.ErrNotFound) {
		return entry{}, store.ErrExpunged
	}
	if err != nil {
		return entry{}, err
	}
	var numbers [32]uint16
	e, _, err := decodeEntry(uid, row, numbers[:0])
	return e, err
}

func (h *handle) Open(ctx context.Context, uid store.UID) (store.Body, error) {
	if err := h.enter(ctx); err != nil {
		return nil, h.fail("read", err)
	}
	defer h.leave()
	e, err := h.entry(uid)
	if err != nil {
		return nil, h.fail("read", err)
	}
	body, err := h.store.openBody(h.box.row.id, &e)
	if err != nil {
		return nil, h.fail("read", err)
	}
	return body, nil
}

func (h *handle) Structure(ctx context.Context, uid store.UID) (*message.Message, error) {
	if err := h.enter(ctx); err != nil {
		return nil, h.fail("read structure", err)
	}
	defer h.leave()
	e, err := h.entry(uid)
	if err != nil {
		return nil, h.fail("read structure", err)
	}
	m, err := h.store.structure(h.box.row.id, &e)
	return m, h.fail("read structure", err)
}

// change runs plan under the account's lock with the mailbox loaded, and commits when something was planned.
func (h *handle) change(ctx context.Context, operation string, plan func(c *change, ac *accountChange, bc *boxChange) error) error {
	if err := h.enter(ctx); err != nil {
		return h.fail(operation, err)
	}
	defer h.leave()
	c := h.store.change()
	defer c.close()
	return h.fail(operation, h.run(c, true, plan))
}

func (h *handle) run(c *change, load bool, plan func(c *change, ac *accountChange, bc *boxChange) error) error {
	c.lock(h.box.account)
	if h.box.gone.Load() {
		return store.ErrNotFound
	}
	if load {
		if err := h.box.load(); err != nil {
			return err
		}
	}
	ac := c.accounts[0]
	bc := ac.on(h.box)
	if err := plan(c, ac, bc); err != nil {
		return err
	}
	if !slices.ContainsFunc(ac.boxes, func(bc *boxChange) bool { return bc.changed }) {
		return nil
	}
	return c.commit()
}

func (h *handle) Append(ctx context.Context, drafts []store.Draft) ([]store.UID, error) {
	if err := h.enter(ctx); err != nil {
		return nil, h.fail("append", err)
	}
	defer h.leave()
	if len(drafts) == 0 {
		return nil, nil
	}
	if err := h.store.checkSpace(); err != nil {
		return nil, h.fail("append", err)
	}
	c := h.store.change()
	defer c.close()
	uids, err := h.append(c, drafts)
	if err != nil {
		return nil, h.fail("append", err)
	}
	return uids, nil
}

func (h *handle) append(c *change, drafts []store.Draft) ([]store.UID, error) {
	bodies := make([]newBody, len(drafts))
	more := usage{messages: int64(len(drafts))}
	for i := range drafts {
		var err error
		if bodies[i], err = c.putBody(nil, drafts[i].Content, drafts[i].Structure); err != nil {
			return nil, err
		}
		more.bytes += bodies[i].size
	}
	uids := make([]store.UID, 0, len(drafts))
	return uids, h.run(c, false, func(c *change, ac *accountChange, bc *boxChange) error {
		if err := errors.Join(ac.checkQuota(&h.quota, h.box.name, more), bc.room(len(drafts))); err != nil {
			return err
		}
		for i := range drafts {
			numbers, err := c.numbers(bc, drafts[i].Keywords)
			if err != nil {
				return err
			}
			e := h.store.newEntry(bodies[i], drafts[i].InternalDate)
			e.flags = drafts[i].Flags & allFlags
			uids = append(uids, c.add(ac, bc, e, numbers))
		}
		return nil
	})
}

func (h *handle) SetFlags(ctx context.Context, uids store.UIDSet, request store.FlagChange) (store.FlagsChanged, error) {
	var result store.FlagsChanged
	err := h.change(ctx, "set flags", func(c *change, _ *accountChange, bc *boxChange) error {
		numbers, err := c.changeNumbers(bc, request)
		if err != nil {
			return err
		}
		// Most messages share few combinations of keywords, and the outcome depends on the combination alone.
		after := map[uint32][]uint16{}
		v := h.box.working
		v.index.each(uids, func(e *entry) {
			if request.UnchangedSince != nil && e.modSeq > *request.UnchangedSince {
				result.Modified = result.Modified.Add(e.uid)
				return
			}
			result.Changed = result.Changed.Add(e.uid)
			set, ok := after[e.set]
			if !ok {
				set = applyNumbers(request.Operation, v.sets[e.set], numbers)
				after[e.set] = set
			}
			flags := applyFlags(request.Operation, e.flags, request.Flags&allFlags)
			if flags != e.flags || !slices.Equal(set, v.sets[e.set]) {
				c.replace(bc, e, flags, set)
			}
		})
		result.ModSeq = bc.modSeq
		return nil
	})
	if err != nil {
		return store.FlagsChanged{}, err
	}
	return result, nil
}

// changeNumbers returns the numbers of the keywords of a change; those to be taken away need not be known.
func (c *change) changeNumbers(bc *boxChange, request store.FlagChange) ([]uint16, error) {
	names := request.Keywords
	if request.Operation == store.RemoveFlags {
		known, err := c.knownKeywords(bc)
		if err != nil {
			return nil, err
		}
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return !slices.ContainsFunc(known, func(other string) bool { return strings.EqualFold(name, other) })
		})
	}
	return c.numbers(bc, names)
}

func applyFlags(operation store.FlagOperation, before, flags store.Flags) store.Flags {
	switch operation {
	case store.AddFlags:
		return before | flags
	case store.RemoveFlags:
		return before &^ flags
	}
	return flags
}

func applyNumbers(operation store.FlagOperation, before, numbers []uint16) []uint16 {
	switch operation {
	case store.AddFlags:
		after := append(slices.Clone(before), numbers...)
		slices.Sort(after)
		return slices.Compact(after)
	case store.RemoveFlags:
		return slices.DeleteFunc(slices.Clone(before), func(number uint16) bool {
			_, gone := slices.BinarySearch(numbers, number)
			return gone
		})
	}
	return numbers
}

func (h *handle) Expunge(ctx context.Context, uids store.UIDSet, onlyDeleted bool) (store.UIDSet, error) {
	var gone store.UIDSet
	err := h.change(ctx, "expunge", func(c *change, ac *accountChange, bc *boxChange) error {
		h.box.working.index.each(uids, func(e *entry) {
			if onlyDeleted && e.flags&store.FlagDeleted == 0 {
				return
			}
			c.remove(ac, bc, e)
			c.refer(e, -1)
		})
		gone = bc.removed
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

func (h *handle) Copy(ctx context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	return h.transfer(ctx, "copy", uids, target, func(c *change, ac *accountChange, to *mailbox) (store.Copied, error) {
		return c.copy(ac, h.box, to, uids, &h.quota)
	})
}

func (h *handle) Move(ctx context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	return h.transfer(ctx, "move", uids, target, func(c *change, ac *accountChange, to *mailbox) (store.Copied, error) {
		if _, ignored := limitFor(&h.quota, h.box.name); ignored {
			if err := ac.checkQuota(&h.quota, to.name, sumOf(h.box.working, uids)); err != nil {
				return store.Copied{}, err
			}
		}
		return c.move(ac, h.box, to, uids)
	})
}

func (h *handle) transfer(ctx context.Context, operation string, uids store.UIDSet, target store.Mailbox, plan func(*change, *accountChange, *mailbox) (store.Copied, error)) (store.Copied, error) {
	to, ok := target.(*handle)
	if !ok || to.box.account != h.box.account {
		return store.Copied{}, h.fail(operation, store.ErrOtherAccount)
	}
	if err := h.store.checkSpace(); err != nil {
		return store.Copied{}, h.fail(operation, err)
	}
	var copied store.Copied
	err := h.change(ctx, operation, func(c *change, ac *accountChange, _ *boxChange) (err error) {
		if to.box.gone.Load() {
			return fmt.Errorf("target %q: %w", to.name, store.ErrNotFound)
		}
		copied, err = plan(c, ac, to.box)
		return err
	})
	if err != nil {
		return store.Copied{}, err
	}
	return copied, nil
}

func sumOf(v *view, uids store.UIDSet) (sum usage) {
	v.index.each(uids, func(e *entry) {
		sum.bytes += e.size
		sum.messages++
	})
	return sum
}

// TakeRecent implements store.Mailbox.
func (h *handle) TakeRecent(ctx context.Context) (store.UID, error) {
	if err := h.enter(ctx); err != nil {
		return 0, h.fail("take recent", err)
	}
	defer h.leave()
	c := h.store.change()
	defer c.close()
	var first store.UID
	err := h.run(c, false, func(_ *change, _ *accountChange, bc *boxChange) error {
		first = store.UID(bc.state.firstRecent)
		if bc.state.firstRecent != bc.state.uidNext {
			bc.state.firstRecent, bc.state.recent, bc.changed = bc.state.uidNext, 0, true
		}
		return nil
	})
	return first, h.fail("take recent", err)
}

func (h *handle) Subscribe(fn func()) (cancel func()) {
	m := h.box
	m.subscribersMu.Lock()
	defer m.subscribersMu.Unlock()
	if m.subscribers == nil {
		m.subscribers = map[*func()]struct{}{}
	}
	m.subscribers[&fn] = struct{}{}
	return func() {
		m.subscribersMu.Lock()
		defer m.subscribersMu.Unlock()
		delete(m.subscribers, &fn)
	}
}

// copy plans copies of the messages in the target; bodies are shared.
func (c *change) copy(ac *accountChange, from, to *mailbox, uids store.UIDSet, quota *store.Quota) (store.Copied, error) {
	if err := ac.checkQuota(quota, to.name, sumOf(from.working, uids)); err != nil {
		return store.Copied{}, err
	}
	return c.duplicateEntries(ac, from, to, uids, func(e *entry) { c.refer(e, 1) })
}

// move plans that the messages leave from for to, under new UIDs.
func (c *change) move(ac *accountChange, from, to *mailbox, uids store.UIDSet) (store.Copied, error) {
	bc := ac.on(from)
	return c.duplicateEntries(ac, from, to, uids, func(e *entry) { c.remove(ac, bc, e) })
}

// duplicateEntries plans new entries for the messages and calls then for each old one.
func (c *change) duplicateEntries(ac *accountChange, from, to *mailbox, uids store.UIDSet, then func(e *entry)) (store.Copied, error) {
	copied := store.Copied{UIDValidity: to.row.uidValidity}
	v, target := from.working, ac.on(to)
	if err := target.room(v.index.len()); err != nil {
		return store.Copied{}, err
	}
	saved := c.store.options.Now().Unix()
	sets := map[uint32][]uint16{}
	var err error
	v.index.each(uids, func(e *entry) {
		if err != nil {
			return
		}
		numbers, ok := sets[e.set]
		if !ok {
			if numbers, err = c.numbers(target, namesOf(v, e.set)); err != nil {
				return
			}
			sets[e.set] = numbers
		}
		twin := *e
		twin.saved = saved
		uid := c.add(ac, target, twin, numbers)
		if e.prefix > 0 {
			var prefix []byte
			if prefix, err = c.store.db.Get(c.store.space, nil, keyUID(rowPrefix, from.row.id, e.uid)); err != nil {
				return
			}
			c.batch.Set(c.store.space, keyUID(rowPrefix, to.row.id, uid), prefix)
		}
		copied.Source, copied.Target = append(copied.Source, e.uid), append(copied.Target, uid)
		then(e)
	})
	if err != nil {
		return store.Copied{}, err
	}
	return copied, nil
}

func namesOf(v *view, set uint32) []string {
	var names []string
	for _, number := range v.sets[set] {
		names = append(names, v.keywords[number])
	}
	return names
}
