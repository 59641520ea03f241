package service_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	accounts "os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// foreignDovecot starts a real Dovecot that takes mail at a Unix socket into maildirs below mail, and returns the socket's path.
func foreignDovecot(t *testing.T, mail string) string {
	t.Helper()
	dovecot := program(t, "dovecot")
	if _, err := os.Stat("/usr/lib/dovecot/lmtp"); err != nil {
		t.Skip("dovecot's lmtp is not installed")
	}
	dir := shortDir(t)
	me, err := accounts.Current()
	if err != nil {
		t.Fatal(err)
	}
	inner, login, uid, gid := me.Username, me.Username, os.Getuid(), os.Getgid()
	if uid == 0 {
		// Dovecot delivers nothing as root.
		inner, login, uid, gid = "dovecot", "dovenull", 65534, 65534
		if err := errors.Join(os.Chown(mail, uid, gid), os.Chmod(mail, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = lmtp
ssl = no
default_internal_user = %[2]s
default_login_user = %[3]s
first_valid_uid = 0
first_valid_gid = 0
mail_location = maildir:%[4]s/%%n
passdb {
  driver = static
  args = password=x
}
userdb {
  driver = static
  args = uid=%[5]d gid=%[6]d home=%[4]s/%%n allow_all_users=yes
}
service lmtp {
  chroot =
  unix_listener %[1]s/lmtp {
    mode = 0666
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
`, dir, inner, login, mail, uid, gid)
	file := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(dovecot, "-F", "-c", file)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		_ = command.Wait()
	})
	socket := filepath.Join(dir, "lmtp")
	for range 100 {
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			return socket
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := os.ReadFile(filepath.Join(dir, "log"))
	t.Skipf("dovecot does not start here: %s", text)
	return ""
}

// TestForeignDovecot hands mail to a real Dovecot by LMTP.
func TestForeignDovecot(t *testing.T) {
	mail := shortDir(t)
	socket := foreignDovecot(t, mail)
	s := start(t, setting{accounts: 1, main: "relay_domains = far.test\ntransport_maps = inline:{ far.test=lmtp:unix:" + socket + " }\nlmtp_send_xforward_command = yes\n"})
	w, err := s.greetSMTP("smtp")
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for range 3 {
		if err := w.mail("sender@elsewhere.example", []string{"bob@far.test"}, []byte("Subject: over there\r\n\r\nw\xc3\xb6rds\r\n.\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(mail, "bob", "new", "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files in the maildir, %v\n%s", len(files), err, s.log)
	}
	text, err := os.ReadFile(files[0])
	if err != nil || !strings.Contains(string(text), "Return-Path: <sender@elsewhere.example>") || !strings.HasSuffix(string(text), "w\xc3\xb6rds\n.\n") {
		t.Errorf("%q, %v", text, err)
	}
	if want := "to=<bob@far.test>, relay=mail." + domain + "[" + socket + "], delay="; !strings.Contains(s.log.String(), want) ||
		!strings.Contains(s.log.String(), "postfix/lmtp") || !strings.Contains(s.log.String(), "status=sent (250 2.0.0 <bob@far.test> ") {
		t.Errorf("log:\n%s", s.log)
	}
	// Recipients of one transaction must not have different ends.
	for _, step := range [][2]string{
		{"MAIL FROM:<sender@elsewhere.example>", "250"},
		{"RCPT TO:<bob@far.test>", "250"},
		{"RCPT TO:<" + user(0) + ">", "452 4.5.3"},
		{"RSET", "250"},
		{"MAIL FROM:<sender@elsewhere.example>", "250"},
		{"RCPT TO:<" + user(0) + ">", "250"},
		{"RCPT TO:<bob@far.test>", "452 4.5.3"},
		{"RSET", "250"},
	} {
		if err := w.smtp(step[0], step[1]); err != nil {
			t.Error(err)
		}
	}
}

// TestForeignLMTPRefuses: the answer of the other server is the answer to the client.
func TestForeignLMTPRefuses(t *testing.T) {
	dir := shortDir(t)
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// The answers come one behind the other, whatever is asked.
			buffer := make([]byte, 4096)
			for _, answer := range []string{"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n", "552-5.2.2 too\r\n552 5.2.2 full\r\n"} {
				if _, err := conn.Write([]byte(answer)); err != nil {
					break
				}
				if n, err := conn.Read(buffer); n == 0 || err != nil {
					break
				}
			}
			_ = conn.Close()
		}
	}()
	s := start(t, setting{accounts: 1, main: "relay_domains = far.test\ntransport_maps = inline:{ far.test=lmtp:unix:" + dir + "/s }\n"})
	w, err := s.greetSMTP("smtp")
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, step := range [][2]string{
		{"MAIL FROM:<sender@elsewhere.example>", "250"}, {"RCPT TO:<bob@far.test>", "250"}, {"DATA", "354"}, {"Subject: x\r\n\r\n.", "552-5.2.2 too\n552 5.2.2 full"},
	} {
		if err := w.smtp(step[0], step[1]); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(s.log.String(), "dsn=5.2.2, status=bounced (host mail."+domain+"["+dir+"/s] said: 552 5.2.2 too 5.2.2 full (in reply to end of DATA command))") {
		t.Errorf("log:\n%s", s.log)
	}
}
