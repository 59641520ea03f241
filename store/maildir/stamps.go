package maildir

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"
)

// dirStamp is the time of a directory when it was read. A change within settle before the reading may not show in the time, so such a stamp is
// not trusted.
type dirStamp struct {
	modified int64
	trusted  bool
}

// settle is how long after its time a directory is read again: more than the clock tick of any local file system. For a directory that takes long
// to read it is longer, at most longestSettle.
const (
	settle        = 100 * time.Millisecond
	longestSettle = 2 * time.Second
)

// due tells whether a directory that is as it was known to be has to be read again because a change might not show in its time.
func (f *folder) due(known dirStamp) bool {
	wait := min(max(settle, 10*f.scanTime), longestSettle)
	return !known.trusted && time.Since(time.Unix(0, known.modified)) > wait
}

// adoptDirs takes the times that directories have after changes of ours, if they were known before.
func (f *folder) adoptDirs(dirs []string) {
	for _, dir := range dirs {
		known := &f.curStamp
		if dir == "new" {
			known = &f.newStamp
		}
		if known.modified == 0 {
			continue
		}
		now, err := f.store.disk.stampDir(filepath.Join(f.paths.mail, dir))
		now.trusted = false
		if *known = now; err != nil {
			*known = dirStamp{}
		}
	}
}

func (d *disk) stampDir(path string) (dirStamp, error) {
	now := time.Now()
	info, err := d.files.Stat(path)
	if err != nil {
		return dirStamp{}, err
	}
	return dirStamp{modified: info.ModTime().UnixNano(), trusted: now.Sub(info.ModTime()) > settle}, nil
}

func (d *disk) statFile(path string) (bool, fs.FileInfo, error) {
	info, err := d.files.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil, nil
	}
	return err == nil, info, err
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// changedOutside tells whether anything of the mailbox may have changed since it was read.
func (f *folder) changedOutside() bool {
	for _, dir := range []struct {
		name  string
		known dirStamp
	}{{"new", f.newStamp}, {"cur", f.curStamp}} {
		now, err := f.store.disk.stampDir(filepath.Join(f.paths.mail, dir.name))
		if err != nil || now.modified != dir.known.modified || f.due(dir.known) {
			return true
		}
	}
	for _, file := range []struct {
		path  string
		known stamp
	}{{f.listPath(), f.listStamp}, {filepath.Join(f.paths.control, keywordsName), f.keywordStamp}, {f.journalPath(), f.journalStamp}} {
		if f.paths.index == "" && filepath.Base(file.path) == journalName {
			continue
		}
		if _, info, err := f.store.disk.statFile(file.path); err != nil || stampOf(info) != file.known {
			return true
		}
	}
	return false
}

func (f *folder) dirsChanged() bool {
	now, newErr := f.store.disk.stampDir(filepath.Join(f.paths.mail, "new"))
	cur, curErr := f.store.disk.stampDir(filepath.Join(f.paths.mail, "cur"))
	return newErr != nil || curErr != nil || now.modified != f.newStamp.modified || cur.modified != f.curStamp.modified || f.due(f.newStamp) || f.due(f.curStamp)
}
