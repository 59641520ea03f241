// Package logintest is what every protocol behind a login.Gate must do: let clients in and keep them apart, whatever their number, hear a proxy,
// begin TLS, and end in order. It is for tests alone.
package logintest

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
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/server/login"
)

// Protocol is what the suite needs to know. Users are alice and bob.
type Protocol struct {
	// Serve makes a server with these options.
	Serve func(t *testing.T, options login.Options) *login.Gate
	// Greeting begins the first line, Refusal a line that ends the connection, with %s for its text.
	Greeting, Refusal string
	// Login are the lines that log a user (%s) in, Welcome begins the last line of the answer, Surplus that to one login too many.
	Login            []string
	Welcome, Surplus string
	// Noop is a command that strangers may give, Done begins the last line of its answer.
	Noop, Done string
}

// Run runs the suite.
func Run(t *testing.T, p Protocol) {
	for _, one := range []struct {
		name string
		test func(*testing.T, *rig)
	}{
		{"strangers make room", strangersMakeRoom},
		{"the crowded address loses first", crowdLoses},
		{"an address has its share", share},
		{"sessions of a user", userLimit},
		{"no room at all", noRoom},
		{"a proxy tells the client", proxied},
		{"a stranger is no proxy", falseProxy},
		{"a proxy is waited for a while", silentProxy},
		{"TLS from the first octet", implicitTLS},
		{"TLS that never comes", silentTLS},
		{"two thousand strangers", twoThousand},
		{"shutdown", shutdown},
		{"hostile names in the log", hostileNames},
	} {
		t.Run(one.name, func(t *testing.T) { one.test(t, &rig{Protocol: p, log: &logText{}}) })
	}
}

// rig is one server of a test.
type rig struct {
	Protocol
	options login.Options
	log     *logText
	gate    *login.Gate
	stop    func()
}

// logText is a log that goroutines share.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// await waits until the log has the text.
func (l *logText) await(t *testing.T, want string) {
	t.Helper()
	var text string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		text = l.text.String()
		l.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
	}
	t.Errorf("no %q in the log:\n%s", want, text)
}

func (r *rig) listen(t *testing.T, entry login.Entry) string {
	t.Helper()
	r.options.Log = slog.New(slog.NewTextHandler(r.log, nil))
	r.gate = r.Serve(t, r.options)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.gate.ServeEntry(ctx, listener, entry) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not end")
		}
		if n, m := r.gate.Sessions(), r.gate.Strangers(); n != 0 || m != 0 {
			t.Errorf("%d sessions and %d strangers are left behind", n, m)
		}
	})
	t.Cleanup(r.stop)
	return listener.Addr().String()
}

// client is one connection of a test.
type client struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Reader
}

func (r *rig) dial(t *testing.T, address string) *client {
	t.Helper()
	return r.dialFrom(t, "127.0.0.1", address)
}

func (r *rig) dialFrom(t *testing.T, from, address string) *client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Skipf("cannot connect from %s: %v", from, err)
	}
	return newClient(t, conn)
}

func newClient(t *testing.T, conn net.Conn) *client {
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

// want reads a line.
func (c *client) want(prefix string) {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, err := c.lines.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, prefix) {
		c.t.Errorf("%q (%v) instead of %q", line, err, prefix)
	}
}

// wantEnd reads until the connection is closed.
func (c *client) wantEnd() {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, c.lines); err != nil && !strings.Contains(err.Error(), "reset") {
		c.t.Errorf("the connection stays open: %v", err)
	}
}

// do sends lines and reads until a line that begins so.
func (c *client) do(prefix string, lines ...string) {
	c.t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	var got []string
	for i, line := range lines {
		if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
			c.t.Fatal(err)
		}
		for {
			answer, err := c.lines.ReadString('\n')
			got = append(got, answer)
			if err != nil {
				c.t.Errorf("%q: %v instead of %q", got, err, prefix)
				return
			}
			if i < len(lines)-1 {
				break
			}
			if strings.HasPrefix(answer, prefix) {
				return
			}
		}
	}
}

func (r *rig) logIn(c *client, user, answer string) {
	c.t.Helper()
	lines := make([]string, len(r.Login))
	for i, line := range r.Login {
		lines[i] = strings.ReplaceAll(line, "%s", user)
	}
	c.do(answer, lines...)
}

