// Package vault is the embedded mail store: accounts, mailboxes and messages as rows of a kv.DB that one process owns. It keeps the
// contract of package store, with UIDs of RFC 9051, mod-sequences of RFC 7162 and object identifiers of RFC 8474.
//
// A change, a delivery to many mailboxes included, is one batch: the bytes, their parsed form, the entries, the counters and the quota
// become durable together or not at all. Batches of one account are started under the account's lock, in the order of their UIDs and
// mod-sequences; the wait for the disk comes after the lock, so that many deliveries share one flush even into one mailbox. What a batch
// changed is shown to readers when it is durable. Because the log keeps the order of batches, a later one that is durable
// vouches for the earlier ones, and readers never see a UID before a lower one that is still on its way.
//
// Entries are small rows of their own, so a mailbox of 100,000 messages is read in a fraction of a second; they stand in memory only
// while a session has the mailbox open, once for all sessions, in chunks that versions of the mailbox share. Delivery to a mailbox that nobody has open
// reads and writes the same few rows whatever the mailbox holds.
//
// A body is kept once for all mailboxes that have it, in rows of at most 256 KiB. Rows of large messages are written ahead
// in batches of their own, so a message of any size passes through in constant memory; a mark that goes with the first and that the last removes
// lets Open collect what a crash left. Bodies ride in the same log as everything else, since a second file to flush costs more than it saves,
// and come to rest in blob files (kv.Options.SeparateFrom). Measured with 150,000 messages of 4 KiB for 200 mailboxes from 50 goroutines: with the
// bodies in the tree compaction wrote 1.98 times their size and a delivery took 99 us of processor time, all included; beside it
// 0.09 times and 60 us, at more than twice the rate. They are not compressed beyond what Pebble does for blocks.
//
// It is not a server: it knows no names of protocols, and who may open an account is the caller's business.
package vault

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"postilion/kv"
	"postilion/store"
)

// Limits taken when Options leaves them zero.
const (
	DefaultRememberDeliveries = 6 * 24 * time.Hour
	DefaultMaxMailboxes       = 10000
	DefaultMaxKeywords        = 1000
	DefaultExpungesKept       = 512
	// idleAccounts is how many accounts that nobody uses are kept in memory, without their entries.
	idleAccounts = 16384
)

// Options tell how to open a store. The zero value is fit for use.
type Options struct {
	// RememberDeliveries is how long Delivery.ID is remembered at least: maximal_queue_lifetime and a day.
	RememberDeliveries time.Duration
	// MaxMailboxes bounds the mailboxes and the subscriptions of an account, MaxKeywords the different keywords of a mailbox.
	MaxMailboxes, MaxKeywords int
	// ExpungesKept is how many expunges a mailbox remembers at least; readers that ask further back are told all that is absent.
	ExpungesKept int
	// ReadOnly opens a store in a kv.DB that is read only. Nothing is made or changed: an account that is not there is store.ErrNotFound.
	ReadOnly bool
	// Logger gets what background work has to say; nil drops it.
	Logger *slog.Logger
	// Now is the clock, time.Now when nil.
	Now func() time.Time
}

// Store implements store.Store.
type Store struct {
	db      *kv.DB
	space   *kv.Space
	options Options
	log     *slog.Logger

	epoch   uint64
	counter atomic.Uint64
	// references are locks on rowReferences, by body; they are taken in rising order, after accounts.
	references [64]sync.Mutex
	delivered  delivered

	// gate is held for reading by every operation and for writing by Close.
	gate   sync.RWMutex
	closed bool

	// mu guards what follows. It is taken for moments only, never around the database.
	mu       sync.Mutex
	accounts map[string]*account
	// idle holds the accounts that nobody uses, the one unused for longest first.
	idle *list.List

	background sync.WaitGroup
	stop       context.CancelFunc
	wake       chan struct{}
}

var _ store.Store = (*Store)(nil)

