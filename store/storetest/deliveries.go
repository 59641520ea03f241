package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postilion/store"
)

func delivery(id string, content []byte, targets ...store.Target) *store.Delivery {
	return &store.Delivery{ID: id, Content: bytes.NewReader(content), InternalDate: time.Unix(1700000000, 0), Targets: targets}
}

func (f *fixture) target(user, mailbox string) store.Target {
	return store.Target{Owner: f.bed.Owner(user), Mailbox: mailbox}
}

func (f *fixture) deliver(d *store.Delivery) []store.Outcome {
	f.Helper()
	outcomes, err := f.store.Deliver(f.ctx(), d)
	f.noError(err)
	if len(outcomes) != len(d.Targets) {
		f.Fatalf("%d outcomes for %d targets", len(outcomes), len(d.Targets))
	}
	for i, outcome := range outcomes {
		if (outcome.Err != nil && outcome.UID != 0) || (outcome.Err == nil && !outcome.Duplicate && outcome.UID == 0) {
			f.Fatalf("outcome %d: %+v", i, outcome)
		}
	}
	return outcomes
}

func deliveryChecks() []check {
	return []check{
		{"into a new account", func(f *fixture) {
			outcome := f.deliver(delivery("id", text("a"), f.target("alice", store.Inbox)))[0]
			f.noError(outcome.Err)
			inbox := f.inbox("alice")
			f.wantSubjects(inbox, "a")
			view := f.view(inbox)
			if view.UID(0) != outcome.UID || view.FirstRecent() > outcome.UID || !view.Entry(0).InternalDate.Equal(time.Unix(1700000000, 0)) {
				f.Errorf("delivered as %+v, outcome %+v", view.Entry(0), outcome)
			}
		}},
		{"the same id is taken once", checkDuplicates},
		{"without an id everything is taken", func(f *fixture) {
			for range 2 {
				f.noError(f.deliver(delivery("", text("a"), f.target("alice", store.Inbox)))[0].Err)
			}
			f.wantSubjects(f.inbox("alice"), "a", "a")
		}},
		{"several targets", func(f *fixture) {
			f.noError(f.account("alice").Create(f.ctx(), "Work", ""))
			targets := []store.Target{f.target("bob", store.Inbox), f.target("alice", "Work"), f.target("alice", store.Inbox)}
			targets[1].Flags, targets[1].Keywords = store.FlagSeen|store.FlagFlagged, []string{"kw"}
			targets[2].Prefix = []byte("Delivered-To: alice@example.org\r\n")
			for i, outcome := range f.deliver(delivery("id", text("a"), targets...)) {
				if outcome.Err != nil || outcome.Duplicate {
					f.Errorf("target %d: %+v", i, outcome)
				}
			}
			work := f.mailbox(f.account("alice"), "Work")
			view := f.view(work)
			if entry := view.Entry(0); entry.Flags != targets[1].Flags || !slices.Equal(keywords(view, entry), targets[1].Keywords) {
				f.Errorf("delivered as %+v %q", entry, keywords(view, entry))
			}
			bobs := f.inbox("bob")
			if entry := f.entry(bobs, 1); entry.Flags != 0 || len(entry.Keywords) != 0 {
				f.Errorf("flags of another target: %+v", entry)
			}
			f.wantSubjects(bobs, "a")
			if got, want := f.read(f.inbox("alice"), 1), append(slices.Clone(targets[2].Prefix), text("a")...); !bytes.Equal(got, want) {
				f.Errorf("with prefix: %q", got)
			}
			if got := f.entry(f.inbox("alice"), 1).Size; got != int64(len(targets[2].Prefix)+len(text("a"))) {
				f.Errorf("size with prefix: %d", got)
			}
		}},
		{"the same mailbox twice in one delivery", func(f *fixture) {
			outcomes := f.deliver(delivery("id", text("a"), f.target("alice", store.Inbox), f.target("alice", store.Inbox)))
			if outcomes[0].Err != nil || outcomes[1].Err != nil || outcomes[0].Duplicate || !outcomes[1].Duplicate {
				f.Errorf("outcomes %+v", outcomes)
			}
			f.wantSubjects(f.inbox("alice"), "a")
		}},
		{"a missing mailbox fails alone", func(f *fixture) {
			outcomes := f.deliver(delivery("id", text("a"), f.target("alice", "none"), f.target("bob", store.Inbox), f.target("bob", "bad//name")))
			f.wantError(outcomes[0].Err, store.ErrNotFound)
			f.noError(outcomes[1].Err)
			if err := outcomes[2].Err; !errors.Is(err, store.ErrName) && !errors.Is(err, store.ErrNotFound) {
				f.Errorf("impossible name: %v", err)
			}
			f.wantSubjects(f.inbox("bob"), "a")
			f.wantList(f.account("alice"), "INBOX")
		}},
		{"all or nothing", checkAllOrNothing},
		{"create and subscribe", checkDeliverCreates},
		{"content that cannot be read leaves nothing", func(f *fixture) {
			content := brokenContent{bytes.NewReader(text(strings.Repeat("x", 300000)))}
			d := delivery("id", nil, f.target("alice", store.Inbox), f.target("bob", store.Inbox))
			d.Content = content
			outcomes, err := f.store.Deliver(f.ctx(), d)
			if err == nil && (outcomes[0].Err == nil || outcomes[1].Err == nil) {
				f.Errorf("delivered what cannot be read: %+v", outcomes)
			}
			inbox := f.inbox("alice")
			_, err = inbox.Append(f.ctx(), []store.Draft{draft(text("a")), {Content: content}})
			if !errors.Is(err, errBroken) {
				f.Errorf("append of what cannot be read: %v", err)
			}
			f.wantSubjects(inbox)
			f.wantSubjects(f.inbox("bob"))
			d.Content = bytes.NewReader(text("a"))
			for _, outcome := range f.deliver(d) {
				if outcome.Err != nil || outcome.Duplicate {
					f.Errorf("offered again: %+v", outcome)
				}
			}
			f.wantSubjects(inbox, "a")
		}},
		{"prefix and content of every kind", func(f *fixture) {
			prefix := []byte("Return-Path: <a@example.com>\r\nDelivered-To: <b@example.org>\r\n")
			var want [][]byte
			for name, content := range awkward() {
				target := f.target("alice", store.Inbox)
				target.Prefix = prefix
				f.noError(f.deliver(delivery("id "+name, []byte(content), target))[0].Err)
				want = append(want, f.shown(append(slices.Clone(prefix), content...)))
			}
			inbox := f.inbox("alice")
			for i, w := range want {
				if got := f.read(inbox, f.view(inbox).UID(i)); !bytes.Equal(got, w) {
					f.Errorf("got %.100q, want %.100q", got, w)
				}
			}
		}},
	}
}

