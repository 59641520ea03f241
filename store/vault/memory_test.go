package vault

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/store"
)

func TestEntriesLeaveMemory(t *testing.T) {
	s := open(t, vfs.NewMem(), "db", Options{})
	defer s.Close()
	one, two := inboxOf(t, s, "alice"), inboxOf(t, s, "alice")
	fillMailbox(t, one, 10)
	box := one.(*handle).box
	if box.working.loaded {
		t.Error("appending loads the entries")
	}
	if _, err := one.View(context.Background()); err != nil || !box.working.loaded {
		t.Errorf("loaded %v, %v", box.working.loaded, err)
	}
	_ = one.Close()
	if !box.working.loaded {
		t.Error("entries left while a handle is open")
	}
	_ = two.Close()
	_ = two.Close()
	if box.working.loaded || box.handles.Load() != 0 {
		t.Errorf("loaded %v with %d handles", box.working.loaded, box.handles.Load())
	}
	if _, err := one.View(context.Background()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a closed handle: %v", err)
	}
}

// TestIdleSessions opens many mailboxes and wants little memory for each.
func TestIdleSessions(t *testing.T) {
	s := open(t, vfs.NewMem(), "db", Options{})
	defer s.Close()
	const sessions = 500
	for i := range sessions {
		inbox := inboxOf(t, s, fmt.Sprint("user", i))
		fillMailbox(t, inbox, 20)
		_ = inbox.Close()
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var open []store.Mailbox
	for i := range sessions {
		inbox := inboxOf(t, s, fmt.Sprint("user", i))
		if _, err := inbox.View(context.Background()); err != nil {
			t.Fatal(err)
		}
		open = append(open, inbox)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / sessions; each > 6<<10 {
		t.Errorf("%d octets for each idle session", each)
	}
	for _, inbox := range open {
		_ = inbox.Close()
	}
}

func TestManyAccountsLeaveMemory(t *testing.T) {
	s := open(t, vfs.NewMem(), "db", Options{})
	defer s.Close()
	for i := range idleAccounts + 100 {
		account, err := s.Open(context.Background(), store.Owner{User: fmt.Sprint("user", i)})
		if err != nil {
			t.Fatal(err)
		}
		if err := account.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.accounts) != idleAccounts || s.idle.Len() != idleAccounts {
		t.Errorf("%d accounts in memory, %d idle", len(s.accounts), s.idle.Len())
	}
}

func TestLimits(t *testing.T) {
	s := open(t, vfs.NewMem(), "db", Options{MaxMailboxes: 3, MaxKeywords: 2})
	defer s.Close()
	account, err := s.Open(context.Background(), store.Owner{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := account.Create(context.Background(), fmt.Sprint(i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := account.Create(context.Background(), "too many", ""); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("fourth mailbox: %v", err)
	}
	for i := range 4 {
		if err := account.Subscribe(context.Background(), fmt.Sprint(i), true); (i < 3) != (err == nil) || (i == 3 && !errors.Is(err, store.ErrTooMany)) {
			t.Errorf("subscription %d: %v", i, err)
		}
	}
	inbox := inboxOf(t, s, "alice")
	defer inbox.Close()
	fillMailbox(t, inbox, 1)
	set := func(names ...string) error {
		_, err := inbox.SetFlags(context.Background(), store.AllUIDs(), store.FlagChange{Keywords: names})
		return err
	}
	if err := errors.Join(set("a", "b"), set("A", "B")); err != nil {
		t.Error(err)
	}
	if err := set("c"); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("third keyword: %v", err)
	}
	if err := set(strings.Repeat("k", maxKeywordLen+1)); !errors.Is(err, store.ErrName) {
		t.Errorf("long keyword: %v", err)
	}
	if _, err := s.Open(context.Background(), store.Owner{User: strings.Repeat("u", maxNameLen+1)}); !errors.Is(err, store.ErrName) {
		t.Errorf("long user name: %v", err)
	}
	outcomes, err := s.Deliver(context.Background(), &store.Delivery{Content: zeros(5), Targets: []store.Target{{Owner: store.Owner{User: "bob"}, Mailbox: store.Inbox, Prefix: make([]byte, maxPrefix+1)}}})
	if err != nil || !errors.Is(outcomes[0].Err, store.ErrTooMany) {
		t.Errorf("long prefix: %v, %v", outcomes, err)
	}
	outcomes, err = s.Deliver(context.Background(), &store.Delivery{Content: zeros(5), Targets: []store.Target{
		{Owner: store.Owner{User: "bob"}, Mailbox: "new", Create: true, Keywords: []string{"a", ""}},
		{Owner: store.Owner{User: "bob"}, Mailbox: store.Inbox},
		{Owner: store.Owner{User: ""}, Mailbox: store.Inbox},
	}})
	if err != nil || !errors.Is(outcomes[0].Err, store.ErrName) || outcomes[1].Err != nil || !errors.Is(outcomes[2].Err, store.ErrName) {
		t.Errorf("impossible targets beside a possible one: %v, %v", outcomes, err)
	}
	if bob := inboxOf(t, s, "bob").(*handle).box.account; bob.boxes["new"] != nil {
		t.Error("a mailbox was made for a target that failed")
	}
}

func TestIndexAgainstSlice(t *testing.T) {
	var x index
	var model []entry
	next := store.UID(1)
	random := func(n int) int { return int(uint64(next) * 2654435761 % uint64(n)) }
	for step := range 160 {
		for range random(90) + 1 {
			e := entry{uid: next, modSeq: store.ModSeq(step + 1)}
			x, model = x.add(e), append(slices.Clone(model), e)
			next += store.UID(1 + random(3))
		}
		if len(model) == 0 {
			continue
		}
		old, oldModel := x, slices.Clone(model)
		from := random(len(model))
		set := store.UIDSetRange(model[from].uid, model[min(len(model)-1, from+random(40))].uid)
		if step%2 == 0 {
			x = x.remove(set)
			model = slices.DeleteFunc(slices.Clone(model), func(e entry) bool { return set.Contains(e.uid) })
		} else {
			var changed []entry
			model = slices.Clone(model)
			for i := range model {
				if set.Contains(model[i].uid) {
					model[i].modSeq, model[i].flags = store.ModSeq(step+1), store.FlagSeen
					changed = append(changed, model[i])
				}
			}
			x = x.replace(changed)
		}
		sameIndex(t, &old, oldModel)
		sameIndex(t, &x, model)
		since := store.ModSeq(step / 2)
		var want store.UIDSet
		for _, e := range model {
			if e.modSeq > since {
				want = want.Add(e.uid)
			}
		}
		if got := x.changedSince(since); got.String() != want.String() {
			t.Fatalf("step %d: changed since %d: %v, want %v", step, since, got, want)
		}
		var picked []store.UID
		x.each(store.UIDSet{{First: 3, Last: 9}, {First: 200, Last: 900}, {First: next / 2, Last: next}}, func(e *entry) { picked = append(picked, e.uid) })
		var wanted []store.UID
		for _, e := range model {
			if (e.uid >= 3 && e.uid <= 9) || (e.uid >= 200 && e.uid <= 900) || e.uid >= next/2 {
				wanted = append(wanted, e.uid)
			}
		}
		if next > 2000 && !slices.Equal(picked, wanted) {
			t.Fatalf("step %d: each gave %v, want %v", step, picked, wanted)
		}
	}
}

func sameIndex(t *testing.T, x *index, model []entry) {
	t.Helper()
	if x.len() != len(model) {
		t.Fatalf("%d entries, want %d", x.len(), len(model))
	}
	for i, e := range model {
		if *x.at(i) != e {
			t.Fatalf("entry %d is %+v, want %+v", i, *x.at(i), e)
		}
		if at, ok := x.find(e.uid); !ok || at != i {
			t.Fatalf("find(%d) = %d, %v; want %d", e.uid, at, ok, i)
		}
		if at, ok := x.find(e.uid + 1); ok != (i+1 < len(model) && model[i+1].uid == e.uid+1) || at != i+1 {
			t.Fatalf("find(%d) = %d, %v; want %d", e.uid+1, at, ok, i+1)
		}
	}
}
