package listen

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve writes name to every connection of the handle.
func serve(h *Handle, name string) {
	for {
		conn, err := h.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte(name))
		_ = conn.Close()
	}
}

func ask(t *testing.T, network, address string) string {
	t.Helper()
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSocketsSurviveReloads(t *testing.T) {
	set := New(slog.New(slog.DiscardHandler), NewHost(nil))
	path := filepath.Join(t.TempDir(), "s")
	address := Address{Network: "unix", Address: path, Mode: 0o660, UID: -1, GID: -1}
	first, err := set.Take(address)
	if err != nil {
		t.Fatal(err)
	}
	go serve(first, "first")
	if got := ask(t, "unix", path); got != "first" {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	second, err := set.Take(address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the old handle accepts: %v", err)
	}
	go serve(second, "second")
	for range 20 {
		if got := ask(t, "unix", path); got != "second" {
			t.Errorf("got %q", got)
		}
	}
	other := New(slog.New(slog.DiscardHandler), NewHost(nil))
	if _, err := other.Take(address); err == nil {
		t.Error("a socket that is served is taken away")
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := set.CloseUnused(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("an unused socket still listens")
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
}

func TestUnixSocketOfADeadServerIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	set := New(slog.New(slog.DiscardHandler), NewHost(nil))
	handle, err := set.Take(Address{Network: "unix", Address: path, UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	go serve(handle, "alive")
	if got := ask(t, "unix", path); got != "alive" {
		t.Errorf("got %q", got)
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Take(Address{Network: "unix", Address: file, UID: -1, GID: -1}); err == nil {
		t.Error("a file is replaced by a socket")
	}
}

func TestInheritedSocketIsUsed(t *testing.T) {
	real, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(real.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	set := New(slog.New(slog.DiscardHandler), NewHost([]net.Listener{real}))
	handle, err := set.Take(TCP("tcp", host, port))
	if err != nil {
		t.Fatal(err)
	}
	go serve(handle, "activated")
	if got := ask(t, "tcp", real.Addr().String()); got != "activated" {
		t.Errorf("got %q", got)
	}
	if _, err := New(slog.New(slog.DiscardHandler), NewHost(nil)).Take(TCP("tcp", host, port)); err == nil {
		t.Error("a port that is taken opens twice")
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	if listeners, err := Inherited(func(string) string { return "" }); err != nil || listeners != nil {
		t.Errorf("without systemd: %v, %v", listeners, err)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	if err := Notify(t.Context(), func(string) string { return path }, "READY=1"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := systemd.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if err := Notify(t.Context(), func(string) string { return "" }, "READY=1"); err != nil {
		t.Error(err)
	}
}

// TestAddressChangesOnOnePort: a set goes from one address of a port to another and back, and no client finds the port closed meanwhile.
func TestAddressChangesOnOnePort(t *testing.T) {
	set := New(slog.New(slog.DiscardHandler), NewHost(nil))
	defer func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	}()
	probe, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(probe.Addr().String())
	if err := errors.Join(err, probe.Close()); err != nil {
		t.Fatal(err)
	}
	loopback, all := TCP("tcp4", "127.0.0.1", port), TCP("tcp4", "0.0.0.0", port)
	for i, address := range []Address{loopback, all, loopback, TCP("tcp", "127.0.0.1", port), all} {
		handle, err := set.Take(address)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		go serve(handle, address.Key())
		for name, open := range set.sockets {
			if name != address.Key() {
				open.current.end()
			}
		}
		if err := set.CloseUnused(); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if got := ask(t, "tcp4", loopback.Address); got != address.Key() {
				t.Fatalf("step %d: answered by %q", i, got)
			}
		}
	}
	// What belongs to somebody else is still refused, and that is what the error says.
	other := New(slog.New(slog.DiscardHandler), NewHost(nil))
	if _, err := other.Take(loopback); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("a port of another program: %v", err)
	}
}