func checkDuplicates(f *fixture) {
	account := f.account("alice")
	f.noError(account.Create(f.ctx(), "other", ""))
	send := func(id, mailbox string) store.Outcome {
		f.Helper()
		outcome := f.deliver(delivery(id, text(id), f.target("alice", mailbox)))[0]
		f.noError(outcome.Err)
		return outcome
	}
	first := send("id/1", store.Inbox)
	again := send("id/1", store.Inbox)
	if first.Duplicate || !again.Duplicate || (again.UID != 0 && again.UID != first.UID) {
		f.Errorf("first %+v, again %+v", first, again)
	}
	if send("id/2", store.Inbox).Duplicate || send("id/1", "other").Duplicate {
		f.Errorf("another id or another mailbox is told as a duplicate")
	}
	f.wantSubjects(f.mailbox(account, store.Inbox), "id/1", "id/2")
	inbox := f.mailbox(account, store.Inbox)
	_, err := inbox.TakeRecent(f.ctx())
	f.noError(err)
	_, err = inbox.SetFlags(f.ctx(), store.AllUIDs(), store.FlagChange{Flags: store.FlagSeen})
	f.noError(err)
	if !send("id/1", store.Inbox).Duplicate {
		f.Errorf("not known after its flags changed")
	}
	f.reopen()
	account = f.account("alice")
	if !send("id/1", store.Inbox).Duplicate {
		f.Errorf("not known after reopening")
	}
	inbox = f.mailbox(account, store.Inbox)
	_, err = inbox.Expunge(f.ctx(), store.UIDSetOf(first.UID), false)
	f.noError(err)
	_, err = inbox.Move(f.ctx(), store.AllUIDs(), f.mailbox(account, "other"))
	f.noError(err)
	for range 2 {
		if got := send("id/1", store.Inbox); !got.Duplicate {
			f.Errorf("not known after it was expunged")
		}
		if got := send("id/2", store.Inbox); !got.Duplicate {
			f.Errorf("not known after it was moved away")
		}
		f.reopen()
	}
	f.wantSubjects(f.inbox("alice"))
}

