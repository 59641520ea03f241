package imapd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/account"
	"postilion/store"
)

const smallMail = "From: a@example.com\nSubject: hi\n\nbody\n"

// selectedPeer logs in and selects INBOX.
func selectedPeer(t testing.TB, addr string) *peer {
	p := dial(t, addr)
	p.line()
	p.do("LOGIN alice pw")
	p.do("SELECT INBOX")
	return p
}

func wantPrefix(t *testing.T, got, prefix string) {
	t.Helper()
	if !strings.HasPrefix(got, prefix) {
		t.Errorf("got %q, want %q", got, prefix)
	}
}

func TestAbuseBeforeLogin(t *testing.T) {
	_, addr := newRig(t).listen(t)
	for name, input := range map[string]string{
		"endless line":    "a LOGIN " + strings.Repeat("x", 9000),
		"endless tag":     strings.Repeat("x", 9000),
		"large literal":   "a LOGIN {9000}\r\n",
		"huge literal":    "a LOGIN {99999999999999999999}\r\n",
		"endless literal": "a LOGIN {" + strings.Repeat("9", 200),
		"bad commands":    "a X\r\nb X\r\nc X\r\n",
		"http":            "GET / HTTP/1.1\r\nHost: x\r\nAccept: y\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, addr)
			p.line()
			p.write(input)
			wantPrefix(t, lastLine(p.until("* BYE")), "* BYE")
		})
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	return lines[len(lines)-1]
}

func TestAbuseAfterLogin(t *testing.T) {
	r := newRig(t)
	deliver(t, r.store, "alice", store.Inbox, smallMail, 0)
	_, addr := r.listen(t)
	for name, input := range map[string]string{
		"100k atoms":    "SEARCH " + strings.Repeat("ALL ", 100_000) + "ALL",
		"deep lists":    "SEARCH " + strings.Repeat("(", 30_000) + "ALL" + strings.Repeat(")", 30_000),
		"deep NOT":      "SEARCH " + strings.Repeat("NOT ", 10_000) + "ALL",
		"deep OR":       "SEARCH " + strings.Repeat("OR ALL ", 5_000) + "ALL",
		"deep FUZZY":    "SEARCH " + strings.Repeat("FUZZY ", 5_000) + "ALL",
		"long sequence": "FETCH " + strings.Repeat("1,", 40_000) + "1 UID",
		"long line":     "NOOP " + strings.Repeat("x", 200_000),
	} {
		t.Run(name, func(t *testing.T) {
			p := selectedPeer(t, addr)
			wantPrefix(t, p.do(input), "t BAD")
			wantPrefix(t, p.do("NOOP"), "t OK")
		})
	}
	p := selectedPeer(t, addr)
	wantPrefix(t, p.do("SEARCH "+strings.Repeat("ALL ", 10_000)+"ALL"), "* SEARCH 1\r\nt OK")
	wantPrefix(t, p.do("SEARCH 1:4294967295"), "* SEARCH 1")
	wantPrefix(t, p.do("UID FETCH 1:4294967295 UID"), "* 1 FETCH (UID 1)")
	wantPrefix(t, p.do("UID STORE 1:4294967295 +FLAGS.SILENT (\\Seen)"), "t OK")
	for range maxBad {
		wantPrefix(t, p.do("X"), "t BAD")
	}
	wantPrefix(t, p.do("X"), "* BYE Too many invalid IMAP commands.")
}

func TestAppendCutOff(t *testing.T) {
	r := newRig(t)
	_, addr := r.listen(t)
	p := selectedPeer(t, addr)
	p.write("a APPEND INBOX {1000}\r\n")
	wantPrefix(t, p.line(), "+ OK")
	p.write("only this")
	_ = p.conn.Close()
	wantPrefix(t, selectedPeer(t, addr).do("STATUS INBOX (MESSAGES)"), "* STATUS INBOX (MESSAGES 0)")
}

