package storetest

import (
	"bytes"
	"slices"

	"postilion/store"
)

func copyChecks() []check {
	return []check{
		{"copy takes everything along", checkCopy},
		{"copy into the same mailbox", func(f *fixture) {
			inbox := f.inbox("alice")
			uids := f.add(inbox, "a", "b")
			copied, err := inbox.Copy(f.ctx(), store.AllUIDs(), inbox)
			f.noError(err)
			if !slices.Equal(copied.Source, uids) || len(copied.Target) != 2 || copied.Target[0] <= uids[1] {
				f.Errorf("copied %+v", copied)
			}
			f.wantSubjects(inbox, "a", "b", "a", "b")
		}},
		{"move leaves nothing behind", checkMove},
		{"another account is refused", func(f *fixture) {
			inbox, other := f.inbox("alice"), f.inbox("bob")
			f.add(inbox, "a")
			_, err := inbox.Copy(f.ctx(), store.AllUIDs(), other)
			f.wantError(err, store.ErrOtherAccount)
			_, err = inbox.Move(f.ctx(), store.AllUIDs(), other)
			f.wantError(err, store.ErrOtherAccount)
			f.wantSubjects(inbox, "a")
			f.wantSubjects(other)
		}},
		{"nothing to copy", func(f *fixture) {
			account := f.account("alice")
			inbox, other := f.mailbox(account, store.Inbox), f.mailbox(account, "other")
			before := f.view(other)
			copied, err := inbox.Copy(f.ctx(), store.AllUIDs(), other)
			f.noError(err)
			if len(copied.Source) != 0 || len(copied.Target) != 0 || f.view(other) != before {
				f.Errorf("copied %+v out of an empty mailbox", copied)
			}
			moved, err := inbox.Move(f.ctx(), store.UIDSetOf(7, 9), other)
			f.noError(err)
			if len(moved.Source) != 0 {
				f.Errorf("moved %+v out of an empty mailbox", moved)
			}
		}},
	}
}

// threeWithFlags fills INBOX with a, b (gone), c, d; c has flags and keywords. It returns the UIDs of all four.
func threeWithFlags(f *fixture, inbox store.Mailbox) []store.UID {
	f.Helper()
	uids := f.add(inbox, "a", "b", "c", "d")
	_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[2]), store.FlagChange{Flags: store.FlagSeen | store.FlagDeleted, Keywords: []string{"k2", "k1"}})
	f.noError(err)
	_, err = inbox.Expunge(f.ctx(), store.UIDSetOf(uids[1]), false)
	f.noError(err)
	return uids
}

func (f *fixture) checkCopies(account store.Account, source store.View, copied store.Copied, uids []store.UID) {
	f.Helper()
	target := f.mailbox(account, "other")
	f.wantSubjects(target, "before", "a", "c")
	view := f.view(target)
	if !slices.Equal(copied.Source, []store.UID{uids[0], uids[2]}) || !slices.Equal(copied.Target, []store.UID{view.UID(1), view.UID(2)}) {
		f.Errorf("copied %+v", copied)
	}
	if copied.UIDValidity != view.UIDValidity() {
		f.Errorf("UIDVALIDITY %d, the target has %d", copied.UIDValidity, view.UIDValidity())
	}
	entry := view.Entry(2)
	index, _ := source.Index(uids[2])
	from := source.Entry(index)
	if entry.Flags != from.Flags || !slices.Equal(keywords(view, entry), []string{"k1", "k2"}) || !entry.InternalDate.Equal(from.InternalDate) ||
		entry.EmailID != from.EmailID || entry.Size != from.Size {
		f.Errorf("%+v was copied as %+v with keywords %q", from, entry, keywords(view, entry))
	}
}

func checkCopy(f *fixture) {
	account := f.account("alice")
	inbox, other := f.mailbox(account, store.Inbox), f.mailbox(account, "other")
	f.add(other, "before")
	uids := threeWithFlags(f, inbox)
	view := f.view(inbox)
	copied, err := inbox.Copy(f.ctx(), store.UIDSetRange(uids[0], uids[2]), other)
	f.noError(err)
	f.checkCopies(account, view, copied, uids)
	if f.view(inbox) != view {
		f.Errorf("the source changed")
	}
	_, err = inbox.Expunge(f.ctx(), store.AllUIDs(), false)
	f.noError(err)
	if got := f.read(other, copied.Target[1]); !bytes.Equal(got, text("c")) {
		f.Errorf("copy after the original is gone: %q", got)
	}
	f.reopen()
	f.checkCopies(f.account("alice"), view, copied, uids)
}

func checkMove(f *fixture) {
	account := f.account("alice")
	inbox, other := f.mailbox(account, store.Inbox), f.mailbox(account, "other")
	f.add(other, "before")
	uids := threeWithFlags(f, inbox)
	view := f.view(inbox)
	moved, err := inbox.Move(f.ctx(), store.UIDSetRange(uids[0], uids[2]), other)
	f.noError(err)
	f.checkCopies(account, view, moved, uids)
	f.wantSubjects(inbox, "d")
	gone := f.view(inbox).ExpungedSince(view.HighestModSeq())
	if !gone.Contains(uids[0]) || !gone.Contains(uids[2]) {
		f.Errorf("moved messages are not told as expunged: %v", gone)
	}
	f.reopen()
	account = f.account("alice")
	f.checkCopies(account, view, moved, uids)
	f.wantSubjects(f.mailbox(account, store.Inbox), "d")
	moved, err = f.mailbox(account, "other").Move(f.ctx(), store.AllUIDs(), f.mailbox(account, store.Inbox))
	f.noError(err)
	if len(moved.Source) != 3 {
		f.Errorf("moved back %+v", moved)
	}
	f.wantSubjects(f.mailbox(account, store.Inbox), "d", "before", "a", "c")
}
