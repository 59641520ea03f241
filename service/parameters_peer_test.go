package service_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// peer says how an LMTP server behaves that a system under test hands mail to.
type peer struct {
	// words are its extensions.
	words []string
	// certificate names the one that it offers STARTTLS with, "" offers none.
	certificate string
	// mute is the command that it does not answer: a verb, BODY for the end of the message, XFER to stop reading in the message.
	mute string
}

// peerServer is one at work. What it is told is its transcript.
type peerServer struct {
	peer
	p        *probe
	listener net.Listener
	running  sync.WaitGroup

	mu         sync.Mutex
	transcript strings.Builder
	open       []net.Conn
}

// begin listens at the probe's peer address.
func (s peer) begin(p *probe) *peerServer {
	p.t.Helper()
	return (&peerServer{peer: s, p: p}).listen()
}

func (s *peerServer) listen() *peerServer {
	p := s.p
	p.t.Helper()
	listener, err := net.Listen("tcp4", p.peer)
	if err != nil {
		p.t.Error(err)
		return s
	}
	s.listener = listener
	s.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if tcp, ok := conn.(*net.TCPConn); ok && s.mute == "XFER" {
				_ = tcp.SetReadBuffer(4096)
			}
			s.mu.Lock()
			s.open = append(s.open, conn)
			s.mu.Unlock()
			s.running.Go(func() { s.serve(conn) })
		}
	})
	return s
}

// end stops the server and returns its transcript.
func (s *peerServer) end() string {
	if s.listener == nil {
		return ""
	}
	_ = s.listener.Close()
	s.mu.Lock()
	for _, conn := range s.open {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	return "--- at the peer:\n" + s.transcript.String()
}

func (s *peerServer) note(format string, arguments ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.transcript, format+"\n", arguments...)
}

// serve has one conversation.
func (s *peerServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if conn.SetDeadline(time.Now().Add(patience)) != nil {
		return
	}
	s.note("(connection)")
	lines := bufio.NewReader(conn)
	say := func(text string) { _, _ = io.WriteString(conn, text+"\r\n") }
	say("220 peer.test LMTP")
	refused := 0
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.note("%s", line)
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		if verb == s.mute {
			continue
		}
		switch verb {
		case "LHLO":
			say(s.hello(conn))
		case "STARTTLS":
			say("220 go on")
			secured := s.secure(conn)
			if secured == nil {
				return
			}
			conn, lines = secured, bufio.NewReader(secured)
		case "AUTH":
			say("235 2.7.0 welcome")
		case "RCPT":
			if strings.Contains(line, "<bad@") {
				refused++
				say("550 5.1.1 no such user")
				continue
			}
			say("250 2.1.5 Ok")
		case "DATA":
			if refused > 0 {
				refused = 0
				say("503 5.5.1 nobody")
				continue
			}
			say("354 go on")
			if s.mute == "XFER" || !s.message(lines) {
				time.Sleep(patient)
				return
			}
			if s.mute != "BODY" {
				say("250 2.0.0 Ok")
			}
		case "QUIT":
			say("221 2.0.0 Bye")
			return
		default:
			say("250 2.0.0 Ok")
		}
	}
}

func (s *peerServer) hello(conn net.Conn) string {
	words := append([]string{"peer.test"}, s.words...)
	if _, secured := conn.(*tls.Conn); s.certificate != "" && !secured {
		words = append(words, "STARTTLS")
	}
	for i := range words {
		separator := "-"
		if i == len(words)-1 {
			separator = " "
		}
		words[i] = "250" + separator + words[i]
	}
	return strings.Join(words, "\r\n")
}

func (s *peerServer) secure(conn net.Conn) net.Conn {
	secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{clientCertificate(s.p.t, s.certificate)}, ClientAuth: tls.RequestClientCert})
	if err := secured.Handshake(); err != nil {
		s.note("(handshake failed)")
		return nil
	}
	state := secured.ConnectionState()
	name := "nobody"
	if len(state.PeerCertificates) > 0 {
		name = state.PeerCertificates[0].Subject.CommonName
	}
	s.note("(%s, asked for %s, client %s)", tls.VersionName(state.Version), state.ServerName, name)
	return secured
}

