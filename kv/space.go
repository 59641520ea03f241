package kv

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// systemSpace is the first octet of the database's own rows.
const systemSpace = 0

// maxSpaces bounds the spaces of a database; prefixes above are kept for a longer form.
const maxSpaces = 200

// Space is a room's own part of the keys. Keys given to and returned by this package are without what tells spaces apart.
type Space struct {
	db     *DB
	name   string
	prefix byte
}

// Space hands out the space of that name, the same part of the keys each time the database is opened. A space is handed out once until it is
// released, so two rooms cannot write to one by mistake.
func (db *DB) Space(name string) (*Space, error) {
	if err := db.Err(); err != nil {
		return nil, err
	}
	db.spacesMu.Lock()
	defer db.spacesMu.Unlock()
	if db.claimed[name] {
		return nil, fmt.Errorf("kv: space %q is in use", name)
	}
	prefix, err := db.spacePrefix(name)
	if err != nil {
		return nil, err
	}
	db.claimed[name] = true
	return &Space{db: db, name: name, prefix: prefix}, nil
}

func (db *DB) spacePrefix(name string) (byte, error) {
	own := &Space{db: db, prefix: systemSpace}
	row := append([]byte{'s'}, name...)
	value, err := db.Get(own, nil, row)
	if err == nil && len(value) == 1 {
		return value[0], nil
	}
	if !errors.Is(err, ErrNotFound) {
		return 0, errors.Join(fmt.Errorf("kv: looking up space %q", name), err)
	}
	used := 0
	it, err := db.Iterate(own, []byte{'s'}, []byte{'t'})
	if err != nil {
		return 0, err
	}
	for it.First(); it.Valid(); it.Next() {
		used++
	}
	if err := it.Close(); err != nil {
		return 0, err
	}
	if db.readOnly {
		return 0, fmt.Errorf("kv: there is no space %q: %w", name, ErrNotFound)
	}
	if used >= maxSpaces {
		return 0, fmt.Errorf("kv: no room for space %q: there are %d", name, used)
	}
	batch := db.Batch(64)
	defer batch.Close()
	batch.Set(own, row, []byte{byte(used + 1)})
	return byte(used + 1), batch.Commit()
}

// Raw is the space with that octet before its keys, whatever its name, for rows that were saved from another database as they were. It is not claimed.
func (db *DB) Raw(prefix byte) *Space { return &Space{db: db, prefix: prefix} }

// Release gives the space back for another to ask for.
func (s *Space) Release() {
	s.db.spacesMu.Lock()
	defer s.db.spacesMu.Unlock()
	delete(s.db.claimed, s.name)
}

func (s *Space) key(key []byte) []byte {
	full := make([]byte, 1+len(key))
	full[0] = s.prefix
	copy(full[1:], key)
	return full
}

// upper is the end of a range: nil means the end of the space.
func (s *Space) upper(key []byte) []byte {
	if key == nil {
		return []byte{s.prefix + 1}
	}
	return s.key(key)
}

// Reader reads rows: the DB as it is now, or a Snapshot.
type Reader interface {
	// Get appends the row's value to dst, or answers ErrNotFound.
	Get(space *Space, dst, key []byte) ([]byte, error)
	// Iterate goes through the rows from lower to below upper, nil for the ends of the space.
	Iterate(space *Space, lower, upper []byte) (*Iterator, error)
}

// Get implements Reader over the newest rows, also those whose batch was started and is not yet durable.
func (db *DB) Get(space *Space, dst, key []byte) ([]byte, error) {
	if err := db.Err(); err != nil {
		return dst, err
	}
	return get(db.pebble, space, dst, key)
}

// Iterate implements Reader.
func (db *DB) Iterate(space *Space, lower, upper []byte) (*Iterator, error) {
	if err := db.Err(); err != nil {
		return nil, err
	}
	return iterate(db.pebble, space, lower, upper)
}

// Snapshot is the database at one moment. It holds space on the disk until it is closed.
type Snapshot struct{ pebble *pebble.Snapshot }

// Snapshot returns the database as it is now.
func (db *DB) Snapshot() (*Snapshot, error) {
	if err := db.Err(); err != nil {
		return nil, err
	}
	return &Snapshot{db.pebble.NewSnapshot()}, nil
}

// Get implements Reader.
func (s *Snapshot) Get(space *Space, dst, key []byte) ([]byte, error) {
	return get(s.pebble, space, dst, key)
}

// Iterate implements Reader.
func (s *Snapshot) Iterate(space *Space, lower, upper []byte) (*Iterator, error) {
	return iterate(s.pebble, space, lower, upper)
}

// Close lets the snapshot go.
func (s *Snapshot) Close() error { return s.pebble.Close() }

func get(from pebble.Reader, space *Space, dst, key []byte) ([]byte, error) {
	value, closer, err := from.Get(space.key(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, ErrNotFound
	}
	if err != nil {
		return dst, fmt.Errorf("kv: reading: %w", err)
	}
	dst = append(dst, value...)
	return dst, closer.Close()
}

// Iterator goes through rows in the order of their keys. Key and value are good until it moves.
type Iterator struct{ pebble *pebble.Iterator }

func iterate(from pebble.Reader, space *Space, lower, upper []byte) (*Iterator, error) {
	it, err := from.NewIter(&pebble.IterOptions{LowerBound: space.key(lower), UpperBound: space.upper(upper)})
	if err != nil {
		return nil, fmt.Errorf("kv: reading: %w", err)
	}
	return &Iterator{it}, nil
}

// First goes to the first row and tells whether there is one; Next, Last and Prev likewise.
func (it *Iterator) First() bool { return it.pebble.First() }

// Next goes to the next row.
func (it *Iterator) Next() bool { return it.pebble.Next() }

// Last goes to the last row.
func (it *Iterator) Last() bool { return it.pebble.Last() }

// Prev goes to the row before.
func (it *Iterator) Prev() bool { return it.pebble.Prev() }

// SeekGE goes to the first row at or behind key.
func (it *Iterator) SeekGE(space *Space, key []byte) bool { return it.pebble.SeekGE(space.key(key)) }

// Valid tells whether the iterator stands on a row.
func (it *Iterator) Valid() bool { return it.pebble.Valid() }

// Key is the key of the row.
func (it *Iterator) Key() []byte { return it.pebble.Key()[1:] }

// Value is the value of the row.
func (it *Iterator) Value() ([]byte, error) { return it.pebble.ValueAndErr() }

// Close ends the iteration and returns the error that stopped it, if any.
func (it *Iterator) Close() error {
	if err := it.pebble.Close(); err != nil {
		return fmt.Errorf("kv: reading: %w", err)
	}
	return nil
}
