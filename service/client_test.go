package service_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// wire is a connection to a server of the system that is read by lines.
type wire struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	tag  int
	// unread are untagged IMAP answers that no command waited for.
	unread []answer
}

// answer is one untagged IMAP answer; literals are where {} stands in the text.
type answer struct {
	text     string
	literals [][]byte
}

// dial connects to a protocol of the system, with TLS for those whose name says so.
func (s *system) dial(protocol string) (*wire, error) {
	return s.dialFrom(protocol, "127.0.0.1")
}

func (s *system) dialFrom(protocol, source string) (*wire, error) {
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := dialer.Dial("tcp4", s.address(protocol))
	if err != nil {
		return nil, err
	}
	switch protocol {
	case "imaps", "pop3s", "submissions":
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	return newWire(s.t, conn), conn.SetDeadline(time.Now().Add(patience))
}

// dialPort connects to a port of this host.
func (s *system) dialPort(port int) (net.Conn, error) {
	return net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), patience)
}

func newWire(t testing.TB, conn net.Conn) *wire {
	return &wire{t: t, conn: conn, r: bufio.NewReader(conn), w: bufio.NewWriter(conn)}
}

func (w *wire) close() { _ = w.conn.Close() }

func (w *wire) line() (string, error) {
	text, err := w.r.ReadString('\n')
	return strings.TrimRight(text, "\r\n"), err
}

func (w *wire) send(text string) error {
	if _, err := w.w.WriteString(text); err != nil {
		return err
	}
	return w.w.Flush()
}

// reply reads one SMTP reply; its lines are joined by newlines.
func (w *wire) reply() (string, error) {
	var lines []string
	for {
		text, err := w.line()
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		lines = append(lines, text)
		if len(text) < 4 || text[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// smtp sends a command and wants a reply that begins with want.
func (w *wire) smtp(command, want string) error {
	if command != "" {
		if err := w.send(command + "\r\n"); err != nil {
			return err
		}
	}
	got, err := w.reply()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if !strings.HasPrefix(got, want) {
		return fmt.Errorf("%s: %s", command, got)
	}
	return nil
}

// greetSMTP reads the greeting and says EHLO.
func (s *system) greetSMTP(protocol string) (*wire, error) {
	w, err := s.dial(protocol)
	if err != nil {
		return nil, err
	}
	for _, step := range [][2]string{{"", "220"}, {"EHLO client." + domain, "250"}} {
		if err := w.smtp(step[0], step[1]); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

// dotStuffed is a message as DATA sends it.
func dotStuffed(text []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		if line[0] == '.' {
			b.WriteByte('.')
		}
		b.Write(line)
	}
	b.WriteString(".\r\n")
	return b.Bytes()
}

// mail sends one message to the recipients, pipelined, and wants every step to succeed. text is in network form.
func (w *wire) mail(from string, to []string, text []byte) error {
	var b strings.Builder
	fmt.Fprintf(&b, "MAIL FROM:<%s> BODY=8BITMIME\r\n", from)
	for _, r := range to {
		fmt.Fprintf(&b, "RCPT TO:<%s>\r\n", r)
	}
	b.WriteString("DATA\r\n")
	if err := w.send(b.String()); err != nil {
		return err
	}
	for i := range len(to) + 2 {
		want := "250"
		if i == len(to)+1 {
			want = "354"
		}
		got, err := w.reply()
		if err != nil {
			return err
		}
		if !strings.HasPrefix(got, want) {
			return fmt.Errorf("reply %d to a pipelined transaction: %s", i, got)
		}
	}
	if _, err := w.conn.Write(dotStuffed(text)); err != nil {
		return err
	}
	return w.smtp("", "250")
}

// login opens an IMAP session of the user.
func (s *system) login(protocol, name string) (*wire, error) {
	w, err := s.dial(protocol)
	if err != nil {
		return nil, err
	}
	if _, err := w.line(); err != nil {
		return nil, err
	}
	if _, err := w.imap("LOGIN %q %q", name, pass); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// imap sends a command and returns the untagged answers; an answer other than OK is an error.
func (w *wire) imap(format string, args ...any) ([]answer, error) {
	command := fmt.Sprintf(format, args...)
	w.tag++
	tag := "t" + strconv.Itoa(w.tag)
	if err := w.send(tag + " " + command + "\r\n"); err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return w.until(tag, command)
}

// until reads answers up to the tagged one.
func (w *wire) until(tag, command string) ([]answer, error) {
	all := w.unread
	w.unread = nil
	for {
		got, err := w.answer()
		if err != nil {
			return all, fmt.Errorf("%s: %w", command, err)
		}
		if rest, ok := strings.CutPrefix(got.text, tag+" "); ok {
			if !strings.HasPrefix(rest, "OK") {
				return all, fmt.Errorf("%s: %s", command, rest)
			}
			return append(all, answer{text: rest}), nil
		}
		all = append(all, got)
	}
}

// answer reads one answer with its literals.
func (w *wire) answer() (answer, error) {
	var a answer
	for {
		text, err := w.line()
		if err != nil {
			return a, err
		}
		open := strings.LastIndexByte(text, '{')
		if open < 0 || !strings.HasSuffix(text, "}") {
			a.text += text
			return a, nil
		}
		size, err := strconv.Atoi(strings.TrimSuffix(text[open+1:], "}"))
		if err != nil {
			a.text += text
			return a, nil
		}
		literal := make([]byte, size)
		if _, err := io.ReadFull(w.r, literal); err != nil {
			return a, err
		}
		a.text += text[:open] + "{}"
		a.literals = append(a.literals, literal)
	}
}

// fetched is the answers to FETCH by UID.
func fetched(answers []answer) map[int]answer {
	found := map[int]answer{}
	for _, a := range answers {
		if !strings.Contains(a.text, " FETCH (") {
			continue
		}
		at := strings.Index(a.text, "UID ")
		if at < 0 {
			continue
		}
		digits := strings.FieldsFunc(a.text[at+4:], func(r rune) bool { return r < '0' || r > '9' })
		if uid, err := strconv.Atoi(digits[0]); err == nil {
			found[uid] = a
		}
	}
	return found
}

// pop3 sends a command and wants +OK.
func (w *wire) pop3(command string) (string, error) {
	if command != "" {
		if err := w.send(command + "\r\n"); err != nil {
			return "", err
		}
	}
	text, err := w.line()
	if err == nil && !strings.HasPrefix(text, "+OK") {
		err = fmt.Errorf("%s: %s", command, text)
	}
	return text, err
}

// loginPOP3 opens a POP3 session and tells how many messages there are.
func (s *system) loginPOP3(protocol, name string) (*wire, int, error) {
	w, err := s.dial(protocol)
	if err != nil {
		return nil, 0, err
	}
	var text string
	for _, command := range []string{"", "USER " + name, "PASS " + pass, "STAT"} {
		if text, err = w.pop3(command); err != nil {
			w.close()
			return nil, 0, err
		}
	}
	count, err := strconv.Atoi(strings.Fields(text)[1])
	return w, count, err
}

// retrieve reads a message by POP3, dots unstuffed.
func (w *wire) retrieve(number int) ([]byte, error) {
	if _, err := w.pop3("RETR " + strconv.Itoa(number)); err != nil {
		return nil, err
	}
	var body []byte
	for {
		text, err := w.r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if string(text) == ".\r\n" {
			return body, nil
		}
		body = append(body, bytes.TrimPrefix(text, []byte("."))...)
	}
}

func base64Text(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
