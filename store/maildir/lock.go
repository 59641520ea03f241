package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// staleLock is how old a lock file must be to be taken away whoever made it. Dovecot's programs use the same time.
	staleLock = 2 * time.Minute
	// staleEmptyLock is how old a lock file must be that says nothing of its holder. Programs that write into their locks, ours and Dovecot's, do so at
	// once: one that stays empty lost its content in a power cut, or its maker died on the spot. Whoever makes one looks, when that took
	// long, whether it is still there. It is watched for a twentieth of this, whatever the clocks say.
	staleEmptyLock = 2 * time.Second
	// longestLockWait is how long a waiter sleeps between two tries at the most.
	longestLockWait = 8 * time.Millisecond
	// maxLockText bounds what is read of a lock file.
	maxLockText = 1000
)

// processToken tells this run of the program from others: a process number comes back, the more so in a container.
var processToken = randomHex(8)

// newHolder returns what a store writes into its locks: process and host as Dovecot writes them, then, behind a NUL that ends the text for
// Dovecot, which run of the program it is and which store.
func newHolder() string {
	return fmt.Sprintf("%d:%s\x00%s:%s", os.Getpid(), lockHost(), processToken, randomHex(8))
}

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

// watchedLock is a lock file that says nothing of its holder, since it was first seen.
type watchedLock struct {
	stamp stamp
	since time.Time
}

// abandoned tells whether the process that made the lock file is known to be gone.
func (d *disk) abandoned(name string, info fs.FileInfo, watched *watchedLock) bool {
	if time.Since(info.ModTime()) > staleLock || info.ModTime().Before(bootTime()) {
		return true
	}
	text, ok := d.lockHolder(name)
	if !ok {
		return false
	}
	if strings.Trim(text, "\x00") == "" {
		if now := stampOf(info); now != watched.stamp {
			*watched = watchedLock{stamp: now, since: time.Now()}
		}
		return time.Since(info.ModTime()) > d.staleEmpty && time.Since(watched.since) > d.staleEmpty/20
	}
	if text == d.holder {
		// One that we could not remove, on a disk that gave errors.
		return !d.locks.holds(name)
	}
	process, run, ours := strings.Cut(text, "\x00")
	digits, host, _ := strings.Cut(strings.TrimSpace(process), ":")
	pid, err := strconv.Atoi(digits)
	if err != nil || pid <= 0 || host != lockHost() {
		return false
	}
	if pid == os.Getpid() {
		return ours && !strings.HasPrefix(run, processToken)
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// removeStale removes the lock file that was judged, unless another waiter was quicker and made one of its own.
func (d *disk) removeStale(name string, judged stamp) bool {
	info, err := d.files.Stat(name)
	return err == nil && stampOf(info).inode == judged.inode && d.files.Remove(name) == nil
}

// lockHolder returns what a lock file holds, if that is short.
func (d *disk) lockHolder(name string) (text string, ok bool) {
	file, err := d.open(name)
	if err != nil {
		return "", false
	}
	content, err := io.ReadAll(io.LimitReader(file, maxLockText+1))
	return string(content), errors.Join(err, file.Close()) == nil && len(content) <= maxLockText
}

// held is a lock that was taken.
type held struct {
	// unlock lets it go.
	unlock func()
	// inherited tells that it was taken from a holder who is gone, in the middle of something perhaps.
	inherited bool
}

// lock makes path+".lock" as Dovecot's programs do.
func (d *disk) lock(ctx context.Context, path string, timeout time.Duration, owner ownership) (held, error) {
	if err := d.step("lock", path); err != nil {
		return held{}, err
	}
	name := path + ".lock"
	d.giveWay(name)
	var h held
	var watched watchedLock
	deadline := time.Now().Add(timeout)
	for wait := time.Duration(0); ; wait = min(2*wait+time.Millisecond, longestLockWait) {
		mine, err := d.makeLock(name, owner)
		if err == nil {
			if wait > 0 {
				_ = d.files.Remove(name + waiting)
			}
			d.locks.take(name)
			h.unlock = func() { d.unlock(name, mine) }
			return h, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return held{}, kind(err)
		}
		if info, err := d.files.Stat(name); err == nil && d.abandoned(name, info, &watched) && d.removeStale(name, stampOf(info)) {
			h.inherited = true
			continue
		}
		d.claim(name, owner)
		if time.Now().After(deadline) {
			return held{}, fmt.Errorf("%s is held by another program for longer than %v", name, timeout)
		}
		select {
		case <-ctx.Done():
			return held{}, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// makeLock makes the lock file and writes into it whose it is.
func (d *disk) makeLock(name string, owner ownership) (stamp, error) {
	began := time.Now()
	file, err := d.files.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, owner.file())
	if err != nil {
		return stamp{}, err
	}
	_, err = file.Write([]byte(d.holder))
	info, statErr := file.Stat()
	if err := errors.Join(err, statErr, d.give(name, owner), file.Close()); err != nil {
		return stamp{}, errors.Join(err, d.files.Remove(name))
	}
	mine := stampOf(info)
	if time.Since(began) > d.staleEmpty/2 {
		// Somebody may have seen it empty for too long.
		if now, err := d.files.Stat(name); err != nil || stampOf(now).inode != mine.inode {
			return stamp{}, fs.ErrExist
		}
	}
	return mine, nil
}

func (d *disk) unlock(name string, mine stamp) {
	// Whoever took it for abandoned owns the name now.
	if info, err := d.files.Stat(name); err == nil && stampOf(info).inode == mine.inode {
		_ = d.files.Remove(name)
	}
	d.locks.release(name)
}

// waiting is the end of the name of a file beside a lock that is there while somebody waits for it. Whoever waits makes it again when it is gone.
const waiting = ".wait"

// claim lets the holder of the lock see that somebody waits. It is a courtesy: when it cannot be made we wait all the same.
func (d *disk) claim(name string, owner ownership) {
	file, err := d.files.OpenFile(name+waiting, os.O_WRONLY|os.O_CREATE|os.O_EXCL, owner.file())
	if err == nil {
		_ = errors.Join(d.give(name+waiting, owner), file.Close())
	}
}

// giveWay waits a moment when we let the lock go just now and another process waits for it: otherwise a busy process would take it again
// before a waiter looks, for ever.
func (d *disk) giveWay(name string) {
	if d.locks.recent(name) && d.files.Remove(name+waiting) == nil {
		time.Sleep(longestLockWait + 2*time.Millisecond)
	}
}

// locks remembers which locks this store holds and when it let go of others last.
type locks struct {
	mu       sync.Mutex
	taken    map[string]int
	released map[string]time.Time
}

// maxReleases bounds what is remembered.
const maxReleases = 10_000

func (l *locks) take(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken == nil {
		l.taken = map[string]int{}
	}
	l.taken[name]++
}

func (l *locks) release(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken[name]--; l.taken[name] <= 0 {
		delete(l.taken, name)
	}
	if l.released == nil || len(l.released) >= maxReleases {
		l.released = map[string]time.Time{}
	}
	l.released[name] = time.Now()
}

func (l *locks) holds(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken[name] > 0
}

func (l *locks) recent(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.released[name]) < longestLockWait
}
