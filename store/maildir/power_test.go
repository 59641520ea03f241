package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"postilion/kv"
	"postilion/store"
	"postilion/store/forgetful"
	"postilion/store/storetest"
	"postilion/store/vault"
)

// forgetfulFiles is a forgetful.FS as this package wants its file system.
type forgetfulFiles struct{ *forgetful.FS }

func (f forgetfulFiles) OpenFile(name string, flag int, perm fs.FileMode) (openFile, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return file, nil
}

// machine is a computer with a disk that forgets.
type machine struct {
	files    *forgetful.FS
	survival forgetful.Survival
}

func (m *machine) CutAfter(n int) { m.files.CutAfter(n) }
func (m *machine) Off() bool      { return m.files.Off() }

func (m *machine) Restore(seed uint64) {
	m.files = m.files.Cut(m.survival, rand.New(rand.NewPCG(seed, 1)))
}

// open starts a store on the machine. Its locks name a process that does not live, as it will be when the power went.
func (m *machine) open(tb testing.TB) *Store {
	s, err := Open(Options{Hostname: "host.example.org", LockTimeout: 20 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	s.disk.files = forgetfulFiles{m.files}
	s.disk.holder = "4999999:" + lockHost()
	s.disk.staleEmpty = time.Millisecond
	return s
}

func (m *machine) bed() *storetest.Bed {
	l := location{}
	return &storetest.Bed{
		Open: func(tb testing.TB) store.Store { return m.open(tb) },
		Owner: func(user string) store.Owner {
			return store.Owner{User: user, Home: "/home/" + user, Location: "~/Maildir", UID: -1, GID: -1}
		},
		Can:   storetest.Capabilities{AllowsName: func(name string) bool { return l.checkName(name) == nil }},
		Power: m,
	}
}

// kinds are the power cuts that are tried, in either order of names.
func kinds() map[string]func() *machine {
	all := map[string]func() *machine{}
	for orderName, order := range map[string]forgetful.Order{"ext4-like": forgetful.Ext4Like, "strict": forgetful.Strict} {
		for name, survival := range map[string]forgetful.Survival{"lose-all": forgetful.LoseAll, "random-subset": forgetful.RandomSubset, "torn": forgetful.Torn} {
			all[name+" "+orderName] = func() *machine { return &machine{files: forgetful.New(order), survival: survival} }
		}
	}
	return all
}

// TestStoreForgetful runs the suite of all stores on a disk that keeps only what was flushed.
func TestStoreForgetful(t *testing.T) {
	storetest.Run(t, func(*testing.T) *storetest.Bed { return kinds()["lose-all strict"]().bed() })
}

// TestSurvive cuts the power in the middle of operations.
func TestSurvive(t *testing.T) {
	for name, make := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Survive(t, func(*testing.T) *storetest.Bed { return make().bed() })
		})
	}
}

// vaultMachine is a computer with a vault on a disk that forgets. When the power goes the old vault runs on where nobody sees it.
type vaultMachine struct {
	mu    sync.Mutex
	files *vfs.MemFS
	after *vfs.MemFS
	left  atomic.Int64
}

func (m *vaultMachine) CutAfter(n int) { m.left.Store(int64(n)) }

func (m *vaultMachine) Off() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.after != nil
}

func (m *vaultMachine) cut(random *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.after == nil {
		m.after = m.files.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
	}
}

func (m *vaultMachine) Restore(seed uint64) {
	m.cut(rand.New(rand.NewPCG(seed, 1)))
	m.left.Store(0)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files, m.after = m.after, nil
}

// openedVault is a vault and the database under it.
type openedVault struct {
	*vault.Store
	db *kv.DB
}

func (v openedVault) Close() error { return errors.Join(v.Store.Close(), v.db.Close()) }

func (m *vaultMachine) open(tb testing.TB) store.Store {
	files := m.files
	watched := errorfs.Wrap(files, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && m.left.Load() > 0 && m.left.Add(-1) == 0 && files == m.files {
			m.cut(rand.New(rand.NewPCG(1, 2)))
		}
		return nil
	}))
	db, err := kv.Open("db", kv.Options{FS: watched})
	if err != nil {
		tb.Fatal(err)
	}
	v, err := vault.Open(db, vault.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return openedVault{v, db}
}

