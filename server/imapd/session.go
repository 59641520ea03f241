package imapd

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
	"postilion/proto/imap"
	"postilion/store"
)

const (
	outputSize = 64 << 10
	// Dovecot's login process gives up at the third bad command, its imap process after twenty.
	maxBadPrelogin = 3
	maxBad         = 20
	// lastWrite is how long a client is waited for that is told to go.
	lastWrite = 2 * time.Second
)

// ending is why a session is told to end by others.
type ending uint32

const (
	endNot ending = iota
	endShutdown
	endFull
)

// buffers holds output buffers of sessions that have nothing to send.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// session is one connection.
type session struct {
	srv    *Server
	opt    *Options
	client account.Client
	log    *slog.Logger

	conn net.Conn
	raw  net.Conn
	dec  *imap.Decoder
	out  []byte
	// ended is set once nothing more can be sent or shall be read; reason is for the log.
	ended  bool
	reason string

	stranger *list.Element
	counted  bool
	// end and changed are set by other goroutines, which then wake the reader by its deadline.
	end atomic.Uint32
	// waiting is the context of what may take long on purpose before login; it ends when the session is told to.
	waiting     context.Context
	stopWaiting context.CancelFunc
	changed     atomic.Bool
	idling      atomic.Bool

	user        *account.User
	method      string
	attempts    int
	began       time.Time
	bad         int
	namespaces  []Namespace
	box         *selected
	saved       store.UIDSet
	enabled     enabled
	lastCommand string
	lastTime    time.Time
	count       counters
	implicit    bool
	// asked is true when the client asked for CAPABILITY before login, and so is told the new ones in the same form.
	asked bool
	// vanishedTold is true when the present command told VANISHED.
	vanishedTold bool
	// tellsNew is true in commands that tell of new mail under delay-newmail.
	tellsNew bool
}

// enabled is what ENABLE and the CONDSTORE-enabling commands turned on.
type enabled struct {
	condstore, qresync, rev2, utf8 bool
}

// counters are told when a session ends, as imap_logout_format's default does.
type counters struct {
	in, out                    int64
	deleted, expunged, trashed int
	headers, bodies            int
	headerBytes, bodyBytes     int64
}

func newSession(srv *Server, conn net.Conn, implicitTLS bool) *session {
	s := &session{srv: srv, opt: &srv.opt, conn: conn, raw: conn, implicit: implicitTLS, began: time.Now()}
	var id [12]byte
	_, _ = rand.Read(id[:])
	s.client = account.Client{
		Service: "imap", Remote: addrPort(conn.RemoteAddr()), Local: addrPort(conn.LocalAddr()),
		Session: base64.StdEncoding.EncodeToString(id[:]),
	}
	s.client.Secured = s.trusted()
	s.waiting, s.stopWaiting = context.WithCancel(context.Background())
	s.log = srv.opt.Log.With("program", "imap-login", "session", s.client.Session)
	s.dec = imap.NewDecoder(srv.prelogin, imap.Limits{Line: imap.PreloginLine, LineFatal: true, LiteralMinus: s.opt.LiteralMinus})
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
	defer s.stopWaiting()
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
}

func (s *session) loop(ctx context.Context) {
	for !s.ended {
		switch s.dec.Next() {
		case imap.NeedInput:
			s.read()
		case imap.Continue:
			s.send("+ OK\r\n")
			s.flush()
		case imap.Ready:
			s.command(ctx, s.dec.Command())
		case imap.Bad:
			s.badInput()
		case imap.Fatal:
			s.bye(s.dec.Failure())
			s.reason = s.dec.Failure()
		}
	}
	s.flush()
}

// kick ends the session from another goroutine.
func (s *session) kick(why ending) {
	s.end.CompareAndSwap(uint32(endNot), uint32(why))
	s.stopWaiting()
	_ = s.raw.SetReadDeadline(pastDeadline)
	_ = s.raw.SetWriteDeadline(time.Now().Add(lastWrite))
}

// read sends what there is to send and waits for input, giving back memory meanwhile. It returns false when the session is over or, while
// idling, when something else happened.
func (s *session) read() bool {
	s.flush()
	s.release()
	timeout := s.opt.IdleTimeout
	if s.user == nil {
		timeout = s.opt.LoginTimeout - time.Since(s.began)
	}
	ok, timedOut := s.readUntil(time.Now().Add(timeout))
	if timedOut && !s.ended {
		s.bye("Disconnected for inactivity.")
		s.reason = "Inactivity"
	}
	return ok
}

