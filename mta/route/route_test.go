package route

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postilion/config/postfix"
	"postilion/table"
)

const mainCF = `
compatibility_level = 3.7
myhostname = mail.example.com
mydomain = example.com
myorigin = $mydomain
mydestination = mail.example.com, example.com, localhost
recipient_delimiter = +
relay_domains = relay.example
virtual_alias_domains = alias.example
virtual_alias_maps = inline:{
  { a@alias.example = bob@example.com, c@far.example },
  { b@alias.example = a@alias.example },
  { loop@alias.example = loop@alias.example },
  { one@alias.example = two@alias.example }, { two@alias.example = one@alias.example },
  { @alias2.example = @example.com }, { team = alice, bob } }
virtual_mailbox_domains = box.example
virtual_mailbox_maps = inline:{ {u@box.example = u/} }
local_recipient_maps = inline:{ {alice = x}, {bob = x} }
alias_maps = inline:{ {root = alice} , {list = "|/bin/prog -x", :include:/etc/list} }
transport_maps = inline:{ {slow.example = slow:}, {.sub.example = sub:[hub.example]}, {x@far.example = error:5.1.1 gone}, {other.example = :[next.example]} }
`

func testRouter(t *testing.T, extra string, options Options) *Router {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(mainCF+extra), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := postfix.LoadWith(postfix.Options{Dir: dir, AllowMissing: true, Hostname: func() (string, error) { return "mail.example.com", nil }})
	if err != nil {
		t.Fatal(err)
	}
	options.Open = func(spec string, aliases bool) table.Table {
		return table.OpenLazily(spec, table.Options{Aliases: aliases})
	}
	return New(config.View(), options)
}

