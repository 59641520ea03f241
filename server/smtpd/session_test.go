package smtpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"postilion/mta/policy"
	"postilion/proto/smtp"
)

func (c *client) mail(recipients ...string) {
	c.t.Helper()
	c.expect("MAIL FROM:<sender@example.org>", "250 2.1.0")
	for _, r := range recipients {
		c.expect("RCPT TO:<"+r+">", "250 2.1.5")
	}
	c.expect("DATA", "354")
}

func TestMailIsHandedOver(t *testing.T) {
	f := start(t, func(o *Options) {
		p, _ := o.Checker.(*fakePolicy)
		p.rules = func(stage policy.Stage, s *policy.Session) policy.Decision {
			if stage != policy.Rcpt {
				return policy.Decision{}
			}
			return policy.Decision{Effects: []policy.Effect{{Kind: "HOLD", Argument: "<x>: why"}, {Kind: "PREPEND", Argument: "X-Seen: " + s.Recipient}}, Warnings: []string{"554 5.7.1 perhaps"}}
		}
	})
	c := f.dial()
	c.reply()
	c.expect("EHLO client.test", "250")
	c.mail("bob@mail.example.com", "alice@mail.example.com")
	c.expect("Subject: x\r\n\r\nbody\r\n.", "250 2.0.0 Ok: queued as ")
	c.expect("QUIT", "221")
	f.stop()
	mails := f.mails.all()
	if len(mails) != 1 {
		t.Fatalf("%d mails", len(mails))
	}
	m := mails[0]
	want := "X-Seen: bob@mail.example.com\r\nX-Seen: alice@mail.example.com\r\n" +
		"Received: from client.test (localhost [127.0.0.1])\r\n\tby mail.example.com (Mailer) with ESMTP id " + m.envelope.QueueID + ";\r\n\tMon,  5 Jan 2026 10:00:00 +0000 (UTC)\r\n" +
		"Subject: x\r\nMessage-Id: <20260105100000." + m.envelope.QueueID + "@mail.example.com>\r\nDate: Mon,  5 Jan 2026 10:00:00 +0000 (UTC)\r\nFrom: sender@example.org\r\n\r\nbody\r\n"
	if m.text != want {
		t.Errorf("text\n%s\nwant\n%s", m.text, want)
	}
	if len(m.effects) != 1 || m.effects[0].Kind != "HOLD" {
		t.Errorf("effects %v", m.effects)
	}
	if e := m.envelope; e.Client.Name != "localhost" || e.Client.Address != "127.0.0.1" || e.Client.Helo != "client.test" || e.Client.Protocol != "ESMTP" || e.Client.Port == "" || e.Arrival.IsZero() {
		t.Errorf("envelope %+v", e)
	}
	log := f.log.String()
	for _, line := range []string{
		`msg="connect from localhost[127.0.0.1]" program=postfix/smtpd`,
		`msg="NOQUEUE: reject_warning: RCPT from localhost[127.0.0.1]: 554 5.7.1 perhaps; from=<sender@example.org> to=<bob@mail.example.com> proto=ESMTP helo=<client.test>"`,
		`msg="` + m.envelope.QueueID + `: client=localhost[127.0.0.1]" program=postfix/smtpd queue_id=` + m.envelope.QueueID,
		`message-id=<20260105100000.` + m.envelope.QueueID + `@mail.example.com>" program=postfix/cleanup`,
		`disconnect from localhost[127.0.0.1] ehlo=1 mail=1 rcpt=2 data=1 quit=1 commands=6`,
	} {
		if !strings.Contains(log, line) {
			t.Errorf("the log lacks %s\n%s", line, log)
		}
	}
}

func TestNothingIsPromisedThatWasNotAccepted(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("disk full"), "451 4.3.0 Error: queue file write error"},
		{&Reply{Text: "552 5.2.2 Mailbox is full"}, "552 5.2.2 Mailbox is full"},
		{fmt.Errorf("wrapped: %w", &Reply{Text: "451 4.3.0 not yet", Cause: errors.New("x")}), "451 4.3.0 not yet"},
	} {
		f := start(t, nil)
		f.mails.answer = func(*Mail) (string, error) { return "", c.err }
		client := f.dial()
		client.reply()
		client.mail("bob@mail.example.com")
		client.expect("x\r\n.", c.want)
		client.expect("NOOP", "250")
		f.stop()
	}
}

func TestFaultEndsOneSessionAlone(t *testing.T) {
	f := start(t, nil)
	f.mails.answer = func(*Mail) (string, error) { panic("on purpose") }
	other, c := f.dial(), f.dial()
	other.reply()
	c.reply()
	c.mail("bob@mail.example.com")
	if got := c.command("x\r\n."); !strings.HasPrefix(got, "421 4.3.0") {
		t.Errorf("%q", got)
	}
	other.expect("NOOP", "250")
	if !strings.Contains(f.log.String(), "ended by a fault: on purpose") {
		t.Error("the fault is not in the log")
	}
}

