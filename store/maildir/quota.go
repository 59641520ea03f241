package maildir

import (
	"context"
	"errors"
	"strings"

	"postilion/store"
)

// quota answers what the rules of an account say.
type quota struct {
	rules         []store.QuotaRule
	bytes, number int64
}

// quotaOf finds the limits of "*": the last rule counts, relative ones are added.
func quotaOf(q store.Quota) quota {
	result := quota{rules: q.Rules}
	for _, rule := range q.Rules {
		switch {
		case rule.Mailbox != "*":
		case rule.Relative:
			result.bytes += rule.Bytes
			result.number += rule.Messages
		default:
			result.bytes, result.number = rule.Bytes, rule.Messages
		}
	}
	return result
}

// limited tells whether the account has any limit; without one for "*" other rules mean nothing.
func (q quota) limited() bool { return q.bytes > 0 || q.number > 0 }

// rule returns the rule for a mailbox: the one of its name, else the one of the nearest name above.
func (q quota) rule(mailbox string) (found store.QuotaRule, ok bool) {
	best := -1
	for _, rule := range q.rules {
		if rule.Mailbox == mailbox {
			return rule, true
		}
		above, wild := strings.CutSuffix(rule.Mailbox, "/*")
		if wild && strings.HasPrefix(mailbox, above+"/") && len(above) > best {
			found, ok, best = rule, true, len(above)
		}
	}
	return found, ok
}

func (q quota) ignores(mailbox string) bool {
	rule, ok := q.rule(mailbox)
	return ok && rule.Ignore
}

// allows tells whether a mailbox may get more when the account holds used.
func (q quota) allows(mailbox string, used store.QuotaUsage, bytes, number int64) bool {
	rule, ok := q.rule(mailbox)
	if !q.limited() || (ok && rule.Ignore) {
		return true
	}
	limitBytes, limitNumber := q.bytes, q.number
	if ok && limitBytes > 0 {
		limitBytes += rule.Bytes
	}
	if ok && limitNumber > 0 {
		limitNumber += rule.Messages
	}
	return (limitBytes == 0 || used.Bytes+bytes <= limitBytes) && (limitNumber == 0 || used.Messages+number <= limitNumber)
}

func (a *account) QuotaUsage(ctx context.Context) (store.QuotaUsage, error) {
	var usage store.QuotaUsage
	err := a.do(ctx, "count", "", func() (err error) {
		usage, err = a.usage(ctx)
		return err
	})
	return usage, err
}

// usage adds up all mailboxes that are not left out.
func (a *account) usage(ctx context.Context) (store.QuotaUsage, error) {
	q := quotaOf(a.owner.Quota)
	usage := store.QuotaUsage{LimitBytes: q.bytes, LimitMessages: q.number}
	names, err := a.root.mailboxes()
	if err != nil {
		return usage, err
	}
	for _, name := range names {
		if q.ignores(name) {
			continue
		}
		current, err := a.look(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return usage, err
		}
		status := current.status()
		usage.Bytes += status.Size
		usage.Messages += int64(status.Messages)
	}
	return usage, nil
}

// reserve checks that a mailbox may get more and keeps others from taking it until free is called.
func (a *account) reserve(ctx context.Context, mailbox string, bytes, number int64) (free func(), err error) {
	q := quotaOf(a.owner.Quota)
	if !q.limited() || q.ignores(mailbox) {
		return func() {}, nil
	}
	a.root.quota.Lock()
	used, err := a.usage(ctx)
	if err == nil && !q.allows(mailbox, used, bytes, number) {
		err = store.ErrOverQuota
	}
	if err != nil {
		a.root.quota.Unlock()
		return nil, err
	}
	return a.root.quota.Unlock, nil
}
