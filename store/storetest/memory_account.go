package storetest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"

	"postilion/store"
)

// memoryHandle implements store.Account.
type memoryHandle struct {
	store   *memoryStore
	account *memoryAccount
	quota   store.Quota
}

func (h *memoryHandle) User() string { return h.account.user }
func (h *memoryHandle) Close() error { return nil }

func (h *memoryHandle) List(context.Context) ([]store.Listed, error) {
	m, err := h.store.lock()
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var listed []store.Listed
	for name, box := range h.account.mailboxes {
		listed = append(listed, store.Listed{Name: name, Selectable: true, Use: box.use, ID: box.view.id})
	}
	for name := range h.account.levels() {
		listed = append(listed, store.Listed{Name: name})
	}
	return listed, nil
}

// levels returns the names that exist only above others.
func (a *memoryAccount) levels() map[string]bool {
	above := map[string]bool{}
	for name := range a.mailboxes {
		for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
			if a.mailboxes[name[:i]] == nil {
				above[name[:i]] = true
			}
		}
	}
	return above
}

func (h *memoryHandle) Subscriptions(context.Context) ([]string, error) {
	m, err := h.store.lock()
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(h.account.subscribed)), nil
}

func (h *memoryHandle) Subscribe(_ context.Context, name string, subscribed bool) error {
	m, err := h.store.lock()
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	if delete(h.account.subscribed, name); subscribed {
		h.account.subscribed[name] = true
	}
	return nil
}

func (h *memoryHandle) Create(_ context.Context, name, use string) error {
	m, err := h.store.lock()
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	if err := checkMemoryName(name); err != nil {
		return err
	}
	if h.account.mailboxes[name] != nil {
		return store.ErrExists
	}
	m.create(h.account, name, use)
	return nil
}

func (h *memoryHandle) Delete(_ context.Context, name string) error {
	m, err := h.store.lock()
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	box := h.account.mailboxes[name]
	switch {
	case name == store.Inbox:
		return store.ErrName
	case box == nil:
		return store.ErrNotFound
	}
	delete(h.account.mailboxes, name)
	box.gone = true
	return nil
}

func (h *memoryHandle) Rename(_ context.Context, from, to string) error {
	m, err := h.store.lock()
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	a := h.account
	if err := checkMemoryName(to); err != nil {
		return err
	}
	if a.mailboxes[to] != nil || a.levels()[to] {
		return store.ErrExists
	}
	if from == store.Inbox {
		inbox, target := a.mailboxes[store.Inbox], m.create(a, to, "")
		inbox.transfer(m, store.AllUIDs(), target, true)
		return nil
	}
	if strings.HasPrefix(to, from+"/") {
		return store.ErrName
	}
	moved := map[string]*memoryMailbox{}
	for name, box := range a.mailboxes {
		if name == from || strings.HasPrefix(name, from+"/") {
			moved[to+name[len(from):]] = box
			delete(a.mailboxes, name)
		}
	}
	if len(moved) == 0 {
		return store.ErrNotFound
	}
	maps.Copy(a.mailboxes, moved)
	return nil
}

func (h *memoryHandle) Status(_ context.Context, name string) (store.Status, error) {
	m, err := h.store.lock()
	if err != nil {
		return store.Status{}, err
	}
	defer m.mu.Unlock()
	box := h.account.mailboxes[name]
	if box == nil {
		return store.Status{}, store.ErrNotFound
	}
	return box.status(), nil
}

func (h *memoryHandle) Mailbox(_ context.Context, name string) (store.Mailbox, error) {
	m, err := h.store.lock()
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	box := h.account.mailboxes[name]
	if box == nil {
		return nil, store.ErrNotFound
	}
	return &memoryBox{handle: h, name: name, box: box}, nil
}

func (h *memoryHandle) QuotaUsage(context.Context) (store.QuotaUsage, error) {
	m, err := h.store.lock()
	if err != nil {
		return store.QuotaUsage{}, err
	}
	defer m.mu.Unlock()
	return h.account.usage(h.quota), nil
}

