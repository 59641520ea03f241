package store

import (
	"errors"
	"fmt"
)

// The kinds of failure that callers tell apart with errors.Is.
var (
	// ErrNotFound: there is no such mailbox.
	ErrNotFound = errors.New("no such mailbox")
	// ErrExists: a mailbox has that name already.
	ErrExists = errors.New("mailbox already exists")
	// ErrName: the store cannot keep a mailbox of that name, or may not do that to it.
	ErrName = errors.New("mailbox name not allowed")
	// ErrOverQuota: the account would hold more than it may.
	ErrOverQuota = errors.New("quota exceeded")
	// ErrExpunged: the message is no longer there.
	ErrExpunged = errors.New("message is expunged")
	// ErrOtherAccount: the two mailboxes belong to different accounts.
	ErrOtherAccount = errors.New("mailbox of another account")
	// ErrNotDelivered: another target of the same delivery failed.
	ErrNotDelivered = errors.New("not delivered because another recipient failed")
	// ErrTooMany: a limit of the store was reached (mailboxes, keywords, UIDs).
	ErrTooMany = errors.New("limit of the store reached")
	// ErrNoSpace: the disk is full; nothing was stored.
	ErrNoSpace = errors.New("no space left")
	// ErrDamaged: what was kept cannot be read.
	ErrDamaged = errors.New("stored data is damaged")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Error says which operation on what failed and why. Err is one of the kinds above or wraps one, or is the operating system's.
type Error struct {
	// Operation is a verb: "append", "create".
	Operation string
	User      string
	// Mailbox is "" when no single mailbox is meant.
	Mailbox string
	Err     error
}

func (e *Error) Error() string {
	if e.Mailbox == "" {
		return fmt.Sprintf("%s for user %s: %v", e.Operation, e.User, e.Err)
	}
	return fmt.Sprintf("%s in mailbox %q of user %s: %v", e.Operation, e.Mailbox, e.User, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
