package storetest

import (
	"slices"
	"sync/atomic"

	"postilion/store"
)

func viewChecks() []check {
	return []check{
		{"a view never changes", checkViewImmutable},
		{"an unchanged mailbox gives the same view", func(f *fixture) {
			inbox, other := f.inbox("alice"), f.inbox("alice")
			f.add(inbox, "a")
			view := f.view(inbox)
			if f.view(inbox) != view {
				f.Errorf("another view without a change")
			}
			_ = f.read(inbox, view.UID(0))
			_ = f.view(other)
			if f.view(inbox) != view {
				f.Errorf("another view after reading only")
			}
			f.add(other, "b")
			if changed := f.view(inbox); changed == view || changed.Len() != 2 {
				f.Errorf("the change of another handle is not seen")
			}
		}},
		{"mod-sequences rise with every operation", checkModSeqRise},
		{"changed since", checkChangedSince},
		{"expunged since", checkExpungedSince},
		{"subscribers are told", checkSubscribe},
	}
}

// shot is all that a view says, for comparing later.
type shot struct {
	validity uint32
	next     store.UID
	highest  store.ModSeq
	recent   store.UID
	entries  []store.Entry
	keywords [][]string
}

func takeShot(view store.View) shot {
	s := shot{validity: view.UIDValidity(), next: view.UIDNext(), highest: view.HighestModSeq(), recent: view.FirstRecent()}
	for i := range view.Len() {
		entry := view.Entry(i)
		s.keywords = append(s.keywords, keywords(view, entry))
		entry.Keywords = nil
		s.entries = append(s.entries, entry)
	}
	return s
}

func (s shot) equal(o shot) bool {
	return s.validity == o.validity && s.next == o.next && s.highest == o.highest && s.recent == o.recent &&
		slices.EqualFunc(s.entries, o.entries, func(a, b store.Entry) bool {
			return a.UID == b.UID && a.ModSeq == b.ModSeq && a.Flags == b.Flags && a.Size == b.Size && a.EmailID == b.EmailID &&
				a.InternalDate.Equal(b.InternalDate) && a.SaveDate.Equal(b.SaveDate)
		}) && slices.EqualFunc(s.keywords, o.keywords, slices.Equal)
}

func checkViewImmutable(f *fixture) {
	account := f.account("alice")
	inbox := f.mailbox(account, store.Inbox)
	uids := f.add(inbox, "a", "b", "c")
	view := f.view(inbox)
	before := takeShot(view)
	all := store.UIDSetOf(uids...)
	_, err := inbox.SetFlags(f.ctx(), all, store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen, Keywords: []string{"x"}})
	f.noError(err)
	_, err = inbox.Expunge(f.ctx(), store.UIDSetOf(uids[1]), false)
	f.noError(err)
	f.add(inbox, "d")
	_, err = inbox.TakeRecent(f.ctx())
	f.noError(err)
	_, err = inbox.Move(f.ctx(), store.UIDSetOf(uids[0]), f.mailbox(account, "other"))
	f.noError(err)
	if !before.equal(takeShot(view)) {
		f.Errorf("the view changed from %+v to %+v", before, takeShot(view))
	}
	if got := view.ChangedSince(before.highest); len(got) != 0 {
		f.Errorf("an old view tells later changes: %v", got)
	}
	if got := view.ExpungedSince(0); got.Contains(uids[1]) {
		f.Errorf("an old view tells later expunges: %v", got)
	}
}

func checkModSeqRise(f *fixture) {
	account := f.account("alice")
	inbox, other := f.mailbox(account, store.Inbox), f.mailbox(account, "other")
	highest, highestOther := f.view(inbox).HighestModSeq(), f.view(other).HighestModSeq()
	rose := func(what string) {
		f.Helper()
		got := f.view(inbox).HighestModSeq()
		if got <= highest {
			f.Errorf("%s: HIGHESTMODSEQ %d after %d", what, got, highest)
		}
		highest = got
	}
	uids := f.add(inbox, "a", "b", "c")
	rose("append")
	changed, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[0]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen})
	f.noError(err)
	rose("flags")
	if got := f.entry(inbox, uids[0]).ModSeq; got != changed.ModSeq || got <= f.entry(inbox, uids[2]).ModSeq {
		f.Errorf("mod-sequence %d after flags, SetFlags said %d", got, changed.ModSeq)
	}
	_, err = inbox.Copy(f.ctx(), store.UIDSetOf(uids[0]), other)
	f.noError(err)
	if got := f.view(other).HighestModSeq(); got <= highestOther {
		f.Errorf("copy: HIGHESTMODSEQ of the target %d after %d", got, highestOther)
	}
	_, err = inbox.Move(f.ctx(), store.UIDSetOf(uids[1]), other)
	f.noError(err)
	rose("move")
	_, err = inbox.Expunge(f.ctx(), store.UIDSetOf(uids[2]), false)
	f.noError(err)
	rose("expunge")
	f.reopen()
	inbox = f.inbox("alice")
	if got := f.view(inbox).HighestModSeq(); got < highest {
		f.Errorf("HIGHESTMODSEQ fell from %d to %d when the store was opened again", highest, got)
	}
	f.add(inbox, "d")
	rose("append after reopening")
}

