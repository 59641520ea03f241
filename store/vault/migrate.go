package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"postilion/kv"
	"postilion/store"
)

const (
	// migrateRows and migrateOctets bound one batch of a migration.
	migrateRows   = 1000
	migrateOctets = 1 << 20
	// progressEvery is how often a migration tells how far it is.
	progressEvery = 5 * time.Second
)

// format is what this program writes and how it comes there from what earlier ones wrote.
func (s *Store) format() kv.Format {
	last := time.Now()
	return kv.Format{
		Name: "mail store", Key: []byte{rowFormat}, Version: formatVersion,
		Steps: []kv.Step{{From: 1, What: "digests of bodies", Run: addDigests}},
		Progress: func(p kv.Progress) {
			if now := time.Now(); p.Finished || p.Done == 0 || now.Sub(last) >= progressEvery {
				last = now
				s.log.Info(fmt.Sprintf("%s: from version %d to %d: %s", p.Name, p.From, p.To, p.What), "done", p.Done, "finished", p.Finished)
			}
		},
	}
}

// addDigests leads from version 1 to 2: each row of a structure gets the digest of its body. The cursor is the last body that was done.
func addDigests(ctx context.Context, m *kv.Migration) error {
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch := m.DB.Batch(migrateOctets)
		rows, last, err := digestSome(m, batch)
		if done = rows < migrateRows && batch.Len() < migrateOctets; err == nil && rows > 0 {
			err = m.Commit(batch, last, rows)
		}
		batch.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// digestSome puts the rows of the next bodies into the batch and returns the last body.
func digestSome(m *kv.Migration, batch *kv.Batch) (rows int64, last []byte, err error) {
	lower := []byte{rowStructure}
	if cursor := m.Cursor(); len(cursor) == 8 {
		lower = key1(rowStructure, binary.BigEndian.Uint64(cursor)+1)
	}
	it, err := m.DB.Iterate(m.Space, lower, []byte{rowStructure + 1})
	if err != nil {
		return 0, nil, err
	}
	for it.First(); it.Valid() && rows < migrateRows && batch.Len() < migrateOctets && err == nil; it.Next() {
		var value []byte
		var digest uint32
		if len(it.Key()) != 9 {
			err = fmt.Errorf("%w: key %x of a structure", store.ErrDamaged, it.Key())
			break
		}
		last = append(last[:0], it.Key()[1:]...)
		if value, err = it.Value(); err == nil {
			digest, err = digestOf(m.DB, m.Space, binary.BigEndian.Uint64(last))
		}
		if err == nil {
			batch.Set(m.Space, it.Key(), appendDigest(slices.Clone(value), digest))
			rows++
		}
	}
	return rows, last, errors.Join(err, it.Close())
}
