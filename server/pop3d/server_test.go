package pop3d

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/account"
	"postilion/store"
)

const smallMail = "From: a@example.com\r\nSubject: hi\r\n\r\nbody\r\n"

func TestAbuseBeforeLogin(t *testing.T) {
	_, addr := newRig(t).listen(t)
	for name, c := range map[string]struct{ input, want string }{
		"endless line":          {strings.Repeat("x", 9000), "-ERR Input buffer full, aborting"},
		"endless password":      {"USER a\r\nPASS " + strings.Repeat("x", 9000) + "\r\n", "-ERR Input buffer full, aborting"},
		"bad commands":          {strings.Repeat("X\r\n", 1000), "-ERR Too many invalid bad commands."},
		"http":                  {"GET / HTTP/1.1\r\nHost: x\r\nAccept: y\r\n", "-ERR Too many invalid bad commands."},
		"empty lines":           {strings.Repeat("\n", 1000), "-ERR Too many invalid bad commands."},
		"endless SASL response": {"AUTH PLAIN\r\n" + strings.Repeat("A", 20000), "-ERR [AUTH] Authentication response too large"},
		"NULs":                  {strings.Repeat("\x00", 9000), "-ERR Input buffer full, aborting"},
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, addr)
			go func() { _, _ = io.WriteString(p.conn, c.input) }()
			last := ""
			for line := p.line(); line != ""; line = p.line() {
				last = line
			}
			wantPrefix(t, last, c.want)
		})
	}
}

func TestAbuseAfterLogin(t *testing.T) {
	r := newRig(t)
	r.deliver(t, "alice", smallMail)
	_, addr := r.listen(t)
	p := logIn(t, addr, "alice")
	for range maxBad {
		wantPrefix(t, p.do("X"), "-ERR Unknown command: X")
	}
	wantPrefix(t, p.do("NOOP"), "+OK")
	for range maxBad + 1 {
		wantPrefix(t, p.do("RETR 77"), "-ERR There's no message 77.")
	}
	wantPrefix(t, p.line(), "-ERR Too many bad commands.")
	p = logIn(t, addr, "alice")
	p.write("STAT " + strings.Repeat("x", 9000) + "\r\n")
	wantPrefix(t, p.line(), "-ERR Input line too long.")
	if p.line() != "" {
		t.Error("goes on")
	}
}

// TestClientThatNeverReads: the session ends, and does not hold what it could not send.
func TestClientThatNeverReads(t *testing.T) {
	r := newRig(t)
	r.opt.WriteTimeout = 100 * time.Millisecond
	r.deliver(t, "alice", "Subject: large\r\n\r\n"+strings.Repeat(strings.Repeat("y", 76)+"\r\n", 50_000))
	srv, addr := r.listen(t)
	p := logIn(t, addr, "alice")
	go func() { _, _ = io.WriteString(p.conn, strings.Repeat("RETR 1\r\n", 100)) }()
	for end := time.Now().Add(20 * time.Second); srv.Sessions() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the session stays")
		}
	}
}

func TestPipelinedRetrieval(t *testing.T) {
	r := newRig(t)
	const messages = 300
	var texts []string
	for n := range messages {
		texts = append(texts, fmt.Sprintf("Subject: %d\r\n\r\n.%s\r\n", n, strings.Repeat("z", n*10)))
	}
	r.deliver(t, "alice", texts...)
	_, addr := r.listen(t)
	p := logIn(t, addr, "alice")
	var commands strings.Builder
	for n := range messages {
		fmt.Fprintf(&commands, "RETR %d\r\nDELE %d\r\n", n+1, n+1)
	}
	commands.WriteString("QUIT\r\n")
	go p.write(commands.String())
	for n := range messages {
		body := strings.Replace(texts[n], "\r\n.", "\r\n..", 1)
		want := fmt.Sprintf("+OK %d octets\r\n%s.\r\n", len(texts[n]), body)
		if got := p.response("RETR 1"); got != want {
			t.Fatalf("message %d: %.200q", n+1, got)
		}
		wantPrefix(t, p.line(), "+OK Marked")
	}
	wantPrefix(t, p.line(), "+OK Logging out, messages deleted.")
	if v, _ := r.inbox(t, "alice").View(context.Background()); v.Len() != 0 {
		t.Errorf("%d messages left", v.Len())
	}
}

