package service_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// abuserMemory is how much one abuser may make the server hold.
const abuserMemory = 10 << 20

// abused runs an attack on a server and holds it to two promises: its memory stays bounded, and others are served meanwhile.
func (s *system) abused(attack func()) {
	s.t.Helper()
	// What the first clients make the server set up is not the abuser's.
	s.served()
	s.served()
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	base, peak := live(), int64(0)
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				peak = max(peak, live()-base)
				s.served()
			}
		}
	})
	attack()
	close(done)
	group.Wait()
	peak = max(peak, live()-base)
	if peak > abuserMemory {
		s.t.Errorf("the attack made the heap grow by %d octets", peak)
	}
	s.served()
}

// served checks that the next client is greeted and answered.
func (s *system) served() {
	w, err := s.greetSMTP("smtp")
	if err != nil {
		s.t.Errorf("another client is not served: %v", err)
		return
	}
	defer w.close()
	if err := w.smtp("QUIT", "221"); err != nil {
		s.t.Error(err)
	}
}

const abuseMain = "smtpd_error_sleep_time = 0\nrelay_domains = sink.test\ntransport_maps = inline:{ sink.test=discard:gone }\nmessage_size_limit = 20480000\n"

// sinkMail begins a message to nowhere.
const sinkMail = "MAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<x@sink.test>\r\nDATA\r\n"

// TestAbuseBySize sends what is too much of something. The replies are those of Postfix.
func TestAbuseBySize(t *testing.T) {
	s := start(t, setting{accounts: 2, main: abuseMain})
	repeat := func(text string, size int) io.Reader { return io.LimitReader(&endless{text: text}, int64(size)) }
	nested := func(depth int) string {
		var b strings.Builder
		for i := range depth {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
		}
		return b.String()
	}
	text := func(parts ...string) io.Reader { return strings.NewReader(strings.Join(parts, "")) }
	for _, row := range []struct {
		name string
		send []io.Reader
		// want is the last reply.
		want string
	}{
		{"a line of 100 MB before EHLO", []io.Reader{repeat("x", 100<<20), text("\r\n")}, "500 5.5.2 Error: command not recognized"},
		{"a line of 100 MB in a message", []io.Reader{text(sinkMail, "\r\n"), repeat("x", 100<<20), text("\r\n.\r\n")}, "552 5.3.4 Error: message file too big"},
		{"a header of 10 MB", []io.Reader{text(sinkMail, "Subject: "), repeat("x", 10<<20), text("\r\n\r\n.\r\n")}, "250 2.0.0 Ok: queued"},
		{"headers of 10 MB", []io.Reader{text(sinkMail), repeat("X-Some: header\r\n", 10<<20/16*16), text("\r\n.\r\n")}, "250 2.0.0 Ok: queued"},
		{"a folded header of 10 MB", []io.Reader{text(sinkMail, "Subject: x\r\n"), repeat(" more\r\n", 10<<20/7*7), text("\r\n.\r\n")}, "250 2.0.0 Ok: queued"},
		{"10 MB of recipients in a header", []io.Reader{text(sinkMail, "To: a@b.test"), repeat(",\r\n a@b.test", 10<<20/13*13), text("\r\n\r\n.\r\n")}, "250 2.0.0 Ok: queued"},
		{
			"50,000 parts", []io.Reader{
				text(sinkMail, "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"),
				repeat("--b\r\nContent-Type: text/plain\r\n\r\nx\r\n", 36*50_000), text("--b--\r\n.\r\n"),
			}, "250 2.0.0 Ok: queued",
		},
		{"10,000 parts in each other", []io.Reader{text(sinkMail, "MIME-Version: 1.0\r\n", nested(10_000), ".\r\n")}, "250 2.0.0 Ok: queued"},
		{"10,000 messages in each other", []io.Reader{text(sinkMail), repeat("Content-Type: message/rfc822\r\n\r\n", 32*10_000), text(".\r\n")}, "250 2.0.0 Ok: queued"},
		{"a chunk of 20 digits", []io.Reader{text("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@sink.test>\r\nBDAT 99999999999999999999 LAST\r\n")}, "5"},
		{"a size of 20 digits", []io.Reader{text("MAIL FROM:<a@b.test> SIZE=99999999999999999999\r\n")}, "552 5.3.4 Message size exceeds file system imposed limit"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &system{t: t, dir: s.dir, ports: s.ports, log: s.log, server: s.server}
			s.abused(func() {
				w, err := s.greetSMTP("smtp")
				if err != nil {
					t.Fatal(err)
				}
				defer w.close()
				var last string
				replies := make(chan string, 100)
				go func() {
					defer close(replies)
					for {
						reply, err := w.reply()
						if err != nil {
							return
						}
						replies <- reply
					}
				}()
				for _, r := range row.send {
					if _, err := io.CopyBuffer(struct{ io.Writer }{w.conn}, struct{ io.Reader }{r}, make([]byte, 64<<10)); err != nil {
						t.Fatal(err)
					}
				}
				for last = range replies {
					if !strings.HasPrefix(last, "250 2.1.") && !strings.HasPrefix(last, "354") {
						break
					}
				}
				if !strings.HasPrefix(last, row.want) {
					t.Errorf("%q, want %q", last, row.want)
				}
			})
		})
	}
}