func (r *rig) refusal(text string) string { return strings.ReplaceAll(r.Refusal, "%s", text) }

func strangersMakeRoom(t *testing.T, r *rig) {
	r.options.MaxConnections = 5
	address := r.listen(t, login.Entry{})
	user := r.dial(t, address)
	user.want(r.Greeting)
	r.logIn(user, "alice", r.Welcome)
	var strangers []*client
	for range 10 {
		c := r.dial(t, address)
		c.want(r.Greeting)
		strangers = append(strangers, c)
	}
	for _, c := range strangers[:6] {
		c.want(r.refusal("Too many connections."))
		c.wantEnd()
	}
	user.do(r.Done, r.Noop)
	strangers[9].do(r.Done, r.Noop)
	r.log.await(t, "Disconnected: Connection queue full (no auth attempts in ")
}

func crowdLoses(t *testing.T, r *rig) {
	r.options.MaxStrangers = 4
	address := r.listen(t, login.Entry{})
	quiet := r.dialFrom(t, "127.0.0.2", address)
	quiet.want(r.Greeting)
	for range 20 {
		r.dial(t, address).want(r.Greeting)
	}
	quiet.do(r.Done, r.Noop)
}

func share(t *testing.T, r *rig) {
	r.options.MaxPrelogin = 2
	address := r.listen(t, login.Entry{})
	var clients []*client
	for range 4 {
		c := r.dial(t, address)
		c.want(r.Greeting)
		clients = append(clients, c)
	}
	clients[0].want(r.refusal("Too many connections from your address."))
	clients[1].want(r.refusal("Too many connections from your address."))
	r.logIn(clients[2], "alice", r.Welcome)
	clients[3].do(r.Done, r.Noop)
	// A network that is trusted, such as a web mailer's, is not limited.
	r.stop()
	r.options.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	address = r.listen(t, login.Entry{})
	first := r.dial(t, address)
	first.want(r.Greeting)
	for range 5 {
		r.dial(t, address).want(r.Greeting)
	}
	first.do(r.Done, r.Noop)
}

func userLimit(t *testing.T, r *rig) {
	r.options.MaxUserIP = 2
	address := r.listen(t, login.Entry{})
	var clients []*client
	for _, answer := range []string{r.Welcome, r.Welcome, r.Surplus} {
		c := r.dial(t, address)
		c.want(r.Greeting)
		r.logIn(c, "alice", answer)
		clients = append(clients, c)
	}
	clients[2].wantEnd()
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		c := r.dialFrom(t, from, address)
		c.want(r.Greeting)
		r.logIn(c, map[string]string{"127.0.0.1": "bob", "127.0.0.2": "alice"}[from], r.Welcome)
	}
	r.log.await(t, "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=2): user=<alice>")
	// One that ended makes room.
	_ = clients[0].conn.Close()
	r.log.await(t, "Disconnected: Connection closed")
	for end := time.Now().Add(5 * time.Second); r.gate.Sessions() > 3 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	again := r.dial(t, address)
	again.want(r.Greeting)
	r.logIn(again, "alice", r.Welcome)
}

func noRoom(t *testing.T, r *rig) {
	r.options.MaxConnections = 1
	address := r.listen(t, login.Entry{})
	user := r.dial(t, address)
	user.want(r.Greeting)
	r.logIn(user, "alice", r.Welcome)
	late := r.dial(t, address)
	late.want(r.refusal("Too many connections."))
	late.wantEnd()
	user.do(r.Done, r.Noop)
}

func proxied(t *testing.T, r *rig) {
	r.options.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	r.options.MaxPrelogin = 1
	address := r.listen(t, login.Entry{HAProxy: true})
	var clients []*client
	for _, header := range []string{
		"PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x08\xc0\x00\x02\x01\x12\x67\x00\x8f",
		"PROXY UNKNOWN\r\n",
	} {
		c := r.dial(t, address)
		if _, err := io.WriteString(c.conn, header); err != nil {
			t.Fatal(err)
		}
		c.want(r.Greeting)
		clients = append(clients, c)
	}
	for _, c := range clients {
		c.do(r.Done, r.Noop)
		_ = c.conn.Close()
	}
	r.log.await(t, "rip=192.0.2.7, lip=192.0.2.1, session=<")
	r.log.await(t, "rip=192.0.2.8, lip=192.0.2.1, session=<")
	r.log.await(t, "rip=127.0.0.1, lip=127.0.0.1, secured, session=<")
}

