package vault

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv"
)

// opened is a vault with the database it owns.
type opened struct {
	*Store
	db     *kv.DB
	closed bool
}

func (o *opened) Close() error {
	if o.closed {
		return nil
	}
	o.closed = true
	return errors.Join(o.Store.Close(), o.db.Close())
}

func open(tb testing.TB, fs vfs.FS, dir string, options Options) *opened {
	tb.Helper()
	db, err := kv.Open(dir, kv.Options{FS: fs})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := Open(db, options)
	if err != nil {
		tb.Fatal(errors.Join(err, db.Close()))
	}
	return &opened{Store: s, db: db}
}
