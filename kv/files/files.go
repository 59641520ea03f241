// Package files reads the files of a kv database without opening it: to compare every checksum, and to save what can be read when a file is damaged so that the database
// does not open any more, or not all of its rows can be read.
//
// It knows the forms that Pebble writes and nothing of what rows mean: its log and MANIFEST (records in blocks of 32 KiB), its tables and blob files, through the readers
// that Pebble exports. Nothing is written. It is slower than the database and needs memory for the logs.
package files

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// maxLog bounds a log or MANIFEST that is read, in octets.
const maxLog = 1 << 30

// Damage is a part of a file that is not what was written.
type Damage struct {
	File string
	// Offset is where it lies, -1 when the file as a whole is meant; Length how much, in octets.
	Offset, Length int64
	Err            error
}

// String is the damage in one line.
func (d Damage) String() string {
	if d.Offset < 0 {
		return fmt.Sprintf("file %s: %v", d.File, d.Err)
	}
	return fmt.Sprintf("file %s, %d octets at %d: %v", d.File, d.Length, d.Offset, d.Err)
}

var (
	errChecksum = errors.New("checksum does not fit")
	errMissing  = errors.New("the file is missing")
)

// Counts are the files that were read.
type Counts struct{ Files, Damaged, Octets int64 }

// VerifyOptions tell Verify what to do.
type VerifyOptions struct {
	// Serving is set when a process has the database open: the newest log and the MANIFEST are being written, and files may vanish.
	Serving  bool
	Progress func(done, of int64)
	Damage   func(Damage)
}

// Verify reads all files of the database in dir and compares their checksums.
func Verify(ctx context.Context, fs vfs.FS, dir string, o VerifyOptions) (Counts, error) {
	v := &verifier{ctx: ctx, fs: fs, dir: dir, options: o}
	names, err := fs.List(dir)
	if err != nil {
		return v.counts, fmt.Errorf("kv: listing %s: %w", dir, err)
	}
	slices.Sort(names)
	newest := ""
	for _, name := range names {
		if info, err := fs.Stat(fs.PathJoin(dir, name)); err == nil && kindOf(name) != "" {
			v.of += info.Size()
		}
		if kindOf(name) == "log" {
			newest = name
		}
	}
	current := currentManifest(names)
	if current == "" {
		v.damage(Damage{File: "MANIFEST", Offset: -1, Err: errMissing})
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return v.counts, err
		}
		kind := kindOf(name)
		switch {
		case kind == "" || kind == "MANIFEST" && name != current:
			continue
		case kind == "MANIFEST" || kind == "log":
			v.records(name, kind == "log", o.Serving && (kind == "MANIFEST" || name == newest))
		case kind == "sst":
			v.table(name)
		case kind == "blob":
			v.blob(name)
		}
	}
	return v.counts, nil
}

// kindOf tells what a file of a database is, "" for what has no checksums.
func kindOf(name string) string {
	if strings.HasPrefix(name, "MANIFEST-") {
		return "MANIFEST"
	}
	base, ext, _ := strings.Cut(name, ".")
	if _, err := strconv.ParseUint(base, 10, 64); err != nil {
		return ""
	}
	switch ext {
	case "sst", "blob", "log":
		return ext
	}
	return ""
}

// number is a file's number.
func number(name string) uint64 {
	base := strings.TrimPrefix(name, "MANIFEST-")
	base, _, _ = strings.Cut(base, ".")
	n, _ := strconv.ParseUint(base, 10, 64)
	return n
}

// currentManifest is the MANIFEST that the marker names, or the newest without one.
func currentManifest(names []string) string {
	best, name := uint64(0), ""
	for _, n := range names {
		rest, ok := strings.CutPrefix(n, "marker.manifest.")
		if !ok {
			continue
		}
		turn, target, ok := strings.Cut(rest, ".")
		if t, err := strconv.ParseUint(turn, 10, 64); ok && err == nil && t >= best && slices.Contains(names, target) {
			best, name = t, target
		}
	}
	for _, n := range names {
		if best == 0 && kindOf(n) == "MANIFEST" && (name == "" || number(n) > number(name)) {
			name = n
		}
	}
	return name
}

