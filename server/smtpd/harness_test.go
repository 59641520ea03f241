package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/account"
	"postilion/mail/envelope"
	"postilion/mail/queueid"
	"postilion/mta/policy"
	"postilion/proto/smtp"
	"postilion/store/spool"
)

// fakePolicy is an access policy in a few words: local domains with known users, and who may relay.
type fakePolicy struct {
	local    []string
	users    []string
	networks []netip.Prefix
	rules    func(stage policy.Stage, session *policy.Session) policy.Decision
}

func (p *fakePolicy) Check(_ context.Context, stage policy.Stage, session *policy.Session) policy.Decision {
	if p.rules != nil {
		if d := p.rules(stage, session); d.Action != policy.Permit || d.Effects != nil || d.Warnings != nil {
			return d
		}
	}
	if stage != policy.Rcpt {
		return policy.Decision{}
	}
	return p.recipient(session, session.Recipient)
}

func (p *fakePolicy) Verify(_ context.Context, session *policy.Session, address string) policy.Decision {
	return p.recipient(session, address)
}

func (p *fakePolicy) recipient(session *policy.Session, address string) policy.Decision {
	local, domain, found := strings.Cut(address, "@")
	if !found || slices.Contains(p.local, strings.ToLower(domain)) {
		if p.users != nil && !slices.Contains(p.users, local) {
			return policy.Decision{Action: policy.Refuse, Reply: "550 5.1.1 <" + address + ">: Recipient address rejected: User unknown in local recipient table"}
		}
		return policy.Decision{}
	}
	for _, n := range p.networks {
		if n.Contains(session.ClientAddress) {
			return policy.Decision{}
		}
	}
	if session.SASLUsername != "" {
		return policy.Decision{}
	}
	return policy.Decision{Action: policy.Refuse, Reply: "454 4.7.1 <" + address + ">: Relay access denied"}
}

type fakeNames struct{}

func (fakeNames) LookupClient(_ context.Context, a netip.Addr) (string, string, policy.NameStatus, policy.NameStatus) {
	if a.IsLoopback() {
		return "localhost", "localhost", policy.NameFound, policy.NameFound
	}
	return unknown, unknown, policy.NameMissing, policy.NameMissing
}

// fakeAuth knows PLAIN and LOGIN for one user.
type fakeAuth struct{ name, password string }

func (a *fakeAuth) Mechanisms(account.Client) []account.Mechanism {
	return []account.Mechanism{{Name: "PLAIN", Plaintext: true}, {Name: "LOGIN", Plaintext: true}}
}

func (a *fakeAuth) Start(_ context.Context, _ account.Client, mechanism string) (account.Exchange, error) {
	return &fakeExchange{auth: a, mechanism: mechanism}, nil
}

func (a *fakeAuth) Password(context.Context, account.Client, string, string) (*account.User, error) {
	return nil, account.ErrProof
}

func (a *fakeAuth) APOP(context.Context, account.Client, string, string, string) (*account.User, error) {
	return nil, account.ErrProof
}

type fakeExchange struct {
	auth      *fakeAuth
	mechanism string
	name      string
}

func (e *fakeExchange) Next(_ context.Context, response []byte) ([]byte, *account.User, error) {
	if e.mechanism == "PLAIN" {
		if response == nil {
			return []byte{}, nil, nil
		}
		parts := strings.Split(string(response), "\x00")
		if len(parts) != 3 {
			return nil, nil, account.ErrMalformed
		}
		return e.result(parts[1], parts[2])
	}
	switch {
	case response == nil:
		return []byte("Username:"), nil, nil
	case e.name == "":
		e.name = string(response)
		return []byte("Password:"), nil, nil
	}
	return e.result(e.name, string(response))
}

func (e *fakeExchange) result(name, password string) ([]byte, *account.User, error) {
	switch {
	case name == "temp":
		return nil, nil, account.ErrUnavailable
	case name != e.auth.name || password != e.auth.password:
		return nil, nil, account.ErrProof
	}
	return nil, &account.User{Name: name}, nil
}

// delivered is a message that was accepted.
type delivered struct {
	envelope envelope.Envelope
	text     string
	effects  []policy.Effect
}

type collector struct {
	mutex  sync.Mutex
	mails  []delivered
	answer func(*Mail) (string, error)
}

func (c *collector) Accept(_ context.Context, mail *Mail) (string, error) {
	text, err := io.ReadAll(io.NewSectionReader(mail.Content, 0, mail.Content.Size()))
	if err != nil {
		return "", err
	}
	if mail.Message == nil || mail.Message.Size != mail.Content.Size() {
		return "", io.ErrUnexpectedEOF
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.mails = append(c.mails, delivered{*mail.Envelope, string(text), mail.Effects})
	if c.answer != nil {
		return c.answer(mail)
	}
	return "", nil
}

func (c *collector) all() []delivered {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return slices.Clone(c.mails)
}

// logLines collects log lines as "program: text".
type logLines struct {
	mutex sync.Mutex
	buf   bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.buf.String()
}

func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

type fixture struct {
	t       testing.TB
	server  *Server
	address string
	mails   *collector
	log     *logLines
	stop    func()
}

func baseOptions(mails *collector, log *logLines) Options {
	return Options{
		Settings: smtp.Settings{Hostname: "mail.example.com", MessageSizeLimit: 10240000, SMTPUTF8: true, ReplaceStrayCR: true},
		MailName: "Mailer", ErrorSleepTime: -1,
		Checker: &fakePolicy{local: []string{"mail.example.com"}, users: []string{"alice", "bob", "carol", "dave", "postmaster"}},
		Accept:  mails, Names: fakeNames{}, Spool: spool.New(""), QueueIDs: queueid.New(false, 1), Log: log.logger(),
		Now: func() time.Time { return time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC) },
	}
}

func start(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, mails: &collector{}, log: &logLines{}}
	options := baseOptions(f.mails, f.log)
	if change != nil {
		change(&options)
	}
	server, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	var once sync.Once
	f.server, f.address = server, listener.Addr().String()
	f.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("Serve: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the server does not stop")
			}
		})
	}
	t.Cleanup(f.stop)
	return f
}

// client is a test's end of a connection.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (f *fixture) dial() *client {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return &client{f.t, conn, bufio.NewReaderSize(conn, 64<<10)}
}

// reply reads one reply; its lines are joined by LF. "@EOF@" and "@TIMEOUT@" stand for themselves.
func (c *client) reply() string { return c.replyWithin(10 * time.Second) }

func (c *client) replyWithin(limit time.Duration) string {
	if err := c.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return "@EOF@"
	}
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				return "@TIMEOUT@"
			}
			return "@EOF@"
		}
		line = strings.TrimRight(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

// send writes; a server that closed already is seen by the next read.
func (c *client) send(text string) { _, _ = io.WriteString(c.conn, text) }

func (c *client) command(line string) string {
	c.send(line + "\r\n")
	return c.reply()
}

func (c *client) startTLS() {
	c.t.Helper()
	secure := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		c.t.Error(err)
		return
	}
	c.conn = secure
	c.r = bufio.NewReader(secure)
}

func (c *client) expect(line, want string) {
	c.t.Helper()
	if got := c.command(line); !strings.HasPrefix(got, want) {
		c.t.Fatalf("%.100q: %q, want %q", line, got, want)
	}
}

func certificate(t testing.TB) func() (*tls.Config, error) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example.com"}, DNSNames: []string{"mail.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return func() (*tls.Config, error) { return config, nil }
}
