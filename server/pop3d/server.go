package pop3d

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves POP3. Its methods may be called at the same time.
type Server struct {
	opt     Options
	closing atomic.Bool

	mu       sync.Mutex
	sessions map[*session]struct{}
	// strangers holds the sessions without login, oldest first.
	strangers *list.List
	// strange counts strangers by address, userIP sessions by user and address.
	strange map[netip.Addr]int
	userIP  map[userIP]int
	// locked holds the users whose session keeps others out; the channel is closed when it ends.
	locked  map[string]chan struct{}
	running sync.WaitGroup
}

type userIP struct {
	user string
	addr netip.Addr
}

// New makes a Server.
func New(opt Options) *Server {
	opt.setDefaults()
	return &Server{
		opt:      opt,
		sessions: map[*session]struct{}{}, strangers: list.New(),
		strange: map[netip.Addr]int{}, userIP: map[userIP]int{}, locked: map[string]chan struct{}{},
	}
}

// Serve accepts connections that begin in clear until ctx is done, then tells every session of the Server to end, waits for them, and returns
// nil. Several listeners may be served at the same time; the end of one ctx ends the sessions of all.
func (srv *Server) Serve(ctx context.Context, listener net.Listener) error {
	return srv.serve(ctx, listener, false)
}

// ServeTLS is Serve for connections that begin with TLS.
func (srv *Server) ServeTLS(ctx context.Context, listener net.Listener) error {
	return srv.serve(ctx, listener, true)
}

func (srv *Server) serve(ctx context.Context, listener net.Listener, implicitTLS bool) error {
	stop := context.AfterFunc(ctx, func() {
		_ = listener.Close()
		srv.closeAll()
	})
	defer stop()
	for pause := time.Duration(0); ; {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				srv.running.Wait()
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			srv.opt.Log.Error("accept: "+err.Error(), "program", "pop3-login")
			time.Sleep(pause)
			continue
		}
		pause = 0
		srv.start(ctx, conn, implicitTLS)
	}
}

// ServeConn serves one connection in the caller's goroutine.
func (srv *Server) ServeConn(ctx context.Context, conn net.Conn, implicitTLS bool) {
	s := srv.admit(conn, implicitTLS)
	if s == nil {
		return
	}
	s.serve(ctx)
}

func (srv *Server) start(ctx context.Context, conn net.Conn, implicitTLS bool) {
	if s := srv.admit(conn, implicitTLS); s != nil {
		go s.serve(ctx)
	}
}

// admit makes the session of a connection, or refuses it.
func (srv *Server) admit(conn net.Conn, implicitTLS bool) *session {
	s := newSession(srv, conn, implicitTLS)
	srv.mu.Lock()
	refusal, victim := "", (*session)(nil)
	switch {
	case srv.closing.Load():
		refusal = "[SYS/TEMP] Server shutting down."
	case srv.opt.MaxPrelogin > 0 && srv.strange[s.client.Remote.Addr()] >= srv.opt.MaxPrelogin:
		refusal = "[SYS/TEMP] Too many connections from your address."
	case srv.opt.MaxConnections > 0 && len(srv.sessions) >= srv.opt.MaxConnections:
		if oldest := srv.strangers.Front(); oldest != nil {
			victim = oldest.Value.(*session)
			srv.removeStranger(victim)
		} else {
			refusal = "[SYS/TEMP] Too many connections."
		}
	}
	if refusal == "" {
		srv.sessions[s] = struct{}{}
		s.stranger = srv.strangers.PushBack(s)
		srv.strange[s.client.Remote.Addr()]++
		srv.running.Add(1)
	}
	srv.mu.Unlock()
	if victim != nil {
		victim.kick(endFull)
	}
	if refusal != "" {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		if !implicitTLS {
			_, _ = conn.Write([]byte("-ERR " + refusal + "\r\n"))
		}
		_ = conn.Close()
		return nil
	}
	return s
}

// removeStranger takes s from those without login; mu is held.
func (srv *Server) removeStranger(s *session) {
	if s.stranger == nil {
		return
	}
	srv.strangers.Remove(s.stranger)
	s.stranger = nil
	addr := s.client.Remote.Addr()
	if srv.strange[addr]--; srv.strange[addr] <= 0 {
		delete(srv.strange, addr)
	}
}

// loggedIn counts the session as one of its user. It tells false when there are too many.
func (srv *Server) loggedIn(s *session) bool {
	key := userIP{s.user.Name, s.client.Remote.Addr()}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.opt.MaxUserIP > 0 && srv.userIP[key] >= srv.opt.MaxUserIP {
		return false
	}
	srv.removeStranger(s)
	srv.userIP[key]++
	s.counted = true
	return true
}

// leave forgets a session that ended.
func (srv *Server) leave(s *session) {
	srv.mu.Lock()
	delete(srv.sessions, s)
	srv.removeStranger(s)
	if s.counted {
		key := userIP{s.user.Name, s.client.Remote.Addr()}
		if srv.userIP[key]--; srv.userIP[key] <= 0 {
			delete(srv.userIP, key)
		}
	}
	srv.mu.Unlock()
	srv.running.Done()
}

func (srv *Server) closeAll() {
	srv.closing.Store(true)
	srv.mu.Lock()
	sessions := make([]*session, 0, len(srv.sessions))
	for s := range srv.sessions {
		sessions = append(sessions, s)
	}
	srv.mu.Unlock()
	for _, s := range sessions {
		s.kick(endShutdown)
	}
}

// lock waits until no other session of the user holds the lock of pop3_lock_session. It tells false when that takes too long.
func (srv *Server) lock(s *session) bool {
	timeout := time.NewTimer(srv.opt.LockTimeout)
	defer timeout.Stop()
	for {
		srv.mu.Lock()
		held, busy := srv.locked[s.user.Name]
		if !busy {
			s.holds = make(chan struct{})
			srv.locked[s.user.Name] = s.holds
		}
		srv.mu.Unlock()
		if !busy {
			return true
		}
		select {
		case <-held:
		case <-s.kicked:
			return false
		case <-timeout.C:
			return false
		}
	}
}

// unlock lets other sessions of the user in.
func (srv *Server) unlock(s *session) {
	if s.holds == nil {
		return
	}
	srv.mu.Lock()
	delete(srv.locked, s.user.Name)
	srv.mu.Unlock()
	close(s.holds)
	s.holds = nil
}

// Sessions returns how many sessions there are at the moment.
func (srv *Server) Sessions() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.sessions)
}
