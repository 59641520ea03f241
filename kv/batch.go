package kv

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Batch gathers rows of any spaces for one atomic commit. It is for one goroutine, is committed once, and is closed in the end. All its rows stand
// in memory until then.
type Batch struct {
	db      *DB
	pebble  *pebble.Batch
	err     error
	waiting bool
}

// Batch returns an empty batch; size is the octets that it will hold, roughly.
func (db *DB) Batch(size int) *Batch {
	return &Batch{db: db, pebble: db.pebble.NewBatchWithSize(size)}
}

// Set writes a row.
func (b *Batch) Set(space *Space, key, value []byte) {
	op := b.pebble.SetDeferred(1+len(key), len(value))
	op.Key[0] = space.prefix
	copy(op.Key[1:], key)
	copy(op.Value, value)
	b.note(op.Finish())
}

// Fill writes a row of size octets that fill puts in their place, which saves a copy of large values. When fill fails the batch can only be closed.
func (b *Batch) Fill(space *Space, key []byte, size int, fill func(value []byte) error) error {
	op := b.pebble.SetDeferred(1+len(key), size)
	op.Key[0] = space.prefix
	copy(op.Key[1:], key)
	err := fill(op.Value)
	b.note(err)
	b.note(op.Finish())
	return err
}

// Delete removes a row, which need not be there.
func (b *Batch) Delete(space *Space, key []byte) {
	op := b.pebble.DeleteDeferred(1 + len(key))
	op.Key[0] = space.prefix
	copy(op.Key[1:], key)
	b.note(op.Finish())
}

// DeleteRange removes the rows from lower to below upper, nil for the ends of the space. It costs the same however many rows there are.
func (b *Batch) DeleteRange(space *Space, lower, upper []byte) {
	b.note(b.pebble.DeleteRange(space.key(lower), space.upper(upper), nil))
}

func (b *Batch) note(err error) {
	if b.err == nil {
		b.err = err
	}
}

// Len is the octets that the batch holds.
func (b *Batch) Len() int { return b.pebble.Len() }

// Empty tells whether the batch changes nothing.
func (b *Batch) Empty() bool { return b.pebble.Empty() }

// Commit makes the batch durable. An error means that the database has failed; whether the batch survived shows when it is opened again.
func (b *Batch) Commit() error {
	if err := b.Start(); err != nil {
		return err
	}
	return b.Wait()
}

// Start puts the batch into the log, after all batches started before, and lets readers see it. Nothing may be told to anybody
// before Wait has said that it is durable.
func (b *Batch) Start() error {
	if b.err != nil {
		return b.err
	}
	b.db.gather.started.Add(1)
	err := b.guard(func() error { return b.db.pebble.ApplyNoSyncWait(b.pebble, pebble.Sync) })
	b.waiting = err == nil
	return err
}

// Wait returns when the batch is durable.
func (b *Batch) Wait() error {
	if !b.waiting {
		return b.db.Err()
	}
	b.waiting = false
	if err := b.pebble.SyncWait(); err != nil {
		return b.db.fail(fmt.Errorf("writing the log: %w", err))
	}
	b.db.commits.Add(1)
	return nil
}

// CommitUnsynced puts the batch into the log without waiting for the disk: it is durable once any batch started later is, or not at all.
func (b *Batch) CommitUnsynced() error {
	if b.err != nil {
		return b.err
	}
	return b.guard(func() error { return b.db.pebble.Apply(b.pebble, pebble.NoSync) })
}

// guard turns what Pebble does on a broken log, a panic in the committing goroutine, into the database's failure.
func (b *Batch) guard(apply func() error) (err error) {
	if err := b.db.Err(); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			reason, ok := r.(error)
			if !ok {
				reason = fmt.Errorf("%v", r)
			}
			err = b.db.fail(fmt.Errorf("committing: %w", reason))
		}
	}()
	if err := apply(); err != nil {
		return b.db.fail(fmt.Errorf("committing: %w", err))
	}
	return b.db.Err()
}

// Close frees the batch, committed or not.
func (b *Batch) Close() {
	if b.waiting {
		_ = b.Wait()
	}
	if b.db.Err() == nil {
		b.note(b.pebble.Close())
	}
}

// Sync returns when everything that was started or committed before is durable.
func (db *DB) Sync() error {
	b := db.Batch(16)
	defer b.Close()
	b.note(b.pebble.LogData(nil, nil))
	return b.Commit()
}
