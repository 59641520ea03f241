package table

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of tables that ask a server. The figures are Postfix's.
const (
	networkTimeout     = 100 * time.Second
	maxTCPReply        = 4096
	maxSocketmapReply  = 100_000
	maxIdleConnections = 4
	idleConnectionTime = 10 * time.Second
)

// server keeps connections to a lookup server. A connection carries one request at a time.
type server struct {
	network, address string
	unreachable      func(reason string) // told when no connection can be made
	failed           func(reason string) // told when a request fails

	mu   sync.Mutex
	idle []*connection
}

type connection struct {
	net.Conn
	reader *bufio.Reader
	used   time.Time
}

func (s *server) take(ctx context.Context) (c *connection, fresh bool, err error) {
	s.mu.Lock()
	for len(s.idle) > 0 {
		c = s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if time.Since(c.used) < idleConnectionTime {
			s.mu.Unlock()
			return c, false, nil
		}
		_ = c.Close()
	}
	s.mu.Unlock()
	dialer := net.Dialer{Timeout: networkTimeout}
	conn, err := dialer.DialContext(ctx, s.network, s.address)
	if err != nil {
		reason := systemText(err)
		s.unreachable(reason)
		return nil, false, &causedError{reason, err}
	}
	return &connection{Conn: conn, reader: bufio.NewReader(conn)}, true, nil
}

func (s *server) giveBack(c *connection) {
	c.used = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) >= maxIdleConnections {
		_ = c.Close()
		return
	}
	s.idle = append(s.idle, c)
}

// ask sends a request and reads its reply. A kept connection that the server has closed meanwhile is replaced once.
func (s *server) ask(ctx context.Context, request string, read func(*bufio.Reader) (string, error)) (string, error) {
	for {
		c, fresh, err := s.take(ctx)
		if err != nil {
			s.failed(err.Error())
			return "", err
		}
		deadline := time.Now().Add(networkTimeout)
		if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
			deadline = d
		}
		reply := ""
		err = c.SetDeadline(deadline)
		if err == nil {
			_, err = io.WriteString(c, request)
		}
		if err == nil {
			reply, err = read(c.reader)
		}
		if err == nil {
			s.giveBack(c)
			return reply, nil
		}
		_ = c.Close()
		if fresh {
			err = &causedError{systemText(err), err}
			s.failed(err.Error())
			return "", err
		}
	}
}

// tcpTable speaks tcp_table(5).
type tcpTable struct {
	server *server
	spec   string
}

func (t *opened) openTCP(name string) error {
	if _, _, err := net.SplitHostPort(name); err != nil {
		return fmt.Errorf("table %s: need tcp:host:port", t.spec)
	}
	t.finder = tcpTable{&server{
		network: "tcp", address: name, failed: func(string) {},
		unreachable: func(reason string) { t.warning("connect to TCP map " + name + ": " + reason) },
	}, t.spec}
	return nil
}

func (t *opened) warning(text string) {
	if t.warn != nil {
		t.warn(text)
	}
}

func (t tcpTable) find(ctx context.Context, key string) (answer, bool, error) {
	reply, err := t.server.ask(ctx, "get "+percentEncode(key)+"\n", func(r *bufio.Reader) (string, error) {
		return readReplyLine(r, maxTCPReply)
	})
	if err != nil {
		return answer{}, false, err
	}
	text, bad := percentDecode(reply)
	switch {
	case bad == nil && strings.HasPrefix(text, "500"):
		return answer{}, false, nil
	case bad == nil && strings.HasPrefix(text, "200 "):
		return answer{value: strings.TrimLeft(text[4:], " "), path: t.spec}, true, nil
	case bad == nil && strings.HasPrefix(text, "400"):
		return answer{}, false, fmt.Errorf("server says: %s", Printable(strings.TrimSpace(text[3:])))
	}
	return answer{}, false, fmt.Errorf("malformed reply: \"%s\"", Printable(shorten(reply, 100)))
}

var errLongReply = errors.New("reply is too long")

func readReplyLine(r *bufio.Reader, most int) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > most:
			return "", errLongReply
		case err == nil:
			return strings.TrimRight(string(line), "\r\n"), nil
		case err != bufio.ErrBufferFull:
			return "", err
		}
	}
}

func percentEncode(s string) string {
	var out strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

func percentDecode(s string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errors.New("truncated % encoding")
		}
		b, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("bad %% encoding: %w", err)
		}
		out.WriteByte(byte(b))
		i += 2
	}
	return out.String(), nil
}

// socketmap speaks socketmap_table(5): netstrings over TCP or a UNIX socket.
type socketmap struct {
	server *server
	name   string
	spec   string
}

func (t *opened) openSocketmap(name string) error {
	place, table, ok := cutLast(name, ":")
	if !ok {
		return errors.New("socketmap requires server:socketmap argument")
	}
	network, address, ok := strings.Cut(place, ":")
	if !ok || address == "" {
		return fmt.Errorf("need service transport:endpoint instead of \"%s\"", place)
	}
	switch network {
	case "inet":
		network = "tcp"
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			return fmt.Errorf("%s: need host:port", address)
		}
	case "unix":
	default:
		return fmt.Errorf("invalid transport name: %s in service: %s", network, place)
	}
	t.finder = socketmap{&server{
		network: network, address: address,
		unreachable: func(reason string) { t.warning("connect to " + address + ": " + reason) },
		failed:      func(reason string) { t.warning("table " + t.spec + " lookup error: " + reason) },
	}, table, t.spec}
	return nil
}

func cutLast(s, separator string) (before, after string, ok bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

func (m socketmap) find(ctx context.Context, key string) (answer, bool, error) {
	text := m.name + " " + key
	reply, err := m.server.ask(ctx, strconv.Itoa(len(text))+":"+text+",", readNetstring)
	if err != nil {
		return answer{}, false, err
	}
	status, value, _ := strings.Cut(reply, " ")
	switch status {
	case "OK":
		return answer{value: value, path: m.spec}, true, nil
	case "NOTFOUND":
		return answer{}, false, nil
	case "TEMP", "TIMEOUT", "PERM":
		return answer{}, false, fmt.Errorf("server says %s: %s", status, Printable(value))
	}
	return answer{}, false, fmt.Errorf("malformed reply: \"%s\"", Printable(shorten(reply, 100)))
}

var errNetstring = errors.New("reply is no netstring")

func readNetstring(r *bufio.Reader) (string, error) {
	length := 0
	for digits := 0; ; digits++ {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == ':' && digits > 0 {
			break
		}
		if c < '0' || c > '9' || digits > 9 {
			return "", errNetstring
		}
		length = length*10 + int(c-'0')
	}
	if length > maxSocketmapReply {
		return "", errLongReply
	}
	text := make([]byte, length+1)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	if text[length] != ',' {
		return "", errNetstring
	}
	return string(text[:length]), nil
}
