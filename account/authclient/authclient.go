// Package authclient is account.Authenticator over a foreign server of Dovecot's authentication protocol: smtpd_sasl_type = dovecot with
// smtpd_sasl_path = private/auth or inet:HOST:PORT.
//
// Each exchange has a connection for itself while it runs; connections that came to their end in order are kept for the next. So no exchange can
// wait for, or see, another's replies.
package authclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postilion/account"
	"postilion/proto/dovecotauth"
)

const (
	// dialTime is how long connecting and the handshake may take, as in Postfix.
	dialTime = 10 * time.Second
	// replyTime is how long the server may think about a response, which includes its delay after failures.
	replyTime = 100 * time.Second
	// exchangeTime is how long the client may take to answer a challenge.
	exchangeTime = 150 * time.Second
	// maxIdle is how many connections are kept.
	maxIdle = 16
	// maxReason is how much of a server's reason is passed on.
	maxReason = 200
	// refresh is how long the list of mechanisms is used without being read again.
	refresh = 5 * time.Minute
)

// Client implements account.Authenticator. Its methods may be called at the same time.
type Client struct {
	network, address, service string
	log                       *slog.Logger

	mu         sync.Mutex
	idle       []*conn
	mechanisms []dovecotauth.Mechanism
	read       time.Time
}

// New makes a client of the server at the address; network is unix or tcp, service is told to the server (smtp). Nothing is dialled yet.
func New(network, address, service string, log *slog.Logger) *Client {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Client{network: network, address: address, service: service, log: log}
}

// Close closes the connections that are not in use.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, one := range c.idle {
		errs = append(errs, one.Close())
	}
	c.idle = nil
	return errors.Join(errs...)
}

// conn is a connection after its handshake.
type conn struct {
	net.Conn
	lines  *bufio.Scanner
	lastID uint32
	reused bool
}

func (c *Client) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, c.network, c.address)
	if err != nil {
		return nil, c.unavailable(err)
	}
	fresh := &conn{Conn: raw, lines: bufio.NewScanner(raw)}
	fresh.lines.Buffer(make([]byte, 0, 1024), dovecotauth.MaxLine+1)
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	hello, err := fresh.handshake()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, c.unavailable(errors.Join(err, raw.Close()))
	}
	c.mu.Lock()
	c.mechanisms, c.read = hello.Mechanisms, time.Now()
	c.mu.Unlock()
	return fresh, nil
}

func (c *conn) handshake() (dovecotauth.Handshake, error) {
	var hello dovecotauth.Handshake
	if err := c.SetDeadline(time.Now().Add(dialTime)); err != nil {
		return hello, err
	}
	if _, err := c.Write(dovecotauth.ClientHello(nil, uint32(os.Getpid()))); err != nil {
		return hello, err
	}
	for c.lines.Scan() {
		done, err := hello.Take(c.lines.Bytes())
		if done || err != nil {
			return hello, err
		}
	}
	return hello, ended(c.lines.Err())
}

func ended(err error) error {
	if err == nil {
		return errors.New("connection was closed")
	}
	return err
}

func (c *Client) unavailable(err error) error {
	return fmt.Errorf("%w: auth server %s: %w", account.ErrUnavailable, c.address, err)
}

// take returns a kept connection or a new one.
func (c *Client) take(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		kept := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		kept.reused = true
		return kept, nil
	}
	c.mu.Unlock()
	return c.dial(ctx)
}

// keep puts a connection back whose exchange is over.
func (c *Client) keep(used *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= maxIdle || used.lastID > 1<<30 {
		_ = used.Close()
		return
	}
	c.idle = append(c.idle, used)
}

// offered returns the server's mechanisms, read again from time to time; the last known ones while the server is away.
func (c *Client) offered(ctx context.Context) ([]dovecotauth.Mechanism, error) {
	c.mu.Lock()
	known, fresh := c.mechanisms, time.Since(c.read) < refresh
	c.mu.Unlock()
	if fresh {
		return known, nil
	}
	connected, err := c.dial(ctx)
	if err != nil {
		return known, err
	}
	c.keep(connected)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mechanisms, nil
}

// Mechanisms implements account.Authenticator. Whether plaintext mechanisms are offered without encryption is the caller's policy
// (smtpd_tls_auth_only, smtpd_sasl_security_options): all are returned, except those that the server keeps private.
func (c *Client) Mechanisms(account.Client) []account.Mechanism {
	list, err := c.offered(context.Background())
	if err != nil {
		c.log.Warn(err.Error())
	}
	var offered []account.Mechanism
	for _, m := range list {
		if !m.Has("private") {
			offered = append(offered, account.Mechanism{Name: strings.ToUpper(m.Name), Plaintext: m.Has("plaintext")})
		}
	}
	return offered
}

// Start implements account.Authenticator.
func (c *Client) Start(ctx context.Context, client account.Client, mechanism string) (account.Exchange, error) {
	list, err := c.offered(ctx)
	if err != nil && list == nil {
		return nil, err
	}
	if !slices.ContainsFunc(list, func(m dovecotauth.Mechanism) bool { return strings.EqualFold(m.Name, mechanism) }) {
		return nil, fmt.Errorf("%w: %s", account.ErrMechanism, strings.ToUpper(mechanism))
	}
	return &exchange{client: c, who: client, mechanism: strings.ToUpper(mechanism)}, nil
}

// Password implements account.Authenticator with the mechanism PLAIN.
func (c *Client) Password(ctx context.Context, client account.Client, name, password string) (*account.User, error) {
	if strings.Contains(name+password, "\x00") {
		return nil, fmt.Errorf("%w: NUL in a name or password", account.ErrProof)
	}
	steps := &exchange{client: c, who: client, mechanism: "PLAIN"}
	challenge, user, err := steps.Next(ctx, []byte("\x00"+name+"\x00"+password))
	if err == nil && user == nil {
		steps.abandon()
		err = c.unavailable(fmt.Errorf("challenge %q to a whole PLAIN response", challenge))
	}
	return user, err
}

