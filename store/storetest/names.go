package storetest

import (
	"fmt"
	"slices"
	"strings"

	"postilion/store"
)

func nameChecks() []check {
	return []check{
		{"odd names are kept", func(f *fixture) {
			account := f.account("alice")
			names := []string{
				"Entwürfe", "送信済み", "a b", " lead", "trail ", "with.dot", ".hidden", "R&D", "&", "&-", "&AOk-", "~", "~alice", "~/x", "%", "*", `back\slash`,
				`quo"te`, "new", "cur", "tmp", "new/cur/tmp", "dovecot-uidlist", "subscriptions", "+plus", "-", "=", ":", "INBOXES", "inbox/sub", "😀", "e\u0301", "é",
				strings.Repeat("long", 40), strings.Repeat("長", 60), "1/2/3/4/5/6/7/8", "a#b", "a|b", "a\u00a0b",
			}
			var made []string
			for _, name := range names {
				err := account.Create(f.ctx(), name, "")
				if allows := f.bed.Can.AllowsName; allows != nil && !allows(name) {
					f.wantError(err, store.ErrName)
					continue
				}
				if err != nil {
					f.Fatalf("create %q: %v", name, err)
				}
				made = append(made, name)
			}
			f.reopen()
			account = f.account("alice")
			listed := f.list(account)
			for _, name := range made {
				if !slices.Contains(listed, name) {
					f.Errorf("%q was made and is not listed in %q", name, listed)
					continue
				}
				f.add(f.mailbox(account, name), name)
			}
			for _, name := range made {
				if status, err := account.Status(f.ctx(), name); err != nil || status.Messages != 1 {
					f.Errorf("%q: %d messages, %v", name, status.Messages, err)
				}
			}
		}},
		{"names that cannot be are refused", func(f *fixture) {
			account := f.account("alice")
			for _, name := range []string{
				"", "/", "/a", "a/", "a//b", "a\x00b", "a\nb", "a\rb", "\x1b", "a\x7f", "\xff", "a/\xc3\x28", strings.Repeat("x", 100000), strings.Repeat("a/", 5000) + "a",
			} {
				f.wantError(account.Create(f.ctx(), name, ""), store.ErrName)
				if _, err := account.Mailbox(f.ctx(), name); err == nil {
					f.Errorf("opened %.20q", name)
				}
			}
			f.wantList(account, "INBOX")
		}},
		{"names do not lead out of the account", func(f *fixture) {
			account, other := f.account("alice"), f.account("bob")
			f.noError(other.Create(f.ctx(), "secret", ""))
			for _, name := range []string{"..", ".", "../bob", "a/../b", "a/./b", "../../etc"} {
				if account.Create(f.ctx(), name, "") == nil {
					if got := f.list(account); !slices.Contains(got, name) {
						f.Errorf("%q was made and is not listed in %q", name, got)
					}
				}
			}
			f.wantList(other, "INBOX", "secret")
		}},
		{"many mailboxes", func(f *fixture) {
			account := f.account("alice")
			const n = 300
			for i := range n {
				f.noError(account.Create(f.ctx(), fmt.Sprintf("folder-%d/x", i), ""))
			}
			if got := len(f.list(account)); got != 2*n+1 {
				f.Errorf("%d names, want %d", got, 2*n+1)
			}
			seen := map[uint32]bool{}
			for i := range n {
				status, err := account.Status(f.ctx(), fmt.Sprintf("folder-%d/x", i))
				f.noError(err)
				if seen[status.UIDValidity] {
					f.Fatalf("UIDVALIDITY %d given twice", status.UIDValidity)
				}
				seen[status.UIDValidity] = true
			}
		}},
	}
}
