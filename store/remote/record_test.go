package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"postilion/store"
	"postilion/store/storetest"
)

// recording is a connection that keeps what is written to it.
type recording struct {
	net.Conn
	mu      sync.Mutex
	written bytes.Buffer
}

func (r *recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written.Write(p)
	return r.Conn.Write(p)
}

// exchanged is one call as it went over the wire, without its frames.
type exchanged struct{ request, answer []byte }

// record has a client talk to a store and returns the calls in order, and all that the client wrote.
func record(tb testing.TB, behind store.Store, talk func(c *Client)) (calls []exchanged, wrote []byte) {
	tb.Helper()
	ours, theirs := pair(tb)
	client, server := &recording{Conn: ours}, &recording{Conn: theirs}
	var far sync.WaitGroup
	far.Go(func() {
		if err := Serve(context.Background(), server, behind); err != nil {
			tb.Error(err)
		}
	})
	c := NewClient(client, Options{})
	talk(c)
	if err := c.Close(); err != nil {
		tb.Fatal(err)
	}
	far.Wait()
	requests, answers := streams(client.written.Bytes()), streams(server.written.Bytes())
	for id := uint64(1); requests[id] != nil; id++ {
		calls = append(calls, exchanged{requests[id], answers[id]})
	}
	return calls, client.written.Bytes()
}

// streams puts the payloads of data frames together by their id.
func streams(wire []byte) map[uint64][]byte {
	found := map[uint64][]byte{}
	for wire = wire[1:]; len(wire) >= headerSize; {
		n, id := int(binary.LittleEndian.Uint32(wire)), binary.LittleEndian.Uint64(wire[5:])
		if kind(wire[4]&^(markFirst|markLast)) == kindData {
			found[id] = append(found[id], wire[headerSize:headerSize+n]...)
		}
		wire = wire[headerSize+n:]
	}
	return found
}

// frames cuts a stream into data frames of this size, or so large that a window has room for all of them.
func frames(id uint64, first bool, stream []byte, size int) (wire []byte) {
	size = max(size, len(stream)/16+1)
	for begun := false; ; begun = true {
		n := min(len(stream), size)
		mark := kindData
		if first && !begun {
			mark |= markFirst
		}
		if n == len(stream) {
			mark |= markLast
		}
		wire = appendFrame(wire, mark, id, stream[:n])
		if stream = stream[n:]; mark&markLast != 0 {
			return wire
		}
	}
}

func appendFrame(wire []byte, mark kind, id uint64, payload []byte) []byte {
	wire = binary.LittleEndian.AppendUint32(wire, uint32(len(payload)))
	wire = append(wire, byte(mark))
	wire = binary.LittleEndian.AppendUint64(wire, id)
	return append(wire, payload...)
}

// scripted is a connection whose peer says what was written down before and hears nothing.
type scripted struct {
	in     io.Reader
	closed chan struct{}
	once   sync.Once
	// hold keeps the connection open at the end of the script until it is closed.
	hold bool
}

func newScripted(script []byte, hold bool) *scripted {
	return &scripted{in: bytes.NewReader(script), closed: make(chan struct{}), hold: hold}
}

func (s *scripted) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if errors.Is(err, io.EOF) && s.hold {
		<-s.closed
	}
	return n, err
}

func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }

func (s *scripted) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (*scripted) LocalAddr() net.Addr              { return nil }
func (*scripted) RemoteAddr() net.Addr             { return nil }
func (*scripted) SetDeadline(time.Time) error      { return nil }
func (*scripted) SetReadDeadline(time.Time) error  { return nil }
func (*scripted) SetWriteDeadline(time.Time) error { return nil }

