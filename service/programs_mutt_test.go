package service_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMutt sends with mutt over SMTP with TLS and a login, then opens the mailbox on a terminal: headers are fetched, the message is read, saved to
// another mailbox and deleted.
func TestMutt(t *testing.T) {
	mutt, terminal := program(t, "mutt"), program(t, "script")
	s := start(t, setting{accounts: 1})
	local, domain, _ := strings.Cut(user(0), "@")
	escaped := local + "%40" + domain
	s.write("muttrc", fmt.Sprintf(`set from = "%[1]s"
set use_from = yes
set copy = no
set ssl_verify_host = no
set certificate_file = "%[2]s/tls/cert.pem"
set smtp_url = "smtps://%[3]s@127.0.0.1:%[4]d/"
set smtp_pass = "%[5]s"
set imap_user = "%[1]s"
set imap_pass = "%[5]s"
set folder = "imaps://127.0.0.1:%[6]d/"
set spoolfile = "imaps://127.0.0.1:%[6]d/INBOX"
set header_cache = ""
set confirmcreate = no
set confirmappend = no
set delete = yes
set move = no
set wait_key = no
set mail_check_stats = no
set pager_stop = yes
`, user(0), s.dir, escaped, s.ports["submissions"], pass, s.ports["imaps"]))
	rc := filepath.Join(s.dir, "muttrc")
	s.write("body", "a body by mutt\n")
	s.muttRun(t, terminal, fmt.Sprintf("%s -n -F %s -s 'by mutt' %s < %s", mutt, rc, user(0), filepath.Join(s.dir, "body")))
	s.countMail(1, 1)
	keys := "<display-message><exit><save-message>=Kept<enter><sync-mailbox><quit>"
	s.muttRun(t, terminal, fmt.Sprintf("%s -n -F %s -e 'push \"%s\"'", mutt, rc, keys))
	s.countMail(1, 0)
	w, err := s.login("imaps", user(0))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	answers, err := w.imap("SELECT Kept")
	if err != nil {
		t.Fatal(err)
	}
	kept := false
	for _, a := range answers {
		kept = kept || strings.Contains(a.text, "1 EXISTS")
	}
	if !kept {
		t.Errorf("the message was not saved: %v", answers)
	}
	answers, err = w.imap("FETCH 1 (FLAGS BODY[HEADER.FIELDS (SUBJECT USER-AGENT)])")
	if len(answers) == 0 {
		t.Fatal(err)
	}
	message := answers[0]
	if err != nil || !strings.Contains(message.text, `\Seen`) || len(message.literals) != 1 || !strings.Contains(string(message.literals[0]), "Subject: by mutt") {
		t.Errorf("%v, %v", answers, err)
	}
}

// muttRun runs a command line on a terminal.
func (s *system) muttRun(t *testing.T, terminal, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, terminal, "-qec", line, "/dev/null")
	command.Env = append(os.Environ(), "HOME="+s.dir, "TERM=vt100", "LC_ALL=C", "LINES=24", "COLUMNS=80", "EMAIL="+user(0))
	command.WaitDelay = time.Second
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%q\n%s", line, err, out[max(0, len(out)-2000):], s.troubles(20))
	}
}
