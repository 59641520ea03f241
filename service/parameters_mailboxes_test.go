package service_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postilion/service"
)

// mailLines are the lines of dovecot.conf that a side of a proof adds; a line that begins with ! takes the block or setting of that name out.
func mailLines(p *proof, value string) string {
	line := p.line(value)
	if strings.Contains(p.with, "@@") {
		return strings.ReplaceAll(p.with, "@@", line) + "\n"
	}
	return p.with + "\n" + line + "\n"
}

// withoutBlocks takes blocks out of a dovecot.conf.
func withoutBlocks(text, lines string) string {
	for line := range strings.Lines(lines) {
		name, isMark := strings.CutPrefix(strings.TrimSpace(line), "!")
		if !isMark {
			continue
		}
		begin := strings.Index(text, "\n"+name+" {\n")
		if begin < 0 {
			continue
		}
		end := strings.Index(text[begin:], "\n}\n")
		text = text[:begin] + text[begin+end+2:]
	}
	return text
}

// moreUsers is a passwd-file beside the accounts'.
const moreUsers = "file@x.test:{PLAIN}secret\ndeny@x.test:{PLAIN}other\n"

// configureMailboxes writes the files of a system whose dovecot.conf has the lines.
func configureMailboxes(t *testing.T, accounts int, lines string) *system {
	t.Helper()
	s := configure(t, setting{accounts: accounts, mynetworks: strangersOnly})
	s.writeCertificates()
	s.write("more", moreUsers)
	mail, err := os.ReadFile(filepath.Join(s.dir, "dovecot.conf"))
	if err != nil {
		t.Fatal(err)
	}
	lines = strings.ReplaceAll(lines, "IMAPPORT", strconv.Itoa(s.ports["imap"]))
	s.write("dovecot.conf", s.fill(changed(withoutBlocks(string(mail), lines), lines)))
	return s
}

// proveTogether has all proofs in two systems, one with the first values and one with the second.
func proveTogether(t *testing.T, proofs []proof) {
	var lines [2]strings.Builder
	sides(proofs, func(number int, p *proof, _, value string) {
		lines[number%2].WriteString(strings.ReplaceAll(mailLines(p, value), "USER", user(number/2)))
	})
	names := nameServer(t)
	var systems [2]*system
	for i := range systems {
		systems[i] = configureMailboxes(t, len(proofs), lines[i].String())
		systems[i].begin(names)
	}
	probes := make([]*probe, 2*len(proofs))
	for i := range probes {
		probes[i] = &probe{t: t, s: systems[i%2], user: user(i / 2), program: user(i / 2), smtp: systems[i%2].address("smtp")}
	}
	observe(t, proofs, probes)
}

// mailPairs configures two systems for each proof.
func mailPairs(t *testing.T, proofs []proof, begin func(s *system)) []*probe {
	t.Helper()
	var probes []*probe
	sides(proofs, func(_ int, p *proof, _, value string) {
		s := configureMailboxes(t, 2, strings.ReplaceAll(mailLines(p, value), "USER", user(0)))
		begin(s)
		probes = append(probes, &probe{t: t, s: s, user: user(0), program: user(0), smtp: s.address("smtp")})
	})
	return probes
}

// proveApart gives each side of each proof a system of its own.
func proveApart(t *testing.T, proofs []proof) {
	names := nameServer(t)
	observe(t, proofs, mailPairs(t, proofs, func(s *system) { s.begin(names) }))
}

// proveMailFiles starts nothing.
func proveMailFiles(t *testing.T, proofs []proof) {
	observe(t, proofs, mailPairs(t, proofs, func(*system) {}))
}

// mailEndpoints are the sockets that dovecot.conf asks for.
func mailEndpoints(p *probe) string {
	options, err := service.InspectOptionsOf(service.Options{DovecotFile: filepath.Join(p.s.dir, "dovecot.conf"), Getenv: p.s.getenv})
	if err != nil {
		return err.Error()
	}
	var notes service.Notes
	options.Log = notes.Logger()
	inspection := service.Inspect(p.t.Context(), options)
	var text strings.Builder
	for _, e := range inspection.Endpoints() {
		fmt.Fprintf(&text, "%s mode=%o uid=%d gid=%d\n", e.String(), e.Address.Mode, e.Address.UID, e.Address.GID)
	}
	for _, err := range inspection.Errors {
		fmt.Fprintln(&text, err)
	}
	return strings.ReplaceAll(text.String(), p.s.dir, "DIR")
}

// imapTalk is an IMAP connection whose transcript is kept.
type imapTalk struct {
	p          *probe
	wire       *wire
	transcript strings.Builder
}

// client is how a dialogue connects: its address, and TLS with a certificate of that name.
type client struct {
	source      string
	tls         bool
	certificate string
	config      *tls.Config
}

// dialAs opens a connection to imap or pop3, or to their TLS ports.
func (p *probe) dialAs(c client, protocol string) (net.Conn, error) {
	if c.source == "" {
		c.source = stranger
	}
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.source)}}
	if c.tls {
		protocol += "s"
	}
	conn, err := dialer.Dial("tcp4", p.s.address(protocol))
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil || !c.tls {
		return conn, err
	}
	config := c.config
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	config.InsecureSkipVerify = true
	if c.certificate != "" {
		config.Certificates = []tls.Certificate{clientCertificate(p.t, c.certificate)}
	}
	secured := tls.Client(conn, config)
	if err := secured.Handshake(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return secured, nil
}

