package service_test

import (
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postilion/service"
)

// otherUser runs the commands of tests, as whom nothing else works.
const otherUser = "daemon"

// pipedTo configures a divided server with services that pipe to box.sh: SERVICE.test leads to each.
func pipedTo(t *testing.T, script string) (s *system, uid int) {
	t.Helper()
	s = divided(t, setting{accounts: 1, main: "relay_domains = box.test, late.test, own.test, root.test\n" +
		"transport_maps = inline:{box.test=box:, late.test=late:, own.test=own:, root.test=asroot:}\nlate_time_limit = 1s\n"})
	found, err := osuser.Lookup(otherUser)
	if err != nil {
		t.Skipf("needs a user %s: %v", otherUser, err)
	}
	if uid, err = strconv.Atoi(found.Uid); err != nil {
		t.Fatal(err)
	}
	s.write("box.sh", script)
	out := filepath.Join(s.dir, "out")
	if err := errors.Join(os.Chmod(filepath.Join(s.dir, "box.sh"), 0o644), os.Mkdir(out, 0o755), os.Chown(out, uid, uid)); err != nil {
		t.Fatal(err)
	}
	lines := s.read("master.cf")
	for service, user := range map[string]string{"box": otherUser, "late": otherUser, "own": "nobody", "asroot": "root"} {
		lines += fmt.Sprintf("%s unix - n n - - pipe\n  flags=D user=%s directory=%s argv=/bin/sh %s/box.sh ${extension} ${recipient}\n", service, user, out, s.dir)
	}
	s.write("master.cf", lines)
	return s, uid
}

// pipe sends a message to a recipient and returns why it was not taken, "" when it was.
func (s *system) pipe(recipient string) string {
	s.t.Helper()
	w, err := s.greetSMTP("smtp")
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.close()
	if err := w.mail("a@elsewhere.example", []string{recipient}, []byte("Subject: piped\r\n\r\n"+strings.Repeat("body\r\n", 50_000))); err != nil {
		return err.Error()
	}
	return ""
}

// TestPipeAsUser: commands run as the user of their service; exit codes decide the answer; users that the mail system's or root's are get none.
func TestPipeAsUser(t *testing.T) {
	s, uid := pipedTo(t, "cat > mail.$1\nid -u > id.$1\necho said so\nexit $1\n")
	server := s.divide()
	for _, row := range []struct{ recipient, want string }{
		{"u+0@box.test", ""},
		{"u+67@box.test", "550 5.1.1 user unknown"},
		{"u+75@box.test", "451 4.3.0"},
		{"u+0@own.test", "451 4.3.5"},
		{"u+0@root.test", "451 4.3.5"},
	} {
		if got := s.pipe(row.recipient); (got == "") != (row.want == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: %q, want %q", row.recipient, got, row.want)
		}
	}
	for _, code := range []string{"0", "67", "75"} {
		name := filepath.Join(s.dir, "out", "mail."+code)
		info, err := os.Stat(name)
		if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != uid {
			t.Fatalf("%s does not belong to %d: %v, %v", name, uid, info, err)
		}
		if text := s.read("out/mail." + code); !strings.HasPrefix(text, "Delivered-To: u+"+code+"@box.test\n") || strings.Count(text, "body\n") != 50_000 {
			t.Errorf("%s has %d octets: %.200q", name, len(text), text)
		}
		if got := strings.TrimSpace(s.read("out/id." + code)); got != strconv.Itoa(uid) {
			t.Errorf("the command ran as %s", got)
		}
	}
	// A helper that died is started again with the same list, a reload brings another list.
	if err := syscall.Kill(s.part(server, "helper"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := s.pipe("u+0@box.test"); got != "" {
		t.Errorf("after the helper's death: %s", got)
	}
	s.write("again.sh", "exit 67\n")
	if err := os.Chmod(filepath.Join(s.dir, "again.sh"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.replace("master.cf", "box.sh", "again.sh")
	if err := server.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := s.pipe("u+0@box.test")
		if strings.Contains(got, "550 5.1.1") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a reload: %q", got)
		}
	}
}

// TestPipeLate: a command whose time is over is killed with all that it started.
func TestPipeLate(t *testing.T) {
	s, _ := pipedTo(t, "sleep 300 &\necho $! > pid\nsleep 300\n")
	s.divide()
	if got := s.pipe("u+0@late.test"); !strings.Contains(got, "550 5.3.0") {
		t.Errorf("%q", got)
	}
	pid := strings.TrimSpace(s.read("out/pid"))
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
		if err != nil || strings.Contains(string(status), "\nState:\tZ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %s lives on", pid)
		}
	}
}

// TestDelegatedKeys: the keys and authorities of lmtp services are among what the master opens.
func TestDelegatedKeys(t *testing.T) {
	s := configure(t, setting{accounts: 1, main: "mail_owner = nobody\nlmtp_tls_cert_file = /k/cert\nlmtp_tls_key_file = /k/key\nlmtp_tls_CAfile = /k/ca\n"})
	s.write("master.cf", s.read("master.cf")+"other unix - - n - - lmtp\n  -o lmtp_tls_chain_files=/k/chain\n")
	g, err := service.NewAuthority(service.Options{PostfixDir: s.dir, DovecotFile: filepath.Join(s.dir, "dovecot.conf"), Getenv: s.getenv, Stderr: s.log}).Read()
	if err != nil {
		t.Skipf("needs a user nobody: %v", err)
	}
	files := strings.Join(g.Files, " ")
	for _, want := range []string{"/k/cert", "/k/key", "/k/ca", "/k/chain"} {
		if !strings.Contains(files, want) {
			t.Errorf("%s is not granted: %s", want, files)
		}
	}
}
