package service_test

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"postilion/service"
)

// granted is what a server that root starts would keep root for, and as whom it would work.
func granted(p *probe) string { return readGrants(p, p.s.dir) }

// grantedMailboxes is that of a Dovecot half alone.
func grantedMailboxes(p *probe) string { return readGrants(p, "") }

func readGrants(p *probe, postfixDir string) string {
	g, err := service.NewAuthority(service.Options{
		PostfixDir: postfixDir, DovecotFile: filepath.Join(p.s.dir, "dovecot.conf"), Getenv: p.s.getenv, Stderr: p.s.log,
	}).Read()
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(fmt.Sprintf("works as %d, users %+v, directories %+v", g.Worker.UID, g.Users, g.Directories), p.s.dir, "DIR")
}

// transportAuthorityProofs and mailAuthorityProofs are about a server that root starts.
func transportAuthorityProofs() []proof {
	return []proof{
		{"mail_owner", "nobody", "nosuchuser", "", granted, "users {", "mail_owner = nosuchuser"},
		{"data_directory", "DIR/one", "DIR/two", "mail_owner = nobody", granted, "DIR/one", "DIR/two"},
		{"postilion_single_process", "no", "yes", "mail_owner = nobody", granted, "users {", "one process does everything"},
	}
}

func mailAuthorityProofs() []proof {
	const worker = "default_internal_user = nobody"
	return []proof{
		{"default_internal_user", "nobody", "nosuchuser", "", grantedMailboxes, "users {", "default_internal_user = nosuchuser"},
		{"postilion_single_process", "no", "yes", worker, grantedMailboxes, "users {", "one process does everything"},
		{"first_valid_uid", "501", "502", worker, grantedMailboxes, "FirstUID:501", "FirstUID:502"},
		{"last_valid_uid", "601", "602", worker, grantedMailboxes, "LastUID:601", "LastUID:602"},
		{"first_valid_gid", "51", "52", worker, grantedMailboxes, "FirstGID:51", "FirstGID:52"},
		{"last_valid_gid", "61", "62", worker, grantedMailboxes, "LastGID:61", "LastGID:62"},
	}
}

// verboseProofs are about why a login failed.
func verboseProofs() []proof {
	reason := func(ask func(p *probe) string) func(p *probe) string {
		return func(p *probe) string {
			ask(p)
			p.program = ""
			var lines strings.Builder
			for line := range strings.Lines(p.logged("Aborted login")) {
				if strings.Contains(line, "@x.test") || strings.Contains(line, "nobody@"+domain) {
					lines.WriteString(line)
				}
			}
			return lines.String()
		}
	}
	wrong := reason(imapSession("LOGIN nobody@x.test wrong", "LOGOUT"))
	static := "passdb {\n  driver = static\n  username_filter = known@x.test\n  args = password=secret\n  @@\n}"
	unknown := "!userdb\nuserdb {\n  driver = passwd-file\n  args = DIR/more\n  @@\n}"
	return []proof{
		{"auth_verbose", "no", "yes", "", wrong, "", "passwd-file(nobody@x.test"},
		{"passdb.auth_verbose", "default", "yes", static, reason(imapSession("LOGIN known@x.test wrong", "LOGOUT")), "", "Password mismatch"},
		{"userdb.auth_verbose", "default", "yes", unknown, func(p *probe) string {
			p.deliver("nobody@"+domain, "Subject: x\n\nx")
			return reason(imapSession("LOGIN nobody@x.test wrong", "LOGOUT"))(p)
		}, "", "unknown user"},
	}
}

// tokenProofs are about what is remembered of OAuth 2.0 tokens.
func tokenProofs() []proof {
	const passdb = "auth_mechanisms = plain xoauth2\nauth_failure_delay = 0\npassdb {\n  driver = oauth2\n  mechanisms = xoauth2\n  args = DIR/oauth2\n}\n"
	const cached = passdb + "auth_cache_size = 1 M\n"
	return []proof{
		{"auth_cache_size", "1 M", "0", passdb, tokens("good"), "asked: 1", "asked: 2"},
		{"auth_cache_ttl", "1 hours", "1 s", cached, tokens("good"), "asked: 1", "asked: 2"},
		{"auth_cache_negative_ttl", "1 hours", "1 s", cached, tokens("bad"), "asked: 1", "asked: 2"},
	}
}

// tokens logs in twice, more than a second apart, and tells how often the identity provider was asked.
func tokens(token string) func(p *probe) string {
	return func(p *probe) string {
		listener, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.8", strconv.Itoa(p.s.ports["imap"])))
		if err != nil {
			p.t.Error(err)
			return ""
		}
		var asked atomic.Int64
		provider := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if r.Header.Get("Authorization") != "Bearer good" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = fmt.Fprintf(w, `{"email":%q}`, p.user)
		})}
		done := make(chan error, 1)
		go func() { done <- provider.Serve(listener) }()
		saw := ""
		for i := range 2 {
			if i > 0 {
				time.Sleep(1200 * time.Millisecond)
			}
			saw += imapSession("AUTHENTICATE XOAUTH2 "+base64Text("user="+p.user+"\x01auth=Bearer "+token+"\x01\x01"), "")(p)
		}
		_ = provider.Close()
		<-done
		return fmt.Sprintf("%sasked: %d", saw, asked.Load())
	}
}
