package login

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
	"sync"
	"sync/atomic"
	"time"

	"postilion/account"
	"postilion/proto/haproxy"
)

const (
	// OutputSize is how much output is gathered before it is sent.
	OutputSize = 64 << 10
	// lastWrite is how long a client is waited for that is told to go.
	lastWrite = 2 * time.Second
)

// Reasons for the log that have a meaning here as well.
const (
	ReasonClosed   = "Connection closed"
	reasonShutdown = "Server shutting down."
)

// ending is why a session is told to end by others.
type ending uint32

const (
	endNot ending = iota
	endShutdown
	endFull
	endCrowd
)

// buffers holds output buffers of sessions that have nothing to send.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// past is a deadline that wakes a goroutine that waits for input.
var past = time.Unix(1, 0)

// Input takes what is read.
type Input interface {
	// Space is where the next octets go, Filled says how many came.
	Space() []byte
	Filled(n int)
	// Idle gives memory back while nothing is expected to come soon.
	Idle()
}

// Conn is one connection. Its fields and methods are for the session's goroutine, unless they say otherwise.
type Conn struct {
	Client account.Client
	// Log is the login program's; a session may put its own in its place.
	Log   *slog.Logger
	Began time.Time
	// Name is the user name that was tried last, Method the mechanism, Attempts how often a login failed; User is set by Enter.
	Name, Method string
	Attempts     int
	User         *account.User
	// Out is the output that is not sent yet.
	Out []byte
	// Received and Sent count octets of the protocol.
	Received, Sent int64
	// Ended is set once nothing more shall be read, Broken when the client cannot be reached; Reason is for the log.
	Ended, Broken bool
	Reason        string
	// Interrupted, when set, is asked just before input is waited for; true means not to wait. See Wake.
	Interrupted func() bool

	gate    *Gate
	session Session
	entry   Entry
	// conn is raw, or TLS over it. Deadlines are always those of raw.
	conn, raw net.Conn

	// place and network say where the connection stands among the strangers, countedAs among those of users; Gate.mu guards them.
	place     *list.Element
	network   netip.Addr
	countedAs userIP
	// surplus marks a session beyond those that its user may have.
	surplus bool

	// end is set by other goroutines, which then wake the reader by its deadline.
	end         atomic.Uint32
	waiting     context.Context
	stopWaiting context.CancelFunc
}

// NewConn makes the Conn of a connection, which nobody counts yet: the Gate does it for each connection it lets in, and benchmarks do it
// to have a session without a client.
func (g *Gate) NewConn(conn net.Conn, entry Entry) *Conn {
	c := &Conn{gate: g, entry: entry, conn: conn, raw: conn, Began: time.Now()}
	var id [12]byte
	_, _ = rand.Read(id[:])
	c.Client = account.Client{Service: g.opt.Service, Session: base64.StdEncoding.EncodeToString(id[:])}
	c.from(addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr()))
	c.waiting, c.stopWaiting = context.WithCancel(context.Background())
	c.Log = g.opt.Log.With("program", g.program, "session", c.Client.Session)
	return c
}

func addrPort(addr net.Addr) netip.AddrPort {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// from sets the ends of the connection and whether it is as good in clear as encrypted: over a Unix socket, from the same host, or from a
// trusted network.
func (c *Conn) from(remote, local netip.AddrPort) {
	c.Client.Remote, c.Client.Local = remote, local
	c.Client.Secured = !remote.IsValid() || remote.Addr() == local.Addr() || contains(c.gate.opt.Trusted, remote.Addr())
}

// Waiting is the context of what may take long on purpose before login; it ends when the session is told to end.
func (c *Conn) Waiting() context.Context { return c.waiting }

// readProxy reads the header of a proxy.
func (c *Conn) readProxy() bool {
	proxy := c.Client.Remote.Addr()
	refuse := func(why string) bool {
		c.Ended, c.Broken = true, true
		c.Reason = "haproxy: " + why
		return false
	}
	if !contains(c.gate.opt.Proxies, proxy) {
		return refuse("Client not trusted")
	}
	_ = c.raw.SetReadDeadline(time.Now().Add(c.gate.opt.ProxyTimeout))
	if c.told() != endNot {
		return refuse(reasonShutdown)
	}
	header, err := haproxy.Read(c.raw)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse("Client timed out")
	case err != nil:
		return refuse("Failed to read a PROXY header: " + err.Error())
	}
	_ = c.raw.SetReadDeadline(time.Time{})
	if header.Source.IsValid() {
		unmap := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
		c.from(unmap(header.Source), unmap(header.Destination))
		c.Client.Secured = c.Client.Secured || header.TLS
	}
	c.gate.join(c)
	return true
}

// StartTLS begins encryption; false when that failed and the session is over.
func (c *Conn) StartTLS(ctx context.Context) bool {
	conn := tls.Server(c.raw, c.gate.opt.TLS())
	_ = c.raw.SetDeadline(time.Now().Add(min(c.gate.opt.LoginTimeout, time.Minute)))
	// Who is told to go must not wait for a client that says nothing: the deadline that kick set is not to be undone.
	if c.told() != endNot {
		_ = c.raw.SetReadDeadline(past)
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		c.Ended, c.Broken = true, true
		c.Reason = "TLS handshaking: " + err.Error()
		switch c.told() {
		case endShutdown:
			c.Reason = reasonShutdown
		case endFull, endCrowd:
			c.Reason = "Connection queue full"
		}
		return false
	}
	_ = c.raw.SetDeadline(time.Time{})
	state := conn.ConnectionState()
	c.conn, c.Client.TLS, c.Client.Secured = conn, &state, true
	return true
}

