package spool

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestContentBothSidesOfTheBound(t *testing.T) {
	for _, size := range []int{0, 1, InMemory - 1, InMemory, InMemory + 1, 3*InMemory + 17} {
		dir := t.TempDir()
		content := New(dir).Create()
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i * 7)
		}
		for rest := want; len(rest) > 0; {
			n := min(1000, len(rest))
			if _, err := content.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got, err := io.ReadAll(io.NewSectionReader(content, 0, content.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d octets: read %d, %v", size, len(got), err)
		}
		if _, inMemory := content.Bytes(); inMemory != (size <= InMemory) {
			t.Errorf("%d octets: in memory %v", size, inMemory)
		}
		if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) > 0 {
			t.Errorf("%d octets: file has a name: %v", size, names)
		}
		content.Release()
		content.Release()
		if _, err := content.ReadAt(make([]byte, 1), 0); err == nil {
			t.Error("a released content can be read")
		}
	}
}

func TestSpillFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	content := New(dir).Create()
	defer content.Release()
	if _, err := content.Write(make([]byte, InMemory)); err != nil {
		t.Fatal(err)
	}
	if _, err := content.Write([]byte("x")); !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("error %v does not say that the directory is missing", err)
	}
}

func unwrapAll(err error) error {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		if _, isPath := err.(*os.PathError); isPath {
			return err
		}
		err = inner.Unwrap()
	}
}

func BenchmarkSmallContent(b *testing.B) {
	spool := New("")
	data := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		content := spool.Create()
		if _, err := content.Write(data); err != nil {
			b.Fatal(err)
		}
		content.Release()
	}
}
