package service_test

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// policyServer is a server of the policy delegation protocol that counts its connections.
type policyServer struct {
	listener net.Listener
	running  sync.WaitGroup

	mu       sync.Mutex
	opened   []time.Time
	open     []net.Conn
	requests []string
}

// serve answers at the probe's socket: each request with action, "" with silence, "hang up" with the end of the connection.
func (p *probe) serve(action string) *policyServer {
	p.t.Helper()
	listener, err := net.Listen("unix", filepath.Join(p.s.dir, p.program))
	if err != nil {
		p.t.Fatal(err)
	}
	server := &policyServer{listener: listener}
	server.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			server.mu.Lock()
			server.opened, server.open = append(server.opened, time.Now()), append(server.open, conn)
			server.mu.Unlock()
			server.running.Go(func() { server.answer(conn, action) })
		}
	})
	return server
}

func (s *policyServer) answer(conn net.Conn, action string) {
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(patience)) != nil || action == "hang up" {
		return
	}
	lines := bufio.NewReader(conn)
	for {
		var request strings.Builder
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\n" {
				break
			}
			request.WriteString(line)
		}
		s.mu.Lock()
		s.requests = append(s.requests, request.String())
		s.mu.Unlock()
		if action == "" {
			continue
		}
		if _, err := fmt.Fprintf(conn, "action=%s\n\n", action); err != nil {
			return
		}
	}
}

// close ends the server and tells what it saw.
func (s *policyServer) close() string {
	_ = s.listener.Close()
	s.mu.Lock()
	for _, conn := range s.open {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	return fmt.Sprintf("connections: %d\n%s", len(s.opened), strings.Join(s.requests, "\n"))
}

// delegationProofs are the parameters of policy servers.
func delegationProofs() []proof {
	const ask = "smtpd_sender_restrictions = check_policy_service unix:DIR/SIDE\n"
	once := ask + "smtpd_policy_service_try_limit = 1\n"
	ours := rcpt("a@good.test", "USER")
	// twice asks two times with a pause that is longer than a second.
	twice := func(p *probe) string {
		server := p.serve("DUNNO")
		ours(p)
		time.Sleep(1200 * time.Millisecond)
		ours(p)
		return server.close()
	}
	left := func(p *probe) string {
		server := p.serve("hang up")
		return ours(p) + server.close()
	}
	gap := func(p *probe) string {
		server := p.serve("hang up")
		defer server.close()
		for range 3 {
			ours(p)
			server.mu.Lock()
			n := len(server.opened)
			pause := server.opened[n-1].Sub(server.opened[n-2])
			server.mu.Unlock()
			if pause < 3*time.Second {
				return "soon"
			}
		}
		return "late"
	}
	silent := func(p *probe) string {
		server := p.serve("")
		defer server.close()
		return idle("EHLO client.test", "MAIL FROM:<a@good.test>", "RCPT TO:<"+p.user+"> unanswered")(p)
	}
	return []proof{
		{"smtpd_policy_service_default_action", unset, "451 4.3.5 ask again tomorrow", once, ours, "Server configuration problem", "ask again tomorrow"},
		{"smtpd_policy_service_try_limit", "1", "2", ask, left, "connections: 1", "connections: 2"},
		{"smtpd_policy_service_retry_delay", "1s", "3s", ask, gap, "soon", "late"},
		{"smtpd_policy_service_timeout", unset, "1s", once, silent, "still open", "\n451 4.3.5"},
		{"smtpd_policy_service_max_idle", unset, "1s", ask, twice, "connections: 1", "connections: 2"},
		{"smtpd_policy_service_max_ttl", unset, "1s", ask, twice, "connections: 1", "connections: 2"},
		{"smtpd_policy_service_request_limit", "0", "1", ask, twice, "connections: 1", "connections: 2"},
		{"smtpd_policy_service_policy_context", unset, "of-a-kind", ask, twice, "policy_context=\n", "policy_context=of-a-kind"},
	}
}
