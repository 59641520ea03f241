package maildir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// fileSystem is what this package asks of the operating system, so that a test can put one in its place that forgets what was not flushed. Errors
// are the operating system's.
type fileSystem interface {
	OpenFile(name string, flag int, perm fs.FileMode) (openFile, error)
	Stat(name string) (fs.FileInfo, error)
	Mkdir(name string, perm fs.FileMode) error
	Rename(from, to string) error
	Link(from, to string) error
	Remove(name string) error
	RemoveAll(name string) error
	// Chown does not follow a symbolic link.
	Chown(name string, uid, gid int) error
	Chtimes(name string, modified time.Time) error
}

// openFile is an open file or directory.
type openFile interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
	Readdirnames(n int) ([]string, error)
}

// hostFiles is the file system of the host.
type hostFiles struct{}

func (hostFiles) OpenFile(name string, flag int, perm fs.FileMode) (openFile, error) {
	// os.OpenFile would ask the poller for each file, which regular files and directories cannot use.
	for {
		fd, err := syscall.Open(name, flag|syscall.O_CLOEXEC, uint32(perm.Perm()))
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		default:
			return os.NewFile(uintptr(fd), name), nil
		}
	}
}

func (hostFiles) Stat(name string) (fs.FileInfo, error)     { return os.Stat(name) }
func (hostFiles) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }
func (hostFiles) Rename(from, to string) error              { return os.Rename(from, to) }
func (hostFiles) Link(from, to string) error                { return os.Link(from, to) }
func (hostFiles) Remove(name string) error                  { return os.Remove(name) }
func (hostFiles) RemoveAll(name string) error               { return os.RemoveAll(name) }
func (hostFiles) Chown(name string, uid, gid int) error     { return os.Lchown(name, uid, gid) }

func (hostFiles) Chtimes(name string, modified time.Time) error {
	return os.Chtimes(name, time.Time{}, modified)
}
