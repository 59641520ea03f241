package service

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestMemoryBudget: near the budget a new client is turned away in its protocol's words, a session goes on, and afterwards all is well again.
func TestMemoryBudget(t *testing.T) {
	dir := t.TempDir()
	port := freePort(t)
	path := mailboxConfig(t, dir, filepath.Join(dir, "vault"), port)
	s, err := startMailboxes(t, path)
	if err != nil {
		t.Fatal(err)
	}
	defer stopServer(t, s)
	defer s.memory.set(0)
	var inUse atomic.Int64
	s.memory.mu.Lock()
	s.memory.inUse = inUse.Load
	s.memory.mu.Unlock()
	s.memory.set(8 << 30)
	greet := func(want string) net.Conn {
		t.Helper()
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Errorf("greeting %q, %v, want %q", line, err, want)
		}
		return conn
	}
	use := func(octets int64) {
		inUse.Store(octets)
		s.memory.mu.Lock()
		s.memory.asked = time.Time{}
		s.memory.mu.Unlock()
	}
	held := greet("+OK")
	defer held.Close()
	use(8 << 30)
	greet("-ERR [SYS/TEMP]").Close()
	if _, err := fmt.Fprint(held, "CAPA\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(held).ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK") {
		t.Errorf("the session in flight: %q, %v", line, err)
	}
	if room := (&transport{builder: &builder{memoryShort: s.memory.short}}).room(1); room {
		t.Error("there is room for a message")
	}
	use(1 << 30)
	greet("+OK").Close()
	if used := memoryInUse(); used < 1<<20 || used > 8<<30 {
		t.Errorf("%d octets are in use", used)
	}
}

// TestMemoryLimitIsTheSmallerOne: each half may name a budget; a configuration that names none has none, and one that cannot be read does not start.
func TestMemoryLimitIsTheSmallerOne(t *testing.T) {
	for _, c := range []struct {
		transport, mailboxes string
		want                 int64
		wrong                string
	}{
		{"", "", 0, ""},
		{"1G", "", 1 << 30, ""},
		{"", "2 G", 2 << 30, ""},
		{"3G", "2 G", 2 << 30, ""},
		{"1G", "2 G", 1 << 30, ""},
		{"much", "", 0, "postilion_memory_limit"},
	} {
		dir := t.TempDir()
		path := mailboxConfig(t, dir, filepath.Join(dir, "vault"))
		line := func(file, name, value string) {
			if value != "" {
				text, err := os.ReadFile(file)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				writeFile(t, file, name+" = "+value+"\n"+string(text))
			}
		}
		line(path, "postilion_memory_limit", c.mailboxes)
		writeFile(t, filepath.Join(dir, "main.cf"), "compatibility_level = 3.7\n")
		writeFile(t, filepath.Join(dir, "master.cf"), "")
		line(filepath.Join(dir, "main.cf"), "postilion_memory_limit", c.transport)
		b := &builder{options: Options{PostfixDir: dir, DovecotFile: path, Getenv: func(string) string { return "" }}}
		if err := b.read(); err != nil {
			t.Fatal(err)
		}
		limit, err := b.memoryLimit()
		if limit != c.want && c.wrong == "" || (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("main.cf %q, dovecot.conf %q: %d, %v; want %d", c.transport, c.mailboxes, limit, err, c.want)
		}
	}
}