func (a *memoryAccount) usage(quota store.Quota) store.QuotaUsage {
	var u store.QuotaUsage
	u.LimitBytes, u.LimitMessages = quotaLimits(quota)
	for name, box := range a.mailboxes {
		if rule, ok := quotaRule(quota, name); ok && rule.Ignore {
			continue
		}
		s := box.status()
		u.Bytes += s.Size
		u.Messages += int64(s.Messages)
	}
	return u
}

func quotaLimits(quota store.Quota) (octets, messages int64) {
	for _, rule := range quota.Rules {
		if rule.Mailbox == "*" {
			octets, messages = rule.Bytes, rule.Messages
		}
	}
	return octets, messages
}

func quotaRule(quota store.Quota, name string) (store.QuotaRule, bool) {
	for _, rule := range quota.Rules {
		above, wild := strings.CutSuffix(rule.Mailbox, "/*")
		if rule.Mailbox == name || (wild && strings.HasPrefix(name, above+"/")) {
			return rule, true
		}
	}
	return store.QuotaRule{}, false
}

func quotaAllows(quota store.Quota, name string, used store.QuotaUsage, octets, messages int64) bool {
	limitOctets, limitMessages := quotaLimits(quota)
	rule, ok := quotaRule(quota, name)
	if ok && rule.Ignore {
		return true
	}
	return (limitOctets == 0 || used.Bytes+octets <= limitOctets+rule.Bytes) && (limitMessages == 0 || used.Messages+messages <= limitMessages+rule.Messages)
}

// memoryBox implements store.Mailbox.
type memoryBox struct {
	handle *memoryHandle
	name   string
	box    *memoryMailbox
}

func (h *memoryBox) Name() string { return h.name }
func (h *memoryBox) Close() error { return nil }

func (h *memoryBox) lock() (*Memory, *memoryMailbox, error) {
	m, err := h.handle.store.lock()
	if err == nil && h.box.gone {
		m.mu.Unlock()
		err = store.ErrNotFound
	}
	return m, h.box, err
}

func (h *memoryBox) unlock() { h.handle.store.memory.mu.Unlock() }

func (h *memoryBox) View(context.Context) (store.View, error) {
	_, b, err := h.lock()
	if err != nil {
		return nil, err
	}
	defer h.unlock()
	return b.current, nil
}

func (h *memoryBox) Open(_ context.Context, uid store.UID) (store.Body, error) {
	_, b, err := h.lock()
	if err != nil {
		return nil, err
	}
	defer h.unlock()
	content, ok := b.bodies[uid]
	if !ok {
		return nil, store.ErrExpunged
	}
	return memoryBody{bytes.NewReader(content)}, nil
}

func (h *memoryBox) Append(_ context.Context, drafts []store.Draft) ([]store.UID, error) {
	var contents [][]byte
	total := int64(0)
	for _, d := range drafts {
		content, err := readContent(d.Content)
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
		total += int64(len(content))
	}
	m, b, err := h.lock()
	if err != nil {
		return nil, err
	}
	defer h.unlock()
	if len(drafts) == 0 {
		return nil, nil
	}
	if !quotaAllows(h.handle.quota, h.name, b.account.usage(h.handle.quota), total, int64(len(drafts))) {
		return nil, store.ErrOverQuota
	}
	var uids []store.UID
	modseq := store.ModSeq(m.next())
	for i, d := range drafts {
		uids = append(uids, b.add(m, modseq, contents[i], d.Flags, d.Keywords, d.InternalDate, ""))
	}
	b.show()
	return uids, nil
}

func (h *memoryBox) Copy(_ context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	return h.transfer(uids, target, false)
}

func (h *memoryBox) Move(_ context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	return h.transfer(uids, target, true)
}

