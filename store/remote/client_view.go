package remote

import (
	"context"
	"sort"
	"sync"

	"postilion/store"
)

// view implements store.View: what it shows and the mailbox that can be asked about the time before.
type view struct {
	*content
	mailbox *mailbox

	originsMu sync.Mutex
	// origins are the names that messages have outside of the store, nil until LoadOrigins.
	origins map[store.UID]origin
}

// content is a mailbox at one moment. It never changes; entries that did not change are shared with the contents before and after it.
type content struct {
	// number is what the far side calls it.
	number   uint64
	validity uint32
	next     store.UID
	highest  store.ModSeq
	id       string
	recent   store.UID
	entries  []*store.Entry
	keywords []string
	// log tells what was expunged after floor, as far as the client heard it.
	log   []expunges
	floor store.ModSeq

	// weight is what it takes of recentViews.limit, counted whether it does now, and users the mailboxes that show it; guarded by recentViews.mu.
	weight, users int
	counted       bool
}

// expunges are the UIDs expunged between a view the client had and a later one, whose HIGHESTMODSEQ is until.
type expunges struct {
	until store.ModSeq
	gone  store.UIDSet
}

// maxLog is how many expunges a content remembers, and maxLogRanges of how many ranges together.
const (
	maxLog       = 64
	maxLogRanges = 4096
)

func (v *content) UIDValidity() uint32         { return v.validity }
func (v *content) UIDNext() store.UID          { return v.next }
func (v *content) HighestModSeq() store.ModSeq { return v.highest }
func (v *content) ID() string                  { return v.id }
func (v *content) FirstRecent() store.UID      { return v.recent }
func (v *content) Len() int                    { return len(v.entries) }
func (v *content) UID(index int) store.UID     { return v.entries[index].UID }
func (v *content) Entry(index int) store.Entry { return *v.entries[index] }
func (v *content) Keywords() []string          { return v.keywords }

func (v *content) Index(uid store.UID) (int, bool) {
	i := sort.Search(len(v.entries), func(i int) bool { return v.entries[i].UID >= uid })
	return i, i < len(v.entries) && v.entries[i].UID == uid
}

func (v *content) ChangedSince(since store.ModSeq) (set store.UIDSet) {
	if since >= v.highest {
		return nil
	}
	for _, entry := range v.entries {
		if entry.ModSeq > since {
			set = set.Add(entry.UID)
		}
	}
	return set
}

// ExpungedSince asks the far side about the time before the client's first view. What the far side answers about a later time is cut down to
// what this view does not hold; when it does not answer, every UID that is not there is the answer.
func (v *view) ExpungedSince(since store.ModSeq) store.UIDSet {
	switch {
	case since >= v.highest:
		return nil
	case since >= v.floor:
		var set store.UIDSet
		for _, step := range v.log {
			if step.until > since {
				set = union(set, step.gone)
			}
		}
		return absentOf(set, v)
	}
	ctx, done := v.mailbox.client.timeout()
	defer done()
	set := store.UIDSetRange(1, v.next)
	_ = v.mailbox.do(ctx, opExpungedSince, func(e *encoder) { e.number(uint64(since)) }, func(d *decoder) error {
		validity, told := d.number(), d.set()
		if d.err == nil && validity == uint64(v.validity) {
			set = told
		}
		return nil
	})
	return absentOf(set, v)
}

// View asks what changed since the last view, of this mailbox or of another handle on it.
func (m *mailbox) View(ctx context.Context) (store.View, error) {
	select {
	case m.viewing <- struct{}{}:
	case <-ctx.Done():
		return nil, &store.Error{Operation: opView.String(), User: m.account.owner.User, Mailbox: m.name, Err: ctx.Err()}
	}
	defer func() { <-m.viewing }()
	v, err := m.ask(ctx)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (m *mailbox) ask(ctx context.Context) (v *view, err error) {
	recent := &m.client.recent
	base := m.base()
	k, err := m.begin(ctx, opView)
	defer k.end(&err)
	if err != nil {
		return nil, err
	}
	have := uint64(0)
	if base != nil {
		have = base.number
	}
	k.out.number(have)
	if err := k.answer(); err != nil {
		return nil, err
	}
	b := viewBuilder{d: &k.in, recent: recent}
	var now *content
	switch how := k.in.octet(); {
	case how == viewWhole:
		now, err = b.whole()
	case how == viewSame && base != nil:
		now = base
	case how == viewChange && base != nil:
		now, err = b.change(base)
	default:
		err = malformed("a view told as %d", how)
	}
	if err == nil {
		err = k.in.finish()
	}
	if err != nil {
		recent.unreserve(b.weight)
		return nil, err
	}
	return m.show(now), nil
}

// show makes a content the mailbox's current view.
func (m *mailbox) show(now *content) *view {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil && m.current.content == now {
		return m.current
	}
	shown := &view{content: now, mailbox: m}
	recent := &m.client.recent
	recent.use(m.key(), now)
	if m.closed {
		recent.release(m.key(), now)
		return shown
	}
	if m.current != nil {
		recent.release(m.key(), m.current.content)
	}
	m.current = shown
	return shown
}

// base is the content that a change may be told from.
func (m *mailbox) base() *content {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil {
		return m.current.content
	}
	return m.client.recent.find(m.key())
}
