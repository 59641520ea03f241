package service_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// program skips the test when a real client is not installed.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// run runs a program with a home of its own and wants success.
func (s *system) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	command := exec.Command(name, args...)
	command.Env = append(os.Environ(), "HOME="+s.dir)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestSwaks sends with swaks: in clear, with STARTTLS, and by each login mechanism.
func TestSwaks(t *testing.T) {
	swaks := program(t, "swaks")
	s := start(t, setting{accounts: 1})
	sent := 0
	for _, extra := range [][]string{
		{"--port", strconv.Itoa(s.ports["smtp"])},
		{"--port", strconv.Itoa(s.ports["smtp"]), "--tls"},
		{"--port", strconv.Itoa(s.ports["submissions"]), "--tls-on-connect", "--auth", "PLAIN"},
		{"--port", strconv.Itoa(s.ports["submission"]), "--tls", "--auth", "PLAIN"},
		{"--port", strconv.Itoa(s.ports["submission"]), "--tls", "--auth", "LOGIN"},
		{"--port", strconv.Itoa(s.ports["submission"]), "--tls", "--auth", "CRAM-MD5"},
	} {
		args := append([]string{"--server", "127.0.0.1", "--helo", "client.example", "--from", user(0), "--to", user(0), "--auth-user", user(0), "--auth-password", pass}, extra...)
		if extra[len(extra)-1] == "--tls" || len(extra) == 2 {
			args = append(args[:8:8], extra...)
		}
		s.run(t, swaks, args...)
		sent++
	}
	s.countMail(1, sent)
}

// TestCurl sends by SMTP and reads by IMAP and POP3 over TLS.
func TestCurl(t *testing.T) {
	curl := program(t, "curl")
	s := start(t, setting{accounts: 1})
	text := "Subject: by curl\r\n\r\n.dotted\r\nend\r\n"
	s.write("mail.eml", text)
	login := user(0) + ":" + pass
	s.run(t, curl, "-sS", "-k", "--url", "smtps://"+s.address("submissions"), "--user", login, "--mail-from", user(0), "--mail-rcpt", user(0), "-T", filepath.Join(s.dir, "mail.eml"))
	for _, url := range []string{"imaps://" + s.address("imaps") + "/INBOX;MAILINDEX=1", "pop3s://" + s.address("pop3s") + "/1"} {
		if got := s.run(t, curl, "-sS", "-k", "--user", login, url); !strings.HasSuffix(got, text) {
			t.Errorf("%s: %q", url, got)
		}
	}
}

// TestMbsync synchronises both ways, and a second time, which must change nothing.
func TestMbsync(t *testing.T) {
	mbsync := program(t, "mbsync")
	for _, driver := range []string{"vault", "maildir"} {
		t.Run(driver, func(t *testing.T) {
			s := start(t, setting{driver: driver, accounts: 1})
			for i := range 5 {
				if err := s.postOne(0, fmt.Appendf(nil, "Subject: %d\r\nMessage-ID: <%d@x.example>\r\n\r\nbody\r\n", i, i)); err != nil {
					t.Fatal(err)
				}
			}
			local := filepath.Join(s.dir, "local")
			for _, sub := range []string{"cur", "new", "tmp"} {
				if err := os.MkdirAll(filepath.Join(local, "INBOX", sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			s.write("local/INBOX/cur/1.own:2,FS", "Subject: from the other side\nMessage-ID: <own@x.example>\n\nbody\n")
			s.write("mbsyncrc", fmt.Sprintf("IMAPAccount a\nHost localhost\nPort %d\nUser %s\nPass \"%s\"\nSSLType IMAPS\nCertificateFile %s/tls/cert.pem\n\n"+
				"IMAPStore far\nAccount a\n\nMaildirStore near\nPath %[4]s/local/\nInbox %[4]s/local/INBOX\nSubFolders Verbatim\n\n"+
				"Channel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Both\nExpunge Both\nSync All\nSyncState *\n", s.ports["imaps"], user(0), pass, s.dir))
			s.run(t, mbsync, "-c", filepath.Join(s.dir, "mbsyncrc"), "-a")
			s.countMail(1, 6)
			before := names(t, local)
			if len(before) != 6 {
				t.Errorf("%d local messages: %v", len(before), before)
			}
			s.run(t, mbsync, "-c", filepath.Join(s.dir, "mbsyncrc"), "-a")
			s.countMail(1, 6)
			if after := names(t, local); strings.Join(after, " ") != strings.Join(before, " ") {
				t.Errorf("the second run changed %v to %v", before, after)
			}
		})
	}
}

// names lists the messages of a Maildir's INBOX.
func names(t *testing.T, maildir string) []string {
	t.Helper()
	var all []string
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(maildir, "INBOX", sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, sub+"/"+e.Name())
		}
	}
	return all
}

// TestPython uses the standard library's smtplib, imaplib and poplib.
func TestPython(t *testing.T) {
	python := program(t, "python3")
	s := start(t, setting{accounts: 1})
	s.write("client.py", fmt.Sprintf(`import imaplib, poplib, smtplib, ssl
tls = ssl._create_unverified_context()
user, password = %q, %q
with smtplib.SMTP_SSL("127.0.0.1", %d, context=tls) as c:
    c.login(user, password)
    c.sendmail(user, [user], "Subject: by python\r\n\r\n.x\r\n")
with imaplib.IMAP4_SSL("127.0.0.1", %d, ssl_context=tls) as c:
    c.login(user, password)
    assert c.select() == ("OK", [b"1"])
    assert c.search(None, "SUBJECT", "python") == ("OK", [b"1"])
    assert c.store("1", "+FLAGS", r"(\Flagged)")[0] == "OK"
    assert c.append("Sent", r"(\Seen)", None, b"Subject: sent\r\n\r\nx\r\n")[0] == "OK"
c = poplib.POP3_SSL("127.0.0.1", %d, context=tls)
c.user(user)
c.pass_(password)
assert c.stat()[0] == 1
assert c.retr(1)[1][-1] == b".x", c.retr(1)
c.quit()
print("all well")
`, user(0), pass, s.ports["submissions"], s.ports["imaps"], s.ports["pop3s"]))
	if got := s.run(t, python, filepath.Join(s.dir, "client.py")); !bytes.Contains([]byte(got), []byte("all well")) {
		t.Error(got)
	}
}
