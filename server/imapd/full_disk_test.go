package imapd

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"postilion/store"
)

// fullAccount cannot make mailboxes, as on a full disk.
type fullAccount struct{ store.Account }

func (fullAccount) Create(context.Context, string, string) error { return store.ErrNoSpace }

// TestLoginOnFullDisk: who cannot be given a mailbox that auto wants still reads mail, and makes room by deleting some.
func TestLoginOnFullDisk(t *testing.T) {
	r := newRig(t)
	log := &lockedWriter{}
	r.opt.Log = slog.New(slog.NewTextHandler(log, nil))
	r.mail.namespaces = func(a store.Account) []Namespace {
		settings := []MailboxSetting{{Name: "Drafts", Auto: AutoSubscribe}}
		return []Namespace{{Separator: '/', Inbox: true, Subscriptions: true, Account: fullAccount{a}, Mailboxes: settings}}
	}
	_, addr := r.listen(t)
	p := dial(t, addr)
	p.line()
	p.write("a LOGIN alice pw\r\n")
	wantPrefix(t, p.line(), "a OK")
	p.write("b EXAMINE INBOX\r\n")
	for {
		line := p.line()
		if !strings.HasPrefix(line, "* ") {
			wantPrefix(t, line, "b OK")
			break
		}
	}
	if !strings.Contains(log.String(), "mailbox Drafts") {
		t.Errorf("the log does not name the mailbox: %s", log)
	}
}
