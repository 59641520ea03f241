package kv

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func open(tb testing.TB, fs vfs.FS, options Options) *DB {
	tb.Helper()
	options.FS = fs
	db, err := Open("db", options)
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

func space(tb testing.TB, db *DB, name string) *Space {
	tb.Helper()
	s, err := db.Space(name)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func rows(t *testing.T, r Reader, s *Space) string {
	t.Helper()
	it, err := r.Iterate(s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for it.First(); it.Valid(); it.Next() {
		value, err := it.Value()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s=%s", it.Key(), value))
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestSpacesDoNotMeet(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs, Options{})
	one, two := space(t, db, "one"), space(t, db, "two")
	if _, err := db.Space("one"); err == nil {
		t.Error("a space was handed out twice")
	}
	b := db.Batch(0)
	for _, key := range []string{"", "a", "b", "\xff\xff"} {
		b.Set(one, []byte(key), []byte("1"))
		b.Set(two, []byte(key), []byte("2"))
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b = db.Batch(0)
	b.DeleteRange(one, nil, nil)
	b.Delete(two, []byte("a"))
	if err := errors.Join(b.Fill(two, []byte("c"), 3, func(value []byte) error { copy(value, "xyz"); return nil }), b.Commit()); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, fs, Options{})
	defer db.Close()
	// In the other order: a space is found by its name.
	two, one = space(t, db, "two"), space(t, db, "one")
	if got := rows(t, db, one); got != "" {
		t.Errorf("one holds %q", got)
	}
	if got := rows(t, db, two); got != "=2 b=2 c=xyz \xff\xff=2" {
		t.Errorf("two holds %q", got)
	}
	one.Release()
	space(t, db, "one")
}

func TestGetAndSnapshot(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	defer db.Close()
	s := space(t, db, "s")
	set := func(key, value string) {
		t.Helper()
		b := db.Batch(0)
		defer b.Close()
		b.Set(s, []byte(key), []byte(value))
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	set("a", "1")
	snapshot, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	set("a", "2")
	set("b", "3")
	if got, err := db.Get(s, []byte("have "), []byte("a")); err != nil || string(got) != "have 2" {
		t.Errorf("Get = %q, %v", got, err)
	}
	if _, err := db.Get(s, nil, []byte("c")); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of nothing: %v", err)
	}
	if got := rows(t, snapshot, s); got != "a=1" {
		t.Errorf("snapshot holds %q", got)
	}
	if got, err := snapshot.Get(s, nil, []byte("a")); err != nil || string(got) != "1" {
		t.Errorf("snapshot: %q, %v", got, err)
	}
	if err := snapshot.Close(); err != nil {
		t.Fatal(err)
	}
	it, err := db.Iterate(s, []byte("a"), []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	if !it.Last() || string(it.Key()) != "a" || it.Prev() || it.SeekGE(s, []byte("aa")) || it.Valid() {
		t.Error("iterator leaves its bounds")
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFormat(t *testing.T) {
	for text, want := range map[string]string{
		"postilion database format 2\n":                              "version 2, written by another program; this program, postilion (development build), reads up to 1: start that program",
		"postilion database format 2\nwritten by postilion v9.1.0\n": "written by postilion v9.1.0;",
		"postilion database format 0\n":                              "does not name a format",
		"postilion database format x\n":                              "does not name a format",
		"":                                                           "does not name a format",
		"another file\n":                                             "does not name a format",
		"postilion database format 1\n":                              "",
		"postilion database format 1":                                "",
		"postilion database format -1\n":                             "does not name a format",
	} {
		fs := vfs.NewMem()
		if err := errors.Join(fs.MkdirAll("db", 0o700), writeFile(fs, "db/"+formatName, []byte(text))); err != nil {
			t.Fatal(err)
		}
		db, err := Open("db", Options{FS: fs})
		if want == "" {
			if err = errors.Join(err, db.Close()); err != nil {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestForeignDatabaseIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs, Options{})
	if err := errors.Join(db.Close(), fs.Remove("db/"+formatName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("db", Options{FS: fs}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("a database without format: %v", err)
	}
}

func TestLockNamesTheHolder(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), strings.TrimSpace(self())) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second opening: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err = Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStartedBatchesKeepTheirOrder(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		db := open(t, fs, Options{})
		s := space(t, db, "s")
		var batches []*Batch
		for i := range 20 {
			b := db.Batch(0)
			b.Set(s, fmt.Appendf(nil, "%02d", i), bytes.Repeat([]byte("v"), random.IntN(5000)))
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			batches = append(batches, b)
		}
		waited := random.IntN(20)
		if err := batches[waited].Wait(); err != nil {
			t.Fatal(err)
		}
		after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: random})
		for _, b := range batches {
			b.Close()
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, after, Options{})
		s = space(t, db, "s")
		for i := range waited + 1 {
			if _, err := db.Get(s, nil, fmt.Appendf(nil, "%02d", i)); err != nil {
				t.Errorf("seed %d: batch %d was durable before %d and is lost: %v", seed, i, waited, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCommitsShareFlushes(t *testing.T) {
	db := open(t, vfs.NewMem(), Options{})
	defer db.Close()
	s := space(t, db, "s")
	before := db.Metrics()
	var batches []*Batch
	for i := range 100 {
		b := db.Batch(0)
		b.Set(s, fmt.Append(nil, i), nil)
		if err := b.Start(); err != nil {
			t.Fatal(err)
		}
		batches = append(batches, b)
	}
	for _, b := range batches {
		if err := b.Wait(); err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	after := db.Metrics()
	if commits := after.Commits - before.Commits; commits != 100 {
		t.Errorf("%d commits", commits)
	}
	if after.LogBytes <= before.LogBytes || after.MemTableBytes == 0 {
		t.Errorf("metrics %+v after %+v", after, before)
	}
}

// TestFailedLog lets the disk refuse the log: commits answer ErrFailed, the owner is told once, and what was acknowledged is found later.
func TestFailedLog(t *testing.T) {
	memory := vfs.NewCrashableMem()
	var broken atomic.Bool
	fs := errorfs.Wrap(memory, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.HasSuffix(op.Path, ".log") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return syscall.EIO
		}
		return nil
	}))
	var told atomic.Int64
	var fatal atomic.Value
	db := open(t, fs, Options{OnFatal: func(err error) { told.Add(1); fatal.Store(err) }})
	s := space(t, db, "s")
	var acknowledged atomic.Int64
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 200 {
				if worker == 0 && i == 50 {
					broken.Store(true)
				}
				b := db.Batch(0)
				b.Set(s, fmt.Appendf(nil, "%d-%d", worker, i), []byte("v"))
				err := b.Commit()
				b.Close()
				if err != nil {
					if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
						t.Errorf("commit: %v", err)
					}
					return
				}
				acknowledged.Add(1)
			}
		})
	}
	group.Wait()
	if err, _ := fatal.Load().(error); told.Load() != 1 || !errors.Is(err, syscall.EIO) {
		t.Errorf("told %d times: %v", told.Load(), err)
	}
	if _, err := db.Get(s, nil, []byte("0-0")); !errors.Is(err, ErrFailed) {
		t.Errorf("Get after the failure: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("Close after the failure: %v", err)
	}
	db = open(t, memory.CrashClone(vfs.CrashCloneCfg{}), Options{})
	defer db.Close()
	n := int64(len(strings.Fields(rows(t, db, space(t, db, "s")))))
	if n < acknowledged.Load() {
		t.Errorf("%d rows of %d that were acknowledged", n, acknowledged.Load())
	}
}

func TestBallastSavesAFullDisk(t *testing.T) {
	memory := vfs.NewMem()
	memory.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	var full atomic.Bool
	fs := errorfs.Wrap(memory, errorfs.InjectorFunc(func(op errorfs.Op) error {
		// The disk is full until somebody gives something up.
		if op.Kind == errorfs.OpRemove && strings.HasSuffix(op.Path, ballastName) {
			full.Store(false)
		}
		if full.Load() && strings.HasSuffix(op.Path, ".log") && op.Kind == errorfs.OpFileWrite {
			return syscall.ENOSPC
		}
		return nil
	}))
	db := open(t, fs, Options{Ballast: 1 << 20, MinFree: 16 << 20})
	defer db.Close()
	if _, err := memory.Stat("db/" + ballastName); err != nil {
		t.Fatalf("no ballast: %v", err)
	}
	if err := db.CheckSpace(); err != nil {
		t.Errorf("space is refused: %v", err)
	}
	full.Store(true)
	s := space(t, db, "s")
	b := db.Batch(0)
	b.Set(s, []byte("a"), []byte("b"))
	if err := b.Commit(); err != nil {
		t.Errorf("commit on a full disk with a ballast: %v", err)
	}
	b.Close()
	if _, err := memory.Stat("db/" + ballastName); err == nil {
		t.Error("the ballast is still there")
	}
	memory.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 15 << 20})
	db.disk.checked.Store(0)
	if err := db.CheckSpace(); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a nearly full disk: %v", err)
	}
	memory.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	db.disk.checked.Store(0)
	if err := db.CheckSpace(); err != nil {
		t.Errorf("free again: %v", err)
	}
	if _, err := memory.Stat("db/" + ballastName); err != nil {
		t.Errorf("the ballast was not taken back: %v", err)
	}
}

func TestCheckpointIsADatabase(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir+"/db", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := space(t, db, "s")
	b := db.Batch(0)
	b.Set(s, []byte("a"), []byte("b"))
	if err := errors.Join(b.CommitUnsynced(), db.Checkpoint(dir+"/copy")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	copied, err := Open(dir+"/copy", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if got := rows(t, copied, space(t, copied, "s")); got != "a=b" {
		t.Errorf("the copy holds %q", got)
	}
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		start := time.Now()
		db, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds()), "open-us")
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
