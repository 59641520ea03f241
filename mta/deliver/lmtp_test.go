package deliver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/mail/envelope"
	"postilion/mail/message"
)

// lmtpServer answers each command line by a script; it notes what it heard.
type lmtpServer struct {
	listener net.Listener
	// answer returns what is written for a line, and whether the connection is closed then. body is set for the line that ends a message.
	answer func(line string, body string) (reply string, end bool)
	// greeting is written first.
	greeting string

	mutex       sync.Mutex
	heard       []string
	connections int
	group       sync.WaitGroup
	open        map[net.Conn]bool
}

// ordinary is a server that takes everything.
func ordinary(line, _ string) (string, bool) {
	switch verb := strings.ToUpper(strings.Fields(line + " x")[0]); verb {
	case "LHLO":
		return "250-lmtp.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-XFORWARD NAME ADDR HELO\r\n250-SIZE 100000\r\n250 ENHANCEDSTATUSCODES\r\n", false
	case "DATA":
		return "354 go\r\n", false
	case ".":
		return "250 2.0.0 <x> saved\r\n", false
	case "QUIT":
		return "221 bye\r\n", true
	}
	return "250 2.1.0 ok\r\n", false
}

func serveLMTP(t testing.TB, greeting string, answer func(line, body string) (string, bool)) *lmtpServer {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &lmtpServer{listener: listener, greeting: greeting, answer: answer, open: map[net.Conn]bool{}}
	s.group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mutex.Lock()
			s.connections++
			s.open[conn] = true
			s.mutex.Unlock()
			s.group.Go(func() { s.session(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		s.mutex.Lock()
		for conn := range s.open {
			_ = conn.Close()
		}
		s.mutex.Unlock()
		s.group.Wait()
	})
	return s
}

func (s *lmtpServer) session(conn net.Conn) {
	defer conn.Close()
	_, _ = io.WriteString(conn, s.greeting)
	in := bufio.NewReader(conn)
	var body *strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		text := ""
		if body != nil {
			if line != "." {
				body.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
				if reply, end := s.answer("during data", ""); end || strings.HasPrefix(reply, "4") {
					_, _ = io.WriteString(conn, reply)
					return
				}
				continue
			}
			text, body = body.String(), nil
		}
		s.mutex.Lock()
		s.heard = append(s.heard, line)
		if text != "" {
			s.heard = append(s.heard, "body:"+text)
		}
		s.mutex.Unlock()
		reply, end := s.answer(line, text)
		if _, err := io.WriteString(conn, reply); err != nil || end {
			return
		}
		if strings.EqualFold(line, "DATA") && strings.HasPrefix(reply, "3") {
			body = &strings.Builder{}
		}
	}
}

func (s *lmtpServer) said() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return strings.Join(s.heard, "|")
}

func (s *lmtpServer) nexthop() string { return "inet:" + s.listener.Addr().String() }

// agentFor has every time-out so short that a test can wait for it.
func agentFor(t testing.TB, log io.Writer, change func(*LMTPOptions)) *LMTP {
	t.Helper()
	short := 300 * time.Millisecond
	o := LMTPOptions{
		Program: "postfix/lmtp", Log: slog.New(slog.NewTextHandler(log, nil)), Hostname: "mail.test", LHLO: "mail.test", Port: "24", LineLengthLimit: 998,
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			address, err := netip.ParseAddr(host)
			return []netip.Addr{address}, err
		},
		Concurrency: 2, Processes: 4,
		Connect: short, Hello: short, StartTLS: short, XForwardTimeout: short, Mail: short, Rcpt: short, DataInit: short, DataTransfer: short,
		DataDone: short, Reset: short, Quit: short, CacheTime: time.Second, ReuseTime: time.Minute,
	}
	if change != nil {
		change(&o)
	}
	agent := NewLMTP(o)
	t.Cleanup(agent.Close)
	return agent
}

