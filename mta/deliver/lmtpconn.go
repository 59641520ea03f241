package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"postilion/proto/smtp"
)

const (
	// connectLimit is the wait for a connection when lmtp_connect_timeout is 0, in place of the operating system's.
	connectLimit = 2 * time.Minute
	// addressLimit is how many addresses of a host are tried: lmtp_mx_address_limit.
	addressLimit = 5
	readSize     = 4096
)

// connection is one conversation with an LMTP server.
type connection struct {
	options *LMTPOptions
	conn    net.Conn
	client  *smtp.Client
	key     poolKey
	// relay names the server as logs have it.
	relay string
	opened,
	idleSince time.Time
	// used counts the transactions before this one. fresh: no RSET is due before the next.
	used  int
	fresh bool
	// heard: the server said something in this transaction.
	heard bool
	// limit ends every wait.
	limit  time.Time
	input  []byte
	buffer [readSize]byte
	out    []byte
}

// errContent tells that the message could not be read on our side.
var errContent = errors.New("the message cannot be read")

// bound has no wait last longer than the context.
func (c *connection) bound(ctx context.Context) {
	c.limit, _ = ctx.Deadline()
}

// until is the end of a wait that may last for d.
func (c *connection) until(d time.Duration) time.Time {
	end := time.Now().Add(d)
	if !c.limit.IsZero() && c.limit.Before(end) {
		return c.limit
	}
	return end
}

// timeout is the limit for the reply that is due next.
func (c *connection) timeout() time.Duration {
	o := c.options
	switch c.client.Step() {
	case smtp.StepTLS:
		return o.StartTLS
	case smtp.StepXForward:
		return o.XForwardTimeout
	case smtp.StepMail:
		return o.Mail
	case smtp.StepRcpt:
		return o.Rcpt
	case smtp.StepData:
		return o.DataInit
	case smtp.StepBody:
		return o.DataTransfer
	case smtp.StepFinal:
		return o.DataDone
	case smtp.StepReset:
		return o.Reset
	case smtp.StepQuit:
		return o.Quit
	}
	return o.Hello
}

// advance writes what is queued and reads until the client's step is done. Each reply has its time-out in all, however slowly it comes.
func (c *connection) advance() (smtp.ClientEventKind, error) {
	step := c.client.Step()
	end := c.until(c.timeout())
	for {
		if len(c.client.Output()) > 0 {
			if err := c.write(c.client.Output()); err != nil {
				return 0, err
			}
			c.client.Written()
		}
		if len(c.input) == 0 {
			if now := c.client.Step(); now != step {
				step, end = now, c.until(c.timeout())
			}
			if err := c.conn.SetReadDeadline(end); err != nil {
				return 0, err
			}
			n, err := c.conn.Read(c.buffer[:])
			if n == 0 {
				return 0, err
			}
			c.input, c.heard = c.buffer[:n], true
		}
		used, kind, err := c.client.Next(c.input)
		c.input = c.input[used:]
		if err != nil {
			return 0, err
		}
		if kind != smtp.ClientMore {
			if len(c.input) > 0 {
				return 0, errors.New("the server talks out of turn")
			}
			return kind, nil
		}
	}
}

func (c *connection) write(data []byte) error {
	if err := c.conn.SetWriteDeadline(c.until(c.timeout())); err != nil {
		return err
	}
	_, err := c.conn.Write(data)
	return err
}

// bodyBlock is how much of a message is written at once.
const bodyBlock = 32 << 10

// sendBody sends the message and waits for the verdict.
func (c *connection) sendBody(body *messageBody) (smtp.ClientEventKind, error) {
	c.out = c.out[:0]
	for {
		piece, err := body.next()
		if err != nil {
			return 0, errors.Join(errContent, err)
		}
		if len(piece) == 0 {
			break
		}
		c.out = c.client.AppendData(c.out, piece)
		if len(c.out) < bodyBlock {
			continue
		}
		if err := c.write(c.out); err != nil {
			return 0, err
		}
		c.out = c.out[:0]
	}
	// While the last octets are not written, the message has not ended.
	out := c.client.FinishData(c.out)
	if err := c.write(out); err != nil {
		return 0, err
	}
	c.out = out[:0]
	if cap(c.out) > 4*bodyBlock {
		c.out = nil
	}
	return c.advance()
}

// broken says how a conversation ended that did not end in order.
func (c *connection) broken(err error) Outcome {
	doing := c.client.Doing()
	switch {
	case errors.Is(err, errContent):
		return failure(Deferred, "4.3.0", "%v", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failure(Deferred, "4.4.2", "conversation with %s timed out while %s", c.relay, doing)
	case isNetwork(err):
		return failure(Deferred, "4.4.2", "lost connection with %s while %s", c.relay, doing)
	}
	return failure(Deferred, "4.5.0", "protocol error of %s while %s: %v", c.relay, doing, err)
}

// isNetwork tells errors of a connection from those of what came over it.
func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) || strings.HasSuffix(err.Error(), "EOF")
}

