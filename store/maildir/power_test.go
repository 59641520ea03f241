package maildir

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"sync"
	"sync/atomic"
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
