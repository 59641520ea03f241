package vault

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"postilion/kv"
	"postilion/store"
)

// account is the state of one account that all its handles share. It is in memory while somebody uses it and for a while after.
type account struct {
	store *Store
	user  string
	// uses and idle are guarded by Store.mu.
	uses int
	idle *list.Element

	// mu is held while a change is made, up to and including the start of its batch; not while it waits for the disk. Accounts are locked
	// in the order of their users' names.
	mu     sync.Mutex
	loaded bool
	// stale is set when the rows were repaired: handles on this account are of no use any more.
	stale atomic.Bool
	// fresh is true until the row of a new account is known to be durable.
	fresh atomic.Bool
	row   accountRow
	usage usage
	// boxes are the mailboxes that were looked at, by name.
	boxes map[string]*mailbox
}

// acquire returns the account of user and makes it when it is missing. release must follow.
func (s *Store) acquire(user string) (*account, error) {
	if user == "" || len(user) > maxNameLen {
		return nil, fmt.Errorf("%w: account name of %d octets", store.ErrName, len(user))
	}
	s.mu.Lock()
	a := s.accounts[user]
	if a == nil {
		a = &account{store: s, user: user, boxes: map[string]*mailbox{}}
		s.accounts[user] = a
	}
	a.uses++
	if a.idle != nil {
		s.idle.Remove(a.idle)
		a.idle = nil
	}
	s.mu.Unlock()
	if err := a.load(); err != nil {
		s.release(a)
		return nil, err
	}
	return a, nil
}

// hold keeps the account of a handle in memory for one more use, unless the handle was closed.
func (s *Store) hold(a *account, closed *atomic.Bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if closed.Load() {
		return fmt.Errorf("%w: the handle", store.ErrClosed)
	}
	if a.stale.Load() {
		return fmt.Errorf("%w: the store was repaired meanwhile", store.ErrClosed)
	}
	a.uses++
	return nil
}

// drop ends the use of a handle, once.
func (s *Store) drop(a *account, closed *atomic.Bool) {
	s.mu.Lock()
	first := closed.CompareAndSwap(false, true)
	s.mu.Unlock()
	if first {
		s.release(a)
	}
}

// enterWith begins an operation of a handle, leaveWith ends it.
func (s *Store) enterWith(ctx context.Context, a *account, closed *atomic.Bool) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if err := s.hold(a, closed); err != nil {
		s.leave()
		return err
	}
	return nil
}

func (s *Store) leaveWith(a *account) {
	s.release(a)
	s.leave()
}

func (s *Store) release(a *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.uses--
	if a.uses > 0 || a.stale.Load() {
		return
	}
	a.idle = s.idle.PushBack(a)
	if s.idle.Len() > idleAccounts {
		oldest := s.idle.Remove(s.idle.Front()).(*account)
		delete(s.accounts, oldest.user)
	}
}

func (a *account) load() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.loaded {
		return nil
	}
	s := a.store
	row, err := s.db.Get(s.space, nil, append([]byte{rowAccount}, a.user...))
	if errors.Is(err, kv.ErrNotFound) {
		if s.options.ReadOnly {
			return fmt.Errorf("%w: there is no account %q", store.ErrNotFound, a.user)
		}
		return a.make()
	}
	if err != nil {
		return err
	}
	if a.row, err = decodeAccount(row); err != nil {
		return err
	}
	row, err = s.db.Get(s.space, row[:0], key1(rowUsage, a.row.id))
	if err == nil {
		a.usage, err = decodeUsage(row)
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	a.loaded = true
	return nil
}

// make writes a new account with its INBOX. It need not be durable at once: whatever is done with the account comes later in the log.
func (a *account) make() error {
	a.row = accountRow{id: a.store.newID()}
	c := a.store.change()
	defer c.batch.Close()
	ac := &accountChange{account: a, row: a.row, rowChanged: true}
	c.create(ac, store.Inbox, "")
	c.write(ac)
	if err := c.batch.CommitUnsynced(); err != nil {
		return err
	}
	for _, bc := range ac.apply() {
		bc.box.publish(bc.box.working)
	}
	a.fresh.Store(true)
	a.loaded = true
	return nil
}

// settle makes sure that the account's own row is durable.
func (a *account) settle() error {
	if !a.fresh.Load() {
		return nil
	}
	if err := a.store.db.Sync(); err != nil {
		return err
	}
	a.fresh.Store(false)
	return nil
}

// find returns the mailbox of that name. a.mu is held.
func (a *account) find(name string) (*mailbox, error) {
	if box := a.boxes[name]; box != nil {
		return box, nil
	}
	if err := checkName(name); err != nil {
		return nil, store.ErrNotFound
	}
	s := a.store
	row, err := s.db.Get(s.space, nil, keyName(rowName, a.row.id, name))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	named, err := decodeName(row)
	if err != nil {
		return nil, err
	}
	counters, err := s.readState(named.id)
	if err != nil {
		return nil, err
	}
	box := newMailbox(a, name, named, counters)
	box.published.Store(box.working)
	a.boxes[name] = box
	return box, nil
}

func (s *Store) readState(id uint64) (state, error) {
	row, err := s.db.Get(s.space, nil, key1(rowState, id))
	if errors.Is(err, kv.ErrNotFound) {
		return state{}, fmt.Errorf("%w: mailbox %s has no counters", store.ErrDamaged, mailboxID(id))
	}
	if err != nil {
		return state{}, err
	}
	return decodeState(row)
}

