package remote

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"postilion/mail/message"
	"postilion/store"
	"postilion/store/storetest"
)

var multipart = []byte("MIME-Version: 1.0\r\nSubject: m\r\nFrom: a <a@example.com>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n" +
	"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ntwo\r\n--b--\r\n")

func parsed(content []byte) *message.Message { return message.Parse(content) }

// complaints is a log handler that fails the test: a server logs panics only.
func complaints(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, nil))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Errorf("%s", p)
	return len(p), nil
}

// FuzzServe has a server read anything.
func FuzzServe(f *testing.F) {
	_, wrote := recorded(f)
	f.Add(wrote)
	f.Add(wrote[:len(wrote)/2])
	f.Add([]byte{version})
	f.Add(appendFrame([]byte{version}, kindPing, 0, nil))
	f.Add(appendFrame([]byte{version}, kindDrop, 0, nil))
	f.Fuzz(func(t *testing.T, wire []byte) {
		server := Server{Log: complaints(t), SpoolDir: t.TempDir()}
		hung := time.AfterFunc(30*time.Second, func() { panic("the server hangs") })
		defer hung.Stop()
		_ = server.Serve(t.Context(), newScripted(wire, false), storetest.NewMemory().Open())
	})
}

// FuzzRequest has a server with an account (1), two mailboxes (2 and 3) and a body (4) open serve any request.
func FuzzRequest(f *testing.F) {
	calls, _ := recorded(f)
	for _, call := range calls {
		f.Add(call.request, uint16(1<<15))
		f.Add(call.request, uint16(1))
	}
	f.Add([]byte{byte(opRead), 4, 100, 200, 1}, uint16(100))
	f.Add([]byte{byte(opMove), 2, 3, 1, 1, 5}, uint16(100))
	f.Fuzz(func(t *testing.T, request []byte, size uint16) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		server := Server{Log: complaints(t), SpoolDir: t.TempDir()}
		n := server.session(ctx, newScripted(nil, false), storetest.NewMemory().Open())
		defer n.link.fail(io.EOF)
		go n.link.write()
		openAll(ctx, t, n)
		x := newExchange(n.link, 5)
		x.allowance = 1 << 30
		x.cancel = cancel
		for wire := bufio.NewReader(bytes.NewReader(frames(5, true, request, int(size)))); ; {
			frame, err := n.link.readFrame(wire)
			if err != nil {
				break
			}
			x.allowance = 1 << 30
			if err := x.put(frame); err != nil {
				t.Fatal(err)
			}
		}
		n.call(ctx, x)
		if err := ctx.Err(); err != nil {
			t.Error(err)
		}
	})
}

