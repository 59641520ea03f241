package authd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"postilion/account"
	"postilion/proto/dovecotauth"
)

// exchange is an AUTH that has not come to its end.
type exchange struct {
	id        uint32
	steps     account.Exchange
	mechanism string
	// name is the user name as the client gave it, for the reply to a failure.
	name string
	// finalInOK tells that the client takes additional data with OK.
	finalInOK bool
	// success waits for the client's empty answer to additional data.
	success *account.User
	busy    bool
	since   time.Time
}

// client is the state of one auth client connection.
type client struct {
	server *Server
	conn   *conn

	mu      sync.Mutex
	pending map[uint32]*exchange
}

func (s *Server) serveClient(ctx context.Context, c *conn) {
	var cookie [16]byte
	// crypto/rand.Read never fails (it ends the process when the system has no randomness).
	_, _ = rand.Read(cookie[:])
	hello := dovecotauth.Handshake{SPID: s.pid, CUID: s.lastCUID.Add(1), Cookie: hex.EncodeToString(cookie[:])}
	for _, m := range s.options.Auth.Mechanisms(account.Client{Secured: true}) {
		hello.Mechanisms = append(hello.Mechanisms, dovecotauth.Mechanism{Name: m.Name, Flags: flagsOf(m)})
	}
	c.send(hello.Append(nil))
	var listener dovecotauth.Listener
	state := &client{server: s, conn: c, pending: map[uint32]*exchange{}}
	for {
		wait := idleTime
		if !listener.Greeted() {
			wait = helloTime
		}
		line, ok := c.next(wait)
		if !ok {
			return
		}
		request, err := listener.Take(line)
		if err == nil {
			err = state.take(ctx, &request)
		}
		if err != nil {
			c.log.Error(fmt.Sprintf("auth: BUG: Authentication client: %v", err))
			return
		}
	}
}

func flagsOf(m account.Mechanism) []string {
	switch {
	case m.Name == "ANONYMOUS":
		return []string{"anonymous"}
	case m.Plaintext:
		return []string{"plaintext"}
	case m.Name == "CRAM-MD5":
		return []string{"dictionary", "active"}
	case m.Name == "DIGEST-MD5":
		return []string{"dictionary", "active", "mutual-auth"}
	case strings.HasPrefix(m.Name, "SCRAM-"):
		return []string{"mutual-auth"}
	}
	return nil
}

// take begins or continues an exchange; its steps run beside the reading. An error ends the connection.
func (c *client) take(ctx context.Context, r *dovecotauth.Request) error {
	switch r.Verb {
	case dovecotauth.Auth:
		return c.begin(ctx, r)
	case dovecotauth.Continue:
		c.mu.Lock()
		e, ok := c.pending[r.ID]
		if ok && e.busy {
			c.mu.Unlock()
			return fmt.Errorf("%w: CONT for request %d, which awaits none", dovecotauth.ErrProtocol, r.ID)
		}
		if ok {
			e.busy = true
		}
		c.mu.Unlock()
		if !ok || time.Since(e.since) > exchangeTime {
			c.finish(r.ID, dovecotauth.Fail, dovecotauth.Params{{Name: "reason", Value: "Authentication request timed out"}}, nil)
			return nil
		}
		c.conn.do(func() { c.step(ctx, e, r.Response, r.Malformed) })
	case dovecotauth.Cancel:
		c.mu.Lock()
		if e, ok := c.pending[r.ID]; ok && !e.busy {
			delete(c.pending, r.ID)
		}
		c.mu.Unlock()
	}
	return nil
}

func (c *client) begin(ctx context.Context, r *dovecotauth.Request) error {
	c.mu.Lock()
	_, twice := c.pending[r.ID]
	if len(c.pending) >= maxPending {
		for id, e := range c.pending {
			if !e.busy && time.Since(e.since) > exchangeTime {
				delete(c.pending, id)
			}
		}
	}
	full := len(c.pending) >= maxPending
	e := &exchange{id: r.ID, mechanism: strings.ToUpper(r.Mechanism), busy: true, since: time.Now(), finalInOK: r.Params.Has("final-resp-ok")}
	if !twice && !full {
		c.pending[r.ID] = e
	}
	c.mu.Unlock()
	switch {
	case twice:
		return fmt.Errorf("%w: request %d is already in use", dovecotauth.ErrProtocol, r.ID)
	case full:
		return fmt.Errorf("%w: more than %d requests at the same time", dovecotauth.ErrProtocol, maxPending)
	}
	who := clientOf(r.Params)
	steps, err := c.server.options.Auth.Start(ctx, who, r.Mechanism)
	if err != nil {
		c.fail(e, who, err)
		return nil
	}
	e.steps = steps
	c.conn.do(func() { c.step(ctx, e, r.Response, r.Malformed) })
	return nil
}

