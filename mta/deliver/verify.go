package deliver

import (
	"context"
	"errors"
)

// Verify tells whether mail for the address could be delivered, as far as that can be told without asking another host, as verify(8) does by a
// probe. Sent means that it could, Bounced that it could not, Deferred that it is not known now; reason says why.
func (a *Acceptor) Verify(ctx context.Context, address string) (status Status, reason string) {
	plan := a.Plan()
	plan.Add(ctx, address)
	switch {
	case plan.failed != nil:
		return Deferred, "Address lookup error"
	case plan.refused != nil && plan.refused.hop == ToError:
		return Bounced, plan.refused.nexthop
	case plan.refused != nil && plan.refused.hop == ToRetry:
		return Deferred, plan.refused.nexthop
	case plan.refused != nil:
		return Deferred, "Address verification in progress"
	}
	for _, d := range plan.boxes {
		_, err := a.options.Mailbox.Resolve(ctx, d.recipient)
		var refused *ReplyError
		switch {
		case errors.As(err, &refused) && !refused.Temporary:
			return Bounced, refused.Reply
		case err != nil:
			return Deferred, err.Error()
		}
	}
	if plan.foreign != nil {
		if _, isPipe := plan.foreign.agent.(*Pipe); !isPipe {
			return Deferred, "Address verification in progress"
		}
	}
	return Sent, ""
}
