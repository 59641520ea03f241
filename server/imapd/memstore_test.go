package imapd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"postilion/mail/message"
	"postilion/store"
)

// memStore keeps mail in memory for the tests of this package. Its numbers (UIDVALIDITY, mod-sequences) are the same in every run.
type memStore struct {
	mu       sync.Mutex
	accounts map[string]*memAccount
	validity uint32
}

func newMemStore() *memStore { return &memStore{accounts: map[string]*memAccount{}} }

func (m *memStore) Open(_ context.Context, owner store.Owner) (store.Account, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[owner.User]
	if a == nil {
		a = &memAccount{m: m, user: owner.User, boxes: map[string]*memBox{}, subscribed: map[string]bool{}}
		a.boxes[store.Inbox] = a.newBox(store.Inbox)
		m.accounts[owner.User] = a
	}
	return a, nil
}

type memAccount struct {
	m          *memStore
	user       string
	boxes      map[string]*memBox
	subscribed map[string]bool
	limit      int64
}

func (a *memAccount) newBox(name string) *memBox {
	a.m.validity++
	return &memBox{a: a, name: name, bodies: map[store.UID][]byte{}, watchers: map[int]func(){}, view: &memView{validity: a.m.validity, next: 1, high: 1, recent: 1}}
}

func (a *memAccount) User() string { return a.user }
func (a *memAccount) Close() error { return nil }

func (a *memAccount) List(context.Context) ([]store.Listed, error) {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	names := map[string]bool{}
	for name := range a.boxes {
		names[name] = true
		for up := parentOf(name); up != ""; up = parentOf(up) {
			names[up] = names[up] || a.boxes[up] != nil
		}
	}
	var list []store.Listed
	for name, selectable := range names {
		l := store.Listed{Name: name, Selectable: selectable}
		if selectable {
			l.Use = a.boxes[name].use
		}
		list = append(list, l)
	}
	return list, nil
}

func (a *memAccount) Subscriptions(context.Context) ([]string, error) {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	return slices.Sorted(maps.Keys(a.subscribed)), nil
}

func (a *memAccount) Subscribe(_ context.Context, name string, on bool) error {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	if on {
		a.subscribed[name] = true
	} else {
		delete(a.subscribed, name)
	}
	return nil
}

func (a *memAccount) Create(_ context.Context, name, use string) error {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	if a.boxes[name] != nil {
		return store.ErrExists
	}
	a.boxes[name] = a.newBox(name)
	a.boxes[name].use = use
	return nil
}

func (a *memAccount) Delete(_ context.Context, name string) error {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	b := a.boxes[name]
	if b == nil {
		return store.ErrNotFound
	}
	b.gone = true
	delete(a.boxes, name)
	b.notify()
	return nil
}

func (a *memAccount) Rename(_ context.Context, from, to string) error {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	if a.boxes[from] == nil {
		return store.ErrNotFound
	}
	if a.boxes[to] != nil {
		return store.ErrExists
	}
	for name, b := range maps.Clone(a.boxes) {
		if name == from || strings.HasPrefix(name, from+"/") {
			delete(a.boxes, name)
			b.name = to + strings.TrimPrefix(name, from)
			a.boxes[b.name] = b
		}
	}
	return nil
}

func (a *memAccount) Status(_ context.Context, name string) (store.Status, error) {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	b := a.boxes[name]
	if b == nil {
		return store.Status{}, store.ErrNotFound
	}
	v := b.view
	st := store.Status{Messages: uint32(len(v.entries)), UIDNext: v.next, UIDValidity: v.validity, HighestModSeq: v.high, ID: v.ID()}
	for _, e := range v.entries {
		st.Size += e.Size
		if e.Flags&store.FlagSeen == 0 {
			st.Unseen++
		}
		if e.Flags&store.FlagDeleted != 0 {
			st.Deleted++
		}
		if e.UID >= v.recent {
			st.Recent++
		}
	}
	return st, nil
}

func (a *memAccount) Mailbox(_ context.Context, name string) (store.Mailbox, error) {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	if b := a.boxes[name]; b != nil {
		return b, nil
	}
	return nil, store.ErrNotFound
}

