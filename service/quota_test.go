package service

import (
	"testing"

	"postilion/store"
)

func TestQuotaRules(t *testing.T) {
	whole := store.QuotaRule{Mailbox: "*", Bytes: 1000, Messages: 50}
	for text, want := range map[string]store.QuotaRule{
		"*:storage=10K":             {Mailbox: "*", Bytes: 10 << 10},
		"*:storage=100":             {Mailbox: "*", Bytes: 100 << 10},
		"?:bytes=5":                 {Mailbox: "*", Bytes: 5},
		"*:storage=1G:messages=200": {Mailbox: "*", Bytes: 1 << 30, Messages: 200},
		"Trash:storage=+5M":         {Mailbox: "Trash", Bytes: 5 << 20, Relative: true},
		"Trash:storage=+10%%":       {Mailbox: "Trash", Bytes: 100, Relative: true},
		"Trash:messages=+10%":       {Mailbox: "Trash", Messages: 5, Relative: true},
		"Spam:ignore":               {Mailbox: "Spam", Ignore: true},
	} {
		if got, err := parseQuotaRule(text, whole); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", ":storage=1", "*:storage=x", "*:storage=9999999999G", "*:messages=many", "*:nosuch=1", "*:storage=x%"} {
		if got, err := parseQuotaRule(text, whole); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
	rules := addRule(addRule(nil, store.QuotaRule{Mailbox: "*", Bytes: 10}), store.QuotaRule{Mailbox: "*", Messages: 4})
	if len(rules) != 1 || rules[0].Bytes != 10 || rules[0].Messages != 4 {
		t.Errorf("rules of one mailbox: %+v", rules)
	}
}
