package kv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// doubling is a step that doubles every number of a space, two rows in each batch. Done twice to one row it would be wrong.
func doubling(from int, after func()) Step {
	return Step{From: from, What: "doubling", Run: func(_ context.Context, m *Migration) error {
		for {
			it, err := m.DB.Iterate(m.Space, append([]byte("n"), m.Cursor()...), []byte("o"))
			if err != nil {
				return err
			}
			batch := m.DB.Batch(64)
			rows, last := int64(0), []byte(nil)
			for it.First(); it.Valid() && rows < 2; it.Next() {
				if string(it.Key()[1:]) <= string(m.Cursor()) {
					continue
				}
				value, _ := it.Value()
				var n int
				if _, err = fmt.Sscan(string(value), &n); err != nil {
					return err
				}
				batch.Set(m.Space, it.Key(), fmt.Append(nil, 2*n))
				last = append([]byte(nil), it.Key()[1:]...)
				rows++
			}
			if err := it.Close(); err != nil {
				return err
			}
			if rows == 0 {
				batch.Close()
				return nil
			}
			err = m.Commit(batch, last, rows)
			batch.Close()
			if err != nil {
				return err
			}
			after()
		}
	}}
}

func steps(version int, after func()) Format {
	return Format{Name: "numbers", Key: []byte("v"), Version: version, Steps: []Step{doubling(1, after), doubling(2, after)}[:version-1], Progress: func(Progress) { after() }}
}

// TestMigrationIsTakenUp cuts the power at every commit of a migration of two steps, and once more at every commit of what goes on from there.
func TestMigrationIsTakenUp(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db := open(t, fs, Options{})
	s := space(t, db, "room")
	if err := s.Migrate(t.Context(), steps(1, func() {})); err != nil {
		t.Fatal(err)
	}
	batch := db.Batch(64)
	for n := range 7 {
		batch.Set(s, fmt.Appendf(nil, "n%d", n), fmt.Append(nil, n+1))
	}
	if err := errors.Join(batch.Commit(), db.Close()); err != nil {
		t.Fatal(err)
	}
	batch.Close()
	var crashed []*vfs.MemFS
	random := rand.New(rand.NewPCG(1, 2))
	migrate := func(fs *vfs.MemFS, deep bool) {
		db := open(t, fs, Options{})
		s := space(t, db, "room")
		err := s.Migrate(t.Context(), steps(3, func() {
			if deep {
				crashed = append(crashed, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (len(crashed) % 3), RNG: random}))
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		got := rows(t, db, s)
		if got, _, _ = strings.Cut(got, " v="); got != "n0=4 n1=8 n2=12 n3=16 n4=20 n5=24 n6=28" {
			t.Errorf("after a crash: %s", got)
		}
		if left := rows(t, db, &Space{db: db, prefix: systemSpace}); strings.Contains(left, "croom") {
			t.Errorf("a cursor stays: %q", left)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	migrate(fs.CrashClone(vfs.CrashCloneCfg{}), true)
	first := len(crashed)
	if first < 8 {
		t.Fatalf("%d commits", first)
	}
	for i := range first {
		migrate(crashed[i], true)
	}
	for _, fs := range crashed[first:] {
		migrate(fs, false)
	}
}

func TestMigrationRefuses(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs, Options{})
	defer db.Close()
	s := space(t, db, "room")
	if err := s.Migrate(t.Context(), steps(3, func() {})); err != nil {
		t.Fatal(err)
	}
	err := s.Migrate(t.Context(), steps(2, func() {}))
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "the numbers has version 3, written by postilion (development build)") {
		t.Errorf("a newer format: %v", err)
	}
	gap := Format{Name: "numbers", Key: []byte("v"), Version: 5}
	if err := s.Migrate(t.Context(), gap); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "has no step from there to 5") {
		t.Errorf("a format too old: %v", err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	slow := Format{Name: "numbers", Key: []byte("v"), Version: 4, Steps: []Step{{From: 3, What: "waiting", Run: func(ctx context.Context, _ *Migration) error { return ctx.Err() }}}}
	if err := s.Migrate(stopped, slow); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

// TestLostMarkerIsNoNewDatabase: Pebble would make a new database of a directory without its marker and remove all tables.
func TestLostMarkerIsNoNewDatabase(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs, Options{})
	s := space(t, db, "room")
	batch := db.Batch(8)
	batch.Set(s, []byte("k"), []byte("v"))
	if err := errors.Join(batch.Commit(), db.Compact(t.Context()), db.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "marker.manifest") {
			err = errors.Join(err, fs.Remove("db/"+name))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open("db", Options{FS: fs}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "marker.manifest") {
		t.Errorf("a database without its marker: %v", err)
	}
	after, err := fs.List("db")
	if err != nil || !strings.Contains(strings.Join(after, " "), ".sst") {
		t.Errorf("left: %v, %v", after, err)
	}
}
