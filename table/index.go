package table

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// An index is one file:
//
//	"postilion index 1\n"
//	for each entry, in the order of keys: length and bytes of key, length and bytes of value, line in the source
//	number of entries, in 8 bytes; CRC-32C of everything before, in 4 bytes
//
// Lengths and lines are unsigned varints, numbers big-endian. It is replaced as a whole: written beside, flushed and
// renamed, so that a reader sees the old or the new one. Writers exclude each other by a lock on the directory.
const indexMagic = "postilion index 1\n"

// ErrForeignIndex tells that a file is an index of another program.
var ErrForeignIndex = errors.New("index was written by another program")

// ErrDamagedIndex tells that an index of ours cannot be trusted; postmap builds it anew.
var ErrDamagedIndex = errors.New("index is damaged: build it anew with postmap")

// IndexSuffix gives the ending of index files of a type; not ok means that the type has none.
func IndexSuffix(kind string) (suffix string, ok bool) {
	switch kind {
	case "hash", "btree":
		return ".db", true
	case "lmdb", "cdb":
		return "." + kind, true
	case "dbm", "sdbm":
		return ".pag", true
	}
	return "", false
}

// Index is a table that postmap builds and updates.
type Index struct {
	entries map[string]textEntry
}

// NewIndex gives an empty index.
func NewIndex() *Index { return &Index{map[string]textEntry{}} }

// Get returns the value of key.
func (x *Index) Get(key string) (string, bool) {
	entry, ok := x.entries[key]
	return entry.value, ok
}

// Put sets the value of key; line is where it stands in the source, 0 when it is in none.
func (x *Index) Put(key, value string, line int) {
	x.entries[key] = textEntry{value, int32(line)}
}

// Delete removes key and says whether it was there.
func (x *Index) Delete(key string) bool {
	_, ok := x.entries[key]
	delete(x.entries, key)
	return ok
}

// LoadIndex reads an index file.
func LoadIndex(path string) (*Index, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, &causedError{fmt.Sprintf("open database %s: %s", path, systemText(err)), err}
	}
	defer file.Close()
	return readIndex(file, path)
}

func readIndex(r io.Reader, path string) (*Index, error) {
	whole, err := io.ReadAll(io.LimitReader(r, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !bytes.HasPrefix(whole, []byte(indexMagic)) {
		return nil, fmt.Errorf("%s: %w", path, ErrForeignIndex)
	}
	x, ok := decodeIndex(whole)
	if !ok || len(whole) > MaxFileSize {
		return nil, fmt.Errorf("%s: %w", path, ErrDamagedIndex)
	}
	return x, nil
}

func decodeIndex(whole []byte) (*Index, bool) {
	body := len(whole) - 12
	if body < len(indexMagic) || crc32.Checksum(whole[:body+8], castagnoli()) != binary.BigEndian.Uint32(whole[body+8:]) {
		return nil, false
	}
	count := binary.BigEndian.Uint64(whole[body:])
	text := string(whole[:body])
	at := len(indexMagic)
	number := func() (int, bool) {
		n, size := binary.Uvarint(whole[at:body])
		at += max(size, 0)
		return int(n), size > 0 && n <= MaxFileSize
	}
	field := func() (string, bool) {
		n, ok := number()
		if !ok || n > body-at {
			return "", false
		}
		at += n
		return text[at-n : at], true
	}
	if count > uint64(body) {
		return nil, false
	}
	x := &Index{make(map[string]textEntry, count)}
	for range count {
		key, ok1 := field()
		value, ok2 := field()
		line, ok3 := number()
		if !ok1 || !ok2 || !ok3 {
			return nil, false
		}
		x.entries[key] = textEntry{value, int32(line)}
	}
	return x, at == body
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func (x *Index) encode() []byte {
	out := []byte(indexMagic)
	keys := x.sortedKeys()
	for _, key := range keys {
		entry := x.entries[key]
		out = append(binary.AppendUvarint(out, uint64(len(key))), key...)
		out = append(binary.AppendUvarint(out, uint64(len(entry.value))), entry.value...)
		out = binary.AppendUvarint(out, uint64(entry.line))
	}
	out = binary.BigEndian.AppendUint64(out, uint64(len(keys)))
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli()))
}

func (x *Index) sortedKeys() []string {
	keys := make([]string, 0, len(x.entries))
	for key := range x.entries {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Save replaces the index file. Mode and owner are those of model; a nil model means 0644 and the caller.
func (x *Index) Save(path string, model fs.FileInfo) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	mode := fs.FileMode(0o644)
	if model != nil {
		mode = model.Mode().Perm()
		if owner, ok := model.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
			err = file.Chown(int(owner.Uid), int(owner.Gid))
		}
	}
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		_, err = file.Write(x.encode())
	}
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}

// lockPatience bounds the wait for another writer.
const lockPatience = 30 * time.Second

// LockIndex keeps other writers away from the indexes in a directory until unlock is called.
func LockIndex(path string) (unlock func(), err error) {
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for waited := time.Duration(0); ; waited += 50 * time.Millisecond {
		err = syscall.Flock(int(directory.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = directory.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || waited > lockPatience {
			_ = directory.Close()
			return nil, fmt.Errorf("lock %s: %w", directory.Name(), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// indexed is an open index.
type indexed struct {
	*Index
	path, source string
	decode       bool
}

func (x indexed) find(_ context.Context, key string) (answer, bool, error) {
	entry, ok := x.entries[key]
	if !ok {
		return answer{}, false, nil
	}
	a, err := answer{value: entry.value, path: x.path}, error(nil)
	if entry.line > 0 {
		a.path, a.line = x.source, int(entry.line)
	}
	if x.decode {
		a.value, err = decodeFileValue(a.value)
	}
	return a, err == nil, err
}

func (x indexed) each(yield func(key, value string) bool) {
	for _, key := range x.sortedKeys() {
		value := x.entries[key].value
		if x.decode {
			value, _ = decodeFileValue(value)
		}
		if !yield(key, value) {
			return
		}
	}
}

func (t *opened) openIndexed(kind, name string, options *Options) error {
	suffix, _ := IndexSuffix(kind)
	source := options.path(name)
	path := source + suffix
	file, err := t.openSource(path, "open database")
	if err != nil {
		if options.RequireIndex || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		t.files = append(t.files, stamp{path: path})
		return t.readSource(name, options, err)
	}
	defer file.Close()
	index, err := readIndex(file, path)
	if errors.Is(err, ErrForeignIndex) {
		return t.readSource(name, options, fmt.Errorf("open database %w, and its source %s cannot be read", err, source))
	}
	if err != nil {
		return err
	}
	if info, err := os.Stat(source); err == nil && info.ModTime().After(t.files[0].modified) {
		options.warn("database %s is older than source file %s", path, source)
	}
	t.finder = indexed{index, path, source, options.ValuesAreFiles}
	return nil
}

// readSource reads the text beside an index that cannot serve; missing is the error when there is none.
func (t *opened) readSource(name string, options *Options, missing error) error {
	err := t.readText(name, options)
	if errors.Is(err, fs.ErrNotExist) {
		return missing
	}
	return err
}