// TestFlagsAndDeletions: \Seen is written however a session ends, deletions after QUIT alone.
func TestFlagsAndDeletions(t *testing.T) {
	r := newRig(t)
	r.deliver(t, "alice", smallMail, smallMail)
	srv, addr := r.listen(t)
	p := logIn(t, addr, "alice")
	p.do("RETR 1")
	p.do("DELE 1")
	p.do("TOP 2 10")
	_ = p.conn.Close()
	waitForNoSessions(t, srv)
	v, err := r.inbox(t, "alice").View(context.Background())
	if err != nil || v.Len() != 2 || v.Entry(0).Flags != store.FlagSeen || v.Entry(1).Flags != 0 {
		t.Errorf("%d messages, error %v", v.Len(), err)
	}
	if v.FirstRecent() != v.UIDNext() {
		t.Error("messages are recent that a POP3 session saw")
	}
}

func TestNoFlagUpdates(t *testing.T) {
	r := newRig(t)
	r.opt.NoFlagUpdates = true
	r.deliver(t, "alice", smallMail)
	_, addr := r.listen(t)
	p := logIn(t, addr, "alice")
	p.do("RETR 1")
	p.do("QUIT")
	v, _ := r.inbox(t, "alice").View(context.Background())
	if v.Entry(0).Flags != 0 || v.FirstRecent() != 1 {
		t.Errorf("flags %v, first recent UID %d", v.Entry(0).Flags, v.FirstRecent())
	}
}

func waitForNoSessions(t *testing.T, srv *Server) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); srv.Sessions() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("sessions stay")
		}
	}
}

// TestMailboxChangesMeanwhile: others expunge and deliver while sessions hold their list.
func TestMailboxChangesMeanwhile(t *testing.T) {
	r := newRig(t)
	const messages = 200
	for range messages {
		r.deliver(t, "alice", smallMail)
	}
	srv, addr := r.listen(t)
	box := r.inbox(t, "alice")
	var others sync.WaitGroup
	peers := []*peer{logIn(t, addr, "alice"), logIn(t, addr, "alice")}
	others.Go(func() {
		for uid := store.UID(1); uid <= messages; uid += 2 {
			if _, err := box.Expunge(context.Background(), store.UIDSetOf(uid), false); err != nil {
				t.Error(err)
			}
		}
	})
	for _, p := range peers {
		others.Go(func() {
			for n := 1; n <= messages; n++ {
				got := p.do(fmt.Sprintf("RETR %d", n))
				if want := fmt.Sprintf("+OK %d octets\r\n%s.\r\n", len(smallMail), smallMail); got != want && (n%2 == 0 || got != fmt.Sprintf("-ERR Message %d expunged.\r\n", n)) {
					t.Errorf("message %d: %q", n, got)
				}
				wantPrefix(t, p.do("NOOP"), "+OK")
			}
			wantPrefix(t, p.do("STAT"), fmt.Sprintf("+OK %d %d", messages, messages*len(smallMail)))
			wantPrefix(t, p.do("DELE 4"), "+OK")
			wantPrefix(t, p.do("QUIT"), "+OK Logging out, messages deleted.")
		})
	}
	others.Wait()
	waitForNoSessions(t, srv)
	if v, _ := box.View(context.Background()); v.Len() != messages/2-1 {
		t.Errorf("%d messages left", v.Len())
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

// TestSTLS: what a third party put behind STLS, or before it, has no effect inside.
func TestSTLS(t *testing.T) {
	r := newRig(t)
	config := testTLS(t)
	r.opt.TLS = func() *tls.Config { return config }
	_, addr := r.listen(t)
	p := dial(t, addr)
	if got := p.do("CAPA"); !strings.Contains(got, "\r\nSTLS\r\n") {
		t.Errorf("CAPA %q", got)
	}
	wantPrefix(t, p.do("USER eve"), "+OK")
	p.write("STLS\r\nUSER eve\r\nPASS pw\r\n")
	wantPrefix(t, p.line(), "+OK Begin TLS negotiation now.")
	conn := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	p = &peer{t, conn, bufio.NewReader(conn)}
	wantPrefix(t, p.do("PASS pw"), "-ERR No username given.")
	if got := p.do("CAPA"); strings.Contains(got, "STLS") || !strings.HasPrefix(got, "+OK") {
		t.Errorf("CAPA after STLS: %q", got)
	}
	wantPrefix(t, p.do("STLS"), "-ERR TLS is already active.")
	wantPrefix(t, p.do("USER alice"), "+OK")
	wantPrefix(t, p.do("PASS pw"), "+OK Logged in.")
}

func TestImplicitTLS(t *testing.T) {
	r := newRig(t)
	config := testTLS(t)
	r.opt.TLS = func() *tls.Config { return config }
	srv := New(r.opt)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(ctx, listener) }()
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t, conn, bufio.NewReader(conn)}
	wantPrefix(t, p.line(), "+OK Dovecot ready.")
	wantPrefix(t, p.do("AUTH PLAIN AGFsaWNlAHB3"), "+OK Logged in.")
	cancel()
	wantPrefix(t, p.line(), "-ERR [SYS/TEMP] Server shutting down.")
	_ = conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// remoteConn is a connection that comes from another host.
type remoteConn struct{ net.Conn }

func (remoteConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1} }
func (remoteConn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 110} }

