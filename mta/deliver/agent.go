package deliver

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"postilion/mail/envelope"
	"postilion/mail/message"
	"postilion/store"
)

// Agent hands a message to something that is not a mailbox of ours: an LMTP server, a program. It tries once.
type Agent interface {
	// Deliver returns one outcome per recipient of the job, in their order. It ends when ctx does.
	Deliver(ctx context.Context, job *Job) []Outcome
}

// Job is a message for recipients with the same next hop.
type Job struct {
	// Envelope is that of the message; its recipients are those of the job, with their final addresses.
	Envelope  *envelope.Envelope
	Content   store.Content
	Structure *message.Message
	// Nexthop is what stands behind the transport's name.
	Nexthop string
	// Given are the addresses as the client gave them, in the order of the recipients.
	Given []string
}

// Status is how a delivery ended, in the words of Postfix's logs.
type Status uint8

// The ways in which a delivery ends.
const (
	Sent Status = iota
	Deferred
	Bounced
)

func (s Status) String() string { return [...]string{"sent", "deferred", "bounced"}[s] }

// Outcome is what became of a recipient.
type Outcome struct {
	Status Status
	// DSN is the enhanced status code.
	DSN string
	// Text says why, as the log has it between parentheses.
	Text string
	// Reply is what a client that still waits is told; it may have several lines. "" makes one of DSN and Text.
	Reply string
	// Relay is who took the message, "none" when nobody was reached.
	Relay string
	// Connection is the time until the other end was ready, Transmission the time after it.
	Connection, Transmission time.Duration
}

// failure makes an outcome of a failure on our side of the conversation.
func failure(status Status, dsn, format string, arguments ...any) Outcome {
	return Outcome{Status: status, DSN: dsn, Text: fmt.Sprintf(format, arguments...), Relay: "none"}
}

// ReplyText is the reply for an SMTP client.
func (o *Outcome) ReplyText() string {
	if o.Reply != "" {
		return o.Reply
	}
	code := "550"
	switch o.Status {
	case Sent:
		code = "250"
	case Deferred:
		code = "451"
	}
	return code + " " + o.DSN + " " + printable(o.Text)
}

// outcomeLog writes what Postfix's agents write about a recipient.
type outcomeLog struct {
	log     *slog.Logger
	program string
}

// write logs one outcome. began is when the agent got the message.
func (l outcomeLog) write(e *envelope.Envelope, recipient, given string, began time.Time, o *Outcome) {
	var b strings.Builder
	b.WriteString(e.QueueID + ": to=<" + recipient + ">")
	if given != "" && given != recipient {
		b.WriteString(", orig_to=<" + given + ">")
	}
	waited := time.Duration(0)
	if !e.Arrival.IsZero() {
		waited = began.Sub(e.Arrival)
	}
	b.WriteString(", relay=" + o.Relay)
	b.WriteString(", delay=" + delayText(waited+o.Connection+o.Transmission))
	b.WriteString(", delays=" + delayText(waited) + "/0/" + delayText(o.Connection) + "/" + delayText(o.Transmission))
	b.WriteString(", dsn=" + o.DSN + ", status=" + o.Status.String() + " (" + printable(o.Text) + ")")
	l.log.LogAttrs(context.Background(), slog.LevelInfo, b.String(), slog.String("program", l.program), slog.String("queue_id", e.QueueID))
}

// delayText is a time in seconds with two digits that matter and not more than two behind the point, as delay_logging_resolution_limit has it.
func delayText(d time.Duration) string {
	d = max(d, 0)
	digits := 2
	switch {
	case d >= 9950*time.Millisecond:
		digits = 0
	case d >= 995*time.Millisecond:
		digits = 1
	}
	text := strconv.FormatFloat(d.Seconds(), 'f', digits, 64)
	if digits > 0 {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

// printable replaces what could pass for another line or another log entry.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 127 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
