package vault

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"postilion/store"
)

const (
	collectEvery = time.Hour
	// collectBatch is how many messages of a deleted mailbox are removed in one batch.
	collectBatch = 500
)

// collect does the background work until ctx ends: it removes what is left of deleted mailboxes and forgets old deliveries.
func (s *Store) collect(ctx context.Context) {
	ticker := time.NewTicker(collectEvery)
	defer ticker.Stop()
	for {
		if err := s.collectOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("background work of the mail store failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.wake:
		}
	}
}

func (s *Store) collectOnce(ctx context.Context) error {
	var deleted []uint64
	err := s.scan([]byte{rowDeleted}, []byte{rowDeleted + 1}, func(key, _ []byte) error {
		if len(key) != 9 {
			return fmt.Errorf("%w: key of a deleted mailbox", store.ErrDamaged)
		}
		deleted = append(deleted, binary.BigEndian.Uint64(key[1:]))
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range deleted {
		for done := false; !done; {
			if err := ctx.Err(); err != nil {
				return err
			}
			if done, err = s.collectMailbox(id); err != nil {
				return err
			}
		}
	}
	return s.delivered.forget(s)
}

// collectMailbox removes some messages of a deleted mailbox, and the last rows of it when there are none left. Nothing waits for the disk: after a
// crash the rest is found again.
func (s *Store) collectMailbox(id uint64) (done bool, err error) {
	c := s.change()
	defer c.close()
	c.locked = true
	keys, err := c.collectEntries(id)
	if err != nil {
		return false, err
	}
	done = keys < collectBatch
	if done {
		for _, kind := range []byte{rowEntry, rowPrefix, rowExpunged} {
			c.batch.DeleteRange(s.space, key1(kind, id), key1(kind, id+1))
		}
		for _, kind := range []byte{rowState, rowKeywords, rowDeleted} {
			c.batch.Delete(s.space, key1(kind, id))
		}
	}
	if err := c.writeReferences(); err != nil {
		return false, err
	}
	c.started = true
	return done, c.batch.CommitUnsynced()
}

func (c *change) collectEntries(id uint64) (n int, err error) {
	s := c.store
	it, err := s.db.Iterate(s.space, key1(rowEntry, id), key1(rowEntry, id+1))
	if err != nil {
		return 0, err
	}
	for it.First(); it.Valid() && n < collectBatch && err == nil; it.Next() {
		var value []byte
		var e entry
		if value, err = it.Value(); err == nil {
			e, _, err = decodeEntry(uidOf(it.Key()), value, nil)
		}
		if err == nil {
			c.refer(&e, -1)
			c.batch.Delete(s.space, slices.Clone(it.Key()))
			n++
		}
	}
	if closeErr := it.Close(); err == nil {
		err = closeErr
	}
	return n, err
}
