package files

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Row is one row of a database, with the octet of its space before its key. Err tells that its value cannot be read.
type Row struct {
	Key, Value []byte
	Err        error
}

// SalvageOptions tell Salvage what to do.
type SalvageOptions struct {
	Progress func(rows int64)
	Damage   func(Damage)
}

// Salvage reads the rows of a damaged database, newest version each, in the order of their keys, around everything that cannot be read. Nothing may have the database
// open. Where the MANIFEST is damaged tables are taken that perhaps did not belong to the database any more, so that rows that were deleted may come back.
func Salvage(ctx context.Context, fs vfs.FS, dir string, o SalvageOptions, fn func(Row) error) error {
	if o.Damage == nil {
		o.Damage = func(Damage) {}
	}
	s := &salvage{ctx: ctx, fs: fs, dir: dir, options: o, blobs: map[uint64]*blobFile{}}
	defer s.close()
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("kv: listing %s: %w", dir, err)
	}
	slices.Sort(names)
	s.readManifest(names)
	s.openBlobs(names)
	if err := s.openTables(names); err != nil {
		return err
	}
	s.readLogs(names)
	return s.merge(fn)
}

type salvage struct {
	ctx      context.Context
	fs       vfs.FS
	dir      string
	options  SalvageOptions
	contents contents
	// guessing is set when the MANIFEST did not tell all.
	guessing bool
	blobs    map[uint64]*blobFile
	sources  sources
	opened   []*table
	spans    []span
}

func (s *salvage) close() {
	for _, t := range s.opened {
		t.close()
	}
	for _, b := range s.blobs {
		b.close()
	}
}

func (s *salvage) readManifest(names []string) {
	s.contents = contents{tables: map[uint64]tableFacts{}, dropped: map[uint64]bool{}, blobs: map[uint64]uint64{}}
	name := currentManifest(names)
	guess := func(d Damage) {
		s.guessing = true
		s.options.Damage(d)
	}
	data, err := readAll(s.fs, s.fs.PathJoin(s.dir, name))
	if name == "" || err != nil {
		guess(Damage{File: cmp.Or(name, "MANIFEST"), Offset: -1, Err: cmp.Or(err, errMissing)})
		return
	}
	r := &recordReader{data: data, damage: func(offset, length int64) {
		guess(Damage{File: name, Offset: offset, Length: length, Err: errChecksum})
	}}
	for record := r.next(); record != nil; record = r.next() {
		if err := s.contents.edit(record); err != nil {
			guess(Damage{File: name, Offset: -1, Err: err})
		}
	}
	if r.failed {
		guess(Damage{File: name, Offset: int64(r.broken), Length: int64(len(data) - r.broken), Err: errChecksum})
	}
}

func (s *salvage) openBlobs(names []string) {
	for _, name := range names {
		if kindOf(name) != "blob" {
			continue
		}
		b, err := openBlob(s.ctx, s.fs, s.fs.PathJoin(s.dir, name))
		if err == nil {
			s.blobs[number(name)] = b
			err = b.indexErr
		}
		if err != nil {
			s.options.Damage(Damage{File: name, Offset: -1, Err: err})
		}
	}
}

func (s *salvage) openTables(names []string) error {
	wanted := map[uint64]tableFacts{}
	for _, facts := range s.contents.tables {
		wanted[facts.file] = facts
	}
	for _, name := range names {
		n := number(name)
		facts, known := wanted[n]
		if kindOf(name) != "sst" || !known && (!s.guessing || s.contents.dropped[n]) {
			continue
		}
		delete(wanted, n)
		t, err := openTable(s.ctx, s.fs, s.dir, name, facts, s.options.Damage)
		if err != nil {
			s.options.Damage(Damage{File: name, Offset: -1, Err: err})
			continue
		}
		s.opened = append(s.opened, t)
		if err := t.resolve(known, &s.contents, s.blobs); err != nil {
			return err
		}
		spans, err := t.ranges()
		if err != nil {
			s.options.Damage(Damage{File: name, Offset: -1, Err: fmt.Errorf("its deleted ranges: %w", err)})
		}
		s.spans = append(s.spans, spans...)
		s.add(&tableSource{table: t})
	}
	for n := range wanted {
		s.options.Damage(Damage{File: fmt.Sprintf("%06d.sst", n), Offset: -1, Err: errMissing})
	}
	return s.ctx.Err()
}

