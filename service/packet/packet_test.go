package packet

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func connected(t *testing.T) (a, b *Conn) {
	t.Helper()
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = New(ours); err != nil {
		t.Fatal(err)
	}
	if b, err = New(theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestTextsAndFiles(t *testing.T) {
	a, b := connected(t)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	long := strings.Repeat("x", MaxText)
	for _, send := range []struct {
		text string
		file *os.File
	}{{"one", nil}, {"two", file}, {long, nil}, {"four\nlines\x00", file}} {
		if err := a.Send(send.text, send.file); err != nil {
			t.Fatal(err)
		}
		text, got, err := b.Receive()
		if err != nil || text != send.text || (got != nil) != (send.file != nil) {
			t.Fatalf("%.20q arrived as %.20q, file %v, %v", send.text, text, got, err)
		}
		if got == nil {
			continue
		}
		content := make([]byte, 7)
		if _, err := got.ReadAt(content, 0); err != nil || string(content) != "content" {
			t.Errorf("the file holds %q, %v", content, err)
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, text := range []string{"", long + "x"} {
		if err := a.Send(text, nil); err == nil {
			t.Errorf("%d octets were sent", len(text))
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// TestOversize: what another program could send on the pair is refused, and no descriptor stays open.
func TestOversize(t *testing.T) {
	a, b := connected(t)
	before := openFiles(t)
	if _, err := a.unix.Write(make([]byte, MaxText+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Receive(); err == nil {
		t.Error("a text that is too long was taken")
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("needs /proc: %v", err)
	}
	return len(entries)
}

func TestNotAPair(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := New(r); err == nil {
		t.Error("a pipe was taken for a pair")
	}
}
