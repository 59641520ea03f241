package service

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"postilion/config/dovecot"
	"postilion/store"
	"postilion/store/maildir"
)

type draftText struct{ *bytes.Reader }

func (d draftText) Size() int64 { return d.Reader.Size() }

// TestAutoexpunge: what is too old or too much goes when the session ends, from the oldest on, and only where a mailbox section says so.
func TestAutoexpunge(t *testing.T) {
	path := t.TempDir() + "/dovecot.conf"
	writeFile(t, path, `namespace inbox {
  inbox = yes
  separator = /
  mailbox Trash {
    autoexpunge = 30 days
  }
  mailbox Archive/* {
    autoexpunge_max_mails = 2
  }
}
`)
	config, err := dovecot.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	namespace := config.For(dovecot.Filter{Protocol: "imap"}).Sections("namespace")[0]
	place, err := maildir.Open(maildir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	ctx := context.Background()
	owner := store.Owner{User: "alice", Home: t.TempDir(), Location: "~/Maildir", UID: -1, GID: -1}
	mail, err := place.Open(ctx, owner)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Trash", "Archive", "Archive/2025"} {
		if err := mail.Create(ctx, name, ""); err != nil {
			t.Fatal(err)
		}
		box, err := mail.Mailbox(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 4 {
			text := fmt.Sprintf("Subject: %d\r\n\r\n", n)
			if _, err := box.Append(ctx, []store.Draft{{Content: draftText{bytes.NewReader([]byte(text))}, InternalDate: time.Now()}}); err != nil {
				t.Fatal(err)
			}
		}
		_ = box.Close()
	}
	wrapped, ok := withExpiry(mail, namespace, slog.New(slog.DiscardHandler)).(*expiring)
	if !ok {
		t.Fatal("no autoexpunge")
	}
	count := func(want map[string]uint32) {
		t.Helper()
		for name, n := range want {
			if status, err := mail.Status(ctx, name); err != nil || status.Messages != n {
				t.Errorf("%s: %d messages instead of %d, %v", name, status.Messages, n, err)
			}
		}
	}
	if err := wrapped.expire(ctx, time.Now().Add(29*24*time.Hour)); err != nil {
		t.Error(err)
	}
	count(map[string]uint32{"Trash": 4, "Archive": 4, "Archive/2025": 2})
	if err := wrapped.expire(ctx, time.Now().Add(31*24*time.Hour)); err != nil {
		t.Error(err)
	}
	count(map[string]uint32{"Trash": 0, "Archive": 4, "Archive/2025": 2})
	if err := wrapped.Close(); err != nil {
		t.Error(err)
	}
}