func checkAllOrNothing(f *fixture) {
	d := delivery("id", text("a"), f.target("alice", store.Inbox), f.target("bob", "none"), f.target("carol", store.Inbox))
	d.AllOrNothing = true
	outcomes := f.deliver(d)
	f.wantError(outcomes[0].Err, store.ErrNotDelivered)
	f.wantError(outcomes[1].Err, store.ErrNotFound)
	f.wantError(outcomes[2].Err, store.ErrNotDelivered)
	f.wantSubjects(f.inbox("alice"))
	f.wantSubjects(f.inbox("carol"))

	full := f.target("dave", store.Inbox)
	full.Owner.Quota.Rules = []store.QuotaRule{{Mailbox: "*", Bytes: 10}}
	d.Targets[1] = full
	outcomes = f.deliver(d)
	f.wantError(outcomes[0].Err, store.ErrNotDelivered)
	f.wantError(outcomes[1].Err, store.ErrOverQuota)
	f.wantSubjects(f.inbox("alice"))

	d.Targets[1] = f.target("dave", store.Inbox)
	for i, outcome := range f.deliver(d) {
		if outcome.Err != nil || outcome.Duplicate {
			f.Errorf("offered again, target %d: %+v", i, outcome)
		}
	}
	for i, outcome := range f.deliver(d) {
		if outcome.Err != nil || !outcome.Duplicate {
			f.Errorf("offered a third time, target %d: %+v", i, outcome)
		}
	}
	d.Targets[1] = f.target("bob", "none")
	outcomes = f.deliver(d)
	if !outcomes[0].Duplicate || !outcomes[2].Duplicate {
		f.Errorf("what was delivered before is no repeat when another target fails: %+v", outcomes)
	}
	for _, user := range []string{"alice", "dave", "carol"} {
		f.wantSubjects(f.inbox(user), "a")
	}
}

func checkDeliverCreates(f *fixture) {
	account := f.account("alice")
	subscriptions := func() string {
		f.Helper()
		names, err := account.Subscriptions(f.ctx())
		f.noError(err)
		slices.Sort(names)
		return fmt.Sprint(names)
	}
	target := f.target("alice", "Lists/go")
	target.Create = true
	f.noError(f.deliver(delivery("1", text("a"), target))[0].Err)
	f.wantList(account, "INBOX", "(Lists)", "Lists/go")
	target.SubscribeCreated = true
	f.noError(f.deliver(delivery("2", text("b"), target))[0].Err)
	if got := subscriptions(); got != "[]" {
		f.Errorf("subscribed %s to mailboxes that were there or should not be", got)
	}
	target.Mailbox = "Lists/rust"
	f.noError(f.deliver(delivery("3", text("c"), target))[0].Err)
	if got := subscriptions(); got != "[Lists/rust]" {
		f.Errorf("subscribed %s", got)
	}
	f.wantSubjects(f.mailbox(account, "Lists/go"), "a", "b")
	target.Mailbox = "bad\x00name"
	f.wantError(f.deliver(delivery("4", text("d"), target))[0].Err, store.ErrName)
}

var errBroken = errors.New("the content cannot be read")

// brokenContent fails after its first 100,000 octets.
type brokenContent struct{ *bytes.Reader }

func (b brokenContent) ReadAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > 100000 {
		return 0, errBroken
	}
	return b.Reader.ReadAt(p, offset)
}
