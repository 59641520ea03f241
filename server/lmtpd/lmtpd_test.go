package lmtpd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/account"
	"postilion/mta/deliver"
	"postilion/store"
	"postilion/store/spool"
	"postilion/store/storetest"
)

// users is a Directory of fixed names; "down" cannot be looked up now.
type users map[string]bool

func (u users) Lookup(_ context.Context, _ account.Client, name string) (*account.User, error) {
	local, _, _ := strings.Cut(name, "@")
	switch {
	case local == "down":
		return nil, account.ErrUnavailable
	case !u[local]:
		return nil, account.ErrNoUser
	}
	return &account.User{Name: local, UID: -1, GID: -1}, nil
}

func (u users) Users(context.Context, func(string) bool) error { return nil }

// dialogue is a connection to a server over a store in memory, in which carol may hold next to nothing.
type dialogue struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	mail store.Store
}

func begin(t *testing.T, change func(*Options)) *dialogue {
	t.Helper()
	mail := storetest.NewMemory().Open()
	options := Options{
		Mailbox: deliver.NewMailbox(deliver.MailboxOptions{
			Directory: users{"alice": true, "bob": true, "carol": true}, Hostname: "mx.example.com", RecipientDelimiter: "+", DeliveryAddress: "final",
			Locate: func(_ context.Context, u *account.User, mailbox string) (store.Store, store.Owner, string, error) {
				owner := store.Owner{User: u.Name, UID: -1, GID: -1}
				if u.Name == "carol" {
					owner.Quota.Rules = []store.QuotaRule{{Mailbox: "*", Bytes: 10}}
				}
				return mail, owner, mailbox, nil
			},
		}),
		Spool: spool.New(t.TempDir()), Log: slog.New(slog.DiscardHandler), Hostname: "mx.example.com",
	}
	if change != nil {
		change(&options)
	}
	server, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	conn, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		group.Wait()
	})
	return &dialogue{t, conn, bufio.NewReader(conn), mail}
}

// say sends lines and wants replies that begin as given; only the last line of a reply counts.
func (d *dialogue) say(lines string, want ...string) {
	d.t.Helper()
	if _, err := io.WriteString(d.conn, lines); err != nil {
		d.t.Fatal(err)
	}
	for _, w := range want {
		for {
			line, err := d.in.ReadString('\n')
			if err != nil {
				d.t.Fatalf("%q: %v", lines, err)
			}
			if len(line) > 3 && line[3] == '-' {
				continue
			}
			if !strings.HasPrefix(line, w) {
				d.t.Errorf("%q: got %q, want %q", lines, line, w)
			}
			break
		}
	}
}

// count returns how many messages lie in a user's INBOX.
func (d *dialogue) count(user string) int {
	d.t.Helper()
	opened, err := d.mail.Open(d.t.Context(), store.Owner{User: user, UID: -1, GID: -1})
	if err != nil {
		d.t.Fatal(err)
	}
	box, err := opened.Mailbox(d.t.Context(), store.Inbox)
	if err != nil {
		d.t.Fatal(err)
	}
	view, err := box.View(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return view.Len()
}

// TestReplyForEachRecipient: RFC 2033 section 4.2, with the words of Dovecot.
func TestReplyForEachRecipient(t *testing.T) {
	d := begin(t, nil)
	d.say("", "220 mx.example.com Dovecot ready.")
	d.say("EHLO c\r\n", "5")
	d.say("LHLO c\r\n", "250")
	d.say("MAIL FROM:<s@example.org>\r\n", "250 2.1.0")
	d.say("RCPT TO:<alice@example.com>\r\nRCPT TO:<nobody@example.com>\r\nRCPT TO:<down@example.com>\r\nRCPT TO:<carol@example.com>\r\nRCPT TO:<bob+box@example.com>\r\n",
		"250 2.1.5", "550 5.1.1 <nobody@example.com> User doesn't exist: nobody@example.com", "451 4.3.0 <down@example.com> Temporary internal error", "250 2.1.5", "250 2.1.5")
	d.say("DATA\r\n", "354")
	d.say("Subject: x\r\n\r\nmore than ten octets\r\n.\r\n", "250 2.0.0 <alice@example.com> ", "552 5.2.2 <carol@example.com> Quota exceeded", "250 2.0.0 <bob+box@example.com> ")
	d.say("NOOP\r\n", "250")
	d.say("QUIT\r\n", "221")
	if a, b, c := d.count("alice"), d.count("bob"), d.count("carol"); a != 1 || b != 1 || c != 0 {
		t.Errorf("alice has %d, bob %d, carol %d", a, b, c)
	}
}

// TestDataWithoutRecipients: nobody is there to take the message, and the session goes on.
func TestDataWithoutRecipients(t *testing.T) {
	d := begin(t, nil)
	d.say("", "220")
	d.say("LHLO c\r\nMAIL FROM:<s@example.org>\r\nRCPT TO:<nobody@example.com>\r\nDATA\r\n", "250", "250", "550", "5")
	d.say("RSET\r\nQUIT\r\n", "250", "221")
}

// TestLimits: a message beyond MaxSize is refused for each recipient, and errors without end are no reason to hang up: the client is an MTA.
func TestLimits(t *testing.T) {
	d := begin(t, func(o *Options) { o.MaxSize = 1000 })
	d.say("", "220")
	d.say("LHLO c\r\n", "250")
	d.say("MAIL FROM:<s@example.org>\r\n", "250")
	for i := range 100 {
		d.say(fmt.Sprintf("RCPT TO:<no%d@example.com>\r\n", i), "550 5.1.1")
	}
	d.say("RCPT TO:<alice@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n", "250", "250", "354")
	d.say(strings.Repeat("x", 2000)+"\r\n.\r\n", "552 5.3.4", "552 5.3.4")
	d.say("QUIT\r\n", "221")
	if d.count("alice") != 0 {
		t.Error("a message that is too big was delivered")
	}
}
