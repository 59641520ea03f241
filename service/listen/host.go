package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Host opens sockets of this machine. It may be used by several goroutines.
//
// While a socket of its own holds a port, another address of that port can be opened too: a reload that turns 127.0.0.1:25 into *:25 has both for
// a moment, and no client finds the port closed.
type Host struct {
	mu        sync.Mutex
	inherited []net.Listener
	open      map[*tracked]bool
}

// NewHost returns a host that uses the inherited listeners (see Inherited) where their address fits.
func NewHost(inherited []net.Listener) *Host {
	return &Host{inherited: inherited, open: map[*tracked]bool{}}
}

// tracked is a TCP listener that its host knows while it is open.
type tracked struct {
	*net.TCPListener
	host *Host
}

// Close implements net.Listener.
func (t *tracked) Close() error {
	t.host.mu.Lock()
	delete(t.host.open, t)
	t.host.mu.Unlock()
	return t.TCPListener.Close()
}

// Listen implements Opener.
func (h *Host) Listen(address Address) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, l := range h.inherited {
		if l != nil && sameAddress(l.Addr(), address) {
			h.inherited[i] = nil
			return l, nil
		}
	}
	if address.Network == "unix" {
		return openUnix(address)
	}
	l, err := net.Listen(address.Network, address.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = h.share(address, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w%s", address, err, hint(err))
	}
	if tcp, ok := l.(*net.TCPListener); ok {
		t := &tracked{tcp, h}
		h.open[t] = true
		return t, nil
	}
	return l, nil
}

// share opens an address whose port a socket of this host holds. refused is why it cannot be opened without more ado.
func (h *Host) share(address Address, refused error) (net.Listener, error) {
	_, port, err := net.SplitHostPort(address.Address)
	if err != nil {
		return nil, refused
	}
	ours := false
	for t := range h.open {
		if _, have, err := net.SplitHostPort(t.Addr().String()); err != nil || have != port {
			continue
		}
		ours = true
		if err := control(t.TCPListener, setReusePort); err != nil {
			return nil, fmt.Errorf("%w; %s holds the port until this server ends: %w", refused, t.Addr(), err)
		}
	}
	if !ours {
		return nil, refused
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return setReusePort(raw) }}
	return config.Listen(context.Background(), address.Network, address.Address)
}

func control(l syscall.Conn, set func(syscall.RawConn) error) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return set(raw)
}

func setReusePort(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, failed)
}

func hint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return " (ports below 1024 need root, CAP_NET_BIND_SERVICE or systemd socket activation)"
	case errors.Is(err, syscall.EADDRINUSE):
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

// setOwner gives a new socket its mode and owner by way of a descriptor of the socket itself: whoever may write in its directory cannot have them
// given to something else.
func setOwner(address Address) error {
	fd, err := unix.Open(address.Address, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK || stat.Nlink != 1 {
		return errors.New("the socket was replaced while it was made")
	}
	if address.Mode != 0 {
		if err := os.Chmod(filepath.Join("/proc/self/fd", strconv.Itoa(fd)), address.Mode); err != nil {
			return err
		}
	}
	if address.UID < 0 && address.GID < 0 {
		return nil
	}
	err = unix.Fchownat(fd, "", address.UID, address.GID, unix.AT_EMPTY_PATH)
	if err != nil && os.Geteuid() == 0 {
		return err
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
