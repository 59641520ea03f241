package maildir

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postilion/store"
)

// disk is every step that changes files, so that a test can stop before any of them.
type disk struct {
	// before is asked before each step and makes it fail; nil in real life.
	before func(step, path string) error
	// releases says when locks were let go.
	releases releases
	// unsynced leaves flushing to the system; for tests of everything but durability.
	unsynced bool
}

func (d *disk) flush(file *os.File) error {
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
	return kind(os.Rename(from, to))
}

func (d *disk) link(from, to string) error {
	if err := d.step("link", to); err != nil {
		return err
	}
	return kind(os.Link(from, to))
}

func (d *disk) remove(path string) error {
	if err := d.step("remove", path); err != nil {
		return err
	}
	return kind(os.Remove(path))
}

func (d *disk) removeAll(path string) error {
	if err := d.step("removeAll", path); err != nil {
		return err
	}
	return kind(os.RemoveAll(path))
}

// syncDir makes the names in a directory durable.
func (d *disk) syncDir(path string) error {
	if err := d.step("syncDir", path); err != nil {
		return err
	}
	dir, err := os.Open(path)
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
func (o ownership) give(path string) error {
	if os.Geteuid() != 0 || (o.uid < 0 && o.gid < 0) {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// mkdirAll makes a directory and those above it.
func (d *disk) mkdirAll(path string, owner ownership) error {
	if info, err := os.Stat(path); err == nil {
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
	if err := os.Mkdir(path, owner.dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return kind(err)
	}
	if err := owner.give(path); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// replace puts content at path in one step: a temporary file beside it, flushed, renamed.
func (d *disk) replace(path string, content []byte, owner ownership) error {
	temporary := path + ".tmp" + randomHex(8)
	if err := d.writeFile(temporary, content, owner); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	if err := d.rename(temporary, path); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

func (d *disk) writeFile(path string, content []byte, owner ownership) error {
	if err := d.step("write", path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, owner.file())
	if err != nil {
		return kind(err)
	}
	_, err = file.Write(content)
	if err == nil {
		err = owner.give(path)
	}
	if err == nil {
		err = d.flush(file)
	}
	return kind(errors.Join(err, file.Close()))
}

// appendFile adds content at the end of path, which exists unless create is set, and flushes it when sync is set. It returns what the
// file is afterwards.
func (d *disk) appendFile(path string, content []byte, owner ownership, create, sync bool) (fs.FileInfo, error) {
	if err := d.step("append", path); err != nil {
		return nil, err
	}
	flags := os.O_WRONLY | os.O_APPEND
	if create {
		flags |= os.O_CREATE
	}
	file, err := os.OpenFile(path, flags, owner.file())
	if err != nil {
		return nil, kind(err)
	}
	before, err := file.Stat()
	if err == nil && before.Size() == 0 {
		err = owner.give(path)
	}
	if err == nil {
		if _, err = file.Write(content); err != nil {
			// A part of a record must not stand before the next one.
			err = errors.Join(err, file.Truncate(before.Size()))
		}
	}
	if err == nil && sync {
		err = d.flush(file)
	}
	var info fs.FileInfo
	if err == nil {
		info, err = file.Stat()
	}
	return info, kind(errors.Join(err, file.Close()))
}

// readLimited reads a control file; a missing one is empty with a nil FileInfo.
func readLimited(path string) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path)
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

// staleLock is how old a lock file must be to be taken away: its owner has died. Dovecot's programs use the same time.
const staleLock = 2 * time.Minute

// lockText says in a lock file who holds it, as Dovecot writes it, and which run of the program: a process number comes back, the more so in a
// container.
var lockText = fmt.Sprintf("%d:%s:%s", os.Getpid(), lockHost(), randomHex(8))

func lockHost() string {
	host, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return host
}

// bootTime is when the system started; no process is older. The zero time when the system does not say.
func bootTime() time.Time {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return time.Time{}
	}
	// A second more for what the clock was corrected by since.
	return time.Now().Add(-time.Duration(info.Uptime+1) * time.Second)
}

// abandoned tells whether the process that made the lock file is known to be gone.
func abandoned(name string, info fs.FileInfo) bool {
	if time.Since(info.ModTime()) > staleLock || info.ModTime().Before(bootTime()) {
		return true
	}
	if info.Size() > 1000 {
		return false
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return false
	}
	words := strings.Split(strings.TrimSpace(string(text)), ":")
	if len(words) < 2 || words[1] != lockHost() {
		return false
	}
	pid, err := strconv.Atoi(words[0])
	if err != nil || pid <= 0 {
		return false
	}
	if pid == os.Getpid() {
		return len(words) == 3 && string(text) != lockText
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// lock makes path+".lock" as Dovecot's programs and Procmail do and returns what removes it.
func (d *disk) lock(ctx context.Context, path string, timeout time.Duration, owner ownership) (unlock func(), err error) {
	if err := d.step("lock", path); err != nil {
		return nil, err
	}
	name := path + ".lock"
	deadline := time.Now().Add(timeout)
	d.giveWay(name)
	claim, mine, err := makeClaim(name, owner)
	if err != nil {
		return nil, kind(err)
	}
	// The claim stands while we wait, so that whoever holds the lock sees that somebody waits.
	defer func() { _ = os.Remove(claim) }()
	for wait := time.Millisecond; ; wait = min(2*wait, longestLockWait) {
		err := os.Link(claim, name)
		if err == nil {
			return func() {
				// Whoever took it for abandoned owns the name now.
				if info, err := os.Stat(name); err == nil && os.SameFile(info, mine) {
					_ = os.Remove(name)
				}
				d.releases.note(name)
			}, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, kind(err)
		}
		if info, err := os.Stat(name); err == nil && abandoned(name, info) {
			_ = os.Remove(name)
			continue
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s is held by another program for longer than %v", name, timeout)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// longestLockWait is how long a waiter sleeps between two tries at the most.
const longestLockWait = 8 * time.Millisecond

// giveWay waits a moment when we let the lock go just now and another process waits for it: otherwise a busy process would take it again
// before a waiter looks, for ever.
func (d *disk) giveWay(name string) {
	if !d.releases.recent(name) {
		return
	}
	claims, err := filepath.Glob(escapeGlob(name) + ".*")
	if err != nil {
		return
	}
	for _, claim := range claims {
		if info, err := os.Stat(claim); err == nil && time.Since(info.ModTime()) < staleLock {
			time.Sleep(longestLockWait + 2*time.Millisecond)
			return
		}
	}
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// releases remembers when this process let go of locks last.
type releases struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// maxReleases bounds what is remembered.
const maxReleases = 10_000

func (r *releases) note(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil || len(r.last) >= maxReleases {
		r.last = map[string]time.Time{}
	}
	r.last[name] = time.Now()
}

func (r *releases) recent(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.last[name]) < longestLockWait
}

// makeClaim makes a file beside the lock that says whose it is; a link to it is the lock, so that no lock is ever found that does not say so.
func makeClaim(name string, owner ownership) (claim string, info fs.FileInfo, err error) {
	claim = name + "." + randomHex(8)
	file, err := os.OpenFile(claim, os.O_WRONLY|os.O_CREATE|os.O_EXCL, owner.file())
	if err != nil {
		return "", nil, err
	}
	_, writeErr := file.WriteString(lockText)
	info, statErr := file.Stat()
	if err := errors.Join(writeErr, statErr, owner.give(claim), file.Close()); err != nil {
		return "", nil, errors.Join(err, os.Remove(claim))
	}
	return claim, info, nil
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

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// within tells whether path is dir or lies below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
