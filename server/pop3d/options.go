// Package pop3d serves POP3 over the INBOX of a user of package account, kept by a store of package store. One goroutine serves one connection
// from the greeting to the end. The language is package proto/pop3's; what a reply says, and with which words, follows Dovecot 2.3, whose
// settings the fields of Options are named for. RFC 1939, 2449 (CAPA), 2595 (STLS), 5034 (AUTH), 3206 (AUTH-RESP-CODE), 6856 (UTF8).
//
// It is not a configuration reader, an authenticator or a store, and it knows no mailbox format.
//
// A session sees the mailbox as it was at login. Messages that others expunge meanwhile keep their numbers. Flags and deletions are written
// when the session ends, deletions after QUIT alone.
package pop3d

import (
	"context"
	"log/slog"
	"time"

	"postilion/account"
	"postilion/server/login"
	"postilion/store"
)

// Mail opens the mail of a user who logged in.
type Mail interface {
	// Open returns the account whose INBOX is served. It is closed when the session ends.
	Open(ctx context.Context, user *account.User) (store.Account, error)
}

// Options is everything a Server is told. Auth and Mail are required, Expand too unless UIDLFormat and LogoutFormat are the defaults.
type Options struct {
	// Options are what it has in common with IMAP; Service and Refusal need not be set.
	login.Options

	Auth account.Authenticator
	Mail Mail
	// Expand fills the variables of UIDLFormat and LogoutFormat.
	Expand account.Expander

	// Greeting is login_greeting; "" is "Dovecot ready.", which clients and monitors know.
	Greeting string
	// Hostname stands in the greeting's timestamp when APOP is served.
	Hostname string
	// APOP serves APOP, for which the server must know the passwords in clear.
	APOP bool
	// DisablePlaintextAuth refuses USER and PASS of clients that are not secured. It is Auth that refuses SASL mechanisms.
	DisablePlaintextAuth bool
	// SSLRequired is ssl = required: without encryption nobody can log in.
	SSLRequired bool
	// UTF8 announces and does UTF8 (RFC 6856), which Dovecot 2.3 does not have.
	UTF8 bool

	// NoFlagUpdates is pop3_no_flag_updates: RETR does not flag messages \Seen and nothing stops being \Recent.
	NoFlagUpdates bool
	// EnableLast is pop3_enable_last: LAST is served, and RSET takes \Seen from all messages.
	EnableLast bool
	// ReuseXUIDL is pop3_reuse_xuidl: a message's X-UIDL field is its unique identifier.
	ReuseXUIDL bool
	// LockSession is pop3_lock_session: a user has one session at a time.
	LockSession bool
	// UIDLFormat is pop3_uidl_format; "" is %08Xu%08Xv.
	UIDLFormat string
	// RenameDuplicates is pop3_uidl_duplicates = rename.
	RenameDuplicates bool
	// DeletedFlag is pop3_deleted_flag, a keyword; messages that have it are not shown. DeleteFlags sets it instead of expunging.
	DeletedFlag string
	DeleteFlags bool
	// The pop3_client_workarounds.
	OutlookNoNULs, OENSEndOfHeader bool
	// LogoutFormat is pop3_logout_format; "" is top=%t/%p, retr=%r/%b, del=%d/%m, size=%s.
	LogoutFormat string

	// IdleTimeout ends a session that says nothing; 0 is 10 minutes (RFC 1939 section 3).
	IdleTimeout time.Duration
	// LockTimeout is how long LockSession waits for another session to end; 0 is 10 seconds.
	LockTimeout time.Duration
}

const (
	defaultGreeting     = "Dovecot ready."
	defaultUIDLFormat   = "%08Xu%08Xv"
	defaultLogoutFormat = "top=%t/%p, retr=%r/%b, del=%d/%m, size=%s"
	defaultIdleTimeout  = 10 * time.Minute
	defaultLockTimeout  = 10 * time.Second
)

func (o *Options) setDefaults() {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&o.IdleTimeout, defaultIdleTimeout)
	set(&o.LockTimeout, defaultLockTimeout)
	text := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	text(&o.Greeting, defaultGreeting)
	text(&o.UIDLFormat, defaultUIDLFormat)
	text(&o.LogoutFormat, defaultLogoutFormat)
	text(&o.Hostname, "localhost")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}
