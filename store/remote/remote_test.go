package remote

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv"
	"postilion/store"
	"postilion/store/maildir"
	"postilion/store/storetest"
	"postilion/store/vault"
)

// pair returns the two ends of a socketpair.
func pair(tb testing.TB) (ours, theirs net.Conn) {
	tb.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	ends := [2]net.Conn{}
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socketpair")
		if ends[i], err = net.FileConn(file); err != nil {
			tb.Fatal(err)
		}
		if err := file.Close(); err != nil {
			tb.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

// served is a Client whose far side runs in this process; its Close waits for both and closes the store behind.
type served struct {
	*Client
	behind store.Store
	err    error
	wait   sync.WaitGroup
	once   sync.Once
}

// serve puts a connection before a store.
func serve(tb testing.TB, behind store.Store, options Options) *served {
	tb.Helper()
	ours, theirs := pair(tb)
	s := &served{behind: behind}
	s.wait.Go(func() { s.err = Serve(context.Background(), theirs, behind) })
	s.Client = NewClient(ours, options)
	return s
}

func (s *served) Close() error {
	var err error
	s.once.Do(func() {
		err = s.Client.Close()
		s.wait.Wait()
		err = errors.Join(err, s.err, s.behind.Close())
	})
	return err
}

// vaultStore is a vault with the database it owns.
type vaultStore struct {
	*vault.Store
	db *kv.DB
}

func (s vaultStore) Close() error { return errors.Join(s.Store.Close(), s.db.Close()) }

func openVault(tb testing.TB, fs vfs.FS) store.Store {
	tb.Helper()
	db, err := kv.Open("db", kv.Options{FS: fs})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := vault.Open(db, vault.Options{})
	if err != nil {
		tb.Fatal(errors.Join(err, db.Close()))
	}
	return vaultStore{s, db}
}

func memoryBed(*testing.T) *storetest.Bed {
	memory := storetest.NewMemory()
	return &storetest.Bed{
		Open: func(tb testing.TB) store.Store { return serve(tb, memory.Open(), Options{}) },
		Can:  storetest.Capabilities{ExactBytes: true, Atomic: true, RemembersAccounts: true},
	}
}

func maildirBed(t *testing.T) *storetest.Bed {
	home := memoryDir(t)
	return &storetest.Bed{
		Open: func(tb testing.TB) store.Store { return serve(tb, openMaildir(tb), Options{}) },
		Owner: func(user string) store.Owner {
			return store.Owner{User: user, Home: filepath.Join(home, user), Location: "~/Maildir:UTF-8", UID: -1, GID: -1}
		},
		Can: storetest.Capabilities{AllowsName: func(name string) bool { return !strings.HasPrefix(name, "~") && !strings.Contains(name, ".") }},
	}
}

// memoryDir returns a directory that lies in memory where there is such a place: what a disk keeps is not tested here.
func memoryDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "postilion-remote-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func openMaildir(tb testing.TB) store.Store {
	tb.Helper()
	s, err := maildir.Open(maildir.Options{Hostname: "host.example.org"})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func vaultBed(*testing.T) *storetest.Bed {
	fs := vfs.NewMem()
	return &storetest.Bed{
		Open: func(tb testing.TB) store.Store { return serve(tb, openVault(tb, fs), Options{}) },
		Can:  storetest.Capabilities{ExactBytes: true, Atomic: true, RemembersAccounts: true},
	}
}

func TestContract(t *testing.T) {
	for name, bed := range map[string]func(t *testing.T) *storetest.Bed{"memory": memoryBed, "vault": vaultBed, "maildir": maildirBed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, bed)
		})
	}
}

func TestCompare(t *testing.T) {
	storetest.Compare(t, map[string]func(t *testing.T) *storetest.Bed{"memory": memoryBed, "vault": vaultBed, "maildir": maildirBed})
}
