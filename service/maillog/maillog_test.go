package maillog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 5, 12, 0, 1, 0, time.UTC)

func logTo(b *bytes.Buffer, format Format) *slog.Logger {
	return slog.New(New(Options{Format: format, Sink: Writer(b), Hostname: "mx", PID: 12, Now: func() time.Time { return noon }}))
}

func TestClassicLines(t *testing.T) {
	var b bytes.Buffer
	postfix := logTo(&b, Postfix).With("program", "postfix/smtpd")
	postfix.Info("connect from a[192.0.2.1]", "queue_id", "X")
	postfix.Warn("hostname a does not resolve to address 192.0.2.1")
	postfix.Info("bad\r\nNov  5 forged line\x7f")
	postfix.Debug("not written")
	dovecot := logTo(&b, Dovecot)
	dovecot.Info("Login: user=<alice>, method=PLAIN", "program", "imap-login", "user", "alice", "session", "s1")
	dovecot.Error("broken", "program", "imap", "user", "alice", "session", "s1")
	want := `Nov  5 12:00:01 mx postfix/smtpd[12]: connect from a[192.0.2.1]
Nov  5 12:00:01 mx postfix/smtpd[12]: warning: hostname a does not resolve to address 192.0.2.1
Nov  5 12:00:01 mx postfix/smtpd[12]: bad??Nov  5 forged line?
Nov  5 12:00:01 imap-login: Info: Login: user=<alice>, method=PLAIN
Nov  5 12:00:01 imap(alice)<12><s1>: Error: broken
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	logTo(&b, JSON).With("program", "postfix/smtpd", "queue_id", "4Xy").WithGroup("g").Warn("a \"quoted\"\nline\xff", "n", 3, "ok", true)
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", b.String(), err)
	}
	for key, want := range map[string]any{
		"program": "postfix/smtpd", "queue_id": "4Xy", "g.n": 3.0, "g.ok": true, "message": "a \"quoted\"\nline?", "level": "warn", "pid": 12.0, "host": "mx",
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	if strings.Count(b.String(), "\n") != 1 {
		t.Errorf("more than one line: %q", b.String())
	}
}

func TestEndlessLineIsCut(t *testing.T) {
	var b bytes.Buffer
	logTo(&b, Postfix).Info(strings.Repeat("x", 1<<20))
	if b.Len() > maxLine+1 {
		t.Errorf("line of %d octets", b.Len())
	}
}

func TestFileIsReopenedAfterRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.log")
	sink, err := File(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(New(Options{Sink: sink, Hostname: "mx"}))
	log.Info("before")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	file, ok := sink.(*fileSink)
	if !ok {
		t.Fatal("not a file sink")
	}
	file.mu.Lock()
	file.checked = time.Time{}
	file.mu.Unlock()
	log.Info("after")
	// A line that follows another closely is written a little later.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			break
		}
	}
	for name, want := range map[string]string{path + ".1": "before", path: "after"} {
		text, err := os.ReadFile(name)
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(text)), want) || strings.Count(string(text), "\n") != 1 {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	if err := sink.Write(slog.LevelInfo, "", []byte("x\n"), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if _, err := File(filepath.Join(path, "no", "such"), 0o600); err == nil {
		t.Error("a file in a missing directory opens")
	}
}

func TestBurstIsWrittenWholeAndInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.log")
	sink, err := File(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(New(Options{Sink: sink, Hostname: "mx", Now: func() time.Time { return time.Unix(0, 0).UTC() }, PID: 1}))
	var want strings.Builder
	line := func(text string) { fmt.Fprintf(&want, "Jan  1 00:00:00 mx postilion[1]: %s\n", text) }
	holds := func(when string) {
		t.Helper()
		if text, err := os.ReadFile(path); err != nil || string(text) != want.String() {
			t.Errorf("%s: %d octets, %v; want %d", when, len(text), err, want.Len())
		}
	}
	for i := range 5000 {
		log.Info(fmt.Sprint("line ", i))
		line(fmt.Sprint("line ", i))
	}
	log.Warn("trouble")
	line("warning: trouble")
	holds("after a warning")
	log.Info("last")
	line("last")
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	holds("after Close")
}

func TestSyslog(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "log")
	listen := func() *net.UnixConn {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	receive := func(conn *net.UnixConn) string {
		b := make([]byte, 1024)
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	daemon := listen()
	sink, err := Syslog(socket, "mail", "dovecot: ")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(New(Options{Format: Dovecot, Sink: sink}))
	log.Warn("full", "program", "lmtp")
	if got := receive(daemon); !strings.HasPrefix(got, "<20>") || !strings.HasSuffix(got, " dovecot: lmtp: Warning: full") {
		t.Errorf("datagram %q", got)
	}
	if err := errors.Join(daemon.Close(), os.Remove(socket)); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	daemon = listen()
	log.Info("again", "program", "lmtp")
	if got := receive(daemon); !strings.HasSuffix(got, "again") {
		t.Errorf("after a restart of the daemon: %q", got)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Syslog(socket, "nosuch", ""); err == nil {
		t.Error("an unknown facility is taken")
	}
}

func BenchmarkPostfixLine(b *testing.B) {
	sink, err := File(filepath.Join(b.TempDir(), "log"), 0o600)
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(New(Options{Sink: sink, Hostname: "mx"})).With("program", "postfix/smtpd")
	b.ReportAllocs()
	for b.Loop() {
		log.Info("connect from client.example.org[192.0.2.1]")
	}
}
