// Package listen owns the sockets of a running server: a Host opens them (or takes them from systemd), a Set keeps them open across reloads and hands
// each new connection to whichever server holds the socket now. It reads no protocol and no configuration.
//
// Socket activation follows sd_listen_fds(3), readiness sd_notify(3).
package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Address is where a socket listens.
type Address struct {
	// Network is tcp, tcp4, tcp6 or unix.
	Network string
	// Address is host:port, or a path.
	Address string
	// Mode, UID and GID belong to a unix socket; -1 leaves the owner as it is.
	Mode     fs.FileMode
	UID, GID int
}

func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// TCP returns the address of host and port.
func TCP(network, host, port string) Address {
	return Address{Network: network, Address: net.JoinHostPort(host, port), UID: -1, GID: -1}
}

// Set holds the open sockets. Its methods are for one goroutine; connections are handed out by goroutines that Close waits for.
type Set struct {
	log     *slog.Logger
	opener  Opener
	sockets map[string]*socket
	running sync.WaitGroup
}

// Opener opens sockets: a Host, or what asks another process for them.
type Opener interface {
	Listen(address Address) (net.Listener, error)
}

// New returns an empty set over an opener.
func New(log *slog.Logger, opener Opener) *Set {
	return &Set{log: log, opener: opener, sockets: map[string]*socket{}}
}

// socket is one open listener and who gets its connections.
type socket struct {
	real    net.Listener
	address Address
	start   sync.Once

	mu      sync.Mutex
	current *Handle
	closed  bool
}

// Take opens the address, or takes over the socket if the set has it open, and returns a net.Listener that yields the socket's
// connections from now until another Take of the same address or the handle's Close.
func (s *Set) Take(address Address) (*Handle, error) {
	if err := s.Open(address); err != nil {
		return nil, err
	}
	open := s.sockets[address.Key()]
	open.start.Do(func() { s.running.Go(func() { open.run(s.log) }) })
	handle := &Handle{socket: open, connections: make(chan net.Conn), done: make(chan struct{})}
	open.mu.Lock()
	previous := open.current
	open.current = handle
	open.mu.Unlock()
	if previous != nil {
		previous.end()
	}
	return handle, nil
}

// Open opens the address without handing out its connections, which wait in the kernel until Take. It does nothing for one that is open.
func (s *Set) Open(address Address) error {
	if _, ok := s.sockets[address.Key()]; ok {
		return nil
	}
	real, err := s.opener.Listen(address)
	if err != nil {
		return err
	}
	s.sockets[address.Key()] = &socket{real: real, address: address}
	return nil
}

// Key tells addresses apart.
func (a Address) Key() string { return a.Network + " " + a.Address }

// acceptPause is how long accepting rests after an error such as too many open files.
const acceptPause = 50 * time.Millisecond

func (s *socket) run(log *slog.Logger) {
	for {
		conn, err := s.real.Accept()
		if err != nil {
			s.mu.Lock()
			closed := s.closed
			s.mu.Unlock()
			if closed || errors.Is(err, net.ErrClosed) {
				return
			}
			log.Error(fmt.Sprintf("accept on %s: %v", s.address, err))
			time.Sleep(acceptPause)
			continue
		}
		s.deliver(conn)
	}
}

// deliver gives the connection to the holder; when the holder is replaced meanwhile, to the next one.
func (s *socket) deliver(conn net.Conn) {
	for {
		s.mu.Lock()
		holder, closed := s.current, s.closed
		s.mu.Unlock()
		if holder == nil || closed {
			// Nobody serves the socket any more: the client is told by the end of the connection.
			_ = conn.Close()
			return
		}
		select {
		case holder.connections <- conn:
			return
		case <-holder.done:
			s.mu.Lock()
			if s.current == holder {
				s.current = nil
			}
			s.mu.Unlock()
		}
	}
}

// CloseUnused closes the sockets whose handle was closed: those that a reload no longer names.
func (s *Set) CloseUnused() error {
	var errs []error
	for key, open := range s.sockets {
		open.mu.Lock()
		unused := open.current == nil || open.current.ended()
		open.mu.Unlock()
		if unused {
			errs = append(errs, open.close())
			delete(s.sockets, key)
		}
	}
	return errors.Join(errs...)
}

func (s *socket) close() error {
	s.mu.Lock()
	s.closed = true
	current := s.current
	s.mu.Unlock()
	if current != nil {
		current.end()
	}
	return s.real.Close()
}

// Close closes all sockets and waits for their goroutines. Connections that were handed out are not touched.
func (s *Set) Close() error {
	var errs []error
	for _, open := range s.sockets {
		errs = append(errs, open.close())
	}
	clear(s.sockets)
	s.running.Wait()
	return errors.Join(errs...)
}

// Handle is a net.Listener over a socket of a Set.
type Handle struct {
	socket      *socket
	connections chan net.Conn
	done        chan struct{}
	once        sync.Once
}

// Accept implements net.Listener.
func (h *Handle) Accept() (net.Conn, error) {
	select {
	case conn := <-h.connections:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close ends the handle, not the socket.
func (h *Handle) Close() error {
	h.end()
	return nil
}

// Addr implements net.Listener.
func (h *Handle) Addr() net.Addr { return h.socket.real.Addr() }

func (h *Handle) end() { h.once.Do(func() { close(h.done) }) }

func (h *Handle) ended() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// Inherited returns the sockets that systemd opened for this process (LISTEN_PID, LISTEN_FDS). It is called once, at the start.
func Inherited(getenv func(string) string) ([]net.Listener, error) {
	if pid, err := strconv.Atoi(getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil, nil
	}
	count, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || count < 0 || count > 1000 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is not a number of sockets", getenv("LISTEN_FDS"))
	}
	const firstFD = 3
	var listeners []net.Listener
	for fd := firstFD; fd < firstFD+count; fd++ {
		file := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		l, err := net.FileListener(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("socket %d of systemd: %w", fd, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// Notify tells systemd the state ("READY=1", "RELOADING=1", "STOPPING=1"); without NOTIFY_SOCKET it does nothing.
func Notify(ctx context.Context, getenv func(string) string, state string) error {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unixgram", path)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}
