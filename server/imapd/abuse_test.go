package imapd

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"postilion/server/login/logintest"
	"postilion/store"
)

// abuse runs an attack by a client that logged in (or did not) while another is served.
func abuse(t *testing.T, r *rig, loggedIn bool, attack func(p *peer)) {
	t.Helper()
	_, addr := r.listen(t)
	other := selectedPeer(t, addr)
	var attacker *peer
	if loggedIn {
		attacker = selectedPeer(t, addr)
	} else {
		attacker = dial(t, addr)
		attacker.line()
	}
	_ = attacker.conn.SetDeadline(time.Now().Add(60 * time.Second))
	logintest.Abuse(t, other.conn, "o NOOP", "o OK", func() { attack(attacker) })
}

// pour writes a chunk so many times; what the server makes of it is told by the answer's last line. A server that hangs up is no error.
func (p *peer) pour(chunk string, times int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, p.r)
	}()
	for range times {
		if _, err := io.WriteString(p.conn, chunk); err != nil {
			break
		}
	}
	if conn, ok := p.conn.(*net.TCPConn); ok {
		_ = conn.CloseWrite()
	}
	<-done
}

func TestAbuseEndlessLines(t *testing.T) {
	for _, loggedIn := range []bool{false, true} {
		for _, chunk := range []string{"x", "a LOGIN ", "a LOGIN \"", "a SEARCH (", "a APPEND INBOX ", "a FETCH 1,", "a NOOP {0}\r\n", "+ \r\n", "\r\n"} {
			abuse(t, newRig(t), loggedIn, func(p *peer) { p.pour(strings.Repeat(chunk, 64<<10/len(chunk)), 100) })
		}
	}
}

// TestAbuseLiterals: sizes that no computer has, and sizes that one could have but must not be reserved.
func TestAbuseLiterals(t *testing.T) {
	r := newRig(t)
	r.opt.AppendLimit = 1 << 20
	abuse(t, r, false, func(p *peer) {
		for _, size := range []string{"99999999999999999999", "18446744073709551616", "18446744073709551615", "4294967296", "1000000000"} {
			p.write("a LOGIN {" + size + "}\r\n")
			if line := p.line(); !strings.HasPrefix(line, "a BAD") && !strings.HasPrefix(line, "* BYE") {
				t.Errorf("LOGIN {%s}: %q", size, line)
			} else if strings.HasPrefix(line, "* BYE") {
				return
			}
		}
	})
	abuse(t, r, true, func(p *peer) {
		for _, size := range []string{"99999999999999999999", "18446744073709551616", "18446744073709551615", "9223372036854775807", "1048577"} {
			p.write("a APPEND INBOX {" + size + "}\r\n")
			line := p.line()
			if strings.HasPrefix(line, "* BYE") {
				return
			}
			if !strings.HasPrefix(line, "a BAD") && !strings.HasPrefix(line, "a NO") {
				t.Errorf("APPEND {%s}: %q", size, line)
			}
		}
		// Many small ones, none of which is ever complete.
		for range 200 {
			p.write("a APPEND INBOX {1000000}\r\n")
			if line := p.line(); !strings.HasPrefix(line, "+") {
				return
			}
			p.write(strings.Repeat("x", 1000))
			return
		}
	})
}

// TestAbuseNestingAndTerms: deep parentheses and long lists of terms are refused or answered, and end.
func TestAbuseNestingAndTerms(t *testing.T) {
	r := newRig(t)
	for range 20 {
		deliver(t, r.store, "alice", store.Inbox, smallMail, 0)
	}
	abuse(t, r, true, func(p *peer) {
		for _, command := range []string{
			"SEARCH " + strings.Repeat("(", 10_000) + "ALL" + strings.Repeat(")", 10_000),
			"SEARCH " + strings.Repeat("NOT ", 10_000) + "ALL",
			"SEARCH " + strings.Repeat("OR ALL ", 8_000) + "ALL",
			"SEARCH" + strings.Repeat(" SUBJECT x", 6_000),
			"SEARCH" + strings.Repeat(" BODY x", 9_000),
			"FETCH 1:* " + strings.Repeat("(", 10_000) + "FLAGS" + strings.Repeat(")", 10_000),
			"FETCH 1:* (" + strings.TrimSpace(strings.Repeat("ENVELOPE ", 7_000)) + ")",
			"FETCH 1:* (BODY.PEEK[HEADER.FIELDS (" + strings.TrimSpace(strings.Repeat("x ", 20_000)) + ")])",
			"FETCH " + strings.TrimSuffix(strings.Repeat("1:*,", 15_000), ",") + " FLAGS",
			"LIST \"\" (" + strings.TrimSpace(strings.Repeat("*%*% ", 10_000)) + ")",
			"LIST \"\" " + strings.Repeat("*%", 20_000) + "x",
			"STORE 1:* +FLAGS (" + strings.TrimSpace(strings.Repeat("kw ", 15_000)) + ")",
			"STATUS INBOX (" + strings.TrimSpace(strings.Repeat("MESSAGES ", 5_000)) + ")",
			"SORT (" + strings.TrimSpace(strings.Repeat("REVERSE DATE ", 4_000)) + ") UTF-8 ALL",
		} {
			p.write("a " + command + "\r\n")
			last := lastLine(p.until("a "))
			if !strings.HasPrefix(last, "a OK") && !strings.HasPrefix(last, "a BAD") && !strings.HasPrefix(last, "a NO") {
				t.Errorf("%.40s: %q", command, last)
			}
		}
	})
}

