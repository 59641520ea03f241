package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"postilion/mail/envelope"
	"postilion/proto/smtp"
)

// LMTPOptions configure an LMTP agent; the names are Postfix's lmtp_* parameters. Every time-out must be positive but Connect.
type LMTPOptions struct {
	// Program stands in log lines: postfix/lmtp.
	Program string
	Log     *slog.Logger
	// Hostname is myhostname, LHLO lmtp_lhlo_name, QueueDirectory what socket paths are relative to, Port lmtp_tcp_port.
	Hostname, LHLO, QueueDirectory, Port string
	// Lookup finds the addresses of a host.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// TLS says what is due with a server; nil means no TLS.
	TLS func(ctx context.Context, nexthop, host string) (ClientTLS, error)
	// Password finds a login for the first of the keys that has one; nil means no logins.
	Password func(ctx context.Context, keys ...string) (user, password string, found bool, err error)
	// SenderDependent is lmtp_sender_dependent_authentication.
	SenderDependent bool
	// MechanismFilter, Security and TLSSecurity are lmtp_sasl_mechanism_filter, lmtp_sasl_security_options and lmtp_sasl_tls_security_options.
	MechanismFilter, Security, TLSSecurity []string
	// XForward is lmtp_send_xforward_command.
	XForward bool
	// Discard are lmtp_discard_lhlo_keywords, in capitals.
	Discard []string
	// LineLengthLimit is lmtp_line_length_limit; 0 breaks no lines.
	LineLengthLimit int
	// NoOutputConversion is disable_mime_output_conversion.
	NoOutputConversion bool
	// SkipQuitResponse is lmtp_skip_quit_response; AssumeFinal is of no meaning here.
	SkipQuitResponse bool
	// Concurrency bounds the connections to one next hop at a time; Processes all of them.
	Concurrency, Processes int

	Connect, Hello, StartTLS, XForwardTimeout, Mail, Rcpt, DataInit, DataTransfer, DataDone, Reset, Quit time.Duration
	// CacheTime is lmtp_connection_cache_time_limit, ReuseTime and ReuseCount are lmtp_connection_reuse_time_limit and _count_limit (0 is no limit).
	CacheTime, ReuseTime time.Duration
	// CacheOnly are the next hops whose connections are kept; nil is all.
	CacheOnly  []string
	ReuseCount int
}

// ClientTLS is what TLS means for one server.
type ClientTLS struct {
	// Level is none, may or encrypt; levels that want more of a certificate have it in Config.
	Level  string
	Config *tls.Config
}

// LMTP hands mail to LMTP servers (RFC 2033), as Postfix's lmtp(8) does. Its methods may be called at the same time.
type LMTP struct {
	options LMTPOptions
	log     outcomeLog
	pool    connectionPool
}

// NewLMTP returns an agent. Close gives back the connections that it keeps.
func NewLMTP(options LMTPOptions) *LMTP {
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	l := &LMTP{options: options, log: outcomeLog{options.Log, options.Program}}
	l.pool.init(&l.options)
	return l
}

// Close ends the connections that are kept for later. The agent goes on to work, without keeping any.
func (l *LMTP) Close() { l.pool.close() }

// Deliver implements Agent.
func (l *LMTP) Deliver(ctx context.Context, job *Job) []Outcome {
	began := time.Now()
	outcomes := l.deliver(ctx, job, began)
	for i := range outcomes {
		l.log.write(job.Envelope, job.Envelope.Recipients[i].Address, job.Given[i], began, &outcomes[i])
	}
	return outcomes
}

// forAll gives every recipient of the job the same outcome.
func forAll(job *Job, o Outcome) []Outcome {
	all := make([]Outcome, len(job.Envelope.Recipients))
	for i := range all {
		all[i] = o
	}
	return all
}

func (l *LMTP) deliver(ctx context.Context, job *Job, began time.Time) []Outcome {
	key := poolKey{nexthop: job.Nexthop}
	if l.options.SenderDependent {
		key.sender = job.Envelope.Sender
	}
	leave, err := l.pool.enter(ctx, job.Nexthop)
	if err != nil {
		return forAll(job, failure(Deferred, "4.3.2", "all connections to %s are in use", job.Nexthop))
	}
	defer leave()
	for c := l.pool.take(key); c != nil; c = l.pool.take(key) {
		outcomes, silent := l.transact(ctx, c, job, began, time.Now())
		if !silent {
			return outcomes
		}
		// The server had closed a connection that was kept; nothing was said on it, so a new one does as well.
	}
	c, failed := l.connect(ctx, key, job)
	if failed != nil {
		failed.Connection = time.Since(began)
		return forAll(job, *failed)
	}
	outcomes, _ := l.transact(ctx, c, job, began, time.Now())
	return outcomes
}

// transact runs one transaction. silent tells that the connection broke before the server answered anything.
func (l *LMTP) transact(ctx context.Context, c *connection, job *Job, began, ready time.Time) (outcomes []Outcome, silent bool) {
	c.bound(ctx)
	outcomes, err := l.converse(c, job)
	if err != nil {
		silent = c.used > 0 && !c.heard && !errors.Is(err, os.ErrDeadlineExceeded)
		outcomes = forAll(job, c.broken(err))
		c.close()
	} else {
		l.pool.put(c)
	}
	for i := range outcomes {
		outcomes[i].Relay = c.relay
		outcomes[i].Connection, outcomes[i].Transmission = ready.Sub(began), time.Since(ready)
	}
	return outcomes, silent
}

