package maildir

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postilion/store"
)

// root is the place of one account's mailboxes, shared by all handles on it.
type root struct {
	store    *Store
	location location
	uid, gid int

	// names guards making, deleting and renaming mailboxes, subscriptions and special uses; validity the file of UIDVALIDITYs; quota is
	// held from a look at the usage until what was allowed has been stored.
	names, validity, quota sync.Mutex

	mode    sync.Once
	dirMode fs.FileMode
}

// ownership is what new files get: the owner's ids and the permissions of the mail directory, 0700 when that is new.
func (r *root) ownership() ownership {
	r.mode.Do(func() {
		r.dirMode = 0o700
		if info, err := r.store.disk.files.Stat(r.location.path); err == nil {
			r.dirMode = info.Mode().Perm() | 0o700
		}
	})
	return ownership{uid: r.uid, gid: r.gid, dir: r.dirMode}
}

func (r *root) disk() *disk { return &r.store.disk }

// ensureInbox makes the directories of INBOX when they are missing.
func (r *root) ensureInbox(ctx context.Context, a *account) error {
	if r.disk().isDir(filepath.Join(r.location.inbox, "cur")) {
		return nil
	}
	r.names.Lock()
	defer r.names.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.makeFolder(store.Inbox, false)
}

// makeFolder makes a mailbox's directories, cur last: a folder with it is a mailbox.
func (r *root) makeFolder(name string, fresh bool) error {
	p := r.location.paths(name)
	owner := r.ownership()
	dirs := []string{p.mail, p.control, filepath.Join(p.mail, "tmp"), filepath.Join(p.mail, "new")}
	if p.index != "" {
		dirs = append(dirs, p.index)
	}
	for _, dir := range dirs {
		if err := r.disk().mkdirAll(dir, owner); err != nil {
			return err
		}
	}
	if fresh {
		validity, err := r.nextValidity()
		if err != nil {
			return err
		}
		list := uidList{validity: validity, next: 1, guid: randomHex(16)}
		if err := r.disk().replace(filepath.Join(p.control, uidListName), list.format(), owner); err != nil {
			return err
		}
		if mark := filepath.Join(p.mail, "maildirfolder"); !r.location.fs {
			if _, err := r.disk().files.Stat(mark); err != nil {
				if err := r.disk().writeFile(mark, nil, owner); err != nil {
					return err
				}
			}
		}
	}
	return r.disk().mkdirAll(filepath.Join(p.mail, "cur"), owner)
}

