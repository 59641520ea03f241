// Package kv is the one embedded database of a server: Pebble (an LSM tree with a write-ahead log) wrapped as small as the rooms above it need.
// Each room takes a Space of its own, a part of the keys that no other room can reach, and all rooms may put rows into one Batch, so
// that one commit and one disk flush hold the whole of an event: a mail in its mailbox, the queue's entries for the other recipients,
// the count of the quota.
//
// What is committed with Commit, or with Start and Wait, is on the disk when the call returns. Commits made at the same time share flushes:
// Pebble appends every batch to one log and flushes the log for all that wait. The log keeps the order in which batches were
// started, so a batch that survived a crash never survives without those before it.
//
// It is not a query layer, knows no types, and belongs to one process: the directory is locked. It does not end the process: what
// Pebble cannot go on after is told to Options.OnFatal, and from then on every call answers ErrFailed.
//
// Memory: memtables grow from 256 KiB to Options.MemTableSize (16 MiB), and at most three stand at a time under load, one when idle; the block cache
// fills up to Options.CacheSize (16 MiB) as blocks are read. A server that has just started needs a few megabytes for all of it.
package kv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The errors that callers tell apart.
var (
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("kv: no such row")
	// ErrFailed: the database met an error after which it cannot go on. The process should end and start again; what was acknowledged is
	// on the disk.
	ErrFailed = errors.New("kv: the database has failed and must be opened again")
	// ErrNoSpace: less than Options.MinFree is free on the disk.
	ErrNoSpace = errors.New("kv: no space left on the disk")
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("kv: the database is in use")
	// ErrFormat: the directory holds something that this version cannot read.
	ErrFormat = errors.New("kv: unknown database format")
	// ErrDamaged: the database's files are not what was written.
	ErrDamaged = errors.New("kv: the database is damaged")
)

// Sizes taken when Options leaves them zero.
const (
	DefaultCacheSize    = 16 << 20
	DefaultMemTableSize = 16 << 20
	DefaultMinFree      = 64 << 20
	DefaultBallast      = 32 << 20
	// DefaultSeparateFrom keeps message bodies out of compaction and rows of counters, entries and structures in the tree.
	DefaultSeparateFrom = 1 << 10
)

const (
	// flushDelay is how long after the deletion of a range the space is given back at the latest.
	flushDelay = 30 * time.Second
	// rewriteAge is how old a blob file must be before it is rewritten for what was deleted in it.
	rewriteAge = 10 * time.Minute
)

// Options tell how to open a database. The zero value is fit for a mail server.
type Options struct {
	// FS is the file system, the operating system's when nil.
	FS vfs.FS
	// CacheSize bounds the block cache, MemTableSize one memtable, in octets; 0 takes the defaults.
	CacheSize    int64
	MemTableSize int64
	// Logger gets what Pebble reports; nil drops it.
	Logger *slog.Logger
	// OnFatal is called once, from any goroutine, with the error after which the database cannot go on. It must return at once. The owner
	// of the process ends it then: goroutines inside Pebble may hang and Close does not wait for them.
	OnFatal func(error)
	// MinFree is the free space in octets below which CheckSpace refuses; 0 takes the default, below 0 never refuses.
	MinFree int64
	// Ballast is the size in octets of a file that is given up when the disk is full, so that what is under way can end; 0 takes the default,
	// below 0 keeps none.
	Ballast int64
	// SeparateFrom is the size in octets from which values live in blob files beside the tree, which compaction does not rewrite; 0 takes the
	// default, below 0 keeps all values in the tree. It may change from one opening to the next.
	SeparateFrom int
	// ReadOnly opens a database, such as a backup, of which no file is to be changed: what the log holds is read into memory. There must be one.
	ReadOnly bool
}

// DB is an open database. Its methods may be called at the same time, except Close.
type DB struct {
	dir    string
	fs     vfs.FS
	lock   io.Closer
	pebble *pebble.DB
	cache  *pebble.Cache
	log    *slog.Logger
	disk   disk
	// readOnly: nothing may be written.
	readOnly bool

	onFatal  func(error)
	failure  atomic.Pointer[failure]
	commits  atomic.Int64
	gather   gather
	corrupt  atomic.Int64
	spacesMu sync.Mutex
	claimed  map[string]bool
}

type failure struct{ err error }