func TestShutdownWaitsForMessages(t *testing.T) {
	f := start(t, nil)
	idle, busy := f.dial(), f.dial()
	idle.reply()
	busy.reply()
	busy.mail("bob@mail.example.com")
	busy.send("one\r\n")
	time.Sleep(50 * time.Millisecond)
	done := make(chan struct{})
	go func() { f.stop(); close(done) }()
	if got := idle.reply(); !strings.HasPrefix(got, "421 4.3.2 ") {
		t.Errorf("the idle client hears %q", got)
	}
	busy.expect("two\r\n.", "250 2.0.0 Ok: queued")
	if got := busy.reply(); !strings.HasPrefix(got, "421 4.3.2 ") {
		t.Errorf("after the message: %q", got)
	}
	<-done
	if f.server.Sessions() != 0 {
		t.Errorf("%d sessions are left", f.server.Sessions())
	}
}

func TestShutdownDoesNotWaitForTalk(t *testing.T) {
	f := start(t, func(o *Options) {
		o.TLS, o.SASLAuthEnable, o.Auth = certificate(t), true, &fakeAuth{"alice", "secret"}
	})
	login, half, handshake := f.dial(), f.dial(), f.dial()
	for _, c := range []*client{login, half, handshake} {
		c.reply()
	}
	login.expect("AUTH PLAIN", "334")
	half.send("NOO")
	handshake.expect("STARTTLS", "220")
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	f.stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestSilentClientTimesOut(t *testing.T) {
	f := start(t, func(o *Options) { o.Timeout = 100 * time.Millisecond })
	c := f.dial()
	c.reply()
	if got := c.reply(); got != "421 4.4.2 mail.example.com Error: timeout exceeded" {
		t.Errorf("%q", got)
	}
	f.stop()
	if !strings.Contains(f.log.String(), "timeout after CONNECT from localhost[127.0.0.1]") {
		t.Error(f.log.String())
	}
}

func TestSlowMessageHasADeadline(t *testing.T) {
	f := start(t, func(o *Options) { o.Timeout, o.PerRequestDeadline = 300*time.Millisecond, true })
	c := f.dial()
	c.reply()
	c.mail("bob@mail.example.com")
	began := time.Now()
	for time.Since(began) < 10*time.Second {
		c.send("x")
		if got := c.replyWithin(50 * time.Millisecond); got != "@TIMEOUT@" {
			break
		}
	}
	f.stop()
	if !strings.Contains(f.log.String(), "timeout after DATA (") {
		t.Error("a client that sends one octet now and then is served for ever")
	}
}

func TestLostConnection(t *testing.T) {
	f := start(t, nil)
	c := f.dial()
	c.reply()
	c.mail("bob@mail.example.com")
	c.send("12345678\r\n")
	time.Sleep(50 * time.Millisecond)
	_ = c.conn.Close()
	f.stop()
	if !strings.Contains(f.log.String(), "lost connection after DATA (10 bytes) from localhost[127.0.0.1]") {
		t.Error(f.log.String())
	}
}

// TestStartTLSInjection: what was sent in clear behind STARTTLS is not run inside TLS.
func TestStartTLSInjection(t *testing.T) {
	f := start(t, func(o *Options) { o.TLS = certificate(t) })
	c := f.dial()
	c.reply()
	c.send("STARTTLS\r\nRSET\r\nMAIL FROM:<evil@example.org>\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "220 2.0.0") {
		t.Fatal(got)
	}
	c.startTLS()
	c.expect("NOOP", "250 2.0.0 Ok")
	c.expect("RCPT TO:<bob@mail.example.com>", "503 5.5.1 Error: need MAIL command")
}

func TestTLSSession(t *testing.T) {
	f := start(t, func(o *Options) {
		o.TLS, o.TLSReceivedHeader, o.TLSLogLevel = certificate(t), true, 1
		o.SASLAuthEnable, o.TLSAuthOnly, o.Auth, o.SASLAuthenticatedHeader = true, true, &fakeAuth{"alice", "secret"}, true
	})
	c := f.dial()
	c.reply()
	c.expect("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "503 5.5.1")
	c.expect("STARTTLS", "220")
	c.startTLS()
	c.expect("EHLO c", "250")
	c.expect("AUTH LOGIN", "334 VXNlcm5hbWU6")
	c.expect("YWxpY2U=", "334 UGFzc3dvcmQ6")
	c.expect("c2VjcmV0", "235 2.7.0")
	c.mail("x@example.net")
	c.expect("x: y\r\n\r\n.", "250")
	f.stop()
	m := f.mails.all()[0]
	for _, part := range []string{"\t(using TLSv1.3 with cipher TLS_", " key-exchange ", " server-signature ECDSA (prime256v1) server-digest SHA256)\r\n\t(No client certificate requested)\r\n\t(Authenticated sender: alice)\r\n", " with ESMTPSA id "} {
		if !strings.Contains(m.text, part) {
			t.Errorf("Received lacks %q:\n%s", part, m.text)
		}
	}
	if m.envelope.Client.User != "alice" || m.envelope.Client.Method != "LOGIN" || m.envelope.Client.TLS == nil || m.envelope.Client.TLS.Version != "TLSv1.3" {
		t.Errorf("%+v", m.envelope.Client)
	}
	if !strings.Contains(f.log.String(), "sasl_method=LOGIN, sasl_username=alice") || !strings.Contains(f.log.String(), "Anonymous TLS connection established from localhost[127.0.0.1]: TLSv1.3") {
		t.Error(f.log.String())
	}
}

func TestWrapperMode(t *testing.T) {
	f := start(t, func(o *Options) { o.TLS, o.WrapperMode = certificate(t), true })
	c := f.dial()
	c.startTLS()
	if got := c.reply(); !strings.HasPrefix(got, "220 ") {
		t.Fatal(got)
	}
	if got := c.command("EHLO c"); strings.Contains(got, "STARTTLS") {
		t.Error(got)
	}
}

func TestProxyProtocol(t *testing.T) {
	binaryHeader := func(command, family byte, body []byte) string {
		return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{0x20 | command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + string(body)
	}
	four := append(netip.MustParseAddr("192.0.2.7").AsSlice(), 192, 0, 2, 8, 0x12, 0x34, 0, 25)
	six := append(netip.MustParseAddr("2001:db8::7").AsSlice(), netip.MustParseAddr("2001:db8::8").AsSlice()...)
	six = append(six, 0x12, 0x34, 0, 25)
	for _, c := range []struct{ header, client string }{
		{"PROXY TCP4 192.0.2.7 192.0.2.8 4660 25\r\n", "unknown[192.0.2.7]"},
		{"PROXY TCP6 2001:db8::7 2001:db8::8 4660 25\r\n", "unknown[2001:db8::7]"},
		{"PROXY UNKNOWN\r\n", "localhost[127.0.0.1]"},
		{binaryHeader(1, 0x11, four), "unknown[192.0.2.7]"},
		{binaryHeader(1, 0x21, append(six, 4, 0, 1, 9)), "unknown[2001:db8::7]"},
		{binaryHeader(0, 0, nil), "localhost[127.0.0.1]"},
		{"PROXY TCP4 192.0.2.7 x 1 2\r\n", ""},
		{"PROXY TCP4 " + strings.Repeat("1", 200), ""},
		{"EHLO example.org\r\n", ""},
		{binaryHeader(1, 0x11, four[:5]), ""},
		{binaryHeader(1, 0x11, make([]byte, 5000)), ""},
		{binaryHeader(7, 0x11, four), ""},
	} {
		f := start(t, func(o *Options) { o.UpstreamProxyProtocol = true })
		client := f.dial()
		client.send(c.header)
		got := client.reply()
		if c.client == "" {
			if got != "@EOF@" {
				t.Errorf("%.40q: %q", c.header, got)
			}
			continue
		}
		client.expect("QUIT", "221")
		f.stop()
		if !strings.Contains(f.log.String(), "disconnect from "+c.client+" quit=1") {
			t.Errorf("%.40q: %s", c.header, f.log.String())
		}
	}
}

func TestConnectionsPerClient(t *testing.T) {
	f := start(t, func(o *Options) { o.ConnectionCountLimit = 2 })
	a, b, c := f.dial(), f.dial(), f.dial()
	refused := 0
	for _, client := range []*client{a, b, c} {
		if got := client.reply(); got == "421 4.7.0 mail.example.com Error: too many connections from 127.0.0.1" {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d refused", refused)
	}
}

type fakeLimits struct{ counts [NewTLSRate + 1]int }

func (l *fakeLimits) Count(kind Event, _ string, _ netip.Addr) (int, bool) {
	l.counts[kind]++
	return l.counts[kind], l.counts[kind] > 1
}

func (l *fakeLimits) Disconnect(string, netip.Addr) { l.counts[ConnectionCount]-- }

func TestRates(t *testing.T) {
	limits := &fakeLimits{}
	f := start(t, func(o *Options) {
		o.Limits, o.SASLAuthEnable, o.Auth, o.TLS = limits, true, &fakeAuth{"alice", "secret"}, certificate(t)
	})
	c := f.dial()
	c.reply()
	c.expect("AUTH PLAIN AA==", "535")
	c.expect("AUTH PLAIN AA==", "450 4.7.1 Error: too many AUTH commands from 127.0.0.1")
	c.expect("MAIL FROM:<a@b.test>", "250")
	c.expect("RCPT TO:<bob@mail.example.com>", "250")
	c.expect("RCPT TO:<bob@mail.example.com>", "450 4.7.1 Error: too many recipients from 127.0.0.1")
	c.expect("RSET", "250")
	c.expect("MAIL FROM:<a@b.test>", "450 4.7.1 Error: too much mail from 127.0.0.1")
	c.expect("QUIT", "221")
	f.stop()
	if limits.counts[ConnectionCount] != 0 {
		t.Error("the connection is still counted")
	}
	if !strings.Contains(f.log.String(), "Message delivery request rate limit exceeded: 2 from localhost[127.0.0.1] for service smtp") {
		t.Error(f.log.String())
	}
}

// TestStrangersDoNotKeepOut: with every place taken by clients that say nothing, the next one is served all the same, and they cost little.
func TestStrangersDoNotKeepOut(t *testing.T) {
	const strangers = 2000
	f := start(t, func(o *Options) { o.ConnectionLimit, o.ConnectionCountLimit = 1000, -1 })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conns := make([]net.Conn, 0, strangers)
	for range strangers {
		conn, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	c := f.dial()
	if got := c.reply(); !strings.HasPrefix(got, "220 ") {
		t.Fatalf("the next client hears %q", got)
	}
	c.mail("bob@mail.example.com")
	c.expect("x\r\n.", "250")
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := int64(after.HeapInuse-before.HeapInuse) / strangers; after.HeapInuse > before.HeapInuse && per > 32<<10 {
		t.Errorf("%d octets of heap for each silent client", per)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
}

func TestLMTP(t *testing.T) {
	each := &eachCollector{}
	f := start(t, func(o *Options) { o.LMTP, o.AcceptEach, o.Accept, o.Verbatim = true, each, nil, true })
	c := f.dial()
	c.reply()
	c.expect("EHLO x", "500")
	c.expect("LHLO x", "250-mail.example.com")
	c.mail("bob@mail.example.com", "alice@mail.example.com")
	c.send("verbatim\r\n.\r\n")
	if a, b := c.reply(), c.reply(); a != "250 2.0.0 saved" || b != "552 5.2.2 full" {
		t.Errorf("%q %q", a, b)
	}
	c.expect("QUIT", "221")
	if each.text != "verbatim\r\n" {
		t.Errorf("%q", each.text)
	}
}

type eachCollector struct{ text string }

func (e *eachCollector) AcceptEach(_ context.Context, mail *Mail) []Result {
	b, _ := mail.Content.Bytes()
	e.text = string(b)
	return []Result{{Reply: "250 2.0.0 saved"}, {Err: &Reply{Text: "552 5.2.2 full"}}}
}

func TestNewRefuses(t *testing.T) {
	mails, log := &collector{}, &logLines{}
	for name, change := range map[string]func(*Options){
		"open relay": func(o *Options) { o.Checker = nil }, "nobody accepts": func(o *Options) { o.Accept = nil },
		"need LMTP": func(o *Options) { o.Accept, o.AcceptEach = nil, &eachCollector{} }, "myhostname": func(o *Options) { o.Hostname = "" },
		"required": func(o *Options) { o.Spool = nil }, "certificate": func(o *Options) { o.WrapperMode = true },
	} {
		options := baseOptions(mails, log)
		change(&options)
		if _, err := New(options); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForeignClients(t *testing.T) {
	f := start(t, func(o *Options) {
		o.TLS, o.SASLAuthEnable, o.Auth = certificate(t), true, &fakeAuth{"alice", "secret"}
		o.BareNewline = smtp.BareNewlineReject
	})
	_, port, _ := net.SplitHostPort(f.address)
	script := `
import smtplib, ssl, sys
c = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=10)
x = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); x.check_hostname = False; x.verify_mode = ssl.CERT_NONE
c.starttls(context=x)
c.login("alice", "secret")
c.sendmail("a@example.org", ["x@example.net", "bob@mail.example.com"], "Subject: py\n\n.dot\n\nend", mail_options=["SIZE=100", "BODY=8BITMIME"], rcpt_options=["NOTIFY=NEVER"])
c.quit()`
	for name, args := range map[string][]string{
		"python3": {"-c", script, port},
		"swaks":   {"--server", "127.0.0.1", "--port", port, "--tls", "--auth", "LOGIN", "--au", "alice", "--ap", "secret", "--from", "s@example.org", "--to", "x@example.net"},
	} {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Logf("%s is not here", name)
			continue
		}
		before := len(f.mails.all())
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
		cancel()
		if err != nil || len(f.mails.all()) != before+1 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