// clearHalfMade removes what the making of a mailbox left behind when a crash cut it short. Whatever else lies there stays and is an error.
func (r *root) clearHalfMade(dir string) error {
	if !r.disk().isDir(dir) || r.disk().isDir(filepath.Join(dir, "cur")) {
		return nil
	}
	for _, name := range []string{"tmp", "new", uidListName, "maildirfolder", journalName, keywordsName, ""} {
		if err := r.disk().remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// exists tells whether there is a mailbox of that name: cur is made last.
func (r *root) exists(name string) bool {
	mail := r.location.paths(name).mail
	return r.disk().isDir(filepath.Join(mail, "cur"))
}

const validityName = "dovecot-uidvalidity"

// nextValidity gives out a UIDVALIDITY that no mailbox of the account had. The last one stands in dovecot-uidvalidity and in the name of an
// empty file beside it; renaming that file is what makes it ours.
func (r *root) nextValidity() (uint32, error) {
	r.validity.Lock()
	defer r.validity.Unlock()
	dir, owner := r.location.control, r.ownership()
	if err := r.disk().mkdirAll(dir, owner); err != nil {
		return 0, err
	}
	path := filepath.Join(dir, validityName)
	for range 20 {
		last, err := r.lastValidity(path)
		if err != nil {
			return 0, err
		}
		next := last + 1
		if last == 0 {
			next = uint32(time.Now().Unix())
			err = r.disk().writeFile(fmt.Sprintf("%s.%08x", path, next), nil, owner)
		} else {
			err = r.disk().rename(fmt.Sprintf("%s.%08x", path, last), fmt.Sprintf("%s.%08x", path, next))
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return next, r.disk().replace(path, fmt.Appendf(nil, "%08x", next), owner)
	}
	return 0, fmt.Errorf("%s.* changes faster than it can be read", path)
}

// lastValidity returns the highest UIDVALIDITY given out, 0 when none was.
func (r *root) lastValidity(path string) (uint32, error) {
	names, err := r.disk().list(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	last := uint32(0)
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, filepath.Base(path)+".")
		if n, err := strconv.ParseUint(digits, 16, 32); ok && len(digits) == 8 && err == nil {
			last = max(last, uint32(n))
		}
	}
	if last != 0 {
		return last, nil
	}
	text, _, err := r.disk().readLimited(path)
	if err != nil {
		return 0, err
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 16, 32); err == nil && n != 0 {
		// The file beside it was lost; it is made again.
		last = uint32(n)
		err := r.disk().writeFile(fmt.Sprintf("%s.%08x", path, last), nil, r.ownership())
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
	}
	return last, nil
}

// mailboxes returns the names of all mailboxes, sorted.
func (r *root) mailboxes() ([]string, error) {
	names := []string{store.Inbox}
	var err error
	if r.location.fs {
		names, err = r.walk(names, "", 0)
	} else {
		var entries []string
		entries, err = r.disk().list(r.location.path)
		for _, entry := range entries {
			name := r.location.decodeFolder(entry)
			if name != "" && name != store.Inbox && r.exists(name) {
				names = append(names, name)
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// maxLevels bounds how deeply directories are looked through.
const maxLevels = 200

// walk adds the mailboxes below the directory of a name in layout fs.
func (r *root) walk(names []string, above string, depth int) ([]string, error) {
	entries, err := r.disk().list(filepath.Join(r.location.path, r.location.encode(above)))
	if err != nil || depth > maxLevels {
		return names, err
	}
	for _, entry := range entries {
		level, ok := r.location.decode(entry)
		name := level
		if above != "" {
			name = above + "/" + level
		}
		if !ok || r.location.checkName(name) != nil {
			continue
		}
		if name != store.Inbox && r.exists(name) {
			names = append(names, name)
		}
		if r.disk().isDir(filepath.Join(r.location.path, r.location.encode(name))) {
			if names, err = r.walk(names, name, depth+1); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return names, nil
}

// levels returns the names above the given ones that are no mailboxes themselves.
func levels(names []string) []string {
	known := make(map[string]bool, len(names))
	for _, name := range names {
		known[name] = true
	}
	var above []string
	for _, name := range names {
		for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
			if !known[name[:i]] {
				known[name[:i]] = true
				above = append(above, name[:i])
			}
		}
	}
	return above
}

// mailboxID returns the identifier of a mailbox: the one in the first line of its UID list.
func (r *root) mailboxID(ctx context.Context, name string) (string, error) {
	p := r.location.paths(name)
	if file, err := r.disk().open(filepath.Join(p.control, uidListName)); err == nil {
		line, _ := bufio.NewReaderSize(file, 512).ReadSlice('\n')
		list, err := parseUIDList(line)
		if err = errors.Join(err, file.Close()); err == nil && list.guid != "" {
			return list.guid, nil
		}
	}
	f := r.store.acquire(r, p)
	defer r.store.release(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refresh(ctx); err != nil {
		return "", err
	}
	return f.guid, nil
}

// lockFolders locks the folders in one order for all, so that no two wait for each other.
func lockFolders(folders ...*folder) (unlock func()) {
	sorted := slices.Clone(folders)
	slices.SortFunc(sorted, func(a, b *folder) int { return cmp.Compare(a.paths.mail, b.paths.mail) })
	sorted = slices.Compact(sorted)
	for _, f := range sorted {
		f.mu.Lock()
	}
	return func() {
		for _, f := range sorted {
			f.mu.Unlock()
		}
	}
}

const specialUseName = "postilion-special-use"

// specialUses reads the special-use attributes: lines of attribute, TAB, name.
func (r *root) specialUses() (map[string]string, error) {
	text, _, err := r.disk().readLimited(filepath.Join(r.location.control, specialUseName))
	if err != nil {
		return nil, err
	}
	uses := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if use, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			uses[name] = use
		}
	}
	return uses, nil
}

func (r *root) writeSpecialUses(uses map[string]string) error {
	var text []byte
	names := make([]string, 0, len(uses))
	for name := range uses {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text = fmt.Appendf(text, "%s\t%s\n", uses[name], name)
	}
	return r.disk().replace(filepath.Join(r.location.control, specialUseName), text, r.ownership())
}
