// Package store is the contract for mailboxes: what a server may ask of a mail store and what every store promises. The stores are packages below
// it: store/vault (embedded, the default) and store/maildir; store/storetest holds each of them to what is written here.
//
// A store keeps accounts, an account keeps mailboxes, a mailbox keeps messages under UIDs that only rise. Everything that an operation changed is
// durable when the operation returns without error, and either all of it happened or none. Readers look at a View, which never changes under them.
//
// It is not a protocol: names are UTF-8 with "/" between levels whatever separator a namespace shows, messages are the bytes that IMAP
// shows, and numbers by position, namespaces, ACLs and response texts are the servers' business. The terms are those of RFC 9051, RFC 7162
// (mod-sequences) and RFC 8474 (object identifiers).
package store

import (
	"context"
	"io"
	"time"

	"postilion/mail/message"
)

// Inbox is the name of the mailbox that every account has and that cannot be deleted. It is spelt in capitals.
const Inbox = "INBOX"

// Store keeps the mail of many accounts. All methods may be called at the same time from many goroutines.
type Store interface {
	// Open returns the account of owner and makes it when it is not there yet (an INBOX, nothing else). The handle is cheap;
	// opening an account twice gives two handles on the same state.
	Open(ctx context.Context, owner Owner) (Account, error)

	// Deliver puts one message into the mailboxes of the targets in one durable step, see Delivery. The outcomes are in the order of
	// the targets. An error means that nothing was delivered to anybody and that the same Delivery may be offered again.
	Deliver(ctx context.Context, delivery *Delivery) ([]Outcome, error)

	// Accounts calls fn with the name of each account that the store knows until fn returns false.
	Accounts(ctx context.Context, fn func(user string) bool) error

	// Close waits for what is under way and gives the files back.
	Close() error
}

// Owner says whose account is meant and where it lies.
type Owner struct {
	// User names the account. Stores that hold all accounts in one place know them by this name alone.
	User string
	// Home is the home directory, for locations that begin with ~.
	Home string
	// Location is mail_location without the driver's name, variables expanded: path and options as Dovecot writes them
	// ("~/Maildir:LAYOUT=fs"). Stores that hold all accounts in one place ignore it.
	Location string
	// UID and GID own the files; -1 leaves them to the process.
	UID, GID int
	Quota    Quota
}

// Account holds the mailboxes of one owner. Methods may be called at the same time.
type Account interface {
	// User is the owner's name.
	User() string

	// List returns every mailbox and every name that exists only because a mailbox lies below it, in no particular order.
	List(ctx context.Context) ([]Listed, error)

	// Subscriptions returns the subscribed names, whether or not a mailbox has that name.
	Subscriptions(ctx context.Context) ([]string, error)
	// Subscribe adds name to the subscriptions or takes it away. Doing it twice is no error.
	Subscribe(ctx context.Context, name string, subscribed bool) error

	// Create makes a mailbox and, as names, the levels above it. use is a special-use attribute such as `\Sent`, or "".
	// Errors: ErrExists, ErrName, ErrOverQuota.
	Create(ctx context.Context, name, use string) error
	// Delete removes the mailbox and its messages; mailboxes below it stay. The INBOX cannot be deleted (ErrName).
	// Handles on a deleted mailbox answer ErrNotFound.
	Delete(ctx context.Context, name string) error
	// Rename gives the mailbox and all below it a new name; UIDs, UIDVALIDITY and object identifiers stay. Renaming INBOX moves its
	// messages to a new mailbox and leaves an empty INBOX (RFC 9051 section 6.3.6); mailboxes below INBOX stay.
	Rename(ctx context.Context, from, to string) error

	// Status counts without opening.
	Status(ctx context.Context, name string) (Status, error)
	// Mailbox returns a handle on the mailbox.
	Mailbox(ctx context.Context, name string) (Mailbox, error)

	// QuotaUsage tells what the account holds and may hold.
	QuotaUsage(ctx context.Context) (QuotaUsage, error)

	// Close releases the handle and those of its mailboxes.
	Close() error
}

// Listed is one name of an account.
type Listed struct {
	Name string
	// Selectable is false for a name that exists only as a level above others.
	Selectable bool
	// Use is the special-use attribute given at Create, or "".
	Use string
	// ID is the object identifier of RFC 8474, "" for a name that is not selectable.
	ID string
}

// Status counts a mailbox.
type Status struct {
	Messages, Recent, Unseen, Deleted uint32
	UIDNext                           UID
	UIDValidity                       uint32
	HighestModSeq                     ModSeq
	// Size is the sum of all message sizes in octets.
	Size int64
	ID   string
}

// UID is a unique identifier of RFC 9051 section 2.3.1.1; 0 is none.
type UID uint32

// ModSeq is a mod-sequence of RFC 7162; it fits 63 bits and 0 is none.
type ModSeq uint64

