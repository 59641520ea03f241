package kv

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func fill(t *testing.T, db *DB, s *Space, from, to int) {
	t.Helper()
	batch := db.Batch(1 << 10)
	defer batch.Close()
	for n := from; n < to; n++ {
		batch.Set(s, fmt.Appendf(nil, "k%06d", n), []byte(strings.Repeat(fmt.Sprint(n, " "), 300)))
	}
	if err := batch.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestBackup copies a database while it is written to, copies it again with links to the first copy, and brings it back.
func TestBackup(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			dir := "work"
			if fs == vfs.Default {
				dir = t.TempDir()
			}
			at := func(name string) string { return fs.PathJoin(dir, name) }
			db, err := Open(at("db"), Options{FS: fs})
			if err != nil {
				t.Fatal(err)
			}
			s := space(t, db, "room")
			fill(t, db, s, 0, 500)
			if err := db.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
			told := int64(0)
			first, err := db.Backup(t.Context(), at("one"), "", func(done, of int64) { told = max(told, done) })
			if err != nil || told < first.Octets() || len(first.Files) < 4 {
				t.Fatalf("%+v, %v, told %d", first, err, told)
			}
			fill(t, db, s, 500, 600)
			second, err := db.Backup(t.Context(), at("two"), at("one"), nil)
			if err != nil || second.Shared == 0 {
				t.Fatalf("%+v, %v", second, err)
			}
			if _, err := db.Backup(t.Context(), at("two"), "", nil); !errors.Is(err, os.ErrExist) {
				t.Errorf("over another: %v", err)
			}
			if _, err := Restore(t.Context(), fs, at("two"), at("db"), nil); err == nil || !strings.Contains(err.Error(), "not empty") {
				t.Errorf("restored over a database: %v", err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			for from, want := range map[string]int{"one": 500, "two": 600} {
				if _, err := Restore(t.Context(), fs, at(from), at("back-"+from), nil); err != nil {
					t.Fatal(err)
				}
				for _, options := range []Options{{FS: fs, ReadOnly: true}, {FS: fs}} {
					back, err := Open(at("back-"+from), options)
					if err != nil {
						t.Fatal(err)
					}
					if got := strings.Count(rows(t, back, space(t, back, "room")), "="); got != want {
						t.Errorf("%s has %d rows", from, got)
					}
					if err := back.Close(); err != nil {
						t.Fatal(err)
					}
				}
			}
			harmed := at("one/" + first.Files[len(first.Files)-1].Name)
			if err := writeFile(fs, harmed, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := VerifyBackup(t.Context(), fs, at("one"), nil); !errors.Is(err, ErrBackup) {
				t.Errorf("a damaged backup: %v", err)
			}
			if _, err := Restore(t.Context(), fs, at("one"), at("again"), nil); !errors.Is(err, ErrBackup) {
				t.Errorf("restored a damaged backup: %v", err)
			}
			if _, err := fs.Stat(at("again")); err == nil {
				t.Error("a damaged backup left a directory")
			}
		})
	}
}
