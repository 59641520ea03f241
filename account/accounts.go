package account

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"postilion/account/password"
	"postilion/proto/sasl"
)

// Expander fills %-variables into a template: names are one letter ("u", "n", "d", "r", "s", ...) as in Dovecot's Variables page.
type Expander func(template string, variables map[string]string) (string, error)

// Passdb is one passdb block: where passwords are kept and what its result means.
type Passdb struct {
	// Driver is passwd-file, static, passwd, shadow or pam (both read the system's shadow entries), or oauth2 with a file of account/oauth2.
	Driver, Args string
	Deny, Master bool
	// Pass asks, after a master login, that the target user also is in a later passdb.
	Pass bool
	// Skip is never, authenticated or unauthenticated.
	Skip string
	// ResultSuccess, ResultFailure and ResultInternalFail are return-ok, return, return-fail, continue, continue-ok or continue-fail.
	ResultSuccess, ResultFailure, ResultInternalFail string
	DefaultFields, OverrideFields                    string
	// Mechanisms limits the passdb to these; empty means all, "none" non-login lookups.
	Mechanisms []string
	// UsernameFilter holds patterns with * and ?, a leading ! excludes.
	UsernameFilter []string
	// Verbose is auth_verbose for this passdb: yes, no, or default for Options.Verbose.
	Verbose string
	// Where is the block's file:line for messages.
	Where string
}

// Userdb is one userdb block.
type Userdb struct {
	// Driver is passwd-file, static, passwd or prefetch.
	Driver, Args                                     string
	Skip                                             string
	ResultSuccess, ResultFailure, ResultInternalFail string
	DefaultFields, OverrideFields                    string
	Verbose, Where                                   string
}

// Options configure an Accounts; the names are Dovecot's.
type Options struct {
	Passdbs []Passdb
	Userdbs []Userdb
	// Mechanisms is auth_mechanisms in any case of letters.
	Mechanisms []string
	// UsernameFormat is auth_username_format, such as %Lu.
	UsernameFormat string
	// UsernameChars limits the characters of user names (auth_username_chars); "" allows all.
	UsernameChars string
	// UsernameTranslation is auth_username_translation: pairs of characters, from and to.
	UsernameTranslation string
	DefaultRealm        string
	Realms              []string
	// MasterUserSeparator is auth_master_user_separator, "" for none.
	MasterUserSeparator string
	// DisablePlaintext is disable_plaintext_auth.
	DisablePlaintext bool
	// SSLRequired is ssl=required: no login at all without encryption, except from the same host.
	SSLRequired bool
	// FailureDelay is auth_failure_delay, the wait before a failure is told.
	FailureDelay time.Duration
	// Verbose logs why a login failed (auth_verbose).
	Verbose bool
	// TokenCache bounds how many answers to tokens are remembered, for TokenTTL and, when they are refusals, TokenNegativeTTL.
	TokenCache                 int
	TokenTTL, TokenNegativeTTL time.Duration
	// Penalty makes each failure from an address, and each for an account, slow the next ones down.
	Penalty bool
	// CertificateUsername is taken from the client certificate's subject for EXTERNAL ("commonName" or "emailAddress"); "" switches EXTERNAL off.
	CertificateUsername string
	Hostname            string
	Expand              Expander
	// Open opens passwd-files for reading; nil: os.Open.
	Open func(name string) (*os.File, error)
	// Shadow returns a system user's line of shadow(5), "" for no such user; nil: getent(1), which needs root.
	Shadow func(ctx context.Context, name string) (string, error)
	Log    *slog.Logger
}

// Accounts is Authenticator and Directory over passdb and userdb blocks.
type Accounts struct {
	options   Options
	passdbs   []passdb
	userdbs   []userdb
	penalties *penalties
	// checks bounds how many passwords are hashed at the same time.
	checks chan struct{}
	// decoy is hashed when there is no such user, so that the answer takes as long.
	decoy password.Stored
	// scramSeed makes salts for users whose password is kept in clear or who do not exist.
	scramSeed []byte
}

type passdb struct {
	Passdb
	source source
}

type userdb struct {
	Userdb
	source source
}

// source is where records come from.
type source interface {
	// lookup returns the fields of the user; found is false when the source does not know the user.
	lookup(ctx context.Context, variables map[string]string) (fields fields, found bool, err error)
	// each calls fn with each user that can be listed.
	each(ctx context.Context, fn func(name string) bool) error
}