// close ends the connection without a word.
func (c *connection) close() {
	// The conversation is over either way.
	_ = c.conn.Close()
}

// quit says goodbye. Its wait is short: nothing depends on the answer.
func (c *connection) quit() {
	defer c.close()
	c.limit = time.Now().Add(min(c.options.Quit, 5*time.Second))
	if err := c.client.Quit(); err != nil {
		return
	}
	if c.options.SkipQuitResponse {
		// Whether the farewell arrives changes nothing.
		_ = c.write(c.client.Output())
		return
	}
	// Neither does the answer.
	_, _ = c.advance()
}

// target is one socket to try.
type target struct {
	network, address string
	// host names the server for certificates and logins, relay for logs.
	host, relay string
}

// targets are the sockets of a next hop: unix:path, inet:host, host, host:port, [host]:port, several with commas between them.
func (l *LMTP) targets(ctx context.Context, nexthop string) ([]target, *Outcome) {
	var list []target
	var failed *Outcome
	for _, one := range strings.FieldsFunc(nexthop, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		if path, ok := strings.CutPrefix(one, "unix:"); ok {
			full := path
			if !filepath.IsAbs(full) {
				full = filepath.Join(l.options.QueueDirectory, path)
			}
			list = append(list, target{"unix", full, l.options.Hostname, l.options.Hostname + "[" + path + "]"})
			continue
		}
		host, port, err := splitHostPort(strings.TrimPrefix(one, "inet:"), l.options.Port)
		if err != nil {
			o := failure(Deferred, "4.3.5", "invalid destination %q: %v", one, err)
			failed = &o
			continue
		}
		addresses, err := l.options.Lookup(ctx, host)
		if err != nil {
			o := failure(Deferred, "4.4.3", "Host or domain name not found. Name service error for name=%s type=A: %v", host, err)
			failed = &o
			continue
		}
		for _, address := range addresses[:min(len(addresses), addressLimit)] {
			list = append(list, target{
				"tcp", net.JoinHostPort(address.String(), port), host, host + "[" + address.String() + "]:" + port,
			})
		}
	}
	if len(list) == 0 && failed == nil {
		o := failure(Deferred, "4.3.5", "no destination in %q", nexthop)
		failed = &o
	}
	return list, failed
}

// splitHostPort takes host, host:port, [host], [host]:port and [ipv6]:port apart.
func splitHostPort(text, port string) (host, number string, err error) {
	if rest, ok := strings.CutPrefix(text, "["); ok {
		inside, after, closed := strings.Cut(rest, "]")
		if !closed || after != "" && after[0] != ':' {
			return "", "", errors.New("brackets do not match")
		}
		host = strings.TrimPrefix(inside, "IPv6:")
		port = orElse(strings.TrimPrefix(after, ":"), port)
	} else {
		name, given, _ := strings.Cut(text, ":")
		host, port = name, orElse(given, port)
	}
	if host == "" {
		return "", "", errors.New("there is no host")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		found, lookupErr := net.LookupPort("tcp", port)
		if lookupErr != nil {
			return "", "", fmt.Errorf("unknown service: tcp/%s", port)
		}
		n = uint64(found)
	}
	return host, strconv.FormatUint(n, 10), nil
}

