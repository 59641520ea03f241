package storetest

import (
	"slices"

	"postilion/store"
)

func mailboxChecks() []check {
	return []check{
		{"a new account has an INBOX and nothing else", func(f *fixture) {
			account := f.account("alice")
			f.wantList(account, "INBOX")
			if account.User() != "alice" {
				f.Errorf("User = %q", account.User())
			}
			view := f.view(f.mailbox(account, store.Inbox))
			if view.Len() != 0 || view.UIDNext() != 1 || view.FirstRecent() != 1 {
				f.Errorf("new INBOX: %d messages, next %d, recent from %d", view.Len(), view.UIDNext(), view.FirstRecent())
			}
			f.wantList(f.account("bob"), "INBOX")
		}},
		{"create makes levels as names", checkCreateLevels},
		{"create tells what exists", func(f *fixture) {
			account := f.account("alice")
			f.wantError(account.Create(f.ctx(), store.Inbox, ""), store.ErrExists)
			f.noError(account.Create(f.ctx(), "Work", ""))
			f.wantError(account.Create(f.ctx(), "Work", ""), store.ErrExists)
			f.noError(account.Create(f.ctx(), "work", ""))
			f.wantList(account, "INBOX", "Work", "work")
		}},
		{"what is not there is not found", func(f *fixture) {
			account := f.account("alice")
			f.noError(account.Create(f.ctx(), "a/b", ""))
			for _, name := range []string{"none", "a", "a/b/c", "INBOX/none"} {
				_, err := account.Mailbox(f.ctx(), name)
				f.wantError(err, store.ErrNotFound)
				_, err = account.Status(f.ctx(), name)
				f.wantError(err, store.ErrNotFound)
				f.wantError(account.Delete(f.ctx(), name), store.ErrNotFound)
			}
			f.wantError(account.Rename(f.ctx(), "none", "other"), store.ErrNotFound)
		}},
		{"delete keeps what lies below", checkDelete},
		{"delete is told to open handles", func(f *fixture) {
			account := f.account("alice")
			mailbox := f.mailbox(account, "gone")
			uids := f.add(mailbox, "one")
			f.noError(account.Delete(f.ctx(), "gone"))
			_, err := mailbox.View(f.ctx())
			f.wantError(err, store.ErrNotFound)
			_, err = mailbox.Append(f.ctx(), []store.Draft{draft(text("two"))})
			f.wantError(err, store.ErrNotFound)
			_, err = mailbox.SetFlags(f.ctx(), store.UIDSetOf(uids...), store.FlagChange{Flags: store.FlagSeen})
			f.wantError(err, store.ErrNotFound)
			_, err = f.mailbox(account, store.Inbox).Copy(f.ctx(), store.AllUIDs(), mailbox)
			f.wantError(err, store.ErrNotFound)
		}},
		{"a mailbox made again is another", checkMadeAgain},
		{"rename takes the tree along", checkRename},
		{"rename refuses what cannot be", checkRenameRefused},
		{"rename of INBOX moves its messages", checkRenameInbox},
		{"subscriptions outlive mailboxes", checkSubscriptions},
		{"special use is kept", func(f *fixture) {
			account := f.account("alice")
			f.noError(account.Create(f.ctx(), "Gesendet", `\Sent`))
			f.noError(account.Create(f.ctx(), "Plain", ""))
			use := func(account store.Account, name string) string {
				listed, err := account.List(f.ctx())
				f.noError(err)
				index := slices.IndexFunc(listed, func(l store.Listed) bool { return l.Name == name })
				if index < 0 {
					f.Fatalf("%s is not listed", name)
				}
				return listed[index].Use
			}
			if got := use(account, "Gesendet"); got != `\Sent` {
				f.Errorf("use %q", got)
			}
			if got := use(account, "Plain"); got != "" {
				f.Errorf("use %q", got)
			}
			f.noError(account.Rename(f.ctx(), "Gesendet", "Ausgang"))
			f.reopen()
			if got := use(f.account("alice"), "Ausgang"); got != `\Sent` {
				f.Errorf("use %q after rename and reopen", got)
			}
		}},
		{"accounts are listed", checkAccounts},
		{"two handles see one account", func(f *fixture) {
			one, two := f.account("alice"), f.account("alice")
			f.noError(one.Create(f.ctx(), "shared", ""))
			f.wantList(two, "INBOX", "shared")
			f.add(f.mailbox(one, "shared"), "a")
			f.noError(one.Close())
			f.wantSubjects(f.mailbox(two, "shared"), "a")
		}},
		{"a closed store refuses", func(f *fixture) {
			closed := f.store
			f.noError(closed.Close())
			f.store = f.bed.Open(f.TB)
			_, err := closed.Open(f.ctx(), f.bed.Owner("alice"))
			f.wantError(err, store.ErrClosed)
		}},
	}
}

