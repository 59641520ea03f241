package policy

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postilion/config/postfix"
	"postilion/mta/route"
	"postilion/resolve"
	"postilion/table"
)

const mainCF = `
compatibility_level = 3.7
myhostname = mail.example.com
mydomain = example.com
mynetworks = 127.0.0.0/8
recipient_delimiter = +
smtpd_sasl_auth_enable = yes
relay_domains = r.example.org
virtual_alias_domains = va.example.org
virtual_alias_maps = inline:{a@va.example.org=bob@mail.example.com}
local_recipient_maps = inline:{ {alice = ok}, {bob = ok}, {carol = ok}, {postmaster = ok} }
`

// fakeDNS answers from a map of "TYPE name" to a list of words; the word ! stands for no answer now.
type fakeDNS map[string]string

func (d fakeDNS) ask(kind, name string) ([]string, error) {
	words, ok := d[kind+" "+strings.ToLower(name)]
	if !ok {
		return nil, &resolve.Error{Name: name, Type: kind, Err: resolve.ErrNotFound}
	}
	if words == "!" {
		return nil, &resolve.Error{Name: name, Type: kind, Err: resolve.ErrTemporary}
	}
	return strings.Fields(words), nil
}

func (d fakeDNS) addresses(kind, host string) ([]netip.Addr, error) {
	words, err := d.ask(kind, host)
	var found []netip.Addr
	for _, w := range words {
		found = append(found, netip.MustParseAddr(w))
	}
	return found, err
}

func (d fakeDNS) AddressesOfType(_ context.Context, host string, ipv6 bool) ([]netip.Addr, error) {
	if ipv6 {
		return d.addresses("AAAA", host)
	}
	return d.addresses("A", host)
}

func (d fakeDNS) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	four, err := d.AddressesOfType(ctx, host, false)
	six, err6 := d.AddressesOfType(ctx, host, true)
	if len(four)+len(six) > 0 {
		return append(four, six...), nil
	}
	if err == nil {
		err = err6
	}
	return nil, err
}

func (d fakeDNS) Names(_ context.Context, address netip.Addr) ([]string, error) {
	return d.ask("PTR", address.String())
}

func (d fakeDNS) Exchangers(_ context.Context, domain string) ([]resolve.MX, error) {
	words, err := d.ask("MX", domain)
	var found []resolve.MX
	for i, w := range words {
		if w == "." {
			w = ""
		}
		found = append(found, resolve.MX{Host: w, Preference: uint16(i)})
	}
	return found, err
}

func (d fakeDNS) Texts(_ context.Context, name string) ([]string, error) {
	text, ok := d["TXT "+name]
	if !ok {
		return nil, &resolve.Error{Name: name, Type: "TXT", Err: resolve.ErrNotFound}
	}
	return []string{text}, nil
}

func (d fakeDNS) Nameservers(_ context.Context, domain string) ([]string, error) {
	return d.ask("NS", domain)
}

type bench struct {
	rules    *Rules
	warnings []string
	slept    time.Duration
}

func testRules(t testing.TB, extra string, dns fakeDNS) *bench {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(mainCF+extra), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := postfix.LoadWith(postfix.Options{Dir: dir, AllowMissing: true, Hostname: func() (string, error) { return "mail.example.com", nil }})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{}
	open := func(spec string) table.Table { return table.OpenLazily(spec, table.Options{Directory: dir}) }
	router := route.New(config.View(), route.Options{Open: func(spec string, aliases bool) table.Table {
		return table.OpenLazily(spec, table.Options{Directory: dir, Aliases: aliases})
	}})
	b.rules, err = New(Options{
		View: config.View(), Router: router, Open: open, Resolver: dns,
		LocalAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.25")},
		Sleep:          func(_ context.Context, d time.Duration) { b.slept += d },
		Warn:           func(text string) { b.warnings = append(b.warnings, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.rules.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func testSession() *Session {
	return &Session{
		ClientAddress: netip.MustParseAddr("192.0.2.50"), ClientPort: "1025", ClientName: "client.example.org", ReverseName: "client.example.org",
		Helo: "client.example.org", Protocol: "ESMTP", Sender: "sender@example.org", HasSender: true, Recipient: "bob@mail.example.com",
	}
}

// ask gives the reply at RCPT, "" for a permission.
func (b *bench) ask(change func(s *Session)) string {
	s := testSession()
	if change != nil {
		change(s)
	}
	d := b.rules.Check(context.Background(), Rcpt, s)
	if d.Action == DiscardMessage {
		return "discard " + d.Reply
	}
	return d.Reply
}

func TestDefaults(t *testing.T) {
	b := testRules(t, "", fakeDNS{})
	for _, row := range []struct{ recipient, want string }{
		{"bob@mail.example.com", ""},
		{"nouser@mail.example.com", "550 5.1.1 <nouser@mail.example.com>: Recipient address rejected: User unknown in local recipient table"},
		{"a@va.example.org", ""},
		{"z@va.example.org", "550 5.1.1 <z@va.example.org>: Recipient address rejected: User unknown in virtual alias table"},
		{"x@example.net", "454 4.7.1 <x@example.net>: Relay access denied"},
		{"user%example.net@mail.example.com", "454 4.7.1 <user%example.net@mail.example.com>: Relay access denied"},
		{"user@example.net@mail.example.com", "454 4.7.1 <user@example.net@mail.example.com>: Relay access denied"},
		{"postmaster", ""},
		{"x@sub.r.example.org", ""},
	} {
		if got := b.ask(func(s *Session) { s.Recipient = row.recipient }); got != row.want {
			t.Errorf("%s: %s, want %s", row.recipient, got, row.want)
		}
	}
}

func entryOf(value string) table.Entry { return table.Entry{Value: value, Source: "test:1"} }
