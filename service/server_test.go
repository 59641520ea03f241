package service

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeFile writes a file of a test's configuration.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// freePort returns a port of 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// mailboxConfig writes a dovecot.conf that serves POP3 on the ports and returns its path.
func mailboxConfig(t *testing.T, dir, vault string, ports ...int) string {
	t.Helper()
	writeFile(t, filepath.Join(dir, "users"), "alice@example.test:{PLAIN}secret\n")
	var listeners strings.Builder
	for i, port := range ports {
		fmt.Fprintf(&listeners, "  inet_listener pop3%d {\n    port = %d\n  }\n", i, port)
	}
	path := filepath.Join(dir, "dovecot.conf")
	writeFile(t, path, fmt.Sprintf(`protocols = pop3
listen = 127.0.0.1
ssl = no
base_dir = %[1]s/run
log_path = %[1]s/log
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
}
mail_location = vault:%[2]s
service pop3-login {
  inet_listener pop3 {
    port = 0
  }
  inet_listener pop3s {
    port = 0
  }
%[3]s}
`, dir, vault, listeners.String()))
	return path
}

func startMailboxes(t *testing.T, path string) (*Server, error) {
	t.Helper()
	return Start(t.Context(), Options{DovecotFile: path, Getenv: func(string) string { return "" }, Stderr: &bytes.Buffer{}})
}

func stopServer(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestVaultIsOpenedAtStart: whoever says ready owns its vault. A second server on the same one does not start.
func TestVaultIsOpenedAtStart(t *testing.T) {
	vault := filepath.Join(t.TempDir(), "vault")
	first, err := startMailboxes(t, mailboxConfig(t, t.TempDir(), vault, freePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer stopServer(t, first)
	second, err := startMailboxes(t, mailboxConfig(t, t.TempDir(), vault, freePort(t)))
	if err == nil {
		stopServer(t, second)
		t.Fatal("a second server on the same vault is ready")
	}
	if !strings.Contains(err.Error(), "mail_location") || !strings.Contains(err.Error(), vault) {
		t.Errorf("the error names neither parameter nor path: %v", err)
	}
}

// TestFailedReloadLeavesNoSocket: a reload that cannot have one of its sockets closes the others that it opened.
func TestFailedReloadLeavesNoSocket(t *testing.T) {
	dir := t.TempDir()
	vault := filepath.Join(dir, "vault")
	old, free := freePort(t), freePort(t)
	s, err := startMailboxes(t, mailboxConfig(t, dir, vault, old))
	if err != nil {
		t.Fatal(err)
	}
	defer stopServer(t, s)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	mailboxConfig(t, dir, vault, free, taken.Addr().(*net.TCPAddr).Port)
	if err := s.Reload(t.Context()); err == nil {
		t.Fatal("reload took a port that another program has")
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", free)); err == nil {
		_ = conn.Close()
		t.Error("a socket that nobody serves takes connections")
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", old))
	if err != nil {
		t.Fatalf("the socket in use was closed: %v", err)
	}
	_ = conn.Close()
}

// TestReloadMovesEverything: after a reload the old port is closed, the new one answers, a listener goes to another address of its port, the log goes
// to its new file, and the old file is let go.
func TestReloadMovesEverything(t *testing.T) {
	dir := t.TempDir()
	vault := filepath.Join(dir, "vault")
	left, moved, added := freePort(t), freePort(t), freePort(t)
	path := mailboxConfig(t, dir, vault, left, moved)
	s, err := startMailboxes(t, path)
	if err != nil {
		t.Fatal(err)
	}
	defer stopServer(t, s)
	mailboxConfig(t, dir, vault, moved, added)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), "listen = 127.0.0.1\n", "listen = *\n")
	writeFile(t, path, strings.ReplaceAll(changed, "log_path = "+dir+"/log\n", "log_path = "+dir+"/log2\n"))
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, port := range []int{moved, added} {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "+OK") {
			t.Errorf("port %d: %q, %v", port, line, err)
		}
		_ = conn.Close()
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", left)); err == nil {
		_ = conn.Close()
		t.Error("a port that is not configured any more takes connections")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.Tidy()
		if len(s.old) == 0 && len(s.logs.sinks) == 1 || time.Now().After(deadline) {
			break
		}
	}
	if len(s.old) != 0 || len(s.logs.sinks) != 1 {
		t.Errorf("%d old generations, log destinations %v", len(s.old), s.logs.sinks)
	}
	s.Log().Info("where does this go?")
	if text, err := os.ReadFile(filepath.Join(dir, "log2")); err != nil || !strings.Contains(string(text), "where does this go?") {
		t.Errorf("the new log has %q, %v", text, err)
	}
}