func checkCreateLevels(f *fixture) {
	account := f.account("alice")
	f.noError(account.Create(f.ctx(), "a/b/c", ""))
	f.wantList(account, "(a)", "(a/b)", "a/b/c", "INBOX")
	f.noError(account.Create(f.ctx(), "a", ""))
	f.noError(account.Create(f.ctx(), "INBOX/below", ""))
	f.wantList(account, "a", "(a/b)", "a/b/c", "INBOX", "INBOX/below")
	f.reopen()
	f.wantList(f.account("alice"), "a", "(a/b)", "a/b/c", "INBOX", "INBOX/below")
}

func checkDelete(f *fixture) {
	account := f.account("alice")
	for _, name := range []string{"a", "a/b", "a/b/c", "z"} {
		f.noError(account.Create(f.ctx(), name, ""))
	}
	f.add(f.mailbox(account, "a/b"), "in b")
	f.add(f.mailbox(account, "a/b/c"), "in c")
	f.noError(account.Delete(f.ctx(), "a/b"))
	f.wantList(account, "a", "(a/b)", "a/b/c", "INBOX", "z")
	f.wantSubjects(f.mailbox(account, "a/b/c"), "in c")
	f.noError(account.Delete(f.ctx(), "a/b/c"))
	f.wantList(account, "a", "INBOX", "z")
	f.noError(account.Delete(f.ctx(), "a"))
	f.wantList(account, "INBOX", "z")
	f.wantError(account.Delete(f.ctx(), store.Inbox), store.ErrName)
	f.wantError(account.Delete(f.ctx(), "a"), store.ErrNotFound)
}

func checkMadeAgain(f *fixture) {
	account := f.account("alice")
	first := f.mailbox(account, "again")
	f.add(first, "old")
	old := f.view(first)
	f.noError(account.Delete(f.ctx(), "again"))
	second := f.mailbox(account, "again")
	view := f.view(second)
	if view.Len() != 0 {
		f.Errorf("a mailbox made again holds %d messages", view.Len())
	}
	if view.UIDValidity() <= old.UIDValidity() || view.ID() == old.ID() {
		f.Errorf("made again: UIDVALIDITY %d after %d, id %s after %s", view.UIDValidity(), old.UIDValidity(), view.ID(), old.ID())
	}
	f.noError(account.Delete(f.ctx(), "again"))
	f.noError(account.Create(f.ctx(), "other", ""))
	f.noError(account.Rename(f.ctx(), "other", "again"))
	third := f.view(f.mailbox(account, "again"))
	if third.UIDValidity() == view.UIDValidity() || third.UIDValidity() == old.UIDValidity() {
		f.Errorf("renamed into an old name: UIDVALIDITY %d was used there before", third.UIDValidity())
	}
}

func checkRename(f *fixture) {
	account := f.account("alice")
	for _, name := range []string{"a", "a/b", "a/x/y", "ab"} {
		f.noError(account.Create(f.ctx(), name, ""))
	}
	f.add(f.mailbox(account, "a"), "one", "two")
	f.add(f.mailbox(account, "a/b"), "below")
	_, err := f.mailbox(account, "a").Expunge(f.ctx(), store.UIDSetOf(1), false)
	f.noError(err)
	before, below := f.view(f.mailbox(account, "a")), f.view(f.mailbox(account, "a/b"))

	f.noError(account.Rename(f.ctx(), "a", "moved/place"))
	f.wantList(account, "ab", "INBOX", "(moved)", "moved/place", "moved/place/b", "(moved/place/x)", "moved/place/x/y")
	check := func(account store.Account) {
		f.Helper()
		renamed := f.mailbox(account, "moved/place")
		if renamed.Name() != "moved/place" {
			f.Errorf("Name = %q", renamed.Name())
		}
		f.wantSubjects(renamed, "two")
		after := f.view(renamed)
		if after.UIDValidity() != before.UIDValidity() || after.ID() != before.ID() || after.UID(0) != before.UID(0) || after.UIDNext() != before.UIDNext() {
			f.Errorf("UIDs did not survive the rename")
		}
		if after.HighestModSeq() < before.HighestModSeq() {
			f.Errorf("HIGHESTMODSEQ fell from %d to %d", before.HighestModSeq(), after.HighestModSeq())
		}
		if got := f.view(f.mailbox(account, "moved/place/b")); got.ID() != below.ID() || got.UIDValidity() != below.UIDValidity() {
			f.Errorf("the mailbox below changed its identity")
		}
	}
	check(account)
	_, err = account.Mailbox(f.ctx(), "a")
	f.wantError(err, store.ErrNotFound)
	f.reopen()
	check(f.account("alice"))

	account = f.account("alice")
	f.noError(account.Rename(f.ctx(), "moved", "newer"))
	f.wantList(account, "ab", "INBOX", "(newer)", "newer/place", "newer/place/b", "(newer/place/x)", "newer/place/x/y")
}

