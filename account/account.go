// Package account says who a user is and whether a proof of identity holds. It answers for every protocol that has logins, and for every
// part that asks where a user's mail lies. Passwords never leave it.
//
// It is not a protocol (the SASL mechanisms' grammar is proto/sasl) and not an access policy. It follows Dovecot's passdb and userdb
// (passwd-file, passwd, static; schemes as in "Password Schemes" of its manual).
package account

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
)

// Authenticator checks proofs. Its methods may be called at the same time.
type Authenticator interface {
	// Mechanisms returns the SASL mechanisms that this client may use now, strongest last as configured. Mechanisms that send the
	// password in clear are left out when the connection is not protected and plaintext is not allowed.
	Mechanisms(client Client) []Mechanism
	// Start begins a SASL exchange. Errors: ErrMechanism, ErrPlaintext.
	Start(ctx context.Context, client Client, mechanism string) (Exchange, error)
	// Password checks a name and a password that the protocol's own command carried (IMAP LOGIN, POP3 PASS). It may take long on
	// purpose after failures. Errors as Exchange.Next.
	Password(ctx context.Context, client Client, name, password string) (*User, error)
	// APOP checks POP3's digest over banner and password (RFC 1939 section 7). Errors as Exchange.Next.
	APOP(ctx context.Context, client Client, name, banner, digest string) (*User, error)
}

// Exchange is one SASL conversation. It is for one goroutine.
type Exchange interface {
	// Next takes the client's response, nil when the client sent no initial response, and returns either a challenge to send or, with a
	// nil challenge, the user who proved to be there. With a user, a non-nil challenge is additional data that goes with success.
	// Errors: ErrProof, ErrMalformed, ErrDenied, ErrUnavailable.
	Next(ctx context.Context, response []byte) (challenge []byte, user *User, err error)
}

// Directory finds users without a proof, for delivery.
type Directory interface {
	// Lookup returns the user of that name. Errors: ErrNoUser, ErrUnavailable.
	Lookup(ctx context.Context, client Client, name string) (*User, error)
	// Users calls fn with every name that can be listed until fn returns false.
	Users(ctx context.Context, fn func(name string) bool) error
}

// Mechanism is a SASL mechanism as offered.
type Mechanism struct {
	// Name is in capitals.
	Name string
	// Plaintext mechanisms reveal the password to whoever reads the connection.
	Plaintext bool
}

// Client is what is known of the connection that a proof came over.
type Client struct {
	// Service is imap, pop3, smtp, submission, lmtp, sieve or doveadm.
	Service       string
	Remote, Local netip.AddrPort
	// TLS is the state of an encrypted connection, nil without encryption. It gives channel bindings and client certificates.
	TLS *tls.ConnectionState
	// Secured is true when the connection is encrypted or as good (a Unix socket, the same host, a trusted network).
	Secured bool
	// Session names the session in logs.
	Session string
}

// User is who was found, with what userdb says.
type User struct {
	// Name is the name after auth_username_format; it names the mail account.
	Name string
	// Entry names the record that userdb found under another name than Name (username_format of a passwd-file with a fixed path), "" when there
	// is none. Names that lead to one entry mean one mail account.
	Entry string
	// Master is the name whose password was given when one user logs in as another (auth_master_user_separator), else "".
	Master string
	Home   string
	// Mail is mail_location as userdb gives it, "" when the configuration's holds.
	Mail string
	// UID and GID are -1 when userdb gives none.
	UID, GID int
	// QuotaRules are the quota_rule fields of userdb, in order; they come after the configuration's.
	QuotaRules []string
	// Fields holds every other userdb field.
	Fields map[string]string
}

// Refusal is a failure with a reason that was written for the client: the reason field of passdb, or what a foreign auth server told.
type Refusal struct {
	// Kind is one of the kinds of failure.
	Kind error
	Text string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Kind.Error() + ": " + r.Text }

// Unwrap returns the kind.
func (r *Refusal) Unwrap() error { return r.Kind }

// Reason is the text for the client.
func (r *Refusal) Reason() string { return r.Text }

// Kinds of failure, to be told apart with errors.Is.
var (
	// ErrProof: the proof does not hold, or there is no such user; the two cannot be told apart from outside.
	ErrProof = errors.New("authentication failed")
	// ErrDenied: the proof holds and the user may not log in (nologin, deny passdb, a service not allowed).
	ErrDenied = errors.New("login not allowed")
	// ErrMalformed: what the client sent is not a message of the mechanism.
	ErrMalformed = errors.New("malformed authentication data")
	// ErrMechanism: no such mechanism is offered.
	ErrMechanism = errors.New("unsupported authentication mechanism")
	// ErrPlaintext: the mechanism needs a protected connection.
	ErrPlaintext = errors.New("plaintext authentication disallowed on non-secure connections")
	// ErrUnavailable: the proof could not be checked now.
	ErrUnavailable = errors.New("temporary authentication failure")
	// ErrNoUser: Lookup found nobody.
	ErrNoUser = errors.New("no such user")
)