// step hands a response over and sends what comes of it.
func (c *client) step(ctx context.Context, e *exchange, response []byte, malformed bool) {
	if malformed {
		c.fail(e, account.Client{}, fmt.Errorf("%w: invalid base64 data", account.ErrMalformed))
		return
	}
	if e.success != nil {
		c.succeed(e, e.success, nil)
		return
	}
	if e.name == "" {
		e.name = nameIn(e.mechanism, response)
	}
	data, user, err := e.steps.Next(ctx, response)
	switch {
	case err != nil:
		c.fail(e, account.Client{}, err)
	case user == nil:
		c.challenge(e, data)
	case data != nil && !e.finalInOK:
		e.success = user
		c.challenge(e, data)
	default:
		c.succeed(e, user, data)
	}
}

func (c *client) challenge(e *exchange, data []byte) {
	// The client may answer before this goroutine goes on: the exchange must be free when the challenge leaves.
	c.mu.Lock()
	e.busy, e.since = false, time.Now()
	c.mu.Unlock()
	reply := dovecotauth.Reply{Outcome: dovecotauth.Challenge, ID: e.id, Data: data}
	c.conn.send(reply.Append(nil))
}

func (c *client) succeed(e *exchange, user *account.User, data []byte) {
	params := dovecotauth.Params{{Name: "user", Value: user.Name}}
	if user.Master != "" {
		params = append(params, dovecotauth.Param{Name: "original_user", Value: user.Master}, dovecotauth.Param{Name: "auth_user", Value: user.Master})
	}
	c.finish(e.id, dovecotauth.OK, params, data)
}

// fail tells the client what it may know: nothing but the kind.
func (c *client) fail(e *exchange, who account.Client, err error) {
	var params dovecotauth.Params
	if e.name != "" {
		params = append(params, dovecotauth.Param{Name: "user", Value: e.name})
	}
	switch {
	case errors.Is(err, account.ErrUnavailable):
		params = append(params, dovecotauth.Param{Name: "temp"}, dovecotauth.Param{Name: "code", Value: "temp_fail"})
		c.conn.log.Error(fmt.Sprintf("auth: %s(%s,%s): %v", strings.ToLower(e.mechanism), e.name, who.Remote.Addr(), err))
	case errors.Is(err, account.ErrDenied):
		params = append(params, dovecotauth.Param{Name: "code", Value: "user_disabled"})
		var told interface{ Reason() string }
		if errors.As(err, &told) && told.Reason() != "" {
			params = append(params, dovecotauth.Param{Name: "reason", Value: told.Reason()})
		}
	case errors.Is(err, account.ErrMechanism):
		params = append(params, dovecotauth.Param{Name: "reason", Value: "Unsupported authentication mechanism"})
	case errors.Is(err, account.ErrPlaintext):
		params = append(params, dovecotauth.Param{Name: "reason", Value: "Plaintext authentication disallowed on non-secure (SSL/TLS) connections."})
	case errors.Is(err, account.ErrMalformed):
		params = append(params, dovecotauth.Param{Name: "reason", Value: "Invalid data in authentication request"})
	}
	c.finish(e.id, dovecotauth.Fail, params, nil)
}

func (c *client) finish(id uint32, outcome dovecotauth.Outcome, params dovecotauth.Params, data []byte) {
	c.mu.Lock()
	delete(c.pending, id)
	c.mu.Unlock()
	reply := dovecotauth.Reply{Outcome: outcome, ID: id, Params: params, Data: data}
	c.conn.send(reply.Append(nil))
}

// nameIn finds the user name that a PLAIN or LOGIN response carries.
func nameIn(mechanism string, response []byte) string {
	switch mechanism {
	case "PLAIN":
		if parts := bytes.Split(response, []byte{0}); len(parts) == 3 {
			return string(parts[1])
		}
	case "LOGIN":
		return string(response)
	}
	return ""
}

// clientOf reads the connection's parameters of an AUTH or a lookup; what cannot be read counts as not given.
func clientOf(params dovecotauth.Params) account.Client {
	who := account.Client{Secured: params.Has("secured")}
	who.Service, _ = params.Get("service")
	who.Session, _ = params.Get("session")
	who.Remote = addrPort(params, "rip", "rport")
	who.Local = addrPort(params, "lip", "lport")
	return who
}

func addrPort(params dovecotauth.Params, ip, port string) netip.AddrPort {
	text, _ := params.Get(ip)
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.AddrPort{}
	}
	text, _ = params.Get(port)
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		number = 0
	}
	return netip.AddrPortFrom(addr, uint16(number))
}
