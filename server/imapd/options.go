// Package imapd serves IMAP4rev1 and IMAP4rev2 over mailboxes of package store to users of package account. One goroutine serves one
// connection from the greeting to the end, also while it idles. The language is package proto/imap's; what a reply says, in which order and
// with which words, follows Dovecot 2.3, whose settings the fields of Options are named for.
//
// It is not a configuration reader, an authenticator or a store, and it knows no mailbox format.
//
// An extension is a file that returns a feature: its capabilities, commands, FETCH items, SEARCH keys and so on. The list of them stands in
// features.go.
package imapd

import (
	"context"
	"log/slog"
	"time"

	"postilion/account"
	"postilion/server/login"
	"postilion/store"
	"postilion/store/spool"
)

// Mail opens the mail of a user who logged in.
type Mail interface {
	// Open returns the user's namespaces. Exactly one of them has Inbox. Their accounts are closed when the session ends.
	Open(ctx context.Context, user *account.User) ([]Namespace, error)
}

// Options is everything a Server is told. Auth, Mail and Spool are required.
type Options struct {
	// Options are what it has in common with POP3; Service and Refusal need not be set.
	login.Options

	Auth  account.Authenticator
	Mail  Mail
	Spool *spool.Spool

	// Greeting is login_greeting; "" is "Dovecot ready.", which clients and monitors know.
	Greeting string
	// Capability is imap_capability: "" for what is implemented, "+A B" for that and more, else the whole text.
	Capability string
	// DisablePlaintextAuth announces LOGINDISABLED to clients that are not secured. It is Auth that refuses.
	DisablePlaintextAuth bool
	// IDSend is imap_id_send, names and values in turn; nil is a name alone, "*" as a value asks for the built-in one.
	IDSend []string
	// IDLog is imap_id_log: the names of the client's ID fields to log, "*" for all.
	IDLog []string

	// MaxLine is imap_max_line_length in octets, LiteralMinus is imap_literal_minus.
	MaxLine      int
	LiteralMinus bool
	// AppendLimit is the largest message APPEND takes; 0 is no limit. It is announced as APPENDLIMIT (RFC 7889).
	AppendLimit int64
	// QuotaRoot is the name of the quota root that imap_quota shows ("User quota"); "" turns QUOTA off. The limits are the store's.
	QuotaRoot string
	// MailboxID shows MAILBOXID and EMAILID (RFC 8474), which Dovecot 2.3 does not have.
	MailboxID bool
	// SpecialUse announces SPECIAL-USE (RFC 6154): some mailbox section has a special_use.
	SpecialUse bool
	// CreateSpecialUse keeps the use given with CREATE (RFC 6154), which Dovecot 2.3 accepts and forgets.
	CreateSpecialUse bool
	// IMAP4rev2 announces IMAP4rev2, which Dovecot 2.3 does not have. UTF8Accept announces UTF8=ACCEPT (RFC 6855).
	IMAP4rev2, UTF8Accept bool

	// IdleTimeout ends a session that says nothing; 0 is 30 minutes.
	IdleTimeout time.Duration
	// IdleNotify is imap_idle_notify_interval; 0 is 2 minutes.
	IdleNotify time.Duration

	// The imap_client_workarounds.
	DelayNewMail, TBExtraMailboxSep, TBLSubFlags bool
}

// NamespaceKind tells whose mail a namespace shows (RFC 2342).
type NamespaceKind uint8

// The kinds of namespaces.
const (
	Personal NamespaceKind = iota
	OtherUsers
	Shared
)

// ListMode is a namespace's list setting.
type ListMode uint8

// The list settings.
const (
	ListYes ListMode = iota
	ListNo
	// ListChildren lists the prefix only when there is something below it.
	ListChildren
)

// Namespace is one namespace of a user: a prefix under which the mailboxes of an account are shown.
type Namespace struct {
	// Prefix ends with Separator unless it is "".
	Prefix    string
	Separator byte
	Kind      NamespaceKind
	// Inbox is true for the namespace that holds INBOX.
	Inbox bool
	// Hidden keeps it out of NAMESPACE's answer, List rules LIST's.
	Hidden bool
	List   ListMode
	// Subscriptions is false for a namespace whose subscriptions are kept in the parent's.
	Subscriptions bool
	Account       store.Account
	// RenameInbox permits RENAME of INBOX, which Dovecot refuses over Maildir.
	RenameInbox bool
	// Mailboxes are the mailbox sections.
	Mailboxes []MailboxSetting
}

// AutoCreate is the auto setting of a mailbox section.
type AutoCreate uint8

// The auto settings.
const (
	AutoNo AutoCreate = iota
	AutoYes
	AutoSubscribe
)

// MailboxSetting is one mailbox section of a namespace.
type MailboxSetting struct {
	// Name is without the namespace's prefix, "/" between levels.
	Name string
	Auto AutoCreate
	// SpecialUse holds attributes such as `\Sent`, divided by spaces.
	SpecialUse string
}

const (
	defaultGreeting    = "Dovecot ready."
	defaultIdleTimeout = 30 * time.Minute
	defaultIdleNotify  = 2 * time.Minute
)

func (o *Options) setDefaults() {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&o.IdleTimeout, defaultIdleTimeout)
	set(&o.IdleNotify, defaultIdleNotify)
	if o.Greeting == "" {
		o.Greeting = defaultGreeting
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}