func TestResolve(t *testing.T) {
	r := testRouter(t, "", Options{LocalAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	for _, row := range []struct{ address, want string }{
		{"alice", "local local mail.example.com alice@example.com"},
		{"alice@mail", "default smtp mail alice@mail"},
		{"Alice@Example.COM", "local local mail.example.com Alice@Example.COM"},
		{"alice@[192.0.2.1]", "local local mail.example.com alice@[192.0.2.1]"},
		{"alice@[192.0.2.2]", "default smtp [192.0.2.2] alice@[192.0.2.2]"},
		{"u@box.example", "virtual mailbox virtual box.example u@box.example"},
		{"a@alias.example", "virtual alias error 5.1.1 User unknown in virtual alias table a@alias.example"},
		{"x@relay.example", "relay relay relay.example x@relay.example"},
		{"x@sub.relay.example", "relay relay sub.relay.example x@sub.relay.example"},
		{"x@elsewhere.example", "default smtp elsewhere.example x@elsewhere.example"},
		{"x@slow.example", "default slow slow.example x@slow.example"},
		{"x@a.b.sub.example", "default sub [hub.example] x@a.b.sub.example"},
		{"x@far.example", "default error 5.1.1 gone x@far.example"},
		{"x+y@far.example", "default error 5.1.1 gone x+y@far.example"},
		{"x@other.example", "default smtp [next.example] x@other.example"},
		{"x%far2.example@example.com", "default smtp far2.example x@far2.example routed"},
		{"x@far2.example@example.com", "default smtp far2.example x@far2.example routed"},
		{"far2.example!x", "default smtp far2.example x@far2.example"},
		{"@route:x@far2.example", "default smtp far2.example x@far2.example"},
		{"x%far2.example@relay.example", "relay relay relay.example x%far2.example@relay.example routed"},
		{`"x@y"@example.com`, `local local mail.example.com "x@y"@example.com routed`},
	} {
		got, err := r.Resolve(t.Context(), "", row.address)
		if err != nil {
			t.Errorf("%s: %v", row.address, err)
			continue
		}
		text := strings.Join([]string{got.Class.String(), got.Transport, got.Nexthop, got.Recipient}, " ")
		if got.Routed {
			text += " routed"
		}
		if text != row.want {
			t.Errorf("%s: got %s, want %s", row.address, text, row.want)
		}
		if len(got.Trace) == 0 {
			t.Errorf("%s: no trace", row.address)
		}
	}
}

func TestRelayhost(t *testing.T) {
	r := testRouter(t, "relayhost = [smart.example]:587\nappend_dot_mydomain = yes\n", Options{})
	for address, want := range map[string]string{"x@far2.example": "[smart.example]:587", "x@slow.example": "slow.example", "x@host": "[smart.example]:587", "x@relay.example": "[smart.example]:587"} {
		if got, err := r.Resolve(t.Context(), "", address); err != nil || got.Nexthop != want {
			t.Errorf("%s: %+v, %v", address, got, err)
		}
	}
	if got := r.Rewrite("x@host"); got != "x@host.example.com" {
		t.Error(got)
	}
}

func TestExpand(t *testing.T) {
	r := testRouter(t, "", Options{})
	for address, want := range map[string]string{
		"a@alias.example":    "bob@example.com c@far.example",
		"b@alias.example":    "bob@example.com c@far.example",
		"a+x@alias.example":  "bob+x@example.com c+x@far.example",
		"loop@alias.example": "loop@alias.example",
		"u@alias2.example":   "u@example.com",
		"team@example.com":   "alice@example.com bob@example.com",
		"team@far.example":   "team@far.example",
		"nobody@example.com": "nobody@example.com",
	} {
		found, err := r.Expand(t.Context(), address)
		var got []string
		for _, e := range found {
			got = append(got, e.Recipient)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v", address, got, err)
		}
	}
	if _, err := r.Expand(t.Context(), "one@alias.example"); !errors.Is(err, ErrLoop) {
		t.Errorf("a loop: %v", err)
	}
	small := testRouter(t, "virtual_alias_expansion_limit = 1\n", Options{})
	if _, err := small.Expand(t.Context(), "a@alias.example"); !errors.Is(err, ErrLoop) {
		t.Errorf("more than the limit: %v", err)
	}
}

func TestListed(t *testing.T) {
	r := testRouter(t, "", Options{})
	for _, row := range []struct {
		address, table string
		listed         bool
	}{
		{"alice@example.com", "local recipient table", true},
		{"alice+x@example.com", "local recipient table", true},
		{"nobody@example.com", "local recipient table", false},
		{"u@box.example", "virtual mailbox table", true},
		{"v@box.example", "virtual mailbox table", false},
		{"a@alias.example", "", true},
		{"z@alias.example", "virtual alias table", false},
		{"any@relay.example", "relay recipient table", true},
		{"any@far2.example", "", true},
		{"team@example.com", "", true},
	} {
		got, err := r.Listed(t.Context(), row.address)
		if err != nil || got.Listed != row.listed || got.Table != row.table {
			t.Errorf("%s: %+v, %v", row.address, got, err)
		}
	}
	asked := ""
	open := testRouter(t, "virtual_mailbox_maps =\n", Options{Known: func(_ context.Context, r *Resolution) (bool, bool, error) {
		asked = r.Recipient
		return false, true, nil
	}})
	if got, err := open.Listed(t.Context(), "v@box.example"); err != nil || got.Listed || asked != "v@box.example" {
		t.Errorf("without a table: %+v, %v, asked %q", got, err, asked)
	}
}

func TestAlias(t *testing.T) {
	r := testRouter(t, "", Options{})
	if got, _, found, err := r.Alias(t.Context(), "Root+x"); !found || err != nil || len(got) != 1 || got[0] != "alice" {
		t.Errorf("%v, %v, %v", got, found, err)
	}
	if got, _, _, _ := r.Alias(t.Context(), "list"); len(got) != 2 || got[0] != `"|/bin/prog -x"` {
		t.Errorf("%q", got)
	}
}

func TestBrokenListsAndTablesAreErrors(t *testing.T) {
	r := testRouter(t, "mydestination = /no/such/file\n", Options{})
	if r.Broken() == nil {
		t.Error("not told")
	}
	if _, err := r.Resolve(t.Context(), "", "a@b.example"); err == nil || !strings.Contains(err.Error(), "mydestination") {
		t.Errorf("mydestination: %v", err)
	}
	r = testRouter(t, "transport_maps = nosuch:table\n", Options{})
	if _, err := r.Resolve(t.Context(), "", "a@b.example"); err == nil || !strings.Contains(err.Error(), "transport_maps") {
		t.Errorf("transport_maps: %v", err)
	}
}

func FuzzRewrite(f *testing.F) {
	for _, seed := range []string{"a", "a@b", "h!u", "u%h", `"a@b"@c`, "@r:x@y", "a@", "@b", "!", "%", `\`} {
		f.Add(seed)
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(mainCF), 0o600); err != nil {
		f.Fatal(err)
	}
	config, err := postfix.LoadWith(postfix.Options{Dir: dir, AllowMissing: true, Hostname: func() (string, error) { return "mail.example.com", nil }})
	if err != nil {
		f.Fatal(err)
	}
	r := New(config.View(), Options{Open: func(spec string, aliases bool) table.Table {
		return table.OpenLazily(spec, table.Options{Aliases: aliases})
	}})
	f.Fuzz(func(t *testing.T, address string) {
		once := r.Rewrite(address)
		if address != "" && len(once) > len(address)+len("@example.com")+len(".example.com") {
			t.Errorf("%q became %q", address, once)
		}
		if _, err := r.Resolve(t.Context(), "", address); err != nil && !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%q: %v", address, err)
		}
	})
}
