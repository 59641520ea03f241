package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"postilion/store"
	"postilion/store/storetest"
)

// metered counts what is written to a connection.
type metered struct {
	net.Conn
	written *atomic.Int64
}

func (m metered) Write(p []byte) (int, error) {
	m.written.Add(int64(len(p)))
	return m.Conn.Write(p)
}

// TestOnlyTheDifferenceTravels measures what the far side sends for a look at 100,000 messages: all of them at first, then little.
func TestOnlyTheDifferenceTravels(t *testing.T) {
	ours, theirs := pair(t)
	var written atomic.Int64
	memory := storetest.NewMemory()
	far := make(chan error, 1)
	go func() { far <- Serve(context.Background(), metered{theirs, &written}, memory.Open()) }()
	c := NewClient(ours, Options{})
	inbox, second := openInbox(t, c, store.Owner{User: "alice"}), openInbox(t, c, store.Owner{User: "alice"})
	const n = 100_000
	drafts := make([]store.Draft, n/2)
	for i := range drafts {
		drafts[i] = store.Draft{Content: bytes.NewReader([]byte("x")), Flags: store.Flags(i % 32), InternalDate: time.Unix(1700000000, 0)}
	}
	for range 2 {
		_, err := inbox.Append(t.Context(), drafts)
		must(t, err)
	}
	costs := func(what string, least, most int64, look func() store.View) store.View {
		t.Helper()
		before := written.Load()
		view := look()
		if got := written.Load() - before; got < least || got > most {
			t.Errorf("%s: the far side sent %d octets, want %d to %d", what, got, least, most)
		}
		return view
	}
	look := func(m store.Mailbox) func() store.View {
		return func() store.View {
			view, err := m.View(t.Context())
			must(t, err)
			return view
		}
	}
	if view := costs("first look", n*10, n*60, look(inbox)); view.Len() != n {
		t.Fatalf("%d messages", view.Len())
	}
	costs("nothing changed", 1, 100, look(inbox))
	costs("the same by another handle", 1, 100, look(second))
	_, err := inbox.SetFlags(t.Context(), store.UIDSetOf(500, 70000), store.FlagChange{Flags: store.FlagSeen, Keywords: []string{"k"}})
	must(t, err)
	costs("two messages changed", 50, 500, look(inbox))
	_, err = inbox.Expunge(t.Context(), store.UIDSetRange(100, 50000), false)
	must(t, err)
	if view := costs("half of them are gone", 10, 200, look(inbox)); view.Len() != n-49901 {
		t.Errorf("%d messages", view.Len())
	}
	costs("both by the other handle", 50, 600, look(second))
	must(t, c.Close())
	must(t, <-far)
}

// TestViewsAreTheStores makes random changes and wants every view that a client gets, at whatever distance from the last one, to say what the
// store's own view says.
func TestViewsAreTheStores(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		memory := storetest.NewMemory()
		behind := memory.Open()
		s := serve(t, memory.Open(), Options{})
		direct := openInbox(t, behind, store.Owner{User: "alice"})
		handles := []store.Mailbox{openInbox(t, s, store.Owner{User: "alice"}), openInbox(t, s, store.Owner{User: "alice"})}
		for range 40 {
			change(t, random, direct)
			if random.IntN(3) > 0 {
				continue
			}
			got, err := handles[random.IntN(2)].View(t.Context())
			must(t, err)
			want, err := direct.View(t.Context())
			must(t, err)
			sameView(t, got, want)
		}
		must(t, s.Close())
	}
}

func change(t *testing.T, random *rand.Rand, m store.Mailbox) {
	t.Helper()
	view, err := m.View(t.Context())
	must(t, err)
	some := func() (set store.UIDSet) {
		for i := range view.Len() {
			if random.IntN(4) == 0 {
				set = set.Add(view.UID(i))
			}
		}
		return set
	}
	switch random.IntN(5) {
	case 0, 1:
		drafts := make([]store.Draft, random.IntN(20))
		for i := range drafts {
			zone := time.FixedZone("", random.IntN(80000)-40000)
			drafts[i] = store.Draft{Content: bytes.NewReader(make([]byte, i)), InternalDate: time.Unix(random.Int64N(1e10), random.Int64N(1e9)).In(zone)}
			if random.IntN(3) == 0 {
				drafts[i].Keywords = []string{fmt.Sprint("k", random.IntN(6)), fmt.Sprint("k", random.IntN(6))}
			}
		}
		_, err = m.Append(t.Context(), drafts)
	case 2, 3:
		_, err = m.SetFlags(t.Context(), some(), store.FlagChange{
			Operation: store.FlagOperation(random.IntN(3)), Flags: store.Flags(random.IntN(32)), Keywords: []string{fmt.Sprint("k", random.IntN(6))},
		})
	case 4:
		if _, err = m.Expunge(t.Context(), some(), false); random.IntN(2) == 0 {
			_, err = m.TakeRecent(t.Context())
		}
	}
	must(t, err)
}