// connect opens a conversation up to the point where a message can be sent, with the first server that is ready for that.
func (l *LMTP) connect(ctx context.Context, key poolKey, job *Job) (*connection, *Outcome) {
	targets, failed := l.targets(ctx, key.nexthop)
	for _, t := range targets {
		for _, plain := range []bool{false, true} {
			c, wrong, again := l.open(ctx, key, t, job, plain)
			if wrong == nil {
				return c, nil
			}
			failed = wrong
			if !again {
				break
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// open connects, greets, encrypts and logs in. again asks for one more try without TLS.
func (l *LMTP) open(ctx context.Context, key poolKey, t target, job *Job, plain bool) (c *connection, failed *Outcome, again bool) {
	limit := l.options.Connect
	if limit <= 0 {
		limit = connectLimit
	}
	dialer := net.Dialer{Timeout: limit}
	conn, err := dialer.DialContext(ctx, t.network, t.address)
	if err != nil {
		o := failure(Deferred, "4.4.1", "connect to %s: %s", t.relay, connectReason(err))
		l.options.Log.Info(o.Text, "program", l.options.Program)
		return nil, &o, false
	}
	c = &connection{
		options: &l.options, conn: conn, client: &smtp.Client{LMTP: true, Discard: l.options.Discard}, key: key, relay: t.relay, opened: time.Now(), fresh: true,
	}
	c.bound(ctx)
	plan := ClientTLS{Level: "none"}
	if l.options.TLS != nil {
		if plan, err = l.options.TLS(ctx, key.nexthop, t.host); err != nil {
			o := failure(Deferred, "4.7.5", "TLS for %s: %v", t.relay, err)
			c.close()
			return nil, &o, false
		}
	}
	if plain {
		plan.Level = "none"
	}
	failed, again = l.prepare(ctx, c, t, plan, job)
	if failed != nil {
		failed.Relay = t.relay
		c.close()
		return nil, failed, again
	}
	return c, nil, false
}

// connectReason is the system's word for what went wrong.
func connectReason(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return "Connection timed out"
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "Connection timed out"
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	if text == "" {
		return "failed"
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// prepare brings a new connection to where a transaction can begin.
func (l *LMTP) prepare(ctx context.Context, c *connection, t target, plan ClientTLS, job *Job) (failed *Outcome, again bool) {
	refused := func() *Outcome {
		reply := c.client.Reply()
		o := failure(Deferred, orElse(reply.Enhanced(), fmt.Sprintf("%d.0.0", reply.Class())), "host %s refused to talk to me: %s", t.relay, printable(reply.String()))
		o.DSN = "4" + o.DSN[1:]
		return &o
	}
	broken := func(err error) *Outcome { o := c.broken(err); return &o }
	if _, err := c.advance(); err != nil {
		return broken(err), false
	}
	if c.client.Reply().Class() != 2 {
		return refused(), false
	}
	if err := l.hello(c); err != nil {
		return broken(err), false
	}
	if c.client.Reply().Class() != 2 {
		return refused(), false
	}
	switch offered := c.client.Extensions().Has("STARTTLS"); {
	case plan.Level == "none":
	case !offered && plan.Level != "may":
		o := failure(Deferred, "4.7.4", "TLS is required, but was not offered by host %s", t.relay)
		return &o, false
	case offered:
		if failed := l.startTLS(ctx, c, t, plan); failed != nil {
			return failed, plan.Level == "may"
		}
	}
	return l.login(ctx, c, t, job), false
}

func (l *LMTP) hello(c *connection) error {
	if err := c.client.Hello(l.options.LHLO); err != nil {
		return err
	}
	_, err := c.advance()
	return err
}

func (l *LMTP) startTLS(ctx context.Context, c *connection, t target, plan ClientTLS) *Outcome {
	err := c.client.StartTLS()
	var kind smtp.ClientEventKind
	if err == nil {
		kind, err = c.advance()
	}
	if err == nil && kind != smtp.ClientHandshake {
		o := failure(Deferred, "4.7.5", "TLS is required, but host %s refused to start TLS: %s", t.relay, printable(c.client.Reply().String()))
		return &o
	}
	if err == nil {
		config := plan.Config.Clone()
		if config.ServerName == "" {
			config.ServerName = t.host
		}
		secure := tls.Client(c.conn, config)
		if err = secure.SetDeadline(c.until(l.options.StartTLS)); err == nil {
			err = secure.HandshakeContext(ctx)
		}
		if err != nil {
			l.options.Log.Info(fmt.Sprintf("SSL_connect error to %s: %v", t.relay, err), "program", l.options.Program)
			o := failure(Deferred, "4.7.5", "Cannot start TLS: handshake failure")
			return &o
		}
		c.conn = secure
		err = secure.SetDeadline(time.Time{})
	}
	if err == nil {
		err = l.hello(c)
	}
	if err != nil {
		o := c.broken(err)
		return &o
	}
	if c.client.Reply().Class() != 2 {
		o := failure(Deferred, "4.7.5", "host %s refused to talk to me: %s", t.relay, printable(c.client.Reply().String()))
		return &o
	}
	return nil
}

// login logs in where there is a password for the server and it knows logins.
func (l *LMTP) login(ctx context.Context, c *connection, t target, job *Job) *Outcome {
	if l.options.Password == nil || !c.client.Extensions().Has("AUTH") {
		return nil
	}
	keys := []string{t.host, c.key.nexthop}
	if l.options.SenderDependent && job.Envelope.Sender != "" {
		keys = slices.Insert(keys, 0, job.Envelope.Sender)
	}
	user, password, found, err := l.options.Password(ctx, keys...)
	if err != nil {
		o := failure(Deferred, "4.7.8", "SASL authentication failed: %v", err)
		return &o
	}
	if !found {
		return nil
	}
	security := l.options.Security
	if _, encrypted := c.conn.(*tls.Conn); encrypted {
		security = l.options.TLSSecurity
	}
	mechanism := chooseMechanism(c.client.Extensions(), l.options.MechanismFilter, security)
	if mechanism == "" {
		o := failure(Deferred, "4.7.8", "SASL authentication failed: server %s offered no compatible authentication mechanisms for this type of connection security", t.relay)
		return &o
	}
	if err := authenticate(c, mechanism, user, password); err != nil {
		o := c.broken(err)
		return &o
	}
	if reply := c.client.Reply(); reply.Class() != 2 {
		o := failure(Deferred, "4.7.8", "SASL authentication failed; server %s said: %s", t.relay, printable(reply.String()))
		return &o
	}
	return nil
}