type verifier struct {
	ctx     context.Context
	fs      vfs.FS
	dir     string
	options VerifyOptions
	counts  Counts
	of      int64
	damaged map[string]bool
}

func (v *verifier) damage(d Damage) {
	if v.damaged == nil {
		v.damaged = map[string]bool{}
	}
	if !v.damaged[d.File] {
		v.damaged[d.File] = true
		v.counts.Damaged++
	}
	if v.options.Damage != nil {
		v.options.Damage(d)
	}
}

func (v *verifier) done(size int64) {
	v.counts.Files++
	v.counts.Octets += size
	if v.options.Progress != nil {
		v.options.Progress(v.counts.Octets, max(v.of, v.counts.Octets))
	}
}

// gone tells whether a file vanished because the process that serves had no more use for it.
func (v *verifier) gone(err error) bool { return v.options.Serving && errors.Is(err, os.ErrNotExist) }

func (v *verifier) records(name string, log, written bool) {
	data, err := readAll(v.fs, v.fs.PathJoin(v.dir, name))
	if err != nil {
		if !v.gone(err) {
			v.damage(Damage{File: name, Offset: -1, Err: err})
		}
		return
	}
	logNumber := uint32(0)
	if log {
		logNumber = uint32(number(name))
	}
	r := &recordReader{data: data, log: logNumber, damage: func(offset, length int64) {
		if !written {
			v.damage(Damage{File: name, Offset: offset, Length: length, Err: errChecksum})
		}
	}}
	for r.next() != nil {
	}
	v.done(int64(len(data)))
}

func (v *verifier) table(name string) {
	size, err := v.verifyTable(name)
	if err != nil && !v.gone(err) {
		v.damage(Damage{File: name, Offset: -1, Err: err})
	}
	if err == nil {
		v.done(size)
	}
}

func (v *verifier) verifyTable(name string) (size int64, err error) {
	readable, err := openReadable(v.fs, v.fs.PathJoin(v.dir, name))
	if err != nil {
		return 0, err
	}
	size = readable.Size()
	defer recovered(&err)
	r, err := sstable.NewReader(v.ctx, readable, sstable.ReaderOptions{})
	if err != nil {
		return size, errors.Join(err, readable.Close())
	}
	layout, err := r.Layout()
	if err == nil {
		for _, h := range layout.Data {
			if blockErr := checkBlock(v.ctx, readable, h.Handle); blockErr != nil {
				v.damage(Damage{File: name, Offset: int64(h.Offset), Length: int64(h.Length), Err: blockErr})
			}
		}
	}
	if err == nil && !v.damaged[name] {
		err = r.ValidateBlockChecksums()
	}
	return size, errors.Join(err, r.Close())
}

// checkBlock compares the checksum of one block.
func checkBlock(ctx context.Context, r objstorage.Readable, h block.Handle) error {
	data := make([]byte, h.Length+block.TrailerLen)
	if err := r.ReadAt(ctx, data, int64(h.Offset)); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(data[h.Length+1:]) != mask(crcOf(data[:h.Length+1])) {
		return errChecksum
	}
	return nil
}

func (v *verifier) blob(name string) {
	b, err := openBlob(v.ctx, v.fs, v.fs.PathJoin(v.dir, name))
	if err != nil {
		if !v.gone(err) {
			v.damage(Damage{File: name, Offset: -1, Err: err})
		}
		return
	}
	defer b.close()
	if b.indexErr != nil {
		v.damage(Damage{File: name, Offset: -1, Err: fmt.Errorf("its index: %w", b.indexErr)})
	}
	for _, h := range b.blocks {
		if err := checkBlock(v.ctx, b.readable, h); err != nil {
			v.damage(Damage{File: name, Offset: int64(h.Offset), Length: int64(h.Length), Err: err})
		}
	}
	v.done(b.readable.Size())
}

func readAll(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLog))
	return data, errors.Join(err, f.Close())
}

func openReadable(fs vfs.FS, name string) (objstorage.Readable, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	r, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// recovered turns a panic over damaged octets into an error: Pebble's readers take what has a right checksum for right.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = errors.Join(*err, fmt.Errorf("it cannot be understood: %v", r))
	}
}

func baseName(name string) string { return path.Base(name) }
