package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"postilion/mail/envelope"
	"postilion/mail/message"
	"postilion/mta/route"
	"postilion/store"
)

// Hop tells what stands behind a transport and nexthop of main.cf.
type Hop uint8

// The kinds of hops.
const (
	// Unbuilt: the transport is not there in this version; mail for it is refused for now.
	Unbuilt Hop = iota
	// ToMailbox leads to our own mailboxes.
	ToMailbox
	// ToLocal is local(8): aliases first, then mailbox_transport.
	ToLocal
	// ToError is error(8): the nexthop is the reason.
	ToError
	// ToRetry is error(8) by the name of retry: mail is put off.
	ToRetry
	// ToDiscard is discard(8).
	ToDiscard
	// ToAgent is an agent that hands mail to another program.
	ToAgent
)

// AcceptorOptions configure an Acceptor.
type AcceptorOptions struct {
	Router  *route.Router
	Mailbox *Mailbox
	// Hop names what a transport and nexthop mean; the agent is there for ToAgent.
	Hop func(transport, nexthop string) (Hop, Agent)
	// MailboxTransport is mailbox_transport, where local(8) sends what is no alias; "" is none.
	MailboxTransport string
	Log              *slog.Logger
}

// Acceptor takes responsibility for a message: everything it accepts is in the mailboxes, in one durable step, or with the one program that it
// went to, when Accept returns.
type Acceptor struct {
	options AcceptorOptions
}

// NewAcceptor returns an Acceptor.
func NewAcceptor(options AcceptorOptions) *Acceptor { return &Acceptor{options: options} }

// destination is one final recipient with the steps that led there.
type destination struct {
	hop       Hop
	agent     Agent
	recipient string
	nexthop   string
	reason    string
	trace     []route.Step
}

const notBuilt = "451 4.3.0 Error: mail transport unavailable"

// patience bounds all that is done for a message after its last octet: a client waits ten minutes for the answer (RFC 5321 section 4.5.3.2.6), and
// one that gives up sends again what may have arrived (RFC 1047).
const patience = 9 * time.Minute

// Accept delivers to all recipients or to none. plan is what the recipients of the envelope led to; nil looks them up now. The error is a *ReplyError.
func (a *Acceptor) Accept(ctx context.Context, e *envelope.Envelope, content store.Content, structure *message.Message, plan *Plan) error {
	if plan == nil || plan.added != len(e.Recipients) {
		plan = a.Plan()
		for _, r := range e.Recipients {
			if refusal := plan.Add(ctx, r.Address); refusal != "" {
				return &ReplyError{Reply: refusal, Temporary: true}
			}
		}
	}
	switch {
	case plan.failed != nil:
		return routeFailed(plan.failed)
	case plan.refused != nil:
		return a.refuse(e, plan.refused.destination)
	case plan.mixed():
		return a.refuse(e, plan.foreign.destination)
	case plan.foreign != nil:
		if err := a.handOver(ctx, e, content, structure, plan.foreign); err != nil {
			return err
		}
	case len(plan.boxes) > 0:
		if err := a.toMailboxes(ctx, e, content, structure, plan.boxes); err != nil {
			return err
		}
	}
	for _, d := range plan.discarded {
		o := Outcome{DSN: "2.0.0", Text: orElse(d.nexthop, d.recipient), Relay: "none"}
		outcomeLog{a.options.Log, "postfix/discard"}.write(e, d.recipient, d.given(e).Address, time.Now(), &o)
	}
	return nil
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// handOver gives the message to another program, whose answer becomes ours.
func (a *Acceptor) handOver(ctx context.Context, e *envelope.Envelope, content store.Content, structure *message.Message, to *placed) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	own := *e
	given := to.given(e)
	recipient := given
	recipient.Address = to.recipient
	if recipient.Original == "" {
		recipient.Original = "rfc822;" + given.Address
	}
	own.Recipients = []envelope.Recipient{recipient}
	outcomes := to.agent.Deliver(ctx, &Job{Envelope: &own, Content: content, Structure: structure, Nexthop: to.nexthop, Given: []string{given.Address}})
	if o := outcomes[0]; o.Status != Sent {
		return &ReplyError{Reply: o.ReplyText(), Temporary: o.Status == Deferred}
	}
	return nil
}