func checkRenameRefused(f *fixture) {
	account := f.account("alice")
	for _, name := range []string{"a", "a/x", "b/x", "c"} {
		f.noError(account.Create(f.ctx(), name, ""))
	}
	f.add(f.mailbox(account, "a"), "one")
	f.wantError(account.Rename(f.ctx(), "a", "c"), store.ErrExists)
	f.wantError(account.Rename(f.ctx(), "a", "a"), store.ErrExists)
	f.wantError(account.Rename(f.ctx(), "a", store.Inbox), store.ErrExists)
	f.wantError(account.Rename(f.ctx(), store.Inbox, "c"), store.ErrExists)
	f.wantError(account.Rename(f.ctx(), "a", "a/below"), store.ErrName)
	f.wantError(account.Rename(f.ctx(), "a", ""), store.ErrName)
	f.wantError(account.Rename(f.ctx(), "a", "x//y"), store.ErrName)
	f.wantError(account.Rename(f.ctx(), "a", "b"), store.ErrExists)
	f.wantList(account, "a", "a/x", "(b)", "b/x", "c", "INBOX")
	f.wantSubjects(f.mailbox(account, "a"), "one")
}

func checkRenameInbox(f *fixture) {
	account := f.account("alice")
	inbox := f.mailbox(account, store.Inbox)
	f.add(inbox, "one", "two", "three")
	f.noError(account.Create(f.ctx(), "INBOX/below", ""))
	_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(2), store.FlagChange{Flags: store.FlagFlagged, Keywords: []string{"kw"}})
	f.noError(err)
	before := f.view(inbox)
	f.noError(account.Rename(f.ctx(), store.Inbox, "Old/2023"))
	f.wantList(account, "INBOX", "INBOX/below", "(Old)", "Old/2023")
	old := f.mailbox(account, "Old/2023")
	f.wantSubjects(old, "one", "two", "three")
	view := f.view(old)
	if entry := view.Entry(1); entry.Flags != store.FlagFlagged || !slices.Equal(keywords(view, entry), []string{"kw"}) {
		f.Errorf("flags of a moved message: %v %v", entry.Flags, keywords(view, entry))
	}
	inbox = f.mailbox(account, store.Inbox)
	after := f.view(inbox)
	if after.Len() != 0 {
		f.Errorf("INBOX still holds %d messages", after.Len())
	}
	if after.UIDValidity() == before.UIDValidity() && after.UIDNext() < before.UIDNext() {
		f.Errorf("UIDNEXT of INBOX fell from %d to %d", before.UIDNext(), after.UIDNext())
	}
	f.add(inbox, "four")
	f.wantSubjects(inbox, "four")
}

func checkSubscriptions(f *fixture) {
	account := f.account("alice")
	want := func(account store.Account, names ...string) {
		f.Helper()
		got, err := account.Subscriptions(f.ctx())
		f.noError(err)
		slices.Sort(got)
		if !slices.Equal(got, names) {
			f.Fatalf("subscriptions %q, want %q", got, names)
		}
	}
	want(account)
	f.noError(account.Create(f.ctx(), "a/b", ""))
	want(account)
	for _, name := range []string{"a/b", "ghost", "Entwürfe", "a/b"} {
		f.noError(account.Subscribe(f.ctx(), name, true))
	}
	want(account, "Entwürfe", "a/b", "ghost")
	f.noError(account.Delete(f.ctx(), "a/b"))
	want(account, "Entwürfe", "a/b", "ghost")
	f.noError(account.Subscribe(f.ctx(), "ghost", false))
	f.noError(account.Subscribe(f.ctx(), "ghost", false))
	f.noError(account.Subscribe(f.ctx(), "INBOX", true))
	f.reopen()
	want(f.account("alice"), "Entwürfe", "INBOX", "a/b")
	want(f.account("bob"))
}

func checkAccounts(f *fixture) {
	f.account("alice")
	f.account("bob@example.org")
	collect := func() []string {
		var users []string
		f.noError(f.store.Accounts(f.ctx(), func(user string) bool {
			users = append(users, user)
			return true
		}))
		slices.Sort(users)
		return users
	}
	if got := collect(); !slices.Equal(got, []string{"alice", "bob@example.org"}) {
		f.Errorf("accounts %q", got)
	}
	n := 0
	f.noError(f.store.Accounts(f.ctx(), func(string) bool { n++; return false }))
	if n != 1 {
		f.Errorf("Accounts went on after false: %d calls", n)
	}
	f.reopen()
	if got := collect(); f.bed.Can.RemembersAccounts && len(got) != 2 {
		f.Errorf("accounts after reopening: %q", got)
	}
}
