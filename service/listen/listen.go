// Package listen owns the sockets of a running server: it opens them (or takes them from systemd), keeps them open across reloads, and hands each
// new connection to whichever server holds the socket now. It reads no protocol and no configuration.
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
	log       *slog.Logger
	inherited []net.Listener
	sockets   map[string]*socket
	running   sync.WaitGroup
}

// New returns an empty set that will use the inherited listeners (see Inherited) where their address fits.
func New(log *slog.Logger, inherited []net.Listener) *Set {
	return &Set{log: log, inherited: inherited, sockets: map[string]*socket{}}
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
	open := s.sockets[address.key()]
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
	if _, ok := s.sockets[address.key()]; ok {
		return nil
	}
	real, err := s.open(address)
	if err != nil {
		return err
	}
	s.sockets[address.key()] = &socket{real: real, address: address}
	return nil
}

func (a Address) key() string { return a.Network + " " + a.Address }

func (s *Set) open(address Address) (net.Listener, error) {
	for i, l := range s.inherited {
		if l != nil && sameAddress(l.Addr(), address) {
			s.inherited[i] = nil
			return l, nil
		}
	}
	if address.Network != "unix" {
		l, err := net.Listen(address.Network, address.Address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w%s", address, err, hint(err))
		}
		return l, nil
	}
	return openUnix(address)
}

func hint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return " (ports below 1024 need root, CAP_NET_BIND_SERVICE or systemd socket activation)"
	case strings.Contains(err.Error(), "address already in use"):
		return " (another program serves this port: `ss -ltnp` names it)"
	}
	return ""
}

// openUnix makes a unix socket in place of a dead one. A socket that somebody answers on is left alone.
func openUnix(address Address) (net.Listener, error) {
	if info, err := os.Lstat(address.Address); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("listen on %s: there is a file that is no socket", address)
		}
		if conn, err := net.DialTimeout("unix", address.Address, time.Second); err == nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: another program serves this socket", address), conn.Close())
		}
		if err := os.Remove(address.Address); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
	}
	l, err := net.Listen("unix", address.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if err := setOwner(address); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", address, err), l.Close())
	}
	return l, nil
}

func setOwner(address Address) error {
	if address.Mode != 0 {
		if err := os.Chmod(address.Address, address.Mode); err != nil {
			return err
		}
	}
	if address.UID >= 0 || address.GID >= 0 {
		err := os.Chown(address.Address, address.UID, address.GID)
		if err != nil && os.Geteuid() == 0 {
			return err
		}
	}
	return nil
}

func sameAddress(have net.Addr, want Address) bool {
	if have.Network() == "unix" || want.Network == "unix" {
		return have.Network() == want.Network && have.String() == want.Address
	}
	haveHost, havePort, err := net.SplitHostPort(have.String())
	if err != nil {
		return false
	}
	wantHost, wantPort, err := net.SplitHostPort(want.Address)
	if err != nil {
		return false
	}
	if port, err := net.LookupPort("tcp", wantPort); err == nil {
		wantPort = strconv.Itoa(port)
	}
	return havePort == wantPort && (haveHost == wantHost || isAny(haveHost) && isAny(wantHost))
}

func isAny(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" || host == "*" }

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
