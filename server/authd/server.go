// Package authd serves Dovecot's authentication protocol to foreign programs: SASL for MTAs on auth client sockets (Postfix's smtpd_sasl_type=dovecot,
// Exim's dovecot authenticator), and userdb and passdb lookups for delivery agents on userdb and master sockets.
//
// The grammar is proto/dovecotauth, who is let in is package account's business. Dovecot's own process-internal sockets (auth-login, auth-worker,
// token-login) are not served.
package authd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postilion/account"
	"postilion/proto/dovecotauth"
)

const (
	// defaultConnections is the limit of connections at the same time.
	defaultConnections = 4096
	// maxPending is how many exchanges one connection may have open.
	maxPending = 1024
	// maxConcurrent is how many steps and lookups of one connection run at the same time; further lines wait unread.
	maxConcurrent = 32
	// helloTime is how long a client may take to say VERSION.
	helloTime = 30 * time.Second
	// idleTime is how long a connection may be silent; MTAs connect again.
	idleTime = time.Hour
	// writeTime is how long a reply may take to be accepted.
	writeTime = 30 * time.Second
	// exchangeTime is how long a client may take to answer a challenge, as in Dovecot.
	exchangeTime = 150 * time.Second
)

// Passdb answers lookups without a proof; account.Accounts does.
type Passdb interface {
	PassdbFields(ctx context.Context, client account.Client, name string) (user string, extra []account.Field, err error)
}

// Options configure a Server.
type Options struct {
	Auth      account.Authenticator
	Directory account.Directory
	// Passdb answers PASS; nil refuses it.
	Passdb Passdb
	// MaxConnections is the limit of connections at the same time; 0 is 4096.
	MaxConnections int
	Log            *slog.Logger
}

// Server serves any number of sockets.
type Server struct {
	options  Options
	pid      uint32
	sessions atomic.Int64
	lastCUID atomic.Uint32
}

// New checks the options.
func New(options Options) (*Server, error) {
	if options.Auth == nil || options.Directory == nil {
		return nil, errors.New("authd: Options.Auth and Options.Directory must be set")
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	options.Log = options.Log.With("program", "auth")
	if options.MaxConnections <= 0 {
		options.MaxConnections = defaultConnections
	}
	return &Server{options: options, pid: uint32(os.Getpid())}, nil
}

// Kind is what a socket of `service auth` is for.
type Kind uint8

// The kinds of sockets.
const (
	// Clients are MTAs and others that bring proofs.
	Clients Kind = iota
	// Lookups are delivery agents and others that ask for users.
	Lookups
	// Internal sockets join Dovecot's own processes.
	Internal
)

// KindOf tells by the name of a unix_listener what its socket is for, as Dovecot does: by the ending after the last dash of the file name.
func KindOf(name string) Kind {
	if strings.HasPrefix(name, "login/") || strings.HasPrefix(name, "token-login/") {
		return Internal
	}
	base := path.Base(name)
	_, ending, found := cutLast(base, "-")
	if !found {
		ending = base
	}
	switch ending {
	case "userdb", "master":
		return Lookups
	case "login", "token", "worker":
		return Internal
	}
	return Clients
}

func cutLast(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return text, "", false
}

// Sessions is how many connections there are.
func (s *Server) Sessions() int { return int(s.sessions.Load()) }

// Serve serves auth clients on the listener until the context ends or the listener fails, and waits for its connections.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return s.accept(ctx, listener, s.serveClient)
}

// ServeLookups serves userdb and passdb lookups on the listener as Serve does.
func (s *Server) ServeLookups(ctx context.Context, listener net.Listener) error {
	return s.accept(ctx, listener, s.serveLookups)
}

func (s *Server) accept(ctx context.Context, listener net.Listener, serve func(ctx context.Context, c *conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		raw, err := listener.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool }
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.As(err, &temporary) && temporary.Temporary():
				s.options.Log.Error(fmt.Sprintf("auth: accept() failed: %v", err))
				time.Sleep(100 * time.Millisecond)
				continue
			case errors.Is(err, net.ErrClosed):
				// Sessions go on after the socket is given to another.
				running.Wait()
				return nil
			}
			return fmt.Errorf("authd: %w", err)
		}
		if s.sessions.Add(1) > int64(s.options.MaxConnections) {
			s.sessions.Add(-1)
			s.options.Log.Warn(fmt.Sprintf("service(auth): client_limit (%d) reached, client connections are being dropped", s.options.MaxConnections))
			_ = raw.Close()
			continue
		}
		running.Go(func() {
			defer s.sessions.Add(-1)
			s.handle(ctx, raw, serve)
		})
	}
}

func (s *Server) handle(ctx context.Context, raw net.Conn, serve func(ctx context.Context, c *conn)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &conn{Conn: raw, lines: bufio.NewScanner(raw), slots: make(chan struct{}, maxConcurrent), log: s.options.Log}
	c.lines.Buffer(make([]byte, 0, 1024), dovecotauth.MaxLine+1)
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	serve(ctx, c)
	cancel()
	_ = raw.Close()
	c.running.Wait()
}

// conn is a connection whose replies come from several goroutines.
type conn struct {
	net.Conn
	lines   *bufio.Scanner
	log     *slog.Logger
	slots   chan struct{}
	running sync.WaitGroup
	writing sync.Mutex
}

// next reads a line within the time; false at the end.
func (c *conn) next(d time.Duration) ([]byte, bool) {
	if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
		return nil, false
	}
	if c.lines.Scan() {
		return c.lines.Bytes(), true
	}
	if errors.Is(c.lines.Err(), bufio.ErrTooLong) {
		c.log.Error(fmt.Sprintf("auth: BUG: Authentication client sent us more than %d bytes", dovecotauth.MaxLine))
	}
	return nil, false
}

// send writes whole lines; a client that does not take them loses the connection.
func (c *conn) send(text []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.SetWriteDeadline(time.Now().Add(writeTime))
	if err == nil {
		_, err = c.Write(text)
	}
	if err != nil {
		_ = c.Close()
	}
}

// do runs a step beside the others.
func (c *conn) do(step func()) {
	c.slots <- struct{}{}
	c.running.Go(func() {
		defer func() { <-c.slots }()
		step()
	})
}
