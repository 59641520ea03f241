package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postilion/mail/message"
	"postilion/store"
	"postilion/store/storetest"
)

// odd is a store whose calls do what a test says; what it does not say is a plain store's.
type odd struct {
	store.Store
	deliver func(ctx context.Context, d *store.Delivery) ([]store.Outcome, error)
	open    func(ctx context.Context, owner store.Owner) (store.Account, error)
}

func (o odd) Deliver(ctx context.Context, d *store.Delivery) ([]store.Outcome, error) {
	if o.deliver != nil {
		return o.deliver(ctx, d)
	}
	return o.Store.Deliver(ctx, d)
}

func (o odd) Open(ctx context.Context, owner store.Owner) (store.Account, error) {
	if o.open != nil {
		return o.open(ctx, owner)
	}
	return o.Store.Open(ctx, owner)
}

// counted counts what is open of a store.
type counted struct {
	store.Store
	open *atomic.Int64
}

type countedAccount struct {
	store.Account
	open *atomic.Int64
}

type countedMailbox struct {
	store.Mailbox
	open *atomic.Int64
}

type countedBody struct {
	store.Body
	open *atomic.Int64
}

func (c counted) Open(ctx context.Context, owner store.Owner) (store.Account, error) {
	a, err := c.Store.Open(ctx, owner)
	c.open.Add(1)
	return countedAccount{a, c.open}, err
}

func (c countedAccount) Mailbox(ctx context.Context, name string) (store.Mailbox, error) {
	m, err := c.Account.Mailbox(ctx, name)
	c.open.Add(1)
	return countedMailbox{m, c.open}, err
}

func (c countedMailbox) Open(ctx context.Context, uid store.UID) (store.Body, error) {
	b, err := c.Mailbox.Open(ctx, uid)
	c.open.Add(1)
	return countedBody{b, c.open}, err
}

func (c countedMailbox) Subscribe(fn func()) func() {
	c.open.Add(1)
	cancel := c.Mailbox.Subscribe(fn)
	return func() {
		cancel()
		c.open.Add(-1)
	}
}

func (c countedAccount) Close() error { c.open.Add(-1); return c.Account.Close() }
func (c countedMailbox) Close() error { c.open.Add(-1); return c.Mailbox.Close() }
func (c countedBody) Close() error    { c.open.Add(-1); return c.Body.Close() }

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func deliverTo(s store.Store, content store.Content) ([]store.Outcome, error) {
	return s.Deliver(context.Background(), &store.Delivery{Content: content, Targets: []store.Target{{Owner: store.Owner{User: "alice"}, Mailbox: store.Inbox}}})
}

func TestHandlesAreClosed(t *testing.T) {
	var open atomic.Int64
	s := serve(t, counted{storetest.NewMemory().Open(), &open}, Options{})
	for round := range 2 {
		account, err := s.Open(t.Context(), store.Owner{User: "alice"})
		must(t, err)
		inbox, err := account.Mailbox(t.Context(), store.Inbox)
		must(t, err)
		uids, err := inbox.Append(t.Context(), []store.Draft{{Content: bytes.NewReader(bytes.Repeat(fourKiB, 100))}, {Content: bytes.NewReader(fourKiB)}})
		must(t, err)
		cancel := inbox.Subscribe(func() {})
		large, err := inbox.Open(t.Context(), uids[0])
		must(t, err)
		small, err := inbox.Open(t.Context(), uids[1])
		must(t, err)
		if got := open.Load(); got != 4 {
			t.Errorf("%d handles are open for an account, a mailbox, a subscription and a large message", got)
		}
		if round > 0 {
			break
		}
		must(t, account.Close())
		eventually(t, "closing the mailbox with its account", func() bool { return open.Load() == 1 })
		if _, err := inbox.View(t.Context()); !errors.Is(err, store.ErrClosed) || errors.Is(err, ErrLost) {
			t.Errorf("the mailbox of a closed account: %v", err)
		}
		if n, err := large.ReadAt(make([]byte, 10), 300000); n != 10 || err != nil {
			t.Errorf("a message after its mailbox was closed: %d, %v", n, err)
		}
		cancel()
		must(t, errors.Join(large.Close(), small.Close(), inbox.Close(), large.Close()))
		eventually(t, "closing the message", func() bool { return open.Load() == 0 })
	}
	must(t, s.Close())
	if got := open.Load(); got != 0 {
		t.Errorf("%d handles are open after the connection ended", got)
	}
}

