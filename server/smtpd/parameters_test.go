package smtpd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"postilion/config/postfix"
	"postilion/proto/smtp"
)

func viewOf(t *testing.T, mainCF string) *postfix.View {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(mainCF), 0o644); err != nil {
		t.Fatal(err)
	}
	config, err := postfix.LoadWith(postfix.Options{Dir: dir, AllowMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	return config.View()
}

func TestOptionsFromDefaults(t *testing.T) {
	o := OptionsFrom(viewOf(t, "compatibility_level = 3.7\nmyhostname = mx.test\nmail_name = Mailer\n"))
	if o.Hostname != "mx.test" || o.Banner != "mx.test ESMTP Mailer" || o.SyslogName != "postfix/smtpd" {
		t.Errorf("%q %q %q", o.Hostname, o.Banner, o.SyslogName)
	}
	if o.MessageSizeLimit != 10240000 || o.LineLengthLimit != 2048 || o.HardErrorLimit != 20 || o.SoftErrorLimit != 10 || o.JunkCommandLimit != 100 ||
		o.RecipientLimit != 1000 || o.Timeout != 300*time.Second || o.StressTimeout != 10*time.Second || o.ErrorSleepTime != time.Second ||
		o.HopCountLimit != 50 || o.HeaderSizeLimit != 102400 || o.ConnectionCountLimit != 50 || !o.SMTPUTF8 || o.NoPeernameLookup || !o.ReplaceStrayCR {
		t.Errorf("%+v", o)
	}
	if o.ForbiddenCommand != nil || o.EnforceTLS || len(o.MessageDropHeaders) != 4 {
		t.Errorf("%+v", o)
	}
}

func TestOptionsFromSettings(t *testing.T) {
	o := OptionsFrom(viewOf(t, `compatibility_level = 3.7
myhostname = mx.test
smtpd_forbid_bare_newline = reject
smtpd_tls_security_level = encrypt
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtpd_recipient_overshoot_limit = 0
message_strip_characters = \0\t\101x
smtpd_forbidden_commands = EVIL
message_drop_headers = Bcc X-Gone
smtpd_tls_loglevel = 1
smtpd_upstream_proxy_protocol = haproxy
soft_bounce = yes
`))
	if o.BareNewline != smtp.BareNewlineReject || !o.EnforceTLS || o.ErrorSleepTime != -1 || o.ConnectionCountLimit != -1 || o.RecipientOvershootLimit != -1 ||
		o.MessageStripCharacters != "\x00\tAx" || o.TLSLogLevel != 1 || !o.UpstreamProxyProtocol || !o.SoftBounce || o.MessageDropHeaders[1] != "x-gone" {
		t.Errorf("%+v", o)
	}
	if !o.ForbiddenCommand("evil") || o.ForbiddenCommand("GET") {
		t.Error("smtpd_forbidden_commands is not followed")
	}
}
