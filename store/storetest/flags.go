package storetest

import (
	"fmt"
	"slices"

	"postilion/store"
)

func flagChecks() []check {
	return []check{
		{"replace, add and remove", checkFlagOperations},
		{"flags are durable", func(f *fixture) {
			inbox := f.inbox("alice")
			uids := f.add(inbox, "a", "b")
			all := store.FlagSeen | store.FlagAnswered | store.FlagFlagged | store.FlagDeleted | store.FlagDraft
			_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[0]), store.FlagChange{Flags: all, Keywords: []string{"one", "two"}})
			f.noError(err)
			before := takeShot(f.view(inbox))
			f.reopen()
			if after := takeShot(f.view(f.inbox("alice"))); !before.equal(after) {
				f.Errorf("%+v became %+v", before, after)
			}
		}},
		{"what is gone is left out", func(f *fixture) {
			inbox := f.inbox("alice")
			uids := f.add(inbox, "a", "b")
			_, err := inbox.Expunge(f.ctx(), store.UIDSetOf(uids[0]), false)
			f.noError(err)
			changed, err := inbox.SetFlags(f.ctx(), store.AllUIDs(), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen})
			f.noError(err)
			if changed.Changed.String() != store.UIDSetOf(uids[1]).String() || len(changed.Modified) != 0 {
				f.Errorf("changed %+v", changed)
			}
			changed, err = inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[0]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen})
			f.noError(err)
			if len(changed.Changed) != 0 || changed.ModSeq != 0 {
				f.Errorf("changed %+v", changed)
			}
		}},
		{"unchanged since", checkUnchangedSince},
		{"many keywords", func(f *fixture) {
			inbox := f.inbox("alice")
			uids := f.add(inbox, "a", "b")
			var names []string
			for i := range 60 {
				names = append(names, fmt.Sprintf("keyword%02d", i))
				_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[0]), store.FlagChange{Operation: store.AddFlags, Keywords: names[i:]})
				f.noError(err)
			}
			f.reopen()
			inbox = f.inbox("alice")
			view := f.view(inbox)
			if got := keywords(view, view.Entry(0)); !slices.Equal(got, names) {
				f.Errorf("keywords %q", got)
			}
			if got := keywords(view, view.Entry(1)); len(got) != 0 {
				f.Errorf("keywords %q of a message that has none", got)
			}
			_, err := inbox.SetFlags(f.ctx(), store.AllUIDs(), store.FlagChange{Operation: store.RemoveFlags, Keywords: names[1:]})
			f.noError(err)
			view = f.view(inbox)
			if got := keywords(view, view.Entry(0)); !slices.Equal(got, names[:1]) {
				f.Errorf("keywords %q", got)
			}
		}},
	}
}

func checkFlagOperations(f *fixture) {
	inbox := f.inbox("alice")
	uids := f.add(inbox, "a", "b", "c")
	set := store.UIDSetOf(uids[0], uids[2])
	untouched := takeShot(f.view(inbox)).entries[1]
	for _, step := range []struct {
		change   store.FlagChange
		flags    store.Flags
		keywords []string
	}{
		{store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen, Keywords: []string{"x"}}, store.FlagSeen, []string{"x"}},
		{store.FlagChange{Operation: store.AddFlags, Flags: store.FlagDraft, Keywords: []string{"y"}}, store.FlagSeen | store.FlagDraft, []string{"x", "y"}},
		{store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen}, store.FlagSeen | store.FlagDraft, []string{"x", "y"}},
		{store.FlagChange{Operation: store.RemoveFlags, Flags: store.FlagSeen | store.FlagAnswered, Keywords: []string{"x", "none"}}, store.FlagDraft, []string{"y"}},
		{store.FlagChange{Flags: store.FlagDeleted, Keywords: []string{"z", "x"}}, store.FlagDeleted, []string{"x", "z"}},
		{store.FlagChange{}, 0, []string{}},
	} {
		changed, err := inbox.SetFlags(f.ctx(), set, step.change)
		f.noError(err)
		if changed.Changed.String() != set.String() {
			f.Errorf("%+v changed %v, want %v", step.change, changed.Changed, set)
		}
		view := f.view(inbox)
		for _, i := range []int{0, 2} {
			entry := view.Entry(i)
			if entry.Flags != step.flags || !slices.Equal(keywords(view, entry), step.keywords) {
				f.Errorf("after %+v: flags %v %q, want %v %q", step.change, entry.Flags, keywords(view, entry), step.flags, step.keywords)
			}
			if entry.ModSeq > changed.ModSeq && changed.ModSeq != 0 {
				f.Errorf("mod-sequence %d above the told %d", entry.ModSeq, changed.ModSeq)
			}
		}
		if got := takeShot(view).entries[1]; got.ModSeq != untouched.ModSeq || got.Flags != untouched.Flags {
			f.Errorf("a message that was not named changed: %+v", got)
		}
	}
}

func checkUnchangedSince(f *fixture) {
	inbox := f.inbox("alice")
	uids := f.add(inbox, "a", "b", "c")
	since := f.view(inbox).HighestModSeq()
	_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[1]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagFlagged})
	f.noError(err)
	changed, err := inbox.SetFlags(f.ctx(), store.AllUIDs(), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen, UnchangedSince: &since})
	f.noError(err)
	if changed.Changed.String() != store.UIDSetOf(uids[0], uids[2]).String() || changed.Modified.String() != store.UIDSetOf(uids[1]).String() {
		f.Errorf("changed %v, modified %v", changed.Changed, changed.Modified)
	}
	if got := f.entry(inbox, uids[1]).Flags; got != store.FlagFlagged {
		f.Errorf("flags %v of the message that had changed", got)
	}
	if got := f.entry(inbox, uids[2]).Flags; got != store.FlagSeen {
		f.Errorf("flags %v of the message that had not changed", got)
	}
	zero := store.ModSeq(0)
	changed, err = inbox.SetFlags(f.ctx(), store.AllUIDs(), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen, UnchangedSince: &zero})
	f.noError(err)
	if len(changed.Changed) != 0 || changed.Modified.Count() != 3 || changed.ModSeq != 0 {
		f.Errorf("unchanged since 0: %+v", changed)
	}
}
