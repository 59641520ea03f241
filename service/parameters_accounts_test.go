package service_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"time"
)

// imapLoginProofs are the settings about names and mechanisms.
func imapLoginProofs() []proof {
	const boss = "passdb {\n  driver = static\n  master = yes\n  username_filter = boss@x.test\n  args = password=secret\n}"
	const odd = "passdb {\n  driver = static\n  username_filter = odd~name@x.test\n  args = password=secret\n}"
	challenge := func(mechanism string) func(p *probe) string {
		return func(p *probe) string {
			saw := imapSession("AUTHENTICATE "+mechanism, "*")(p)
			for line := range strings.Lines(saw) {
				if text, is := strings.CutPrefix(strings.TrimSpace(line), "+ "); is {
					if decoded, err := base64.StdEncoding.DecodeString(text); err == nil {
						saw += string(decoded)
					}
				}
			}
			return saw
		}
	}
	localPart := func(p *probe) string {
		name, _, _ := strings.Cut(p.user, "@")
		return imapSession(fmt.Sprintf("LOGIN %s %q", name, pass))(p)
	}
	translated := func(p *probe) string {
		return imapSession(fmt.Sprintf("LOGIN %s %q", strings.ReplaceAll(p.user, "@", "="), pass))(p)
	}
	capital := func(p *probe) string {
		return imapSession(fmt.Sprintf("LOGIN %s %q", strings.ToUpper(p.user), pass))(p)
	}
	const in, out = "t1 OK", "t1 NO"
	return []proof{
		{"auth_default_realm", unset, domain, "auth_mechanisms = plain login cram-md5 digest-md5", localPart, out, in},
		{"auth_gssapi_hostname", "one.test", "two.test", "", challenge("CRAM-MD5"), "@one.test>", "@two.test>"},
		{"auth_realms", "one.test", "two.test", "", challenge("DIGEST-MD5"), `realm="one.test"`, `realm="two.test"`},
		{"auth_master_user_separator", unset, "*", boss, imapSession(`LOGIN "USER*boss@x.test" secret`), out, in},
		{"auth_username_chars", unset, "", odd, imapSession("LOGIN odd~name@x.test secret"), out, in},
		{"auth_username_format", "%Lu", "%u", "", capital, in, out},
		{"auth_username_translation", unset, "=@", "", translated, out, in},
		{"auth_failure_delay", "0", "2s", "", slowRefusal, "quick", "slow"},
	}
}

// slowRefusal tells whether failed logins are answered at once. Each comes from another address, because one that failed before waits longer.
func slowRefusal(p *probe) string {
	for i := range 3 {
		began := time.Now()
		imapDialogue(client{source: fmt.Sprintf("127.0.3.%d", i+1)}, "LOGIN nobody@x.test wrong")(p)
		if time.Since(began) < 2*time.Second {
			return "quick"
		}
	}
	return "slow"
}

// passdbProofs are the settings of a passdb. Each has a name of its own in username_filter.
func passdbProofs() []proof {
	block := func(name, lines string) string {
		return "passdb {\n  driver = static\n  username_filter = " + name + "\n" + lines + "}"
	}
	login := func(name, secret string) func(p *probe) string { return imapSession("LOGIN " + name + " " + secret) }
	become := func(target, name, secret string) func(p *probe) string {
		return func(p *probe) string {
			target := strings.ReplaceAll(target, "USER", p.user)
			return imapSession("AUTHENTICATE PLAIN " + base64Text(target+"\x00"+name+"\x00"+secret))(p)
		}
	}
	const file = "passdb {\n  driver = passwd-file\n  args = DIR/more\n  username_filter = deny@x.test\n  @@\n}\n"
	const missing = "passdb {\n  driver = passwd-file\n  args = DIR/missing\n  username_filter = lost@x.test\n  @@\n}\n"
	const in, out = "t1 OK", "t1 NO"
	return []proof{
		{"passdb.driver", "passwd-file", "static", "passdb {\n  @@\n  username_filter = file@x.test\n  args = DIR/more\n}", login("file@x.test", "secret"), in, out},
		{"passdb.args", "password=one", "password=two", block("args@x.test", "  @@\n"), login("args@x.test", "one"), in, out},
		{"passdb.default_fields", unset, "allow_nets=192.0.2.0/24", block("default@x.test", "  args = password=one\n  @@\n"), login("default@x.test", "one"), in, out},
		{"passdb.override_fields", "allow_nets=127.0.0.0/8", "allow_nets=192.0.2.0/24", block("override@x.test", "  args = password=one\n  @@\n"), login("override@x.test", "one"), in, out},
		{"passdb.mechanisms", "plain", "cram-md5", block("mechanism@x.test", "  args = password=one\n  @@\n"), login("mechanism@x.test", "one"), in, out},
		{"passdb.username_filter", "filter@x.test", "other@x.test", "passdb {\n  driver = static\n  args = password=one\n  @@\n}", login("filter@x.test", "one"), in, out},
		{"passdb.skip", "never", "unauthenticated", block("skip@x.test", "  args = password=one\n  @@\n"), login("skip@x.test", "one"), in, out},
		{"passdb.result_success", "return-ok", "return-fail", block("success@x.test", "  args = password=one\n  @@\n"), login("success@x.test", "one"), in, out},
		{"passdb.result_failure", "return-ok", "return-fail", block("failure@x.test", "  args = password=one\n  @@\n"), login("failure@x.test", "two"), in, out},
		{"passdb.result_internalfail", "return-ok", "return-fail", missing, login("lost@x.test", "one"), in, out},
		{"passdb.deny", "no", "yes", file + block("deny@x.test", "  args = password=one\n"), login("deny@x.test", "one"), in, out},
		{"passdb.pass", "no", "yes", block("chief@x.test", "  args = password=one\n  master = yes\n  @@\n"), become("nobody@x.test", "chief@x.test", "one"), in, out},
		{"passdb.master", "yes", "no", block("lord@x.test", "  args = password=one\n  @@\n"), become("USER", "lord@x.test", "one"), in, out},
	}
}