// openAll opens what FuzzRequest promises.
func openAll(ctx context.Context, t *testing.T, n *session) {
	account, err := n.store.Open(ctx, store.Owner{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	n.handles[1] = &handle{id: 1, account: account}
	for i, name := range []string{store.Inbox, "other"} {
		_ = account.Create(ctx, name, "")
		mailbox, err := account.Mailbox(ctx, name)
		if err == nil {
			_, err = mailbox.Append(ctx, []store.Draft{{Content: bytes.NewReader(multipart), Keywords: []string{"a"}}, {Content: bytes.NewReader(fourKiB)}})
		}
		if err != nil {
			t.Fatal(err)
		}
		id := uint64(2 + i)
		n.handles[id] = &handle{id: id, mailbox: mailbox, parent: n.handles[1]}
	}
	body, err := n.handles[2].mailbox.Open(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	n.handles[4] = &handle{id: 4, body: body}
}

// fakeServer answers every call of a client with the next of the answers, the last of them again and again.
func fakeServer(wire io.ReadWriteCloser, size int, answers ...[]byte) {
	defer wire.Close()
	if _, err := wire.Write([]byte{version}); err != nil {
		return
	}
	in := bufio.NewReader(wire)
	if _, err := in.ReadByte(); err != nil {
		return
	}
	l := newLink(nil, true, 0)
	for {
		f, err := l.readFrame(in)
		if err != nil {
			return
		}
		if f.kind != kindData || !f.last {
			continue
		}
		if _, err := wire.Write(frames(f.id, false, answers[0], size)); err != nil {
			return
		}
		if len(answers) > 1 {
			answers = answers[1:]
		}
	}
}

// FuzzAnswer has a client read any answer to a call of any kind: nothing that cannot be may come out of it.
func FuzzAnswer(f *testing.F) {
	calls, _ := recorded(f)
	for _, call := range calls {
		f.Add(call.request[0], call.answer, uint16(1<<15))
		f.Add(call.request[0], call.answer, uint16(1))
	}
	f.Fuzz(func(t *testing.T, op byte, answer []byte, size uint16) {
		ours, theirs := pair(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			fakeServer(theirs, int(size), answer)
		}()
		c := NewClient(ours, Options{Timeout: 2 * time.Second, MaxMessages: 5000})
		ask(t, c, operation(op))
		c.link.fail(store.ErrClosed)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

// ask makes one call, or several where what is read comes with another call.
func ask(t *testing.T, c *Client, op operation) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a := &account{client: c, id: 1, owner: store.Owner{User: "alice"}}
	m := newMailbox(a, 2, store.Inbox)
	uids := store.UIDSetRange(1, 100)
	switch op {
	case opOpen:
		_, _ = c.Open(ctx, a.owner)
	case opDeliver:
		outcomes, err := c.Deliver(ctx, &store.Delivery{Content: strings.NewReader("x"), Targets: make([]store.Target, 2)})
		if err == nil && len(outcomes) != 2 {
			t.Errorf("%d outcomes of 2 targets", len(outcomes))
		}
	case opAccounts:
		_ = c.Accounts(ctx, func(string) bool { return true })
	case opList:
		_, _ = a.List(ctx)
	case opSubscriptions:
		_, _ = a.Subscriptions(ctx)
	case opSubscribe, opCreate, opDelete, opRename:
		_ = a.Create(ctx, "a", "")
	case opStatus:
		_, _ = a.Status(ctx, "a")
	case opMailbox:
		_, _ = a.Mailbox(ctx, "a")
	case opQuota:
		_, _ = a.QuotaUsage(ctx)
	case opView, opExpungedSince:
		if v, err := m.View(ctx); err == nil {
			checkView(t, v)
		}
	case opBody, opRead:
		askBody(ctx, t, m)
	case opStructure:
		_, _ = m.Structure(ctx, 1)
	case opAppend:
		got, err := m.Append(ctx, []store.Draft{{Content: strings.NewReader("x")}})
		if err == nil && len(got) != 1 {
			t.Errorf("%d UIDs of 1 draft", len(got))
		}
	case opCopy, opMove:
		copied, err := m.Copy(ctx, uids, m)
		if err == nil && len(copied.Source) != len(copied.Target) {
			t.Errorf("copied %+v", copied)
		}
	case opSetFlags:
		changed, _ := m.SetFlags(ctx, uids, store.FlagChange{})
		checkSet(t, changed.Changed)
		checkSet(t, changed.Modified)
	case opExpunge:
		gone, _ := m.Expunge(ctx, uids, false)
		checkSet(t, gone)
	case opTakeRecent:
		_, _ = m.TakeRecent(ctx)
	case opWatch:
		m.Subscribe(func() {})()
	}
}

func askBody(ctx context.Context, t *testing.T, m *mailbox) {
	body, err := m.Open(ctx, 1)
	if err != nil {
		return
	}
	buffer := make([]byte, 100)
	for _, offset := range []int64{0, 50, body.Size() - 100, body.Size()} {
		if offset < 0 {
			continue
		}
		n, err := body.ReadAt(buffer, offset)
		if (n < len(buffer)) != (err != nil) || int64(n) > body.Size()-offset {
			t.Errorf("read %d octets at %d of %d: %v", n, offset, body.Size(), err)
		}
	}
	_ = body.Close()
}

func checkSet(t *testing.T, set store.UIDSet) {
	t.Helper()
	for i, r := range set {
		if r.First == 0 || r.First > r.Last || (i > 0 && uint64(r.First) <= uint64(set[i-1].Last)+1) {
			t.Fatalf("the set %v", set)
		}
	}
}

// checkView wants of a view what callers rely on.
func checkView(t *testing.T, view store.View) {
	t.Helper()
	last := store.UID(0)
	for i := range view.Len() {
		entry := view.Entry(i)
		at, found := view.Index(entry.UID)
		if entry.UID <= last || entry.UID != view.UID(i) || entry.UID >= view.UIDNext() || entry.ModSeq == 0 || entry.ModSeq > view.HighestModSeq() || !found || at != i {
			t.Fatalf("entry %d is %+v, UIDNEXT %d, HIGHESTMODSEQ %d", i, entry, view.UIDNext(), view.HighestModSeq())
		}
		for k, number := range entry.Keywords {
			if int(number) >= len(view.Keywords()) || (k > 0 && entry.Keywords[k-1] >= number) {
				t.Fatalf("keywords %v of %q", entry.Keywords, view.Keywords())
			}
		}
		if entry.EmailID == "" || entry.Size < 0 {
			t.Fatalf("entry %+v", entry)
		}
		last = entry.UID
	}
	if view.UIDValidity() == 0 || view.UIDNext() == 0 || view.HighestModSeq() == 0 || view.ID() == "" {
		t.Fatalf("a view with UIDVALIDITY %d, UIDNEXT %d, HIGHESTMODSEQ %d, id %q", view.UIDValidity(), view.UIDNext(), view.HighestModSeq(), view.ID())
	}
	checkSet(t, view.ChangedSince(0))
	for _, since := range []store.ModSeq{0, view.HighestModSeq() / 2, view.HighestModSeq() - 1} {
		gone := view.ExpungedSince(since)
		checkSet(t, gone)
		for i := range view.Len() {
			if gone.Contains(view.UID(i)) {
				t.Fatalf("UID %d is there and expunged", view.UID(i))
			}
		}
		if len(gone) > 0 && gone[len(gone)-1].Last >= view.UIDNext() {
			t.Fatalf("%v is expunged, UIDNEXT is %d", gone, view.UIDNext())
		}
	}
}

// FuzzViewChange has a client that knows a view read any change of it.
func FuzzViewChange(f *testing.F) {
	calls, _ := recorded(f)
	var views [][]byte
	for _, call := range calls {
		if operation(call.request[0]) == opView {
			views = append(views, call.answer)
		}
	}
	for _, change := range views[1:] {
		f.Add(change, uint16(1<<15))
		f.Add(change, uint16(1))
	}
	f.Fuzz(func(t *testing.T, change []byte, size uint16) {
		recent := &recentViews{limit: 1000}
		b := viewBuilder{d: &decoder{source: &octets{l: newLink(nil, false, 0), rest: views[0][2:], size: chunk}}, recent: recent}
		base, err := b.whole()
		if err != nil {
			t.Fatal(err)
		}
		before := len(base.entries)
		d := &decoder{source: &octets{l: newLink(nil, false, 0), rest: change[min(2, len(change)):], size: max(1, int(size))}}
		b = viewBuilder{d: d, recent: recent}
		now, err := b.change(base)
		if err == nil {
			m := newMailbox(&account{client: lostClient(t)}, 2, store.Inbox)
			checkView(t, &view{content: now, mailbox: m})
		}
		if err == nil && d.finish() == nil && now.weight < len(now.entries) {
			t.Errorf("%d entries weigh %d", len(now.entries), now.weight)
		}
		if len(base.entries) != before {
			t.Error("the base changed")
		}
	})
}

func lostClient(t *testing.T) *Client {
	c := NewClient(newScripted(nil, false), Options{})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// octets is a source without a connection.
type octets struct {
	l    *link
	rest []byte
	size int
}

func (o *octets) next(context.Context) (*buffer, error) {
	if len(o.rest) == 0 {
		return nil, io.EOF
	}
	n := min(len(o.rest), o.size, maxPayload)
	b := o.l.take(n)
	copy(b.octets, o.rest)
	o.rest = o.rest[n:]
	return b, nil
}

func (o *octets) back(b *buffer) { o.l.give(b) }

// FuzzFrames reads any frames.
func FuzzFrames(f *testing.F) {
	_, wrote := recorded(f)
	f.Add(wrote[1:])
	f.Fuzz(func(t *testing.T, wire []byte) {
		l := newLink(nil, true, 0)
		in := bufio.NewReader(bytes.NewReader(wire))
		var again []byte
		for {
			frame, err := l.readFrame(in)
			if err != nil {
				if len(again) == len(wire) != (err == io.EOF) {
					t.Errorf("%d of %d octets read: %v", len(again), len(wire), err)
				}
				break
			}
			if len(frame.payload.octets) > maxPayload {
				t.Fatal("a payload above the limit")
			}
			mark := frame.kind
			if frame.first {
				mark |= markFirst
			}
			if frame.last {
				mark |= markLast
			}
			again = appendFrame(again, mark, frame.id, frame.payload.octets)
			l.give(frame.payload)
		}
		if !bytes.HasPrefix(wire, again) {
			t.Error("frames are not what was written")
		}
	})
}
