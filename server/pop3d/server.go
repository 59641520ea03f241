package pop3d

import (
	"sync"
	"time"

	"postilion/server/login"
)

// Server serves POP3: its Gate lets connections in. Its methods may be called at the same time.
type Server struct {
	*login.Gate
	opt Options

	mu sync.Mutex
	// locked holds the users whose session keeps others out; the channel is closed when it ends.
	locked map[string]chan struct{}
}

// New makes a Server.
func New(opt Options) *Server {
	opt.setDefaults()
	srv := &Server{opt: opt, locked: map[string]chan struct{}{}}
	opt.Options.Service = "pop3"
	opt.Options.Refusal = func(text string) string { return "-ERR [SYS/TEMP] " + text + "\r\n" }
	srv.Gate = login.New(opt.Options, func(c *login.Conn) login.Session { return &session{Conn: c, srv: srv, opt: &srv.opt} })
	return srv
}

// lock waits until no other session of the user holds the lock of pop3_lock_session. It tells false when that takes too long.
func (srv *Server) lock(s *session) bool {
	timeout := time.NewTimer(srv.opt.LockTimeout)
	defer timeout.Stop()
	for {
		srv.mu.Lock()
		held, busy := srv.locked[s.User.Name]
		if !busy {
			s.holds = make(chan struct{})
			srv.locked[s.User.Name] = s.holds
		}
		srv.mu.Unlock()
		if !busy {
			return true
		}
		select {
		case <-held:
		case <-s.Waiting().Done():
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
	delete(srv.locked, s.User.Name)
	srv.mu.Unlock()
	close(s.holds)
	s.holds = nil
}
