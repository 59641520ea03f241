package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postilion/store"
	"postilion/store/storetest"
)

// fragile is a connection that breaks after so many octets, whichever way they go. A write may be cut in the middle.
type fragile struct {
	net.Conn
	left *atomic.Int64
}

func (f fragile) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if f.left.Add(int64(-n)) <= 0 {
		_ = f.Conn.Close()
	}
	return n, err
}

func (f fragile) Write(p []byte) (int, error) {
	n, err := f.Conn.Write(p[:max(0, min(int64(len(p)), f.left.Load()))])
	f.left.Add(int64(-n))
	if err == nil && n < len(p) {
		err = errors.Join(io.ErrShortWrite, f.Conn.Close())
	}
	return n, err
}

// settle waits until no more goroutines run than before.
func settle(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// TestConnectionBreaks has sessions at work while the connection breaks at some octet. Every call must return, with a connection's error if with
// one, nothing may be left running, and a delivery that is offered again until it succeeds must be there once.
func TestConnectionBreaks(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	memory := storetest.NewMemory()
	random := rand.New(rand.NewPCG(3, 4))
	before := runtime.NumGoroutine()
	var sent []string
	for round := range rounds {
		left := &atomic.Int64{}
		left.Store(random.Int64N(1 << random.IntN(19)))
		ours, theirs := pair(t)
		behind := memory.Open()
		var far sync.WaitGroup
		far.Go(func() { _ = Serve(t.Context(), fragile{theirs, left}, behind) })
		client := NewClient(fragile{ours, left}, Options{Timeout: 10 * time.Second})
		var sessions sync.WaitGroup
		for session := range 6 {
			sessions.Go(func() { work(t, client, session, round) })
		}
		id := fmt.Sprint("round ", round)
		err := offer(t.Context(), client, id, round)
		sessions.Wait()
		if err := client.Err(); !errors.Is(err, ErrLost) || !errors.Is(err, store.ErrClosed) {
			t.Fatalf("the client says %v", err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		far.Wait()
		if err != nil && !errors.Is(err, ErrLost) {
			t.Fatalf("delivery: %v", err)
		}
		sent = append(sent, id)
		again := serve(t, memory.Open(), Options{})
		if err := errors.Join(offer(t.Context(), again, id, round), again.Close()); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, before)
	got := subjects(t, memory.Open())
	slices.Sort(sent)
	if slices.Sort(got); !slices.Equal(got, sent) {
		t.Errorf("delivered %q, want %q", got, sent)
	}
}

// offer delivers a message that names itself, of a size that changes from round to round.
func offer(ctx context.Context, s store.Store, id string, round int) error {
	content := fmt.Appendf(nil, "Subject: %s\r\n\r\n%s\r\n", id, strings.Repeat("x", 1<<(round%19)))
	outcomes, err := s.Deliver(ctx, &store.Delivery{
		ID: id, Content: bytes.NewReader(content), Targets: []store.Target{{Owner: store.Owner{User: "kept"}, Mailbox: store.Inbox}},
	})
	if err == nil {
		err = outcomes[0].Err
	}
	return err
}

func subjects(t *testing.T, s store.Store) (names []string) {
	t.Helper()
	inbox := openInbox(t, s, store.Owner{User: "kept"})
	view, err := inbox.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range view.Len() {
		names = append(names, subjectOf(t, inbox, view.UID(i)))
	}
	return names
}

// subjectOf reads the subject, which stands in the first line.
func subjectOf(t *testing.T, m store.Mailbox, uid store.UID) string {
	t.Helper()
	body, err := m.Open(t.Context(), uid)
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, min(body.Size(), 100))
	if _, err := body.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(head), "\r\n")
	return strings.TrimPrefix(line, "Subject: ")
}

// work makes calls of every kind until one tells that the connection is lost.
func work(t *testing.T, s store.Store, session, round int) {
	for n := 0; ; n++ {
		err := step(t.Context(), s, fmt.Sprintf("session%d", session), n)
		switch {
		case err == nil || errors.Is(err, store.ErrExpunged) || errors.Is(err, store.ErrExists) || errors.Is(err, context.Canceled):
		case errors.Is(err, ErrLost):
			return
		default:
			t.Errorf("round %d: %v", round, err)
			return
		}
	}
}

func step(ctx context.Context, s store.Store, user string, n int) error {
	if n%5 == 4 {
		// Some calls are given up at once or soon.
		limited, cancel := context.WithTimeout(ctx, time.Duration(n%7)*100*time.Microsecond)
		defer cancel()
		ctx = limited
	}
	err := steps(ctx, s, user)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return context.Canceled
	}
	return err
}

func steps(ctx context.Context, s store.Store, user string) error {
	account, err := s.Open(ctx, store.Owner{User: user})
	if err != nil {
		return err
	}
	defer account.Close()
	if err := account.Create(ctx, "other", ""); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	inbox, err := account.Mailbox(ctx, store.Inbox)
	if err != nil {
		return err
	}
	defer inbox.Close()
	other, err := account.Mailbox(ctx, "other")
	if err != nil {
		return err
	}
	cancel := inbox.Subscribe(func() {})
	defer cancel()
	uids, err := inbox.Append(ctx, []store.Draft{{Content: bytes.NewReader(bytes.Repeat(fourKiB, 40))}, {Content: bytes.NewReader(fourKiB)}})
	if err != nil {
		return err
	}
	view, err := inbox.View(ctx)
	if err != nil {
		return err
	}
	view.ExpungedSince(1)
	_, flagsErr := inbox.SetFlags(ctx, store.UIDSetOf(uids...), store.FlagChange{Flags: store.FlagSeen, Keywords: []string{"a", "b"}})
	_, copyErr := inbox.Copy(ctx, store.UIDSetOf(uids...), other)
	if err := errors.Join(flagsErr, copyErr); err != nil {
		return err
	}
	body, err := inbox.Open(ctx, uids[0])
	if err != nil {
		return err
	}
	_, readErr := io.Copy(io.Discard, io.NewSectionReader(body, 0, body.Size()))
	_, listErr := account.List(ctx)
	_, expungeErr := inbox.Expunge(ctx, store.AllUIDs(), false)
	return errors.Join(readErr, body.Close(), listErr, expungeErr)
}