// readUntil waits for input until the deadline.
func (s *session) readUntil(deadline time.Time) (ok, timedOut bool) {
	if s.ended {
		return false, false
	}
	_ = s.raw.SetReadDeadline(deadline)
	if s.stopped() || s.idling.Load() && s.changed.Load() {
		return false, false
	}
	n, err := s.conn.Read(s.dec.Space())
	s.dec.Filled(n)
	s.count.in += int64(n)
	switch {
	case n > 0:
		return true, false
	case s.stopped():
		return false, false
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, true
	case err != nil:
		s.ended = true
		if s.reason == "" {
			s.reason = "Connection closed"
		}
	}
	return false, false
}

// stopped ends the session when others asked for it.
func (s *session) stopped() bool {
	switch ending(s.end.Load()) {
	case endShutdown:
		s.bye("Server shutting down.")
		s.reason = "Server shutting down."
	case endFull:
		s.bye("Too many connections.")
		s.reason = "Connection queue full"
	default:
		return false
	}
	return true
}

func (s *session) release() {
	s.dec.Idle()
	if cap(s.out) > 0 && len(s.out) == 0 {
		b := s.out
		s.out = nil
		buffers.Put(&b)
	}
}

// room makes sure that there is an output buffer.
func (s *session) room() {
	if s.out == nil {
		s.out = (*buffers.Get().(*[]byte))[:0]
	}
}

// send appends to the output.
func (s *session) send(text string) {
	s.room()
	s.out = append(s.out, text...)
}

// overflow sends when the buffer is as large as it should get.
func (s *session) overflow() {
	if len(s.out) >= outputSize {
		s.flush()
	}
}

func (s *session) flush() {
	if len(s.out) == 0 {
		return
	}
	if !s.ended || s.reason != "Connection closed" {
		timeout := s.opt.WriteTimeout
		if s.end.Load() != uint32(endNot) {
			timeout = lastWrite
		}
		_ = s.raw.SetWriteDeadline(time.Now().Add(timeout))
		n, err := s.conn.Write(s.out)
		s.count.out += int64(n)
		if err != nil {
			s.ended, s.reason = true, "Connection closed"
		}
	}
	if cap(s.out) > 2*outputSize {
		s.out = nil
		return
	}
	s.out = s.out[:0]
}

// tagged sends the response that ends a command; text begins with OK, NO or BAD.
func (s *session) tagged(cmd *imap.Command, text string) {
	s.room()
	tag := cmd.Tag
	if tag == "" {
		tag = "*"
	}
	s.out = append(append(s.out, tag...), ' ')
	s.out = imap.AppendText(s.out, text)
	s.out = append(s.out, "\r\n"...)
	if len(text) > 2 && text[:2] == "OK" {
		s.bad = 0
	}
}

// untagged sends "* " and the text.
func (s *session) untagged(text string) {
	s.room()
	s.out = append(s.out, "* "...)
	s.out = imap.AppendText(s.out, text)
	s.out = append(s.out, "\r\n"...)
}

func (s *session) bye(text string) {
	s.untagged("BYE " + text)
	s.ended = true
}

// refuse sends the BAD response to a mistake in a command's arguments.
func (s *session) refuse(cmd *imap.Command, text string) {
	if s.tooManyBad() {
		return
	}
	switch {
	case s.user == nil:
		s.tagged(cmd, "BAD Error in IMAP command received by server.")
	case cmd.Tag == "":
		s.tagged(cmd, "BAD Error in IMAP tag: "+text)
	case cmd.Name == "":
		s.tagged(cmd, "BAD Error in IMAP command: "+text)
	default:
		s.tagged(cmd, "BAD Error in IMAP command "+cmd.Name+": "+text)
	}
}

func (s *session) tooManyBad() bool {
	s.bad++
	if s.user == nil && s.bad >= maxBadPrelogin || s.bad > maxBad {
		s.bye("Too many invalid IMAP commands.")
		s.reason = "Too many invalid commands"
		return true
	}
	return false
}

func (s *session) badInput() {
	cmd := s.dec.Command()
	s.refuse(cmd, s.dec.Failure())
	s.lastCommand, s.lastTime = cmd.Name, time.Now()
}

// close ends what the session holds and logs its end.
func (s *session) close() {
	if !s.ended {
		s.bye("Internal error occurred. Refer to server log for more information.")
	}
	s.flush()
	s.closeMailbox()
	for _, ns := range s.namespaces {
		_ = ns.Account.Close()
	}
	s.logEnd()
	if t, ok := s.conn.(*tls.Conn); ok {
		_ = s.raw.SetDeadline(time.Now().Add(time.Second))
		_ = t.CloseWrite()
	}
	_ = s.raw.Close()
	s.release()
}
