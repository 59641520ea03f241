// Package maildir is the store for mail that lies in Maildir folders, kept as Dovecot 2.3 keeps them, so that both may serve the same folders: UIDs in
// dovecot-uidlist, keyword letters in dovecot-keywords, subscriptions, dovecot-uidvalidity, sizes in file names, layouts Maildir++ and fs.
// It follows the maildir(5) conventions of qmail and Courier and the files that Dovecot writes; names are modified UTF-7 (RFC 3501 section 5.1.3).
//
// What those files have no place for lies beside them in a journal, postilion.index: mod-sequences, expunged UIDs, save dates, the first
// recent UID, keywords past the 26th. It may be lost: mod-sequences are never below the clock in microseconds, so they rise all the same.
//
// Every change is made under dovecot-uidlist.lock and is on disk when it is acknowledged: the message (written in tmp/, flushed, then linked), its
// directory, and the UID list: three flushes, as many as Dovecot's. A delivery reads no directories; deliveries that wait for one folder share
// its flushes. A delivery's id is part of the file's name, see delivery names in names.go. Several targets of one delivery are
// one file under several names where that is possible; they become durable side by side, and AllOrNothing takes back what was done when another
// target fails, so another program may see such a message for a moment. The same holds for the two steps of a Move.
//
// Messages are kept with LF line ends and shown with CRLF. It is no cache of parsed messages (a few are kept in memory) and does no indexing for search.
package maildir

import (
	"container/list"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"postilion/store"
)

// Options of a Store; the zero value is usable.
type Options struct {
	// DeliveryMemory is how long the id of a delivery is known after its message was expunged; 0 means six days. While the message is
	// there its id is always known.
	DeliveryMemory time.Duration
	// LockTimeout is how long a lock of another program is waited for; 0 means two minutes.
	LockTimeout time.Duration
	// PollInterval is how often subscribed mailboxes are looked at for changes of other programs; 0 means one second.
	PollInterval time.Duration
	// NoHardLinks writes a file for each copy (maildir_copy_with_hardlinks=no).
	NoHardLinks bool
	// Hostname is the last part of file names; "" means the system's.
	Hostname string
}

// Store keeps mail in Maildir folders. Make it with Open.
type Store struct {
	options Options
	disk    disk
	names   *nameSource

	// open is held for reading by every operation; Close takes it for writing.
	open   sync.RWMutex
	closed bool

	mu      sync.Mutex
	roots   map[string]*root
	folders map[string]*folder
	// idle lists folders without a handle, the longest unused first, and idleMessages counts what they hold.
	idle         *list.List
	idleMessages int
	users        map[string]bool

	poll poller
}

// maxIdleFolders and maxIdleMessages bound how many folders without a handle keep their state in memory. To read a folder again costs a delivery more
// than all else but the flushes.
const (
	maxIdleFolders  = 5000
	maxIdleMessages = 200_000
)

// Open returns a store. Nothing is read or made before an account is opened.
func Open(options Options) (*Store, error) {
	if options.DeliveryMemory == 0 {
		options.DeliveryMemory = 6 * 24 * time.Hour
	}
	if options.LockTimeout == 0 {
		options.LockTimeout = 2 * time.Minute
	}
	if options.PollInterval == 0 {
		options.PollInterval = time.Second
	}
	if options.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("maildir: name of this host: %w", err)
		}
		options.Hostname = name
	}
	return &Store{
		options: options, disk: disk{files: hostFiles{}, holder: newHolder(), staleEmpty: staleEmptyLock}, names: newNameSource(options.Hostname),
		roots: map[string]*root{}, folders: map[string]*folder{}, users: map[string]bool{}, idle: list.New(),
	}, nil
}

// begin admits an operation; end must be called after it.
func (s *Store) begin(ctx context.Context) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.open.RLock()
	if s.closed {
		s.open.RUnlock()
		return nil, store.ErrClosed
	}
	return s.open.RUnlock, nil
}

// Open implements store.Store.
func (s *Store) Open(ctx context.Context, owner store.Owner) (store.Account, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	a, err := s.account(ctx, owner)
	if err != nil {
		return nil, &store.Error{Operation: "open", User: owner.User, Err: err}
	}
	return a, nil
}

// account finds or makes the directories of owner.
func (s *Store) account(ctx context.Context, owner store.Owner) (*account, error) {
	place, err := parseLocation(owner.Location, owner.Home)
	if err != nil {
		return nil, err
	}
	r := s.rootAt(place, owner)
	a := &account{store: s, root: r, owner: owner}
	if err := r.ensureInbox(ctx, a); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.users[owner.User] = true
	s.mu.Unlock()
	return a, nil
}

// rootAt returns the shared state of all accounts that lie at the same place.
func (s *Store) rootAt(place location, owner store.Owner) *root {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.roots[place.key()]
	if r == nil {
		r = &root{store: s, location: place, uid: owner.UID, gid: owner.GID}
		s.roots[place.key()] = r
	}
	return r
}

// Accounts implements store.Store. A Maildir does not tell whose it is: only accounts that were opened since the store was are known.
func (s *Store) Accounts(ctx context.Context, fn func(user string) bool) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	users := make([]string, 0, len(s.users))
	for user := range s.users {
		users = append(users, user)
	}
	s.mu.Unlock()
	end()
	slices.Sort(users)
	for _, user := range users {
		if !fn(user) {
			break
		}
	}
	return nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.open.Lock()
	s.closed = true
	s.open.Unlock()
	s.poll.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.folders, s.idle, s.idleMessages = map[string]*folder{}, list.New(), 0
	return nil
}

// acquire returns the shared state of the folder at paths with one more user; release gives it back.
func (s *Store) acquire(r *root, paths folderPaths) *folder {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.folders[paths.mail]
	if f == nil {
		f = newFolder(s, r, paths)
		s.folders[paths.mail] = f
	} else if f.users == 0 {
		s.unidle(f)
	}
	f.users++
	return f
}

func (s *Store) release(f *folder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
	if f.users > 0 || s.folders[f.paths.mail] != f {
		return
	}
	f.idle, f.idleMessages = s.idle.PushBack(f), int(f.count.Load())
	s.idleMessages += f.idleMessages
	for s.idle.Len() > maxIdleFolders || (s.idleMessages > maxIdleMessages && s.idle.Len() > 1) {
		oldest, _ := s.idle.Front().Value.(*folder)
		s.unidle(oldest)
		delete(s.folders, oldest.paths.mail)
	}
}

// unidle takes a folder from the list of those without a handle.
func (s *Store) unidle(f *folder) {
	if f.idle != nil {
		s.idle.Remove(f.idle)
		s.idleMessages -= f.idleMessages
		f.idle = nil
	}
}

// retire parts the state of folders that were deleted or renamed from their place: handles on them answer ErrNotFound from now on. The folders
// are locked.
func (s *Store) retire(folders ...*folder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range folders {
		f.gone = true
		f.notify()
		if s.folders[f.paths.mail] == f {
			s.unidle(f)
			delete(s.folders, f.paths.mail)
		}
	}
}
