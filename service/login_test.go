package service

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postilion/config/dovecot"
)

// TestProxiedLogin: an inet_listener with haproxy = yes hears who the client is from a proxy that haproxy_trusted_networks names.
func TestProxiedLogin(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	path := mailboxConfig(t, dir, filepath.Join(dir, "vault"), port)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, strings.Replace(string(text), "inet_listener pop30 {", "inet_listener pop30 {\n    haproxy = yes", 1)+
		"haproxy_trusted_networks = 127.0.0.0/8\nhaproxy_timeout = 20 s\ndisable_plaintext_auth = no\n")
	s, err := startMailboxes(t, path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 110\r\nUSER alice@example.test\r\nPASS secret\r\nQUIT\r\n")
	lines := bufio.NewScanner(conn)
	var answers []string
	for lines.Scan() {
		answers = append(answers, lines.Text())
	}
	if len(answers) != 4 || answers[2] != "+OK Logged in." {
		t.Errorf("%q", answers)
	}
	stopServer(t, s)
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "rip=192.0.2.7, lip=192.0.2.1"; !strings.Contains(string(log), want) {
		t.Errorf("no %s in the log:\n%s", want, log)
	}
}

func TestStrangerLimits(t *testing.T) {
	for _, c := range []struct {
		text         string
		all, address int
	}{
		{"", 1000, 250},
		{"service imap-login {\n client_limit = 40\n}\n", 40, 10},
		{"service imap-login {\n service_count = 0\n process_limit = 2\n client_limit = 40\n}\n", 80, 20},
		{"default_client_limit = 100\ndefault_process_limit = 3\nservice imap-login {\n service_count = 0\n}\n", 300, 75},
	} {
		path := filepath.Join(t.TempDir(), "dovecot.conf")
		writeFile(t, path, c.text)
		config, err := dovecot.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if all, address := strangerLimits(config.For(dovecot.Filter{}), "imap-login"); all != c.all || address != c.address {
			t.Errorf("%q: %d and %d instead of %d and %d", c.text, all, address, c.all, c.address)
		}
	}
}