// Open opens the database in dir and makes both when they are not there. It answers ErrLocked when another process has it, ErrFormat when a newer
// version wrote it.
func Open(dir string, options Options) (*DB, error) {
	options = options.withDefaults()
	fs := options.FS
	var lock io.Closer = io.NopCloser(nil)
	if options.ReadOnly {
		options.Ballast = -1
	} else {
		if err := makeDirectory(fs, dir); err != nil {
			return nil, fmt.Errorf("kv: making %s: %w", dir, err)
		}
		var err error
		if lock, err = lockDirectory(fs, dir); err != nil {
			return nil, err
		}
	}
	db := &DB{dir: dir, fs: fs, lock: lock, log: options.Logger, readOnly: options.ReadOnly, onFatal: options.OnFatal, claimed: map[string]bool{}}
	db.disk = disk{fs: fs, dir: dir, minFree: options.MinFree, ballast: options.Ballast, log: options.Logger}
	if err := db.open(options); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return db, nil
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheSize == 0 {
		o.CacheSize = DefaultCacheSize
	}
	if o.MemTableSize == 0 {
		o.MemTableSize = DefaultMemTableSize
	}
	if o.MinFree == 0 {
		o.MinFree = DefaultMinFree
	}
	if o.Ballast == 0 {
		o.Ballast = DefaultBallast
	}
	if o.SeparateFrom == 0 {
		o.SeparateFrom = DefaultSeparateFrom
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (db *DB) open(options Options) (err error) {
	if err := checkFormat(db.fs, db.dir, options.ReadOnly); err != nil {
		return err
	}
	if !options.ReadOnly {
		db.disk.releaseWhenLow()
	}
	db.cache = pebble.NewCache(options.CacheSize)
	defer db.cache.Unref()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("kv: opening %s: %v", db.dir, r)
		}
	}()
	db.pebble, err = pebble.Open(db.dir, db.pebbleOptions(options))
	// Pebble does not mark a MANIFEST without a first record as the damage that it is.
	if errors.Is(err, pebble.ErrCorruption) || err != nil && strings.Contains(err.Error(), "malformed manifest") {
		return fmt.Errorf("%w: opening %s: %w", ErrDamaged, db.dir, err)
	}
	if err != nil {
		return fmt.Errorf("kv: opening %s: %w", db.dir, err)
	}
	db.disk.keepBallast()
	return nil
}

func (db *DB) pebbleOptions(options Options) *pebble.Options {
	o := &pebble.Options{
		ReadOnly:                    options.ReadOnly,
		FS:                          vfs.OnDiskFull(db.fs, db.disk.release),
		Cache:                       db.cache,
		MemTableSize:                uint64(options.MemTableSize),
		MemTableStopWritesThreshold: 3,
		WALMinSyncInterval:          db.gather.pause,
		MaxOpenFiles:                512,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		Logger:                      (*pebbleLog)(db),
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { db.log.Error("database background work failed", "dir", db.dir, "error", err) },
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				db.corrupt.Add(1)
				db.log.Error("database file is damaged", "dir", db.dir, "file", info.Path, "error", info.Details)
			},
		},
		// Compaction of the upper levels on a second core only when it falls behind: a mail server's cores belong to its sessions.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		L0CompactionThreshold:      4,
		L0StopWritesThreshold:      24,
		LBaseMaxBytes:              64 << 20,
		// Deleting a range (a mailbox, a day of delivery ids) gives its space back within this time even on an idle server.
		FlushDelayDeleteRange: flushDelay,
	}
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = 16 << 10
	}
	if options.SeparateFrom > 0 {
		o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
			return pebble.ValueSeparationPolicy{
				Enabled: true, MinimumSize: options.SeparateFrom, MaxBlobReferenceDepth: 10, RewriteMinimumAge: rewriteAge, TargetGarbageRatio: 0.3,
			}
		}
	}
	return o
}

// Close waits for background work and gives the files back. Batches, iterators and snapshots must have ended. After a failure it only releases the
// directory's lock.
func (db *DB) Close() error {
	var err error
	if db.failure.Load() == nil {
		err = db.pebble.Close()
	}
	return errors.Join(err, db.lock.Close())
}

// Dir is the directory of the database.
func (db *DB) Dir() string { return db.dir }

// Err returns nil, or ErrFailed with the reason once the database cannot go on.
func (db *DB) Err() error {
	if f := db.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

func (db *DB) fail(reason error) error {
	f := &failure{fmt.Errorf("%w: %w", ErrFailed, reason)}
	if db.failure.CompareAndSwap(nil, f) {
		db.log.Error("database failed", "dir", db.dir, "error", reason)
		if db.onFatal != nil {
			db.onFatal(f.err)
		}
	}
	return db.Err()
}

// Checkpoint writes a copy of the database as it is now to dir, which must not exist, while everything goes on. Files are linked when
// dir is on the same disk.
func (db *DB) Checkpoint(dir string) error {
	if err := db.Err(); err != nil {
		return err
	}
	if err := db.pebble.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("kv: copying %s to %s: %w", db.dir, dir, err)
	}
	return writeFormat(db.fs, dir)
}

// Compact rewrites all tables, which drops what was deleted. It takes as long as reading and writing the whole database.
func (db *DB) Compact(ctx context.Context) error {
	if err := db.Err(); err != nil {
		return err
	}
	if err := db.pebble.Compact(ctx, []byte{0}, []byte{0xff}, true); err != nil {
		return fmt.Errorf("kv: compacting %s: %w", db.dir, err)
	}
	return nil
}
