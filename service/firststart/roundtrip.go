package firststart

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"strconv"
	"strings"
	"time"
)

// RoundTrip sends a message from the second account to the first by SMTP and reads it back by IMAP over TLS and by POP3 over TLS, bytes compared. Each
// step is told to report when it succeeded. The error says which step failed.
func (s *Setup) RoundTrip(ctx context.Context, report func(step string)) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tlsConfig, err := s.clientTLS()
	if err != nil {
		return err
	}
	to, from := s.Accounts[0], s.Accounts[1]
	id := fmt.Sprintf("%d.first@%s", time.Now().UnixNano(), s.Hostname)
	text := fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: It works\r\nDate: %s\r\nMessage-ID: <%s>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"+
		"This message went in by SMTP and came out by IMAP and POP3.\r\n.A line that begins with a dot, and some letters: äöü.\r\n",
		from.Address, to.Address, time.Now().Format("Mon, 02 Jan 2006 15:04:05 -0700"), id)

	steps := []struct {
		name string
		run  func() (string, error)
	}{
		{"SMTP", func() (string, error) { return s.send(ctx, tlsConfig, from.Address, to.Address, text) }},
		{"IMAP", func() (string, error) { return s.readByIMAP(ctx, tlsConfig, to, id, text) }},
		{"POP3", func() (string, error) { return s.readByPOP3(ctx, tlsConfig, to, id, text) }},
	}
	for _, step := range steps {
		told, err := step.run()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		report(told)
	}
	return nil
}

// clientTLS trusts the certificate that is served and nothing else.
func (s *Setup) clientTLS() (*tls.Config, error) {
	text, err := os.ReadFile(s.Certificate)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", s.Certificate)
	}
	return &tls.Config{RootCAs: pool, ServerName: s.Hostname, MinVersion: tls.VersionTLS12}, nil
}

func (s *Setup) address(protocol string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Ports[protocol]))
}

func (s *Setup) dial(ctx context.Context, protocol string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", s.address(protocol))
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	return conn, conn.SetDeadline(deadline)
}

func (s *Setup) send(ctx context.Context, tlsConfig *tls.Config, from, to, text string) (string, error) {
	conn, err := s.dial(ctx, "smtp")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	client, err := smtp.NewClient(conn, s.Hostname)
	if err != nil {
		return "", err
	}
	if err := client.Hello("quickstart." + s.Domain); err != nil {
		return "", err
	}
	if err := client.StartTLS(tlsConfig); err != nil {
		return "", err
	}
	if err := errors.Join(client.Mail(from), client.Rcpt(to)); err != nil {
		return "", err
	}
	w, err := client.Data()
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return fmt.Sprintf("SMTP  %s  STARTTLS, %s -> %s: accepted, it is safely in the mailbox", s.address("smtp"), from, to), client.Quit()
}

// lines talks a line protocol.
type lines struct {
	conn net.Conn
	r    *bufio.Reader
}

// maxFirstMessage bounds what is read back.
const maxFirstMessage = 1 << 20

func (l *lines) line() (string, error) {
	text, err := l.r.ReadString('\n')
	return strings.TrimRight(text, "\r\n"), err
}

func (s *Setup) dialTLS(ctx context.Context, protocol string, config *tls.Config) (*lines, error) {
	conn, err := s.dial(ctx, protocol)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &lines{secure, bufio.NewReader(secure)}, nil
}