// toMailboxes resolves and delivers in one step.
func (a *Acceptor) toMailboxes(ctx context.Context, e *envelope.Envelope, content store.Content, structure *message.Message, places []placed) error {
	boxes := make([]*Recipient, len(places))
	for i, d := range places {
		box, err := a.options.Mailbox.Resolve(ctx, d.recipient)
		if err != nil {
			return err
		}
		box.Original = d.given(e).Original
		boxes[i] = box
	}
	return a.deliver(ctx, e, content, structure, boxes)
}

func (a *Acceptor) refuse(e *envelope.Envelope, d destination) error {
	switch d.hop {
	case ToError:
		return &ReplyError{Reply: errorReply(d.nexthop)}
	case ToRetry:
		return &ReplyError{Reply: retryReply(d.nexthop), Temporary: true}
	}
	reason := d.reason
	if d.hop == ToAgent {
		reason = "its aliases lead to several places, which needs a queue: " + reason
	}
	a.options.Log.Warn(fmt.Sprintf("%s: refused for now: this version has no delivery for <%s>: %s", e.QueueID, d.recipient, reason), "queue_id", e.QueueID)
	return &ReplyError{Reply: notBuilt, Temporary: true}
}

// errorReply makes a reply of an error(8) nexthop, which may begin with an enhanced status code.
func errorReply(reason string) string {
	code, text, _ := strings.Cut(reason, " ")
	if len(code) >= 5 && code[1] == '.' && (code[0] == '4' || code[0] == '5') {
		if code[0] == '4' {
			return "451 " + code + " " + text
		}
		return "550 " + code + " " + text
	}
	return "550 5.0.0 " + reason
}

// retryReply makes a reply of a nexthop of the retry transport.
func retryReply(reason string) string {
	code, text, _ := strings.Cut(reason, " ")
	if len(code) >= 5 && code[1] == '.' && (code[0] == '4' || code[0] == '5') {
		return "451 4" + code[1:] + " " + text
	}
	return "451 4.0.0 " + reason
}

func (a *Acceptor) deliver(ctx context.Context, e *envelope.Envelope, content store.Content, structure *message.Message, boxes []*Recipient) error {
	msg := &Message{Envelope: e, Content: content, Structure: structure, AllOrNothing: true}
	results := a.options.Mailbox.Deliver(ctx, msg, boxes)
	var failed *Result
	for i := range results {
		r := &results[i]
		// What failed only because another recipient did is no reason.
		if (r.Temporary || r.Permanent) && (failed == nil || errors.Is(failed.Err, store.ErrNotDelivered)) {
			failed = r
		}
	}
	if failed != nil {
		return &ReplyError{Reply: failed.Reply, Temporary: failed.Temporary, Err: failed.Err}
	}
	for _, b := range boxes {
		a.options.Log.Info(fmt.Sprintf("%s: to=<%s>, relay=%s[in-process], dsn=2.0.0, status=sent (250 2.0.0 <%s> Saved)",
			e.QueueID, b.Address, a.options.Mailbox.options.Hostname, b.Address), "program", "postfix/lmtp", "queue_id", e.QueueID)
	}
	return nil
}

// Route follows an address through virtual aliases, classes and aliases(5) to where its mail ends. Each destination has its steps.
func (a *Acceptor) Route(ctx context.Context, address string) ([]destination, error) {
	expanded, err := a.options.Router.Expand(ctx, address)
	if err != nil {
		return nil, err
	}
	w := walk{acceptor: a, seen: map[string]bool{}}
	for _, x := range expanded {
		if err := w.follow(ctx, x.Recipient, x.Trace, 0); err != nil {
			return nil, err
		}
	}
	return w.found, nil
}

// Explained is a destination in words.
type Explained struct {
	Recipient string
	// Delivery says what is done: "mailbox of USER", "refused for now", an error text.
	Delivery string
	Trace    []route.Step
}