func (h *memoryBox) transfer(uids store.UIDSet, target store.Mailbox, move bool) (store.Copied, error) {
	t, ok := target.(*memoryBox)
	if !ok || t.box.account != h.box.account {
		return store.Copied{}, store.ErrOtherAccount
	}
	m, b, err := h.lock()
	if err != nil {
		return store.Copied{}, err
	}
	defer h.unlock()
	if t.box.gone {
		return store.Copied{}, store.ErrNotFound
	}
	var octets, count int64
	for _, message := range b.messages {
		if uids.Contains(message.UID) {
			octets += message.Size
			count++
		}
	}
	if !move && !quotaAllows(h.handle.quota, t.name, b.account.usage(h.handle.quota), octets, count) {
		return store.Copied{}, store.ErrOverQuota
	}
	return b.transfer(m, uids, t.box, move), nil
}

func (b *memoryMailbox) transfer(m *Memory, uids store.UIDSet, target *memoryMailbox, move bool) store.Copied {
	copied := store.Copied{UIDValidity: target.view.validity}
	modseq := store.ModSeq(m.next())
	for _, message := range slices.Clone(b.messages) {
		if uids.Contains(message.UID) {
			copied.Source = append(copied.Source, message.UID)
			copied.Target = append(copied.Target, target.add(m, modseq, b.bodies[message.UID], message.Flags, message.words, message.InternalDate, message.EmailID))
		}
	}
	if len(copied.Source) == 0 {
		return copied
	}
	if move {
		b.drop(store.ModSeq(m.next()), func(message memoryMessage) bool { return slices.Contains(copied.Source, message.UID) })
		b.show()
	}
	target.show()
	return copied
}

func (h *memoryBox) SetFlags(_ context.Context, uids store.UIDSet, change store.FlagChange) (store.FlagsChanged, error) {
	m, b, err := h.lock()
	if err != nil {
		return store.FlagsChanged{}, err
	}
	defer h.unlock()
	var result store.FlagsChanged
	modseq := store.ModSeq(m.next())
	b.messages = slices.Clone(b.messages)
	for i := range b.messages {
		message := &b.messages[i]
		switch {
		case !uids.Contains(message.UID):
			continue
		case change.UnchangedSince != nil && message.ModSeq > *change.UnchangedSince:
			result.Modified = result.Modified.Add(message.UID)
			continue
		}
		words := slices.Clone(message.words)
		switch change.Operation {
		case store.ReplaceFlags:
			message.Flags, words = change.Flags, slices.Clone(change.Keywords)
		case store.AddFlags:
			message.Flags |= change.Flags
			words = append(words, change.Keywords...)
		case store.RemoveFlags:
			message.Flags &^= change.Flags
			words = slices.DeleteFunc(words, func(word string) bool { return slices.Contains(change.Keywords, word) })
		}
		slices.Sort(words)
		message.words, message.ModSeq = slices.Compact(words), modseq
		result.Changed, result.ModSeq = result.Changed.Add(message.UID), modseq
	}
	if result.ModSeq != 0 {
		b.view.highest = modseq
		b.show()
	}
	return result, nil
}

func (h *memoryBox) Expunge(_ context.Context, uids store.UIDSet, onlyDeleted bool) (store.UIDSet, error) {
	m, b, err := h.lock()
	if err != nil {
		return nil, err
	}
	defer h.unlock()
	set := b.drop(store.ModSeq(m.next()), func(message memoryMessage) bool {
		return uids.Contains(message.UID) && (!onlyDeleted || message.Flags&store.FlagDeleted != 0)
	})
	if len(set) > 0 {
		b.show()
	}
	return set, nil
}

func (h *memoryBox) TakeRecent(context.Context) (store.UID, error) {
	_, b, err := h.lock()
	if err != nil {
		return 0, err
	}
	defer h.unlock()
	first := b.view.recent
	if first != b.view.next {
		b.view.recent = b.view.next
		b.show()
	}
	return first, nil
}

func (h *memoryBox) Subscribe(fn func()) (cancel func()) {
	m := h.handle.store.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.next()
	h.box.watchers[id] = fn
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(h.box.watchers, id)
	}
}