// imap sends a command and returns the untagged lines, and the last literal.
func (l *lines) imap(tag, command string) (untagged []string, literal []byte, err error) {
	if _, err := io.WriteString(l.conn, tag+" "+command+"\r\n"); err != nil {
		return nil, nil, err
	}
	for len(untagged) < 10_000 {
		text, err := l.line()
		if err != nil {
			return nil, nil, err
		}
		if rest, done := strings.CutPrefix(text, tag+" "); done {
			if !strings.HasPrefix(rest, "OK") {
				return nil, nil, fmt.Errorf("%s: %s", strings.SplitN(command, " ", 2)[0], rest)
			}
			return untagged, literal, nil
		}
		untagged = append(untagged, text)
		open := strings.LastIndexByte(text, '{')
		if open < 0 || !strings.HasSuffix(text, "}") {
			continue
		}
		size, err := strconv.Atoi(text[open+1 : len(text)-1])
		if err != nil || size > maxFirstMessage {
			return nil, nil, fmt.Errorf("literal of %s octets", text[open+1:len(text)-1])
		}
		literal = make([]byte, size)
		if _, err := io.ReadFull(l.r, literal); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, errors.New("the answer has no end")
}

func (s *Setup) readByIMAP(ctx context.Context, tlsConfig *tls.Config, user Account, id, text string) (string, error) {
	l, err := s.dialTLS(ctx, "imaps", tlsConfig)
	if err != nil {
		return "", err
	}
	defer l.conn.Close()
	if _, err := l.line(); err != nil {
		return "", err
	}
	if _, _, err := l.imap("a", fmt.Sprintf("LOGIN %q %q", user.Address, user.Password)); err != nil {
		return "", err
	}
	if _, _, err := l.imap("b", "SELECT INBOX"); err != nil {
		return "", err
	}
	found, _, err := l.imap("c", fmt.Sprintf("UID SEARCH HEADER Message-ID %q", "<"+id+">"))
	if err != nil {
		return "", err
	}
	uid := ""
	for _, answer := range found {
		if numbers, ok := strings.CutPrefix(answer, "* SEARCH "); ok {
			uid = strings.Fields(numbers + " -")[0]
		}
	}
	if uid == "" || uid == "-" {
		return "", errors.New("the message is not in the INBOX")
	}
	_, body, err := l.imap("d", "UID FETCH "+uid+" (BODY.PEEK[])")
	if err != nil {
		return "", err
	}
	if err := sameMessage(body, text); err != nil {
		return "", err
	}
	_, _, err = l.imap("e", "LOGOUT")
	return fmt.Sprintf("IMAP  %s  TLS, login as %s: UID %s, %d octets, every byte as sent", s.address("imaps"), user.Address, uid, len(body)), err
}

func (l *lines) pop3(command string) (string, error) {
	if command != "" {
		if _, err := io.WriteString(l.conn, command+"\r\n"); err != nil {
			return "", err
		}
	}
	text, err := l.line()
	if err == nil && !strings.HasPrefix(text, "+OK") {
		err = fmt.Errorf("%s: %s", strings.SplitN(command, " ", 2)[0], text)
	}
	return text, err
}

func (s *Setup) readByPOP3(ctx context.Context, tlsConfig *tls.Config, user Account, id, text string) (string, error) {
	l, err := s.dialTLS(ctx, "pop3s", tlsConfig)
	if err != nil {
		return "", err
	}
	defer l.conn.Close()
	var answer string
	for _, command := range []string{"", "USER " + user.Address, "PASS " + user.Password, "STAT"} {
		if answer, err = l.pop3(command); err != nil {
			return "", err
		}
	}
	count, err := strconv.Atoi(strings.Fields(answer + " 0 0")[1])
	if err != nil {
		return "", fmt.Errorf("STAT: %s", answer)
	}
	for number := count; number > 0 && number > count-100; number-- {
		if _, err := l.pop3("RETR " + strconv.Itoa(number)); err != nil {
			return "", err
		}
		body, err := l.dotted()
		if err != nil {
			return "", err
		}
		if !bytes.Contains(body, []byte("<"+id+">")) {
			continue
		}
		if err := sameMessage(body, text); err != nil {
			return "", err
		}
		_, err = l.pop3("QUIT")
		return fmt.Sprintf("POP3  %s  TLS, login as %s: message %d of %d, every byte as sent", s.address("pop3s"), user.Address, number, count), err
	}
	return "", errors.New("the message is not in the mailbox")
}

// dotted reads a multi-line answer.
func (l *lines) dotted() ([]byte, error) {
	var body []byte
	for len(body) < maxFirstMessage {
		text, err := l.r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if bytes.Equal(text, []byte(".\r\n")) {
			return body, nil
		}
		body = append(body, bytes.TrimPrefix(text, []byte("."))...)
	}
	return nil, fmt.Errorf("a message of more than %d octets", maxFirstMessage)
}

// sameMessage wants what was sent, with trace fields before it.
func sameMessage(got []byte, sent string) error {
	if !bytes.HasSuffix(got, []byte(sent)) {
		return errors.New("the message that came back differs from the one that was sent")
	}
	if !bytes.HasPrefix(got, []byte("Return-Path:")) || !bytes.Contains(got[:len(got)-len(sent)], []byte("\nReceived:")) {
		return errors.New("the message lacks its trace fields")
	}
	return nil
}
