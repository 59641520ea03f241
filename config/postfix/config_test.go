package postfix

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes a configuration directory.
func write(t testing.TB, main, master string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func options(dir string) Options {
	return Options{
		Dir:      dir,
		Hostname: func() (string, error) { return "box", nil },
		Interfaces: func() ([]netip.Prefix, error) {
			return []netip.Prefix{
				netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("192.0.2.7/24"),
				netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("2001:db8::5/64"),
			}, nil
		},
	}
}

func load(t testing.TB, main, master string) *Config {
	t.Helper()
	c, err := LoadWith(options(write(t, main, master)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestValuesAndPositions(t *testing.T) {
	c := load(t, `
# identity
myhostname = mail.example.com
mydestination = $myhostname,
# between
   localhost.$mydomain
	# indented

   {a b}
smtpd_helo_required = YES
queue_run_delay = 5m
maximal_queue_lifetime = 2
message_size_limit = 1000
message_size_limit = 2000
`, "")
	v := c.View()
	if got, want := v.List("mydestination"), []string{"mail.example.com", "localhost.example.com", "{a b}"}; !slices.Equal(got, want) {
		t.Errorf("mydestination: %q, want %q", got, want)
	}
	if !v.Bool("smtpd_helo_required") || v.Bool("smtpd_sasl_auth_enable") {
		t.Error("booleans are misread")
	}
	if got := v.Duration("queue_run_delay"); got != 5*time.Minute {
		t.Errorf("queue_run_delay: %v", got)
	}
	if got := v.Duration("maximal_queue_lifetime"); got != 48*time.Hour {
		t.Errorf("maximal_queue_lifetime without unit: %v", got)
	}
	if got := v.Duration("smtpd_timeout"); got != 300*time.Second {
		t.Errorf("smtpd_timeout: %v", got)
	}
	if got := v.With("stress", "yes").Duration("smtpd_timeout"); got != 10*time.Second {
		t.Errorf("smtpd_timeout under stress: %v", got)
	}
	if got := v.Int("message_size_limit"); got != 2000 {
		t.Errorf("message_size_limit: %d", got)
	}
	raw, pos, set := v.Raw("mydestination")
	if raw != "$myhostname,   localhost.$mydomain   {a b}" || pos.Line != 4 || !set {
		t.Errorf("Raw: %q %v %v", raw, pos, set)
	}
	if !v.Where("relayhost").IsZero() {
		t.Error("a default has a position")
	}
	if len(c.Warnings()) != 1 || !strings.Contains(c.Warnings()[0].String(), "main.cf:14: warning: overriding earlier entry: message_size_limit=1000") {
		t.Errorf("warnings: %v", c.Warnings())
	}
}

func TestDynamicDefaults(t *testing.T) {
	for _, test := range []struct{ main, name, want string }{
		{"", "myhostname", "box.localdomain"},
		{"mydomain = example.net", "myhostname", "box.example.net"},
		{"myhostname = $mydomain", "myhostname", "localdomain"},
		{"mydomain = $myhostname", "myhostname", "box.localdomain"},
		{"inet_interfaces = $mynetworks", "mynetworks", ""},
		{"myhostname = a.example.net", "mydomain", "example.net"},
		{"myhostname = example.net", "mydomain", "localdomain"},
		{"", "mynetworks", "127.0.0.0/8 192.0.2.0/24 [::1]/128 [2001:db8::]/64"},
		{"compatibility_level = 3.6", "mynetworks", "127.0.0.1/32 192.0.2.7/32 [::1]/128 [2001:db8::5]/128"},
		{"mynetworks_style = class\ninet_protocols = ipv4", "mynetworks", "127.0.0.0/8 192.0.2.0/24"},
		{"inet_interfaces = loopback-only", "mynetworks", "127.0.0.0/8 [::1]/128"},
		{"compatibility_level = 1", "relay_domains", "box.localdomain, localhost.localdomain, localhost"},
		{"compatibility_level = 2", "relay_domains", ""},
		{"", "smtpd_relay_restrictions", ""},
		{"compatibility_level = 3.6", "smtpd_relay_restrictions", "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination"},
	} {
		if got := load(t, test.main+"\n", "").View().String(test.name); got != test.want {
			t.Errorf("%q: %s = %q, want %q", test.main, test.name, got, test.want)
		}
	}
}

func TestServices(t *testing.T) {
	c := load(t, "compatibility_level = 3.6\nmyhostname = a.example.net\n", `
smtp inet n - y - - smtpd
submission inet n - - - 5 smtpd -v
  -o syslog_name=postfix/submission
# comment
  -o { smtpd_banner = $myhostname $service_name $process_name }
  -o smtpd_recipient_restrictions= -osmtpd_helo_required=yes
dovecot unix - n n 1000? - pipe
  flags=DRhu user=vmail:vmail argv=/usr/lib/dovecot/deliver {a  b} -d ${recipient}
`)
	if len(c.Services()) != 3 {
		t.Fatalf("%d services", len(c.Services()))
	}
	submission, pipe := c.Services()[1], c.Services()[2]
	v := submission.View()
	if got := v.String("smtpd_banner"); got != "a.example.net submission smtpd" {
		t.Errorf("banner: %q", got)
	}
	if !v.Bool("smtpd_helo_required") || !v.IsSet("smtpd_recipient_restrictions") || c.View().IsSet("smtpd_recipient_restrictions") {
		t.Error("overrides are misread")
	}
	if submission.MaxProc != 5 || submission.Chroot || submission.Private || !slices.Equal(submission.Args, []string{"-v"}) {
		t.Errorf("columns: %+v", submission)
	}
	if v.Where("smtpd_banner").Line != 3 {
		t.Errorf("position: %v", v.Where("smtpd_banner"))
	}
	if pipe.Wakeup != 1000 || !pipe.WakeupIf || !slices.Contains(pipe.Args, "a  b") || pipe.Unpriv {
		t.Errorf("pipe: %+v", pipe)
	}
	if _, ok := c.Parameter("dovecot_destination_recipient_limit"); !ok {
		t.Error("a service makes no parameters")
	}
	if got := c.View().Int("dovecot_destination_recipient_limit"); got != 50 {
		t.Errorf("dovecot_destination_recipient_limit: %d", got)
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, test := range []struct {
		main, master string
		line         int
		text         string
	}{
		{"a = b\nword\n  c = d\n", "", 2, "missing '=' after attribute name"},
		{"= b\n", "", 1, "missing attribute name"},
		{"", "smtp inet n - n -\n", 1, "bad field count"},
		{"", "#x\nsmtp tcp n - n - - smtpd\n", 2, "invalid type field"},
		{"", "smtp inet n - n - x smtpd\n", 1, "invalid process_limit field"},
	} {
		_, err := LoadWith(options(write(t, test.main, test.master)))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || syntax.Pos.Line != test.line || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%q %q: %v", test.main, test.master, err)
		}
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing main.cf: %v", err)
	}
	if _, err := LoadWith(Options{Dir: t.TempDir(), AllowMissing: true}); err != nil {
		t.Error(err)
	}
}

func TestCheckFindsBadValues(t *testing.T) {
	c := load(t, `smtpd_helo_required = maybe
queue_run_delay = 5x
hopcount_limit = many
smtpd_recipient_limit = 0
relayhost = $relayhost
mydestination = ${myhostname
`, "smtp inet n - n - - smtpd -o smtpd_tls_auth_only=1\n")
	want := []string{
		"main.cf:1: fatal: bad boolean configuration: smtpd_helo_required = maybe",
		"main.cf:2: fatal: parameter queue_run_delay: bad time value or unit: 5x",
		"main.cf:3: fatal: bad numerical configuration: hopcount_limit = many",
		"main.cf:4: fatal: invalid smtpd_recipient_limit parameter value 0 < 1",
		"main.cf:5: fatal: relayhost: unreasonable macro call nesting",
		"main.cf:6: fatal: mydestination: truncated macro reference",
		"master.cf:1: fatal: bad boolean configuration: smtpd_tls_auth_only = 1",
	}
	var fatal []string
	for _, d := range c.Check() {
		if d.Severity == Fatal {
			fatal = append(fatal, d.String())
		}
	}
	if len(fatal) != len(want) {
		t.Fatalf("%d findings, want %d:\n%s", len(fatal), len(want), strings.Join(fatal, "\n"))
	}
	for i := range want {
		if !strings.Contains(fatal[i], want[i]) {
			t.Errorf("finding %d: %s, want %s", i, fatal[i], want[i])
		}
	}
}

func TestBuiltinTable(t *testing.T) {
	r, err := ParseRegistry(parametersTSV)
	if err != nil {
		t.Fatal(err)
	}
	c := load(t, "", "")
	for _, name := range r.Names() {
		p, _ := r.Lookup(name)
		if text := c.View().defect(p); text != "" {
			t.Errorf("default of %s: %s", name, text)
		}
	}
}
