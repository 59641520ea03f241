package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"postilion/store"
)

func (m *mailbox) Copy(ctx context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	return m.to(ctx, "copy", uids, target, false)
}

func (m *mailbox) Move(ctx context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	return m.to(ctx, "move", uids, target, true)
}

func (m *mailbox) to(ctx context.Context, operation string, uids store.UIDSet, target store.Mailbox, move bool) (store.Copied, error) {
	end, err := m.account.store.begin(ctx)
	if err != nil {
		return store.Copied{}, m.fail(operation, err)
	}
	defer end()
	t, ok := target.(*mailbox)
	if !ok || t.account.root != m.account.root || t.account.owner.User != m.account.owner.User {
		return store.Copied{}, m.fail(operation, store.ErrOtherAccount)
	}
	copied, err := m.transfer(ctx, uids, t, move)
	return copied, m.fail(operation, err)
}

// transfer copies or moves. A message moves by one rename, so that it is never in both mailboxes nor in none; the source's journal learns of it when
// the source is read again.
func (m *mailbox) transfer(ctx context.Context, uids store.UIDSet, t *mailbox, move bool) (store.Copied, error) {
	free, err := m.reserveTransfer(ctx, uids, t, move)
	if err != nil {
		return store.Copied{}, err
	}
	defer free()
	source, target := m.folder, t.folder
	defer lockFolders(source, target)()
	if err := source.refresh(ctx); err != nil {
		return store.Copied{}, err
	}
	if err := target.refresh(ctx); err != nil {
		return store.Copied{}, err
	}
	copied := store.Copied{UIDValidity: target.validity}
	for range 5 {
		var missing store.UIDSet
		if !source.holdsAny(uids) {
			break
		}
		before, known := len(copied.Source), !source.dirsChanged()
		if missing, err = source.transferTo(ctx, target, uids, move, &copied); err != nil {
			return store.Copied{}, err
		}
		if move && source != target {
			if known {
				source.adoptDirs([]string{"new", "cur"})
			}
			if err := source.depart(ctx, copied.Source[before:]); err != nil {
				return store.Copied{}, err
			}
		}
		if uids = missing; len(missing) == 0 {
			break
		}
		source.curStamp = dirStamp{}
		if err := source.refresh(ctx); err != nil {
			return store.Copied{}, err
		}
	}
	copied.UIDValidity = target.validity
	return copied, nil
}

// depart notes that messages were moved away.
func (f *folder) depart(ctx context.Context, uids []store.UID) error {
	return f.updateKnown(ctx, func(c *tx) error {
		var gone []*stored
		for m := range f.among(store.UIDSetOf(uids...)) {
			gone = append(gone, m)
		}
		f.drop(c, gone...)
		return nil
	})
}

// transferTo takes one turn and returns the messages whose files were not where they should be.
func (f *folder) transferTo(ctx context.Context, target *folder, uids store.UIDSet, move bool, copied *store.Copied) (missing store.UIDSet, err error) {
	var from, to []store.UID
	err = target.updateKnown(ctx, func(c *tx) error {
		var messages []*stored
		for m := range f.among(uids) {
			messages = append(messages, m)
		}
		for _, m := range messages {
			a := arrival{path: m.path(f), keep: !move || f == target, size: m.size, flags: m.flags}
			for _, n := range m.keywords {
				a.keywords = append(a.keywords, f.keywords[n])
			}
			if err := a.name(f, target, m, move); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					missing = missing.Add(m.uid)
					continue
				}
				return err
			}
			uid, err := target.place(c, a)
			if errors.Is(err, fs.ErrNotExist) {
				missing = missing.Add(m.uid)
				continue
			}
			if err != nil {
				return err
			}
			from, to = append(from, m.uid), append(to, uid)
		}
		if move && f == target {
			_, _, err := f.expunge(c, store.UIDSetOf(slices.Clone(from)...), false)
			return err
		}
		return nil
	})
	if err == nil {
		copied.Source, copied.Target = append(copied.Source, from...), append(copied.Target, to...)
	}
	return missing, err
}

// name gives the arrival the base name of the source where the target has no such name, else a new one, and the source's identifier.
func (a *arrival) name(source, target *folder, m *stored, move bool) error {
	_, sized := sizeIn(m.base, 'S')
	_, taken := target.listed[m.base]
	_, there := target.files[m.base]
	if a.base = m.base; (sized || move) && !taken && !there {
		if m.guid != m.base {
			a.guid = m.guid
		}
		return nil
	}
	info, err := source.store.disk.files.Stat(m.path(source))
	if err != nil {
		return err
	}
	a.guid = m.guid
	a.base = fmt.Sprintf("%s,S=%d,W=%d", source.store.names.next(""), info.Size(), m.size)
	return nil
}

// reserveTransfer holds the quota for what will be copied; a move inside what is counted needs none.
func (m *mailbox) reserveTransfer(ctx context.Context, uids store.UIDSet, t *mailbox, move bool) (free func(), err error) {
	quota := quotaOf(t.account.owner.Quota)
	if !quota.limited() || (move && !quota.ignores(m.name)) {
		return func() {}, nil
	}
	current, err := m.account.look(ctx, m.name)
	if err != nil {
		return nil, err
	}
	var bytes, count int64
	for _, stored := range current.messages {
		if uids.Contains(stored.uid) {
			bytes += stored.size
			count++
		}
	}
	return t.account.reserve(ctx, t.name, bytes, count)
}