// Explain tells where mail for the address would go, by the same code that delivers it.
func (a *Acceptor) Explain(ctx context.Context, address string) ([]Explained, error) {
	found, err := a.Route(ctx, address)
	if err != nil {
		return nil, err
	}
	var list []Explained
	for _, d := range found {
		x := Explained{Recipient: d.recipient, Trace: d.trace}
		switch d.hop {
		case ToMailbox:
			x.Delivery = "delivered to the mailbox"
			if box, err := a.options.Mailbox.Resolve(ctx, d.recipient); err != nil {
				x.Delivery = err.Error()
			} else {
				x.Delivery = fmt.Sprintf("delivered to mailbox %s of user %s", a.options.Mailbox.mailboxFor(box), box.User.Name)
			}
		case ToError:
			x.Delivery = errorReply(d.nexthop)
		case ToRetry:
			x.Delivery = retryReply(d.nexthop)
		case ToDiscard:
			x.Delivery = "discarded"
		case ToAgent:
			x.Delivery = "handed over to " + d.reason
		default:
			x.Delivery = "refused for now (451): no delivery in this version: " + d.reason
		}
		list = append(list, x)
	}
	return list, nil
}

type walk struct {
	acceptor *Acceptor
	found    []destination
	seen     map[string]bool
}

func (w *walk) follow(ctx context.Context, address string, trace []route.Step, depth int) error {
	if depth > 100 || len(w.found) >= maxDestinations {
		return fmt.Errorf("%w: aliases of %s", route.ErrLoop, address)
	}
	resolved, err := w.acceptor.options.Router.Resolve(ctx, "", address)
	if err != nil {
		return err
	}
	trace = append(trace[:len(trace):len(trace)], resolved.Trace...)
	hop, agent := w.acceptor.options.Hop(resolved.Transport, resolved.Nexthop)
	if hop == ToLocal {
		return w.local(ctx, resolved, trace, depth)
	}
	w.found = append(w.found, destination{
		hop: hop, agent: agent, recipient: resolved.Recipient, nexthop: resolved.Nexthop,
		reason: "transport " + resolved.Transport + ":" + resolved.Nexthop, trace: trace,
	})
	return nil
}

// local does what local(8) does before it delivers.
func (w *walk) local(ctx context.Context, resolved *route.Resolution, trace []route.Step, depth int) error {
	targets, where, found, err := w.acceptor.options.Router.Alias(ctx, resolved.Local)
	if err != nil {
		return err
	}
	if found && !w.seen[strings.ToLower(resolved.Local)] {
		w.seen[strings.ToLower(resolved.Local)] = true
		for _, target := range targets {
			steps := append(trace[:len(trace):len(trace)], route.Step{What: "alias_maps", Where: where, Result: target})
			plain := strings.Trim(target, `"`)
			if strings.HasPrefix(plain, "|") || strings.HasPrefix(plain, "/") || strings.HasPrefix(plain, ":include:") {
				w.found = append(w.found, destination{hop: Unbuilt, recipient: resolved.Recipient, reason: "alias target " + target, trace: steps})
				continue
			}
			if err := w.follow(ctx, w.acceptor.options.Router.Rewrite(strings.TrimPrefix(target, `\`)), steps, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	transport, nexthop, _ := strings.Cut(w.acceptor.options.MailboxTransport, ":")
	if transport == "" {
		w.found = append(w.found, destination{hop: Unbuilt, recipient: resolved.Recipient, reason: "local delivery without mailbox_transport", trace: trace})
		return nil
	}
	hop, agent := w.acceptor.options.Hop(transport, nexthop)
	trace = append(trace, route.Step{What: "mailbox_transport", Result: w.acceptor.options.MailboxTransport})
	w.found = append(w.found, destination{
		hop: hop, agent: agent, recipient: resolved.Recipient, nexthop: nexthop, reason: "transport " + w.acceptor.options.MailboxTransport, trace: trace,
	})
	return nil
}
