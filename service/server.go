package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"postilion/resolve"
	"postilion/service/control"
	"postilion/service/listen"
)

// Options say what to serve.
type Options struct {
	// PostfixDir holds main.cf and master.cf; "" leaves that half out.
	PostfixDir string
	// DovecotFile is dovecot.conf; "" leaves that half out.
	DovecotFile string
	// Getenv is the environment.
	Getenv func(string) string
	// Stderr gets the ready line, and the log where no file and no syslog takes it.
	Stderr io.Writer
	// Root does what needs root; nil: the process does everything by its own rights.
	Root Root
	// Resolve says where names are looked up; the zero value asks the host's resolv.conf and hosts file.
	Resolve resolve.Options
}

// Server is a running system. Its methods are for one goroutine.
type Server struct {
	options Options
	// log follows the configuration in use.
	log     *slog.Logger
	follow  currentLog
	stores  *stores
	sockets *listen.Set
	logs    *logs
	control *control.Server
	current *generation
	old     []*generation
	// fatal gets what the process cannot go on after.
	fatal    chan error
	pidFiles []string
	leisure  leisure
}

// generation is what one reading of the configuration built and serves.
type generation struct {
	endpoints []Endpoint
	handles   []*listen.Handle
	cancel    context.CancelFunc
	running   sync.WaitGroup
	sessions  []func() int
	closers   []io.Closer
	// sinks names the log destinations that its loggers write to.
	sinks map[string]bool
	// accepting counts the listeners that still yield connections; open counts the connections that were yielded and not yet closed, among
	// them those that no server counts as a session yet.
	accepting, open atomic.Int64
}

// idle tells that nobody uses the generation any more.
func (g *generation) idle() bool {
	// In this order: a listener that has ended yields no connection that open does not count.
	if g.accepting.Load() > 0 || g.open.Load() > 0 {
		return false
	}
	for _, count := range g.sessions {
		if count() > 0 {
			return false
		}
	}
	return true
}

