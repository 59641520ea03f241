// Package login is what IMAP and POP3 have in common before and around a login, and what Dovecot's imap-login and pop3-login processes are for:
// connections are accepted and counted, those that do not log in make room for others, a proxy may tell who the client is, TLS begins, and the
// login lines are written. A protocol adds its session.
//
// It speaks no protocol, checks no proof and opens no mail. Settings and log lines are those of Dovecot 2.3; the header of a proxy is
// proto/haproxy's.
package login

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"postilion/account"
)

// Defaults of Options.
const (
	defaultLoginTimeout = 3 * time.Minute
	defaultWriteTimeout = 5 * time.Minute
	defaultProxyTimeout = 3 * time.Second
)

// Options is what a Gate is told. Service and Refusal are required.
type Options struct {
	// Service is imap or pop3; the log's program is Service-login.
	Service string
	Log     *slog.Logger
	// TLS enables encryption; nil is ssl = no. It is asked for each connection, so a new certificate needs no restart.
	TLS func() *tls.Config
	// Trusted lists login_trusted_networks, whose clients count as secured and are not limited by address.
	Trusted []netip.Prefix
	// Proxies lists haproxy_trusted_networks: who may tell the client's address. ProxyTimeout is haproxy_timeout; 0 is 3 seconds.
	Proxies      []netip.Prefix
	ProxyTimeout time.Duration

	// MaxConnections bounds all connections, MaxStrangers those without login, MaxPrelogin those without login of one address (of one /64
	// of IPv6); 0 is no limit. A connection without login makes room: the oldest of the address that has most of them.
	MaxConnections, MaxStrangers, MaxPrelogin int
	// MaxUserIP is mail_max_userip_connections: sessions of one user from one address; 0 is no limit.
	MaxUserIP int

	// LoginTimeout is how long a client may stay without logging in; 0 is 3 minutes, as in Dovecot.
	LoginTimeout time.Duration
	// WriteTimeout is how long a client may take nothing of what is sent; 0 is 5 minutes.
	WriteTimeout time.Duration

	// Refusal is the whole reply, with its line end, to a connection that is not let in.
	Refusal func(text string) string
}

// Session is one connection's protocol.
type Session interface {
	// Serve is the session from the greeting to its end. TLS has begun where the connection begins with it.
	Serve(ctx context.Context)
	// Dismiss says the last words to the client, gathered in Out, and marks the session as ended. reason is for the log.
	Dismiss(text, reason string)
	// Close ends what the session holds, after Serve or its panic. The connection is closed after it.
	Close()
}

// Gate accepts connections and keeps their number within limits. Its methods may be called at the same time.
type Gate struct {
	opt     Options
	open    func(c *Conn) Session
	program string
	closing atomic.Bool

	mu    sync.Mutex
	conns map[*Conn]struct{}
	// crowds holds the connections without login by network, strangers is how many there are.
	crowds    map[netip.Addr]*crowd
	strangers int
	userIP    map[userIP]int
	running   sync.WaitGroup
}

type userIP struct {
	user string
	addr netip.Addr
}

// New makes a Gate; open makes the session of a connection that was let in, before anything is read.
func New(opt Options, open func(c *Conn) Session) *Gate {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&opt.LoginTimeout, defaultLoginTimeout)
	set(&opt.WriteTimeout, defaultWriteTimeout)
	set(&opt.ProxyTimeout, defaultProxyTimeout)
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Gate{
		opt: opt, open: open, program: opt.Service + "-login",
		conns: map[*Conn]struct{}{}, crowds: map[netip.Addr]*crowd{}, userIP: map[userIP]int{},
	}
}

// Entry is how connections of a listener begin.
type Entry struct {
	// TLS begins with the first octet, after the proxy's header.
	TLS bool
	// HAProxy expects the header of a proxy first.
	HAProxy bool
}

// Serve accepts connections that begin in clear until ctx is done, then tells every session of the Gate to end, waits for them, and returns
// nil. Several listeners may be served at the same time; the end of one ctx ends the sessions of all.
func (g *Gate) Serve(ctx context.Context, listener net.Listener) error {
	return g.ServeEntry(ctx, listener, Entry{})
}

// ServeTLS is Serve for connections that begin with TLS.
func (g *Gate) ServeTLS(ctx context.Context, listener net.Listener) error {
	return g.ServeEntry(ctx, listener, Entry{TLS: true})
}

