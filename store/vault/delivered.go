package vault

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"postilion/store"
)

// deliveryName stands for a delivery's id and the mailbox it goes to, by name. The id comes first, as it is: ids that rise with time, as
// queue ids do, lie behind all that are known, so looking for a new one touches no table on the disk.
type deliveryName []byte

// mark remembers a delivery.
type mark struct {
	name    deliveryName
	mailbox uint64
	uid     store.UID
}

func (m mark) row() []byte {
	return binary.AppendUvarint(binary.AppendUvarint(make([]byte, 0, 16), m.mailbox), uint64(m.uid))
}

// maxPlainID is the length of an id in octets from which its hash stands for its end.
const maxPlainID = 64

// targetLen is how many octets stand for the target.
const targetLen = 8

// shortID is the id, or the beginning of a long one and the hash of its rest.
func shortID(id string) string {
	if len(id) <= maxPlainID {
		return id
	}
	rest := sha256.Sum256([]byte(id[maxPlainID/2:]))
	return id[:maxPlainID/2] + string(rest[:])
}

func nameDelivery(account uint64, mailbox, id string) deliveryName {
	var buffer [256]byte
	target := sha256.Sum256(append(binary.BigEndian.AppendUint64(buffer[:0], account), mailbox...))
	id = shortID(id)
	name := make(deliveryName, 0, len(id)+targetLen)
	return append(append(name, id...), target[:targetLen]...)
}

func (n deliveryName) key(period uint32) []byte {
	return append(binary.BigEndian.AppendUint32(append(make([]byte, 0, 8+len(n)), rowDelivered), period), n...)
}

// delivered keeps the marks of deliveries in periods of half the time that they are remembered, so that a whole period is forgotten
// with one range deletion. A period is named by the second it began.
//
// Most deliveries are new, and knowing that must cost nothing: the last ids stand in memory, and an id that is above all others and not
// among these is new. Ids that rise with time, as queue ids do, are always found so; for others the rows are looked up.
type delivered struct {
	mu     sync.Mutex
	starts []uint32
	// recent holds the last ids, ring in which order they came, next the oldest place in it. No id that is not recent is above floor.
	recent map[string]struct{}
	ring   [recentIDs]string
	next   int
	floor  string
}

// recentIDs is how many ids stand in memory.
const recentIDs = 8192

// surelyNew tells whether no row can have this id.
func (d *delivered) surelyNew(id string) bool {
	id = shortID(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, known := d.recent[id]
	return !known && id > d.floor
}

// note remembers an id whose row is about to be started.
func (d *delivered) note(id string) {
	id = shortID(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.recent[id]; known {
		return
	}
	if d.recent == nil {
		d.recent = make(map[string]struct{}, recentIDs)
	}
	if old := d.ring[d.next]; old != "" {
		delete(d.recent, old)
		d.floor = max(d.floor, old)
	}
	d.recent[id] = struct{}{}
	d.ring[d.next] = id
	d.next = (d.next + 1) % recentIDs
}

// load finds the periods that have rows.
func (d *delivered) load(s *Store) error {
	it, err := s.db.Iterate(s.space, []byte{rowDelivered}, []byte{rowDelivered + 1})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; {
		if len(it.Key()) < 5 {
			return errors.Join(fmt.Errorf("%w: mark of a delivery", store.ErrDamaged), it.Close())
		}
		start := binary.BigEndian.Uint32(it.Key()[1:])
		d.starts = append(d.starts, start)
		if start == 1<<32-1 {
			break
		}
		ok = it.SeekGE(s.space, binary.BigEndian.AppendUint32([]byte{rowDelivered}, start+1))
	}
	if err := it.Close(); err != nil {
		return err
	}
	for _, start := range d.starts {
		if err := d.raise(s, start); err != nil {
			return err
		}
	}
	return nil
}

// raise puts the floor above the ids of a period.
func (d *delivered) raise(s *Store, start uint32) error {
	prefix := binary.BigEndian.AppendUint32([]byte{rowDelivered}, start)
	it, err := s.db.Iterate(s.space, prefix, after(prefix))
	if err != nil {
		return err
	}
	if it.Last() {
		d.floor = max(d.floor, string(it.Key()[len(prefix):]))
	}
	return it.Close()
}

// periods returns those that may hold marks, the newest first.
func (d *delivered) periods() []uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	periods := slices.Clone(d.starts)
	slices.Reverse(periods)
	return periods
}

// current returns the period that new marks go to.
func (d *delivered) current(s *Store) uint32 {
	now := s.options.Now().Unix()
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.starts); n == 0 || now >= int64(d.starts[n-1])+int64(s.options.RememberDeliveries/time.Second)/2 {
		if start := uint32(min(max(now, 1), 1<<32-1)); n == 0 || start > d.starts[n-1] {
			d.starts = append(d.starts, start)
		}
	}
	return d.starts[len(d.starts)-1]
}

// forget removes the periods of which every mark is old enough.
func (d *delivered) forget(s *Store) error {
	now := s.options.Now().Unix()
	for {
		d.mu.Lock()
		starts := slices.Clone(d.starts)
		d.mu.Unlock()
		if len(starts) < 2 || int64(starts[1])+int64(s.options.RememberDeliveries/time.Second) >= now {
			return nil
		}
		batch := s.db.Batch(64)
		batch.DeleteRange(s.space, binary.BigEndian.AppendUint32([]byte{rowDelivered}, starts[0]), binary.BigEndian.AppendUint32([]byte{rowDelivered}, starts[0]+1))
		err := batch.CommitUnsynced()
		batch.Close()
		if err != nil {
			return err
		}
		d.mu.Lock()
		d.starts = d.starts[1:]
		d.mu.Unlock()
	}
}
