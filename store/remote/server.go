package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"syscall"

	"postilion/store"
	"postilion/store/spool"
)

// Serve serves s to the peer of conn until the connection ends or ctx is done, with the zero value of Server. It closes conn, not s.
func Serve(ctx context.Context, conn net.Conn, s store.Store) error {
	return new(Server).Serve(ctx, conn, s)
}

// Serve serves s to the peer of conn until the connection ends, which is nil, the peer breaks the protocol, or ctx is done. When it returns, conn is
// closed, every call has ended and everything the peer had open is closed; s is not.
func (v *Server) Serve(ctx context.Context, conn net.Conn, s store.Store) error {
	ctx, cancel := context.WithCancel(ctx)
	n := v.session(ctx, conn, s)
	stop := context.AfterFunc(ctx, func() { n.link.fail(context.Cause(ctx)) })
	var writer sync.WaitGroup
	writer.Go(n.link.write)
	n.link.read(n.server.HandshakeTimeout, n.dispatch)
	stop()
	cancel()
	writer.Wait()
	n.calls.Wait()
	n.releaseAll()
	n.calls.Wait()
	err := n.link.reason()
	if err == io.EOF || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return fmt.Errorf("serving mail to another process: %w", err)
}

func (v *Server) session(ctx context.Context, conn net.Conn, s store.Store) *session {
	n := &session{server: *v, store: s, spool: spool.New(v.SpoolDir), ctx: ctx, handles: map[uint64]*handle{}}
	if n.server.HandshakeTimeout == 0 {
		n.server.HandshakeTimeout = Options{}.withDefaults().HandshakeTimeout
	}
	if n.server.WriteTimeout == 0 {
		n.server.WriteTimeout = Options{}.withDefaults().Timeout
	}
	if n.server.Log == nil {
		n.server.Log = slog.New(slog.DiscardHandler)
	}
	n.views.init()
	n.link = newLink(conn, true, n.server.WriteTimeout)
	return n
}

// session is one connection at the server.
type session struct {
	server Server
	store  store.Store
	spool  *spool.Spool
	link   *link
	ctx    context.Context
	// calls counts the goroutines of calls and of what is being closed.
	calls sync.WaitGroup
	views sentViews
	// handles is guarded by link.mu.
	handles map[uint64]*handle
}

// dispatch takes a frame of the client.
func (n *session) dispatch(f frame) error {
	l := n.link
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.exchanges[f.id]
	switch f.kind {
	case kindData:
		if f.first {
			return n.begin(f)
		}
		if x != nil {
			return x.put(f)
		}
	case kindCredit:
		if x != nil {
			return x.grant(f)
		}
	case kindDrop:
		if x != nil {
			x.abandoned = true
			x.clear()
			x.cancel()
		}
		if h := n.handles[f.id]; h != nil {
			n.drop(h)
		}
	case kindPing:
		if l.ponged != l.generation {
			l.ponged = l.generation
			l.queue(kindPong, 0, nil)
		}
	default:
		return fmt.Errorf("%w: a frame of kind %d", ErrProtocol, f.kind)
	}
	if f.id > n.link.lastID {
		return fmt.Errorf("%w: id %d before its call", ErrProtocol, f.id)
	}
	l.give(f.payload)
	return nil
}

// begin starts a call; link.mu is held.
func (n *session) begin(f frame) error {
	switch {
	case f.id <= n.link.lastID:
		return fmt.Errorf("%w: call %d after %d", ErrProtocol, f.id, n.link.lastID)
	case len(n.link.exchanges) >= maxCalls:
		return fmt.Errorf("%w: more than %d calls at a time", ErrProtocol, maxCalls)
	}
	n.link.lastID = f.id
	x := newExchange(n.link, f.id)
	n.link.exchanges[f.id] = x
	if err := x.put(f); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(n.ctx)
	x.cancel = cancel
	n.calls.Go(func() {
		defer cancel()
		n.call(ctx, x)
	})
	return nil
}

// request is a call at the server.
type request struct {
	id  uint64
	in  decoder
	out encoder
	// call is where the client's wish to drop the result is noted.
	call *exchange
}

// call answers one request.
func (n *session) call(ctx context.Context, x *exchange) {
	r := &request{id: x.id, call: x, in: decoder{source: x, ctx: ctx}}
	r.out.begin(ctx, x)
	defer func() {
		r.in.release()
		r.out.release()
		n.link.mu.Lock()
		x.clear()
		n.link.mu.Unlock()
	}()
	err := n.attempt(r)
	if err == nil {
		err = r.out.end()
	} else if !r.out.begun {
		r.out.frame.octets, r.out.err = r.out.frame.octets[:0], nil
		r.out.octet(statusFailed)
		r.out.error(err)
		err = r.out.end()
	}
	if err != nil {
		n.link.mu.Lock()
		delete(n.link.exchanges, x.id)
		n.link.queue(kindDrop, x.id, nil)
		n.link.mu.Unlock()
	}
}

// The first octet of an answer.
const (
	statusDone = iota
	statusFailed
)

