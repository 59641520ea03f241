package deliver

import (
	"context"
	"fmt"
	"strings"

	"postilion/mail/envelope"
)

// tooMany is the answer to a recipient that cannot be taken together with those before it. RFC 5321 section 4.5.3.1.10 has the client
// send the others first and this one in a transaction of its own.
const tooMany = "452 4.5.3 Error: too many recipients"

// maxDestinations bounds what the recipients of one message may expand to in all.
const maxDestinations = 10_000

// Plan is where the mail of one transaction goes, put together while its recipients are named.
//
// One answer covers all recipients of a transaction, and no queue holds what a foreign program has not taken yet. So a recipient whose mail
// goes to a foreign program has a transaction of its own: of two, one could have the mail and the other not, and either answer would be
// wrong. Mailboxes of our own are taken together: they are one commit.
type Plan struct {
	acceptor *Acceptor
	// boxes are final recipients with a mailbox of ours, found the one that goes elsewhere.
	boxes   []placed
	foreign *placed
	refused *placed
	// discarded are thrown away.
	discarded []placed
	seen      map[string]bool
	added     int
	// failed is a look-up that could not be made; the message gets its answer.
	failed error
}

// placed is a destination with the place in the envelope of the recipient that led to it.
type placed struct {
	destination
	recipientAt int
}

// given is the recipient of the envelope.
func (d *placed) given(e *envelope.Envelope) envelope.Recipient {
	if d.recipientAt < len(e.Recipients) {
		return e.Recipients[d.recipientAt]
	}
	return envelope.Recipient{Address: d.recipient}
}

// Plan begins a transaction.
func (a *Acceptor) Plan() *Plan { return &Plan{acceptor: a, seen: map[string]bool{}} }

// Add takes a recipient that policy permits. refusal is the reply when it cannot be taken in this transaction, else "".
func (p *Plan) Add(ctx context.Context, recipient string) (refusal string) {
	found, err := p.acceptor.Route(ctx, recipient)
	if err != nil {
		p.added++
		if p.failed == nil {
			p.failed = fmt.Errorf("%s: %w", recipient, err)
		}
		return ""
	}
	next := p
	if p.added > 0 {
		next = &Plan{seen: map[string]bool{}}
	}
	for _, d := range found {
		next.take(placed{d.withoutTrace(), p.added}, p.seen)
	}
	if next != p {
		if !p.together(next) {
			return tooMany
		}
		p.join(next)
	}
	p.added++
	return ""
}

func (d destination) withoutTrace() destination {
	d.trace = nil
	return d
}

// take sorts one destination in. before holds those that the transaction has already.
func (p *Plan) take(d placed, before map[string]bool) {
	key := strings.ToLower(d.recipient)
	if before[key] || p.seen[key] {
		return
	}
	p.seen[key] = true
	switch d.hop {
	case ToMailbox:
		p.boxes = append(p.boxes, d)
	case ToDiscard:
		p.discarded = append(p.discarded, d)
	case ToAgent:
		if p.foreign != nil {
			p.refuse(d)
			return
		}
		p.foreign = &d
	default:
		p.refuse(d)
	}
}

func (p *Plan) refuse(d placed) {
	if p.refused == nil {
		p.refused = &d
	}
}

// together tells whether one answer can be true for what was there and for what comes.
func (p *Plan) together(next *Plan) bool {
	if len(p.seen)+len(next.seen) > maxDestinations {
		return false
	}
	if len(next.seen) == 0 || p.refused != nil || p.failed != nil || next.refused != nil {
		return true
	}
	switch {
	case p.foreign != nil:
		return next.foreign == nil && len(next.boxes) == 0
	case next.foreign != nil:
		return len(p.boxes) == 0 && len(next.boxes) == 0
	}
	return true
}

func (p *Plan) join(next *Plan) {
	p.boxes = append(p.boxes, next.boxes...)
	p.discarded = append(p.discarded, next.discarded...)
	if p.foreign == nil {
		p.foreign = next.foreign
	}
	if p.refused == nil {
		p.refused = next.refused
	}
	for key := range next.seen {
		p.seen[key] = true
	}
}

// mixed tells of one recipient whose aliases lead to places that no single answer covers.
func (p *Plan) mixed() bool { return p.foreign != nil && len(p.boxes) > 0 }

// routeFailed is the answer when tables cannot be asked.
func routeFailed(err error) *ReplyError {
	return &ReplyError{Reply: "451 4.3.0 Error: queue file write error", Temporary: true, Err: err}
}
