package storetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"postilion/mail/message"
	"postilion/store"
)

// Memory is a plain store that keeps everything in memory under one lock. It is what Compare takes for right, and serves tests of servers that
// want a store without a disk. Open gives handles on the same mail until the Memory itself is forgotten.
type Memory struct {
	mu       sync.Mutex
	accounts map[string]*memoryAccount
	count    uint64
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{accounts: map[string]*memoryAccount{}} }

// Open returns a store; closing it does not touch the mail.
func (m *Memory) Open() store.Store { return &memoryStore{memory: m} }

// next numbers identifiers, UIDVALIDITYs and mod-sequences.
func (m *Memory) next() uint64 {
	m.count++
	return m.count
}

type memoryStore struct {
	memory *Memory
	closed bool
}

type memoryAccount struct {
	user       string
	mailboxes  map[string]*memoryMailbox
	subscribed map[string]bool
}

type memoryMailbox struct {
	account   *memoryAccount
	gone      bool
	use       string
	messages  []memoryMessage
	bodies    map[store.UID][]byte
	expunged  []memoryExpunge
	delivered map[string]store.UID
	view      memoryView
	current   *memoryView
	watchers  map[uint64]func()
}

type memoryMessage struct {
	store.Entry
	words []string
}

type memoryExpunge struct {
	uid    store.UID
	modseq store.ModSeq
}

func (s *memoryStore) lock() (*Memory, error) {
	s.memory.mu.Lock()
	if s.closed {
		s.memory.mu.Unlock()
		return nil, store.ErrClosed
	}
	return s.memory, nil
}

func (s *memoryStore) Close() error {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	s.closed = true
	return nil
}

func (s *memoryStore) Open(_ context.Context, owner store.Owner) (store.Account, error) {
	m, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return &memoryHandle{store: s, account: m.account(owner.User), quota: owner.Quota}, nil
}

func (m *Memory) account(user string) *memoryAccount {
	a := m.accounts[user]
	if a == nil {
		a = &memoryAccount{user: user, mailboxes: map[string]*memoryMailbox{}, subscribed: map[string]bool{}}
		m.accounts[user] = a
		m.create(a, store.Inbox, "")
	}
	return a
}

func (m *Memory) create(a *memoryAccount, name, use string) *memoryMailbox {
	box := &memoryMailbox{account: a, use: use, bodies: map[store.UID][]byte{}, delivered: map[string]store.UID{}, watchers: map[uint64]func(){}}
	box.view = memoryView{validity: uint32(m.next()), next: 1, recent: 1, highest: store.ModSeq(m.next()), id: fmt.Sprint("box", m.next())}
	a.mailboxes[name] = box
	box.show()
	return box
}

func (s *memoryStore) Accounts(_ context.Context, fn func(string) bool) error {
	m, err := s.lock()
	if err != nil {
		return err
	}
	users := slices.Sorted(maps.Keys(m.accounts))
	m.mu.Unlock()
	for _, user := range users {
		if !fn(user) {
			break
		}
	}
	return nil
}

// show freezes what the mailbox holds now into a view.
func (b *memoryMailbox) show() {
	v := b.view
	v.expunged = slices.Clone(b.expunged)
	v.entries = make([]store.Entry, len(b.messages))
	for i, m := range b.messages {
		v.entries[i] = m.Entry
		for _, word := range m.words {
			at := slices.Index(v.words, word)
			if at < 0 {
				at = len(v.words)
				v.words = append(v.words, word)
			}
			v.entries[i].Keywords = append(v.entries[i].Keywords, uint16(at))
		}
		slices.Sort(v.entries[i].Keywords)
	}
	b.current = &v
	for _, fn := range b.watchers {
		fn()
	}
}

func (b *memoryMailbox) add(m *Memory, modseq store.ModSeq, content []byte, flags store.Flags, words []string, date time.Time, email string) store.UID {
	uid := b.view.next
	b.view.next++
	b.view.highest = modseq
	if email == "" {
		email = fmt.Sprint("mail", m.next())
	}
	b.bodies[uid] = content
	b.messages = append(b.messages, memoryMessage{words: slices.Compact(slices.Sorted(slices.Values(words))), Entry: store.Entry{
		UID: uid, ModSeq: modseq, Flags: flags, InternalDate: date, SaveDate: time.Now(), Size: int64(len(content)), EmailID: email,
	}})
	return uid
}

// drop removes the messages that gone names and returns them.
func (b *memoryMailbox) drop(modseq store.ModSeq, gone func(memoryMessage) bool) store.UIDSet {
	var set store.UIDSet
	b.messages = slices.DeleteFunc(slices.Clone(b.messages), func(m memoryMessage) bool {
		if !gone(m) {
			return false
		}
		set = set.Add(m.UID)
		b.expunged = append(b.expunged, memoryExpunge{m.UID, modseq})
		delete(b.bodies, m.UID)
		return true
	})
	if len(set) > 0 {
		b.view.highest = modseq
	}
	return set
}

// checkMemoryName refuses what no store takes.
func checkMemoryName(name string) error {
	if name == "" || len(name) > 4096 || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) ||
		slices.Contains(strings.Split(name, "/"), "") {
		return store.ErrName
	}
	return nil
}