// endless reads the same text again and again.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		c := copy(p[n:], e.text[e.at:])
		n += c
		e.at = (e.at + c) % len(e.text)
	}
	return len(p), nil
}

// TestAbuseByRecipients names 5,000 recipients in one write: a thousand are taken, a thousand more are put off, then errors end the session.
func TestAbuseByRecipients(t *testing.T) {
	s := start(t, setting{accounts: 1, main: abuseMain})
	s.abused(func() {
		w, err := s.greetSMTP("smtp")
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		var b strings.Builder
		b.WriteString("MAIL FROM:<a@elsewhere.example>\r\n")
		for i := range 5000 {
			fmt.Fprintf(&b, "RCPT TO:<u0+%d@%s>\r\n", i, domain)
		}
		go func() { _, _ = io.WriteString(w.conn, b.String()) }()
		counts := map[string]int{}
		for {
			reply, err := w.reply()
			if err != nil {
				break
			}
			counts[reply[:min(9, len(reply))]]++
		}
		if counts["250 2.1.5"] != 1000 || counts["452 4.5.3"] < 1000 || counts["421 4.7.0"] != 1 {
			t.Errorf("%v", counts)
		}
	})
}

// TestAbuseByNotReading sends commands and reads no replies.
func TestAbuseByNotReading(t *testing.T) {
	s := start(t, setting{accounts: 1, main: abuseMain + "smtpd_junk_command_limit = 1000000000\nsmtpd_timeout = 2s\n"})
	s.abused(func() {
		w, err := s.greetSMTP("smtp")
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		_, err = io.CopyN(w.conn, &endless{text: "NOOP\r\n"}, 1<<30)
		if err == nil {
			t.Error("a gigabyte of commands was taken without anybody reading the replies")
		}
	})
}

// TestAbuseByPasswords: sixty wrong passwords cost the one who tries them, and the right one of another account is taken meanwhile.
func TestAbuseByPasswords(t *testing.T) {
	s := start(t, setting{accounts: 2, main: abuseMain})
	plain := func(name, password string) string {
		return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+password))
	}
	s.abused(func() {
		var guessers []*wire
		defer func() {
			for _, w := range guessers {
				w.close()
			}
		}()
		for try := range 60 {
			w, err := s.greetSMTP("submissions")
			if err != nil {
				t.Fatal(err)
			}
			guessers = append(guessers, w)
			if err := w.send(plain(user(0), fmt.Sprint("wrong", try)) + "\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		other, err := s.dialFrom("submissions", "127.0.0.9")
		if err != nil {
			t.Fatal(err)
		}
		defer other.close()
		for _, step := range [][2]string{{"", "220"}, {"EHLO c", "250"}, {plain(user(1), pass), "235"}, {"QUIT", "221"}} {
			if err := other.smtp(step[0], step[1]); err != nil {
				t.Error(err)
			}
		}
		if waited := time.Since(began); waited > patience/2 {
			t.Errorf("the right password of another user took %v", waited)
		}
		if err := guessers[0].smtp("", "535 5.7.8"); err != nil {
			t.Error(err)
		}
	})
	if !strings.Contains(s.log.String(), "SASL PLAIN authentication failed: (reason unavailable), sasl_username="+user(0)) {
		t.Error("no line tells of the wrong passwords")
	}
}

// TestAbuseByInjection: what a third party put behind STARTTLS is not taken for the client's.
func TestAbuseByInjection(t *testing.T) {
	s := start(t, setting{accounts: 1, main: abuseMain})
	for _, injected := range []string{"MAIL FROM:<evil@elsewhere.example>\r\n", "NOOP\r\nNOOP\r\n", "EHLO evil\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<" + user(0) + ">\r\nDATA\r\n"} {
		w, err := s.greetSMTP("smtp")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.send("STARTTLS\r\n" + injected); err != nil {
			t.Fatal(err)
		}
		if got, err := w.reply(); err != nil || !strings.HasPrefix(got, "220") {
			t.Fatalf("%q, %v", got, err)
		}
		secure := tls.Client(w.conn, &tls.Config{InsecureSkipVerify: true})
		inside := newWire(t, secure)
		for _, step := range [][2]string{{"EHLO client", "250"}, {"MAIL FROM:<a@elsewhere.example>", "250 2.1.0"}, {"RSET", "250 2.0.0"}, {"QUIT", "221"}} {
			if err := inside.smtp(step[0], step[1]); err != nil {
				t.Error(err)
			}
		}
		w.close()
	}
}

// stranger opens a connection that will never do anything useful. Many addresses share the strangers, as limits per address would stop one.
func (s *system) stranger(network, address string, n int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: patience}
	if network == "tcp4" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}
	}
	return dialer.Dial(network, address)
}

