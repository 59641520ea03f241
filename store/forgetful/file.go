package forgetful

import (
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// File is an open file or directory.
type File struct {
	fs    *FS
	name  string
	node  *node
	flags int
	mu    sync.Mutex
	at    int64
	read  bool
}

// OpenFile opens a file as os.OpenFile does.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (*File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	operation, changing := "open", false
	_, _, n, err := f.find("open", name)
	if err == nil && n == nil && flag&os.O_CREATE != 0 {
		operation, changing = "create", true
	}
	if err := f.begin(operation, name, changing); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	dir, base, n, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	case n == nil:
		n = f.newNode(perm.Perm())
		f.do(step{dir, base, n})
	case flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EEXIST}
	case n.mode.IsDir() && flag&(os.O_WRONLY|os.O_RDWR) != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case flag&os.O_TRUNC != 0:
		n.truncate(0)
	}
	return &File{fs: f, name: name, node: n, flags: flag}, nil
}

func (n *node) truncate(size int64) {
	n.content = resize(n.content, size)
	n.writes = append(n.writes, write{offset: size})
	n.modTime, n.changed = time.Now(), time.Now()
}

func (n *node) list() []string {
	names := make([]string, 0, len(n.names))
	for name := range n.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// do runs fn as one operation on the open file.
func (f *File) do(operation string, changing bool, fn func() error) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.begin(operation, f.name, changing); err != nil {
		return err
	}
	return fn()
}

// Read implements io.Reader.
func (f *File) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, offset int64) (n int, err error) {
	err = f.do("read", false, func() error {
		if f.node.mode.IsDir() {
			return &fs.PathError{Op: "read", Path: f.name, Err: syscall.EISDIR}
		}
		if offset < int64(len(f.node.content)) {
			n = copy(p, f.node.content[offset:])
		}
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.do("write", true, func() error {
		if f.flags&os.O_APPEND != 0 {
			f.at = int64(len(f.node.content))
		}
		f.node.content = put(f.node.content, f.at, p)
		f.node.writes = append(f.node.writes, write{offset: f.at, data: slices.Clone(p)})
		f.node.modTime, f.node.changed = time.Now(), time.Now()
		f.at += int64(len(p))
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Truncate sets the size.
func (f *File) Truncate(size int64) error {
	return f.do("truncate", true, func() error {
		f.node.truncate(size)
		return nil
	})
}

// Sync flushes the file or directory.
func (f *File) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.fs.begin("sync", f.name, true)
	switch {
	case err == nil:
		f.fs.sync(f.node)
	case !f.fs.off:
		f.node.writes = nil
	}
	return err
}

// Readdirnames returns all names of a directory at the first call, none at the next.
func (f *File) Readdirnames(int) (names []string, err error) {
	err = f.do("read", false, func() error {
		if !f.node.mode.IsDir() {
			return &fs.PathError{Op: "readdir", Path: f.name, Err: syscall.ENOTDIR}
		}
		if !f.read {
			names, f.read = f.node.list(), true
		}
		return nil
	})
	return names, err
}

// Stat tells about the open file.
func (f *File) Stat() (info fs.FileInfo, err error) {
	err = f.do("stat", false, func() error {
		info = f.node.info(f.name)
		return nil
	})
	return info, err
}

// Close does nothing: what was written stays as it is.
func (f *File) Close() error { return nil }

// fileInfo implements fs.FileInfo.
type fileInfo struct {
	name     string
	size     int64
	mode     fs.FileMode
	modified time.Time
	system   syscall.Stat_t
}

func (n *node) info(name string) fs.FileInfo {
	i := fileInfo{name: name, size: int64(len(n.content)), mode: n.mode, modified: n.modTime}
	i.system.Ino = n.id
	i.system.Size = i.size
	i.system.Ctim = syscall.NsecToTimespec(n.changed.UnixNano())
	i.system.Mtim = syscall.NsecToTimespec(n.modTime.UnixNano())
	return i
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() fs.FileMode  { return i.mode }
func (i fileInfo) ModTime() time.Time { return i.modified }
func (i fileInfo) IsDir() bool        { return i.mode.IsDir() }
func (i fileInfo) Sys() any           { return &i.system }
