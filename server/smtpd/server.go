// Package smtpd is the SMTP, submission and LMTP server: it joins proto/smtp's engine to sockets, TLS, logins, access policy and whoever takes
// the messages. One Server is one service of master.cf; sessions log what Postfix's smtpd(8) logs and answer as it does.
//
// It decides nothing about who may send (mta/policy), routes nothing and stores nothing: a message is handed to an Acceptor, and only what
// that promises is promised to the client. It follows smtpd(8) and cleanup(8) of Postfix 3.7 and the PROXY protocol of HAProxy.
package smtpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Server runs sessions. Use New.
type Server struct {
	options Options

	mutex    sync.Mutex
	sessions map[*session]struct{}
	perHost  map[netip.Addr]int
	// dismissed counts the sessions that were asked to go and have not gone yet.
	dismissed int
	closing   atomic.Bool
	started   atomic.Int64
	live      atomic.Int64
	buffers   sync.Pool
	dates     dateCache
	lines     sessionLines
}

// New checks the options and returns a Server.
func New(options Options) (*Server, error) {
	switch {
	case options.Checker == nil:
		return nil, errors.New("smtpd: no policy: without one this would be an open relay")
	case options.Accept == nil && options.AcceptEach == nil:
		return nil, errors.New("smtpd: nobody accepts the messages")
	case options.Accept == nil && !options.LMTP:
		return nil, errors.New("smtpd: results per recipient need LMTP")
	case options.Spool == nil || options.QueueIDs == nil || options.Log == nil:
		return nil, errors.New("smtpd: spool, queue ids and log are required")
	case options.Hostname == "":
		return nil, errors.New("smtpd: myhostname is empty")
	case options.WrapperMode && options.TLS == nil:
		return nil, errors.New("smtpd: smtpd_tls_wrappermode needs a certificate (smtpd_tls_cert_file or smtpd_tls_chain_files)")
	}
	options.setDefaults()
	s := &Server{options: options, sessions: map[*session]struct{}{}, perHost: map[netip.Addr]int{}}
	s.buffers.New = func() any { return new([bufferSize]byte) }
	s.lines = newSessionLines(options.Log, options.SyslogName)
	return s, nil
}

// Serve accepts connections until the listener fails or the context ends, and then waits for its sessions: idle ones are told 421, those
// that receive a message finish it or run out of time. It returns nil after the context ended. Several listeners may be served at once.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	sessions, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		s.closing.Store(true)
		// The error of closing a listener twice says nothing.
		_ = listener.Close()
		s.dismissIdle()
	})
	defer stop()
	var failure error
	var group sync.WaitGroup
	for pause := 5 * time.Millisecond; ; {
		conn, err := listener.Accept()
		if err == nil {
			pause = 5 * time.Millisecond
			group.Go(func() { s.run(sessions, conn) })
			continue
		}
		if ctx.Err() != nil {
			break
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			failure = fmt.Errorf("smtpd: %w", err)
			break
		}
		s.lines.warning("accept connection: " + err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
	group.Wait()
	return failure
}

// ServeConn runs one session on a connection that somebody else accepted, and returns when it has ended.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	s.run(ctx, conn)
}

// Sessions returns how many sessions there are at the moment.
func (s *Server) Sessions() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(s.sessions)
}

func (s *Server) run(ctx context.Context, conn net.Conn) {
	x := newSession(s, conn)
	if !s.enter(x) {
		s.lines.warning("all " + strconv.Itoa(s.hardLimit()) + " sessions are at work: a client is turned away")
		x.farewell("421 4.3.2 " + s.options.Hostname + " All server ports are busy\r\n")
		x.closeConn()
		return
	}
	defer func() {
		if fault := recover(); fault != nil {
			x.crashed(fault)
		}
		x.end()
		s.leave(x)
	}()
	x.serve(ctx)
}

// enter adds a session and makes room for it when there are too many: the one whose client keeps us waiting longest is dismissed. false means that
// there are far too many and none that could go.
func (s *Server) enter(x *session) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.sessions) >= s.hardLimit() {
		return false
	}
	if len(s.sessions)-s.dismissed >= s.options.ConnectionLimit {
		if slowest := s.slowest(); slowest != nil {
			s.dismissed++
			slowest.dismiss()
		}
	}
	s.sessions[x] = struct{}{}
	s.live.Add(1)
	return true
}

// hardLimit is how many sessions there may be while those that were dismissed have not gone yet.
func (s *Server) hardLimit() int {
	return s.options.ConnectionLimit + max(s.options.ConnectionLimit, 1000)
}

// slowest is the session whose client keeps us waiting longest, nil when we work for all of them.
func (s *Server) slowest() *session {
	var found *session
	var since int64
	for x := range s.sessions {
		if at := x.owes.Load(); at != 0 && (found == nil || at < since) && !x.dismissed.Load() {
			found, since = x, at
		}
	}
	return found
}

func (s *Server) leave(x *session) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.sessions, x)
	if x.dismissed.Load() {
		s.dismissed--
	}
	s.live.Add(-1)
	if x.counted.IsValid() {
		if s.perHost[x.counted]--; s.perHost[x.counted] <= 0 {
			delete(s.perHost, x.counted)
		}
	}
}

// countHost books the session on its client's address; false means that the client has too many.
func (s *Server) countHost(x *session, address netip.Addr) (n int, ok bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	x.counted = address
	s.perHost[address]++
	n = s.perHost[address]
	return n, s.options.ConnectionCountLimit < 0 || n <= s.options.ConnectionCountLimit
}

// stressed tells whether connections run short. It takes no lock: sessions ask while they hold theirs.
func (s *Server) stressed() bool {
	return s.live.Load() >= int64(s.options.ConnectionLimit-s.options.ConnectionLimit/4)
}

func (s *Server) dismissIdle() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for x := range s.sessions {
		x.wake()
	}
}
