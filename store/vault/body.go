package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"postilion/kv"
	"postilion/mail/message"
	"postilion/store"
)

const (
	// chunkSize is how many octets of a body one row holds at most. It is part of the format.
	chunkSize = 256 << 10
	// batchRoom is the size of a batch from which further bodies are written ahead.
	batchRoom = 4 << 20
)

// reference is what a change does to the number of messages that have a body.
type reference struct {
	delta int
	// size is the octets of the body's rows.
	size int64
}

// newBody is a body whose rows are planned or written ahead.
type newBody struct {
	id uint64
	// size is the octets of its rows: with the prefix when that is part of them.
	size int64
	// digest is of these octets.
	digest uint32
}

// putBody plans the rows of a new body: prefix and content as one. It needs no lock.
func (c *change) putBody(prefix []byte, content store.Content, structure *message.Message) (newBody, error) {
	body := newBody{id: c.store.newID(), size: int64(len(prefix)) + content.Size()}
	whole := prefixed{prefix, content}
	var err error
	if body.size <= chunkSize && c.batch.Len() < batchRoom {
		err = c.batch.Fill(c.store.space, keyChunk(body.id, 0), int(body.size), func(value []byte) error { return body.fill(value, whole, 0) })
	} else {
		err = c.streamBody(&body, whole)
	}
	if err != nil {
		return newBody{}, err
	}
	return body, c.putStructure(body.id, structure, prefix, content, body.digest)
}

// fill reads the next octets of the body into a row.
func (b *newBody) fill(value []byte, whole prefixed, from int64) error {
	err := whole.read(value, from)
	b.digest = addDigest(b.digest, value)
	return err
}

// streamBody writes the rows ahead, each in a batch of its own, under a mark that the change's batch takes away.
func (c *change) streamBody(body *newBody, whole prefixed) error {
	c.streamed = append(c.streamed, body.id)
	for chunk, from := uint32(0), int64(0); from < body.size || chunk == 0; chunk, from = chunk+1, from+chunkSize {
		n := min(chunkSize, body.size-from)
		batch := c.store.db.Batch(int(n) + 128)
		if chunk == 0 {
			batch.Set(c.store.space, key1(rowUnfinished, body.id), nil)
		}
		err := batch.Fill(c.store.space, keyChunk(body.id, chunk), int(n), func(value []byte) error { return body.fill(value, whole, from) })
		if err == nil {
			err = batch.CommitUnsynced()
		}
		batch.Close()
		if err != nil {
			return err
		}
	}
	c.batch.Delete(c.store.space, key1(rowUnfinished, body.id))
	return nil
}

// dropStreamed takes back what was written ahead for a change that did not happen.
func (c *change) dropStreamed() {
	if len(c.streamed) == 0 {
		return
	}
	batch := c.store.db.Batch(256)
	defer batch.Close()
	for _, id := range c.streamed {
		c.store.dropBody(batch, id, chunkSize+1)
		batch.Delete(c.store.space, key1(rowUnfinished, id))
	}
	if err := batch.CommitUnsynced(); err != nil {
		c.store.log.Warn("rows of an unfinished message stay until the store is opened again", "error", err)
	}
}

// dropUnfinished plans the removal of bodies that were being written ahead when the process ended.
func (s *Store) dropUnfinished(batch *kv.Batch) error {
	return s.scan([]byte{rowUnfinished}, []byte{rowUnfinished + 1}, func(key, _ []byte) error {
		if len(key) != 9 {
			return fmt.Errorf("%w: key of an unfinished body", store.ErrDamaged)
		}
		s.dropBody(batch, binary.BigEndian.Uint64(key[1:]), chunkSize+1)
		batch.Delete(s.space, slices.Clone(key))
		return nil
	})
}

func (s *Store) dropBody(batch *kv.Batch, id uint64, size int64) {
	batch.Delete(s.space, key1(rowStructure, id))
	if size <= chunkSize {
		batch.Delete(s.space, keyChunk(id, 0))
		return
	}
	batch.DeleteRange(s.space, key1(rowBody, id), key1(rowBody, id+1))
}

// refer plans that delta more messages have the body.
func (c *change) refer(e *entry, delta int) {
	if c.bodies == nil {
		c.bodies = map[uint64]reference{}
	}
	r := c.bodies[e.body]
	r.delta += delta
	r.size = e.size - int64(e.prefix)
	c.bodies[e.body] = r
}

// writeReferences plans the rows of references and the removal of bodies that nobody has any more. The locks it takes are held until the batch
// has started.
func (c *change) writeReferences() error {
	if len(c.bodies) == 0 {
		return nil
	}
	ids := make([]uint64, 0, len(c.bodies))
	for id := range c.bodies {
		ids = append(ids, id)
		c.stripes |= 1 << (id % 64)
	}
	for i := range c.store.references {
		if c.stripes&(1<<i) != 0 {
			c.store.references[i].Lock()
		}
	}
	slices.Sort(ids)
	var buffer [16]byte
	for _, id := range ids {
		r := c.bodies[id]
		if r.delta == 0 {
			continue
		}
		before, err := c.store.referencesOf(id)
		if err != nil {
			return err
		}
		switch now := before + int64(r.delta); {
		case now <= 0:
			c.store.dropBody(c.batch, id, r.size)
			if before > 1 {
				c.batch.Delete(c.store.space, key1(rowReferences, id))
			}
		case now == 1:
			c.batch.Delete(c.store.space, key1(rowReferences, id))
		default:
			c.batch.Set(c.store.space, key1(rowReferences, id), binary.AppendUvarint(buffer[:0], uint64(now)))
		}
	}
	return nil
}

