package postconf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postilion/config/postfix"
)

// readable says, in Postfix's words, why a file cannot be opened.
func readable(path string) error {
	f, err := os.Open(path)
	if err == nil {
		return f.Close()
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		text := errno.Error()
		return fatalf("open %s: %s", path, strings.ToUpper(text[:1])+text[1:])
	}
	return err
}

// lockAttempts bounds how often a temporary file that another editor renamed away is opened again.
const lockAttempts = 100

// rewrite replaces a file by what edit makes of it. Editors of the same file wait for each other; a reader sees the old file or the
// new one; the new one is on disk before it takes the old one's name.
func rewrite(path string, edit func(text string) (string, error)) (err error) {
	if err := readable(path); err != nil {
		return err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	temporary, err := lockTemporary(path + ".tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary.Name()))
		}
		err = errors.Join(err, temporary.Close())
	}()
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > postfix.MaxFileSize {
		return fmt.Errorf("%s: %w of %d bytes", path, postfix.ErrTooLarge, postfix.MaxFileSize)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := edit(string(old))
	if err != nil {
		return err
	}
	if err := fill(temporary, info, text); err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func lockTemporary(name string) (*os.File, error) {
	for range lockAttempts {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
		}
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Stat(name); err == nil && os.SameFile(mine, there) {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("lock %s: it is renamed away again and again", name)
}

// fill writes text with the mode and, where allowed, the owner of the file it is to replace.
func fill(f *os.File, like os.FileInfo, text string) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if err := f.Chmod(like.Mode().Perm()); err != nil {
		return err
	}
	if owner, ok := like.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