func sameView(t *testing.T, got, want store.View) {
	t.Helper()
	checkView(t, got)
	if got.UIDValidity() != want.UIDValidity() || got.UIDNext() != want.UIDNext() || got.HighestModSeq() != want.HighestModSeq() ||
		got.ID() != want.ID() || got.FirstRecent() != want.FirstRecent() || got.Len() != want.Len() || !slices.Equal(got.Keywords(), want.Keywords()) {
		t.Fatalf("a view of %d messages instead of %d", got.Len(), want.Len())
	}
	for i := range want.Len() {
		a, b := got.Entry(i), want.Entry(i)
		_, zoneA := a.InternalDate.Zone()
		_, zoneB := b.InternalDate.Zone()
		if a.UID != b.UID || !sameEntry(a, b) || zoneA != zoneB {
			t.Fatalf("entry %d is %+v instead of %+v", i, a, b)
		}
	}
	for since := store.ModSeq(0); since <= want.HighestModSeq(); since++ {
		if a, b := got.ChangedSince(since).String(), want.ChangedSince(since).String(); a != b {
			t.Fatalf("since %d changed %s instead of %s", since, a, b)
		}
		gone := got.ExpungedSince(since)
		for uid := range want.ExpungedSince(since).All() {
			if !gone.Contains(uid) {
				t.Fatalf("since %d UID %d was expunged, the client says %v", since, uid, gone)
			}
		}
	}
}

func TestMailboxesAboveTheLimitAreRefused(t *testing.T) {
	s := serve(t, storetest.NewMemory().Open(), Options{MaxMessages: 3000})
	account, err := s.Open(t.Context(), store.Owner{User: "alice"})
	must(t, err)
	var boxes []store.Mailbox
	for i := range 40 {
		name := fmt.Sprint("box", i)
		must(t, account.Create(t.Context(), name, ""))
		box, err := account.Mailbox(t.Context(), name)
		must(t, err)
		drafts := make([]store.Draft, 1000)
		for i := range drafts {
			drafts[i].Content = bytes.NewReader(nil)
		}
		_, err = box.Append(t.Context(), drafts)
		must(t, err)
		boxes = append(boxes, box)
	}
	view := func(i int) error {
		_, err := boxes[i].View(t.Context())
		return err
	}
	must(t, errors.Join(view(0), view(1)))
	if err := view(2); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("a mailbox too much: %v", err)
	}
	must(t, boxes[0].Close())
	for i := 2; i < len(boxes); i++ {
		if err := view(i); err != nil {
			t.Fatalf("mailbox %d after others were closed: %v", i, err)
		}
		must(t, boxes[i].Close())
	}
	must(t, view(1))
	must(t, s.Close())
}

func TestViewsOfAClosedMailbox(t *testing.T) {
	s := serve(t, storetest.NewMemory().Open(), Options{})
	inbox := openInbox(t, s, store.Owner{User: "alice"})
	uids, err := inbox.Append(t.Context(), []store.Draft{{Content: bytes.NewReader(nil)}, {Content: bytes.NewReader(nil)}})
	must(t, err)
	_, err = inbox.Expunge(t.Context(), store.UIDSetOf(uids[0]), false)
	must(t, err)
	view, err := inbox.View(t.Context())
	must(t, err)
	for range 2 {
		if got := view.ExpungedSince(0); got.String() != store.UIDSetOf(uids[0]).String() {
			t.Errorf("expunged %v", got)
		}
		must(t, inbox.Close())
	}
	must(t, s.Close())
	if got := view.ExpungedSince(0); got.String() != store.UIDSetOf(uids[0]).String() {
		t.Errorf("expunged %v", got)
	}
}
