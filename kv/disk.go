package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	ballastName = "BALLAST"
	// spaceAge is how long a look at the disk is good for.
	spaceAge = 200 * time.Millisecond
)

// disk watches the free space of the database's directory and keeps the ballast.
type disk struct {
	fs      vfs.FS
	dir     string
	minFree int64
	ballast int64
	log     *slog.Logger

	checked atomic.Int64
	free    atomic.Int64
	// mu guards the ballast file.
	mu   sync.Mutex
	held bool
}

// CheckSpace answers ErrNoSpace when less than Options.MinFree is free. It costs next to nothing: the disk is asked a few times a second.
// Those who are about to store a message ask first; giving space back needs no asking.
func (db *DB) CheckSpace() error {
	free, err := db.disk.space()
	if err != nil {
		return err
	}
	if db.disk.minFree > 0 && free < db.disk.minFree {
		return fmt.Errorf("%w: %s has %d octets free, %d are needed", ErrNoSpace, db.dir, free, db.disk.minFree)
	}
	return nil
}

// Free returns the octets that are free on the disk, as of the last few moments.
func (db *DB) Free() (int64, error) { return db.disk.space() }

func (d *disk) space() (int64, error) {
	now := time.Now().UnixNano()
	if last := d.checked.Load(); last != 0 && now-last < int64(spaceAge) {
		return d.free.Load(), nil
	}
	free, err := d.ask()
	if err != nil {
		return 0, err
	}
	d.free.Store(free)
	d.checked.Store(now)
	if d.ballast > 0 {
		d.adjust(free)
	}
	return free, nil
}

func (d *disk) ask() (int64, error) {
	usage, err := d.fs.GetDiskUsage(d.dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return 1 << 62, nil
	}
	if err != nil {
		return 0, fmt.Errorf("kv: free space of %s: %w", d.dir, err)
	}
	return int64(min(usage.AvailBytes, 1<<62)), nil
}

// adjust gives the ballast up when the disk is nearly full, and takes it back when there is room again.
func (d *disk) adjust(free int64) {
	switch low := d.ballast; {
	case free < low:
		d.release()
	case free > max(d.minFree, 0)+3*d.ballast:
		d.keepBallast()
	}
}

func (d *disk) releaseWhenLow() {
	if free, err := d.ask(); err == nil && free < d.ballast {
		d.mu.Lock()
		d.held = true
		d.mu.Unlock()
		d.release()
	}
}

// release removes the ballast file. It is also what Pebble's writes call when the disk is full, before they try once more.
func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.held {
		return
	}
	d.held = false
	if err := d.fs.Remove(d.fs.PathJoin(d.dir, ballastName)); err != nil && !os.IsNotExist(err) {
		d.log.Error("cannot give up the ballast", "dir", d.dir, "error", err)
		return
	}
	d.log.Warn("disk is full: gave up the ballast", "dir", d.dir, "octets", d.ballast)
}

// keepBallast makes the ballast file when it is not there and there is room for it.
func (d *disk) keepBallast() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ballast <= 0 || d.held {
		return
	}
	name := d.fs.PathJoin(d.dir, ballastName)
	if _, err := d.fs.Stat(name); err == nil {
		d.held = true
		return
	}
	if free, err := d.ask(); err != nil || free < max(d.minFree, 0)+2*d.ballast {
		return
	}
	f, err := d.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err == nil {
		err = errors.Join(f.Preallocate(0, d.ballast), f.Close())
	}
	d.held = err == nil
	if err != nil {
		d.log.Warn("cannot keep a ballast", "dir", d.dir, "error", errors.Join(err, d.fs.Remove(name)))
	}
}
