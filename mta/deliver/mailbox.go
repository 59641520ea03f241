// Package deliver holds the delivery agents: what takes a message and a recipient to where the recipient's mail lies. Mailbox delivers into the store, as
// Dovecot's LMTP server and LDA do.
//
// It is not a queue: it tries once and says what became of each recipient. It follows RFC 2033, RFC 5321 section 4.4 (trace fields) and
// Dovecot's lmtp_* and lda_* settings.
package deliver

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"postilion/account"
	"postilion/mail/envelope"
	"postilion/mail/message"
	"postilion/store"
)

// Locate says in which store a user's mail lies and under which name and place. mailbox is the name as the user's clients see it; the answer's is the
// store's.
type Locate func(ctx context.Context, user *account.User, mailbox string) (store.Store, store.Owner, string, error)

// MailboxOptions configure a Mailbox; the names are Dovecot's settings.
type MailboxOptions struct {
	Directory account.Directory
	Locate    Locate
	// Hostname stands in Received.
	Hostname string
	// RecipientDelimiter separates the user from the detail: any of its characters does.
	RecipientDelimiter string
	// SaveToDetailMailbox is lmtp_save_to_detail_mailbox.
	SaveToDetailMailbox bool
	// AutoCreate and AutoSubscribe are lda_mailbox_autocreate and lda_mailbox_autosubscribe.
	AutoCreate, AutoSubscribe bool
	// QuotaFullTempfail is quota_full_tempfail: a full mailbox is a reason to try again.
	QuotaFullTempfail bool
	// AddReceived is lmtp_add_received_header.
	AddReceived bool
	// DeliveryAddress is lmtp_hdr_delivery_address: none, final or original.
	DeliveryAddress string
	// Protocol stands in Received: LMTP.
	Protocol string
	Log      *slog.Logger
	Now      func() time.Time
}

// Mailbox delivers into mailboxes. Its methods may be called at the same time.
type Mailbox struct {
	options MailboxOptions
}