func jobFor(nexthop, text string, recipients ...string) *Job {
	e := &envelope.Envelope{QueueID: "Q1", Sender: "s@example.org", Arrival: time.Now(), Client: envelope.Client{Name: "c.example", Address: "192.0.2.1", Port: "9", Helo: "c", Protocol: "ESMTP"}}
	for _, r := range recipients {
		e.Recipients = append(e.Recipients, envelope.Recipient{Address: r})
	}
	return &Job{Envelope: e, Content: bytes.NewReader([]byte(text)), Structure: message.Parse([]byte(text)), Nexthop: nexthop, Given: recipients}
}

func TestLMTPDelivers(t *testing.T) {
	s := serveLMTP(t, "220 hi\r\n", ordinary)
	var log bytes.Buffer
	agent := agentFor(t, &log, func(o *LMTPOptions) { o.XForward = true })
	for range 2 {
		o := agent.Deliver(t.Context(), jobFor(s.nexthop(), "Subject: x\r\n\r\n.dot\r\n"+strings.Repeat("y", 1000)+"\r\n", "bob@test"))
		if o[0].Status != Sent || o[0].DSN != "2.0.0" || o[0].ReplyText() != "250 2.0.0 250 2.0.0 <x> saved" && o[0].Text != "250 2.0.0 <x> saved" {
			t.Fatalf("%+v", o[0])
		}
	}
	once := "XFORWARD NAME=c.example ADDR=192.0.2.1 HELO=c|MAIL FROM:<s@example.org> SIZE=1022|RCPT TO:<bob@test>|DATA|.|body:Subject: x\r\n\r\n.dot\r\n" +
		strings.Repeat("y", 998) + "\r\n yy\r\n"
	if got, want := s.said(), "LHLO mail.test|"+once+"|"+once; got != want {
		t.Errorf("the server heard\n%s\nnot\n%s", got, want)
	}
	if s.connections != 1 {
		t.Errorf("%d connections for two messages", s.connections)
	}
	address := s.listener.Addr().String()
	host, port, _ := strings.Cut(address, ":")
	if want := fmt.Sprintf("Q1: to=<bob@test>, relay=%s[%s]:%s, delay=0", host, host, port); !strings.Contains(log.String(), want) ||
		!strings.Contains(log.String(), "dsn=2.0.0, status=sent (250 2.0.0 <x> saved)") {
		t.Errorf("log: %s", log.String())
	}
}

