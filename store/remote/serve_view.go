package remote

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"postilion/store"
)

// sentView is a view that the client got under a number. While it is known, a later view is told as what differs from it.
type sentView struct {
	number uint64
	view   store.View
	// pins counts the handles whose client may name it.
	pins int
}

// idleViews is how many views that no handle pins stay known, for the next handle on the same mailbox.
const idleViews = 16

// sentViews knows the views of one connection.
type sentViews struct {
	mu       sync.Mutex
	last     uint64
	byNumber map[uint64]*sentView
	byView   map[store.View]*sentView
	// idle lists those without pins, the longest idle first.
	idle []*sentView
}

func (s *sentViews) init() {
	s.byNumber, s.byView = map[uint64]*sentView{}, map[store.View]*sentView{}
}

// find returns the view of this number, nil when it is not known any more.
func (s *sentViews) find(number uint64) *sentView {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byNumber[number]
}

// number gives a view its number, the same each time.
func (s *sentViews) number(view store.View) *sentView {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isComparable(view) {
		if known := s.byView[view]; known != nil {
			return known
		}
	}
	s.last++
	sent := &sentView{number: s.last, view: view}
	s.byNumber[sent.number] = sent
	if isComparable(view) {
		s.byView[view] = sent
	}
	s.rest(sent)
	return sent
}

// isComparable tells whether a view may be compared and be the key of a map.
func isComparable(view store.View) bool { return reflect.TypeOf(view).Comparable() }

// pin makes these the views that the handle's client may name.
func (s *sentViews) pin(h *handle, base, latest *sentView) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := h.pins
	h.pins = [2]*sentView{base, latest}
	for _, sent := range h.pins {
		if sent != nil {
			if sent.pins++; sent.pins == 1 {
				s.idle = slices.DeleteFunc(s.idle, func(other *sentView) bool { return other == sent })
			}
		}
	}
	for _, sent := range before {
		if sent != nil {
			if sent.pins--; sent.pins == 0 {
				s.rest(sent)
			}
		}
	}
}

// rest makes a view idle and forgets the one that was idle longest.
func (s *sentViews) rest(sent *sentView) {
	s.idle = append(s.idle, sent)
	if len(s.idle) <= idleViews {
		return
	}
	oldest := s.idle[0]
	s.idle = slices.Delete(s.idle, 0, 1)
	delete(s.byNumber, oldest.number)
	if isComparable(oldest.view) {
		delete(s.byView, oldest.view)
	}
}

// How an answer to View tells the view.
const (
	viewSame = iota
	viewWhole
	viewChange
)

// view answers with what differs from the view that the client names, if it is still known.
func (n *session) view(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		have := r.in.number()
		if err := r.in.finish(); err != nil {
			return err
		}
		h.viewing.Lock()
		defer h.viewing.Unlock()
		now, err := h.mailbox.View(ctx)
		if err != nil {
			return err
		}
		r.out.octet(statusDone)
		base := n.views.find(have)
		var change *viewDifference
		if base != nil {
			change = difference(base.view, now)
		}
		if change != nil && change.none() {
			n.views.pin(h, base, nil)
			r.out.octet(viewSame)
			return nil
		}
		latest := n.views.number(now)
		n.views.pin(h, base, latest)
		if change == nil {
			r.out.octet(viewWhole)
			r.out.number(latest.number)
			r.out.viewHead(now)
			r.out.words(now.Keywords())
			r.out.number(uint64(now.Len()))
			last := store.Entry{}
			for i := 0; i < now.Len() && r.out.err == nil; i++ {
				entry := now.Entry(i)
				r.out.entry(&entry, &last)
			}
			return nil
		}
		r.out.octet(viewChange)
		r.out.number(latest.number)
		r.out.viewHead(now)
		r.out.change(change, now)
		return nil
	})
}

// viewDifference is what a client must do to make one view of another.
type viewDifference struct {
	// head tells that something beside the messages differs, words that the keywords do.
	head, words bool
	// gone are UIDs that are not there any more, those that came and went between the views among them; indices are the messages that are new or differ.
	gone    store.UIDSet
	indices []int
}

func (d *viewDifference) none() bool {
	return !d.head && !d.words && len(d.gone) == 0 && len(d.indices) == 0
}