func TestAbandonedOpenIsClosed(t *testing.T) {
	var open atomic.Int64
	memory := counted{storetest.NewMemory().Open(), &open}
	started, proceed := make(chan struct{}), make(chan struct{})
	s := serve(t, odd{Store: memory, open: func(_ context.Context, owner store.Owner) (store.Account, error) {
		close(started)
		<-proceed
		return memory.Open(context.Background(), owner)
	}}, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	if _, err := s.Open(ctx, store.Owner{User: "alice"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
	close(proceed)
	must(t, s.Close())
	if got := open.Load(); got != 0 {
		t.Errorf("%d accounts are open that nobody has", got)
	}
}

func TestCancelReachesTheStore(t *testing.T) {
	started, told := make(chan struct{}), make(chan error, 1)
	s := serve(t, odd{Store: storetest.NewMemory().Open(), deliver: func(ctx context.Context, _ *store.Delivery) ([]store.Outcome, error) {
		close(started)
		<-ctx.Done()
		told <- ctx.Err()
		return nil, ctx.Err()
	}}, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	_, err := s.Deliver(ctx, &store.Delivery{Content: strings.NewReader("x")})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
	if err := <-told; !errors.Is(err, context.Canceled) {
		t.Errorf("the store was told %v", err)
	}
	must(t, s.Close())
}

func TestPanicIsOneCallsError(t *testing.T) {
	s := serve(t, odd{Store: storetest.NewMemory().Open(), open: func(context.Context, store.Owner) (store.Account, error) { panic("broken") }}, Options{})
	for range 3 {
		if _, err := s.Open(t.Context(), store.Owner{User: "alice"}); err == nil || !strings.Contains(err.Error(), "panicked: broken") {
			t.Errorf("a call that panics: %v", err)
		}
		outcomes, err := deliverTo(s, strings.NewReader("x"))
		if err != nil || outcomes[0].Err != nil {
			t.Errorf("another call: %v, %v", outcomes, err)
		}
	}
	must(t, s.Close())
}

func TestErrorsKeepTheirKindAndText(t *testing.T) {
	for _, kind := range errorKinds() {
		for _, err := range []error{
			kind, fmt.Errorf("some words: %w", kind), &store.Error{Operation: "append", User: "alice", Mailbox: "a/b", Err: fmt.Errorf("%w: %w", kind, store.ErrName)},
			&store.Error{Operation: "append", User: "alice", Err: kind}, fmt.Errorf("outside: %w", &store.Error{Operation: "x", Err: kind}),
		} {
			s := serve(t, odd{Store: storetest.NewMemory().Open(), deliver: func(_ context.Context, d *store.Delivery) ([]store.Outcome, error) {
				if d.ID == "all" {
					return nil, err
				}
				return []store.Outcome{{Err: err}}, nil
			}}, Options{})
			_, whole := s.Deliver(t.Context(), &store.Delivery{ID: "all", Content: strings.NewReader("")})
			outcomes, failed := s.Deliver(t.Context(), &store.Delivery{Content: strings.NewReader(""), Targets: make([]store.Target, 1)})
			must(t, failed)
			for _, got := range []error{whole, outcomes[0].Err} {
				for _, other := range errorKinds() {
					if errors.Is(got, other) != errors.Is(err, other) {
						t.Errorf("%v came as %v: is %q %v", err, got, other, errors.Is(got, other))
					}
				}
				if got.Error() != err.Error() {
					t.Errorf("%v came as %v", err, got)
				}
				var want, told *store.Error
				if _, outer := err.(*store.Error); outer && (!errors.As(err, &want) || !errors.As(got, &told) || told.Mailbox != want.Mailbox || told.Operation != want.Operation) {
					t.Errorf("%#v came as %#v", err, got)
				}
			}
			must(t, s.Close())
		}
	}
}

// wide is a message that takes no memory.
type wide int64

func (w wide) Size() int64 { return int64(w) }

func (w wide) ReadAt(p []byte, offset int64) (int, error) {
	n := int(max(0, min(int64(len(p)), int64(w)-offset)))
	for i := range p[:n] {
		p[i] = byte((offset + int64(i)) >> 8)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestLargeMessageTakesLittleMemory(t *testing.T) {
	const size = wide(40 << 20)
	buffer, want := make([]byte, 64<<10), make([]byte, 64<<10)
	s := serve(t, odd{Store: storetest.NewMemory().Open(), deliver: func(_ context.Context, d *store.Delivery) ([]store.Outcome, error) {
		if got := d.Content.Size(); got != int64(size) {
			return nil, fmt.Errorf("the message has %d octets", got)
		}
		for at := int64(0); at < int64(size); at += int64(len(buffer)) {
			_, err := d.Content.ReadAt(buffer, at)
			_, _ = size.ReadAt(want, at)
			if err != nil || !bytes.Equal(buffer, want) {
				return nil, fmt.Errorf("other octets at %d: %v", at, err)
			}
		}
		return []store.Outcome{{UID: 1}}, nil
	}}, Options{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := deliverTo(s, size)
	must(t, err)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > uint64(size)/2 {
		t.Errorf("%d octets of memory for a message of %d", got, size)
	}
	must(t, s.Close())
}

func TestBodyIsReadInPieces(t *testing.T) {
	s := serve(t, storetest.NewMemory().Open(), Options{})
	inbox := openInbox(t, s, store.Owner{User: "alice"})
	content := make([]byte, 5*chunk+123)
	_, _ = wide(len(content)).ReadAt(content, 0)
	for _, size := range []int{0, 1, firstChunk, firstChunk + 1, chunk - 1, chunk, chunk + 1, len(content)} {
		uids, err := inbox.Append(t.Context(), []store.Draft{{Content: bytes.NewReader(content[:size])}})
		must(t, err)
		body, err := inbox.Open(t.Context(), uids[0])
		must(t, err)
		got, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
		if err != nil || !bytes.Equal(got, content[:size]) {
			t.Errorf("%d octets: read %d, %v", size, len(got), err)
		}
		if n, err := body.ReadAt(make([]byte, 1), int64(size)); n != 0 || err != io.EOF {
			t.Errorf("%d octets: read at the end: %d, %v", size, n, err)
		}
		must(t, body.Close())
		if _, err := body.ReadAt(make([]byte, 1), 0); err == nil {
			t.Errorf("%d octets: read after Close", size)
		}
	}
	must(t, s.Close())
}

// TestLargeStructureIsParsedHere has a message whose structure may not travel.
func TestLargeStructureIsParsedHere(t *testing.T) {
	var content bytes.Buffer
	content.WriteString("Content-Type: multipart/mixed; boundary=b\r\n\r\n")
	for i := range 9000 {
		fmt.Fprintf(&content, "--b\r\nContent-Type: text/plain; name=\"%s%d\"\r\n\r\nx\r\n", strings.Repeat("n", 120), i)
	}
	content.WriteString("--b--\r\n")
	want := message.Parse(content.Bytes()).AppendBinary(nil)
	if len(want) <= maxStructures {
		t.Fatalf("the structure has %d octets", len(want))
	}
	s := serve(t, storetest.NewMemory().Open(), Options{})
	inbox := openInbox(t, s, store.Owner{User: "alice"})
	_, err := inbox.Append(t.Context(), []store.Draft{{Content: bytes.NewReader(content.Bytes()), Structure: message.Parse(content.Bytes())}})
	must(t, err)
	got, err := inbox.Structure(t.Context(), 1)
	must(t, err)
	if !bytes.Equal(got.AppendBinary(nil), want) {
		t.Error("another structure")
	}
	must(t, s.Close())
}

func TestMoreCallsThanSlotsWait(t *testing.T) {
	var running, most atomic.Int64
	s := serve(t, odd{Store: storetest.NewMemory().Open(), deliver: func(context.Context, *store.Delivery) ([]store.Outcome, error) {
		most.Store(max(most.Load(), running.Add(1)))
		time.Sleep(time.Millisecond)
		running.Add(-1)
		return []store.Outcome{{UID: 1}}, nil
	}}, Options{})
	var group sync.WaitGroup
	for range 4 * maxCalls {
		group.Go(func() {
			if _, err := deliverTo(s, strings.NewReader("x")); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := most.Load(); got > maxCalls {
		t.Errorf("%d calls at a time", got)
	}
	must(t, s.Close())
}

func TestSubscribersAreToldOfTheLoss(t *testing.T) {
	ours, theirs := pair(t)
	var far sync.WaitGroup
	far.Go(func() { _ = Serve(t.Context(), theirs, storetest.NewMemory().Open()) })
	c := NewClient(ours, Options{})
	inbox := openInbox(t, c, store.Owner{User: "alice"})
	told := make(chan struct{}, 10)
	inbox.Subscribe(func() { told <- struct{}{} })
	must(t, theirs.Close())
	<-told
	if _, err := inbox.View(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("a look after the loss: %v", err)
	}
	inbox.Subscribe(func() { told <- struct{}{} })
	<-told
	<-c.Done()
	must(t, c.Close())
	far.Wait()
}