// Mailbox is a handle on one mailbox. Methods may be called at the same time.
type Mailbox interface {
	// Name is the name under which it was opened.
	Name() string

	// View returns what the mailbox holds now. A View stays as it is; a later one is asked for to see changes, which costs
	// nothing when there are none (the same View is returned).
	View(ctx context.Context) (View, error)

	// Open gives the bytes of a message. ErrExpunged when it is gone. A message that was opened stays readable until it is closed,
	// even if it is expunged meanwhile.
	Open(ctx context.Context, uid UID) (Body, error)
	// Structure returns the parsed form that was kept at delivery. ErrExpunged when the message is gone.
	Structure(ctx context.Context, uid UID) (*message.Message, error)

	// Append adds the drafts in one durable step and returns their UIDs in order.
	Append(ctx context.Context, drafts []Draft) ([]UID, error)
	// Copy copies the messages to another mailbox of the same account in one durable step, flags, keywords and internal date included.
	// Messages that are gone are left out. ErrOtherAccount when the target belongs to another account.
	Copy(ctx context.Context, uids UIDSet, target Mailbox) (Copied, error)
	// Move is Copy and Expunge in one durable step.
	Move(ctx context.Context, uids UIDSet, target Mailbox) (Copied, error)
	// SetFlags changes flags and keywords. UIDs that are gone are left out.
	SetFlags(ctx context.Context, uids UIDSet, change FlagChange) (FlagsChanged, error)
	// Expunge removes the messages, with onlyDeleted those among them that have \Deleted, and returns which were removed.
	Expunge(ctx context.Context, uids UIDSet, onlyDeleted bool) (UIDSet, error)

	// TakeRecent makes the caller the one session that sees the newest messages as recent: it returns the first UID that nobody took
	// before, and a later call returns one past the mailbox's present end.
	TakeRecent(ctx context.Context) (UID, error)

	// Subscribe has fn called after each change of the mailbox, whoever made it, until cancel is called. Calls may be merged. fn must
	// return at once and must not call the store.
	Subscribe(fn func()) (cancel func())

	// Close releases the handle.
	Close() error
}

// View is a mailbox at one moment. It is immutable and may be shared between goroutines. Messages are ordered by UID; an index counts
// from 0.
type View interface {
	UIDValidity() uint32
	UIDNext() UID
	HighestModSeq() ModSeq
	// ID is the mailbox's object identifier (RFC 8474).
	ID() string
	// FirstRecent is the first UID that no session took as recent.
	FirstRecent() UID

	Len() int
	UID(index int) UID
	// Index returns where uid is, or where it would be and false.
	Index(uid UID) (int, bool)
	Entry(index int) Entry

	// Keywords names the keywords that entries of this view refer to by number. The slice must not be changed.
	Keywords() []string

	// ChangedSince returns the UIDs of present messages whose mod-sequence is above since.
	ChangedSince(since ModSeq) UIDSet
	// ExpungedSince returns UIDs that were expunged after since. When the store no longer knows that far back it may answer with more: every
	// UID below UIDNext that is not there.
	ExpungedSince(since ModSeq) UIDSet
}

// Origins is what a View may have beside its contract: the names that messages have outside of the store (%f and %g of Dovecot's pop3_uidl_format).
type Origins interface {
	// LoadOrigins must have returned nil before the names are asked for.
	LoadOrigins(ctx context.Context) error
	// Filename is the base name of the message's file, "" for none.
	Filename(index int) string
	// GUID is the message's global identifier as Dovecot knows it, "" for none.
	GUID(index int) string
}

// Entry is what a mailbox keeps about a message beside its bytes.
type Entry struct {
	UID    UID
	ModSeq ModSeq
	Flags  Flags
	// Keywords are numbers into View.Keywords, rising. The slice must not be changed.
	Keywords     []uint16
	InternalDate time.Time
	SaveDate     time.Time
	// Size is the octets of the message as IMAP shows it.
	Size int64
	// EmailID is the object identifier of RFC 8474: the same for copies of a message.
	EmailID string
}

// Flags are the system flags of RFC 9051 section 2.3.2 that a store keeps.
type Flags uint8

// The system flags.
const (
	FlagSeen Flags = 1 << iota
	FlagAnswered
	FlagFlagged
	FlagDeleted
	FlagDraft
)

// Body reads the bytes of one message.
type Body interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Content is a message on its way into a store.
type Content interface {
	io.ReaderAt
	Size() int64
}

// Draft is a message that is not yet in a mailbox.
type Draft struct {
	Content Content
	// Structure is the parsed form of Content; nil has the store parse it.
	Structure    *message.Message
	Flags        Flags
	Keywords     []string
	InternalDate time.Time
}

// Copied tells what Copy and Move did: Source and Target are of the same length and correspond in order.
type Copied struct {
	UIDValidity    uint32
	Source, Target []UID
}

// FlagOperation says how a FlagChange is meant.
type FlagOperation uint8

// The three operations of IMAP STORE.
const (
	ReplaceFlags FlagOperation = iota
	AddFlags
	RemoveFlags
)

// FlagChange changes the flags of messages.
type FlagChange struct {
	Operation FlagOperation
	Flags     Flags
	Keywords  []string
	// UnchangedSince, when not nil, leaves alone every message whose mod-sequence is above it (RFC 7162 section 3.1.3).
	UnchangedSince *ModSeq
}

// FlagsChanged is the result of SetFlags.
type FlagsChanged struct {
	// Changed holds the messages that the operation applied to, also those that had these flags already.
	Changed UIDSet
	// Modified holds the messages that UnchangedSince kept from being changed.
	Modified UIDSet
	// ModSeq is the mod-sequence that the changed messages have now; 0 when nothing changed.
	ModSeq ModSeq
}

// Quota limits an account; the zero value limits nothing.
type Quota struct {
	// Rules are applied as Dovecot's quota_rule: the rule of "*" gives the account's limits, others add for one mailbox or leave it out.
	Rules []QuotaRule
}

// QuotaRule is one quota_rule. Zero limits mean none.
type QuotaRule struct {
	// Mailbox is "*", a name, or a name ending in "/*".
	Mailbox         string
	Bytes, Messages int64
	// Relative limits are added to those of "*".
	Relative bool
	// Ignore leaves the mailbox out of the count.
	Ignore bool
}

// QuotaUsage is what an account holds and may hold; a limit of 0 is none.
type QuotaUsage struct {
	Bytes, Messages           int64
	LimitBytes, LimitMessages int64
}
