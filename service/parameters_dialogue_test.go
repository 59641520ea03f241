package service_test

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// stranger is the address that dialogues come from, friend the one in mynetworks.
const (
	stranger = "127.0.0.2"
	friend   = "127.0.0.1"
)

// talk is an SMTP connection whose transcript is kept.
type talk struct {
	p          *probe
	wire       *wire
	transcript strings.Builder
	client     *tls.Config
}

// connect opens a connection to the service under proof.
func (p *probe) connect(source string) *talk {
	p.t.Helper()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := dialer.Dial("tcp4", p.smtp)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	return &talk{p: p, wire: newWire(p.t, conn), client: &tls.Config{InsecureSkipVerify: true}}
}

func (k *talk) close() { k.wire.close() }

// hear reads a reply and returns it; the end of the connection is "(closed)".
func (k *talk) hear() string {
	k.p.t.Helper()
	reply, err := k.wire.reply()
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		k.p.t.Errorf("%s: no reply in time after:\n%s", k.p.smtp, k.transcript.String())
		reply = "(nothing)"
	default:
		reply += "(closed)"
	}
	k.transcript.WriteString(reply + "\n")
	return reply
}

// send writes bytes that no reply is waited for.
func (k *talk) send(text string) {
	k.transcript.WriteString("> " + text)
	// A server that has closed is told by what is heard next.
	_ = k.wire.send(text)
}

// say sends lines one after the other and waits for the reply to each; between DATA and "." there is none. USER stands for the probe's
// account, PLAIN for its login, and STARTTLS is followed by the handshake.
func (k *talk) say(lines ...string) {
	k.p.t.Helper()
	data := false
	for _, line := range lines {
		line = strings.NewReplacer("USER", k.p.user, "PLAIN64", plainLogin(k.p.user)).Replace(line)
		k.send(line + "\r\n")
		if data && line != "." {
			continue
		}
		data = false
		reply := k.hear()
		switch {
		case strings.HasSuffix(reply, "(closed)"):
			return
		case strings.EqualFold(line, "DATA"):
			data = strings.HasPrefix(reply, "354")
			if !data {
				return
			}
		case strings.EqualFold(line, "STARTTLS") && strings.HasPrefix(reply, "220"):
			if !k.secure() {
				return
			}
		}
	}
}

// secure does the TLS handshake and notes what came of it.
func (k *talk) secure() bool {
	conn := tls.Client(k.wire.conn, k.client)
	if err := conn.Handshake(); err != nil {
		k.transcript.WriteString("(handshake: " + err.Error() + ")\n")
		return false
	}
	state := conn.ConnectionState()
	fmt.Fprintf(&k.transcript, "(%s, certificate of %s)\n", tls.VersionName(state.Version), state.PeerCertificates[0].Subject.CommonName)
	k.wire = newWire(k.p.t, conn)
	return true
}

func plainLogin(name string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + pass))
}

// from is a dialogue of a client at the address: greeting, lines, end.
func from(source string, lines ...string) func(p *probe) string {
	return func(p *probe) string {
		k := p.connect(source)
		defer k.close()
		k.hear()
		k.say(lines...)
		return k.transcript.String()
	}
}

// session is a dialogue of a stranger.
func session(lines ...string) func(p *probe) string { return from(stranger, lines...) }

// rcpt is a dialogue about one recipient.
func rcpt(sender, recipient string) func(p *probe) string {
	return session("EHLO client.test", "MAIL FROM:<"+sender+">", "RCPT TO:<"+recipient+">")
}

// lettered sends a message to the account and returns the dialogue and the message as it is stored.
func lettered(source string, text ...string) func(p *probe) string {
	lines := []string{"EHLO client.test", "MAIL FROM:<sender@good.test>", "RCPT TO:<USER>", "DATA"}
	return kept(from(source, append(append(lines, text...), ".", "QUIT")...))
}

// stored is a message that a stranger sent to the account, as it is stored.
func stored(text ...string) func(p *probe) string {
	return func(p *probe) string {
		_, after, _ := strings.Cut(lettered(stranger, text...)(p), "\n--- stored:\n")
		return after
	}
}

// kept adds the newest message in the account's INBOX to what a dialogue gave.
func kept(ask func(p *probe) string) func(p *probe) string {
	return func(p *probe) string {
		return ask(p) + "\n--- stored:\n" + p.newest()
	}
}

// newest is the last message in the account's INBOX.
func (p *probe) newest() string {
	p.t.Helper()
	w, err := p.s.login("imap", p.user)
	if err != nil {
		p.t.Fatal(err)
	}
	defer w.close()
	answers := p.must(w.imap("SELECT INBOX"))
	if len(answers) == 0 {
		return ""
	}
	answers, err = w.imap("FETCH * BODY.PEEK[]")
	if err != nil {
		return "(none)"
	}
	for _, a := range answers {
		if len(a.literals) > 0 {
			return string(a.literals[0])
		}
	}
	return "(none)"
}

func (p *probe) must(answers []answer, err error) []answer {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return answers
}

// withLog adds the service's log to what a dialogue gave, up to the end of the connection.
func withLog(ask func(p *probe) string) func(p *probe) string {
	return func(p *probe) string {
		saw := ask(p)
		return saw + "\n--- log:\n" + p.logged("disconnect from")
	}
}