// peek returns the counters of a mailbox without keeping it in memory. a.mu is held.
func (a *account) peek(name string) (nameRow, state, error) {
	if box := a.boxes[name]; box != nil {
		return box.row, box.shown().state, nil
	}
	if checkName(name) != nil {
		return nameRow{}, state{}, store.ErrNotFound
	}
	s := a.store
	row, err := s.db.Get(s.space, nil, keyName(rowName, a.row.id, name))
	if errors.Is(err, kv.ErrNotFound) {
		return nameRow{}, state{}, store.ErrNotFound
	}
	if err != nil {
		return nameRow{}, state{}, err
	}
	named, err := decodeName(row)
	if err != nil {
		return nameRow{}, state{}, err
	}
	counters, err := s.readState(named.id)
	return named, counters, err
}

// mailbox is the state of one mailbox that all its handles share.
type mailbox struct {
	account *account
	row     nameRow

	// What follows to published is guarded by account.mu.
	name string
	// working is the mailbox after all changes that were started, published after those that are durable.
	working *view
	// setNumbers finds the number of a keyword set of the loaded view.
	setNumbers map[string]uint32
	// keywords of a mailbox that is not loaded, when they were needed; known tells.
	keywords []string
	known    bool

	// gone is set when the mailbox was deleted.
	gone      atomic.Bool
	published atomic.Pointer[view]
	// pending counts changes that were started and are not yet published. It rises under account.mu only.
	pending atomic.Int32
	// handles counts open handles; it rises under account.mu only.
	handles atomic.Int32

	subscribersMu sync.Mutex
	subscribers   map[*func()]struct{}
}

func newMailbox(a *account, name string, row nameRow, counters state) *mailbox {
	return &mailbox{account: a, name: name, row: row, working: &view{uidValidity: row.uidValidity, id: row.id, state: counters}}
}

// shown is what readers may see.
func (m *mailbox) shown() *view {
	if v := m.published.Load(); v != nil {
		return v
	}
	return m.working
}

// publish shows v, which is durable, unless a later one is shown already.
func (m *mailbox) publish(v *view) {
	for {
		shown := m.published.Load()
		if shown != nil && shown.order >= v.order {
			break
		}
		if m.published.CompareAndSwap(shown, v) {
			break
		}
	}
	m.pending.Add(-1)
}

func (m *mailbox) notify() {
	m.subscribersMu.Lock()
	defer m.subscribersMu.Unlock()
	for fn := range m.subscribers {
		(*fn)()
	}
}

// load reads the entries when they are not in memory. account.mu is held.
func (m *mailbox) load() error {
	if m.gone.Load() {
		return store.ErrNotFound
	}
	if m.working.loaded {
		return nil
	}
	if m.pending.Load() > 0 {
		if err := m.account.store.db.Sync(); err != nil {
			return err
		}
	}
	v, sets, err := m.account.store.readView(m.working)
	if err != nil {
		return err
	}
	m.working, m.setNumbers, m.keywords, m.known = v, sets, nil, false
	m.published.Store(v)
	return nil
}

// unload forgets the entries. account.mu is held.
func (m *mailbox) unload() {
	if m.handles.Load() > 0 || !m.working.loaded || m.pending.Load() > 0 {
		return
	}
	v := *m.working
	v.loaded, v.index, v.keywords, v.sets, v.expunged = false, index{}, nil, nil, nil
	m.working, m.setNumbers = &v, nil
	m.published.Store(&v)
}

// readView reads what the view of a mailbox holds beside its counters.
func (s *Store) readView(from *view) (*view, map[string]uint32, error) {
	v := *from
	v.loaded, v.sets = true, [][]uint16{nil}
	sets := map[string]uint32{"": 0}
	var err error
	if v.keywords, err = s.readKeywords(v.id); err != nil {
		return nil, nil, err
	}
	err = s.scan(key1(rowEntry, v.id), key1(rowEntry, v.id+1), func(key, value []byte) error {
		if len(key) != 13 {
			return fmt.Errorf("%w: key of an entry", store.ErrDamaged)
		}
		var numbers [32]uint16
		e, set, err := decodeEntry(uidOf(key), value, numbers[:0])
		if err != nil {
			return err
		}
		e.set = internSet(&v.sets, sets, set)
		v.index = v.index.add(e)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if v.index.len() != int(v.state.messages) {
		return nil, nil, fmt.Errorf("%w: mailbox %s has %d entries and counts %d", store.ErrDamaged, mailboxID(v.id), v.index.len(), v.state.messages)
	}
	err = s.scan(keyModSeq(v.id, v.state.expungedFloor+1), key1(rowExpunged, v.id+1), func(key, value []byte) error {
		uids, err := decodeUIDs(value)
		v.expunged = append(v.expunged, expunge{modSeqOf(key), uids})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return &v, sets, nil
}

func (s *Store) readKeywords(id uint64) ([]string, error) {
	row, err := s.db.Get(s.space, nil, key1(rowKeywords, id))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeTexts(row)
}

// scan calls fn for the rows from lower to below upper until it fails.
func (s *Store) scan(lower, upper []byte, fn func(key, value []byte) error) error {
	it, err := s.db.Iterate(s.space, lower, upper)
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		var value []byte
		if value, err = it.Value(); err == nil {
			err = fn(it.Key(), value)
		}
	}
	return errors.Join(err, it.Close())
}

// internSet returns the number of a combination of keywords and gives it one when it is new.
func internSet(sets *[][]uint16, numbers map[string]uint32, set []uint16) uint32 {
	var buffer [64]byte
	name := buffer[:0]
	for _, number := range set {
		name = append(name, byte(number>>8), byte(number))
	}
	if number, ok := numbers[string(name)]; ok {
		return number
	}
	number := uint32(len(*sets))
	*sets = append(*sets, slices.Clone(set))
	numbers[string(name)] = number
	return number
}