// TestAbuseManyCommands: 5,000 commands in one write are answered in order.
func TestAbuseManyCommands(t *testing.T) {
	abuse(t, newRig(t), true, func(p *peer) {
		var text strings.Builder
		for n := range 5000 {
			fmt.Fprintf(&text, "c%d NOOP\r\n", n)
		}
		go func() { _, _ = io.WriteString(p.conn, text.String()) }()
		for n := range 5000 {
			if line, want := p.line(), fmt.Sprintf("c%d OK", n); !strings.HasPrefix(line, want) {
				t.Fatalf("%q instead of %s", line, want)
			}
		}
	})
}

// TestAbuseNeverRead: a client that asks for much and reads nothing is left behind.
func TestAbuseNeverRead(t *testing.T) {
	r := newRig(t)
	r.opt.WriteTimeout = 300 * time.Millisecond
	deliver(t, r.store, "alice", store.Inbox, smallMail+strings.Repeat(strings.Repeat("x", 998)+"\r\n", 2000), 0)
	log := &lockedWriter{}
	r.opt.Log = slog.New(slog.NewTextHandler(log, nil))
	abuse(t, r, true, func(p *peer) {
		for range 2000 {
			if _, err := io.WriteString(p.conn, "a FETCH 1 BODY.PEEK[]\r\n"); err != nil {
				return
			}
		}
		for end := time.Now().Add(30 * time.Second); !strings.Contains(log.String(), "Disconnected: Connection closed"); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Error("the server waits for ever")
				return
			}
		}
	})
}

// TestAbuseWrongPasswords: sixty tries on one connection let nobody in, and the right password still does elsewhere.
func TestAbuseWrongPasswords(t *testing.T) {
	abuse(t, newRig(t), false, func(p *peer) {
		for n := range 60 {
			p.write(fmt.Sprintf("a%d LOGIN alice wrong%d\r\n", n, n))
			line := p.line()
			if strings.HasPrefix(line, "* BYE") {
				return
			}
			if want := fmt.Sprintf("a%d NO [AUTHENTICATIONFAILED]", n); !strings.HasPrefix(line, want) {
				t.Fatalf("%q", line)
			}
		}
	})
}

// TestAbuseMIMEBombs: nested and wide messages are shown in bounded memory, and sections that deep are found or empty.
func TestAbuseMIMEBombs(t *testing.T) {
	r := newRig(t)
	var deep, wide strings.Builder
	for n := range 10_000 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", n, n)
	}
	wide.WriteString("Content-Type: multipart/mixed; boundary=b\r\n\r\n")
	for range 50_000 {
		wide.WriteString("--b\r\n\r\nx\r\n")
	}
	messages := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 10_000)
	for _, text := range []string{deep.String(), wide.String(), messages, "Content-Type: text/plain" + strings.Repeat("; a=b", 10_000) + "\r\n\r\n"} {
		deliver(t, r.store, "alice", store.Inbox, text, 0)
	}
	// The store keeps what it parsed.
	_, addr := r.listen(t)
	selectedPeer(t, addr).ask("FETCH 1:4 BODY")
	for _, command := range []string{
		"FETCH 1 BODYSTRUCTURE", "FETCH 2 BODYSTRUCTURE", "FETCH 3 BODYSTRUCTURE", "FETCH 4 BODYSTRUCTURE", "FETCH 1:4 BODY", "FETCH 1:4 ENVELOPE",
		"FETCH 1:4 BODY.PEEK[1" + strings.Repeat(".1", 20_000) + "]", "FETCH 1:4 BODY.PEEK[" + strings.Repeat("9", 5_000) + "]",
		"FETCH 1:4 BODY.PEEK[1" + strings.Repeat(".1", 9_000) + ".MIME]", "FETCH 2 BODY.PEEK[49999]", "FETCH 1:4 BODY.PEEK[HEADER.FIELDS (CONTENT-TYPE)]",
		"SEARCH BODY nothing", "SEARCH HEADER CONTENT-TYPE b7", "FETCH 1:4 (BINARY.SIZE[1.1.1] BINARY.PEEK[1])", "FETCH 1:4 PREVIEW",
	} {
		t.Run(command[:min(len(command), 40)], func(t *testing.T) {
			abuse(t, r, true, func(p *peer) { p.ask(command) })
		})
	}
}

// ask gives a command whose answer may have long lines, and reads its end.
func (p *peer) ask(command string) {
	if _, err := io.WriteString(p.conn, "a "+command+"\r\n"); err != nil {
		p.t.Fatal(err)
	}
	for last := ""; ; {
		line, prefix, err := p.r.ReadLine()
		if err != nil {
			p.t.Errorf("%.40s: %v", command, err)
			return
		}
		if last = ""; !prefix && len(line) < 200 {
			last = string(line)
		}
		if strings.HasPrefix(last, "a OK") || strings.HasPrefix(last, "a BAD") || strings.HasPrefix(last, "a NO") {
			return
		}
	}
}

// TestAbuseHalfOpen: clients that went away without a word, in the middle of a command, a literal or an exchange, are forgotten in time.
func TestAbuseHalfOpen(t *testing.T) {
	r := newRig(t)
	r.opt.LoginTimeout, r.opt.IdleTimeout = 300*time.Millisecond, 300*time.Millisecond
	srv, addr := r.listen(t)
	for _, text := range []string{"", "a", "a LOGIN {3}\r\nal", "a AUTHENTICATE PLAIN\r\n", "a LOGIN alice pw\r\nb SELECT", "a LOGIN alice pw\r\nb APPEND INBOX {10}\r\nabc", "a LOGIN alice pw\r\nb SELECT INBOX\r\nc IDLE\r\n"} {
		for range 20 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, text)
		}
	}
	for end := time.Now().Add(30 * time.Second); srv.Sessions() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d sessions stay", srv.Sessions())
		}
	}
}