// TestLMTPServerMisbehaves: whatever a server does, there is an answer in time, and never one that claims a delivery.
func TestLMTPServerMisbehaves(t *testing.T) {
	except := func(verb, reply string, end bool) func(line, body string) (string, bool) {
		return func(line, body string) (string, bool) {
			if strings.HasPrefix(strings.ToUpper(line), verb) {
				return reply, end
			}
			return ordinary(line, body)
		}
	}
	// silent answers nothing from some command on.
	silent := func(verb string) func(line, body string) (string, bool) {
		stuck := false
		return func(line, body string) (string, bool) {
			if stuck = stuck || strings.HasPrefix(strings.ToUpper(line), verb); stuck {
				return "", false
			}
			return ordinary(line, body)
		}
	}
	endless := strings.Repeat("250-x\r\n", 5000)
	for _, row := range []struct {
		name, greeting string
		answer         func(line, body string) (string, bool)
		dsn, text      string
	}{
		{"says nothing", "", ordinary, "4.4.2", "conversation with HOST timed out while receiving the initial server greeting"},
		{"greets slowly", "22", ordinary, "4.4.2", "conversation with HOST timed out while receiving the initial server greeting"},
		{"greets with nonsense", "hello\r\n", ordinary, "4.5.0", "protocol error of HOST"},
		{"greets for ever", strings.Repeat("220-x\r\n", 5000), ordinary, "4.5.0", "protocol error of HOST"},
		{"is busy", "421 4.3.2 later\r\n", ordinary, "4.3.2", "host HOST refused to talk to me: 421 4.3.2 later"},
		{"is no mail server", "554 no\r\n", ordinary, "4.0.0", "host HOST refused to talk to me: 554 no"},
		{"two greetings", "220 a\r\n220 b\r\n", ordinary, "4.5.0", "talks out of turn"},
		{"hangs at LHLO", "220 a\r\n", except("LHLO", "", false), "4.4.2", "conversation with HOST timed out while performing the LHLO handshake"},
		{"closes at LHLO", "220 a\r\n", except("LHLO", "", true), "4.4.2", "lost connection with HOST while performing the LHLO handshake"},
		{"refuses LHLO", "220 a\r\n", except("LHLO", "500 5.5.1 what\r\n", false), "4.5.1", "refused to talk to me"},
		{"endless LHLO", "220 a\r\n", except("LHLO", endless, false), "4.5.0", "protocol error"},
		{"hangs at MAIL", "220 a\r\n", silent("MAIL"), "4.4.2", "timed out while sending MAIL FROM"},
		{"hangs at RCPT", "220 a\r\n", silent("RCPT"), "4.4.2", "timed out while sending RCPT TO"},
		{"hangs at DATA", "220 a\r\n", silent("DATA"), "4.4.2", "timed out while sending DATA command"},
		{"hangs at the end", "220 a\r\n", except(".", "", false), "4.4.2", "timed out while sending end of data -- message may be sent more than once"},
		{"closes at MAIL", "220 a\r\n", except("MAIL", "", true), "4.4.2", "lost connection with HOST while sending MAIL FROM"},
		{"closes at the end", "220 a\r\n", except(".", "", true), "4.4.2", "lost connection with HOST while sending end of data -- message may be sent more than once"},
		{"endless at the end", "220 a\r\n", except(".", endless, false), "4.5.0", "protocol error"},
		{"half a reply", "220 a\r\n", except(".", "250-x\r\n", false), "4.4.2", "timed out while sending end of data"},
		{"nonsense at the end", "220 a\r\n", except(".", "ok\r\n", false), "4.5.0", "protocol error"},
		{"a challenge at the end", "220 a\r\n", except(".", "354 more\r\n", false), "4.5.0", "in reply to end of DATA command"},
		{"two replies for one", "220 a\r\n", except("MAIL", "250 a\r\n250 b\r\n", false), "4.5.0", ""},
		{"DATA is done at once", "220 a\r\n", except("DATA", "250 done\r\n", false), "4.5.0", "in reply to DATA command"},
		{"a reply before its time", "220 a\r\n", except("DATA", "354 go\r\n250 done\r\n", false), "4.5.0", "talks out of turn"},
		{"refuses the sender", "220 a\r\n", except("MAIL", "550 5.7.1 no\r\n", false), "5.7.1", "(in reply to MAIL FROM command)"},
		{"refuses the recipient", "220 a\r\n", except("RCPT", "550-5.1.1 no\r\n550 5.1.1 such\r\n", false), "5.1.1", "host HOST said: 550 5.1.1 no 5.1.1 such (in reply to RCPT TO command)"},
		{"is full", "220 a\r\n", except(".", "452 4.2.2 full\r\n", false), "4.2.2", "(in reply to end of DATA command)"},
		{"ends the session", "220 a\r\n", except(".", "421 4.3.2 shutting down\r\n", true), "4.3.2", "(in reply to end of DATA command)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := serveLMTP(t, row.greeting, row.answer)
			agent := agentFor(t, io.Discard, nil)
			o := agent.Deliver(t.Context(), jobFor(s.nexthop(), "Subject: x\r\n\r\nb\r\n", "bob@test"))[0]
			address := s.listener.Addr().String()
			host, port, _ := strings.Cut(address, ":")
			text := strings.ReplaceAll(row.text, "HOST", host+"["+host+"]:"+port)
			if o.Status == Sent || o.DSN != row.dsn || !strings.Contains(o.Text, text) {
				t.Errorf("%v %s %q, want %s %q", o.Status, o.DSN, o.Text, row.dsn, text)
			}
			if reply := o.ReplyText(); o.Status == Deferred && reply[0] != '4' || o.Status == Bounced && reply[0] != '5' || strings.HasPrefix(reply, "421") {
				t.Errorf("our client is told %q", reply)
			}
		})
	}
}