// converse sends the message. An error means that the connection is of no more use.
func (l *LMTP) converse(c *connection, job *Job) ([]Outcome, error) {
	c.heard = false
	if !c.fresh {
		if err := c.client.Reset(); err != nil {
			return nil, err
		}
		if _, err := c.advance(); err != nil {
			return nil, err
		}
	}
	extensions := c.client.Extensions()
	if limit := extensions.Size(); limit > 0 && job.Content.Size() > limit {
		return forAll(job, failure(Bounced, "5.3.4", "message size %d exceeds size limit %d of server %s", job.Content.Size(), limit, c.relay)), nil
	}
	body, err := newMessageBody(job, extensions, l.options.LineLengthLimit, l.options.NoOutputConversion)
	if err != nil {
		return forAll(job, failure(Deferred, "4.3.0", "cannot read the message: %v", err)), nil
	}
	if body.needsUTF8 {
		return forAll(job, failure(Bounced, "5.6.7", "SMTPUTF8 is required, but was not offered by host %s", c.relay)), nil
	}
	if l.options.XForward && extensions.Has("XFORWARD") {
		if err := l.xforward(c, job.Envelope); err != nil {
			return nil, err
		}
	}
	own := *job.Envelope
	own.Body = body.kind
	c.fresh = false
	if err := c.client.Mail(&own, job.Content.Size()); err != nil {
		return forAll(job, failure(Bounced, "5.1.3", "%v", err)), nil
	}
	kind, err := c.advance()
	if err == nil && kind == smtp.ClientData {
		// A message that cannot be read to its end must not be taken for all of it: the connection goes without the final dot.
		kind, err = c.sendBody(body)
	}
	if err != nil {
		return nil, err
	}
	if kind != smtp.ClientReady {
		return nil, fmt.Errorf("unexpected reply %s", c.client.Reply())
	}
	outcomes := make([]Outcome, len(job.Envelope.Recipients))
	delivered := false
	for i, result := range c.client.Results() {
		outcomes[i] = outcomeOf(result, c.relay)
		delivered = delivered || outcomes[i].Status == Sent
	}
	c.fresh = delivered
	return outcomes, nil
}

// outcomeOf reads a server's answer.
func outcomeOf(result smtp.Result, relay string) Outcome {
	reply := result.Reply
	o := Outcome{DSN: reply.Enhanced(), Text: printable(reply.String())}
	if result.Delivered() {
		o.DSN = orElse(o.DSN, "2.0.0")
		return o
	}
	o.Status = Deferred
	if reply.Class() == 5 {
		o.Status = Bounced
	}
	o.Text = fmt.Sprintf("host %s said: %s (in reply to %s command)", relay, o.Text, result.Command)
	code := reply.Code
	switch {
	case reply.Class() != 4 && reply.Class() != 5:
		// An answer that means something else than the question.
		o.DSN = "4.5.0"
		o.Reply = "451 4.5.0 " + printable(o.Text)
		return o
	case code == 421 || code == 521:
		// These would end our client's session.
		code = reply.Class()*100 + 51
		if reply.Class() == 5 {
			code = 554
		}
	}
	o.DSN = orElse(o.DSN, fmt.Sprintf("%d.0.0", reply.Class()))
	o.Reply = passOn(code, o.DSN, reply)
	return o
}

// passOnLines bounds how many lines of a server's reply our client is told.
const passOnLines = 20

// passOn makes our reply of a server's.
func passOn(code int, status string, reply smtp.ServerReply) string {
	var lines []string
	for _, line := range reply.Lines[:min(len(reply.Lines), passOnLines)] {
		line = printable(line)
		if !strings.HasPrefix(line, status) {
			line = status + " " + line
		}
		lines = append(lines, fmt.Sprintf("%d %.480s", code, line))
	}
	if len(lines) == 0 {
		return fmt.Sprintf("%d %s", code, status)
	}
	return strings.Join(lines, "\n")
}

// xforward tells where the message came from. A server that does not like it is no reason to fail.
func (l *LMTP) xforward(c *connection, e *envelope.Envelope) error {
	source := "REMOTE"
	address := netip.Addr{}
	if parsed, err := netip.ParseAddr(e.Client.Address); err == nil {
		address = parsed
		if address.IsLoopback() {
			source = "LOCAL"
		}
	}
	addressText := e.Client.Address
	if address.Is6() {
		addressText = "IPv6:" + addressText
	}
	err := c.client.XForward([]smtp.Attribute{
		{Name: "NAME", Value: e.Client.Name, Unavailable: e.Client.Name == "unknown"},
		{Name: "ADDR", Value: addressText},
		{Name: "PORT", Value: e.Client.Port},
		{Name: "PROTO", Value: e.Client.Protocol},
		{Name: "HELO", Value: e.Client.Helo},
		{Name: "IDENT", Value: e.QueueID},
		{Name: "SOURCE", Value: source},
	})
	if errors.Is(err, smtp.ErrNothingToForward) {
		return nil
	}
	if err == nil {
		_, err = c.advance()
	}
	if err == nil && c.client.Reply().Class() != 2 {
		l.options.Log.Warn(fmt.Sprintf("host %s said: %s (in reply to XFORWARD command)", c.relay, printable(c.client.Reply().String())), "program", l.options.Program)
	}
	return err
}