// readLogs reads what is in the logs and not in tables.
func (s *salvage) readLogs(names []string) {
	var all []version
	for _, name := range names {
		if kindOf(name) != "log" || number(name) < s.contents.firstLog {
			continue
		}
		data, err := readAll(s.fs, s.fs.PathJoin(s.dir, name))
		if err != nil {
			s.options.Damage(Damage{File: name, Offset: -1, Err: err})
			continue
		}
		r := &recordReader{data: data, log: uint32(number(name)), damage: func(offset, length int64) {
			s.options.Damage(Damage{File: name, Offset: offset, Length: length, Err: errChecksum})
		}}
		for record := r.next(); record != nil; record = r.next() {
			all = s.batch(name, record, all)
		}
	}
	slices.SortFunc(all, func(a, b version) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		return cmp.Compare(b.seq, a.seq)
	})
	s.add(&logSource{versions: all})
}

func (s *salvage) batch(name string, record []byte, all []version) []version {
	header, ok := batchrepr.ReadHeader(record)
	if !ok {
		return all
	}
	seq := uint64(header.SeqNum)
	reader := batchrepr.Read(bytes.Clone(record))
	for {
		kind, key, value, ok, err := reader.Next()
		if err != nil {
			s.options.Damage(Damage{File: name, Offset: -1, Err: err})
		}
		if !ok || err != nil {
			return all
		}
		switch kind {
		case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
			all = append(all, version{key: key, seq: seq, set: true, value: value})
		case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete, pebble.InternalKeyKindDeleteSized:
			all = append(all, version{key: key, seq: seq})
		case pebble.InternalKeyKindRangeDelete:
			s.spans = append(s.spans, span{key, value, seq})
		case pebble.InternalKeyKindLogData:
			continue
		}
		seq++
	}
}

// source yields versions in the order of keys, the newest first.
type source interface {
	next() bool
	version() *version
	// read returns the value of the present version.
	read() ([]byte, error)
	// rank orders versions of the same age.
	rank() uint64
}

type tableSource struct{ *table }

func (t *tableSource) version() *version { return &t.now }
func (t *tableSource) rank() uint64      { return t.number }

func (t *tableSource) read() ([]byte, error) {
	if !t.now.inBlob {
		return t.now.value, nil
	}
	ref := int(t.now.handle.ReferenceID)
	if ref >= len(t.blobs) || t.blobs[ref] == nil {
		return nil, fmt.Errorf("the blob file of its value, reference %d of %s: %w", ref, t.name, errMissing)
	}
	value, err := t.blobs[ref].value(t.now.handle)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.blobs[ref].name, err)
	}
	return value, nil
}

type logSource struct {
	versions []version
	at       int
}

func (l *logSource) next() bool {
	l.at++
	return l.at <= len(l.versions)
}

func (l *logSource) version() *version     { return &l.versions[l.at-1] }
func (l *logSource) read() ([]byte, error) { return l.version().value, nil }
func (l *logSource) rank() uint64          { return 1 << 63 }

func (s *salvage) add(from source) {
	if from.next() {
		s.sources = append(s.sources, from)
	}
}

// sources is a heap: the next key first, its newest version first.
type sources []source

func (h sources) Len() int { return len(h) }
func (h sources) Less(i, j int) bool {
	a, b := h[i].version(), h[j].version()
	if c := bytes.Compare(a.key, b.key); c != 0 {
		return c < 0
	}
	if a.seq != b.seq {
		return a.seq > b.seq
	}
	return h[i].rank() > h[j].rank()
}
func (h sources) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *sources) Push(x any)   { *h = append(*h, x.(source)) }
func (h *sources) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

func (s *salvage) merge(fn func(Row) error) error {
	slices.SortFunc(s.spans, func(a, b span) int { return bytes.Compare(a.start, b.start) })
	heap.Init(&s.sources)
	var done []byte
	var active []span
	seen, rows := false, int64(0)
	for len(s.sources) > 0 {
		top := s.sources[0]
		if v := top.version(); !seen || !bytes.Equal(v.key, done) {
			done, seen = append(done[:0], v.key...), true
			for len(s.spans) > 0 && bytes.Compare(s.spans[0].start, v.key) <= 0 {
				active, s.spans = append(active, s.spans[0]), s.spans[1:]
			}
			active = slices.DeleteFunc(active, func(d span) bool { return bytes.Compare(d.end, v.key) <= 0 })
			gone := slices.ContainsFunc(active, func(d span) bool { return d.seq > v.seq })
			if v.set && !gone {
				value, err := top.read()
				if err := fn(Row{Key: v.key, Value: value, Err: err}); err != nil {
					return err
				}
				if rows++; s.options.Progress != nil {
					s.options.Progress(rows)
				}
			}
		}
		if top.next() {
			heap.Fix(&s.sources, 0)
		} else {
			heap.Pop(&s.sources)
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