// APOP implements account.Authenticator; the protocol's APOP needs a connection of POP3's own, so it is not offered.
func (c *Client) APOP(context.Context, account.Client, string, string, string) (*account.User, error) {
	return nil, fmt.Errorf("%w: APOP", account.ErrMechanism)
}

// exchange is one AUTH on a connection of its own.
type exchange struct {
	client    *Client
	who       account.Client
	mechanism string
	conn      *conn
	id        uint32
	// patience closes the connection of an exchange whose client does not go on.
	patience *time.Timer
}

// Next implements account.Exchange.
func (e *exchange) Next(ctx context.Context, response []byte) ([]byte, *account.User, error) {
	if e.patience != nil {
		e.patience.Stop()
	}
	request := dovecotauth.Request{Verb: dovecotauth.Continue, Response: response}
	if first := e.conn == nil; first {
		var err error
		if e.conn, err = e.client.take(ctx); err != nil {
			return nil, nil, err
		}
		request = dovecotauth.Request{Verb: dovecotauth.Auth, Mechanism: e.mechanism, Params: e.params(), Response: response}
	}
	for {
		if request.Verb == dovecotauth.Auth {
			e.conn.lastID++
			e.id = e.conn.lastID
		}
		request.ID = e.id
		reply, err := e.ask(ctx, &request)
		if err == nil {
			return e.settle(&reply)
		}
		again := e.conn.reused && request.Verb == dovecotauth.Auth && ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded)
		e.abandon()
		if !again {
			return nil, nil, e.client.unavailable(err)
		}
		// The server closed the kept connection meanwhile.
		if e.conn, err = e.client.dial(ctx); err != nil {
			return nil, nil, err
		}
	}
}

func (e *exchange) abandon() {
	if e.conn != nil {
		_ = e.conn.Close()
	}
}

func (e *exchange) params() dovecotauth.Params {
	service := e.client.service
	if service == "" {
		service = e.who.Service
	}
	p := dovecotauth.Params{{Name: "service", Value: service}, {Name: "nologin"}}
	if e.who.Local.IsValid() {
		p = append(p, dovecotauth.Param{Name: "lip", Value: e.who.Local.Addr().Unmap().String()}, dovecotauth.Param{Name: "lport", Value: strconv.Itoa(int(e.who.Local.Port()))})
	}
	if e.who.Remote.IsValid() {
		p = append(p, dovecotauth.Param{Name: "rip", Value: e.who.Remote.Addr().Unmap().String()}, dovecotauth.Param{Name: "rport", Value: strconv.Itoa(int(e.who.Remote.Port()))})
	}
	if e.who.Session != "" {
		p = append(p, dovecotauth.Param{Name: "session", Value: e.who.Session})
	}
	if e.who.Secured || e.who.TLS != nil {
		p = append(p, dovecotauth.Param{Name: "secured"})
	}
	return p
}

// ask sends a request and waits for its reply.
func (e *exchange) ask(ctx context.Context, request *dovecotauth.Request) (dovecotauth.Reply, error) {
	stop := context.AfterFunc(ctx, func() { _ = e.conn.Close() })
	defer stop()
	if err := e.conn.SetDeadline(time.Now().Add(replyTime)); err != nil {
		return dovecotauth.Reply{}, err
	}
	text := request.Append(nil)
	if len(text) > dovecotauth.MaxLine {
		return dovecotauth.Reply{}, fmt.Errorf("response of %d octets is too long", len(request.Response))
	}
	if _, err := e.conn.Write(text); err != nil {
		return dovecotauth.Reply{}, err
	}
	for e.conn.lines.Scan() {
		reply, ok, err := dovecotauth.ParseReply(e.conn.lines.Bytes())
		switch {
		case err != nil:
			return dovecotauth.Reply{}, err
		case ok && reply.ID == e.id:
			return reply, nil
		case ok && reply.ID > e.id:
			return dovecotauth.Reply{}, fmt.Errorf("%w: reply to request %d, which was not made", dovecotauth.ErrProtocol, reply.ID)
		}
	}
	return dovecotauth.Reply{}, ended(e.conn.lines.Err())
}

// settle turns a reply into what it means.
func (e *exchange) settle(reply *dovecotauth.Reply) ([]byte, *account.User, error) {
	if reply.Outcome == dovecotauth.Challenge {
		waiting := e.conn
		e.patience = time.AfterFunc(exchangeTime, func() { _ = waiting.Close() })
		return reply.Data, nil, nil
	}
	e.client.keep(e.conn)
	e.conn = nil
	if reply.Outcome == dovecotauth.OK {
		user := &account.User{UID: -1, GID: -1, Fields: map[string]string{}}
		user.Name, _ = reply.Params.Get("user")
		if user.Name == "" {
			return nil, nil, e.client.unavailable(fmt.Errorf("%w: OK without a user", dovecotauth.ErrProtocol))
		}
		user.Master, _ = reply.Params.Get("original_user")
		return reply.Data, user, nil
	}
	reason, _ := reply.Params.Get("reason")
	code, _ := reply.Params.Get("code")
	kind := account.ErrProof
	switch {
	case reply.Params.Has("temp"), code == "temp_fail":
		kind = account.ErrUnavailable
	case code == "user_disabled", code == "pass_expired", reply.Params.Has("authz"):
		kind = account.ErrDenied
	}
	if reason != "" {
		return nil, nil, &account.Refusal{Kind: kind, Text: reason[:min(len(reason), maxReason)]}
	}
	return nil, nil, kind
}
