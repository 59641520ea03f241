package master

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"postilion/service/child"
)

// maxLinks is how many symbolic links a path may lead over.
const maxLinks = 40

// resolve follows a path as root can safely do on behalf of the worker: every directory and link on the way belongs to root, and the worker can
// change none of them. So nobody can make the name lead elsewhere between the look and the use, and the result has no links in it. The last
// part may be missing, which fs.ErrNotExist tells together with the resolved path.
func resolve(name string, worker *child.Identity) (string, error) {
	if !filepath.IsAbs(name) {
		return "", fmt.Errorf("%s is no absolute path", name)
	}
	here, rest := "/", strings.Split(strings.Trim(filepath.Clean(name), "/"), "/")
	if err := guarded(here, worker); err != nil {
		return "", err
	}
	open := false
	for links := 0; len(rest) > 0; {
		next := filepath.Join(here, rest[0])
		info, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) && len(rest) == 1 {
			return next, err
		}
		if err != nil {
			return "", err
		}
		rest = rest[1:]
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if owner(info) != 0 {
				return "", fmt.Errorf("the link %s belongs to user %d, not to root", next, owner(info))
			}
			if links++; links > maxLinks {
				return "", syscall.ELOOP
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(target) {
				here = "/"
			}
			// ".." is taken literally below: here has no links in it.
			rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
			continue
		case info.IsDir():
			if err := guarded(next, worker); err != nil {
				return "", err
			}
		case open && owner(info) != 0:
			return "", fmt.Errorf("%s belongs to user %d and lies in a directory that everybody can write", next, owner(info))
		}
		open = info.IsDir() && info.Mode().Perm()&0o002 != 0
		here = next
	}
	return here, nil
}

// guarded tells why the worker, or anybody else but root, could change what names in dir lead to.
func guarded(dir string, worker *child.Identity) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	group := int(info.Sys().(*syscall.Stat_t).Gid)
	switch {
	case owner(info) != 0:
		return fmt.Errorf("the directory %s belongs to user %d: root opens nothing there for the server", dir, owner(info))
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("the directory %s can be written by everybody: root opens nothing there for the server", dir)
	case info.Mode().Perm()&0o020 != 0 && info.Mode()&fs.ModeSticky == 0 && (group == worker.GID || slices.Contains(worker.Groups, group)):
		return fmt.Errorf("the directory %s can be written by the server's own group %d: root opens nothing there for the server", dir, group)
	}
	return nil
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// permits tells whether the mode bits let id do what bits (0 to 7) say.
func permits(info fs.FileInfo, id *child.Identity, bits fs.FileMode) bool {
	group := int(info.Sys().(*syscall.Stat_t).Gid)
	mode := info.Mode().Perm()
	switch {
	case owner(info) == id.UID:
		mode >>= 6
	case group == id.GID || slices.Contains(id.Groups, group):
		mode >>= 3
	}
	return mode&bits == bits
}

// reach tells why id cannot work in dir: which directory on the way it cannot pass, or that it may not write there.
func reach(dir string, id *child.Identity) error {
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for at := filepath.Dir(resolved); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return err
		}
		if !permits(info, id, 1) {
			return fmt.Errorf("user %s, as whom the server works, cannot pass the directory %s (owner %d, mode %04o): chmod o+x %s, or choose another place",
				id.Name, at, owner(info), info.Mode().Perm(), at)
		}
		if at == "/" {
			break
		}
	}
	info, err := os.Stat(resolved)
	if err == nil && !permits(info, id, 7) {
		err = fmt.Errorf("user %s, as whom the server works, cannot write in %s (owner %d, mode %04o): chown -R %s %s",
			id.Name, resolved, owner(info), info.Mode().Perm(), id.Name, resolved)
	}
	return err
}

// prepare makes what is missing and gives the worker what is its own.
func (d *Directory) prepare(worker *child.Identity) error {
	err := d.make(worker)
	if err == nil && d.Owned {
		err = reach(d.Path, worker)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.Where, err)
	}
	return nil
}

func (d *Directory) make(worker *child.Identity) error {
	missing := []string{}
	path := filepath.Clean(d.Path)
	for ; ; path = filepath.Dir(path) {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, path)
	}
	if len(missing) == 0 {
		return d.adopt(worker)
	}
	if _, err := resolve(path, worker); err != nil {
		if info, statErr := os.Stat(path); statErr == nil && permits(info, worker, 7) {
			// The worker can make it itself.
			return nil
		}
		return err
	}
	slices.Reverse(missing)
	for i, name := range missing {
		last := i == len(missing)-1
		mode := fs.FileMode(0o755)
		if last && d.Required {
			mode = 0o700
		}
		if err := os.Mkdir(name, mode); err != nil {
			return err
		}
		if last && d.Owned {
			return os.Lchown(name, worker.UID, worker.GID)
		}
	}
	return nil
}

// adopt gives an empty directory of root to the worker: somebody made it for the server, and nothing is in it yet.
func (d *Directory) adopt(worker *child.Identity) error {
	info, err := os.Lstat(d.Path)
	if err != nil || !d.Owned || !info.IsDir() || owner(info) != 0 {
		return err
	}
	if _, err := resolve(d.Path, worker); err != nil {
		return nil
	}
	inside, err := os.ReadDir(d.Path)
	if err != nil || len(inside) > 0 {
		return err
	}
	return os.Lchown(d.Path, worker.UID, worker.GID)
}