// attempt carries out one request and writes its answer.
func (n *session) attempt(r *request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			n.server.Log.Error("the mail store panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("the mail store panicked: %v", p)
		}
	}()
	op := operation(r.in.octet())
	if serve := serving(op); serve != nil {
		err = serve(n, r)
	} else if err = r.in.err; err == nil {
		err = malformed("operation %d", op)
	}
	if err == nil {
		err = r.out.err
	}
	return err
}

// serving returns what serves an operation, nil for one that there is not.
func serving(op operation) func(n *session, r *request) error {
	switch op {
	case opOpen:
		return (*session).open
	case opDeliver:
		return (*session).deliver
	case opAccounts:
		return (*session).accounts
	case opList:
		return (*session).list
	case opSubscriptions:
		return (*session).subscriptions
	case opSubscribe:
		return (*session).subscribe
	case opCreate:
		return (*session).create
	case opDelete:
		return (*session).delete
	case opRename:
		return (*session).rename
	case opStatus:
		return (*session).status
	case opMailbox:
		return (*session).mailbox
	case opQuota:
		return (*session).quota
	case opView:
		return (*session).view
	case opExpungedSince:
		return (*session).expungedSince
	case opOrigins:
		return (*session).origins
	case opBody:
		return (*session).body
	case opRead:
		return (*session).read
	case opStructure:
		return (*session).structure
	case opAppend:
		return (*session).append
	case opCopy:
		return (*session).copy
	case opMove:
		return (*session).move
	case opSetFlags:
		return (*session).setFlags
	case opExpunge:
		return (*session).expunge
	case opTakeRecent:
		return (*session).takeRecent
	case opWatch:
		return (*session).watch
	}
	return nil
}

// handle is an account, a mailbox or a body that the client has open: one of the three is set.
type handle struct {
	id      uint64
	account store.Account
	mailbox store.Mailbox
	body    store.Body
	// parent is the account of a mailbox; it ends with it.
	parent *handle

	// users counts the calls that use it, and dropped tells that the last of them closes it; both guarded by link.mu.
	users   int
	dropped bool

	// viewing lets one View at a time read and move the pins, the views that the client may name.
	viewing sync.Mutex
	pins    [2]*sentView
	// watching guards unwatch, which ends the subscription.
	watching sync.Mutex
	unwatch  func()
	// told is the generation of the link in which the client was last told of a change; guarded by link.mu.
	told uint64
}

var errNoHandle = fmt.Errorf("it is not open: %w", store.ErrClosed)

// keep makes h known under the id of the call that opened it, or closes it when that cannot be.
func (n *session) keep(r *request, h *handle) error {
	l := n.link
	h.id = r.id
	l.mu.Lock()
	var err error
	switch {
	case l.err != nil || r.call.abandoned:
		err = context.Canceled
	case len(n.handles) >= maxHandles:
		err = fmt.Errorf("%w: %d accounts, mailboxes and messages are open", store.ErrTooMany, maxHandles)
	case h.parent != nil && h.parent.dropped:
		err = errNoHandle
	default:
		n.handles[h.id] = h
	}
	l.mu.Unlock()
	if err != nil {
		n.close(h)
	}
	return err
}

// use finds an open handle and keeps it open until done is called; which tells its kind.
func (n *session) use(id uint64, which func(h *handle) bool) (*handle, error) {
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	h := n.handles[id]
	if h == nil || !which(h) {
		return nil, errNoHandle
	}
	h.users++
	return h, nil
}

func isAccount(h *handle) bool { return h.account != nil }
func isMailbox(h *handle) bool { return h.mailbox != nil }
func isBody(h *handle) bool    { return h.body != nil }

func (n *session) done(h *handle) {
	n.link.mu.Lock()
	h.users--
	last := h.dropped && h.users == 0
	n.link.mu.Unlock()
	if last {
		n.close(h)
	}
}

// drop forgets a handle and those of the mailboxes of an account, and closes what no call uses; link.mu is held. Closing may wait for the
// store, so the reader does not.
func (n *session) drop(h *handle) {
	if h.account != nil {
		for _, child := range n.handles {
			if child.parent == h {
				n.drop(child)
			}
		}
	}
	delete(n.handles, h.id)
	h.dropped = true
	if h.users == 0 {
		n.calls.Go(func() { n.close(h) })
	}
}

func (n *session) releaseAll() {
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	for _, h := range n.handles {
		if n.handles[h.id] == h {
			n.drop(h)
		}
	}
}

// close closes what h holds. Nobody is there who could be told of a failure, and nothing depends on it.
func (n *session) close(h *handle) {
	defer func() {
		if p := recover(); p != nil {
			n.server.Log.Error("the mail store panicked while closing", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	switch {
	case h.account != nil:
		_ = h.account.Close()
	case h.mailbox != nil:
		if h.unwatch != nil {
			h.unwatch()
		}
		n.views.pin(h, nil, nil)
		_ = h.mailbox.Close()
	case h.body != nil:
		_ = h.body.Close()
	}
}

// event tells the client that a mailbox changed. It never waits.
func (n *session) event(h *handle) {
	l := n.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.told != l.generation && !h.dropped {
		h.told = l.generation
		l.queue(kindEvent, h.id, nil)
	}
}