func (c *Conn) told() ending { return ending(c.end.Load()) }

// kick ends the session from another goroutine.
func (c *Conn) kick(why ending) {
	c.end.CompareAndSwap(uint32(endNot), uint32(why))
	c.stopWaiting()
	_ = c.raw.SetReadDeadline(past)
	_ = c.raw.SetWriteDeadline(time.Now().Add(lastWrite))
}

// Wake ends a wait for input, from any goroutine.
func (c *Conn) Wake() { _ = c.raw.SetReadDeadline(past) }

// Stopped ends the session when others asked for it.
func (c *Conn) Stopped() bool {
	if c.Ended {
		return c.told() != endNot
	}
	switch c.told() {
	case endShutdown:
		c.session.Dismiss("Server shutting down.", reasonShutdown)
	case endFull:
		c.session.Dismiss("Too many connections.", "Connection queue full")
	case endCrowd:
		c.session.Dismiss("Too many connections from your address.", "Too many connections from the address")
	default:
		return false
	}
	return true
}

// Fill sends what there is to send and waits for input until the deadline. ok is false when nothing came: the session is over, the time is
// (timedOut), or it was woken.
func (c *Conn) Fill(input Input, deadline time.Time) (ok, timedOut bool) {
	c.Flush()
	if c.Ended {
		return false, false
	}
	c.release()
	input.Idle()
	_ = c.raw.SetReadDeadline(deadline)
	if c.Stopped() || c.Interrupted != nil && c.Interrupted() {
		return false, false
	}
	n, err := c.conn.Read(input.Space())
	input.Filled(n)
	c.Received += int64(n)
	switch {
	case n > 0:
		return true, false
	case c.Stopped():
		return false, false
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, true
	case err != nil:
		c.lost()
	}
	return false, false
}

// lost notes that the client cannot be reached.
func (c *Conn) lost() {
	c.Ended, c.Broken = true, true
	if c.Reason == "" {
		c.Reason = ReasonClosed
	}
}

// Deadline is until when a client may say nothing, given how long one may that has logged in.
func (c *Conn) Deadline(idle time.Duration) time.Time {
	if c.User == nil {
		return c.Began.Add(c.gate.opt.LoginTimeout)
	}
	return time.Now().Add(idle)
}

// Room makes sure that there is an output buffer.
func (c *Conn) Room() {
	if c.Out == nil {
		c.Out = (*buffers.Get().(*[]byte))[:0]
	}
}

// Send appends to the output.
func (c *Conn) Send(text string) {
	c.Room()
	c.Out = append(c.Out, text...)
}

// Overflow sends when the output is as large as it should get.
func (c *Conn) Overflow() {
	if len(c.Out) >= OutputSize {
		c.Flush()
	}
}

// Flush sends the output.
func (c *Conn) Flush() {
	if len(c.Out) == 0 {
		return
	}
	if !c.Broken {
		_ = c.raw.SetWriteDeadline(time.Now().Add(c.gate.opt.WriteTimeout))
		if c.told() != endNot {
			_ = c.raw.SetWriteDeadline(time.Now().Add(lastWrite))
		}
		n, err := c.conn.Write(c.Out)
		c.Sent += int64(n)
		if err != nil {
			c.Ended, c.Broken, c.Reason = true, true, ReasonClosed
		}
	}
	if cap(c.Out) > 2*OutputSize {
		c.Out = nil
		return
	}
	c.Out = c.Out[:0]
}

// release gives an empty output buffer back.
func (c *Conn) release() {
	if cap(c.Out) > 0 && len(c.Out) == 0 {
		b := c.Out
		c.Out = nil
		buffers.Put(&b)
	}
}

// refuse answers a connection that is not let in, and closes it.
func (c *Conn) refuse(text string) {
	c.stopWaiting()
	_ = c.raw.SetWriteDeadline(time.Now().Add(time.Second))
	if !c.entry.TLS {
		_, _ = c.raw.Write([]byte(c.gate.opt.Refusal(text)))
	}
	_ = c.raw.Close()
}

// hangUp ends the session and its connection.
func (c *Conn) hangUp() {
	c.session.Close()
	if c.User == nil {
		c.logStranger()
	}
	c.Flush()
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = c.raw.SetDeadline(time.Now().Add(time.Second))
		_ = t.CloseWrite()
	}
	_ = c.raw.Close()
	c.release()
}

// Exchange runs a SASL exchange to its end. ask sends a challenge and returns the client's response; false when the client gave up or is gone,
// which ask has answered. So over is true when there is nothing left to answer.
func (c *Conn) Exchange(steps account.Exchange, response []byte, ask func(challenge []byte) ([]byte, bool)) (user *account.User, over bool, err error) {
	for {
		challenge, user, err := steps.Next(c.waiting, response)
		if err != nil || user != nil && challenge == nil {
			return user, false, err
		}
		var ok bool
		if response, ok = ask(challenge); !ok {
			return nil, true, nil
		}
		if user != nil {
			return user, false, nil
		}
	}
}

// Secs is how long the connection has been there.
func (c *Conn) secs() string { return fmt.Sprintf("%d secs", int(time.Since(c.Began).Seconds())) }