func TestAppendLargeAndRefused(t *testing.T) {
	r := newRig(t)
	r.opt.AppendLimit = 2 << 20
	_, addr := r.listen(t)
	p := selectedPeer(t, addr)
	body := "Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("y", 76)+"\r\n", 20_000)
	p.write("a APPEND INBOX {" + itoa(len(body)) + "+}\r\n" + body + "\r\n")
	wantPrefix(t, lastLine(p.until("a ")), "a OK [APPENDUID 1 1]")
	wantPrefix(t, p.do("FETCH 1 RFC822.SIZE"), "* 1 FETCH (RFC822.SIZE "+itoa(len(body))+")")
	if got := p.do("FETCH 1 BODY.PEEK[]"); !strings.Contains(got, body) {
		t.Error("the message came back changed")
	}
	refused := strings.Repeat("z", 3<<20)
	p.write("b APPEND INBOX {" + itoa(len(refused)) + "+}\r\n" + refused + "\r\n")
	wantPrefix(t, p.until("b "), "b NO [TOOBIG]")
	p.write("c APPEND Nowhere {6+}\r\nA: b\r\n\r\n")
	wantPrefix(t, p.until("c "), "c NO [TRYCREATE]")
	p.write("d APPEND INBOX {8+}\r\nA: b\r\n\r\n (\\Seen) {8+}\r\nC: d\r\n\r\n\r\n")
	wantPrefix(t, lastLine(p.until("d ")), "d OK [APPENDUID 1 2:3]")
	p.write("e APPEND INBOX {8}\r\n")
	wantPrefix(t, p.line(), "+ OK")
	p.write("A: b\n\nc\x00\r\n")
	p.until("e ")
	if got := p.do("FETCH 4 BODY.PEEK[]"); !strings.Contains(got, "A: b\r\n\r\nc\x80)") {
		t.Errorf("bare LF or NUL shown as it is: %q", got)
	}
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

func itoa(n int) string { return string(appendUIDs(nil, []store.UID{store.UID(n)})) }

func TestSearchReadsNoBodyItDoesNotNeed(t *testing.T) {
	r := newRig(t)
	for range 20 {
		deliver(t, r.store, "alice", store.Inbox, smallMail, 0)
	}
	_, addr := r.listen(t)
	p := selectedPeer(t, addr)
	box := r.store.accounts["alice"].boxes[store.Inbox]
	for _, query := range []string{
		"FROM a@ SUBJECT hi SENTSINCE 1-Jan-1990", "UNSEEN LARGER 1 SINCE 1-Jan-2000", "OR SUBJECT hi BODY body", "BODY body SUBJECT nothing",
		"TO x BODY body", "BODY body SEEN",
	} {
		p.do("SEARCH " + query)
		if box.opens != 0 {
			t.Errorf("SEARCH %s opened %d messages", query, box.opens)
			box.opens = 0
		}
	}
	p.do("SEARCH BODY body")
	if box.opens != 20 {
		t.Errorf("SEARCH BODY opened %d messages of 20", box.opens)
	}
	p.do("FETCH 1:* (ENVELOPE BODYSTRUCTURE FLAGS RFC822.SIZE INTERNALDATE)")
	if box.opens != 20 {
		t.Errorf("FETCH of stored items opened %d messages", box.opens-20)
	}
}

func testTLS(t testing.TB) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"mx.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestSTARTTLS(t *testing.T) {
	r := newRig(t)
	config := testTLS(t)
	r.opt.TLS = func() *tls.Config { return config }
	_, addr := r.listen(t)
	p := dial(t, addr)
	if got := p.line(); !strings.Contains(got, " STARTTLS AUTH=") {
		t.Errorf("greeting %q", got)
	}
	p.write("a STARTTLS\r\nb LOGIN alice pw\r\n")
	wantPrefix(t, p.line(), "a OK Begin TLS negotiation now.")
	conn := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	p.conn, p.r = conn, nil
	p.r = newReader(conn)
	if got := p.do("CAPABILITY"); strings.Contains(got, "STARTTLS") || !strings.HasPrefix(got, "* CAPABILITY") {
		t.Errorf("after STARTTLS: %q", got)
	}
	wantPrefix(t, p.do("STARTTLS"), "t BAD TLS is already active.")
	if got := p.do("LOGIN alice pw"); !strings.Contains(got, "t OK") {
		t.Errorf("login: %q", got)
	}
	// IDLE is woken by a change of the deadline, which must not break the encrypted stream.
	p.do("SELECT INBOX")
	p.write("i IDLE\r\n")
	p.line()
	for n := range 3 {
		deliver(t, r.store, "alice", store.Inbox, smallMail, 0)
		wantPrefix(t, lastLine(p.until("* "+itoa(n+1)+" EXISTS")), "* "+itoa(n+1)+" EXISTS")
	}
	p.write("DONE\r\n")
	if got := lastLine(p.until("i ")); got != "i OK Idle completed.\r" && got != "i OK Idle completed." {
		t.Errorf("IDLE over TLS ended with %q", got)
	}
}

func TestLoginDisabled(t *testing.T) {
	r := newRig(t)
	r.opt.Auth = testAuth{noPlaintext: true}
	r.opt.DisablePlaintextAuth = true
	srv := New(r.opt)
	client, server := net.Pipe()
	stranger := remoteConn{server}
	done := make(chan struct{})
	go func() { defer close(done); srv.ServeConn(context.Background(), stranger, false) }()
	p := &peer{t, client, newReader(client)}
	if got := p.line(); !strings.Contains(got, "LOGINDISABLED]") {
		t.Errorf("greeting %q", got)
	}
	wantPrefix(t, p.do("LOGIN alice pw"), "* BAD [ALERT] Plaintext authentication not allowed")
	_ = client.Close()
	<-done
}

// remoteConn is a connection that comes from another host.
type remoteConn struct{ net.Conn }

func (remoteConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1} }
func (remoteConn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 143} }