func TestPlaintextRefused(t *testing.T) {
	r := newRig(t)
	r.opt.Auth = testAuth{noPlaintext: true}
	r.opt.DisablePlaintextAuth = true
	for _, required := range []bool{false, true} {
		r.opt.SSLRequired = required
		srv := New(r.opt)
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); srv.ServeConn(context.Background(), remoteConn{server}, false) }()
		p := &peer{t, client, bufio.NewReader(client)}
		wantPrefix(t, p.line(), "+OK")
		if got := p.do("CAPA"); strings.Contains(got, "USER") || !strings.Contains(got, "\r\nSASL\r\n") {
			t.Errorf("CAPA %q", got)
		}
		const refused = "-ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections."
		wantPrefix(t, p.do("USER alice"), refused)
		wantPrefix(t, p.do("PASS pw"), refused)
		if required {
			wantPrefix(t, p.do("AUTH PLAIN"), "-ERR [AUTH] Authentication not allowed until SSL/TLS is enabled.")
		} else {
			wantPrefix(t, p.do("AUTH PLAIN"), "-ERR [AUTH] Plaintext authentication disabled.")
		}
		_ = client.Close()
		<-done
	}
}

func TestAPOP(t *testing.T) {
	r := newRig(t)
	r.opt.APOP, r.opt.Hostname = true, "mx.example.com"
	r.deliver(t, "alice", smallMail)
	_, addr := r.listen(t)
	seen := map[string]bool{}
	for range 2 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		p := &peer{t, conn, bufio.NewReader(conn)}
		banner := timestamp.FindString(p.line())
		if !strings.HasSuffix(banner, "@mx.example.com>") || seen[banner] {
			t.Errorf("timestamp %q", banner)
		}
		seen[banner] = true
		sum := md5.Sum([]byte(banner + "pw"))
		wantPrefix(t, p.do("APOP alice "+strings.ToUpper(hex.EncodeToString(sum[:]))), "+OK Logged in.")
		wantPrefix(t, p.do("STAT"), "+OK 1 ")
	}
	r.opt.APOP = false
	_, addr = r.listen(t)
	wantPrefix(t, dial(t, addr).do("APOP alice 00112233445566778899aabbccddeeff"), "-ERR APOP not enabled.")
}

func TestTimeouts(t *testing.T) {
	r := newRig(t)
	r.opt.LoginTimeout, r.opt.IdleTimeout = 300*time.Millisecond, 100*time.Millisecond
	_, addr := r.listen(t)
	p, q := logIn(t, addr, "alice"), dial(t, addr)
	wantPrefix(t, p.line(), "-ERR Disconnected for inactivity.")
	wantPrefix(t, q.line(), "-ERR Disconnected for inactivity.")
}

// TestLockSession: the next session waits for the one that holds the lock, also while the server stops.
func TestLockSession(t *testing.T) {
	r := newRig(t)
	r.opt.LockSession = true
	srv, addr := r.listen(t)
	p, q, other := logIn(t, addr, "alice"), dial(t, addr), logIn(t, addr, "bob")
	q.do("USER alice")
	q.write("PASS pw\r\n")
	p.do("QUIT")
	wantPrefix(t, q.line(), "+OK Logged in.")
	wantPrefix(t, other.do("NOOP"), "+OK")
	waiting := dial(t, addr)
	waiting.do("USER alice")
	waiting.write("PASS pw\r\n")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if srv.Strangers() == 0 {
			break
		}
	}
	srv.Close()
	wantPrefix(t, waiting.line(), "-ERR [SYS/TEMP] Server shutting down.")
	waitForNoSessions(t, srv)
	if len(srv.locked) != 0 {
		t.Error("something is left behind")
	}
}

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
	srv, addr := r.listen(t)
	other := logIn(t, addr, "alice")
	p := dial(t, addr)
	p.do("USER crash")
	wantPrefix(t, p.do("PASS pw"), "-ERR [SYS/TEMP] Internal error occurred.")
	wantPrefix(t, other.do("NOOP"), "+OK")
	other.do("QUIT")
	waitForNoSessions(t, srv)
	if !strings.Contains(log.String(), "panic: asked for") {
		t.Errorf("log: %s", log)
	}
}

