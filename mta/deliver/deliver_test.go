package deliver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postilion/account"
	"postilion/config/postfix"
	"postilion/mail/envelope"
	"postilion/mail/message"
	"postilion/mta/route"
	"postilion/store"
	"postilion/store/storetest"
	"postilion/table"
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

// office is a mailbox agent over a store in memory; carol may hold next to nothing.
type office struct {
	store store.Store
	agent *Mailbox
	// foreign is what stands behind transport "out".
	foreign Agent
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{store: storetest.NewMemory().Open()}
	o.agent = NewMailbox(MailboxOptions{
		Directory: users{"alice": true, "bob": true, "carol": true}, Locate: o.locate, Hostname: "mx.example.com",
		RecipientDelimiter: "+", SaveToDetailMailbox: true, AddReceived: true, DeliveryAddress: "final",
		Now: func() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) },
	})
	return o
}

func (o *office) locate(_ context.Context, u *account.User, mailbox string) (store.Store, store.Owner, string, error) {
	owner := store.Owner{User: u.Name, UID: -1, GID: -1}
	if u.Name == "carol" {
		owner.Quota.Rules = []store.QuotaRule{{Mailbox: "*", Bytes: 10}}
	}
	return o.store, owner, mailbox, nil
}

// messages returns what lies in a user's mailbox.
func (o *office) messages(t *testing.T, user, mailbox string) []string {
	t.Helper()
	opened, err := o.store.Open(t.Context(), store.Owner{User: user, UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	box, err := opened.Mailbox(t.Context(), mailbox)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	view, err := box.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for i := range view.Len() {
		body, err := box.Open(t.Context(), view.UID(i))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
		if err := errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
		found = append(found, string(text))
	}
	return found
}

const text = "Subject: hello\r\nMessage-ID: <m@x>\r\n\r\nbody\r\n"

func sample(recipients ...string) (*envelope.Envelope, store.Content, *message.Message) {
	e := &envelope.Envelope{QueueID: "Q1", Sender: "s@example.org", Client: envelope.Client{Helo: "client.example", Address: "192.0.2.1"}}
	for _, r := range recipients {
		e.Recipients = append(e.Recipients, envelope.Recipient{Address: r})
	}
	return e, bytes.NewReader([]byte(text)), message.Parse([]byte(text))
}

func TestDeliverToSeveral(t *testing.T) {
	o := newOffice(t)
	e, content, structure := sample()
	var to []*Recipient
	for _, address := range []string{"alice@example.com", "bob+work@example.com", "alice@example.com", "carol@example.com"} {
		r, err := o.agent.Resolve(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		to = append(to, r)
	}
	results := o.agent.Deliver(t.Context(), &Message{Envelope: e, Content: content, Structure: structure, Session: "S"}, to)
	var got []string
	for _, r := range results {
		got = append(got, r.Reply)
	}
	want := "250 2.0.0 <alice@example.com> S Saved|250 2.0.0 <bob+work@example.com> S Saved|250 2.0.0 <alice@example.com> S Saved|" +
		"552 5.2.2 <carol@example.com> Quota exceeded (mailbox for user is full)"
	if strings.Join(got, "|") != want {
		t.Errorf("replies %q", got)
	}
	if n := len(o.messages(t, "alice", store.Inbox)); n != 1 {
		t.Errorf("a user named twice has %d copies", n)
	}
	// The mailbox of the detail is not there and is not made: the INBOX has the mail.
	if n := len(o.messages(t, "bob", store.Inbox)); n != 1 {
		t.Errorf("bob has %d", n)
	}
	if mail := o.messages(t, "alice", store.Inbox)[0]; strings.Contains(mail, "Delivered-To") || !strings.HasSuffix(mail, text) {
		t.Errorf("with several recipients nobody is named:\n%s", mail)
	}
}

func TestTraceFieldsOfOneRecipient(t *testing.T) {
	o := newOffice(t)
	e, content, structure := sample()
	r, err := o.agent.Resolve(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	o.agent.Deliver(t.Context(), &Message{Envelope: e, Content: content, Structure: structure, Session: "S"}, []*Recipient{r})
	want := "Return-Path: <s@example.org>\r\nDelivered-To: alice@example.com\r\nReceived: from client.example ([192.0.2.1])\r\n\tby mx.example.com with LMTP\r\n\tid S\r\n" +
		"\t(envelope-from <s@example.org>)\r\n\tfor <alice@example.com>; Wed, 25 Nov 2026 12:00:00 +0000\r\n" + text
	if got := o.messages(t, "alice", store.Inbox); len(got) != 1 || got[0] != want {
		t.Errorf("got %q", got)
	}
}

func TestResolveRefusals(t *testing.T) {
	o := newOffice(t)
	for address, want := range map[string]string{
		"nobody@example.com": "550 5.1.1 <nobody@example.com> User doesn't exist: nobody@example.com",
		"down@example.com":   "451 4.3.0 <down@example.com> Temporary internal error",
	} {
		_, err := o.agent.Resolve(t.Context(), address)
		var refused *ReplyError
		if !errors.As(err, &refused) || refused.Reply != want || refused.Temporary != strings.HasPrefix(want, "4") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

const routes = `
compatibility_level = 3.7
myhostname = mail.example.com
mydestination = local.example
virtual_mailbox_domains = example.com
virtual_transport = box:
virtual_alias_maps = inline:{ {team@example.com = alice@example.com, bob@example.com} }
alias_maps = inline:{ {root = alice@example.com}, {prog = "|/bin/true"} }
transport_maps = inline:{ {gone.example = error:5.1.2 no such domain}, {hole.example = discard:}, {out.example = out:there} }
`

func (o *office) acceptor(t *testing.T) *Acceptor {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(routes), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := postfix.LoadWith(postfix.Options{Dir: dir, AllowMissing: true, Hostname: func() (string, error) { return "mail.example.com", nil }})
	if err != nil {
		t.Fatal(err)
	}
	hops := map[string]Hop{"box": ToMailbox, "local": ToLocal, "error": ToError, "discard": ToDiscard, "out": ToAgent}
	return NewAcceptor(AcceptorOptions{
		Router: route.New(config.View(), route.Options{Open: func(spec string, aliases bool) table.Table {
			return table.OpenLazily(spec, table.Options{Aliases: aliases})
		}}),
		Mailbox: o.agent, Hop: func(transport, _ string) (Hop, Agent) { return hops[transport], o.foreign }, MailboxTransport: "box:", Log: o.agent.options.Log,
	})
}

func TestAcceptIsAllOrNothing(t *testing.T) {
	for _, row := range []struct {
		recipients string
		// reply is "" when the message is accepted; alice and bob are their copies then.
		reply      string
		alice, bob int
	}{
		{"alice@example.com", "", 1, 0},
		{"team@example.com", "", 1, 1},
		{"team@example.com alice@example.com", "", 1, 1},
		{"root@local.example bob@example.com", "", 1, 1},
		{"x@hole.example", "", 0, 0},
		{"alice@example.com x@far.example", notBuilt, 0, 0},
		{"alice@example.com prog@local.example", notBuilt, 0, 0},
		{"alice@example.com x@gone.example", "550 5.1.2 no such domain", 0, 0},
		{"alice@example.com carol@example.com", "552 5.2.2 <carol@example.com> Quota exceeded (mailbox for user is full)", 0, 0},
		{"alice@example.com down@example.com", "451 4.3.0 <down@example.com> Temporary internal error", 0, 0},
	} {
		o := newOffice(t)
		e, content, structure := sample(strings.Fields(row.recipients)...)
		err := o.acceptor(t).Accept(t.Context(), e, content, structure, nil)
		reply := ""
		var refused *ReplyError
		if errors.As(err, &refused) {
			reply = refused.Reply
		} else if err != nil {
			t.Errorf("%s: %v", row.recipients, err)
		}
		alice, bob := len(o.messages(t, "alice", store.Inbox)), len(o.messages(t, "bob", store.Inbox))
		if reply != row.reply || alice != row.alice || bob != row.bob {
			t.Errorf("%s: %q, alice has %d, bob %d", row.recipients, reply, alice, bob)
		}
	}
}

func TestExplain(t *testing.T) {
	o := newOffice(t)
	found, err := o.acceptor(t).Explain(t.Context(), "team@example.com")
	if err != nil || len(found) != 2 || found[0].Delivery != "delivered to mailbox INBOX of user alice" || len(found[0].Trace) < 2 {
		t.Errorf("%+v, %v", found, err)
	}
}
