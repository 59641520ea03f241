package pop3d

import (
	"container/list"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"postilion/account"
	"postilion/proto/pop3"
	"postilion/store"
)

const (
	outputSize = 64 << 10
	// Dovecot's login process gives up at the third bad command, its pop3 process after twenty in a row.
	maxBadPrelogin = 3
	maxBad         = 20
)

// ending is why a session is told to end by others.
type ending uint32

const (
	endNot ending = iota
	endShutdown
	endFull
)

const (
	reasonClosed   = "Connection closed"
	reasonShutdown = "Server shutting down."
)

// session is one connection.
type session struct {
	srv    *Server
	opt    *Options
	client account.Client
	log    *slog.Logger

	conn net.Conn
	raw  net.Conn
	dec  pop3.Decoder
	out  []byte
	// ended is set once nothing more can be sent or shall be read; reason is for the log. broken is set when the client cannot be reached.
	ended, broken bool
	reason        string

	stranger *list.Element
	counted  bool
	holds    chan struct{}
	// end is set by other goroutines, which then wake the reader by its deadline and close kicked.
	end    atomic.Uint32
	kicked chan struct{}
	once   sync.Once

	// name is what USER gave, tried the last name that a proof was for, banner the timestamp for APOP.
	name, tried, banner string
	user                *account.User
	method              string
	attempts            int
	began               time.Time
	bad                 int
	implicit            bool
	// surplus marks a session beyond those that its user may have.
	surplus bool

	mail    store.Account
	box     store.Mailbox
	view    store.View
	origins Origins
	// shown holds the index in view of each message when some are hidden; nil when message n has index n-1.
	shown   []int32
	drop    *pop3.Maildrop
	renamed map[uint32]string
	quit    bool
	// removed counts the messages that QUIT expunged or flagged.
	removed uint32
	count   counters
}

// counters are told when a session ends, as pop3_logout_format wants.
type counters struct {
	in, out             int64
	tops, retrievals    int
	topBytes, retrBytes int64
}

func newSession(srv *Server, conn net.Conn, implicitTLS bool) *session {
	s := &session{srv: srv, opt: &srv.opt, conn: conn, raw: conn, implicit: implicitTLS, began: time.Now(), kicked: make(chan struct{})}
	var id [12]byte
	_, _ = rand.Read(id[:])
	s.client = account.Client{
		Service: "pop3", Remote: addrPort(conn.RemoteAddr()), Local: addrPort(conn.LocalAddr()),
		Session: base64.StdEncoding.EncodeToString(id[:]),
	}
	s.client.Secured = s.trusted()
	s.log = srv.opt.Log.With("program", "pop3-login", "session", s.client.Session)
	return s
}

func addrPort(addr net.Addr) netip.AddrPort {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// trusted tells whether a connection in clear is as good as an encrypted one: over a Unix socket, from the same host, or from a trusted network.
func (s *session) trusted() bool {
	remote := s.client.Remote.Addr()
	if !remote.IsValid() || remote == s.client.Local.Addr() {
		return true
	}
	for _, network := range s.opt.Trusted {
		if network.Contains(remote) {
			return true
		}
	}
	return false
}

// serve is the session's goroutine.
func (s *session) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer s.srv.leave(s)
	defer s.close()
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			s.reason = "Internal error"
			s.log.Error(fmt.Sprintf("panic: %v", p), "stack", string(debug.Stack()))
		}
	}()
	if s.implicit && !s.startTLS(ctx) {
		return
	}
	s.greet()
	s.loop(ctx)
	s.flush()
	_ = s.update(ctx)
}

func (s *session) loop(ctx context.Context) {
	for !s.ended {
		limit := pop3.PreloginLine
		if s.user != nil {
			limit = pop3.Line
		}
		switch s.dec.Next(limit) {
		case pop3.NeedInput:
			s.read()
		case pop3.Ready:
			s.command(ctx, s.dec.Command())
			if len(s.out) >= outputSize {
				s.flush()
			}
		case pop3.TooLong:
			if s.user == nil {
				s.stop("Input buffer full, aborting", "Input buffer full")
			} else {
				s.stop("Input line too long.", "Input line too long")
			}
		}
	}
}

func (s *session) command(ctx context.Context, cmd *pop3.Command) {
	table := preloginCommands
	if s.user != nil {
		table = mailCommands
	}
	run := table(cmd.Name)
	if run == nil {
		s.unknown(cmd)
		return
	}
	if s.user == nil {
		s.bad = 0
	}
	run(s, ctx, cmd)
}

// unknown refuses a command that does not exist.
func (s *session) unknown(cmd *pop3.Command) {
	if s.user != nil {
		s.refuse(pop3.Unknown(cmd))
		return
	}
	s.fail("Unknown command.")
	if s.bad++; s.bad >= maxBadPrelogin {
		s.stop("Too many invalid bad commands.", "Too many bad commands")
	}
}

// refuse answers a mistake of a client that is logged in.
func (s *session) refuse(err error) {
	s.fail(err.Error())
	if s.bad++; s.bad > maxBad {
		s.stop("Too many bad commands.", "Too many bad commands.")
	}
}

// kick ends the session from another goroutine.
func (s *session) kick(why ending) {
	s.end.CompareAndSwap(uint32(endNot), uint32(why))
	s.once.Do(func() { close(s.kicked) })
	_ = s.raw.SetReadDeadline(time.Unix(1, 0))
}

// read sends what there is to send and waits for input, giving back memory meanwhile.
func (s *session) read() {
	s.flush()
	if s.ended {
		return
	}
	s.release()
	timeout := s.opt.IdleTimeout
	if s.user == nil {
		timeout = s.opt.LoginTimeout - time.Since(s.began)
	}
	_ = s.raw.SetReadDeadline(time.Now().Add(timeout))
	if s.stopped() {
		return
	}
	n, err := s.conn.Read(s.dec.Space())
	s.dec.Filled(n)
	s.count.in += int64(n)
	switch {
	case n > 0 || s.stopped():
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.stop("Disconnected for inactivity.", "Inactivity")
	case err != nil:
		s.ended, s.broken = true, true
		if s.reason == "" {
			s.reason = reasonClosed
		}
	}
}

// stopped ends the session when others asked for it.
func (s *session) stopped() bool {
	switch ending(s.end.Load()) {
	case endShutdown:
		s.stop("[SYS/TEMP] Server shutting down.", reasonShutdown)
	case endFull:
		s.stop("[SYS/TEMP] Too many connections.", "Connection queue full")
	default:
		return false
	}
	return true
}

// close ends what the session holds and logs its end.
func (s *session) close() {
	if !s.ended {
		s.stop("[SYS/TEMP] Internal error occurred. Refer to server log for more information.", s.reason)
	}
	s.flush()
	if s.box != nil {
		_ = s.box.Close()
	}
	if s.mail != nil {
		_ = s.mail.Close()
	}
	s.srv.unlock(s)
	s.logEnd()
	if t, ok := s.conn.(*tls.Conn); ok {
		_ = s.raw.SetDeadline(time.Now().Add(time.Second))
		_ = t.CloseWrite()
	}
	_ = s.raw.Close()
	s.release()
}
