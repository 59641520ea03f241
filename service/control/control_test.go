package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "control", "socket")
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func counting() Command {
	return Command{Name: "count", Run: func(_ context.Context, arguments json.RawMessage, event func(any) error) (any, error) {
		var to struct{ To int }
		if err := json.Unmarshal(arguments, &to); err != nil {
			return nil, err
		}
		for n := range to.To {
			if err := event(n); err != nil {
				return nil, err
			}
		}
		if to.To == 0 {
			return "nothing", errors.New("cannot count to nothing")
		}
		return "counted", nil
	}}
}

func TestCall(t *testing.T) {
	path := short(t)
	if err := Call(t.Context(), path, "count", nil, nil, nil); !errors.Is(err, ErrNobody) {
		t.Errorf("without a server: %v", err)
	}
	s, err := Listen(path, quiet(), counting())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	var events []string
	var result string
	err = Call(t.Context(), path, "count", map[string]int{"To": 3}, func(e json.RawMessage) { events = append(events, string(e)) }, &result)
	if err != nil || strings.Join(events, " ") != "0 1 2" || result != "counted" {
		t.Errorf("%v %q %v", events, result, err)
	}
	var failure *Failure
	if err := Call(t.Context(), path, "count", map[string]int{}, nil, &result); !errors.As(err, &failure) || result != "nothing" {
		t.Errorf("a failure: %v, %q", err, result)
	}
	if err := Call(t.Context(), path, "other", nil, nil, nil); !errors.As(err, &failure) || !strings.Contains(err.Error(), "knows no command POST /other") {
		t.Errorf("an unknown command: %v", err)
	}
	if err := Call(t.Context(), path, "count", strings.Repeat("x", maxRequest), nil, nil); !errors.As(err, &failure) || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a large request: %v", err)
	}
	if _, err := Listen(path, quiet()); !errors.Is(err, ErrServed) {
		t.Errorf("a second server: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := Call(t.Context(), path, "count", nil, nil, nil); !errors.Is(err, ErrNobody) {
		t.Errorf("after the end: %v", err)
	}
}

// TestClientGoes: a command ends when nobody waits for it, and when the server ends.
func TestClientGoes(t *testing.T) {
	path := short(t)
	begun, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	s, err := Listen(path, quiet(), Command{Name: "wait", Run: func(ctx context.Context, _ json.RawMessage, event func(any) error) (any, error) {
		_ = event("begun")
		begun <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- Call(ctx, path, "wait", nil, func(json.RawMessage) {}, nil) }()
	<-begun
	cancel()
	<-ended
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	go func() { gone <- Call(t.Context(), path, "wait", nil, func(json.RawMessage) {}, nil) }()
	<-begun
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	if err := <-gone; err == nil {
		t.Error("the server ended and the call did not")
	}
}

func TestPlaceOfTheSocket(t *testing.T) {
	path := short(t)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, quiet()); err == nil || !strings.Contains(err.Error(), "closed to others") {
		t.Errorf("an open directory: %v", err)
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, quiet()); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file in its place: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// A process that was killed left its socket.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	s, err := Listen(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestManyClients: more than the limit wait, none is lost.
func TestManyClients(t *testing.T) {
	path := short(t)
	s, err := Listen(path, quiet(), counting())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results := make(chan error, 3*maxConnections)
	for range cap(results) {
		go func() {
			results <- Call(ctx, path, "count", map[string]int{"To": 2}, func(json.RawMessage) {}, nil)
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
