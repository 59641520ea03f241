package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"postilion/store"
)

func concurrencyChecks() []check {
	return []check{
		{"concurrent deliveries", func(f *fixture) {
			const workers, each = 8, 12
			var group sync.WaitGroup
			for worker := range workers {
				group.Go(func() {
					for i := range each {
						name := fmt.Sprintf("%d-%d", worker, i)
						outcomes, err := f.store.Deliver(f.ctx(), delivery(name, text(name), f.target("alice", store.Inbox), f.target(fmt.Sprintf("user%d", worker), store.Inbox)))
						if err = errors.Join(err, outcomes[0].Err, outcomes[1].Err); err != nil {
							f.Errorf("delivery %s: %v", name, err)
						}
					}
				})
			}
			group.Wait()
			inbox := f.inbox("alice")
			names := f.subjects(inbox)
			slices.Sort(names)
			if len(slices.Compact(names)) != workers*each {
				f.Errorf("%d different messages of %d", len(names), workers*each)
			}
			for worker := range workers {
				if got := f.view(f.inbox(fmt.Sprintf("user%d", worker))).Len(); got != each {
					f.Errorf("user%d holds %d messages", worker, got)
				}
			}
		}},
		{"the same delivery from many sides", func(f *fixture) {
			var group sync.WaitGroup
			var taken atomic.Int64
			for range 8 {
				group.Go(func() {
					outcomes, err := f.store.Deliver(f.ctx(), delivery("one id", text("a"), f.target("alice", store.Inbox)))
					if err = errors.Join(err, outcomes[0].Err); err != nil {
						f.Errorf("delivery: %v", err)
					}
					if !outcomes[0].Duplicate {
						taken.Add(1)
					}
				})
			}
			group.Wait()
			if taken.Load() != 1 {
				f.Errorf("taken %d times", taken.Load())
			}
			f.wantSubjects(f.inbox("alice"), "a")
		}},
		{"concurrent sessions", checkConcurrentSessions},
		{"a move is seen in one place", checkMoveSeen},
		{"a delivery to several mailboxes is seen whole", func(f *fixture) {
			if !f.bed.Can.Atomic {
				f.Skip("not promised by this store")
			}
			checkDeliverySeen(f)
		}},
		{"expunge happens once", func(f *fixture) {
			inbox := f.inbox("alice")
			for range 5 {
				f.add(inbox, "a", "b", "c", "d", "e", "f")
			}
			var group sync.WaitGroup
			var gone atomic.Uint64
			for range 4 {
				group.Go(func() {
					set, err := f.inbox("alice").Expunge(f.ctx(), store.AllUIDs(), false)
					if err != nil {
						f.Errorf("expunge: %v", err)
					}
					gone.Add(set.Count())
				})
			}
			group.Wait()
			if gone.Load() != 30 {
				f.Errorf("%d messages told as expunged, 30 were there", gone.Load())
			}
		}},
		{"creating the same mailbox", func(f *fixture) {
			var group sync.WaitGroup
			var made atomic.Int64
			account := f.account("alice")
			for range 6 {
				group.Go(func() {
					switch err := account.Create(f.ctx(), "same/name", ""); {
					case err == nil:
						made.Add(1)
					case !errors.Is(err, store.ErrExists):
						f.Errorf("create: %v", err)
					}
				})
			}
			group.Wait()
			if made.Load() != 1 {
				f.Errorf("made %d times", made.Load())
			}
		}},
	}
}

