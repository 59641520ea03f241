package authclient_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postilion/account"
	"postilion/account/authclient"
)

// script is a server of the auth protocol that answers as a test says.
type script struct {
	t        *testing.T
	listener net.Listener
	// hello is sent to each connection; answer gets each line after the handshake and returns what to send, "" to say nothing, or close.
	hello  string
	answer func(line string) string

	mu    sync.Mutex
	seen  []string
	conns int
}

const closeIt = "\x00"

const hello = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tSCRAM-SHA-256\tmutual-auth\nMECH\tINTERNAL\tprivate\nSPID\t1\nCUID\t1\nCOOKIE\t00112233445566778899aabbccddeeff\nDONE\n"

func serve(t *testing.T, hello string, answer func(line string) string) *script {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "auth"))
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, listener: listener, hello: hello, answer: answer}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
			go s.talk(conn)
		}
	}()
	return s
}

func (s *script) talk(conn net.Conn) {
	defer conn.Close()
	_, _ = io.WriteString(conn, s.hello)
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		line := lines.Text()
		s.mu.Lock()
		s.seen = append(s.seen, line)
		s.mu.Unlock()
		if verb, _, _ := strings.Cut(line, "\t"); verb == "VERSION" || verb == "CPID" {
			continue
		}
		reply := s.answer(line)
		if reply == closeIt {
			return
		}
		// The id of the request goes where the script has a #.
		id := strings.Split(line, "\t")[1]
		_, _ = io.WriteString(conn, strings.ReplaceAll(reply, "#", id))
	}
}

func (s *script) client() *authclient.Client {
	c := authclient.New("unix", s.listener.Addr().String(), "smtp", nil)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *script) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

func TestReplies(t *testing.T) {
	for _, c := range []struct {
		name, reply, user, master, reason string
		kind                              error
	}{
		{name: "good", reply: "OK\t#\tuser=alice\n", user: "alice"},
		{name: "another name", reply: "OK\t#\tuser=alice@example.org\t\toriginal_user=boss\n", user: "alice@example.org", master: "boss"},
		{name: "escaped", reply: "OK\t#\tuser=al\x01tice\n", user: "al\tice"},
		{name: "without a user", reply: "OK\t#\n", kind: account.ErrUnavailable},
		{name: "wrong", reply: "FAIL\t#\tuser=alice\n", kind: account.ErrProof},
		{name: "wrong, and why", reply: "FAIL\t#\tuser=alice\treason=Too many tries\n", kind: account.ErrProof, reason: "Too many tries"},
		{name: "temporary", reply: "FAIL\t#\tuser=alice\ttemp\n", kind: account.ErrUnavailable},
		{name: "temporary by its code", reply: "FAIL\t#\tcode=temp_fail\n", kind: account.ErrUnavailable},
		{name: "disabled", reply: "FAIL\t#\tcode=user_disabled\treason=moved away\n", kind: account.ErrDenied, reason: "moved away"},
		{name: "expired", reply: "FAIL\t#\tcode=pass_expired\n", kind: account.ErrDenied},
		{name: "not that user", reply: "FAIL\t#\tauthz\n", kind: account.ErrDenied},
		{name: "endless reason", reply: "FAIL\t#\treason=" + strings.Repeat("x", 5000) + "\n", kind: account.ErrProof, reason: strings.Repeat("x", 200)},
		{name: "a reply to what was not asked", reply: "OK\t999\tuser=eve\n", kind: account.ErrUnavailable},
		{name: "nonsense", reply: "OK\n", kind: account.ErrUnavailable},
		{name: "unknown verbs are passed over", reply: "NOTICE\thello\nOK\t#\tuser=alice\n", user: "alice"},
		{name: "challenge to a whole response", reply: "CONT\t#\t\n", kind: account.ErrUnavailable},
		{name: "hang-up", reply: closeIt, kind: account.ErrUnavailable},
		{name: "endless line", reply: strings.Repeat("x", 100<<10) + "\n", kind: account.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, hello, func(string) string { return c.reply })
			user, err := s.client().Password(t.Context(), account.Client{}, "alice", "pw")
			if c.kind != nil {
				var told interface{ Reason() string }
				reason := ""
				if errors.As(err, &told) {
					reason = told.Reason()
				}
				if !errors.Is(err, c.kind) || user != nil || reason != c.reason {
					t.Errorf("%v (%q)", err, reason)
				}
				return
			}
			if err != nil || user.Name != c.user || user.Master != c.master || user.UID != -1 {
				t.Errorf("%+v, %v", user, err)
			}
		})
	}
}