func TestLMTPReplyIsPassedOn(t *testing.T) {
	s := serveLMTP(t, "220 a\r\n", func(line, body string) (string, bool) {
		if line == "." {
			return "552-5.2.2 full\r\n552 and\x07 more\r\n", false
		}
		return ordinary(line, body)
	})
	o := agentFor(t, io.Discard, nil).Deliver(t.Context(), jobFor(s.nexthop(), "\r\n", "bob@test"))[0]
	if want := "552 5.2.2 full\n552 5.2.2 and? more"; o.ReplyText() != want {
		t.Errorf("%q", o.ReplyText())
	}
}

// TestLMTPServerDoesNotRead: one that takes no octets of a message keeps nobody longer than lmtp_data_xfer_timeout.
func TestLMTPServerDoesNotRead(t *testing.T) {
	agent := agentFor(t, io.Discard, nil)
	release := make(chan struct{})
	defer close(release)
	answers := []string{"250 a\r\n", "250 a\r\n", "354 a\r\n"}
	s := serveLMTP(t, "220 a\r\n", func(line, _ string) (string, bool) {
		if strings.HasPrefix(line, "LHLO") {
			return "250 x\r\n", false
		}
		if len(answers) == 0 {
			<-release
			return "", true
		}
		next := answers[0]
		answers = answers[1:]
		return next, false
	})
	text := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("z", 70)+"\r\n", 400_000)
	o := agent.Deliver(t.Context(), jobFor(s.nexthop(), text, "bob@test"))[0]
	if o.Status != Deferred || !strings.Contains(o.Text, "while sending message body") {
		t.Errorf("%+v", o)
	}
}

// TestLMTPConnectionClosedMeanwhile: a kept connection that the server has closed costs nothing but a new one.
func TestLMTPConnectionClosedMeanwhile(t *testing.T) {
	s := serveLMTP(t, "220 a\r\n", func(line, body string) (string, bool) {
		reply, end := ordinary(line, body)
		return reply, end || line == "."
	})
	agent := agentFor(t, io.Discard, nil)
	for range 3 {
		if o := agent.Deliver(t.Context(), jobFor(s.nexthop(), "\r\n", "bob@test"))[0]; o.Status != Sent {
			t.Errorf("%+v", o)
		}
	}
	if s.connections != 3 {
		t.Errorf("%d connections", s.connections)
	}
}

func TestLMTPKeepsOrderAfterARefusal(t *testing.T) {
	s := serveLMTP(t, "220 a\r\n", func(line, body string) (string, bool) {
		if strings.Contains(line, "<no@test>") {
			return "550 5.1.1 no\r\n", false
		}
		return ordinary(line, body)
	})
	agent := agentFor(t, io.Discard, nil)
	for _, to := range []string{"no@test", "bob@test"} {
		agent.Deliver(t.Context(), jobFor(s.nexthop(), "\r\n", to))
	}
	if !strings.Contains(s.said(), "|RSET|MAIL FROM") || s.connections != 1 {
		t.Errorf("%d connections: %s", s.connections, s.said())
	}
}

func TestLMTPUnreachable(t *testing.T) {
	agent := agentFor(t, io.Discard, func(o *LMTPOptions) { o.QueueDirectory = t.TempDir() })
	for nexthop, want := range map[string]string{
		"unix:private/none":    "connect to mail.test[private/none]: No such file or directory",
		"inet:127.0.0.1:1":     "connect to 127.0.0.1[127.0.0.1]:1: Connection refused",
		"inet:[127.0.0.1]:1":   "connect to 127.0.0.1[127.0.0.1]:1: Connection refused",
		"inet:127.0.0.1:bogus": "unknown service",
		"":                     "no destination",
	} {
		o := agent.Deliver(t.Context(), jobFor(nexthop, "\r\n", "bob@test"))[0]
		if o.Status != Deferred || o.Relay != "none" || !strings.Contains(o.Text, want) || !strings.HasPrefix(o.ReplyText(), "451 4.") {
			t.Errorf("%s: %+v", nexthop, o)
		}
	}
}

