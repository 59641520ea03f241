package maildir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"postilion/store"
)

// disk is every step that changes files, so that a test can stop before any of them.
type disk struct {
	files fileSystem
	// before is asked before each step and makes it fail; nil in real life.
	before func(step, path string) error
	// holder is what our lock files hold; locks says which there are.
	holder string
	locks  locks
	// staleEmpty is staleEmptyLock, or less in tests of cuts.
	staleEmpty time.Duration
	// unsynced leaves flushing to the system; for tests of everything but durability.
	unsynced bool
}

func (d *disk) open(path string) (openFile, error) { return d.files.OpenFile(path, os.O_RDONLY, 0) }

// list returns the names in a directory, in no order.
func (d *disk) list(path string) ([]string, error) {
	dir, err := d.open(path)
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	return names, errors.Join(err, dir.Close())
}

func (d *disk) flush(file openFile) error {
	if d.unsynced {
		return nil
	}
	return file.Sync()
}

func (d *disk) step(step, path string) error {
	if d.before != nil {
		return d.before(step, path)
	}
	return nil
}

// kind adds the store's kind to an error of the operating system.
func kind(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	}
	return err
}

func (d *disk) rename(from, to string) error {
	if err := d.step("rename", to); err != nil {
		return err
	}
	return kind(d.files.Rename(from, to))
}

func (d *disk) link(from, to string) error {
	if err := d.step("link", to); err != nil {
		return err
	}
	return kind(d.files.Link(from, to))
}

func (d *disk) remove(path string) error {
	if err := d.step("remove", path); err != nil {
		return err
	}
	return kind(d.files.Remove(path))
}

func (d *disk) removeAll(path string) error {
	if err := d.step("removeAll", path); err != nil {
		return err
	}
	return kind(d.files.RemoveAll(path))
}

// syncDir makes the names in a directory durable.
func (d *disk) syncDir(path string) error {
	if err := d.step("syncDir", path); err != nil {
		return err
	}
	dir, err := d.open(path)
	if err != nil {
		return err
	}
	return kind(errors.Join(d.flush(dir), dir.Close()))
}

// ownership is who gets what is made, and with which permissions.
type ownership struct {
	uid, gid int
	dir      fs.FileMode
}

func (o ownership) file() fs.FileMode { return o.dir & 0o666 }

// give hands path over; -1 leaves it. A process that is not root keeps what it made.
func (d *disk) give(path string, owner ownership) error {
	if os.Geteuid() != 0 || (owner.uid < 0 && owner.gid < 0) {
		return nil
	}
	return d.files.Chown(path, owner.uid, owner.gid)
}

// mkdirAll makes a directory and those above it.
func (d *disk) mkdirAll(path string, owner ownership) error {
	if info, err := d.files.Stat(path); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", path)
		}
		return nil
	}
	if parent := filepath.Dir(path); parent != path {
		if err := d.mkdirAll(parent, owner); err != nil {
			return err
		}
	}
	if err := d.step("mkdir", path); err != nil {
		return err
	}
	if err := d.files.Mkdir(path, owner.dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return kind(err)
	}
	if err := d.give(path, owner); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// replace puts content at path in one step: a temporary file beside it, flushed, renamed.
func (d *disk) replace(path string, content []byte, owner ownership) error {
	temporary := path + ".tmp" + randomHex(8)
	if err := d.writeFile(temporary, content, owner); err != nil {
		_ = d.files.Remove(temporary)
		return err
	}
	if err := d.rename(temporary, path); err != nil {
		_ = d.files.Remove(temporary)
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

func (d *disk) writeFile(path string, content []byte, owner ownership) error {
	if err := d.step("write", path); err != nil {
		return err
	}
	file, err := d.files.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, owner.file())
	if err != nil {
		return kind(err)
	}
	_, err = file.Write(content)
	if err == nil {
		err = d.give(path, owner)
	}
	if err == nil {
		err = d.flush(file)
	}
	return kind(errors.Join(err, file.Close()))
}

// appendFile adds content at the end of path, which exists and is known to have the given size. It returns the file, which the caller flushes and
// closes, and what it is now.
func (d *disk) appendFile(path string, content []byte, size int64) (openFile, fs.FileInfo, error) {
	if err := d.step("append", path); err != nil {
		return nil, nil, err
	}
	file, err := d.files.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, nil, kind(err)
	}
	_, err = file.Write(content)
	var info fs.FileInfo
	if err != nil {
		// A part of a record must not stand before the next one.
		err = errors.Join(err, file.Truncate(size))
	} else if info, err = file.Stat(); err == nil && info.Size() != size+int64(len(content)) {
		err = fmt.Errorf("%s was changed by a program that does not hold its lock", path)
	}
	if err != nil {
		return nil, nil, kind(errors.Join(err, file.Close()))
	}
	return file, info, nil
}

// flushAll runs the flushes, several at the same time: the file system then writes once for all of them.
func flushAll(flushes []func() error) error {
	if len(flushes) == 1 {
		return flushes[0]()
	}
	failures := make([]error, len(flushes))
	var group sync.WaitGroup
	for i, flush := range flushes[min(1, len(flushes)):] {
		group.Go(func() { failures[i+1] = flush() })
	}
	if len(flushes) > 0 {
		failures[0] = flushes[0]()
	}
	group.Wait()
	return errors.Join(failures...)
}

// readLimited reads a control file; a missing one is empty with a nil FileInfo.
func (d *disk) readLimited(path string) ([]byte, fs.FileInfo, error) {
	file, err := d.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() > maxControlFile || !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%w: %s is no file of at most %d octets", store.ErrDamaged, path, maxControlFile)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxControlFile))
	return content, info, err
}

// stamp tells whether a file is the one that was read.
type stamp struct {
	inode    uint64
	size     int64
	modified int64
}

func stampOf(info fs.FileInfo) stamp {
	if info == nil {
		return stamp{}
	}
	s := stamp{size: info.Size(), modified: info.ModTime().UnixNano()}
	if system, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = system.Ino
	}
	return s
}

// randomHex returns n random octets in hexadecimal.
func randomHex(n int) string {
	octets := make([]byte, n)
	// crypto/rand.Read never returns an error.
	_, _ = rand.Read(octets)
	return hex.EncodeToString(octets)
}

// trashPrefix begins the directories in which deleted mailboxes wait for their removal.
const trashPrefix = "..postilion-trash-"

func (d *disk) isDir(path string) bool {
	info, err := d.files.Stat(path)
	return err == nil && info.IsDir()
}

// within tells whether path is dir or lies below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