func TestHandshake(t *testing.T) {
	for name, text := range map[string]string{
		"wrong version": strings.Replace(hello, "VERSION\t1", "VERSION\t2", 1),
		"incomplete":    "VERSION\t1\t2\nDONE\n",
		"nonsense":      "220 mail.example.org ESMTP\n",
		"endless":       strings.Repeat("y", 100<<10),
	} {
		s := serve(t, text, nil)
		if _, err := s.client().Start(t.Context(), account.Client{}, "PLAIN"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	away := authclient.New("unix", filepath.Join(t.TempDir(), "nobody"), "smtp", nil)
	if _, err := away.Password(t.Context(), account.Client{}, "alice", "pw"); !errors.Is(err, account.ErrUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
	if m := away.Mechanisms(account.Client{}); len(m) != 0 {
		t.Errorf("mechanisms of nobody: %v", m)
	}
}

func TestMechanisms(t *testing.T) {
	c := serve(t, hello, nil).client()
	got := c.Mechanisms(account.Client{})
	if len(got) != 2 || got[0] != (account.Mechanism{Name: "PLAIN", Plaintext: true}) || got[1] != (account.Mechanism{Name: "SCRAM-SHA-256"}) {
		t.Errorf("%v", got)
	}
	if _, err := c.Start(t.Context(), account.Client{}, "GSSAPI"); !errors.Is(err, account.ErrMechanism) {
		t.Error(err)
	}
	if _, err := c.APOP(t.Context(), account.Client{}, "alice", "<1@x>", strings.Repeat("0", 32)); !errors.Is(err, account.ErrMechanism) {
		t.Errorf("APOP: %v", err)
	}
	if _, err := c.Password(t.Context(), account.Client{}, "al\x00ice", "pw"); !errors.Is(err, account.ErrProof) {
		t.Errorf("NUL in a name: %v", err)
	}
}

// TestExchange: several steps go over one connection, additional data comes with success, and what is known of the client is told.
func TestExchange(t *testing.T) {
	step := 0
	s := serve(t, hello, func(line string) string {
		step++
		switch step {
		case 1:
			for _, want := range []string{"AUTH\t", "\tSCRAM-SHA-256\t", "\tservice=smtp", "\tnologin", "\tsecured", "\tsession=S1", "\tresp=b25l"} {
				if !strings.Contains(line, want) {
					t.Errorf("no %q in %q", want, line)
				}
			}
			return "CONT\t#\tdHdv\n"
		case 2:
			if !strings.HasPrefix(line, "CONT\t") || !strings.HasSuffix(line, "\tdGhyZWU=") {
				t.Errorf("%q", line)
			}
			return "OK\t#\tuser=alice\tresp=Zm91cg==\n"
		}
		return "FAIL\t#\n"
	})
	c := s.client()
	steps, err := c.Start(t.Context(), account.Client{Secured: true, Session: "S1"}, "scram-sha-256")
	if err != nil {
		t.Fatal(err)
	}
	challenge, user, err := steps.Next(t.Context(), []byte("one"))
	if err != nil || user != nil || string(challenge) != "two" {
		t.Fatalf("%q, %v, %v", challenge, user, err)
	}
	challenge, user, err = steps.Next(t.Context(), []byte("three"))
	if err != nil || user == nil || user.Name != "alice" || string(challenge) != "four" {
		t.Errorf("%q, %v, %v", challenge, user, err)
	}
	if n := s.connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestKeptConnectionThatWentAway: the server was started again meanwhile; the next login notices nothing.
func TestKeptConnectionThatWentAway(t *testing.T) {
	first := true
	s := serve(t, hello, func(string) string {
		if first {
			first = false
			return "OK\t#\tuser=alice\n"
		}
		return "OK\t#\tuser=bob\n"
	})
	c := s.client()
	if _, err := c.Password(t.Context(), account.Client{}, "alice", "pw"); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	s.answer = func(string) string {
		if calls.Add(1) == 1 {
			return closeIt
		}
		return "OK\t#\tuser=bob\n"
	}
	user, err := c.Password(t.Context(), account.Client{}, "bob", "pw")
	if err != nil || user.Name != "bob" {
		t.Errorf("%+v, %v", user, err)
	}
	if n := s.connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// TestImpatience: a caller that gives up is not kept by a server that says nothing.
func TestImpatience(t *testing.T) {
	c := serve(t, hello, func(string) string { return "" }).client()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := c.Password(ctx, account.Client{}, "alice", "pw"); !errors.Is(err, account.ErrUnavailable) {
		t.Error(err)
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}