func (p *probe) imapAs(c client) (*imapTalk, error) {
	conn, err := p.dialAs(c, "imap")
	if err != nil {
		return nil, err
	}
	k := &imapTalk{p: p, wire: newWire(p.t, conn)}
	if secured, ok := conn.(*tls.Conn); ok {
		fmt.Fprintf(&k.transcript, "(certificate of %s)\n", secured.ConnectionState().PeerCertificates[0].Subject.CommonName)
	}
	k.hear("* ")
	return k, nil
}

// hear reads lines up to one that begins with one of the words.
func (k *imapTalk) hear(words ...string) string {
	for {
		line, err := k.wire.line()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				k.p.t.Errorf("no answer in time after:\n%s", k.transcript.String())
			}
			k.transcript.WriteString(line + "(closed)\n")
			return "(closed)"
		}
		k.transcript.WriteString(line + "\n")
		for _, word := range words {
			if strings.HasPrefix(line, word) {
				return line
			}
		}
	}
}

// say sends commands; what follows a "+ " is sent as it is. LOGIN alone stands for the account's login.
func (k *imapTalk) say(lines ...string) {
	tag, continued := 0, false
	for _, line := range lines {
		if line == "LOGIN" {
			line = fmt.Sprintf("LOGIN %q %q", k.p.user, pass)
		}
		line = strings.NewReplacer("USER", k.p.user, "PLAIN64", plainLogin(k.p.user)).Replace(line)
		if !continued {
			tag++
			line = fmt.Sprintf("t%d %s", tag, line)
		}
		k.transcript.WriteString("> " + line + "\n")
		_ = k.wire.send(line + "\r\n")
		answer := k.hear(fmt.Sprintf("t%d ", tag), "+ ")
		if answer == "(closed)" {
			return
		}
		continued = strings.HasPrefix(answer, "+ ")
	}
}

func (k *imapTalk) close() string {
	k.wire.close()
	return k.transcript.String()
}

// imapDialogue is a dialogue of that client.
func imapDialogue(c client, lines ...string) func(p *probe) string {
	return func(p *probe) string {
		k, err := p.imapAs(c)
		if err != nil {
			return "(" + err.Error() + ")"
		}
		k.say(lines...)
		return k.close()
	}
}

// imapSession is a dialogue of a stranger without TLS.
func imapSession(lines ...string) func(p *probe) string { return imapDialogue(client{}, lines...) }

// pop3Dialogue is a dialogue with the POP3 server after a login.
func pop3Dialogue(p *probe, lines ...string) string {
	conn, err := p.dialAs(client{}, "pop3")
	if err != nil {
		return "(" + err.Error() + ")"
	}
	defer conn.Close()
	w := newWire(p.t, conn)
	var transcript strings.Builder
	hear := func(many bool) bool {
		for first := true; ; first = false {
			line, err := w.line()
			if err != nil {
				transcript.WriteString(line + "(closed)\n")
				return false
			}
			transcript.WriteString(line + "\n")
			if !many || line == "." || first && !strings.HasPrefix(line, "+OK") {
				return true
			}
		}
	}
	hear(false)
	for _, line := range append([]string{"USER " + p.user, "PASS " + pass}, lines...) {
		transcript.WriteString("> " + line + "\n")
		_ = w.send(line + "\r\n")
		many := line == "CAPA" || line == "UIDL" || line == "LIST" || strings.HasPrefix(line, "RETR") || strings.HasPrefix(line, "TOP")
		if !hear(many) {
			break
		}
	}
	return transcript.String()
}

// pop3Session delivers messages and has a dialogue with the POP3 server.
func pop3Session(messages []string, lines ...string) func(p *probe) string {
	return func(p *probe) string {
		for _, text := range messages {
			p.deliver(p.user, text)
		}
		return pop3Dialogue(p, lines...)
	}
}

// deliver brings a message by LMTP and returns the dialogue.
func (p *probe) deliver(recipient, text string) string {
	p.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(p.s.dir, "spool/private/dovecot-lmtp"))
	if err != nil {
		p.t.Error(err)
		return ""
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		p.t.Error(err)
	}
	k := &talk{p: p, wire: newWire(p.t, conn)}
	defer k.close()
	k.hear()
	lines := append([]string{"LHLO client.test", "MAIL FROM:<a@good.test>", "RCPT TO:<" + recipient + ">", "DATA"}, strings.Split(text, "\n")...)
	k.say(append(lines, ".", "QUIT")...)
	return k.transcript.String()
}

// delivered brings a message by LMTP and shows what is stored.
func delivered(text string) func(p *probe) string {
	return func(p *probe) string {
		saw := p.deliver(p.user, text)
		return saw + "--- stored:\n" + p.newest()
	}
}

// found tells which of the names in the system's directory are there.
func (p *probe) found(names ...string) string {
	var text bytes.Buffer
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(p.s.dir, name)); err == nil {
			fmt.Fprintf(&text, "found %s\n", name)
		}
	}
	return text.String()
}

// leaving adds to a dialogue which of the names in the system's directory are there then.
func leaving(ask func(p *probe) string, names ...string) func(p *probe) string {
	return func(p *probe) string { return ask(p) + p.found(names...) }
}
