package smtpd

import (
	"context"
	"errors"

	"postilion/mail/envelope"
	"postilion/mail/message"
	"postilion/mta/policy"
	"postilion/store/spool"
)

// Mail is a complete message as it came in, with everything that was decided about it. It is the Acceptor's during Accept alone: the
// content is released afterwards.
type Mail struct {
	Envelope *envelope.Envelope
	// Content is the message in network form, trace header included.
	Content *spool.Content
	// Message is its structure, with offsets into Content.
	Message *message.Message
	// Effects are what access tables asked for, in the order in which they came, without PREPEND, which is done already.
	Effects []policy.Effect
	// Local tells that the client's mail is rewritten as local mail (local_header_rewrite_clients).
	Local bool
	// Forwarded is what XFORWARD told about where the message came from, nil without it.
	Forwarded map[string]string
	// Session is what policy services and filters may want to know.
	Session *policy.Session
	// Transaction is what Options.Begin made for this message; nil without it.
	Transaction Transaction
}

// Transaction follows the recipients of a message while they are named, for an Acceptor that cannot take all of them together.
type Transaction interface {
	// Add tells of a recipient that policy permits. refusal is the reply when it cannot be taken together with those before it, else "".
	Add(ctx context.Context, recipient string) (refusal string)
}

// Acceptor takes responsibility for messages.
type Acceptor interface {
	// Accept returns nil only when the message is safe. The reply is the whole text for the client, "" for Postfix's "250 2.0.0 Ok: queued as ID".
	// An error that is a *Reply carries the reply; any other error is logged and answered with 451 4.3.0.
	Accept(ctx context.Context, mail *Mail) (reply string, err error)
}

// EachAcceptor takes messages with a result for each recipient (LMTP).
type EachAcceptor interface {
	// AcceptEach returns one result per recipient, in the order of the envelope.
	AcceptEach(ctx context.Context, mail *Mail) []Result
}

// Result is what became of a message for one recipient: Reply and Err as Acceptor.Accept returns them.
type Result struct {
	Reply string
	Err   error
}

// Reply is a refusal with the text that the client shall see, such as "552 5.2.2 Mailbox is full".
type Reply struct {
	Text string
	// Cause is for the log; it may be nil.
	Cause error
}

// Error implements error.
func (r *Reply) Error() string {
	if r.Cause != nil {
		return r.Text + ": " + r.Cause.Error()
	}
	return r.Text
}

// Unwrap returns the cause.
func (r *Reply) Unwrap() error { return r.Cause }

const writeError = "451 4.3.0 Error: queue file write error"

// replyOf returns what the client is told of an error, and whether the cause is to be logged as a problem of ours.
func replyOf(err error) (reply string, problem bool) {
	var r *Reply
	if errors.As(err, &r) {
		return r.Text, false
	}
	return writeError, true
}
