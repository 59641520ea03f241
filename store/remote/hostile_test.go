package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/store"
	"postilion/store/storetest"
)

// serveWire lets a server read what a hostile client wrote and returns why it ended.
func serveWire(t *testing.T, wire []byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	server := Server{HandshakeTimeout: 5 * time.Second, SpoolDir: t.TempDir()}
	return server.Serve(ctx, newScripted(append([]byte{version}, wire...), false), storetest.NewMemory().Open())
}

func credit(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

// stall is the beginning of a request that never ends.
func stall(id uint64) []byte { return appendFrame(nil, kindData|markFirst, id, []byte{byte(opList)}) }

func TestServerEndsHostileConnections(t *testing.T) {
	tooMany := []byte{}
	for id := range uint64(maxCalls + 1) {
		tooMany = append(tooMany, stall(id+1)...)
	}
	long := binary.LittleEndian.AppendUint32(nil, maxPayload+1)
	long = append(long, byte(kindData|markFirst), 1, 0, 0, 0, 0, 0, 0, 0)
	for what, wire := range map[string][]byte{
		"a frame above the limit":     long,
		"more calls than may be":      tooMany,
		"an id twice":                 append(stall(5), stall(5)...),
		"an id that falls":            append(stall(5), stall(4)...),
		"data before its call":        appendFrame(nil, kindData, 9, nil),
		"a credit above the window":   append(stall(1), appendFrame(nil, kindCredit, 1, credit(1))...),
		"a credit that overflows":     append(stall(1), appendFrame(nil, kindCredit, 1, credit(1<<32-1))...),
		"a credit of the wrong shape": append(stall(1), appendFrame(nil, kindCredit, 1, []byte{1})...),
		"an event":                    appendFrame(nil, kindEvent, 0, nil),
		"a kind that there is not":    appendFrame(nil, 33, 0, nil),
	} {
		if err := serveWire(t, wire); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := serveWire(t, stall(1)[:5]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a header that is cut off: %v", err)
	}
	if err := serveWire(t, append(stall(1), appendFrame(nil, kindDrop, 1, nil)...)); err != nil {
		t.Errorf("a call that is given up: %v", err)
	}
}

func TestDataBeyondWhatIsGrantedIsRefused(t *testing.T) {
	l := newLink(nil, true, 0)
	piece := func(n int, last bool) frame { return frame{kind: kindData, last: last, payload: l.take(n)} }
	x := newExchange(l, 1)
	for range window / smallBuffer {
		must(t, x.put(piece(0, false)))
	}
	if err := x.put(piece(0, false)); !errors.Is(err, ErrProtocol) {
		t.Errorf("a frame too much: %v", err)
	}
	x = newExchange(l, 1)
	must(t, errors.Join(x.put(piece(maxPayload, false)), x.put(piece(window-maxPayload, false))))
	if err := x.put(piece(1, false)); !errors.Is(err, ErrProtocol) {
		t.Errorf("an octet too much: %v", err)
	}
	for range 2 {
		b, err := x.next(t.Context())
		must(t, err)
		l.give(b)
	}
	must(t, errors.Join(x.put(piece(1, false)), x.put(piece(1, true))))
	if err := x.put(piece(0, false)); !errors.Is(err, ErrProtocol) {
		t.Errorf("data after the end: %v", err)
	}
}

func TestHandshake(t *testing.T) {
	for what, say := range map[string][]byte{"another version": {version + 1}, "nothing": nil} {
		ours, theirs := pair(t)
		_, err := theirs.Write(say)
		must(t, err)
		server := Server{HandshakeTimeout: 50 * time.Millisecond}
		if err := server.Serve(t.Context(), ours, storetest.NewMemory().Open()); err == nil {
			t.Errorf("%s: the server takes it", what)
		}
		must(t, theirs.Close())
		ours, theirs = pair(t)
		_, err = theirs.Write(say)
		must(t, err)
		c := NewClient(ours, Options{HandshakeTimeout: 50 * time.Millisecond})
		if _, err := c.Open(t.Context(), store.Owner{}); !errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", what, err)
		}
		must(t, errors.Join(c.Close(), theirs.Close()))
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ours, theirs := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, theirs, storetest.NewMemory().Open()) }()
	c := NewClient(ours, Options{})
	_, err := c.Open(t.Context(), store.Owner{User: "alice"})
	must(t, err)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	if _, err := c.Open(t.Context(), store.Owner{User: "alice"}); !errors.Is(err, ErrLost) {
		t.Errorf("a call after it: %v", err)
	}
	must(t, c.Close())
}