// ServeEntry is Serve for connections that begin as entry says.
func (g *Gate) ServeEntry(ctx context.Context, listener net.Listener, entry Entry) error {
	stop := context.AfterFunc(ctx, func() {
		_ = listener.Close()
		g.Close()
	})
	defer stop()
	sessions := context.WithoutCancel(ctx)
	for pause := time.Duration(0); ; {
		conn, err := listener.Accept()
		if err == nil {
			pause = 0
			if c := g.admit(conn, entry); c != nil {
				go c.run(sessions)
			}
			continue
		}
		if ctx.Err() != nil {
			g.running.Wait()
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			g.makeRoom()
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		g.opt.Log.Error("accept: "+err.Error(), "program", g.program)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// ServeConn serves one connection in the caller's goroutine.
func (g *Gate) ServeConn(ctx context.Context, conn net.Conn, implicitTLS bool) {
	if c := g.admit(conn, Entry{TLS: implicitTLS}); c != nil {
		c.run(context.WithoutCancel(ctx))
	}
}

// Sessions returns how many connections there are at the moment.
func (g *Gate) Sessions() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// Strangers returns how many of them have not logged in.
func (g *Gate) Strangers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.strangers
}

// admit makes the Conn of a connection, or refuses it.
func (g *Gate) admit(conn net.Conn, entry Entry) *Conn {
	c := g.NewConn(conn, entry)
	if g.closing.Load() {
		c.refuse("Server shutting down.")
		return nil
	}
	g.mu.Lock()
	var victim *Conn
	full := g.opt.MaxConnections > 0 && len(g.conns) >= g.opt.MaxConnections
	if full || g.opt.MaxStrangers > 0 && g.strangers >= g.opt.MaxStrangers {
		victim = g.victim()
	}
	admitted := !full || victim != nil
	if admitted {
		g.conns[c] = struct{}{}
		g.running.Add(1)
	}
	g.mu.Unlock()
	if victim != nil {
		victim.kick(endFull)
	}
	if !admitted {
		c.refuse("Too many connections.")
		return nil
	}
	if !entry.HAProxy {
		g.join(c)
	} else {
		g.await(c)
	}
	if g.closing.Load() {
		c.kick(endShutdown)
	}
	c.session = g.open(c)
	return c
}

// run is the goroutine of a connection.
func (c *Conn) run(ctx context.Context) {
	defer c.gate.leave(c)
	defer c.hangUp()
	defer c.stopWaiting()
	defer func() {
		if p := recover(); p != nil {
			c.Reason = "Internal error"
			c.Log.Error(fmt.Sprintf("panic: %v", p), "stack", string(debug.Stack()))
		}
	}()
	if c.entry.HAProxy && !c.readProxy() || c.entry.TLS && !c.StartTLS(ctx) {
		return
	}
	c.session.Serve(ctx)
}

// makeRoom drops one connection without login.
func (g *Gate) makeRoom() {
	g.mu.Lock()
	victim := g.victim()
	g.mu.Unlock()
	if victim != nil {
		victim.kick(endFull)
	}
}

// Enter counts the connection as one of the user. It tells false when there are too many.
func (c *Conn) Enter(user *account.User) bool {
	g := c.gate
	key := userIP{user.Name, c.Client.Remote.Addr()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opt.MaxUserIP > 0 && g.userIP[key] >= g.opt.MaxUserIP {
		c.Name, c.surplus = user.Name, true
		return false
	}
	g.known(c)
	g.userIP[key]++
	c.countedAs = key
	c.User = user
	return true
}

// leave forgets a connection that ended.
func (g *Gate) leave(c *Conn) {
	g.mu.Lock()
	delete(g.conns, c)
	g.known(c)
	if key := c.countedAs; key.user != "" {
		if g.userIP[key]--; g.userIP[key] <= 0 {
			delete(g.userIP, key)
		}
	}
	g.mu.Unlock()
	g.running.Done()
}

// Close tells every session to end, and lets nobody in any more.
func (g *Gate) Close() {
	g.closing.Store(true)
	g.mu.Lock()
	conns := make([]*Conn, 0, len(g.conns))
	for c := range g.conns {
		conns = append(conns, c)
	}
	g.mu.Unlock()
	for _, c := range conns {
		c.kick(endShutdown)
	}
}
