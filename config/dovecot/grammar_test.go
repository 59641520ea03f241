package dovecot

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOldGrammar(t *testing.T) {
	c := load(t, `protocols = imaps pop3
ssl_cert_file = cert.pem
ssl_disable = no
disable_plaintext_auth = no
mail_location = mbox:~/mail
auth_cache_size = 5
login_processes_count = 3
protocol pop3 {
  listen = 127.0.0.1:1110
}
auth default {
  mechanisms = plain login
  user = root
  passdb pam {
    args = dovecot
  }
  userdb passwd {
  }
  socket listen {
    master {
      path = /var/run/dovecot/auth-master
      mode = 0600
    }
    client {
      path = /var/spool/postfix/private/auth
      user = postfix
    }
  }
}
mail_debug = yes
`, "cert.pem", "CERT")
	v := c.For(Filter{})
	login, _ := v.Section("service", "imap-login")
	pop3, _ := v.Section("service", "pop3-login")
	auth, _ := v.Section("service", "auth")
	var sockets []string
	for _, l := range auth.Sections("unix_listener") {
		if l.Set("mode") || l.Set("user") {
			sockets = append(sockets, l.Name()+" "+l.String("mode")+" "+l.String("user"))
		}
	}
	for what, pair := range map[string][2]string{
		"protocols":    {strings.Join(c.Protocols(), " "), "pop3 imap"},
		"imap port":    {login.Sections("inet_listener")[0].String("port"), "0"},
		"pop3":         {pop3.Sections("inet_listener")[0].String("address") + ":" + pop3.Sections("inet_listener")[0].String("port"), "127.0.0.1:1110"},
		"cert":         {v.String("ssl_cert"), "CERT"},
		"ssl":          {v.String("ssl"), "yes"},
		"cache":        {v.String("auth_cache_size"), "5 M"},
		"login":        {login.String("process_min_avail"), "3"},
		"mechanisms":   {v.String("auth_mechanisms"), "plain login"},
		"user":         {auth.String("user"), "root"},
		"passdb":       {v.Sections("passdb")[0].String("driver") + " " + v.Sections("passdb")[0].String("args"), "pam dovecot"},
		"userdb":       {v.Sections("userdb")[0].String("driver"), "passwd"},
		"sockets":      {strings.Join(sockets, ", "), "auth-master 0600 , /var/spool/postfix/private/auth 0600 postfix"},
		"after it all": {v.String("mail_debug"), "yes"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}
	if n := len(c.Warnings()); n < 8 {
		t.Errorf("%d warnings", n)
	}
}

func TestOldTLSVersions(t *testing.T) {
	for text, want := range map[string]string{
		"!SSLv2 !SSLv3": "TLSv1", "!SSLv2": "TLSv1.2", "!SSLv3 !TLSv1": "TLSv1.1", "TLSv1.1 TLSv1.2": "TLSv1.1", "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1": "TLSv1.2",
		"foo": "TLSv1.2", "": "TLSv1.2",
	} {
		if got := load(t, "ssl_protocols = "+text+"\n").For(Filter{}).String("ssl_min_protocol"); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

const modern = `dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols {
  imap = yes
  lmtp = yes
}
mail_driver = maildir
mail_path = /mail/%{user | username | lower}
ssl_server_cert_file = cert.pem
auth_allow_cleartext = yes
passdb static {
  password = test
}
userdb passwd-file {
  passwd_file_path = /etc/dovecot/passwd
  fields {
    uid = vmail
    home = /home/%{user | username}
  }
}
namespace inbox {
  inbox = yes
  mailbox Drafts {
    special_use = "\\Drafts"
  }
}
language en {
  filters = lowercase
}
dovecot_new_setting = 3
mail_debug = yes
`

func TestModernGrammar(t *testing.T) {
	c := load(t, modern, "cert.pem", "CERT")
	v := c.For(Filter{})
	userdb, passdb := v.Sections("userdb")[0], v.Sections("passdb")[0]
	for what, pair := range map[string][2]string{
		"protocols": {strings.Join(c.Protocols(), " "), "imap lmtp"},
		"location":  {v.String("mail_location"), "maildir:/mail/%{user|username|lower}"},
		"cert":      {v.String("ssl_cert"), "CERT"},
		"cleartext": {v.String("disable_plaintext_auth"), "no"},
		"passdb":    {passdb.String("driver") + " " + passdb.String("args"), "static password=test"},
		"userdb":    {userdb.String("driver") + " " + userdb.String("args"), "passwd-file /etc/dovecot/passwd"},
		"fields":    {userdb.String("default_fields"), "uid=vmail home=/home/%{user|username}"},
		"mailbox":   {v.Sections("namespace")[0].Sections("mailbox")[0].String("special_use"), `\Drafts`},
		"debug":     {v.String("mail_debug"), "yes"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}
	var texts []string
	for _, d := range c.Warnings() {
		texts = append(texts, d.Text)
	}
	for _, want := range []string{"language { } of Dovecot 2.4 has no equivalent here and no effect", "dovecot_new_setting of Dovecot 2.4 has no equivalent here and no effect"} {
		if !slices.Contains(texts, want) {
			t.Errorf("no warning %q in %q", want, texts)
		}
	}
}

func TestModernSettingsWithoutVersion(t *testing.T) {
	_, err := Load(write(t, "mail_driver = maildir\nmail_path = ~/Maildir\n"))
	if err == nil || strings.Count(err.Error(), "Unknown setting") != 2 || !strings.Contains(err.Error(), "dovecot_config_version = 2.4.0") {
		t.Error(err)
	}
}

func TestRegistryIsWhole(t *testing.T) {
	if err := theRegistry().err; err != nil {
		t.Fatal(err)
	}
	for _, s := range Settings() {
		if s.Meaning == "" && s.Because == "" {
			t.Errorf("%s %s: neither meaning nor reason", s.Section, s.Name)
		}
		if (s.Treatment == NoMeaning || s.Treatment == Refused) && s.Because == "" {
			t.Errorf("%s %s: %v without a reason", s.Section, s.Name, s.Treatment)
		}
		if got, err := s.normal(s.Default); s.Type != String && !s.null && (err != nil || got != s.Default) {
			t.Errorf("%s %s: default %q: %q, %v", s.Section, s.Name, s.Default, got, err)
		}
	}
	if s, ok := Lookup("mailbox", "autoexpunge"); !ok || s.Type != Time {
		t.Error(s, ok)
	}
	if _, ok := Lookup("", "nosuch"); ok {
		t.Error("an unknown setting was found")
	}
}

func TestBrokenTables(t *testing.T) {
	for _, c := range []struct{ table, services, want string }{
		{"-\ta\tbool\tno\t*\tnotyet", "", "settings.tsv:1: 6 columns instead of 7"},
		{"-\ta\tbol\tno\t*\tnotyet\tx", "", `settings.tsv:1: unknown type "bol"`},
		{"-\ta\tbool\tno\t*\tmaybe\tx", "", `settings.tsv:1: unknown treatment "maybe"`},
		{"-\ta\tbool\tno\t*\tnotyet\tx\n-\ta\tbool\tno\t*\tnotyet\tx", "", "settings.tsv:2: a stands twice"},
		{"-\ta\tbool\tno\t*\tnotyet\tx", "b = c", "built-in services:1: Unknown setting: b"},
	} {
		if err := newRegistry(c.table, c.services).err; err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func TestCheckNamesWhatIsNotDone(t *testing.T) {
	c := load(t, "ssl_dh = <dh.pem\nauth_use_winbind = yes\nrawlog_dir = /x\nmail_max_userip_connections = 5\n", "dh.pem", "DH")
	got := map[string]string{}
	for _, d := range c.Check() {
		got[d.Setting] = d.Severity.String() + " " + filepath.Base(d.Position.String()) + " " + d.Text
	}
	for name, want := range map[string]string{
		"ssl_dh":           "note dovecot.conf:1 ssl_dh has no meaning here: ",
		"auth_use_winbind": "warning dovecot.conf:2 auth_use_winbind is not honoured yet; its default holds",
		"rawlog_dir":       "warning dovecot.conf:3 rawlog_dir is refused: ",
	} {
		if !strings.HasPrefix(got[name], want) {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if text, ok := got["mail_max_userip_connections"]; ok {
		t.Error(text)
	}
}

func TestByteOrderMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dovecot.conf")
	if err := os.WriteFile(path, []byte("\xef\xbb\xbfprotocols = imap\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := Load(path)
	if err == nil && len(config.Errors()) > 0 {
		err = config.Errors()[0]
	}
	if err == nil || !strings.Contains(err.Error(), "byte order mark") {
		t.Errorf("%v", err)
	}
}
