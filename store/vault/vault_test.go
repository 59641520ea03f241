package vault

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/store"
	"postilion/store/storetest"
)

func bed(*testing.T) *storetest.Bed {
	fs := vfs.NewMem()
	return &storetest.Bed{
		Open: func(tb testing.TB) store.Store { return open(tb, fs, "db", Options{}) },
		Can:  storetest.Capabilities{ExactBytes: true, Atomic: true, RemembersAccounts: true},
	}
}

func TestContract(t *testing.T) { storetest.Run(t, bed) }

func TestAnswersAsThePlainStore(t *testing.T) {
	storetest.Compare(t, map[string]func(t *testing.T) *storetest.Bed{"vault": bed})
}