// message reads up to the final dot.
func (s *peerServer) message(lines *bufio.Reader) bool {
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			return true
		}
		s.note("| %s", strings.TrimRight(line, "\r\n"))
	}
}

// handed sends letters through the system to the peer, and returns the dialogues and the peer's transcript.
func (s peer) handed(letters ...string) func(p *probe) string {
	return func(p *probe) string {
		server := s.begin(p)
		saw := ""
		for _, text := range letters {
			saw += letterOut("x@far.test", text)(p)
		}
		return saw + server.end()
	}
}

// letterOut sends a message to a recipient at the peer.
func letterOut(recipient, text string) func(p *probe) string {
	return session("EHLO client.test", "MAIL FROM:<sender@good.test>", "RCPT TO:<"+recipient+">", "DATA", text, ".", "QUIT")
}

// mutely sends a letter to a peer that does not answer something, and waits for a while for what comes of it.
func (s peer) mutely(text string) func(p *probe) string {
	return func(p *probe) string {
		server := s.begin(p)
		saw := idle("EHLO client.test", "MAIL FROM:<sender@good.test>", "RCPT TO:<x@far.test>", "DATA", text+"\r\n. unanswered")(p)
		return saw + server.end()
	}
}

// backlogged is a peer whose system lets no connection through any more.
func backlogged(p *probe) string {
	release, err := fullBacklog(p.peer)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	defer release()
	return idle("EHLO client.test", "MAIL FROM:<sender@good.test>", "RCPT TO:<x@far.test>", "DATA", "Subject: x\r\n\r\nx\r\n. unanswered")(p)
}

// proveAgents gives each side of each proof an lmtp service of its own, with the parameter as its -o, and an smtpd service that routes to it. HOST is
// the peer's name, PORT its port; a line "!nexthop = X" takes the place of inet:HOST:PORT.
func proveAgents(t *testing.T, proofs []proof) {
	s := configure(t, setting{accounts: 1, mynetworks: strangersOnly})
	s.writeCertificates()
	var master strings.Builder
	master.WriteString(s.masterConfig())
	probes := make([]*probe, 2*len(proofs))
	port := fmt.Sprint(s.ports["smtp"])
	sides(proofs, func(number int, p *proof, side, value string) {
		place := fmt.Sprintf("%d.%d", number/200, number%200+1)
		one := &probe{
			t: t, s: s, user: user(0), program: fmt.Sprintf("agent%d%s", number/2, side),
			smtp: net.JoinHostPort("127.19."+place, port), peer: net.JoinHostPort("127.20."+place, port),
		}
		probes[number] = one
		host := "a" + strings.ReplaceAll(place, ".", "-") + ".lmtp.test"
		fill := strings.NewReplacer("DIR", s.dir, "HOST", host, "PORT", port)
		nexthop := "inet:HOST:PORT"
		var options strings.Builder
		for line := range strings.Lines(p.with + "\n" + p.line(value)) {
			line = strings.TrimSpace(line)
			if other, is := strings.CutPrefix(line, "!nexthop = "); is {
				nexthop = other
			} else if line != "" {
				fmt.Fprintf(&options, "  -o { %s }\n", fill.Replace(line))
			}
		}
		fmt.Fprintf(&master, "%s inet n - n - - smtpd\n  -o syslog_name=%s\n  -o relay_domains=far.test\n  -o { transport_maps = inline:{far.test=%s:%s} }\n", one.smtp, one.program, one.program, fill.Replace(nexthop))
		fmt.Fprintf(&master, "%s unix - - n - - lmtp\n%s", one.program, options.String())
	})
	s.write("master.cf", master.String())
	s.begin(nameServer(t))
	observe(t, proofs, probes)
}

// fullBacklog listens without accepting and fills the queue of connections.
func fullBacklog(address string) (release func(), err error) {
	socket, err := smallBacklog(address)
	if err != nil {
		return nil, err
	}
	var held []net.Conn
	for range 4 {
		conn, err := net.DialTimeout("tcp4", address, 200*time.Millisecond)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			break
		}
		if err == nil {
			held = append(held, conn)
		}
	}
	return func() {
		for _, conn := range held {
			_ = conn.Close()
		}
		socket()
	}, nil
}