func TestTimeouts(t *testing.T) {
	r := newRig(t)
	r.opt.LoginTimeout = 50 * time.Millisecond
	r.opt.IdleTimeout = 200 * time.Millisecond
	r.opt.IdleNotify = 50 * time.Millisecond
	_, addr := r.listen(t)
	p := dial(t, addr)
	p.line()
	wantPrefix(t, p.line(), "* BYE Disconnected for inactivity.")
	p = selectedPeer(t, addr)
	p.write("i IDLE\r\n")
	wantPrefix(t, p.line(), "+ idling")
	wantPrefix(t, p.line(), "* OK Still here")
	wantPrefix(t, lastLine(p.until("* BYE")), "* BYE Disconnected for inactivity.")
}

func TestShutdown(t *testing.T) {
	r := newRig(t)
	srv := New(r.opt)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, listener) }()
	stranger := dial(t, listener.Addr().String())
	stranger.line()
	user := selectedPeer(t, listener.Addr().String())
	idler := selectedPeer(t, listener.Addr().String())
	idler.write("i IDLE\r\n")
	idler.line()
	cancel()
	for _, p := range []*peer{stranger, user, idler} {
		wantPrefix(t, p.line(), "* BYE Server shutting down.")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := srv.Sessions(); n != 0 {
		t.Errorf("left behind: %d sessions", n)
	}
}

type brokenMail struct{ Mail }

func (brokenMail) Open(context.Context, *account.User) ([]Namespace, error) { panic("broken") }

// lockedWriter is a log that goroutines may share.
type lockedWriter struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *lockedWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func TestPanicEndsOneSession(t *testing.T) {
	r := newRig(t)
	log := &lockedWriter{}
	r.opt.Log = slog.New(slog.NewTextHandler(log, nil))
	r.opt.Mail = brokenMail{}
	_, addr := r.listen(t)
	p := dial(t, addr)
	p.line()
	p.write("a LOGIN alice pw\r\n")
	wantPrefix(t, p.line(), "* BYE Internal error")
	q := dial(t, addr)
	wantPrefix(t, q.line(), "* OK")
	if !strings.Contains(log.String(), "panic: broken") {
		t.Errorf("log: %s", log)
	}
}

func TestLogLines(t *testing.T) {
	r := newRig(t)
	log := &lockedWriter{}
	r.opt.Log = slog.New(slog.NewTextHandler(log, nil))
	_, addr := r.listen(t)
	p := selectedPeer(t, addr)
	p.do("LOGOUT")
	p.line()
	p = dial(t, addr)
	p.line()
	p.do("LOGIN alice bad")
	_ = p.conn.Close()
	for end := time.Now().Add(5 * time.Second); !strings.Contains(log.String(), "auth failed") && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	for _, want := range []string{
		`msg="Login: user=<alice>, method=PLAIN, rip=127.0.0.1, lip=127.0.0.1, mpid=`, ", secured, session=<", "program=imap-login", "program=imap user=alice session=",
		`msg="Disconnected: Logged out in=`, "deleted=0 expunged=0 trashed=0 hdr_count=0 hdr_bytes=0 body_count=0 body_bytes=0",
		`msg="Disconnected: Connection closed (auth failed, 1 attempts in 0 secs): user=<>, method=PLAIN, rip=127.0.0.1, lip=127.0.0.1, secured, session=<`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log:\n%s", want, log)
		}
	}
}

func TestIdleSessionsAreSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 1,000 connections")
	}
	r := newRig(t)
	for range 50 {
		deliver(t, r.store, "alice", store.Inbox, smallMail, 0)
	}
	_, addr := r.listen(t)
	const sessions = 1000
	before := settledMemory()
	goroutines := runtime.NumGoroutine()
	buf := make([]byte, 64<<10)
	for range sessions {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Skipf("cannot open %d connections here: %v", sessions, err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "a LOGIN alice pw\r\nb SELECT INBOX\r\nc FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[])\r\nd IDLE\r\n")
		for seen := ""; !strings.Contains(seen, "+ idling"); {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			seen = seen[max(len(seen)-20, 0):] + string(buf[:n])
		}
	}
	each := (settledMemory() - before) / sessions
	t.Logf("%d bytes of heap and stack for each idle session", each)
	if n := runtime.NumGoroutine() - goroutines; n != sessions {
		t.Errorf("%d goroutines for %d sessions", n, sessions)
	}
	if each > 30<<10 {
		t.Errorf("an idle session holds %d bytes", each)
	}
}

func settledMemory() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func TestPythonImaplib(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	r := newRig(t)
	_, addr := r.listen(t)
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(python, filepath.Join("testdata", "imaplib_session.py"), host, port)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all well") {
		t.Errorf("%v\n%s", err, out)
	}
}

// slowAuth takes until its context ends.
type slowAuth struct{ testAuth }

func (slowAuth) Password(ctx context.Context, _ account.Client, _, _ string) (*account.User, error) {
	<-ctx.Done()
	return nil, account.ErrUnavailable
}

func TestShutdownEndsWaitingForAProof(t *testing.T) {
	r := newRig(t)
	r.opt.Auth = slowAuth{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := New(r.opt)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, listener) }()
	p := dial(t, listener.Addr().String())
	p.line()
	p.write("a LOGIN alice pw\r\n")
	time.Sleep(20 * time.Millisecond)
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not end")
	}
}