// hostile answers a client with frames that a test writes by hand: fn gets each call and writes to the wire.
func hostile(t *testing.T, options Options, fn func(wire net.Conn, id uint64)) *Client {
	t.Helper()
	ours, theirs := pair(t)
	var far sync.WaitGroup
	far.Go(func() {
		defer theirs.Close()
		_, _ = theirs.Write([]byte{version})
		_, _ = io.ReadFull(theirs, make([]byte, 1))
		l := newLink(nil, true, 0)
		in := bufio.NewReader(theirs)
		for {
			f, err := l.readFrame(in)
			if err != nil {
				return
			}
			if f.kind == kindData && f.last {
				fn(theirs, f.id)
			}
		}
	})
	c := NewClient(ours, options)
	t.Cleanup(func() {
		c.link.fail(store.ErrClosed)
		must(t, c.Close())
		far.Wait()
	})
	return c
}

func TestClientEndsHostileConnections(t *testing.T) {
	for what, answer := range map[string]func(id uint64) []byte{
		"an answer to no call":       func(uint64) []byte { return appendFrame(nil, kindData|markLast, 77, nil) },
		"a frame above the limit":    func(uint64) []byte { return binary.LittleEndian.AppendUint32(nil, 1<<30) },
		"more data than was granted": func(id uint64) []byte { return bytes.Repeat(appendFrame(nil, kindData, id, nil), window/smallBuffer+1) },
		"a credit above the window":  func(id uint64) []byte { return appendFrame(nil, kindCredit, id, credit(window)) },
		"a ping":                     func(uint64) []byte { return appendFrame(nil, kindPing, 0, nil) },
		"an end":                     func(uint64) []byte { return nil },
	} {
		c := hostile(t, Options{}, func(wire net.Conn, id uint64) {
			if reply := answer(id); reply != nil {
				_, _ = wire.Write(append(reply, make([]byte, headerSize)...))
				return
			}
			_ = wire.Close()
		})
		// The call itself takes nothing, so the reader must end the connection.
		if _, err := c.Open(t.Context(), store.Owner{}); !errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAnswersThatCannotBe has the far side tell what no store holds: the call fails, the connection does not.
func TestAnswersThatCannotBe(t *testing.T) {
	u := func(numbers ...uint64) (p []byte) {
		for _, n := range numbers {
			p = binary.AppendUvarint(p, n)
		}
		return p
	}
	texts := func(text string) []byte { return append(u(uint64(len(text))), text...) }
	join := func(parts ...[]byte) []byte { return append([]byte{statusDone}, bytes.Join(parts, nil)...) }
	entry := func(distance uint64, flags byte, number uint64) []byte {
		// Mod-sequence 1, the keyword, two dates, a size and an identifier.
		return bytes.Join([][]byte{u(distance, 2), {flags}, u(1, number), u(0, 0, 0, 0, 0, 0, 5), texts("E1")}, nil)
	}
	view := func(entries ...[]byte) []byte {
		return join(u(viewWhole, 1, 7, 100, 50), texts("M1"), u(1, 1), texts("word"), u(uint64(len(entries))), bytes.Join(entries, nil))
	}
	for what, c := range map[string]struct {
		op     operation
		answer []byte
	}{
		"UIDs that do not rise":            {opView, view(entry(5, 0, 0), entry(0, 0, 0))},
		"UID 0":                            {opView, view(entry(0, 0, 0))},
		"a UID at UIDNEXT":                 {opView, view(entry(100, 0, 0))},
		"a flag that there is not":         {opView, view(entry(5, 32, 0))},
		"a keyword past the last":          {opView, view(entry(5, 0, 1))},
		"fewer messages than told":         {opView, join(u(viewWhole, 1, 7, 100, 50), texts("M1"), u(1, 0, 9), entry(5, 0, 0))},
		"UIDVALIDITY 0":                    {opView, join(u(viewWhole, 1, 0, 100, 50), texts("M1"), u(1, 0, 0))},
		"an identifier with a line end":    {opView, join(u(viewWhole, 1, 7, 100, 50), texts("M\r\n"), u(1, 0, 0))},
		"an identifier that is too long":   {opView, join(u(viewWhole, 1, 7, 100, 50), texts(strings.Repeat("M", maxID+1)), u(1, 0, 0))},
		"a keyword with a line end":        {opView, join(u(viewWhole, 1, 7, 100, 50), texts("M1"), u(1, 1), texts("a\r\n* BYE"), u(0))},
		"a keyword that is too long":       {opView, join(u(viewWhole, 1, 7, 100, 50), texts("M1"), u(1, 1), texts(strings.Repeat("k", maxKeyword+1)), u(0))},
		"the same view without a view":     {opView, join(u(viewSame))},
		"a change without a view":          {opView, join(u(viewChange))},
		"octets left over":                 {opView, append(view(), 0)},
		"a size beyond the limit":          {opBody, join(u(maxMessage+1, 0))},
		"a small message in part":          {opBody, join(u(5, 2), []byte("ab"))},
		"more than the message":            {opBody, join(u(2, 5), []byte("abcde"))},
		"a set in no order":                {opExpunge, join(u(2, 5, 0, 1, 0))},
		"a set with 0":                     {opExpunge, join(u(1, 0, 0))},
		"a set above all UIDs":             {opExpunge, join(u(1, 1<<32-1, 1))},
		"too many ranges":                  {opExpunge, join(u(maxRanges + 1))},
		"too many UIDs":                    {opAppend, join(u(maxUIDs + 1))},
		"a UID too much":                   {opAppend, join(u(2, 2, 2))},
		"UID 0 for a draft":                {opAppend, join(u(1, 0))},
		"copies of what was not asked":     {opCopy, join(u(1, 1, 2000, 1, 2))},
		"more copies than messages":        {opCopy, join(u(1, 1, 2, 2, 2, 2))},
		"an outcome without UID":           {opDeliver, join(u(0), []byte{0, 0}, u(1), []byte{0, 0})},
		"an outcome that fails with UID":   {opDeliver, join(u(5), []byte{0, 1}, u(0), texts("x"), u(0, 0, 0))},
		"a truth that is none":             {opDeliver, join(u(5), []byte{2, 0})},
		"a mailbox name with a line end":   {opList, join(u(1), texts("a\nb"), []byte{1}, texts(""), texts("M1"))},
		"a mailbox name that is not UTF8":  {opList, join(u(1), texts("\xff"), []byte{1}, texts(""), texts("M1"))},
		"a mailbox without identifier":     {opList, join(u(1), texts("a"), []byte{1}, texts(""), texts(""))},
		"a use with a space":               {opList, join(u(1), texts("a"), []byte{1}, texts(`\Sent \Drafts`), texts("M1"))},
		"a name that is too long":          {opSubscriptions, join(u(1), texts(strings.Repeat("n", maxListed+1)))},
		"a first recent UID of 0":          {opTakeRecent, join(u(0))},
		"a mod-sequence of 64 bits":        {opSetFlags, join(u(0, 0, 1<<63))},
		"a number of eleven octets":        {opTakeRecent, join(bytes.Repeat([]byte{0xff}, 10), []byte{1})},
		"a structure that is none":         {opStructure, join(u(3), []byte("abc"))},
		"a structure beyond the limit":     {opStructure, join(u(maxStructures + 1))},
		"an error's text beyond the limit": {opTakeRecent, append([]byte{statusFailed}, u(1, maxErrorText+1)...)},
		"an error of a kind there is not":  {opTakeRecent, append([]byte{statusFailed}, u(1<<40, 0, 0, 0, 0)...)},
		"a status that there is not":       {opTakeRecent, []byte{7}},
		"nothing":                          {opTakeRecent, nil},
	} {
		client := hostile(t, Options{}, func(wire net.Conn, id uint64) { _, _ = wire.Write(frames(id, false, c.answer, chunk)) })
		if err := call1(t, client, c.op); !errors.Is(err, ErrProtocol) || errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// call1 makes one call and returns its error.
func call1(t *testing.T, c *Client, op operation) (err error) {
	ctx := t.Context()
	a := &account{client: c, id: 1, owner: store.Owner{User: "alice"}}
	m := newMailbox(a, 2, store.Inbox)
	set := store.UIDSetRange(1, 100)
	switch op {
	case opView:
		_, err = m.View(ctx)
	case opBody:
		_, err = m.Open(ctx, 1)
	case opExpunge:
		_, err = m.Expunge(ctx, set, false)
	case opAppend:
		_, err = m.Append(ctx, []store.Draft{{Content: strings.NewReader("")}})
	case opCopy:
		_, err = m.Copy(ctx, set, m)
	case opDeliver:
		_, err = c.Deliver(ctx, &store.Delivery{Content: strings.NewReader(""), Targets: make([]store.Target, 2)})
	case opList:
		_, err = a.List(ctx)
	case opSubscriptions:
		_, err = a.Subscriptions(ctx)
	case opTakeRecent:
		_, err = m.TakeRecent(ctx)
	case opSetFlags:
		_, err = m.SetFlags(ctx, set, store.FlagChange{})
	case opStructure:
		_, err = m.Structure(ctx, 1)
	default:
		t.Fatalf("no call of %q", op)
	}
	return err
}

// TestEndlessAnswersEnd has the far side tell more and more: what is kept of it is bounded.
func TestEndlessAnswersEnd(t *testing.T) {
	name := append(binary.AppendUvarint(nil, 1000), bytes.Repeat([]byte("n"), 1000)...)
	piece := bytes.Repeat(name, 60)
	ours, theirs := pair(t)
	go func() {
		defer theirs.Close()
		_, _ = theirs.Write([]byte{version})
		_, _ = io.ReadFull(theirs, make([]byte, 1))
		l, in, credits := newLink(nil, true, 0), bufio.NewReader(theirs), window
		for {
			f, err := l.readFrame(in)
			if err != nil {
				return
			}
			switch {
			case f.kind == kindData:
				_, _ = theirs.Write(appendFrame(nil, kindData, f.id, append([]byte{statusDone}, binary.AppendUvarint(nil, 1<<60)...)))
				credits -= smallBuffer
			case f.kind == kindCredit:
				credits += int(binary.LittleEndian.Uint32(f.payload.octets))
			case f.kind == kindDrop:
				return
			}
			for credits >= len(piece) {
				credits -= len(piece)
				if _, err := theirs.Write(appendFrame(nil, kindData, f.id, piece)); err != nil {
					return
				}
			}
		}
	}()
	c := NewClient(ours, Options{})
	a := &account{client: c, id: 1}
	if _, err := a.Subscriptions(t.Context()); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("an endless list: %v", err)
	}
	c.link.fail(store.ErrClosed)
	must(t, c.Close())
}

func TestSilentFarSide(t *testing.T) {
	ours, theirs := pair(t)
	defer theirs.Close()
	_, err := theirs.Write([]byte{version})
	must(t, err)
	c := NewClient(ours, Options{Timeout: 100 * time.Millisecond})
	if _, err := c.Open(t.Context(), store.Owner{}); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "silent") {
		t.Errorf("a far side that says nothing: %v", err)
	}
	must(t, c.Close())
}

// TestSlowFarSide has a far side that gives signs of life and answers nothing: what has no context of its own ends in time, the rest with its
// context, and Close does not wait for ever.
func TestSlowFarSide(t *testing.T) {
	block := make(chan struct{})
	s := serve(t, odd{Store: storetest.NewMemory().Open(), open: func(context.Context, store.Owner) (store.Account, error) {
		<-block
		return nil, errors.New("too late")
	}}, Options{Timeout: 100 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if _, err := s.Open(ctx, store.Owner{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call that ended with its context: %v", err)
	}
	if err := s.Err(); err != nil {
		t.Errorf("the connection ended: %v", err)
	}
	must(t, s.Client.Close())
	close(block)
	must(t, s.Close())
}

func TestWriterDoesNotStandStill(t *testing.T) {
	ours, theirs := pair(t)
	defer theirs.Close()
	_, err := theirs.Write([]byte{version})
	must(t, err)
	// The far side is there and reads nothing.
	c := NewClient(ours, Options{Timeout: 200 * time.Millisecond})
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := deliverTo(c, wide(10<<20)); !errors.Is(err, ErrLost) {
				t.Errorf("a far side that does not read: %v", err)
			}
		})
	}
	group.Wait()
	must(t, c.Close())
}

func TestRequestsBeyondTheLimitsAreRefused(t *testing.T) {
	s := serve(t, storetest.NewMemory().Open(), Options{})
	account, err := s.Open(t.Context(), store.Owner{User: "alice"})
	must(t, err)
	inbox, err := account.Mailbox(t.Context(), store.Inbox)
	must(t, err)
	long := strings.Repeat("x", maxName+1)
	ranges := make(store.UIDSet, maxRanges+1)
	for i := range ranges {
		ranges[i] = store.UIDRange{First: store.UID(2*i + 1), Last: store.UID(2*i + 1)}
	}
	target := store.Target{Owner: store.Owner{User: "alice"}, Mailbox: store.Inbox}
	prefixed := target
	prefixed.Prefix = []byte(long)
	for what, call := range map[string]func() error{
		"a name":     func() error { return account.Create(t.Context(), long, "") },
		"a user":     func() error { _, err := s.Open(t.Context(), store.Owner{User: long}); return err },
		"a message":  func() error { _, err := deliverTo(s, wide(maxMessage+1)); return err },
		"no message": func() error { _, err := deliverTo(s, wide(-1)); return err },
		"ranges":     func() error { _, err := inbox.Expunge(t.Context(), ranges, false); return err },
		"drafts":     func() error { _, err := inbox.Append(t.Context(), make([]store.Draft, maxDrafts+1)); return err },
		"keywords": func() error {
			_, err := inbox.SetFlags(t.Context(), nil, store.FlagChange{Keywords: make([]string, maxKeywords+1)})
			return err
		},
		"a prefix": func() error {
			_, err := s.Deliver(t.Context(), &store.Delivery{Content: wide(0), Targets: []store.Target{prefixed}})
			return err
		},
		"targets": func() error {
			_, err := s.Deliver(t.Context(), &store.Delivery{Content: wide(0), Targets: make([]store.Target, maxTargets+1)})
			return err
		},
		"quota rules": func() error {
			_, err := s.Open(t.Context(), store.Owner{Quota: store.Quota{Rules: make([]store.QuotaRule, maxRules+1)}})
			return err
		},
	} {
		err := call()
		if !errors.Is(err, store.ErrTooMany) && !errors.Is(err, store.ErrName) {
			t.Errorf("%s: %v", what, err)
		}
	}
	outcomes, err := deliverTo(s, strings.NewReader("x"))
	if err != nil || outcomes[0].Err != nil {
		t.Errorf("after all that: %v, %v", outcomes, err)
	}
	must(t, s.Close())
}

func TestHandlesAreBounded(t *testing.T) {
	s := serve(t, storetest.NewMemory().Open(), Options{})
	for i := range maxHandles + 10 {
		_, err := s.Open(t.Context(), store.Owner{User: "alice"})
		if i < maxHandles && err != nil {
			t.Fatalf("account %d: %v", i, err)
		}
		if i >= maxHandles && !errors.Is(err, store.ErrTooMany) {
			t.Fatalf("account %d: %v", i, err)
		}
	}
	must(t, s.Close())
}
