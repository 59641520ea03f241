package authd_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestPostfix: the real Postfix's smtpd asks our socket about logins, as smtpd_sasl_type = dovecot has it.
func TestPostfix(t *testing.T) {
	program, err := exec.LookPath("postfix")
	if err != nil {
		t.Skip("postfix is not installed")
	}
	owner, err := user.Lookup("postfix")
	if os.Getuid() != 0 || err != nil {
		t.Skip("postfix is started by root alone, and needs the user postfix")
	}
	socket, _, _ := start(t)
	dir := filepath.Dir(socket)
	for _, open := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	port := startPostfix(t, program, owner, dir, socket)
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	for _, c := range []struct {
		name, want string
		lines      []string
	}{
		{"right", "235 2.7.0", []string{"AUTH PLAIN " + encode("\x00alice\x00pw")}},
		{"wrong", "535 5.7.8", []string{"AUTH PLAIN " + encode("\x00alice\x00no")}},
		{"nobody", "535 5.7.8", []string{"AUTH PLAIN " + encode("\x00nobody\x00pw")}},
		{"nologin", "535 5.7.8", []string{"AUTH PLAIN " + encode("\x00shut\x00pw")}},
		{"in two steps", "235 2.7.0", []string{"AUTH LOGIN", encode("alice"), encode("pw")}},
		{"wrong in two steps", "535 5.7.8", []string{"AUTH LOGIN", encode("alice"), encode("no")}},
		{"broken off", "501 5.7.0", []string{"AUTH SCRAM-SHA-256 " + encode("n,,n=alice,r=nonce"), "*"}},
	} {
		if got, err := converse(port, c.lines); err != nil || !strings.HasPrefix(got, c.want) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Errorf("%s: %q, %v; want %s\n%s", c.name, got, err, c.want, log)
		}
	}
}

// startPostfix runs a Postfix whose logins are checked at the socket and returns its port.
func startPostfix(t *testing.T, program string, owner *user.User, dir, socket string) int {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"queue", "data", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "data"), uid, -1); err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(dir, "etc")
	main := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
myhostname = mx.example.org
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
alias_maps =
alias_database =
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[2]s
smtpd_sasl_security_options = noanonymous
smtpd_error_sleep_time = 0
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_peername_lookup = no
`, dir, socket)
	master := fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd\nrewrite unix - - n - - trivial-rewrite\ncleanup unix n - n - 0 cleanup\n"+
		"anvil unix - - n - 1 anvil\nproxymap unix - - n - - proxymap\npostlog unix-dgram n - n - 1 postlogd\n", port)
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(program, "-c", etc, "start").CombinedOutput(); err != nil {
		t.Fatalf("postfix start: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(program, "-c", etc, "stop").CombinedOutput(); err != nil {
			t.Errorf("postfix stop: %v\n%s", err, out)
		}
	})
	return port
}

// converse says EHLO and the lines, and returns the answer to the last one.
func converse(port int, lines []string) (answer string, err error) {
	const patience = 20 * time.Second
	var conn net.Conn
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if conn, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	reply := func() error {
		for {
			if answer, err = r.ReadString('\n'); err != nil || len(answer) < 4 || answer[3] != '-' {
				return err
			}
		}
	}
	if err := reply(); err != nil {
		return answer, err
	}
	for _, line := range append([]string{"EHLO client.example.org"}, lines...) {
		if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
			return answer, err
		}
		if err := reply(); err != nil {
			return answer, err
		}
	}
	return answer, nil
}
