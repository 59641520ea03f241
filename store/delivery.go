package store

import (
	"time"

	"postilion/mail/message"
)

// Delivery is one message for one or several mailboxes.
type Delivery struct {
	// ID names this delivery for ever: a target that already received the same ID is told as a duplicate and gets nothing. Stores remember IDs
	// for the time they were opened with (maximal_queue_lifetime and a day). "" asks for no such check.
	ID      string
	Content Content
	// Structure is the parsed form of Content; nil has the store parse it.
	Structure    *message.Message
	InternalDate time.Time
	Targets      []Target
	// AllOrNothing has the store deliver to no target when one of them fails for a reason of its own (quota, no such mailbox). The
	// outcomes then hold that target's error, and ErrNotDelivered for the others, but for targets that had the delivery before: they stay
	// duplicates.
	AllOrNothing bool
}

// Target is one mailbox that a Delivery goes to.
type Target struct {
	Owner   Owner
	Mailbox string
	// Create makes the mailbox when it is missing (lda_mailbox_autocreate); SubscribeCreated subscribes it then.
	Create, SubscribeCreated bool
	// Prefix is put before the content for this target: complete trace header lines (Return-Path, Delivered-To, Received) in network form,
	// or nothing.
	Prefix   []byte
	Flags    Flags
	Keywords []string
}

// Outcome is what became of one target.
type Outcome struct {
	// UID is the message's, 0 when Err is set or the store no longer knows it of a duplicate.
	UID UID
	// Duplicate is true when the target had this delivery already; that is success.
	Duplicate bool
	Err       error
}
