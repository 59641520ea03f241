package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// probeLen is how many octets of a key count when the first key behind a damaged block is looked for.
	probeLen = 24
	// sampled is how many values of each reference are tried when it is not known which blob file is meant.
	sampled = 32
)

// version is one version of a row.
type version struct {
	key    []byte
	seq    uint64
	set    bool
	value  []byte
	handle blob.InlineHandle
	inBlob bool
}

// span is a range of keys that was deleted.
type span struct {
	start, end []byte
	seq        uint64
}

// table yields the versions in one table, in the order of keys, around blocks that cannot be read.
type table struct {
	ctx    context.Context
	name   string
	number uint64
	facts  tableFacts
	damage func(Damage)
	reader *sstable.Reader
	iter   sstable.Iterator
	begun  bool
	// handle is the last reference to a blob file that the iterator came by.
	handle blob.InlineHandle
	inBlob bool
	now    version
	// blobs are the files of the references; nil where none is known.
	blobs []*blobFile
}

func openTable(ctx context.Context, fs vfs.FS, dir, name string, facts tableFacts, damage func(Damage)) (t *table, err error) {
	readable, err := openReadable(fs, fs.PathJoin(dir, name))
	if err != nil {
		return nil, err
	}
	defer recovered(&err)
	reader, err := sstable.NewReader(ctx, readable, sstable.ReaderOptions{})
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	t = &table{ctx: ctx, name: name, number: number(name), facts: facts, damage: damage, reader: reader}
	if err := t.restart(); err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	return t, nil
}

// restart begins at the front again.
func (t *table) restart() (err error) {
	if t.iter != nil {
		_ = t.iter.Close()
	}
	values := sstable.DebugHandlesBlobContext
	values.BlobHandleFn = noting(values.BlobHandleFn, func(h blob.InlineHandle) { t.handle, t.inBlob = h, true })
	t.begun = false
	t.iter, err = t.reader.NewIter(sstable.NoTransforms, nil, nil, values)
	return err
}

// noting hands on where a value lies and answers what the original does. The type of the answer has no name outside of Pebble.
func noting[V any](original func(blob.InlineHandlePreface, []byte) V, note func(blob.InlineHandle)) func(blob.InlineHandlePreface, []byte) V {
	return func(preface blob.InlineHandlePreface, rest []byte) V {
		note(blob.InlineHandle{InlineHandlePreface: preface, HandleSuffix: blob.DecodeHandleSuffix(rest)})
		return original(preface, rest)
	}
}

func (t *table) close() {
	_ = t.iter.Close()
	_ = t.reader.Close()
}

// next goes to the next version and tells whether there is one.
func (t *table) next() bool {
	if t.step() {
		return true
	}
	reason := t.iter.Error()
	if reason == nil {
		return false
	}
	from := bytes.Clone(t.now.key)
	t.damage(Damage{File: t.name, Offset: -1, Err: fmt.Errorf("rows behind key %x cannot be read: %w", from, reason)})
	return t.pass(from)
}

// step moves the iterator.
func (t *table) step() (ok bool) {
	var err error
	defer func() {
		if err != nil {
			t.damage(Damage{File: t.name, Offset: -1, Err: err})
		}
	}()
	defer recovered(&err)
	t.inBlob = false
	move := t.iter.First
	if t.begun {
		move = t.iter.Next
	}
	t.begun = true
	found := move()
	if found == nil {
		return false
	}
	value, _, valueErr := found.Value(nil)
	t.take(found.K.UserKey, uint64(found.K.SeqNum()), found.K.Kind(), value, valueErr)
	return true
}

func (t *table) take(key []byte, seq uint64, kind pebble.InternalKeyKind, value []byte, err error) {
	t.now = version{key: append(t.now.key[:0], key...), seq: seq, handle: t.handle, inBlob: t.inBlob}
	switch kind {
	case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
		t.now.set = err == nil
		if !t.inBlob {
			t.now.value = value
		}
	}
}

// pass looks for the first key behind a block that cannot be read: keys are numbers, and the distance from the last good one is doubled until one can be read, then
// halved back.
func (t *table) pass(from []byte) bool {
	base := new(big.Int).SetBytes(padded(from))
	try := func(distance *big.Int) (read, end bool) {
		sum := new(big.Int).Add(base, distance)
		if sum.BitLen() > probeLen*8 {
			return false, true
		}
		return t.seek(sum.FillBytes(make([]byte, probeLen)))
	}
	low, high := new(big.Int), big.NewInt(1)
	for {
		read, end := try(high)
		if read {
			break
		}
		if end {
			return false
		}
		low.Set(high)
		high = new(big.Int).Lsh(high, 1)
	}
	for new(big.Int).Sub(high, low).Cmp(big.NewInt(1)) > 0 {
		middle := new(big.Int).Add(low, high)
		middle.Rsh(middle, 1)
		if read, _ := try(middle); read {
			high = middle
		} else {
			low = middle
		}
	}
	read, _ := try(high)
	return read
}

func padded(key []byte) []byte {
	p := make([]byte, probeLen)
	copy(p, key)
	return p
}

// seek goes to the first version at or behind key: read tells whether it can be read, end that there is none.
func (t *table) seek(key []byte) (read, end bool) {
	var err error
	defer recovered(&err)
	t.inBlob = false
	found := t.iter.SeekGE(key, 0)
	if found == nil {
		return false, t.iter.Error() == nil
	}
	value, _, valueErr := found.Value(nil)
	t.take(found.K.UserKey, uint64(found.K.SeqNum()), found.K.Kind(), value, valueErr)
	return true, false
}

// ranges are the ranges of keys that the table deletes.
func (t *table) ranges() (spans []span, err error) {
	defer recovered(&err)
	it, err := t.reader.NewRawRangeDelIter(t.ctx, sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil || it == nil {
		return nil, err
	}
	defer it.Close()
	s, err := it.First()
	for ; s != nil && err == nil; s, err = it.Next() {
		for _, k := range s.Keys {
			spans = append(spans, span{bytes.Clone(s.Start), bytes.Clone(s.End), uint64(k.SeqNum())})
		}
	}
	return spans, err
}

// resolve finds the blob files of the table's references: as the MANIFEST says, or for a table that it does not know, those that have values of the right lengths in the
// right places.
func (t *table) resolve(known bool, c *contents, files map[uint64]*blobFile) error {
	if known {
		for _, id := range t.facts.blobs {
			file, ok := c.blobs[id]
			if !ok {
				// What is not known to have been rewritten lies where it was written.
				file = id
			}
			t.blobs = append(t.blobs, files[file])
		}
		return nil
	}
	samples := map[int][]blob.InlineHandle{}
	highest := -1
	for t.next() {
		if ref := int(t.now.handle.ReferenceID); t.now.inBlob {
			highest = max(highest, ref)
			if len(samples[ref]) < sampled {
				samples[ref] = append(samples[ref], t.now.handle)
			}
		}
	}
	for ref := range highest + 1 {
		t.blobs = append(t.blobs, nearest(t.number, samples[ref], files))
	}
	return t.restart()
}

// nearest is the blob file that has all these values, the one with the nearest number among several.
func nearest(number uint64, handles []blob.InlineHandle, files map[uint64]*blobFile) (best *blobFile) {
	distance := uint64(1 << 63)
	for n, file := range files {
		fits := true
		for _, h := range handles {
			if _, err := file.value(h); err != nil {
				fits = false
				break
			}
		}
		if d := max(n, number) - min(n, number); fits && d < distance {
			best, distance = file, d
		}
	}
	return best
}