// difference tells what differs between two views of a mailbox; nil when so much does that the whole view is told better. It compares the messages
// and does not rely on mod-sequences: a store may correct what is no change to IMAP, such as a size.
func difference(old, now store.View) *viewDifference {
	if isComparable(old) && old == now {
		return &viewDifference{}
	}
	if old.UIDValidity() != now.UIDValidity() || old.ID() != now.ID() || old.HighestModSeq() > now.HighestModSeq() || old.UIDNext() > now.UIDNext() {
		return nil
	}
	d := &viewDifference{
		head:  old.HighestModSeq() != now.HighestModSeq() || old.UIDNext() != now.UIDNext() || old.FirstRecent() != now.FirstRecent(),
		words: !slices.Equal(old.Keywords(), now.Keywords()),
	}
	i, j := 0, 0
	for i < old.Len() || j < now.Len() {
		switch {
		case j == now.Len() || (i < old.Len() && old.UID(i) < now.UID(j)):
			d.gone = d.gone.Add(old.UID(i))
			i++
		case i == old.Len() || old.UID(i) > now.UID(j):
			d.indices = append(d.indices, j)
			j++
		default:
			if !sameEntry(old.Entry(i), now.Entry(j)) {
				d.indices = append(d.indices, j)
			}
			i++
			j++
		}
	}
	if len(d.indices) > now.Len()/2+16 || len(d.gone) > maxRanges/2 {
		return nil
	}
	if old.HighestModSeq() != now.HighestModSeq() {
		d.gone = union(d.gone, absentOf(now.ExpungedSince(old.HighestModSeq()), now))
	}
	return d
}

// absentOf returns those UIDs of a set that a view does not hold, though it may have held them.
func absentOf(set store.UIDSet, v store.View) (absent store.UIDSet) {
	for _, r := range set {
		first, last := uint64(r.First), uint64(min(r.Last, v.UIDNext()-1))
		for i, _ := v.Index(r.First); i < v.Len() && uint64(v.UID(i)) <= last; i++ {
			uid := uint64(v.UID(i))
			if uid > first {
				absent = absent.AddRange(store.UID(first), store.UID(uid-1))
			}
			first = uid + 1
		}
		if first <= last {
			absent = absent.AddRange(store.UID(first), store.UID(last))
		}
	}
	return absent
}

// union merges two sets.
func union(a, b store.UIDSet) store.UIDSet {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	merged := make(store.UIDSet, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || (len(a) > 0 && a[0].First <= b[0].First) {
			merged, a = merged.AddRange(a[0].First, a[0].Last), a[1:]
		} else {
			merged, b = merged.AddRange(b[0].First, b[0].Last), b[1:]
		}
	}
	return merged
}

func sameEntry(a, b store.Entry) bool {
	return a.ModSeq == b.ModSeq && a.Flags == b.Flags && a.Size == b.Size && a.EmailID == b.EmailID &&
		slices.Equal(a.Keywords, b.Keywords) && a.InternalDate.Equal(b.InternalDate) && a.SaveDate.Equal(b.SaveDate)
}

func (e *encoder) viewHead(v store.View) {
	e.number(uint64(v.UIDValidity()))
	e.number(uint64(v.UIDNext()))
	e.number(uint64(v.HighestModSeq()))
	e.text(v.ID(), maxID)
	e.number(uint64(v.FirstRecent()))
}

func (e *encoder) words(words []string) {
	if len(words) > maxKeywords {
		e.fail(fmt.Errorf("%w: %d keywords", store.ErrTooMany, len(words)))
		return
	}
	e.number(uint64(len(words)))
	for _, word := range words {
		e.text(word, maxKeyword)
	}
}

// entry writes what is kept of a message; UID and mod-sequence as their distance from those before.
func (e *encoder) entry(m, last *store.Entry) {
	e.number(uint64(m.UID - last.UID))
	e.signed(int64(m.ModSeq - last.ModSeq))
	e.octet(byte(m.Flags))
	e.number(uint64(len(m.Keywords)))
	for _, number := range m.Keywords {
		e.number(uint64(number))
	}
	e.time(m.InternalDate)
	e.time(m.SaveDate)
	e.number(uint64(m.Size))
	e.text(m.EmailID, maxID)
	last.UID, last.ModSeq = m.UID, m.ModSeq
}

func (e *encoder) change(d *viewDifference, now store.View) {
	if e.truth(d.words); d.words {
		e.words(now.Keywords())
	}
	e.set(d.gone)
	e.number(uint64(len(d.indices)))
	last := store.Entry{}
	for _, index := range d.indices {
		if e.err != nil {
			return
		}
		entry := now.Entry(index)
		e.entry(&entry, &last)
	}
}

// expungedSince answers for since values before the client's first view. The client takes out what its view holds.
func (n *session) expungedSince(r *request) error {
	return n.withMailbox(r, func(ctx context.Context, h *handle) error {
		since := r.in.modSeq()
		if err := r.in.finish(); err != nil {
			return err
		}
		now, err := h.mailbox.View(ctx)
		if err != nil {
			return err
		}
		r.out.octet(statusDone)
		r.out.number(uint64(now.UIDValidity()))
		r.out.set(now.ExpungedSince(since))
		return nil
	})
}
