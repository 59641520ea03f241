// Package lmtpd serves LMTP (RFC 2033) for local delivery: recipients are looked up at RCPT, and each gets its own reply after the message. It is the SMTP
// session of server/smtpd in LMTP's form, joined to the mailbox agent of mta/deliver; replies and log lines are those of Dovecot's lmtp.
//
// It does not queue, route or rewrite.
package lmtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"postilion/mail/queueid"
	"postilion/mta/deliver"
	"postilion/mta/policy"
	"postilion/proto/smtp"
	"postilion/server/smtpd"
	"postilion/store/spool"
)

// Options configure a Server; the names are Dovecot's settings. Mailbox, Spool and Log are required.
type Options struct {
	Mailbox *deliver.Mailbox
	Spool   *spool.Spool
	Log     *slog.Logger
	// Hostname is hostname, Greeting login_greeting.
	Hostname, Greeting string
	// TLS gives the certificates of this moment; nil is no STARTTLS.
	TLS func() (*tls.Config, error)
	// MaxSize is the largest message in octets; 0 is no limit.
	MaxSize int64
	// ConnectionLimit is client_limit times process_limit; 0 is 1000.
	ConnectionLimit int
	// Timeout is how long a client may be silent; 0 is 5 minutes, as in Dovecot.
	Timeout time.Duration
}

// defaultTimeout is Dovecot's CLIENT_IDLE_TIMEOUT for LMTP.
const defaultTimeout = 5 * time.Minute

// Server serves LMTP on any number of listeners.
type Server struct {
	sessions *smtpd.Server
}

// New returns a server.
func New(options Options) (*Server, error) {
	if options.Timeout <= 0 {
		options.Timeout = defaultTimeout
	}
	if options.Greeting == "" {
		options.Greeting = "Dovecot ready."
	}
	agent := &agent{mailbox: options.Mailbox, log: options.Log}
	sessions, err := smtpd.New(smtpd.Options{
		Settings: smtp.Settings{
			LMTP: true, Hostname: options.Hostname, Banner: options.Hostname + " " + options.Greeting,
			MessageSizeLimit: options.MaxSize, SMTPUTF8: true,
			// LMTP's clients are our own MTAs: errors of theirs are no abuse, and one transaction may have many recipients.
			SoftErrorLimit: 1 << 30, HardErrorLimit: 1 << 30, JunkCommandLimit: 1 << 30, RecipientLimit: maxRecipients,
		},
		SyslogName: "lmtp", ServiceName: "lmtp", MailName: "Dovecot",
		Timeout: options.Timeout, ErrorSleepTime: -1, ConnectionLimit: options.ConnectionLimit, ConnectionCountLimit: -1,
		TLS: options.TLS, NoPeernameLookup: true, Verbatim: true, HopCountLimit: maxHops,
		Checker: agent, AcceptEach: agent, Spool: options.Spool, QueueIDs: queueid.New(true, uint64(time.Now().UnixNano())), Log: options.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Server{sessions: sessions}, nil
}

// Limits of one transaction: recipients, and Received headers before a message counts as looping.
const (
	maxRecipients = 100_000
	maxHops       = 100
)

// Serve accepts connections until ctx ends, and then waits for its sessions.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return s.sessions.Serve(ctx, listener)
}

// Sessions returns how many sessions there are at the moment.
func (s *Server) Sessions() int { return s.sessions.Sessions() }

// agent joins sessions to the mailbox agent.
type agent struct {
	mailbox *deliver.Mailbox
	log     *slog.Logger
}

// Check implements policy.Checker: a recipient that is no user is refused at RCPT.
func (a *agent) Check(ctx context.Context, stage policy.Stage, session *policy.Session) policy.Decision {
	if stage != policy.Rcpt {
		return policy.Decision{}
	}
	_, err := a.mailbox.Resolve(ctx, session.Recipient)
	var refused *deliver.ReplyError
	if errors.As(err, &refused) {
		return policy.Decision{Action: policy.Refuse, Reply: refused.Reply, Problem: problem(refused)}
	}
	return policy.Decision{}
}

func problem(refused *deliver.ReplyError) error {
	if refused.Temporary {
		return refused.Err
	}
	return nil
}

// Verify implements policy.Checker.
func (a *agent) Verify(context.Context, *policy.Session, string) policy.Decision {
	return policy.Decision{Action: policy.Refuse, Reply: "252 2.3.3 Try RCPT instead"}
}

// AcceptEach implements smtpd.EachAcceptor.
func (a *agent) AcceptEach(ctx context.Context, mail *smtpd.Mail) []smtpd.Result {
	results := make([]smtpd.Result, len(mail.Envelope.Recipients))
	var recipients []*deliver.Recipient
	var places []int
	for i, r := range mail.Envelope.Recipients {
		found, err := a.mailbox.Resolve(ctx, r.Address)
		var refused *deliver.ReplyError
		if errors.As(err, &refused) {
			results[i] = smtpd.Result{Err: &smtpd.Reply{Text: refused.Reply, Cause: refused.Err}}
			continue
		}
		found.Original = strings.TrimPrefix(r.Original, "rfc822;")
		recipients = append(recipients, found)
		places = append(places, i)
	}
	delivered := a.mailbox.Deliver(ctx, &deliver.Message{Envelope: mail.Envelope, Content: mail.Content, Structure: mail.Message}, recipients)
	for n, i := range places {
		if delivered[n].Err != nil {
			results[i] = smtpd.Result{Err: &smtpd.Reply{Text: delivered[n].Reply, Cause: delivered[n].Err}}
			a.logFailure(recipients[n], delivered[n])
			continue
		}
		results[i] = smtpd.Result{Reply: delivered[n].Reply}
	}
	return results
}

// logFailure tells an administrator of what the client is told only vaguely.
func (a *agent) logFailure(r *deliver.Recipient, result deliver.Result) {
	if result.Temporary {
		a.log.Error(fmt.Sprintf("delivery to <%s> failed: %v", r.Address, result.Err), "program", "lmtp", "user", r.User.Name)
	}
}
