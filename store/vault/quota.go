package vault

import (
	"context"
	"fmt"
	"strings"

	"postilion/store"
)

// QuotaUsage implements store.Account.
func (h *accountHandle) QuotaUsage(ctx context.Context) (store.QuotaUsage, error) {
	if err := h.enter(ctx); err != nil {
		return store.QuotaUsage{}, wrap("quota", h.user, "", err)
	}
	defer h.leave()
	h.mu.Lock()
	defer h.mu.Unlock()
	held, err := h.counted(h.account.usage, &h.quota)
	if err != nil {
		return store.QuotaUsage{}, wrap("quota", h.user, "", err)
	}
	limit := baseLimit(&h.quota)
	return store.QuotaUsage{Bytes: held.bytes, Messages: held.messages, LimitBytes: limit.bytes, LimitMessages: limit.messages}, nil
}

func baseLimit(quota *store.Quota) usage {
	for _, rule := range quota.Rules {
		if rule.Mailbox == "*" {
			return usage{rule.Bytes, rule.Messages}
		}
	}
	return usage{}
}

// matches tells whether a quota rule other than "*" is about the mailbox; "x/*" is about those below x.
func matches(pattern, name string) bool {
	if above, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasSuffix(above, "/") {
		return strings.HasPrefix(name, above)
	}
	return pattern == name
}

// ruleFor returns the rule that counts for a mailbox, the one with the longest pattern that fits, or -1.
func ruleFor(quota *store.Quota, name string) int {
	longest := -1
	for i, rule := range quota.Rules {
		if rule.Mailbox != "*" && matches(rule.Mailbox, name) && (longest < 0 || len(rule.Mailbox) > len(quota.Rules[longest].Mailbox)) {
			longest = i
		}
	}
	return longest
}

// limitFor returns what the account may hold when a message is added to the mailbox, and whether the mailbox is left out of the count.
func limitFor(quota *store.Quota, name string) (limit usage, ignored bool) {
	limit = baseLimit(quota)
	own := ruleFor(quota, name)
	if own < 0 {
		return limit, false
	}
	rule := quota.Rules[own]
	adjust := func(base, own int64) int64 {
		switch {
		case own == 0 || (rule.Relative && base == 0):
			return base
		case rule.Relative:
			return base + own
		}
		return own
	}
	return usage{adjust(limit.bytes, rule.Bytes), adjust(limit.messages, rule.Messages)}, rule.Ignore
}

// counted takes the mailboxes that rules leave out off what the account holds. a.mu is held.
func (a *account) counted(held usage, quota *store.Quota) (usage, error) {
	leaveOut := func(i int, name string) error {
		if ruleFor(quota, name) != i {
			return nil
		}
		counters, err := a.counters(name)
		if isNotFound(err) {
			return nil
		}
		held.bytes -= counters.size
		held.messages -= int64(counters.messages)
		return err
	}
	for i, rule := range quota.Rules {
		if !rule.Ignore || rule.Mailbox == "*" {
			continue
		}
		var err error
		if above, ok := strings.CutSuffix(rule.Mailbox, "*"); ok {
			err = a.names(above, func(name string, _ nameRow) error { return leaveOut(i, name) })
		} else {
			err = leaveOut(i, rule.Mailbox)
		}
		if err != nil {
			return usage{}, err
		}
	}
	return held, nil
}

// counters are those after all started changes.
func (a *account) counters(name string) (state, error) {
	if box := a.boxes[name]; box != nil {
		return box.working.state, nil
	}
	_, counters, err := a.peek(name)
	return counters, err
}

// checkQuota tells whether more may be added to the mailbox after what is planned already.
func (ac *accountChange) checkQuota(quota *store.Quota, name string, more usage) error {
	if len(quota.Rules) == 0 {
		return nil
	}
	limit, ignored := limitFor(quota, name)
	if ignored || limit == (usage{}) {
		return nil
	}
	held, err := ac.account.counted(ac.usage, quota)
	if err != nil {
		return err
	}
	if limit.bytes > 0 && held.bytes+more.bytes > limit.bytes {
		return fmt.Errorf("%w: %d of %d octets are used, %d more are not possible", store.ErrOverQuota, held.bytes, limit.bytes, more.bytes)
	}
	if limit.messages > 0 && held.messages+more.messages > limit.messages {
		return fmt.Errorf("%w: %d of %d messages are there, %d more are not possible", store.ErrOverQuota, held.messages, limit.messages, more.messages)
	}
	return nil
}