// userdbProofs are the settings of a userdb, and what holds where it says nothing.
func userdbProofs() []proof {
	const places = "\nmail_location = maildir:~/Maildir\n"
	owner := fmt.Sprintf("uid=%d gid=%d ", os.Getuid(), os.Getgid())
	static := func(lines string) string { return "!userdb\nuserdb {\n  driver = static\n" + lines + "}" + places }
	const lost = "userdb {\n  driver = passwd-file\n  args = DIR/missing\n  @@\n}\n"
	const empty = "userdb {\n  driver = passwd-file\n  args = DIR/more\n  @@\n}\n"
	login := imapSession("LOGIN", "STATUS INBOX (MESSAGES)")
	home := leaving(login, "one", "two")
	const in, one, two = "t1 OK", "found one", "found two"
	return []proof{
		{"userdb.driver", "static", "passwd-file", "!userdb\nuserdb {\n  @@\n  args = DIR/more home=DIR/one\n}" + places, home, one, ""},
		{"userdb.args", owner + "home=DIR/one", owner + "home=DIR/two", static("  @@\n"), home, one, two},
		{"userdb.default_fields", "home=DIR/one", "home=DIR/two", static("  args = " + owner + "\n  @@\n"), home, one, two},
		{"userdb.override_fields", "home=DIR/one", "home=DIR/two", static("  args = " + owner + "home=DIR/three\n  @@\n"), home, one, two},
		{"userdb.result_success", "return-ok", "return-fail", static("  args = " + owner + "home=DIR/one\n  @@\n"), home, one, ""},
		{"userdb.result_failure", "continue", "return-fail", "!userdb\n" + empty + strings.TrimPrefix(static("  args = "+owner+"home=DIR/one\n"), "!userdb\n"), home, one, ""},
		{"userdb.result_internalfail", "continue", "return-fail", "!userdb\n" + lost + strings.TrimPrefix(static("  args = "+owner+"home=DIR/one\n"), "!userdb\n"), home, one, ""},
		{"mail_home", "DIR/one", "DIR/two", static("  args = " + owner + "allow_all_users=yes\n"), home, one, two},
		{"mail_uid", fmt.Sprint(os.Getuid()), "nosuchuser", static("  args = home=DIR/one\n"), login, in, ""},
		{"mail_gid", fmt.Sprint(os.Getgid()), "nosuchgroup", static("  args = home=DIR/one\n"), login, in, ""},
		{"mail_location", "maildir:DIR/one", "maildir:DIR/two", "", home, one, two},
		{"state_dir", "DIR/one", "DIR/two", "mail_location = vault:", home, one, two},
	}
}

// mailEncryptionProofs are the settings of TLS.
func mailEncryptionProofs() []proof {
	greeted := imapDialogue(client{tls: true})
	external := imapDialogue(client{tls: true, certificate: "u0"}, "AUTHENTICATE EXTERNAL =")
	old := imapDialogue(client{tls: true, config: &tls.Config{MaxVersion: tls.VersionTLS12}})
	const verified = "ssl_ca = <DIR/tls/authority.pem\nauth_mechanisms = plain external\n"
	const named = "auth_ssl_username_from_cert = yes\n"
	const both = "ssl_cert = <DIR/tls/rsa.pem\nssl_key = <DIR/tls/rsa.key\n"
	const in, out = "t1 OK", "t1 NO"
	return []proof{
		{"disable_plaintext_auth", "no", "yes", "", imapSession("LOGIN"), in, "[PRIVACYREQUIRED]"},
		{"login_trusted_networks", unset, stranger, "disable_plaintext_auth = yes", imapSession("LOGIN"), "[PRIVACYREQUIRED]", in},
		{"ssl", "yes", "no", "", imapSession("CAPABILITY"), "STARTTLS", ""},
		{"ssl_cert", "<DIR/tls/ecdsa.both", "<DIR/tls/other.both", "ssl_key =", greeted, "certificate of ecdsa.test", "certificate of other.test"},
		{"ssl_alt_cert", unset, "<DIR/tls/ecdsa.both", both, imapDialogue(client{tls: true, config: onlyECDSA()}), "handshake", "certificate of ecdsa.test"},
		{"ssl_min_protocol", "TLSv1.2", "TLSv1.3", "", old, "* OK", "handshake"},
		{"ssl_verify_client_cert", "no", "yes", verified + named, external, out, in},
		{"auth_ssl_username_from_cert", "no", "yes", verified + "ssl_verify_client_cert = yes\n", external, out, in},
		{"ssl_cert_username_field", "commonName", "emailAddress", verified + named + "ssl_verify_client_cert = yes\n", emptied(external), "user=<" + user(0) + ">", "user=<" + user(1) + ">"},
		{"ssl_ca", "<DIR/tls/authority.pem", "<DIR/tls/cert.pem", "auth_mechanisms = plain external\nssl_verify_client_cert = yes\n" + named, external, in, ""},
	}
}

// emptied gives the log of a login instead of its dialogue.
func emptied(ask func(p *probe) string) func(p *probe) string {
	return func(p *probe) string {
		ask(p)
		p.program = ""
		return p.logged("Login: ")
	}
}
