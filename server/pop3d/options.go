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
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"postilion/account"
	"postilion/store"
)

// Mail opens the mail of a user who logged in.
type Mail interface {
	// Open returns the account whose INBOX is served. It is closed when the session ends.
	Open(ctx context.Context, user *account.User) (store.Account, error)
}

// Origins is what a store's View may have beside its contract: the names that messages have outside of the store.
type Origins interface {
	// Filename is the base name of the message's file (%f in pop3_uidl_format), "" for none.
	Filename(index int) string
	// GUID is the message's global identifier as Dovecot knows it (%g), "" for none.
	GUID(index int) string
}

// Options is everything a Server is told. Auth and Mail are required, Expand too unless UIDLFormat and LogoutFormat are the defaults.
type Options struct {
	Auth account.Authenticator
	Mail Mail
	// TLS enables STLS and implicit TLS; nil is ssl = no. It is asked for each connection, so a new certificate needs no restart.
	TLS func() *tls.Config
	Log *slog.Logger
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
	// Trusted lists login_trusted_networks, whose clients count as secured.
	Trusted []netip.Prefix
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

	// MaxConnections bounds all connections, MaxPrelogin those of one address that have not logged in; 0 is no limit. When
	// MaxConnections is reached, the oldest connection without login makes room.
	MaxConnections, MaxPrelogin int
	// MaxUserIP is mail_max_userip_connections: sessions of one user from one address; 0 is no limit.
	MaxUserIP int

	// LoginTimeout is how long a client may stay without logging in; 0 is 3 minutes, as in Dovecot.
	LoginTimeout time.Duration
	// IdleTimeout ends a session that says nothing; 0 is 10 minutes (RFC 1939 section 3).
	IdleTimeout time.Duration
	// WriteTimeout is how long a client may take nothing of what is sent; 0 is 5 minutes.
	WriteTimeout time.Duration
	// LockTimeout is how long LockSession waits for another session to end; 0 is 10 seconds.
	LockTimeout time.Duration

	// Throttle, when set, is called before a proof is looked at and after one failed; it may wait.
	Throttle func(ctx context.Context, client account.Client, failed bool)
}

const (
	defaultGreeting     = "Dovecot ready."
	defaultUIDLFormat   = "%08Xu%08Xv"
	defaultLogoutFormat = "top=%t/%p, retr=%r/%b, del=%d/%m, size=%s"
	defaultLoginTimeout = 3 * time.Minute
	defaultIdleTimeout  = 10 * time.Minute
	defaultWriteTimeout = 5 * time.Minute
	defaultLockTimeout  = 10 * time.Second
)

func (o *Options) setDefaults() {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&o.LoginTimeout, defaultLoginTimeout)
	set(&o.IdleTimeout, defaultIdleTimeout)
	set(&o.WriteTimeout, defaultWriteTimeout)
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
