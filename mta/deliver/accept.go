package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

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
	// ToDiscard is discard(8).
	ToDiscard
)

// AcceptorOptions configure an Acceptor.
type AcceptorOptions struct {
	Router  *route.Router
	Mailbox *Mailbox
	// Hop names what a transport and nexthop mean.
	Hop func(transport, nexthop string) Hop
	// MailboxTransport is mailbox_transport, where local(8) sends what is no alias; "" is none.
	MailboxTransport string
	Log              *slog.Logger
}

// Acceptor takes responsibility for a message: everything it accepts is in the mailboxes, in one durable step, when Accept returns.
// Mail for anything else than mailboxes of this server is refused for now.
type Acceptor struct {
	options AcceptorOptions
}

// NewAcceptor returns an Acceptor.
func NewAcceptor(options AcceptorOptions) *Acceptor { return &Acceptor{options: options} }

// maxAliasTargets bounds what one message may expand to through aliases(5).
const maxAliasTargets = 1000

// destination is one final recipient with the steps that led there.
type destination struct {
	hop       Hop
	recipient string
	reason    string
	trace     []route.Step
}

const notBuilt = "451 4.3.0 Error: mail transport unavailable"

// Accept delivers to all recipients or to none. The error is a *ReplyError.
func (a *Acceptor) Accept(ctx context.Context, e *envelope.Envelope, content store.Content, structure *message.Message) error {
	var boxes []*Recipient
	var refused []destination
	seen := map[string]bool{}
	for _, r := range e.Recipients {
		found, err := a.Route(ctx, r.Address)
		if err != nil {
			return &ReplyError{Reply: "451 4.3.0 Error: queue file write error", Temporary: true, Err: err}
		}
		for _, d := range found {
			switch d.hop {
			case ToMailbox:
				if seen[strings.ToLower(d.recipient)] {
					continue
				}
				seen[strings.ToLower(d.recipient)] = true
				box, err := a.options.Mailbox.Resolve(ctx, d.recipient)
				if err != nil {
					return err
				}
				box.Original = r.Original
				boxes = append(boxes, box)
			case ToDiscard:
				a.options.Log.Info(fmt.Sprintf("%s: to=<%s>, relay=none, dsn=2.0.0, status=sent (%s)", e.QueueID, d.recipient, d.reason), "program", "postfix/discard", "queue_id", e.QueueID)
			default:
				refused = append(refused, d)
			}
		}
	}
	for _, d := range refused {
		return a.refuse(e, d)
	}
	if len(boxes) == 0 {
		return nil
	}
	return a.deliver(ctx, e, content, structure, boxes)
}

func (a *Acceptor) refuse(e *envelope.Envelope, d destination) error {
	if d.hop == ToError {
		return &ReplyError{Reply: errorReply(d.reason)}
	}
	a.options.Log.Warn(fmt.Sprintf("%s: refused for now: this version has no delivery for <%s>: %s", e.QueueID, d.recipient, d.reason), "queue_id", e.QueueID)
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
			x.Delivery = errorReply(d.reason)
		case ToDiscard:
			x.Delivery = "discarded"
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
	if depth > 100 || len(w.found) >= maxAliasTargets {
		return fmt.Errorf("%w: aliases of %s", route.ErrLoop, address)
	}
	resolved, err := w.acceptor.options.Router.Resolve(ctx, "", address)
	if err != nil {
		return err
	}
	trace = append(trace[:len(trace):len(trace)], resolved.Trace...)
	hop := w.acceptor.options.Hop(resolved.Transport, resolved.Nexthop)
	if hop == ToLocal {
		return w.local(ctx, resolved, trace, depth)
	}
	w.found = append(w.found, destination{hop: hop, recipient: resolved.Recipient, reason: reasonOf(hop, resolved), trace: trace})
	return nil
}

func reasonOf(hop Hop, r *route.Resolution) string {
	if hop == ToError || hop == ToDiscard {
		return r.Nexthop
	}
	return "transport " + r.Transport + ":" + r.Nexthop
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
	hop := w.acceptor.options.Hop(transport, nexthop)
	trace = append(trace, route.Step{What: "mailbox_transport", Result: w.acceptor.options.MailboxTransport})
	w.found = append(w.found, destination{hop: hop, recipient: resolved.Recipient, reason: "transport " + w.acceptor.options.MailboxTransport, trace: trace})
	return nil
}
