package dovecot

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes the files of a configuration and gives the name of dovecot.conf.
func write(t testing.TB, text string, others ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i+1 < len(others); i += 2 {
		name := filepath.Join(dir, others[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(others[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func load(t testing.TB, text string, others ...string) *Config {
	t.Helper()
	c, err := Load(write(t, text, others...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsAndTypes(t *testing.T) {
	c := load(t, "mail_max_userip_connections = 20\ndefault_vsz_limit = 512 M\nimap_idle_notify_interval = 3 mins\nlisten = 127.0.0.1, ::1\nssl = required\ndisable_plaintext_auth = no\n")
	v := c.For(Filter{Protocol: "imap"})
	if v.Int("mail_max_userip_connections") != 20 || v.Size("default_vsz_limit") != 512<<20 || v.Duration("imap_idle_notify_interval") != 3*time.Minute {
		t.Error(v.Int("mail_max_userip_connections"), v.Size("default_vsz_limit"), v.Duration("imap_idle_notify_interval"))
	}
	if got := v.List("listen"); !slices.Equal(got, []string{"127.0.0.1", "::1"}) {
		t.Error(got)
	}
	if v.Bool("disable_plaintext_auth") || !v.Set("disable_plaintext_auth") || v.Set("mail_debug") || v.String("recipient_delimiter") != "+" {
		t.Error("booleans and defaults")
	}
	if where := v.Where("ssl"); filepath.Base(where.File) != "dovecot.conf" || where.Line != 5 {
		t.Error(where)
	}
	if where := v.Where("mail_fsync"); where.String() != "default" {
		t.Error(where)
	}
	if v.String("nosuch") != "" {
		t.Error("an unknown name has a value")
	}
	if got := v.Sections("service")[0].Size("vsz_limit"); got != math.MaxInt64 {
		t.Error(got)
	}
}

func TestProtocols(t *testing.T) {
	for text, want := range map[string][]string{
		"":                             {"imap", "pop3", "lmtp"},
		"protocols = imap lmtp\n":      {"imap", "lmtp"},
		"protocols = none\n":           {},
		"protocols =\n":                {},
		"protocols = imaps\n":          {"imap"},
		"protocols = imap managesieve": {"imap", "sieve"},
	} {
		if got := load(t, text).Protocols(); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestServices(t *testing.T) {
	c := load(t, "service imap-login {\n  inet_listener imap {\n    port = 1143\n  }\n  inet_listener extra {\n    port = 2143\n    address = 127.0.0.1\n  }\n}\nservice auth {\n  unix_listener /var/spool/postfix/private/auth {\n    mode = 0660\n    user = postfix\n  }\n}\n")
	v := c.For(Filter{})
	login, ok := v.Section("service", "imap-login")
	if !ok {
		t.Fatal("no service imap-login")
	}
	var got []string
	for _, l := range login.Sections("inet_listener") {
		got = append(got, fmt.Sprintf("%s %d %v %s", l.Name(), l.Int("port"), l.Bool("ssl"), l.String("address")))
	}
	if want := []string{"imap 1143 false ", "imaps 993 true ", "extra 2143 false 127.0.0.1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if login.String("user") != "dovenull" || login.Set("user") || login.String("type") != "login" {
		t.Error(login.String("user"))
	}
	auth, _ := v.Section("service", "auth")
	sockets := map[string]string{}
	for _, l := range auth.Sections("unix_listener") {
		sockets[l.Name()] = fmt.Sprintf("%04o %s", l.Int("mode"), l.String("user"))
	}
	if sockets["/var/spool/postfix/private/auth"] != "0660 postfix" || sockets["auth-userdb"] != "0666 dovecot" || sockets["auth-client"] != "0600 dovecot" {
		t.Error(sockets)
	}
	for service, port := range map[string]int{"pop3-login": 110, "submission-login": 587, "managesieve-login": 4190} {
		s, _ := v.Section("service", service)
		if l := s.Sections("inet_listener"); len(l) == 0 || l[0].Int("port") != port {
			t.Errorf("%s: %v", service, l)
		}
	}
}

func TestSectionsMerge(t *testing.T) {
	c := load(t, `namespace inbox {
  inbox = yes
  mailbox Trash {
    auto = no
  }
}
namespace inbox {
  separator = .
  mailbox Trash {
    special_use = \Trash
  }
  mailbox "Sent Items" {
    special_use = \Sent
  }
}
namespace {
  prefix = a.
}
namespace {
  prefix = b.
}
passdb {
  driver = passwd-file
}
passdb {
  driver = static
  args = nopassword=y
}
plugin {
  quota_rule = *:storage=1G
}
plugin {
  quota_rule2 = Trash:storage=+10%%
}
protocol lmtp {
  plugin {
    quota_rule = *:storage=2G
  }
}
`)
	v := c.For(Filter{})
	if n := len(v.Sections("namespace")); n != 3 {
		t.Fatal(n)
	}
	inbox := v.Sections("namespace")[0]
	if !inbox.Bool("inbox") || inbox.String("separator") != "." || len(inbox.Sections("mailbox")) != 2 {
		t.Error("the two halves of a namespace are not one")
	}
	trash := inbox.Sections("mailbox")[0]
	if trash.String("auto") != "no" || trash.String("special_use") != `\Trash` || trash.Where("special_use").Line != 10 {
		t.Error(trash.String("auto"), trash.String("special_use"), trash.Where("special_use"))
	}
	var drivers []string
	for _, p := range v.Sections("passdb") {
		drivers = append(drivers, p.String("driver")+" "+p.String("result_success"))
	}
	if !slices.Equal(drivers, []string{"passwd-file return-ok", "static return-ok"}) {
		t.Error(drivers)
	}
	if rule, ok := v.Plugin("quota_rule2"); !ok || rule != "Trash:storage=+10%%" {
		t.Error(rule)
	}
	lmtp := c.For(Filter{Protocol: "lmtp"})
	rule, _ := lmtp.Plugin("quota_rule")
	if _, both := lmtp.Plugin("quota_rule2"); rule != "*:storage=2G" || !both {
		t.Error(rule, both)
	}
	if _, ok := v.Plugin("sieve"); ok {
		t.Error("a setting nobody made")
	}
	if !slices.Equal(v.PluginNames(), []string{"quota_rule", "quota_rule2"}) {
		t.Error(v.PluginNames())
	}
}

const filtered = `login_greeting = all
protocol imap {
  login_greeting = imap
}
protocol !pop3 {
  imap_capability = +NOTPOP3
}
remote 10.0.0.0/8 {
  mail_max_userip_connections = 8
}
remote 10.1.0.0/16 {
  mail_max_userip_connections = 16
}
local 192.0.2.1 {
  hostname = by-address
  local_name *.example.org {
    hostname = by-name
  }
}
local_name a.example.com {
  ssl_cert = <cert.pem
}
`

func TestFilters(t *testing.T) {
	c := load(t, filtered, "cert.pem", "CERT\n")
	net := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	for _, q := range []struct {
		filter     Filter
		name, want string
	}{
		{Filter{}, "login_greeting", "all"},
		{Filter{Protocol: "imap"}, "login_greeting", "imap"},
		{Filter{Protocol: "lmtp"}, "login_greeting", "all"},
		{Filter{Protocol: "lmtp"}, "imap_capability", "+NOTPOP3"},
		{Filter{Protocol: "pop3"}, "imap_capability", ""},
		{Filter{RemoteNet: net("10.9.0.1/32")}, "mail_max_userip_connections", "8"},
		{Filter{RemoteNet: net("10.1.2.3/32")}, "mail_max_userip_connections", "16"},
		{Filter{RemoteNet: net("::ffff:10.1.2.3/128")}, "mail_max_userip_connections", "16"},
		{Filter{RemoteNet: net("192.0.2.1/32")}, "mail_max_userip_connections", "10"},
		{Filter{LocalNet: net("192.0.2.1/32")}, "hostname", "by-address"},
		{Filter{LocalNet: net("192.0.2.1/32"), LocalName: "b.example.org"}, "hostname", "by-name"},
		{Filter{LocalName: "b.example.org"}, "hostname", ""},
		{Filter{LocalName: "A.example.com"}, "ssl_cert", "CERT\n"},
	} {
		if got := c.For(q.filter).String(q.name); got != q.want {
			t.Errorf("%+v: %s = %q, want %q", q.filter, q.name, got, q.want)
		}
	}
	v := c.For(Filter{LocalName: "a.example.com"})
	if path, ok := v.File("ssl_cert"); !ok || filepath.Base(path) != "cert.pem" {
		t.Error(path, ok)
	}
	if _, ok := v.File("ssl_key"); ok {
		t.Error("a file nobody named")
	}
}

func TestConflictingFilters(t *testing.T) {
	c := load(t, "protocol imap {\n  login_greeting = a\n}\nremote 10.0.0.0/8 {\n  login_greeting = b\n}\n")
	f := Filter{Protocol: "imap", RemoteNet: netip.MustParsePrefix("10.0.0.1/32")}
	if text := c.Conflict(f); !strings.HasPrefix(text, "Conflict in setting login_greeting found from filter at ") {
		t.Error(text)
	}
	if c.For(f).String("login_greeting") != "b" {
		t.Error("the filter for an address comes before the one for a protocol")
	}
	if text := c.Conflict(Filter{Protocol: "imap"}); text != "" {
		t.Error(text)
	}
}

func TestHostInFilter(t *testing.T) {
	file := write(t, "remote client.example.com {\n  login_greeting = x\n}\nremote nosuch.example.com {\n}\n")
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "client.example.com" {
			return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
		}
		return nil, errors.New("no such host")
	}
	c, err := LoadWith(Options{File: file, LookupHost: lookup})
	if err == nil || !strings.Contains(err.Error(), "dovecot.conf:4: gethostbyname(nosuch.example.com) failed") {
		t.Error(err)
	}
	if got := c.For(Filter{RemoteNet: netip.MustParsePrefix("192.0.2.7/32")}).String("login_greeting"); got != "x" {
		t.Error(got)
	}
}

func TestIncludesAndVariables(t *testing.T) {
	c := load(t, "mail_plugins = a\n!include conf.d/*.conf\n!include_try local.conf\n!include {x,y}.inc\nhostname = first\nlogin_greeting = $hostname ready\n",
		"conf.d/10-a.conf", "mail_plugins = $mail_plugins b\n", "conf.d/20-b.conf", "mail_plugins = $mail_plugins c\nmail_debug = yes\n",
		"conf.d/README", "not = read\n", "conf.d/.hidden.conf", "not = read\n", "x.inc", "auth_debug = yes\n", "y.inc", "auth_verbose = yes\n")
	v := c.For(Filter{})
	if got := v.String("mail_plugins"); got != "a b c" {
		t.Error(got)
	}
	if got := v.String("login_greeting"); got != "first ready" {
		t.Error(got)
	}
	if where := v.Where("mail_debug"); filepath.Base(where.File) != "20-b.conf" || where.Line != 2 {
		t.Error(where)
	}
	if !v.Bool("auth_debug") || !v.Bool("auth_verbose") {
		t.Error("braces in an include")
	}
}

func TestAllMistakesAreListed(t *testing.T) {
	_, err := Load(write(t, "mail_debug = maybe\nnosuch = 1\nprotocol imap {\n  service x {\n    nosuch = 1\n  }\n}\nauth_cache_ttl = 120\n!include none.conf\n!include own.conf\n",
		"own.conf", "foo bar\n"))
	var config *ConfigError
	if !errors.As(err, &config) {
		t.Fatal(err)
	}
	var got []string
	for _, d := range config.Diagnostics {
		got = append(got, fmt.Sprintf("%s:%d %s", filepath.Base(d.Position.File), d.Position.Line, d.Text))
	}
	want := []string{
		"dovecot.conf:1 Invalid boolean value: maybe (use yes or no)",
		"dovecot.conf:2 Unknown setting: nosuch",
		"dovecot.conf:5 Unknown setting: service { nosuch",
		"dovecot.conf:8 Time interval '120' is missing units (add e.g. 's' for seconds)",
		"dovecot.conf:9 No matches",
		"own.conf:1 Expecting '{'",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.conf"))
	if err == nil || !strings.HasSuffix(err.Error(), "none.conf) failed: No such file or directory") {
		t.Error(err)
	}
}

func TestMissingValueFile(t *testing.T) {
	c := load(t, "ssl_cert = </nonexistent/cert.pem\n")
	found := false
	for _, d := range c.Check() {
		found = found || d.Severity == Error && strings.Contains(d.Text, "ssl_cert: Can't open file /nonexistent/cert.pem")
	}
	if !found {
		t.Error(c.Check())
	}
}

func TestHostname(t *testing.T) {
	for text, want := range map[string]string{"": "mx.example.com", "hostname = own.example.com\n": "own.example.com"} {
		c, err := LoadWith(Options{File: write(t, text), Hostname: "mx.example.com"})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.For(Filter{}).Hostname(); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestOverrides(t *testing.T) {
	c, err := LoadWith(Options{File: write(t, "mail_debug = no\n"), Overrides: []string{
		"mail_debug=yes", "protocol/imap/mail_plugins=quota", "service/imap-login/inet_listener/imap/port=1143", "plugin/quota=maildir",
	}})
	if err != nil {
		t.Fatal(err)
	}
	v := c.For(Filter{Protocol: "imap"})
	login, _ := v.Section("service", "imap-login")
	quota, _ := v.Plugin("quota")
	if !v.Bool("mail_debug") || v.String("mail_plugins") != "quota" || login.Sections("inet_listener")[0].Int("port") != 1143 || quota != "maildir" {
		t.Error(v.Bool("mail_debug"), v.String("mail_plugins"), quota)
	}
	if _, err := LoadWith(Options{File: write(t, ""), Overrides: []string{"nosuch=1"}}); err == nil {
		t.Error("an unknown override was taken")
	}
}