func falseProxy(t *testing.T, r *rig) {
	r.options.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	address := r.listen(t, login.Entry{HAProxy: true})
	c := r.dial(t, address)
	_, _ = io.WriteString(c.conn, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n")
	c.wantEnd()
	r.log.await(t, "haproxy: Client not trusted")
}

func silentProxy(t *testing.T, r *rig) {
	r.options.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	r.options.ProxyTimeout = 50 * time.Millisecond
	address := r.listen(t, login.Entry{HAProxy: true})
	r.dial(t, address).wantEnd()
	r.log.await(t, "haproxy: Client timed out")
	c := r.dial(t, address)
	_, _ = io.WriteString(c.conn, r.Noop+"\r\n"+strings.Repeat("x", 200)+"\r\n")
	c.wantEnd()
	r.log.await(t, "haproxy: Failed to read a PROXY header")
}

// testTLS makes a server's configuration.
func testTLS(t *testing.T) func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return func() *tls.Config { return config }
}

func implicitTLS(t *testing.T, r *rig) {
	r.options.TLS = testTLS(t)
	address := r.listen(t, login.Entry{TLS: true})
	raw, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, raw)
	c.want(r.Greeting)
	r.logIn(c, "alice", r.Welcome)
	r.log.await(t, ", TLS, session=<")
}

func silentTLS(t *testing.T, r *rig) {
	r.options.TLS, r.options.LoginTimeout = testTLS(t), 50*time.Millisecond
	address := r.listen(t, login.Entry{TLS: true})
	r.dial(t, address).wantEnd()
	r.log.await(t, "TLS handshaking: ")
	// A stop does not wait for those who shake hands for ever.
	r.stop()
	r.options.LoginTimeout = time.Hour
	address = r.listen(t, login.Entry{TLS: true})
	c := r.dial(t, address)
	for end := time.Now().Add(5 * time.Second); r.gate.Sessions() == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	r.stop()
	c.wantEnd()
}

// twoThousand idle strangers keep nobody out and cost little.
func twoThousand(t *testing.T, r *rig) {
	if testing.Short() {
		t.Skip("opens 2,000 connections")
	}
	r.options.MaxStrangers, r.options.MaxPrelogin = 1000, 250
	address := r.listen(t, login.Entry{})
	before := Memory()
	for range 2000 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Skipf("cannot open 2,000 connections here: %v", err)
		}
		defer conn.Close()
	}
	other := r.dialFrom(t, "127.0.0.2", address)
	other.want(r.Greeting)
	r.logIn(other, "alice", r.Welcome)
	same := r.dial(t, address)
	same.want(r.Greeting)
	r.logIn(same, "bob", r.Welcome)
	if n := r.gate.Strangers(); n > 250 {
		t.Errorf("%d strangers of one address", n)
	}
	if grown := Memory() - before; grown > Bound {
		t.Errorf("2,000 strangers take %d octets", grown)
	}
}

func shutdown(t *testing.T, r *rig) {
	address := r.listen(t, login.Entry{})
	stranger, user := r.dial(t, address), r.dial(t, address)
	stranger.want(r.Greeting)
	user.want(r.Greeting)
	r.logIn(user, "alice", r.Welcome)
	r.stop()
	for _, c := range []*client{stranger, user} {
		c.want(r.refusal("Server shutting down."))
		c.wantEnd()
	}
}

// hostileNames: what a client calls itself or its mechanism cannot write lines into the log, or fill it.
func hostileNames(t *testing.T, r *rig) {
	address := r.listen(t, login.Entry{})
	c := r.dial(t, address)
	c.want(r.Greeting)
	verb, _, _ := strings.Cut(r.Noop, " ")
	tag := ""
	if verb != r.Noop {
		tag = verb + " AUTHENTICATE "
	} else {
		tag = "AUTH "
	}
	_, _ = io.WriteString(c.conn, tag+strings.Repeat("M", 900)+"\r\n")
	c.want("")
	_ = c.conn.Close()
	r.log.await(t, "method="+strings.Repeat("M", 255)+"...")
}
