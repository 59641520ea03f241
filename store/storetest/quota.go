package storetest

import (
	"postilion/store"
)

func quotaChecks() []check {
	size := int64(len(text("a")))
	return []check{
		{"without rules nothing is limited", func(f *fixture) {
			account := f.account("alice")
			f.add(f.mailbox(account, store.Inbox), "a", "b")
			f.add(f.mailbox(account, "other"), "c")
			f.wantUsage(account, store.QuotaUsage{Bytes: 3 * size, Messages: 3})
			_, err := f.mailbox(account, store.Inbox).Expunge(f.ctx(), store.UIDSetOf(1), false)
			f.noError(err)
			f.wantUsage(account, store.QuotaUsage{Bytes: 2 * size, Messages: 2})
			f.noError(account.Delete(f.ctx(), "other"))
			f.wantUsage(account, store.QuotaUsage{Bytes: size, Messages: 1})
			f.reopen()
			f.wantUsage(f.account("alice"), store.QuotaUsage{Bytes: size, Messages: 1})
		}},
		{"messages are limited", func(f *fixture) {
			account := f.account("alice", store.QuotaRule{Mailbox: "*", Messages: 2})
			inbox := f.mailbox(account, store.Inbox)
			f.overQuota(inbox, "a", "b", "c")
			f.wantSubjects(inbox)
			f.add(inbox, "a", "b")
			f.overQuota(inbox, "c")
			_, err := inbox.Copy(f.ctx(), store.AllUIDs(), f.mailbox(account, "other"))
			f.wantError(err, store.ErrOverQuota)
			f.wantSubjects(f.mailbox(account, "other"))
			f.wantUsage(account, store.QuotaUsage{Bytes: 2 * size, Messages: 2, LimitMessages: 2})
			_, err = inbox.Move(f.ctx(), store.UIDSetOf(1), f.mailbox(account, "other"))
			f.noError(err)
			_, err = inbox.Expunge(f.ctx(), store.AllUIDs(), false)
			f.noError(err)
			f.add(inbox, "c")
			f.wantSubjects(inbox, "c")
		}},
		{"octets are limited", func(f *fixture) {
			account := f.account("alice", store.QuotaRule{Mailbox: "*", Bytes: 2 * size})
			inbox := f.mailbox(account, store.Inbox)
			f.add(inbox, "a", "b")
			f.overQuota(inbox, "c")
			f.wantUsage(account, store.QuotaUsage{Bytes: 2 * size, Messages: 2, LimitBytes: 2 * size})
		}},
		{"deliveries are limited", func(f *fixture) {
			target := f.target("alice", store.Inbox)
			target.Owner.Quota.Rules = []store.QuotaRule{{Mailbox: "*", Messages: 1}}
			f.noError(f.deliver(delivery("1", text("a"), target))[0].Err)
			outcomes := f.deliver(delivery("2", text("b"), target, f.target("bob", store.Inbox)))
			f.wantError(outcomes[0].Err, store.ErrOverQuota)
			f.noError(outcomes[1].Err)
			f.wantSubjects(f.inbox("alice"), "a")
			if again := f.deliver(delivery("1", text("a"), target))[0]; again.Err != nil || !again.Duplicate {
				f.Errorf("a repeat into a full account: %+v", again)
			}
		}},
		{"one mailbox may hold more", func(f *fixture) {
			account := f.account("alice", store.QuotaRule{Mailbox: "*", Messages: 1}, store.QuotaRule{Mailbox: "Trash", Messages: 1, Relative: true},
				store.QuotaRule{Mailbox: "Archive/*", Messages: 2, Relative: true})
			inbox, trash, archive := f.mailbox(account, store.Inbox), f.mailbox(account, "Trash"), f.mailbox(account, "Archive/2024")
			f.add(inbox, "a")
			f.overQuota(inbox, "b")
			f.add(trash, "b")
			f.overQuota(trash, "c")
			f.add(archive, "c")
			f.overQuota(archive, "d")
			f.overQuota(inbox, "d")
		}},
		{"one mailbox may be left out", func(f *fixture) {
			account := f.account("alice", store.QuotaRule{Mailbox: "*", Messages: 1}, store.QuotaRule{Mailbox: "Junk", Ignore: true})
			inbox, junk := f.mailbox(account, store.Inbox), f.mailbox(account, "Junk")
			f.add(junk, "x", "y", "z")
			f.add(inbox, "a")
			f.add(junk, "w")
			f.wantUsage(account, store.QuotaUsage{Bytes: size, Messages: 1, LimitMessages: 1})
			f.overQuota(inbox, "b")
		}},
	}
}

func (f *fixture) wantUsage(account store.Account, want store.QuotaUsage) {
	f.Helper()
	got, err := account.QuotaUsage(f.ctx())
	f.noError(err)
	if got != want {
		f.Errorf("usage %+v, want %+v", got, want)
	}
}

func (f *fixture) overQuota(mailbox store.Mailbox, names ...string) {
	f.Helper()
	var drafts []store.Draft
	for _, name := range names {
		drafts = append(drafts, draft(text(name)))
	}
	_, err := mailbox.Append(f.ctx(), drafts)
	f.wantError(err, store.ErrOverQuota)
}
