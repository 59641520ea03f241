package kv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// formatVersion is what this program writes and the newest that it reads. It changes when spaces or options make a database
// unreadable for older programs; each room keeps a version of its own rows besides, see Format.
const formatVersion = 1

const (
	formatName   = "POSTILION"
	formatPrefix = "postilion database format "
	ownerName    = "OWNER"
	// writtenPrefix begins the line that names the program for one that is older.
	writtenPrefix = "written by "
)

// checkFormat stamps a new directory with the version before anything else is written there, and refuses one it cannot read.
func checkFormat(files vfs.FS, dir string, readOnly bool) error {
	name := files.PathJoin(dir, formatName)
	text, err := readFile(files, name)
	if errors.Is(err, fs.ErrNotExist) && !readOnly {
		if found, err := foreign(files, dir); err != nil || found != "" {
			return errors.Join(err, formatError(found != "", "%s holds %s but no %s file: it is another program's database", dir, found, formatName))
		}
		return writeFormat(files, dir)
	}
	if err != nil {
		return fmt.Errorf("kv: reading %s: %w", name, err)
	}
	line, rest, _ := strings.Cut(string(text), "\n")
	digits, ok := strings.CutPrefix(line, formatPrefix)
	version, err := strconv.Atoi(digits)
	if !ok || err != nil || version < 1 {
		return formatError(true, "%s does not name a format", name)
	}
	if version > formatVersion {
		by, ok := strings.CutPrefix(strings.TrimSpace(rest), writtenPrefix)
		if !ok {
			by = "another program"
		}
		return formatError(true, "%s says version %d, written by %s; this program, %s, reads up to %d: start that program or a newer one",
			name, version, by, program(), formatVersion)
	}
	return whole(files, dir)
}

// whole refuses a directory that has lost what tells which files belong to the database: opened, it would pass for a new one, and everything in it
// would be removed.
func whole(files vfs.FS, dir string) error {
	names, err := files.List(dir)
	if err != nil {
		return fmt.Errorf("kv: listing %s: %w", dir, err)
	}
	rows := ""
	for _, name := range names {
		if strings.HasPrefix(name, "marker.manifest.") {
			return nil
		}
		switch path := files.PathJoin(dir, name); files.PathBase(name)[max(0, len(name)-4):] {
		case ".sst", "blob":
			rows = name
		case ".log":
			if info, err := files.Stat(path); err == nil && info.Size() > 0 {
				rows = name
			}
		}
	}
	if rows == "" {
		return nil
	}
	return fmt.Errorf("%w: %s holds %s but no marker.manifest file that tells which files belong to it", ErrDamaged, dir, rows)
}

func formatError(wrong bool, format string, args ...any) error {
	if !wrong {
		return nil
	}
	return fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
}

// foreign returns the name of a file of Pebble's in dir.
func foreign(files vfs.FS, dir string) (string, error) {
	names, err := files.List(dir)
	if err != nil {
		return "", fmt.Errorf("kv: listing %s: %w", dir, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "marker.") || name == "CURRENT" {
			return name, nil
		}
	}
	return "", nil
}

func writeFormat(files vfs.FS, dir string) error {
	name := files.PathJoin(dir, formatName)
	err := writeFile(files, name+".tmp", fmt.Appendf(nil, "%s%d\n%s%s\n", formatPrefix, formatVersion, writtenPrefix, program()))
	if err == nil {
		err = files.Rename(name+".tmp", name)
	}
	if err == nil {
		err = syncDirectory(files, dir)
	}
	if err != nil {
		return fmt.Errorf("kv: writing %s: %w", name, err)
	}
	return nil
}

// lockDirectory takes the lock that Pebble would take and leaves a note of who holds it for the next one who asks.
func lockDirectory(files vfs.FS, dir string) (io.Closer, error) {
	owner := files.PathJoin(dir, ownerName)
	lock, err := files.Lock(files.PathJoin(dir, "LOCK.postilion"))
	if err != nil {
		holder := "another process"
		if text, readErr := readFile(files, owner); readErr == nil && len(text) > 0 {
			holder = strings.TrimSpace(string(text))
		}
		return nil, fmt.Errorf("%w: %s is held by %s: %w", ErrLocked, dir, holder, err)
	}
	if err := putFile(files, owner, []byte(self())); err != nil {
		return nil, errors.Join(fmt.Errorf("kv: writing %s: %w", owner, err), lock.Close())
	}
	return lock, nil
}

// self names this process for the one who finds the directory locked.
func self() string { return fmt.Sprintf("process %d (%s)\n", os.Getpid(), filepath.Base(os.Args[0])) }

func readFile(files vfs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return text, errors.Join(err, f.Close())
}

// putFile writes a file that need not be on the disk, writeFile one that must.
func putFile(files vfs.FS, name string, text []byte) error {
	f, err := files.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

func writeFile(files vfs.FS, name string, text []byte) error {
	f, err := files.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// makeDirectory makes dir and what is missing above it. A name is durable only when the directory that holds it was flushed, so until the database is
// stamped every directory on the way down is, also those that somebody else made a moment ago. Directories above that may not be read
// were there before, and a file system that has no flush for directories is not asked twice.
func makeDirectory(files vfs.FS, dir string) error {
	if err := files.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := files.Stat(files.PathJoin(dir, formatName)); err == nil {
		return nil
	}
	for at := dir; ; at = files.PathDir(at) {
		if err := syncDirectory(files, at); at != dir && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EINVAL)) {
			return nil
		} else if err != nil {
			return err
		}
		if files.PathDir(at) == at {
			return nil
		}
	}
}

func syncDirectory(files vfs.FS, dir string) error {
	d, err := files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// pebbleLog hands Pebble's messages to slog.
type pebbleLog DB

var _ pebble.Logger = (*pebbleLog)(nil)

func (l *pebbleLog) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...), "dir", l.dir)
	}
}

func (l *pebbleLog) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...), "dir", l.dir)
}

// Fatalf must not return, for Pebble's state is not to be relied on after it: a table list that was not written might be taken for written. The
// one exception is a failed commit, reported in the committing goroutine, which then sees the failure itself.
func (l *pebbleLog) Fatalf(format string, args ...any) {
	reason := fmt.Errorf(format, args...)
	_ = (*DB)(l).fail(reason)
	if strings.Contains(format, "fatal commit error") {
		return
	}
	select {}
}