func (s *Store) referencesOf(id uint64) (int64, error) {
	var buffer [16]byte
	row, err := s.db.Get(s.space, buffer[:0], key1(rowReferences, id))
	if errors.Is(err, kv.ErrNotFound) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	n, size := binary.Uvarint(row)
	if size <= 0 {
		return 0, fmt.Errorf("%w: references of body %d", store.ErrDamaged, id)
	}
	return int64(n), nil
}

func (c *change) unlockReferences() {
	for i := range c.store.references {
		if c.stripes&(1<<i) != 0 {
			c.store.references[i].Unlock()
		}
	}
	c.stripes = 0
}

// prefixed reads prefix and content as one.
type prefixed struct {
	prefix  []byte
	content store.Content
}

// read fills p from offset from; there are that many octets.
func (r prefixed) read(p []byte, from int64) error {
	if from < int64(len(r.prefix)) {
		n := copy(p, r.prefix[from:])
		p, from = p[n:], from+int64(n)
	}
	if len(p) == 0 {
		return nil
	}
	n, err := r.content.ReadAt(p, from-int64(len(r.prefix)))
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading the message: %w", err)
}

// smallBody is a message that was read as a whole.
type smallBody []byte

func (b smallBody) Size() int64  { return int64(len(b)) }
func (b smallBody) Close() error { return nil }

func (b smallBody) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

var (
	errOffset = errors.New("vault: negative offset")
	errBody   = errors.New("vault: body is closed")
)

// largeBody reads rows as they are asked for and keeps the last one. The snapshot keeps them from being removed.
type largeBody struct {
	store  *Store
	id     uint64
	size   int64
	prefix []byte

	mu       sync.Mutex
	snapshot *kv.Snapshot
	chunk    []byte
	number   int64
}

func (b *largeBody) Size() int64 { return b.size }

func (b *largeBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.snapshot == nil {
		return nil
	}
	err := b.snapshot.Close()
	b.snapshot, b.chunk = nil, nil
	return err
}

func (b *largeBody) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errOffset
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.snapshot == nil {
		return 0, errBody
	}
	for n < len(p) && off < b.size {
		from := b.prefix
		at := off
		if at >= int64(len(b.prefix)) {
			at -= int64(len(b.prefix))
			if from, err = b.row(at / chunkSize); err != nil {
				return n, err
			}
			at %= chunkSize
		}
		if at >= int64(len(from)) {
			return n, fmt.Errorf("%w: body %d ends too early", store.ErrDamaged, b.id)
		}
		m := copy(p[n:], from[at:])
		n, off = n+m, off+int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (b *largeBody) row(number int64) ([]byte, error) {
	if b.chunk != nil && b.number == number {
		return b.chunk, nil
	}
	row, err := b.snapshot.Get(b.store.space, b.chunk[:0], keyChunk(b.id, uint32(number)))
	if err != nil {
		b.chunk = nil
		return nil, fmt.Errorf("%w: body %d: %w", store.ErrDamaged, b.id, err)
	}
	b.chunk, b.number = row, number
	return row, nil
}

// openBody reads the message of an entry. ErrExpunged when its rows are gone because the message is.
func (s *Store) openBody(box uint64, e *entry) (store.Body, error) {
	if e.size-int64(e.prefix) > chunkSize {
		return s.openLarge(box, e)
	}
	data := make([]byte, 0, e.size)
	var err error
	if e.prefix > 0 {
		if data, err = s.db.Get(s.space, data, keyUID(rowPrefix, box, e.uid)); err != nil {
			return nil, s.missing(s.db, box, e, err)
		}
	}
	if data, err = s.db.Get(s.space, data, keyChunk(e.body, 0)); err != nil {
		return nil, s.missing(s.db, box, e, err)
	}
	if int64(len(data)) != e.size {
		return nil, fmt.Errorf("%w: UID %d has %d octets instead of %d", store.ErrDamaged, e.uid, len(data), e.size)
	}
	return smallBody(data), nil
}

func (s *Store) openLarge(box uint64, e *entry) (_ store.Body, err error) {
	snapshot, err := s.db.Snapshot()
	if err != nil {
		return nil, err
	}
	b := &largeBody{store: s, id: e.body, size: e.size, snapshot: snapshot}
	if e.prefix > 0 {
		b.prefix, err = snapshot.Get(s.space, nil, keyUID(rowPrefix, box, e.uid))
	}
	if err == nil {
		_, err = b.row(0)
	}
	if err != nil {
		return nil, errors.Join(s.missing(snapshot, box, e, err), snapshot.Close())
	}
	return b, nil
}

// missing tells why a row of a message cannot be read.
func (s *Store) missing(from kv.Reader, box uint64, e *entry, err error) error {
	if !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	if _, entryErr := from.Get(s.space, nil, keyUID(rowEntry, box, e.uid)); errors.Is(entryErr, kv.ErrNotFound) {
		return store.ErrExpunged
	}
	return fmt.Errorf("%w: rows of UID %d are missing", store.ErrDamaged, e.uid)
}