// NewMailbox returns an agent.
func NewMailbox(options MailboxOptions) *Mailbox {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Protocol == "" {
		options.Protocol = "LMTP"
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	return &Mailbox{options: options}
}

// Recipient is an address that was found to be a user's.
type Recipient struct {
	// Address is as given, Original the ORCPT address or "".
	Address, Original string
	User              *account.User
	// Detail is the part after the delimiter.
	Detail string
}

// Result is what became of one recipient.
type Result struct {
	// Reply is the whole LMTP reply.
	Reply string
	// Temporary tells a reason to try again from one that will not go away; both are false when the message was delivered.
	Temporary, Permanent bool
	// Err is what was behind a failure, for the log.
	Err error
}

// Resolve finds the user of an address. Without an error the recipient is accepted; the error is a *ReplyError.
func (m *Mailbox) Resolve(ctx context.Context, address string) (*Recipient, error) {
	local, domain, hasDomain := cutLast(address, '@')
	user, detail := m.splitDetail(local)
	name := user
	if hasDomain {
		name += "@" + domain
	}
	found, err := m.options.Directory.Lookup(ctx, account.Client{Service: "lmtp", Remote: netip.AddrPort{}}, name)
	switch {
	case errors.Is(err, account.ErrNoUser):
		return nil, &ReplyError{Reply: fmt.Sprintf("550 5.1.1 <%s> User doesn't exist: %s", address, address), Err: err}
	case err != nil:
		return nil, &ReplyError{Reply: fmt.Sprintf("451 4.3.0 <%s> Temporary internal error", address), Temporary: true, Err: err}
	}
	return &Recipient{Address: address, User: found, Detail: detail}, nil
}

// ReplyError is a refusal with the reply that a client sees.
type ReplyError struct {
	Reply     string
	Temporary bool
	Err       error
}

func (e *ReplyError) Error() string {
	if e.Err != nil {
		return e.Reply + ": " + e.Err.Error()
	}
	return e.Reply
}

func (e *ReplyError) Unwrap() error { return e.Err }

func cutLast(s string, c byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, c); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func (m *Mailbox) splitDetail(local string) (user, detail string) {
	if m.options.RecipientDelimiter == "" {
		return local, ""
	}
	if i := strings.IndexAny(local, m.options.RecipientDelimiter); i > 0 {
		return local[:i], local[i+1:]
	}
	return local, ""
}

// Message is what is delivered.
type Message struct {
	Envelope  *envelope.Envelope
	Content   store.Content
	Structure *message.Message
	// DeliveryID makes the delivery happen once, however often it is tried; "" does not.
	DeliveryID string
	// Session names the transaction in log lines and in Received; "" has one made.
	Session string
	// AllOrNothing delivers to nobody when one recipient fails.
	AllOrNothing bool
}

// Deliver puts the message into the mailboxes of the recipients, those of one store in one durable step. The results are in the order of the
// recipients.
func (m *Mailbox) Deliver(ctx context.Context, msg *Message, recipients []*Recipient) []Result {
	session := msg.Session
	if session == "" {
		session = NewSession()
	}
	results := make([]Result, len(recipients))
	groups := map[store.Store]*group{}
	firstOf := map[string]int{}
	sameAs := make([]int, len(recipients))
	for i, r := range recipients {
		place, owner, name, err := m.options.Locate(ctx, r.User, m.mailboxFor(r))
		if err != nil {
			results[i] = m.failure(r, err)
			continue
		}
		key := owner.User + "\x00" + name
		if first, twice := firstOf[key]; twice {
			sameAs[i] = first + 1
			continue
		}
		firstOf[key] = i
		g := groups[place]
		if g == nil {
			g = &group{}
			groups[place] = g
		}
		g.recipients = append(g.recipients, i)
		g.targets = append(g.targets, store.Target{
			Owner: owner, Mailbox: name, Create: m.options.AutoCreate || name == store.Inbox, SubscribeCreated: m.options.AutoSubscribe,
			Prefix: m.prefix(msg.Envelope, session, r, len(recipients) == 1),
		})
	}
	for place, g := range groups {
		m.deliverGroup(ctx, place, g, msg, session, recipients, results)
	}
	for i, first := range sameAs {
		if first > 0 {
			results[i] = results[first-1]
			if !results[i].Permanent && !results[i].Temporary {
				results[i].Reply = fmt.Sprintf("250 2.0.0 <%s> %s Saved", recipients[i].Address, session)
			}
		}
	}
	return results
}

type group struct {
	recipients []int
	targets    []store.Target
}

func (m *Mailbox) deliverGroup(ctx context.Context, place store.Store, g *group, msg *Message, session string, recipients []*Recipient, results []Result) {
	outcomes, err := place.Deliver(ctx, &store.Delivery{
		ID: msg.DeliveryID, Content: msg.Content, Structure: msg.Structure, InternalDate: m.options.Now(),
		Targets: g.targets, AllOrNothing: msg.AllOrNothing,
	})
	messageID := sync.OnceValue(func() string { return messageIDOf(msg) })
	for n, i := range g.recipients {
		r := recipients[i]
		failed := err
		if failed == nil {
			failed = outcomes[n].Err
		}
		name := session
		if len(recipients) > 1 {
			name = fmt.Sprintf("%s:R%d", session, i+1)
		}
		log := m.options.Log.With("program", "lmtp", "user", r.User.Name, "session", name, "queue_id", msg.Envelope.QueueID)
		if failed != nil {
			results[i] = m.failure(r, failed)
			log.Info(fmt.Sprintf("msgid=%s: save failed to %s: %v", messageID(), g.targets[n].Mailbox, failed))
			continue
		}
		results[i] = Result{Reply: fmt.Sprintf("250 2.0.0 <%s> %s Saved", r.Address, session)}
		if outcomes[n].Duplicate {
			log.Info(fmt.Sprintf("msgid=%s: was saved before to %s", messageID(), g.targets[n].Mailbox))
			continue
		}
		log.Info(fmt.Sprintf("msgid=%s: saved mail to %s", messageID(), g.targets[n].Mailbox))
	}
}

func (m *Mailbox) failure(r *Recipient, err error) Result {
	switch {
	case errors.Is(err, store.ErrOverQuota) && !m.options.QuotaFullTempfail:
		return Result{Reply: fmt.Sprintf("552 5.2.2 <%s> Quota exceeded (mailbox for user is full)", r.Address), Permanent: true, Err: err}
	case errors.Is(err, store.ErrOverQuota):
		return Result{Reply: fmt.Sprintf("452 4.2.2 <%s> Quota exceeded (mailbox for user is full)", r.Address), Temporary: true, Err: err}
	case errors.Is(err, store.ErrNoSpace):
		return Result{Reply: fmt.Sprintf("452 4.3.1 <%s> Out of disk space", r.Address), Temporary: true, Err: err}
	}
	return Result{Reply: fmt.Sprintf("451 4.2.0 <%s> Temporary internal error", r.Address), Temporary: true, Err: err}
}

func (m *Mailbox) mailboxFor(r *Recipient) string {
	if m.options.SaveToDetailMailbox && r.Detail != "" {
		return r.Detail
	}
	return store.Inbox
}

// prefix is the trace fields that a final delivery adds. Those that name the recipient stand only where there is one, so that nobody learns of
// the others.
func (m *Mailbox) prefix(e *envelope.Envelope, session string, r *Recipient, single bool) []byte {
	b := fmt.Appendf(nil, "Return-Path: <%s>\r\n", e.Sender)
	address := r.Address
	if m.options.DeliveryAddress == "original" && r.Original != "" {
		address = r.Original
	}
	if single && m.options.DeliveryAddress != "none" {
		b = fmt.Appendf(b, "Delivered-To: %s\r\n", address)
	}
	if !m.options.AddReceived {
		return b
	}
	b = fmt.Appendf(b, "Received: from %s", e.Client.Helo)
	if e.Client.Address != "" {
		b = fmt.Appendf(b, " ([%s])", e.Client.Address)
	}
	b = fmt.Appendf(b, "\r\n\tby %s with %s\r\n\tid %s\r\n\t(envelope-from <%s>)", m.options.Hostname, m.options.Protocol, session, e.Sender)
	if single && m.options.DeliveryAddress != "none" {
		b = fmt.Appendf(b, "\r\n\tfor <%s>", address)
	}
	return fmt.Appendf(b, "; %s\r\n", m.options.Now().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
}

// maxMessageID is the limit in octets of a Message-ID in the log.
const maxMessageID = 998

// messageIDOf is the Message-ID as the log shows it.
func messageIDOf(msg *Message) string {
	if msg.Structure == nil || msg.Structure.Root.Envelope == nil || msg.Structure.Root.Envelope.MessageID == nil {
		return "unspecified"
	}
	id := strings.TrimSpace(*msg.Structure.Root.Envelope.MessageID)
	return id[:min(len(id), maxMessageID)]
}

// NewSession makes a name for one transaction: 22 characters that do not come again.
func NewSession() string {
	var raw [16]byte
	// crypto/rand.Read never fails (it ends the process when the system has no randomness).
	_, _ = rand.Read(raw[:])
	return base64.RawStdEncoding.EncodeToString(raw[:])
}

// Hostname is the name for Received when the configuration gives none.
func Hostname() string {
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}
