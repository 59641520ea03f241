package vault

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv"
)

// cuts is a log that takes a picture of the disk, without what was not flushed, whenever something is logged.
type cuts struct {
	fs    *vfs.MemFS
	taken []*vfs.MemFS
	lines strings.Builder
}

func (c *cuts) Write(line []byte) (int, error) {
	c.taken = append(c.taken, c.fs.CrashClone(vfs.CrashCloneCfg{}))
	return c.lines.Write(line)
}

// TestMigrationFromOne cuts the power wherever the migration of a real database of format 1 tells how far it is.
func TestMigrationFromOne(t *testing.T) {
	fs := vfs.NewCrashableMem()
	loadFixture(t, fs, "vault-1", "db")
	log := &cuts{fs: fs.CrashClone(vfs.CrashCloneCfg{})}
	s := open(t, log.fs, "db", Options{Now: fixtureNow, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(log.taken) < 2 || !strings.Contains(log.lines.String(), "from version 1 to 2: digests of bodies") {
		t.Fatalf("the log says: %s", log.lines.String())
	}
	for _, fs := range log.taken {
		s := open(t, fs, "db", Options{Now: fixtureNow})
		wantFixture(t, s.Store)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMigrationStopsAtDamage: what cannot be read is no reason to stamp the store.
func TestMigrationStopsAtDamage(t *testing.T) {
	fs := vfs.NewMem()
	loadFixture(t, fs, "vault-1", "db")
	db, err := kv.Open("db", kv.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	space, err := db.Space("vault")
	if err != nil {
		t.Fatal(err)
	}
	batch := db.Batch(16)
	batch.Set(space, []byte{rowStructure, 1}, nil)
	err = batch.Commit()
	batch.Close()
	space.Release()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s, err := Open(db, Options{}); err == nil || !strings.Contains(err.Error(), "from version 1 to 2 (digests of bodies)") {
			t.Errorf("opened: %v, %v", err, errors.Join(s.Close()))
		}
	}
}