// conversation makes a call of every kind.
func conversation(tb testing.TB, c *Client) {
	tb.Helper()
	ctx := tb.Context()
	check := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	owner := store.Owner{
		User: "alice", Home: "/home/alice", Location: "~/Maildir", UID: 1000, GID: -1,
		Quota: store.Quota{Rules: []store.QuotaRule{{Mailbox: "*", Bytes: 1 << 30}, {Mailbox: "Trash", Messages: 10, Relative: true, Ignore: true}}},
	}
	account, err := c.Open(ctx, owner)
	check(err)
	inbox, err := account.Mailbox(ctx, store.Inbox)
	check(err)
	check(account.Create(ctx, "other", `\Sent`))
	other, err := account.Mailbox(ctx, "other")
	check(err)
	date := time.Date(2024, 5, 6, 7, 8, 9, 10, time.FixedZone("", 7200))
	structured := store.Draft{Content: bytes.NewReader(multipart), Structure: parsed(multipart), Flags: store.FlagSeen, Keywords: []string{"$Forwarded", "b"}, InternalDate: date}
	uids, err := inbox.Append(ctx, []store.Draft{structured, {Content: bytes.NewReader(nil)}, {Content: bytes.NewReader(bytes.Repeat(fourKiB, 20))}})
	check(err)
	_, err = inbox.View(ctx)
	check(err)
	since := store.ModSeq(1 << 40)
	_, err = inbox.SetFlags(ctx, store.UIDSetOf(uids[0]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagFlagged, Keywords: []string{"c"}, UnchangedSince: &since})
	check(err)
	_, err = inbox.Copy(ctx, store.AllUIDs(), other)
	check(err)
	_, err = inbox.Move(ctx, store.UIDSetOf(uids[1]), other)
	check(err)
	view, err := inbox.View(ctx)
	check(err)
	view.ExpungedSince(1)
	_, err = inbox.TakeRecent(ctx)
	check(err)
	inbox.Subscribe(func() {})()
	_, err = inbox.Structure(ctx, uids[0])
	check(err)
	for _, uid := range []store.UID{uids[0], uids[2]} {
		body, err := inbox.Open(ctx, uid)
		check(err)
		_, err = io.Copy(io.Discard, io.NewSectionReader(body, 0, body.Size()))
		check(errors.Join(err, body.Close()))
	}
	_, err = inbox.Open(ctx, 99)
	if !errors.Is(err, store.ErrExpunged) {
		tb.Fatal(err)
	}
	_, err = c.Deliver(ctx, &store.Delivery{
		ID: "id", Content: bytes.NewReader(multipart), Structure: parsed(multipart), InternalDate: date, Targets: []store.Target{
			{Owner: owner, Mailbox: "Lists", Create: true, SubscribeCreated: true, Prefix: []byte("Delivered-To: x\r\n"), Flags: store.FlagSeen, Keywords: []string{"k"}},
			{Owner: owner, Mailbox: "none"},
		},
	})
	check(err)
	_, err = inbox.Expunge(ctx, store.UIDSetOf(uids[2]), false)
	check(err)
	_, err = inbox.View(ctx)
	check(err)
	check(account.Subscribe(ctx, "other", true))
	check(account.Rename(ctx, "other", "another"))
	_, err = account.List(ctx)
	check(err)
	_, err = account.Subscriptions(ctx)
	check(err)
	_, err = account.Status(ctx, "another")
	check(err)
	_, err = account.QuotaUsage(ctx)
	check(err)
	check(account.Delete(ctx, "another"))
	check(c.Accounts(ctx, func(string) bool { return true }))
	check(errors.Join(inbox.Close(), other.Close(), account.Close()))
}

// recorded is the conversation with a plain store, sessions for as many users as it takes to have every kind.
func recorded(tb testing.TB) (calls []exchanged, wrote []byte) {
	tb.Helper()
	calls, wrote = record(tb, storetest.NewMemory().Open(), func(c *Client) { conversation(tb, c) })
	var seen []operation
	for _, call := range calls {
		seen = append(seen, operation(call.request[0]))
	}
	for op := opOpen; op <= opWatch; op++ {
		if !slices.Contains(seen, op) {
			tb.Fatalf("no call of %q (%d) was recorded", op, op)
		}
	}
	return calls, wrote
}