// checkConcurrentSessions has sessions append, flag, copy, move and expunge in two mailboxes while others read; every view must hold
// together, and mod-sequences and UIDNEXT must never fall.
func checkConcurrentSessions(f *fixture) {
	account := f.account("alice")
	f.mailbox(account, "other")
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	names := []string{store.Inbox, "other"}
	for worker := range 4 {
		writers.Go(func() {
			here, there := f.mailbox(f.account("alice"), names[worker%2]), f.mailbox(f.account("alice"), names[1-worker%2])
			for i := range 15 {
				uids, err := here.Append(f.ctx(), []store.Draft{draft(text(fmt.Sprint(worker, i))), draft(text("more"))})
				if err != nil {
					f.Errorf("append: %v", err)
					return
				}
				_, err = here.SetFlags(f.ctx(), store.UIDSetOf(uids...), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen, Keywords: []string{fmt.Sprint("k", worker)}})
				_, copyErr := here.Copy(f.ctx(), store.UIDSetOf(uids[0]), there)
				_, moveErr := here.Move(f.ctx(), store.UIDSetOf(uids[0]), there)
				_, expungeErr := here.Expunge(f.ctx(), store.UIDSetOf(uids[1]), false)
				if err := errors.Join(err, copyErr, moveErr, expungeErr); err != nil {
					f.Errorf("session %d: %v", worker, err)
					return
				}
			}
		})
	}
	for _, name := range names {
		readers.Go(func() {
			mailbox := f.mailbox(f.account("alice"), name)
			var highest store.ModSeq
			var next store.UID
			for !done.Load() {
				view := f.view(mailbox)
				if view.HighestModSeq() < highest || view.UIDNext() < next {
					f.Errorf("HIGHESTMODSEQ %d after %d, UIDNEXT %d after %d", view.HighestModSeq(), highest, view.UIDNext(), next)
				}
				highest, next = view.HighestModSeq(), view.UIDNext()
				if n := view.Len(); n > 0 {
					body, err := mailbox.Open(f.ctx(), view.UID(n/2))
					if err == nil {
						_ = body.Close()
					} else if !errors.Is(err, store.ErrExpunged) {
						f.Errorf("open: %v", err)
					}
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	for _, name := range names {
		view := f.view(f.mailbox(account, name))
		if view.Len() != 60 {
			f.Errorf("%s holds %d messages, want 60", name, view.Len())
		}
	}
}

// onlook runs look again and again while work runs.
func onlook(work, look func()) {
	var done atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		for !done.Load() {
			look()
		}
	})
	work()
	done.Store(true)
	group.Wait()
}

// checkMoveSeen has a message move to and fro: whoever looks at the one mailbox and then at the other never misses it in the direction in
// which it moves.
func checkMoveSeen(f *fixture) {
	account := f.account("alice")
	here, there := f.mailbox(account, store.Inbox), f.mailbox(account, "there")
	var moves atomic.Int64
	f.add(here, "a")
	onlook(func() {
		for range 30 {
			for _, pair := range [][2]store.Mailbox{{here, there}, {there, here}} {
				copied, err := pair[0].Move(f.ctx(), store.AllUIDs(), pair[1])
				if err != nil || len(copied.Source) != 1 {
					f.Errorf("move: %+v, %v", copied, err)
				}
				moves.Add(1)
			}
		}
	}, func() {
		before := moves.Load()
		first, second := f.view(here).Len(), f.view(there).Len()
		if moves.Load() == before && before%2 == 0 && first+second == 0 {
			f.Errorf("a message that moves from the first to the second is in neither")
		}
		if first > 1 || second > 1 {
			f.Errorf("a message that moves is there %d and %d times", first, second)
		}
	})
}

func checkDeliverySeen(f *fixture) {
	account := f.account("alice")
	one, two := f.mailbox(account, store.Inbox), f.mailbox(account, "two")
	onlook(func() {
		for i := range 60 {
			f.deliver(delivery(fmt.Sprint(i), text("a"), f.target("alice", store.Inbox), f.target("alice", "two")))
		}
	}, func() {
		first := f.view(one).Len()
		second := f.view(two).Len()
		third := f.view(one).Len()
		if first > second || second > third {
			f.Errorf("deliveries to two mailboxes are seen as %d, %d, %d", first, second, third)
		}
	})
}