type brokenMail struct{ Mail }

func (brokenMail) Open(context.Context, *account.User) (store.Account, error) {
	return nil, io.ErrUnexpectedEOF
}

func TestMailThatCannotBeOpened(t *testing.T) {
	r := newRig(t)
	r.opt.Mail = brokenMail{}
	_, addr := r.listen(t)
	p := dial(t, addr)
	p.do("USER alice")
	wantPrefix(t, p.do("PASS pw"), "-ERR [SYS/TEMP] Internal error occurred. Refer to server log")
	if p.line() != "" {
		t.Error("goes on")
	}
}

func TestLogLines(t *testing.T) {
	r := newRig(t)
	log := &lockedWriter{}
	r.opt.Log = slog.New(slog.NewTextHandler(log, nil))
	r.deliver(t, "alice", smallMail, smallMail)
	srv, addr := r.listen(t)
	p := logIn(t, addr, "alice")
	p.do("RETR 1")
	p.do("TOP 2 0")
	p.do("DELE 1")
	p.do("QUIT")
	p = dial(t, addr)
	p.do("USER alice")
	p.do("PASS no")
	_ = p.conn.Close()
	waitForNoSessions(t, srv)
	r.opt.LogoutFormat = "d=%d %{deleted_bytes} m=%m"
	srv, addr = r.listen(t)
	logIn(t, addr, "alice").do("QUIT")
	waitForNoSessions(t, srv)
	for _, want := range []string{
		`program=pop3-login session=`,
		`msg="Login: user=<alice>, method=PLAIN, rip=127.0.0.1, lip=127.0.0.1, mpid=`, ", secured, session=<", "program=pop3 user=alice session=",
		fmt.Sprintf(`msg="Disconnected: Logged out top=1/%d, retr=1/%d, del=1/2, size=%d"`, len(smallMail)-1, len(smallMail)+15, 2*len(smallMail)),
		`msg="Disconnected: Connection closed (auth failed, 1 attempts in 0 secs): user=<alice>, method=PLAIN, rip=127.0.0.1, lip=127.0.0.1, secured, session=<`,
		`msg="Disconnected: Logged out d=0 0 m=1"`,
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
		r.deliver(t, "alice", smallMail)
	}
	_, addr := r.listen(t)
	const sessions = 1000
	before := settledMemory()
	goroutines := runtime.NumGoroutine()
	for range sessions {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Skipf("cannot open %d connections here: %v", sessions, err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "USER alice\r\nPASS pw\r\nUIDL\r\nRETR 1\r\nDELE 50\r\n")
		buf := make([]byte, 16<<10)
		for seen := ""; !strings.Contains(seen, "Marked to be deleted."); {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			seen = seen[max(len(seen)-30, 0):] + string(buf[:n])
		}
	}
	each := (settledMemory() - before) / sessions
	t.Logf("%d bytes of heap and stack for each idle session", each)
	if n := runtime.NumGoroutine() - goroutines; n != sessions {
		t.Errorf("%d goroutines for %d sessions", n, sessions)
	}
	if each > 24<<10 {
		t.Errorf("an idle session holds %d bytes", each)
	}
}

func settledMemory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

func TestPythonPoplib(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	r := newRig(t)
	r.opt.APOP = true
	config := testTLS(t)
	r.opt.TLS = func() *tls.Config { return config }
	r.deliver(t, "alice", smallMail, "Subject: dots\r\n\r\n.\r\n..\r\n.x")
	_, addr := r.listen(t)
	_, port, _ := net.SplitHostPort(addr)
	out, err := exec.Command(python, "testdata/poplib_session.py", port).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	r := newRig(t)
	const text = "Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n"
	r.deliver(t, "alice", text)
	_, addr := r.listen(t)
	for request, want := range map[string]string{"/1": text, "/": "1 28\r\n"} {
		out, err := exec.Command(curl, "--silent", "--show-error", "--max-time", "20", "--user", "alice:pw", "pop3://"+addr+request).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", request, out, err)
		}
	}
}
