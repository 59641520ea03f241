package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"postilion/service/child"
	"postilion/service/packet"
)

// The worker's requests are "open PATH", "append PATH", "listen NETWORK ADDRESS" and "shadow NAME". The answers are "ok", with a file or, for shadow,
// the line, or "error NUMBER TEXT", NUMBER being an errno.

// maxFile is the size limit of files that are opened for reading.
const maxFile = 512 << 20

// logMode is the mode of log files that are made.
const logMode = 0o640

// serve answers a worker's requests until it has ended.
func (m *master) serve(conn *packet.Conn) {
	for {
		text, file, err := conn.Receive()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				m.log().Error(fmt.Sprintf("request of the worker: %v", err))
			}
			// A worker that breaks the rules is not answered any more.
			_ = conn.Close()
			return
		}
		if file != nil {
			_ = file.Close()
		}
		if err := m.reply(conn, text); err != nil {
			_ = conn.Close()
			return
		}
	}
}

func (m *master) reply(conn *packet.Conn, text string) error {
	words, given, err := m.perform(text)
	if err == nil {
		err = conn.Send("ok"+words, given)
		if given != nil {
			err = errors.Join(err, given.Close())
		}
		return err
	}
	answer := fmt.Sprintf("error %d %v", int(errno(err)), err)
	return conn.Send(answer[:min(len(answer), packet.MaxText)], nil)
}

// errno is the system's number for an error: that of a refusal when the system did not give one.
func errno(err error) syscall.Errno {
	number := syscall.EACCES
	errors.As(err, &number)
	return number
}

// perform does what a request asks for.
func (m *master) perform(text string) (words string, given *os.File, err error) {
	verb, argument, _ := strings.Cut(text, " ")
	m.mu.Lock()
	granted := m.granted()
	m.mu.Unlock()
	switch verb {
	case "open":
		given, err = openFile(granted, argument)
	case "append":
		given, err = appendFile(granted, argument)
	case "listen":
		given, err = m.listener(granted, argument)
	case "shadow":
		words, err = shadow(granted, argument)
	default:
		err = fmt.Errorf("unknown request %.20q", verb)
	}
	return words, given, err
}

// granted are the grants that hold now: while a reload is under way, those of both configurations. m.mu is held.
func (m *master) granted() []*Grants {
	if m.next == nil {
		return []*Grants{m.grants}
	}
	return []*Grants{m.grants, m.next}
}

func anyOf(grants []*Grants, allows func(g *Grants) bool) bool {
	for _, g := range grants {
		if allows(g) {
			return true
		}
	}
	return false
}

func openFile(granted []*Grants, name string) (*os.File, error) {
	if !anyOf(granted, func(g *Grants) bool { return g.mayRead(name) }) {
		return nil, fmt.Errorf("the configuration does not name %s", name)
	}
	resolved, err := resolve(name, &granted[0].Worker)
	if err != nil {
		return nil, err
	}
	return regular(resolved, os.O_RDONLY, 0)
}

func appendFile(granted []*Grants, name string) (*os.File, error) {
	if !anyOf(granted, func(g *Grants) bool { return contains(g.Logs, name) }) {
		return nil, fmt.Errorf("the configuration names no log %s", name)
	}
	resolved, err := resolve(name, &granted[0].Worker)
	flags := os.O_WRONLY | os.O_APPEND
	if errors.Is(err, fs.ErrNotExist) && resolved != "" {
		flags, err = flags|os.O_CREATE|os.O_EXCL, nil
	}
	if err != nil {
		return nil, err
	}
	return regular(resolved, flags, logMode)
}

// OpenLog opens a log file for the master itself.
func OpenLog(name string, worker *child.Identity) (*os.File, error) {
	return appendFile([]*Grants{{Worker: *worker, Logs: []string{name}}}, name)
}

func contains(list []string, name string) bool {
	for _, have := range list {
		if have == name {
			return true
		}
	}
	return false
}

// regular opens a regular file whose path has no links in it.
func regular(path string, flags int, mode fs.FileMode) (*os.File, error) {
	// Opening a FIFO or a device must not wait.
	file, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY, mode)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no regular file", path)
	case flags&os.O_WRONLY == 0 && info.Size() > maxFile:
		err = fmt.Errorf("%s has more than %d octets", path, maxFile)
	default:
		return file, nil
	}
	return nil, errors.Join(err, file.Close())
}

// listener returns a socket, opened now unless it is open.
func (m *master) listener(granted []*Grants, argument string) (*os.File, error) {
	network, where, _ := strings.Cut(argument, " ")
	for _, g := range granted {
		address, ok := g.socket(network, where)
		if !ok {
			continue
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		l := m.sockets[address.Key()]
		if l == nil {
			var err error
			if l, err = m.host.Listen(address); err != nil {
				return nil, err
			}
			m.sockets[address.Key()] = l
		}
		return l.(interface{ File() (*os.File, error) }).File()
	}
	return nil, fmt.Errorf("the configuration names no socket %s", argument)
}

// shadowTimeout bounds a question to the name service.
const shadowTimeout = 10 * time.Second

// shadow asks the name service for one user's line of shadow(5).
func shadow(granted []*Grants, name string) (string, error) {
	if !anyOf(granted, func(g *Grants) bool { return g.Shadow }) {
		return "", errors.New("the configuration has no passdb that asks for shadow passwords")
	}
	if name == "" || len(name) > 256 || name[0] == '-' || strings.ContainsAny(name, ": \t\r\n\x00") || strings.Trim(name, "0123456789") == "" {
		return "", fmt.Errorf("%.40q is no user name", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), shadowTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", "shadow", "--", name).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("getent shadow %s: %w", name, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if len(line) > packet.MaxText-8 {
		return "", fmt.Errorf("the shadow line of %s is too long", name)
	}
	return " " + line, nil
}