func checkChangedSince(f *fixture) {
	inbox := f.inbox("alice")
	uids := f.add(inbox, "a", "b", "c", "d")
	first := f.view(inbox)
	if got := first.ChangedSince(0); got.String() != store.UIDSetOf(uids...).String() {
		f.Errorf("ChangedSince(0) = %v", got)
	}
	if got := first.ChangedSince(first.HighestModSeq()); len(got) != 0 {
		f.Errorf("ChangedSince(highest) = %v", got)
	}
	_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[1], uids[3]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagFlagged})
	f.noError(err)
	more := f.add(inbox, "e")
	_, err = inbox.Expunge(f.ctx(), store.UIDSetOf(uids[3]), false)
	f.noError(err)
	want := store.UIDSetOf(uids[1], more[0]).String()
	if got := f.view(inbox).ChangedSince(first.HighestModSeq()); got.String() != want {
		f.Errorf("ChangedSince = %v, want %s", got, want)
	}
	f.reopen()
	if got := f.view(f.inbox("alice")).ChangedSince(first.HighestModSeq()); got.String() != want {
		f.Errorf("ChangedSince after reopening = %v, want %s", got, want)
	}
}

func checkExpungedSince(f *fixture) {
	inbox := f.inbox("alice")
	uids := f.add(inbox, "a", "b", "c", "d")
	_, err := inbox.Expunge(f.ctx(), store.UIDSetOf(uids[0]), false)
	f.noError(err)
	middle := f.view(inbox).HighestModSeq()
	_, err = inbox.Expunge(f.ctx(), store.UIDSetOf(uids[1], uids[2]), false)
	f.noError(err)
	check := func(inbox store.Mailbox) {
		f.Helper()
		view := f.view(inbox)
		all := view.ExpungedSince(0)
		since := view.ExpungedSince(middle)
		for _, uid := range uids[1:3] {
			if !all.Contains(uid) || !since.Contains(uid) {
				f.Errorf("UID %d was expunged, ExpungedSince says %v and %v", uid, all, since)
			}
		}
		if !all.Contains(uids[0]) {
			f.Errorf("UID %d was expunged, ExpungedSince(0) says %v", uids[0], all)
		}
		for _, set := range []store.UIDSet{all, since} {
			if set.Contains(uids[3]) || set.Contains(view.UIDNext()) || set.Contains(0) {
				f.Errorf("%v holds a UID that is there or was never given", set)
			}
		}
		if got := view.ExpungedSince(view.HighestModSeq()); len(got) != 0 {
			f.Errorf("ExpungedSince(highest) = %v", got)
		}
	}
	check(inbox)
	f.reopen()
	check(f.inbox("alice"))
}

func checkSubscribe(f *fixture) {
	account := f.account("alice")
	inbox, other := f.mailbox(account, store.Inbox), f.mailbox(f.account("alice"), store.Inbox)
	var told, silent atomic.Int64
	cancel := inbox.Subscribe(func() { told.Add(1) })
	f.mailbox(account, "elsewhere").Subscribe(func() { silent.Add(1) })
	step := func(what string, change func() error) {
		f.Helper()
		before := told.Load()
		f.noError(change())
		f.eventually("being told of "+what, func() bool { return told.Load() > before })
	}
	var uids []store.UID
	step("append", func() error { uids = f.add(other, "a", "b", "c"); return nil })
	step("flags", func() error {
		_, err := other.SetFlags(f.ctx(), store.UIDSetOf(uids[0]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen})
		return err
	})
	step("own flags", func() error {
		_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[1]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen})
		return err
	})
	step("delivery", func() error {
		_, err := f.store.Deliver(f.ctx(), delivery("id-1", text("d"), f.target("alice", store.Inbox)))
		return err
	})
	step("expunge", func() error {
		_, err := other.Expunge(f.ctx(), store.UIDSetOf(uids[0]), false)
		return err
	})
	cancel()
	cancel()
	before := told.Load()
	f.add(other, "e")
	if told.Load() != before {
		f.Errorf("told after cancel")
	}
	if silent.Load() != 0 {
		f.Errorf("told of a change in another mailbox")
	}
}
