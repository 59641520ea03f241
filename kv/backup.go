package kv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// backupName is the file that lists a backup's files; a directory without it is no whole backup.
	backupName   = "BACKUP"
	backupFormat = 1
	// partial ends the name of a directory that is still being written.
	partial = ".partial"
	// checkpointName is where a backup's files are gathered beside the database, as links.
	checkpointName = "backup.partial"
	// maxBackupList bounds the list of a backup's files in octets.
	maxBackupList = 64 << 20
)

// Backup lists the files of a backup.
type Backup struct {
	Format int `json:"format"`
	// Source is the directory of the database, Made when the copy was taken, Program what wrote it.
	Source  string       `json:"source"`
	Made    time.Time    `json:"made"`
	Program string       `json:"program"`
	Files   []BackupFile `json:"files"`
	// Shared counts the octets that are links to the database or to the backup before, not copies.
	Shared int64 `json:"shared"`
}

// BackupFile is one file, with the digest that tells whether it is still what was written.
type BackupFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Octets is the size of all files.
func (b *Backup) Octets() (sum int64) {
	for _, f := range b.Files {
		sum += f.Size
	}
	return sum
}

// ErrBackup: a backup is not whole, or not what was written.
var ErrBackup = errors.New("kv: backup is damaged")

// Backup writes the database as it is now to dir, which must not exist, while everything goes on, and reads it back. Tables and blob files, which never
// change, are links where dir is on the same disk; elsewhere those that the earlier backup previous has, "" for none, are links to that one.
// dir appears under its name when it is whole. progress is told the octets done and of how many; it may be nil.
func (db *DB) Backup(ctx context.Context, dir, previous string, progress func(done, of int64)) (*Backup, error) {
	if err := db.Err(); err != nil {
		return nil, err
	}
	if _, err := db.fs.Stat(dir); err == nil {
		return nil, fmt.Errorf("kv: backup to %s: %w", dir, os.ErrExist)
	}
	earlier := map[string]BackupFile{}
	if previous != "" {
		list, err := ReadBackup(db.fs, previous)
		if err != nil {
			return nil, err
		}
		for _, f := range list.Files {
			earlier[f.Name] = f
		}
	}
	scratch := db.fs.PathJoin(db.dir, checkpointName)
	if err := errors.Join(db.fs.RemoveAll(scratch), db.fs.RemoveAll(dir+partial)); err != nil {
		return nil, fmt.Errorf("kv: backup: %w", err)
	}
	backup := &Backup{Format: backupFormat, Source: db.dir, Made: time.Now().UTC().Truncate(time.Second), Program: program()}
	err := db.Checkpoint(scratch)
	if err == nil {
		err = db.fs.MkdirAll(dir+partial, 0o700)
	}
	w := &backupWriter{ctx: ctx, fs: db.fs, from: scratch, to: dir + partial, previous: previous, earlier: earlier, progress: progress, backup: backup}
	if err == nil {
		err = w.write()
	}
	if err == nil {
		err = verify(ctx, db.fs, dir+partial, backup, nil)
	}
	if err == nil {
		err = errors.Join(db.fs.Rename(dir+partial, dir), syncDirectory(db.fs, db.fs.PathDir(dir)))
	}
	if err != nil {
		err = errors.Join(err, db.fs.RemoveAll(dir+partial))
	}
	if err = errors.Join(err, db.fs.RemoveAll(scratch)); err != nil {
		return nil, fmt.Errorf("kv: backup to %s: %w", dir, err)
	}
	return backup, nil
}

type backupWriter struct {
	ctx      context.Context
	fs       vfs.FS
	from, to string
	previous string
	earlier  map[string]BackupFile
	progress func(done, of int64)
	backup   *Backup
	done, of int64
}