// Open opens the store that lies in db and makes it when it is not there. The db must stay open until the store is closed. It answers kv.ErrFormat when
// a newer version wrote the store.
func Open(db *kv.DB, options Options) (*Store, error) {
	space, err := db.Space("vault")
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	s := &Store{db: db, space: space, options: options.withDefaults(), accounts: map[string]*account{}, idle: list.New(), wake: make(chan struct{}, 1)}
	s.log = s.options.Logger
	if err := s.begin(); err != nil {
		space.Release()
		return nil, fmt.Errorf("vault: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if !s.options.ReadOnly {
		s.background.Go(func() { s.collect(ctx) })
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.RememberDeliveries <= 0 {
		o.RememberDeliveries = DefaultRememberDeliveries
	}
	if o.MaxMailboxes <= 0 {
		o.MaxMailboxes = DefaultMaxMailboxes
	}
	if o.MaxKeywords <= 0 {
		o.MaxKeywords = DefaultMaxKeywords
	}
	o.MaxKeywords = min(o.MaxKeywords, 1<<16)
	if o.ExpungesKept <= 0 {
		o.ExpungesKept = DefaultExpungesKept
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// begin brings the rows to the present format, takes a new epoch and removes what a crash left of large bodies.
func (s *Store) begin() error {
	if s.options.ReadOnly {
		return s.beginReading()
	}
	if err := s.space.Migrate(context.Background(), s.format()); err != nil {
		return err
	}
	batch := s.db.Batch(256)
	defer batch.Close()
	row, err := s.db.Get(s.space, nil, []byte{rowEpoch})
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	epoch, _ := binary.Uvarint(row)
	s.epoch = epoch + 1
	batch.Set(s.space, []byte{rowEpoch}, binary.AppendUvarint(nil, s.epoch))
	if err := s.dropUnfinished(batch); err != nil {
		return err
	}
	if err := batch.Commit(); err != nil {
		return err
	}
	return s.delivered.load(s)
}

// beginReading takes a store as it is.
func (s *Store) beginReading() error {
	row, err := s.db.Get(s.space, nil, []byte{rowFormat})
	if err != nil {
		return err
	}
	if version, size := binary.Uvarint(row); size <= 0 || version != formatVersion {
		return fmt.Errorf("%w: the mail store has version %d, only %d can be read without changing it: restore it as a whole", kv.ErrFormat, version, formatVersion)
	}
	return s.delivered.load(s)
}

// newID returns a number that nothing in the store ever had: no row needs to be written for it. They rise with time, so rows of new messages
// lie behind all others and compaction moves their tables as they are.
func (s *Store) newID() uint64 { return s.epoch<<40 | s.counter.Add(1) }

// enter begins an operation, leave ends it.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return store.ErrClosed
	}
	return nil
}

func (s *Store) leave() { s.gate.RUnlock() }

// Close waits for operations and background work. The kv.DB stays open. Closing twice is no error.
func (s *Store) Close() error {
	s.gate.Lock()
	closed := s.closed
	s.closed = true
	s.gate.Unlock()
	if closed {
		return nil
	}
	s.stop()
	s.background.Wait()
	s.space.Release()
	return nil
}

// Accounts implements store.Store.
func (s *Store) Accounts(ctx context.Context, fn func(user string) bool) error {
	if err := s.enter(ctx); err != nil {
		return wrap("list accounts", "", "", err)
	}
	defer s.leave()
	it, err := s.db.Iterate(s.space, []byte{rowAccount}, []byte{rowAccount + 1})
	if err != nil {
		return wrap("list accounts", "", "", err)
	}
	for it.First(); it.Valid() && ctx.Err() == nil; it.Next() {
		if !fn(string(it.Key()[1:])) {
			break
		}
	}
	return wrap("list accounts", "", "", errors.Join(it.Close(), ctx.Err()))
}

// checkSpace is asked before anything is stored.
func (s *Store) checkSpace() error { return s.db.CheckSpace() }

// wrap gives an error its place and its kind; nil stays nil.
func wrap(operation, user, mailbox string, err error) error {
	if err == nil {
		return nil
	}
	if (errors.Is(err, kv.ErrNoSpace) || errors.Is(err, syscall.ENOSPC)) && !errors.Is(err, store.ErrNoSpace) {
		err = fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	}
	var already *store.Error
	if errors.As(err, &already) {
		return err
	}
	return &store.Error{Operation: operation, User: user, Mailbox: mailbox, Err: err}
}

// wakeCollector has background work look for something to do.
func (s *Store) wakeCollector() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
