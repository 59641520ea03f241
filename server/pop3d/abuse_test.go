package pop3d

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"postilion/server/login/logintest"
)

// abuse runs an attack by a client that logged in (or did not) while another is served.
func abuse(t *testing.T, r *rig, loggedIn bool, attack func(p *peer)) {
	t.Helper()
	_, addr := r.listen(t)
	other := logIn(t, addr, "bob")
	attacker := dial(t, addr)
	if loggedIn {
		attacker.do("USER alice")
		attacker.do("PASS pw")
	}
	_ = attacker.conn.SetDeadline(time.Now().Add(60 * time.Second))
	logintest.Abuse(t, other.conn, "NOOP", "+OK", func() { attack(attacker) })
}

func TestAbuseEndlessLines(t *testing.T) {
	for _, loggedIn := range []bool{false, true} {
		for _, chunk := range []string{"x", "USER ", "AUTH PLAIN =", "AUTH PLAIN\r\n", "RETR 1", "TOP 1 ", "\r\n", "NOOP\r\n"} {
			abuse(t, newRig(t), loggedIn, func(p *peer) {
				text := strings.Repeat(chunk, 64<<10/len(chunk))
				go func() {
					for range 100 {
						if _, err := io.WriteString(p.conn, text); err != nil {
							break
						}
					}
					if conn, ok := p.conn.(*net.TCPConn); ok {
						_ = conn.CloseWrite()
					}
				}()
				_, _ = io.Copy(io.Discard, p.r)
			})
		}
	}
}

// TestAbuseManyCommands: 5,000 commands in one write are answered in order.
func TestAbuseManyCommands(t *testing.T) {
	r := newRig(t)
	r.deliver(t, "alice", smallMail)
	abuse(t, r, true, func(p *peer) {
		go func() { _, _ = io.WriteString(p.conn, strings.Repeat("STAT\r\nLIST 1\r\n", 2500)) }()
		for range 2500 {
			wantPrefix(t, p.line(), "+OK 1 ")
			wantPrefix(t, p.line(), "+OK 1 ")
		}
	})
}

// TestAbuseNeverRead: a client that asks for much and reads nothing is left behind.
func TestAbuseNeverRead(t *testing.T) {
	r := newRig(t)
	r.opt.WriteTimeout = 300 * time.Millisecond
	log := &lockedWriter{}
	r.opt.Log = slog.New(slog.NewTextHandler(log, nil))
	r.deliver(t, "alice", smallMail+strings.Repeat(strings.Repeat("x", 998)+"\r\n", 2000))
	abuse(t, r, true, func(p *peer) {
		if _, err := io.WriteString(p.conn, strings.Repeat("RETR 1\r\n", 2000)); err != nil {
			return
		}
		for end := time.Now().Add(30 * time.Second); !strings.Contains(log.String(), "Disconnected: Connection closed"); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Error("the server waits for ever")
				return
			}
		}
	})
}

// TestAbuseWrongPasswords: sixty tries on one connection let nobody in.
func TestAbuseWrongPasswords(t *testing.T) {
	abuse(t, newRig(t), false, func(p *peer) {
		for n := range 60 {
			wantPrefix(t, p.do("USER alice"), "+OK")
			wantPrefix(t, p.do(fmt.Sprintf("PASS wrong%d", n)), "-ERR [AUTH] Authentication failed.")
		}
	})
}

// TestAbuseNumbers: numbers that no mailbox has.
func TestAbuseNumbers(t *testing.T) {
	r := newRig(t)
	r.deliver(t, "alice", smallMail)
	for _, number := range []string{"99999999999999999999", "4294967297", "-1", "0", "1" + strings.Repeat("0", 200)} {
		abuse(t, r, true, func(p *peer) {
			for _, command := range []string{"RETR ", "DELE ", "LIST ", "UIDL ", "TOP 1 ", "TOP "} {
				p.write(command + number + "\r\n")
				if line := p.line(); command != "TOP 1 " && !strings.HasPrefix(line, "-ERR") {
					t.Errorf("%s%.30s: %q", command, number, line)
				} else if strings.HasPrefix(line, "+OK") {
					for line != ".\r\n" {
						line = p.line()
					}
				}
			}
		})
	}
}

// TestAbuseHalfOpen: clients that went away without a word are forgotten in time.
func TestAbuseHalfOpen(t *testing.T) {
	r := newRig(t)
	r.opt.LoginTimeout, r.opt.IdleTimeout = 300*time.Millisecond, 300*time.Millisecond
	srv, addr := r.listen(t)
	for _, text := range []string{"", "USER", "USER alice\r\n", "AUTH PLAIN\r\n", "USER alice\r\nPASS pw\r\nRET"} {
		for range 20 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, text)
		}
	}
	waitForNoSessions(t, srv)
}