func (w *backupWriter) write() error {
	names, err := w.fs.List(w.from)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		info, err := w.fs.Stat(w.fs.PathJoin(w.from, name))
		if err != nil {
			return err
		}
		w.of += info.Size()
	}
	for _, name := range names {
		f, err := w.file(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		w.backup.Files = append(w.backup.Files, f)
	}
	text, err := json.MarshalIndent(w.backup, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(writeFile(w.fs, w.fs.PathJoin(w.to, backupName), append(text, '\n')), syncDirectory(w.fs, w.to))
}

// constant tells files that are never changed once they are whole.
func constant(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

func (w *backupWriter) file(name string) (BackupFile, error) {
	from, to := w.fs.PathJoin(w.from, name), w.fs.PathJoin(w.to, name)
	info, err := w.fs.Stat(from)
	if err != nil {
		return BackupFile{}, err
	}
	if constant(name) {
		if f, ok := w.earlier[name]; ok && f.Size == info.Size() {
			if got, err := w.digest(from, nil); err != nil || got.SHA256 != f.SHA256 {
				return BackupFile{}, errors.Join(err, fmt.Errorf("%w: %s differs from the one in %s, which must not be", ErrBackup, name, w.previous))
			}
			if w.fs.Link(w.fs.PathJoin(w.previous, name), to) == nil {
				w.backup.Shared += f.Size
				return f, nil
			}
		}
		if w.fs.Link(from, to) == nil {
			w.backup.Shared += info.Size()
			f, err := w.digest(from, nil)
			f.Name = name
			return f, err
		}
	}
	target, err := w.fs.Create(to, vfs.WriteCategoryUnspecified)
	if err != nil {
		return BackupFile{}, err
	}
	f, err := w.digest(from, target)
	f.Name = name
	return f, errors.Join(err, target.Sync(), target.Close())
}

// digest reads a file, and copies it when there is a target.
func (w *backupWriter) digest(name string, target io.Writer) (BackupFile, error) {
	f, done, err := digestFile(w.ctx, w.fs, name, target, func(n int64) {
		if w.done += n; w.progress != nil {
			w.progress(w.done, w.of)
		}
	})
	return BackupFile{Size: done, SHA256: hex.EncodeToString(f)}, err
}

func digestFile(ctx context.Context, fs vfs.FS, name string, target io.Writer, progress func(n int64)) (sum []byte, size int64, err error) {
	file, err := fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return nil, 0, err
	}
	var to io.Writer = io.Discard
	if target != nil {
		to = target
	}
	h := sha256.New()
	piece := make([]byte, 256<<10)
	for err == nil {
		if err = ctx.Err(); err != nil {
			break
		}
		var n int
		if n, err = file.Read(piece); n > 0 {
			size += int64(n)
			progress(int64(n))
			if writeErr := writeBoth(h, to, piece[:n]); writeErr != nil {
				err = writeErr
			}
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return h.Sum(nil), size, errors.Join(err, file.Close())
}

func writeBoth(h hash.Hash, to io.Writer, piece []byte) error {
	_, _ = h.Write(piece)
	_, err := to.Write(piece)
	return err
}

// ReadBackup reads the list of a backup's files.
func ReadBackup(fs vfs.FS, dir string) (*Backup, error) {
	file, err := fs.Open(fs.PathJoin(dir, backupName))
	if err != nil {
		return nil, fmt.Errorf("kv: %s is no whole backup: %w", dir, err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxBackupList))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("kv: reading the backup %s: %w", dir, err)
	}
	b := &Backup{}
	if err := json.Unmarshal(text, b); err != nil {
		return nil, fmt.Errorf("%w: %s/%s: %w", ErrBackup, dir, backupName, err)
	}
	if b.Format > backupFormat {
		return nil, formatError(true, "the backup %s has version %d, written by %s; this program, %s, reads up to %d", dir, b.Format, b.Program, program(), backupFormat)
	}
	for _, f := range b.Files {
		if f.Name == "" || strings.ContainsAny(f.Name, "/\\") || f.Name == ".." || f.Size < 0 {
			return nil, fmt.Errorf("%w: %s/%s names the file %q", ErrBackup, dir, backupName, f.Name)
		}
	}
	return b, nil
}

// VerifyBackup reads all files of a backup and compares them with the list.
func VerifyBackup(ctx context.Context, fs vfs.FS, dir string, progress func(done, of int64)) (*Backup, error) {
	b, err := ReadBackup(fs, dir)
	if err != nil {
		return nil, err
	}
	return b, verify(ctx, fs, dir, b, progress)
}

func verify(ctx context.Context, fs vfs.FS, dir string, b *Backup, progress func(done, of int64)) error {
	w := &backupWriter{ctx: ctx, fs: fs, progress: progress, of: b.Octets()}
	var damaged []error
	for _, f := range b.Files {
		got, err := w.digest(fs.PathJoin(dir, f.Name), nil)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			damaged = append(damaged, fmt.Errorf("%w: %w", ErrBackup, err))
		case got.Size != f.Size || got.SHA256 != f.SHA256:
			damaged = append(damaged, fmt.Errorf("%w: %s is not what was written", ErrBackup, fs.PathJoin(dir, f.Name)))
		}
	}
	return errors.Join(damaged...)
}

// Restore copies a backup to dir, which must not exist or be empty, and compares every file with the list on the way. dir appears under its name when
// it is whole; a database that was there is never replaced.
func Restore(ctx context.Context, fs vfs.FS, from, dir string, progress func(done, of int64)) (*Backup, error) {
	b, err := ReadBackup(fs, from)
	if err != nil {
		return nil, err
	}
	if names, err := fs.List(dir); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("kv: restore to %s: it is not empty (it has %s): move it away first", dir, names[0])
	}
	if err := fs.RemoveAll(dir + partial); err != nil {
		return nil, fmt.Errorf("kv: restore: %w", err)
	}
	if err := makeDirectory(fs, dir+partial); err != nil {
		return nil, fmt.Errorf("kv: restore: %w", err)
	}
	w := &backupWriter{ctx: ctx, fs: fs, progress: progress, of: b.Octets()}
	for _, f := range b.Files {
		if err = w.restore(from, dir+partial, f); err != nil {
			break
		}
	}
	if err == nil {
		err = syncDirectory(fs, dir+partial)
	}
	if err == nil {
		// An empty directory that is there already gives way.
		_ = fs.Remove(dir)
		err = errors.Join(fs.Rename(dir+partial, dir), syncDirectory(fs, fs.PathDir(dir)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("kv: restore to %s: %w", dir, err), fs.RemoveAll(dir+partial))
	}
	return b, nil
}

func (w *backupWriter) restore(from, to string, f BackupFile) error {
	target, err := w.fs.Create(w.fs.PathJoin(to, f.Name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	got, err := w.digest(w.fs.PathJoin(from, f.Name), target)
	if err = errors.Join(err, target.Sync(), target.Close()); err != nil {
		return err
	}
	if got.Size != f.Size || got.SHA256 != f.SHA256 {
		return fmt.Errorf("%w: %s is not what was written", ErrBackup, w.fs.PathJoin(from, f.Name))
	}
	return nil
}