// end stops what runs for the generation, waits for it and closes what it alone used.
func (g *generation) end() error {
	g.cancel()
	g.running.Wait()
	var errs []error
	for _, c := range g.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Start reads the configuration, builds everything, opens the sockets and serves. Every socket accepts when it returns.
func Start(ctx context.Context, options Options) (*Server, error) {
	opener, err := options.opener()
	if err != nil {
		return nil, err
	}
	s := &Server{options: options, fatal: make(chan error, 1), logs: &logs{stderr: options.Stderr, append: options.append}}
	built, err := s.build(ctx)
	if err != nil {
		return nil, errors.Join(err, s.closeStores(), s.logs.close())
	}
	s.pidFiles = built.pidFiles()
	s.sockets = listen.New(s.log, opener)
	if err := s.take(ctx, built); err != nil {
		return nil, errors.Join(err, s.sockets.Close(), s.closeStores(), s.logs.close())
	}
	s.openControl(built)
	return s, nil
}

func (s *Server) closeStores() error {
	if s.stores == nil {
		return nil
	}
	return s.stores.close()
}

// Endpoints lists what is served now.
func (s *Server) Endpoints() []Endpoint { return slices.Clone(s.current.endpoints) }

// Fatal yields an error after which the process must end, such as a database that cannot write any more.
func (s *Server) Fatal() <-chan error { return s.fatal }

// Log is the server's log.
func (s *Server) Log() *slog.Logger { return s.log }

// Ready is the line that tells that every listener accepts.
func (s *Server) Ready() string {
	var parts []string
	for i := range s.current.endpoints {
		parts = append(parts, s.current.endpoints[i].String())
	}
	return "ready: " + strings.Join(parts, ", ")
}

// take opens the sockets of a build, hands them over to it and begins to serve.
func (s *Server) take(ctx context.Context, built *builder) error {
	var endpoints []Endpoint
	for _, e := range built.endpoints {
		err := s.sockets.Open(e.Address)
		switch {
		case err != nil && e.Optional && lacksFamily(err):
			s.log.Warn(fmt.Sprintf("%s is left out: %v", e.String(), err))
			continue
		case err != nil:
			// Those that were opened before would take connections that nobody serves.
			return errors.Join(err, s.sockets.CloseUnused())
		}
		endpoints = append(endpoints, e)
	}
	if len(endpoints) == 0 {
		return errors.New("nothing to serve: neither master.cf nor dovecot.conf names a listener that this version serves")
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g := &generation{endpoints: endpoints, cancel: cancel, sessions: built.sessions, closers: built.closers, sinks: built.sinks}
	for _, keeper := range built.certificates.keepers {
		g.running.Go(func() { keeper.Watch(running) })
	}
	for _, work := range built.background {
		g.running.Go(func() { work(running) })
	}
	for _, e := range endpoints {
		handle, err := s.sockets.Take(e.Address)
		if err != nil {
			cancel()
			return err
		}
		g.handles = append(g.handles, handle)
		g.accepting.Add(1)
		g.running.Go(func() { s.serve(running, &e, &lingering{Handle: handle, ctx: running, generation: g}) })
	}
	if s.current != nil {
		for _, handle := range s.current.handles {
			// Those that nobody took over are of addresses that are not configured any more.
			handle.Close()
		}
		s.old = append(s.old, s.current)
	}
	s.current = g
	s.follow.set(built.log)
	return s.sockets.CloseUnused()
}

func (s *Server) serve(ctx context.Context, e *Endpoint, listener net.Listener) {
	err := e.serve(ctx, listener)
	if err != nil && ctx.Err() == nil {
		s.log.Error(fmt.Sprintf("%s: %v", e.String(), err))
	}
}

// lingering is a listener that, after another generation took its socket, yields nothing until the context ends, so that the server behind it
// goes on with its sessions.
type lingering struct {
	*listen.Handle
	ctx        context.Context
	generation *generation
	ended      sync.Once
}

// Accept implements net.Listener.
func (l *lingering) Accept() (net.Conn, error) {
	conn, err := l.Handle.Accept()
	if err != nil {
		l.ended.Do(func() { l.generation.accepting.Add(-1) })
		<-l.ctx.Done()
		return nil, err
	}
	l.generation.open.Add(1)
	return &counted{Conn: conn, generation: l.generation}, nil
}

// counted is a connection that keeps its generation in use until it is closed.
type counted struct {
	net.Conn
	generation *generation
	closed     sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.closed.Do(func() { c.generation.open.Add(-1) })
	return c.Conn.Close()
}

// SyscallConn implements syscall.Conn for what looks at the socket itself.
func (c *counted) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}

// Reload reads the configuration again and, when all of it can be used, serves by it; sessions in flight keep what they began with. On an
// error nothing changes.
func (s *Server) Reload(ctx context.Context) error {
	built, err := s.build(ctx)
	if err != nil {
		return fmt.Errorf("reload: %w; the configuration in use stays", err)
	}
	// Before anything is swapped: a log that cannot be opened again is a reason to change nothing.
	if err := s.logs.reopen(); err != nil {
		return fmt.Errorf("reload: %w; the configuration in use stays", err)
	}
	if err := s.take(ctx, built); err != nil {
		return fmt.Errorf("reload: %w; the configuration in use stays", err)
	}
	return nil
}

// Tidy ends generations that were replaced and have no sessions left, closes the log destinations that nobody writes to any more, and gives back
// memory. It is called from time to time.
func (s *Server) Tidy() {
	s.old = slices.DeleteFunc(s.old, func(g *generation) bool {
		if !g.idle() {
			return false
		}
		if err := g.end(); err != nil {
			s.log.Error(err.Error())
		}
		return true
	})
	used := maps.Clone(s.current.sinks)
	for _, g := range s.old {
		maps.Copy(used, g.sinks)
	}
	if err := errors.Join(s.logs.keep(used), s.stores.tidy(time.Now())); err != nil {
		s.log.Error(err.Error())
	}
	s.leisure.look()
}

// Stop ends in order: no new connections, sessions are told and end, stores are closed. ctx bounds the wait for sessions.
func (s *Server) Stop(ctx context.Context) error {
	err := errors.Join(s.sockets.Close(), s.closeControl())
	done := make(chan error, 1)
	go func() {
		var errs []error
		for _, g := range append(s.old, s.current) {
			g.cancel()
		}
		for _, g := range append(s.old, s.current) {
			errs = append(errs, g.end())
		}
		done <- errors.Join(errs...)
	}()
	select {
	case ended := <-done:
		return errors.Join(err, ended, s.closeStores(), s.logs.close())
	case <-ctx.Done():
		// Sessions still use the stores: what they were told is on the disk, and the process ends with them.
		return errors.Join(err, fmt.Errorf("stop: sessions did not end in time: %w", ctx.Err()), s.logs.close())
	}
}

// TidyEvery is how often Tidy is worth calling.
const TidyEvery = 5 * time.Second
