package storetest

import (
	"fmt"

	"postilion/store"
)

func durabilityChecks() []check {
	return []check{
		{"everything survives reopening", func(f *fixture) {
			account := f.account("alice")
			work := f.mailbox(account, "Work")
			uids := f.add(work, "a", "b", "c")
			_, err := work.SetFlags(f.ctx(), store.UIDSetOf(uids[1]), store.FlagChange{Flags: store.FlagAnswered, Keywords: []string{"k"}})
			f.noError(err)
			_, err = work.Expunge(f.ctx(), store.UIDSetOf(uids[0]), false)
			f.noError(err)
			before, id := takeShot(f.view(work)), f.view(work).ID()
			for range 3 {
				f.reopen()
				work = f.mailbox(f.account("alice"), "Work")
				if after := takeShot(f.view(work)); !before.equal(after) {
					f.Errorf("%+v became %+v", before, after)
				}
				if got := f.view(work).ID(); got != id {
					f.Errorf("id %s became %s", id, got)
				}
				f.wantSubjects(work, "b", "c")
			}
		}},
		{"UIDs go on after reopening", func(f *fixture) {
			var last store.UID
			for i := range 4 {
				inbox := f.inbox("alice")
				uid := f.add(inbox, fmt.Sprint(i))[0]
				if uid <= last {
					f.Fatalf("UID %d after %d", uid, last)
				}
				last = uid
				_, err := inbox.Expunge(f.ctx(), store.UIDSetOf(uid), false)
				f.noError(err)
				f.reopen()
			}
			if got := f.view(f.inbox("alice")).UIDNext(); got <= last {
				f.Errorf("UIDNEXT %d after UID %d was given", got, last)
			}
		}},
		{"mailboxes survive reopening", func(f *fixture) {
			account := f.account("alice")
			f.noError(account.Create(f.ctx(), "a/b", ""))
			f.noError(account.Create(f.ctx(), "gone", ""))
			f.noError(account.Delete(f.ctx(), "gone"))
			f.reopen()
			f.wantList(f.account("alice"), "(a)", "a/b", "INBOX")
		}},
	}
}