func readContent(content store.Content) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(content, 0, content.Size()))
}

func (s *memoryStore) Deliver(_ context.Context, d *store.Delivery) ([]store.Outcome, error) {
	content, err := readContent(d.Content)
	if err != nil {
		return nil, err
	}
	m, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	outcomes := make([]store.Outcome, len(d.Targets))
	failed := false
	for pass := range 2 {
		if pass == 1 && failed && d.AllOrNothing {
			break
		}
		used := map[*memoryAccount]store.QuotaUsage{}
		for i, t := range d.Targets {
			if outcomes[i].Err == nil {
				outcomes[i] = m.deliver(d, t, append(slices.Clone(t.Prefix), content...), used, pass == 0)
				failed = failed || outcomes[i].Err != nil
			}
		}
	}
	for i := range outcomes {
		if failed && d.AllOrNothing && outcomes[i].Err == nil && !outcomes[i].Duplicate {
			outcomes[i] = store.Outcome{Err: store.ErrNotDelivered}
		}
	}
	return outcomes, nil
}

// deliver does what one target wants, or only tries.
func (m *Memory) deliver(d *store.Delivery, t store.Target, content []byte, used map[*memoryAccount]store.QuotaUsage, try bool) store.Outcome {
	a := m.account(t.Owner.User)
	box := a.mailboxes[t.Mailbox]
	if err := checkMemoryName(t.Mailbox); err != nil {
		return store.Outcome{Err: err}
	}
	if box == nil && !t.Create {
		return store.Outcome{Err: store.ErrNotFound}
	}
	if box != nil && d.ID != "" {
		if uid, known := box.delivered[d.ID]; known {
			return store.Outcome{UID: uid, Duplicate: true}
		}
	}
	if _, known := used[a]; !known {
		used[a] = a.usage(t.Owner.Quota)
	}
	if !quotaAllows(t.Owner.Quota, t.Mailbox, used[a], int64(len(content)), 1) {
		return store.Outcome{Err: store.ErrOverQuota}
	}
	if try {
		u := used[a]
		used[a] = store.QuotaUsage{Bytes: u.Bytes + int64(len(content)), Messages: u.Messages + 1}
		return store.Outcome{}
	}
	if box == nil {
		box = m.create(a, t.Mailbox, "")
		if t.SubscribeCreated {
			a.subscribed[t.Mailbox] = true
		}
	}
	uid := box.add(m, store.ModSeq(m.next()), content, t.Flags, t.Keywords, d.InternalDate, "")
	if d.ID != "" {
		box.delivered[d.ID] = uid
	}
	box.show()
	delete(used, a)
	return store.Outcome{UID: uid}
}

// memoryView implements store.View.
type memoryView struct {
	validity uint32
	next     store.UID
	recent   store.UID
	highest  store.ModSeq
	id       string
	entries  []store.Entry
	words    []string
	expunged []memoryExpunge
}

// UIDValidity and the others implement store.View.
func (v *memoryView) UIDValidity() uint32         { return v.validity }
func (v *memoryView) UIDNext() store.UID          { return v.next }
func (v *memoryView) HighestModSeq() store.ModSeq { return v.highest }
func (v *memoryView) ID() string                  { return v.id }
func (v *memoryView) FirstRecent() store.UID      { return v.recent }
func (v *memoryView) Len() int                    { return len(v.entries) }
func (v *memoryView) UID(i int) store.UID         { return v.entries[i].UID }
func (v *memoryView) Entry(i int) store.Entry     { return v.entries[i] }
func (v *memoryView) Keywords() []string          { return v.words }

func (v *memoryView) Index(uid store.UID) (int, bool) {
	return slices.BinarySearchFunc(v.entries, uid, func(e store.Entry, uid store.UID) int { return int(int64(e.UID) - int64(uid)) })
}

func (v *memoryView) ChangedSince(since store.ModSeq) (set store.UIDSet) {
	for _, e := range v.entries {
		if e.ModSeq > since {
			set = set.Add(e.UID)
		}
	}
	return set
}

func (v *memoryView) ExpungedSince(since store.ModSeq) (set store.UIDSet) {
	for _, e := range v.expunged {
		if e.modseq > since {
			set = set.Add(e.uid)
		}
	}
	return set
}

func (b *memoryMailbox) status() store.Status {
	v := b.current
	s := store.Status{Messages: uint32(v.Len()), UIDNext: v.next, UIDValidity: v.validity, HighestModSeq: v.highest, ID: v.id}
	for _, e := range v.entries {
		s.Size += e.Size
		if e.UID >= v.recent {
			s.Recent++
		}
		if e.Flags&store.FlagSeen == 0 {
			s.Unseen++
		}
		if e.Flags&store.FlagDeleted != 0 {
			s.Deleted++
		}
	}
	return s
}

// memoryBody implements store.Body.
type memoryBody struct{ *bytes.Reader }

func (memoryBody) Close() error { return nil }

func (h *memoryBox) Structure(_ context.Context, uid store.UID) (*message.Message, error) {
	_, b, err := h.lock()
	if err != nil {
		return nil, err
	}
	defer h.unlock()
	content, ok := b.bodies[uid]
	if !ok {
		return nil, store.ErrExpunged
	}
	return message.Parse(content), nil
}
