package authd_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExim: the real Exim's dovecot authenticator brings proofs to our socket. Debian's Exim and Postfix cannot be installed side by side;
// POSTILION_EXIM names a program that lies elsewhere.
func TestExim(t *testing.T) {
	exim := os.Getenv("POSTILION_EXIM")
	if exim == "" {
		for _, name := range []string{"exim4", "exim"} {
			if path, err := exec.LookPath(name); err == nil {
				exim = path
				break
			}
		}
	}
	if exim == "" {
		t.Skip("exim is not installed (POSTILION_EXIM may name it)")
	}
	if os.Getuid() != 0 {
		t.Skip("exim takes another configuration from root alone")
	}
	path, _, _ := start(t)
	// Exim asks as its own user.
	dir := filepath.Dir(path)
	for _, open := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "exim.conf")
	text := fmt.Sprintf(`primary_hostname = mx.example.org
auth_advertise_hosts = *
log_file_path = %[1]s/exim-%%s
spool_directory = %[1]s/spool
begin authenticators
plain:
  driver = dovecot
  public_name = PLAIN
  server_socket = %[2]s
  server_set_id = $auth1
login:
  driver = dovecot
  public_name = LOGIN
  server_socket = %[2]s
  server_set_id = $auth1
scram:
  driver = dovecot
  public_name = SCRAM-SHA-256
  server_socket = %[2]s
  server_set_id = $auth1
`, dir, path)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	for _, c := range []struct{ name, dialogue, want string }{
		{"right", "AUTH PLAIN " + encode("\x00alice\x00pw"), "235 "},
		{"wrong", "AUTH PLAIN " + encode("\x00alice\x00no"), "535 "},
		{"nobody", "AUTH PLAIN " + encode("\x00nobody\x00pw"), "535 "},
		{"nologin", "AUTH PLAIN " + encode("\x00shut\x00pw"), "535 "},
		{"plain in two steps", "AUTH PLAIN\r\n" + encode("\x00alice\x00pw"), "235 "},
		{"in two steps", "AUTH LOGIN\r\n" + encode("alice") + "\r\n" + encode("pw"), "235 "},
		{"wrong in two steps", "AUTH LOGIN\r\n" + encode("alice") + "\r\n" + encode("no"), "535 "},
		{"challenge", "AUTH SCRAM-SHA-256 " + encode("n,,n=alice,r=nonce") + "\r\n*", "334 "},
	} {
		command := exec.Command(exim, "-C", config, "-bh", "192.0.2.1")
		command.Stdin = strings.NewReader("EHLO client.example\r\n" + c.dialogue + "\r\nQUIT\r\n")
		var problems strings.Builder
		command.Stderr = &problems
		out, err := command.Output()
		if err != nil || !strings.Contains(string(out), "\n"+c.want) {
			t.Errorf("%s: %v\n%s\n%s", c.name, err, out, problems.String())
		}
	}
}