func (a *memAccount) QuotaUsage(context.Context) (store.QuotaUsage, error) {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	u := store.QuotaUsage{LimitBytes: a.limit}
	for _, b := range a.boxes {
		for _, e := range b.view.entries {
			u.Bytes += e.Size
			u.Messages++
		}
	}
	return u, nil
}

type memBox struct {
	a        *memAccount
	name     string
	use      string
	view     *memView
	bodies   map[store.UID][]byte
	parsed   map[store.UID]*message.Message
	watchers map[int]func()
	watched  int
	gone     bool
	opens    int
}

func (b *memBox) notify() {
	for _, fn := range b.watchers {
		fn()
	}
}

// change gives fn a copy of the view to change, with the next mod-sequence.
func (b *memBox) change(fn func(v *memView)) {
	v := *b.view
	v.high++
	v.entries = slices.Clone(v.entries)
	v.keywords = slices.Clone(v.keywords)
	v.expunged = slices.Clone(v.expunged)
	fn(&v)
	b.view = &v
	b.notify()
}

func (b *memBox) Name() string { return b.name }
func (b *memBox) Close() error { return nil }

func (b *memBox) View(context.Context) (store.View, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	if b.gone {
		return nil, store.ErrNotFound
	}
	return b.view, nil
}

type memBody struct{ *bytes.Reader }

func (memBody) Close() error { return nil }

func (b *memBox) Open(_ context.Context, uid store.UID) (store.Body, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	b.opens++
	if _, ok := b.view.Index(uid); !ok {
		return nil, store.ErrExpunged
	}
	return memBody{bytes.NewReader(b.bodies[uid])}, nil
}

func (b *memBox) Structure(_ context.Context, uid store.UID) (*message.Message, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	if _, ok := b.view.Index(uid); !ok {
		return nil, store.ErrExpunged
	}
	// Parsed once, as a store does it at delivery.
	if b.parsed == nil {
		b.parsed = map[store.UID]*message.Message{}
	}
	if b.parsed[uid] == nil {
		b.parsed[uid] = message.Parse(b.bodies[uid])
	}
	return b.parsed[uid], nil
}

func (b *memBox) Append(_ context.Context, drafts []store.Draft) ([]store.UID, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	var uids []store.UID
	b.change(func(v *memView) {
		for _, d := range drafts {
			text, err := io.ReadAll(io.NewSectionReader(d.Content, 0, d.Content.Size()))
			if err != nil {
				panic(err)
			}
			uids = append(uids, v.add(b, text, d.Flags, d.Keywords, d.InternalDate))
		}
	})
	return uids, nil
}

func (b *memBox) Copy(_ context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	return b.copy(uids, target)
}

func (b *memBox) copy(uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	to := target.(*memBox)
	if to.a != b.a {
		return store.Copied{}, store.ErrOtherAccount
	}
	from := b.view
	c := store.Copied{UIDValidity: to.view.validity}
	to.change(func(v *memView) {
		for _, e := range from.entries {
			if !uids.Contains(e.UID) {
				continue
			}
			var keywords []string
			for _, k := range e.Keywords {
				keywords = append(keywords, from.keywords[k])
			}
			c.Source = append(c.Source, e.UID)
			c.Target = append(c.Target, v.add(to, b.bodies[e.UID], e.Flags, keywords, e.InternalDate))
		}
	})
	return c, nil
}

func (b *memBox) Move(_ context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	c, err := b.copy(uids, target)
	if err == nil {
		b.expunge(store.UIDSetOf(c.Source...), false)
	}
	return c, err
}

func (b *memBox) SetFlags(_ context.Context, uids store.UIDSet, change store.FlagChange) (store.FlagsChanged, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	var result store.FlagsChanged
	b.change(func(v *memView) {
		numbers := v.numbers(change.Keywords)
		for i := range v.entries {
			e := &v.entries[i]
			if !uids.Contains(e.UID) {
				continue
			}
			if change.UnchangedSince != nil && e.ModSeq > *change.UnchangedSince {
				result.Modified = result.Modified.Add(e.UID)
				continue
			}
			result.Changed = result.Changed.Add(e.UID)
			flags, keywords := e.Flags, slices.Clone(e.Keywords)
			switch change.Operation {
			case store.ReplaceFlags:
				flags, keywords = change.Flags, numbers
			case store.AddFlags:
				flags, keywords = flags|change.Flags, append(keywords, numbers...)
			case store.RemoveFlags:
				flags &^= change.Flags
				keywords = slices.DeleteFunc(keywords, func(k uint16) bool { return slices.Contains(numbers, k) })
			}
			slices.Sort(keywords)
			keywords = slices.Compact(keywords)
			if flags != e.Flags || !slices.Equal(keywords, e.Keywords) {
				e.Flags, e.Keywords, e.ModSeq = flags, keywords, v.high
			}
		}
	})
	return result, nil
}