func (m *vaultMachine) bed() *storetest.Bed {
	return &storetest.Bed{Open: m.open, Power: m, Can: storetest.Capabilities{ExactBytes: true, Atomic: true, RemembersAccounts: true}}
}

// TestSameAnswers gives vault and Maildir the same random operations with power cuts between them, and wants the same answers.
func TestSameAnswers(t *testing.T) {
	for name, make := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Compare(t, map[string]func(t *testing.T) *storetest.Bed{
				"maildir": func(*testing.T) *storetest.Bed { return make().bed() },
				"vault":   func(*testing.T) *storetest.Bed { return (&vaultMachine{files: vfs.NewCrashableMem()}).bed() },
			})
		})
	}
}

// TestVaultSurvives holds the vault to the same as Maildir.
func TestVaultSurvives(t *testing.T) {
	storetest.Survive(t, func(*testing.T) *storetest.Bed { return (&vaultMachine{files: vfs.NewCrashableMem()}).bed() })
}

// TestFaultyDisk has operations of the disk fail now and then, under deliveries and changes of flags, then cuts the power: what was acknowledged is
// there once, under the UID that was told, and what was refused at most once.
func TestFaultyDisk(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 3))
		m := &machine{files: forgetful.New(forgetful.Order(seed % 2)), survival: forgetful.LoseAll}
		s := m.open(t)
		owner := m.bed().Owner("alice")
		errno := []error{syscall.ENOSPC, syscall.EIO}[seed/2%2]
		account, err := s.Open(t.Context(), owner)
		if err != nil {
			t.Fatal(err)
		}
		inbox, err := account.Mailbox(t.Context(), store.Inbox)
		if err != nil {
			t.Fatal(err)
		}
		acked, flagged := map[string]store.UID{}, map[store.UID]bool{}
		for n := range 60 {
			if n%10 == 5 {
				rate := 2 + random.IntN(30)
				m.files.Fail(func(operation, _ string) error {
					if operation != "stat" && operation != "read" && random.IntN(rate) == 0 {
						return errno
					}
					return nil
				})
			} else if n%10 == 9 {
				m.files.Fail(nil)
			}
			id := fmt.Sprint("id", n-random.IntN(2))
			outcomes, err := s.Deliver(t.Context(), &store.Delivery{ID: id, Content: strings.NewReader("Subject: " + id + "\r\n\r\n"), Targets: []store.Target{{Owner: owner, Mailbox: store.Inbox}}})
			if err == nil && outcomes[0].Err == nil {
				if uid := outcomes[0].UID; acked[id] != 0 && uid != acked[id] {
					t.Errorf("seed %d: %s has UID %d, and was told as %d", seed, id, uid, acked[id])
				}
				acked[id] = outcomes[0].UID
			}
			uid := store.UID(1 + random.IntN(60))
			if changed, err := inbox.SetFlags(t.Context(), store.UIDSetOf(uid), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagFlagged}); err == nil && changed.Changed.Contains(uid) {
				flagged[uid] = true
			}
		}
		m.files.Fail(nil)
		m.Restore(seed)
		_ = s.Close()
		s = m.open(t)
		if account, err = s.Open(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		site := &crashSite{t: t, store: s}
		inbox = site.mailbox(account, store.Inbox)
		v, err := inbox.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]store.UID{}
		for i := range v.Len() {
			b, err := inbox.Open(t.Context(), v.UID(i))
			if err != nil {
				t.Fatal(err)
			}
			text := make([]byte, b.Size())
			if _, err := b.ReadAt(text, 0); err != nil {
				t.Fatal(err)
			}
			id := strings.TrimSuffix(strings.TrimPrefix(string(text), "Subject: "), "\r\n\r\n")
			if found[id] != 0 {
				t.Errorf("seed %d: %s is there twice", seed, id)
			}
			found[id] = v.UID(i)
			if flagged[v.UID(i)] && v.Entry(i).Flags&store.FlagFlagged == 0 {
				t.Errorf("seed %d: UID %d lost its flag", seed, v.UID(i))
			}
		}
		if len(acked) < 10 || len(acked) > 55 {
			t.Errorf("seed %d: %d of 60 were acknowledged", seed, len(acked))
		}
		for id, uid := range acked {
			if found[id] != uid {
				t.Errorf("seed %d: %s was acknowledged with UID %d and has %d", seed, id, uid, found[id])
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