// TestAbuseByStrangers: 2,000 clients that do nothing, or next to nothing, keep nobody out, on any port.
func TestAbuseByStrangers(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	s := start(t, setting{accounts: 1, main: abuseMain})
	const strangers = 2000
	message := "EHLO c\r\n" + sinkMail
	for _, port := range []struct{ name, network, address string }{
		{"smtp", "tcp4", s.address("smtp")},
		{"submission", "tcp4", s.address("submission")},
		{"submissions", "tcp4", s.address("submissions")},
		{"lmtp", "unix", filepath.Join(s.dir, "spool/private/dovecot-lmtp")},
	} {
		for _, habit := range []string{"idle", "trickle", "blocked"} {
			if habit == "blocked" && port.name == "submissions" {
				// Not before the handshake; it is the same session then.
				continue
			}
			t.Run(port.name+"/"+habit, func(t *testing.T) {
				conns := make([]net.Conn, 0, strangers)
				defer func() {
					for _, c := range conns {
						_ = c.Close()
					}
				}()
				stop := make(chan struct{})
				var group sync.WaitGroup
				defer group.Wait()
				defer close(stop)
				for n := range strangers {
					c, err := s.stranger(port.network, port.address, n)
					if err != nil {
						t.Fatalf("stranger %d: %v", n, err)
					}
					conns = append(conns, c)
				}
				switch habit {
				case "trickle":
					hello := message
					if port.name == "lmtp" {
						hello = strings.Replace(message, "EHLO", "LHLO", 1)
					}
					for _, c := range conns {
						_, _ = io.WriteString(c, hello)
					}
					group.Go(func() { trickleAll(conns, stop) })
				case "blocked":
					flood := bytes.Repeat([]byte("NOOP\r\n"), 20_000)
					// As many as the server takes at a time, and some: the time they cost it is not what is tested.
					blocked := 1200
					if port.name == "lmtp" {
						blocked = 150
					}
					for _, c := range conns[strangers-blocked:] {
						_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
						_, _ = c.Write(flood[:64<<10])
					}
				}
				for range 20 {
					nextClient(t, s, port.name, port.network, port.address)
				}
			})
		}
	}
}

// trickleAll sends an octet on every connection from time to time.
func trickleAll(conns []net.Conn, stop chan struct{}) {
	for {
		for _, c := range conns {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(c, "x")
		}
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// nextClient is somebody who has something to say.
func nextClient(t *testing.T, s *system, name, network, address string) {
	t.Helper()
	began := time.Now()
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(began.Add(patience)); err != nil {
		t.Fatal(err)
	}
	if name == "submissions" {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	w := newWire(t, conn)
	hello := "EHLO c"
	if name == "lmtp" {
		hello = "LHLO c"
	}
	for _, step := range [][2]string{{"", "220"}, {hello, "250"}, {"NOOP", "250"}, {"QUIT", "221"}} {
		if err := w.smtp(step[0], step[1]); err != nil {
			t.Fatalf("the next client is kept out after %v: %v", time.Since(began), err)
		}
	}
}