func (b *memBox) Expunge(_ context.Context, uids store.UIDSet, onlyDeleted bool) (store.UIDSet, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	return b.expunge(uids, onlyDeleted), nil
}

func (b *memBox) expunge(uids store.UIDSet, onlyDeleted bool) store.UIDSet {
	var gone store.UIDSet
	b.change(func(v *memView) {
		v.entries = slices.DeleteFunc(v.entries, func(e store.Entry) bool {
			if !uids.Contains(e.UID) || onlyDeleted && e.Flags&store.FlagDeleted == 0 {
				return false
			}
			gone = gone.Add(e.UID)
			v.expunged = append(v.expunged, memExpunge{e.UID, v.high})
			return true
		})
	})
	return gone
}

func (b *memBox) TakeRecent(context.Context) (store.UID, error) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	first := b.view.recent
	if first != b.view.next {
		v := *b.view
		v.recent = v.next
		b.view = &v
	}
	return first, nil
}

func (b *memBox) Subscribe(fn func()) (cancel func()) {
	b.a.m.mu.Lock()
	defer b.a.m.mu.Unlock()
	b.watched++
	n := b.watched
	b.watchers[n] = fn
	return func() {
		b.a.m.mu.Lock()
		defer b.a.m.mu.Unlock()
		delete(b.watchers, n)
	}
}

type memExpunge struct {
	uid store.UID
	at  store.ModSeq
}

type memView struct {
	validity uint32
	next     store.UID
	high     store.ModSeq
	recent   store.UID
	entries  []store.Entry
	keywords []string
	expunged []memExpunge
}

func (v *memView) add(b *memBox, text []byte, flags store.Flags, keywords []string, date time.Time) store.UID {
	uid := v.next
	v.next++
	b.bodies[uid] = text
	v.entries = append(v.entries, store.Entry{
		UID: uid, ModSeq: v.high, Flags: flags, Keywords: v.numbers(keywords), InternalDate: date,
		SaveDate: time.Unix(1700000000, 0), Size: int64(len(text)), EmailID: fmt.Sprintf("E%d", uid),
	})
	return uid
}

func (v *memView) numbers(keywords []string) []uint16 {
	var numbers []uint16
	for _, k := range keywords {
		i := slices.IndexFunc(v.keywords, func(other string) bool { return strings.EqualFold(k, other) })
		if i < 0 {
			i = len(v.keywords)
			v.keywords = append(v.keywords, k)
		}
		numbers = append(numbers, uint16(i))
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

func (v *memView) UIDValidity() uint32         { return v.validity }
func (v *memView) UIDNext() store.UID          { return v.next }
func (v *memView) HighestModSeq() store.ModSeq { return v.high }
func (v *memView) ID() string                  { return fmt.Sprintf("M%d", v.validity) }
func (v *memView) FirstRecent() store.UID      { return v.recent }
func (v *memView) Len() int                    { return len(v.entries) }
func (v *memView) UID(i int) store.UID         { return v.entries[i].UID }
func (v *memView) Entry(i int) store.Entry     { return v.entries[i] }
func (v *memView) Keywords() []string          { return v.keywords }

func (v *memView) Index(uid store.UID) (int, bool) {
	i := sort.Search(len(v.entries), func(i int) bool { return v.entries[i].UID >= uid })
	return i, i < len(v.entries) && v.entries[i].UID == uid
}

func (v *memView) ChangedSince(since store.ModSeq) (set store.UIDSet) {
	for _, e := range v.entries {
		if e.ModSeq > since {
			set = set.Add(e.UID)
		}
	}
	return set
}

func (v *memView) ExpungedSince(since store.ModSeq) (set store.UIDSet) {
	for _, e := range v.expunged {
		if e.at > since {
			set = set.Add(e.uid)
		}
	}
	return set
}
