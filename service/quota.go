package service

import (
	"fmt"
	"strconv"
	"strings"

	"postilion/store"
)

// parseQuotaRule reads Dovecot's quota_rule: MAILBOX:LIMITS, where LIMITS are storage=SIZE, bytes=SIZE and messages=N with colons between them, or
// ignore. A sign makes a limit relative to that of *, a percent sign a part of it. whole is the rule of *.
func parseQuotaRule(text string, whole store.QuotaRule) (store.QuotaRule, error) {
	mailbox, limits, found := strings.Cut(text, ":")
	if !found || mailbox == "" {
		return store.QuotaRule{}, fmt.Errorf("quota_rule %q is not MAILBOX:LIMITS", text)
	}
	rule := store.QuotaRule{Mailbox: mailbox}
	if mailbox == "?" {
		rule.Mailbox = "*"
	}
	if limits == "ignore" {
		rule.Ignore = true
		return rule, nil
	}
	for limit := range strings.SplitSeq(limits, ":") {
		name, value, _ := strings.Cut(limit, "=")
		value = strings.ReplaceAll(value, "%%", "%")
		percent, isPercent := strings.CutSuffix(value, "%")
		if isPercent {
			part, err := strconv.ParseInt(percent, 10, 32)
			if err != nil {
				return rule, fmt.Errorf("quota_rule %q: %q is not a percentage", text, value)
			}
			sign := value[:len(value)-len(strings.TrimLeft(value, "+-"))]
			of := whole.Bytes
			if strings.EqualFold(name, "messages") {
				of = whole.Messages
			}
			value = strings.TrimPrefix(sign, "-") + strconv.FormatInt(of/100*part+of%100*part/100, 10)
			if !strings.EqualFold(name, "messages") {
				value += "b"
			}
		}
		if strings.HasPrefix(value, "+") || strings.HasPrefix(value, "-") {
			rule.Relative = true
		}
		switch strings.ToLower(name) {
		case "storage":
			size, err := parseQuotaSize(value, 1024)
			if err != nil {
				return rule, fmt.Errorf("quota_rule %q: %w", text, err)
			}
			rule.Bytes = size
		case "bytes":
			size, err := parseQuotaSize(value, 1)
			if err != nil {
				return rule, fmt.Errorf("quota_rule %q: %w", text, err)
			}
			rule.Bytes = size
		case "messages":
			count, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return rule, fmt.Errorf("quota_rule %q: messages: %w", text, err)
			}
			rule.Messages = count
		case "backend", "":
		default:
			return rule, fmt.Errorf("quota_rule %q: unknown limit %s: storage=, bytes=, messages= and ignore are known", text, name)
		}
	}
	return rule, nil
}

// parseQuotaSize reads a number with a unit b, k, M, G or T; without one unit counts.
func parseQuotaSize(text string, unit int64) (int64, error) {
	number := strings.TrimRight(text, "bBkKmMgGtT")
	switch strings.ToLower(strings.TrimSuffix(strings.ToLower(text[len(number):]), "b")) {
	case "":
		if strings.HasSuffix(strings.ToLower(text), "b") {
			unit = 1
		}
	case "k":
		unit = 1 << 10
	case "m":
		unit = 1 << 20
	case "g":
		unit = 1 << 30
	case "t":
		unit = 1 << 40
	default:
		return 0, fmt.Errorf("size %q: units are b, k, M, G and T", text)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size %q is not a number", text)
	}
	if n > (1<<62)/unit || n < -(1<<62)/unit {
		return 0, fmt.Errorf("size %q is too large", text)
	}
	return n * unit, nil
}