// New checks the blocks and opens what they name. Files are read when they are first needed and again whenever they changed.
func New(options Options) (*Accounts, error) {
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Expand == nil {
		return nil, errors.New("account: Options.Expand is not set")
	}
	a := &Accounts{options: options, checks: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))), scramSeed: randomSeed()}
	if options.Penalty {
		a.penalties = newPenalties(time.Now)
	}
	decoyScheme := "SHA512-CRYPT"
	for _, block := range options.Passdbs {
		opened, scheme, err := openSource(block.Driver, block.Args, &options, true)
		if err != nil {
			return nil, fmt.Errorf("%s: passdb: %w", block.Where, err)
		}
		if scheme != "" {
			decoyScheme = scheme
		}
		a.passdbs = append(a.passdbs, passdb{Passdb: block, source: opened})
	}
	for _, block := range options.Userdbs {
		if block.Driver == "prefetch" {
			a.userdbs = append(a.userdbs, userdb{Userdb: block})
			continue
		}
		opened, _, err := openSource(block.Driver, block.Args, &options, false)
		if err != nil {
			return nil, fmt.Errorf("%s: userdb: %w", block.Where, err)
		}
		a.userdbs = append(a.userdbs, userdb{Userdb: block, source: opened})
	}
	return a, a.makeDecoy(decoyScheme)
}

func (a *Accounts) makeDecoy(scheme string) error {
	if scheme == "CRYPT" {
		scheme = "SHA512-CRYPT"
	}
	text, err := password.Generate(scheme, "nobody", hex.EncodeToString(a.scramSeed), 0)
	if err != nil {
		return fmt.Errorf("account: %w", err)
	}
	a.decoy, err = password.Parse(text, scheme)
	return err
}

// Mechanisms implements Authenticator.
func (a *Accounts) Mechanisms(client Client) []Mechanism {
	var offered []Mechanism
	for _, name := range a.options.Mechanisms {
		plaintext, known := sasl.Known(name)
		if !known || (plaintext && !a.plaintextAllowed(client)) {
			continue
		}
		offered = append(offered, Mechanism{Name: strings.ToUpper(name), Plaintext: plaintext})
	}
	return offered
}

func (a *Accounts) plaintextAllowed(client Client) bool {
	return client.TLS != nil || client.Secured || !a.options.DisablePlaintext
}

// Start implements Authenticator.
func (a *Accounts) Start(_ context.Context, client Client, mechanism string) (Exchange, error) {
	name := strings.ToUpper(mechanism)
	plaintext, known := sasl.Known(name)
	switch {
	case !known || !slices.ContainsFunc(a.options.Mechanisms, func(m string) bool { return strings.EqualFold(m, name) }):
		return nil, fmt.Errorf("%w: %s", ErrMechanism, name)
	case plaintext && !a.plaintextAllowed(client):
		return nil, ErrPlaintext
	}
	e := &exchange{accounts: a, attempt: attempt{client: client, mechanism: name}}
	e.server = sasl.New(name, e, sasl.Options{
		Hostname: a.hostname(), Service: client.Service, Realms: a.options.Realms, TLS: client.TLS, OpenIDConfiguration: a.openIDConfiguration(),
	})
	return e, nil
}

func (a *Accounts) hostname() string {
	if a.options.Hostname != "" {
		return a.options.Hostname
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "localhost"
}

// Password implements Authenticator.
func (a *Accounts) Password(ctx context.Context, client Client, name, secret string) (*User, error) {
	if !a.plaintextAllowed(client) {
		return nil, ErrPlaintext
	}
	return a.finish(ctx, attempt{client: client, mechanism: "PLAIN", token: secret}, func(t *attempt) (*User, error) {
		return a.plain(ctx, t, "", name, secret)
	})
}

// APOP implements Authenticator.
func (a *Accounts) APOP(ctx context.Context, client Client, name, banner, digest string) (*User, error) {
	return a.finish(ctx, attempt{client: client, mechanism: "APOP"}, func(t *attempt) (*User, error) {
		return a.prove(ctx, t, "", name, func(_ string, stored password.Stored) (bool, error) { return stored.APOP(banner, digest) })
	})
}

// finish runs one attempt under the penalties and with the delay that a failure costs.
func (a *Accounts) finish(ctx context.Context, t attempt, run func(t *attempt) (*User, error)) (*User, error) {
	if err := a.penalties.wait(ctx, t.client.Remote.Addr()); err != nil {
		return nil, err
	}
	user, err := run(&t)
	return user, a.settle(ctx, &t, err)
}

// settle books the outcome and makes a failure wait.
func (a *Accounts) settle(ctx context.Context, t *attempt, err error) error {
	switch {
	case t.settled:
	case err == nil:
		a.penalties.forget(t.client.Remote.Addr())
		return nil
	case errors.Is(err, ErrProof):
		extra := a.penalties.failed(t.client.Remote.Addr(), t.name)
		if waitErr := pause(ctx, a.options.FailureDelay+extra); waitErr != nil {
			return waitErr
		}
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}