// TestLMTPWaitEnds: when all connections are in use, the wait ends with the context.
func TestLMTPWaitEnds(t *testing.T) {
	s := serveLMTP(t, "", ordinary)
	agent := agentFor(t, io.Discard, func(o *LMTPOptions) { o.Concurrency, o.Hello = 1, 5*time.Second })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() {
			if o := agent.Deliver(ctx, jobFor(s.nexthop(), "\r\n", "bob@test"))[0]; o.Status != Deferred {
				t.Errorf("%+v", o)
			}
		})
	}
	group.Wait()
	if s.connections > 1 {
		t.Errorf("%d connections at a time", s.connections)
	}
}

const multipart8Bit = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\npre\r\n" +
	"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nw\xc3\xbcrde =\r\n--b\r\n\r\nplain\r\n--b--\r\n"

func TestLMTPServerWithout8BitMIME(t *testing.T) {
	plain := func(line, body string) (string, bool) {
		if strings.HasPrefix(line, "LHLO") {
			return "250 lmtp.test\r\n", false
		}
		return ordinary(line, body)
	}
	s := serveLMTP(t, "220 a\r\n", plain)
	agent := agentFor(t, io.Discard, nil)
	job := jobFor(s.nexthop(), multipart8Bit, "bob@test")
	job.Envelope.Body = envelope.EightBitMIME
	if o := agent.Deliver(t.Context(), job)[0]; o.Status != Sent {
		t.Fatalf("%+v", o)
	}
	want := "body:Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\npre\r\n" +
		"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nw=C3=BCrde =3D\r\n--b\r\n\r\nplain\r\n--b--\r\n"
	if got := s.said(); !strings.HasSuffix(got, want) || !strings.Contains(got, "|MAIL FROM:<s@example.org>|") {
		t.Errorf("%q", got)
	}
	job = jobFor(s.nexthop(), "Subject: x\r\n\r\n", "b\xc3\xb6b@test")
	job.Envelope.UTF8 = true
	if o := agent.Deliver(t.Context(), job)[0]; o.Status != Bounced || o.DSN != "5.6.7" {
		t.Errorf("%+v", o)
	}
}

// TestPlanKeepsForeignRecipientsApart: what one answer cannot be true for is not taken together.
func TestPlanKeepsForeignRecipientsApart(t *testing.T) {
	for _, row := range []struct{ recipients, replies string }{
		{"alice@example.com bob@example.com", "- -"},
		{"x@out.example y@out.example", "- 452"},
		{"x@out.example x@out.example", "- -"},
		{"x@out.example alice@example.com", "- 452"},
		{"alice@example.com x@out.example", "- 452"},
		{"x@hole.example x@out.example y@hole.example", "- - -"},
		{"x@out.example y@out.example z@hole.example alice@example.com", "- 452 - 452"},
		{"x@gone.example x@out.example", "- -"},
	} {
		o := newOffice(t)
		plan := o.acceptor(t).Plan()
		var got []string
		for _, r := range strings.Fields(row.recipients) {
			reply := plan.Add(t.Context(), r)
			if reply == "" {
				reply = "-"
			}
			got = append(got, reply[:min(3, len(reply))])
		}
		if strings.Join(got, " ") != row.replies {
			t.Errorf("%s: %v", row.recipients, got)
		}
	}
}

func TestVerify(t *testing.T) {
	for address, want := range map[string]Status{
		"alice@example.com": Sent, "nobody@example.com": Bounced, "down@example.com": Deferred, "x@gone.example": Bounced, "x@hole.example": Sent,
		"x@out.example": Deferred, "x@far.example": Deferred,
	} {
		if got, reason := newOffice(t).acceptor(t).Verify(t.Context(), address); got != want {
			t.Errorf("%s: %v (%s)", address, got, reason)
		}
	}
}

func TestDelayText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 4 * time.Millisecond: "0", 5 * time.Millisecond: "0.01", 50 * time.Millisecond: "0.05", 100 * time.Millisecond: "0.1",
		994 * time.Millisecond: "0.99", 999 * time.Millisecond: "1", 3240 * time.Millisecond: "3.2", 9960 * time.Millisecond: "10", 123 * time.Second: "123",
	} {
		if got := delayText(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
