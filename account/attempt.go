package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"postilion/account/password"
	"postilion/proto/sasl"
)

// attempt is one try to prove who somebody is.
type attempt struct {
	client    Client
	mechanism string
	// name is the user name that the attempt is about, once known.
	name string
	// token is what a passdb of driver oauth2 checks: a token, or the password of a mechanism that gives one.
	token string
	// settled is set once the attempt was booked.
	settled bool
}

// exchange joins a mechanism to the accounts: it is the mechanism's Credentials.
type exchange struct {
	accounts *Accounts
	attempt  attempt
	server   sasl.Server
	ctx      context.Context
	started  bool
	user     *User
}

// Next implements Exchange.
func (e *exchange) Next(ctx context.Context, response []byte) ([]byte, *User, error) {
	if !e.started {
		e.started = true
		if err := e.accounts.penalties.wait(ctx, e.attempt.client.Remote.Addr()); err != nil {
			return nil, nil, err
		}
	}
	e.ctx = ctx
	challenge, done, err := e.server.Next(response)
	e.ctx = nil
	if err != nil {
		switch {
		case errors.Is(err, sasl.ErrMismatch):
			err = fmt.Errorf("%w: %w", ErrProof, err)
		case errors.Is(err, sasl.ErrMalformed):
			err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		return nil, nil, e.accounts.settle(ctx, &e.attempt, err)
	}
	if !done {
		if challenge == nil {
			challenge = []byte{}
		}
		return challenge, nil, nil
	}
	return challenge, e.user, e.accounts.settle(ctx, &e.attempt, nil)
}

func (e *exchange) Plain(authorization, authentication, secret string) (err error) {
	e.attempt.token = secret
	e.user, err = e.accounts.plain(e.ctx, &e.attempt, authorization, authentication, secret)
	return err
}

func (e *exchange) CRAMMD5(authentication string, challenge, digest []byte) (err error) {
	e.user, err = e.accounts.prove(e.ctx, &e.attempt, "", authentication, func(_ string, stored password.Stored) (bool, error) {
		return stored.CRAMMD5(challenge, digest)
	})
	return err
}

func (e *exchange) DigestHash(authentication, realm string) ([16]byte, error) {
	stored, name := e.accounts.secret(e.ctx, &e.attempt, withRealm(authentication, realm))
	hash, err := stored.DigestHash(authentication, realm)
	if err != nil {
		return hash, fmt.Errorf("%w: user %s: %w", ErrProof, name, err)
	}
	return hash, nil
}

func withRealm(name, realm string) string {
	if realm == "" || strings.Contains(name, "@") {
		return name
	}
	return name + "@" + realm
}

func (e *exchange) SCRAMKeys(authentication, hash string) (sasl.SCRAMKeys, error) {
	stored, name := e.accounts.secret(e.ctx, &e.attempt, authentication)
	seed := sha256.Sum256(append(e.accounts.scramSeed, name...))
	keys, err := stored.SCRAMKeys(hash, seed[:16])
	if err != nil {
		// A user without a usable password must look like one with another password.
		return sasl.MakeSCRAMKeys(hash, string(e.accounts.scramSeed), seed[:16], 4096)
	}
	return keys, nil
}

func (e *exchange) External(authorization string) (err error) {
	name := certificateName(e.attempt.client, e.accounts.options.CertificateUsername)
	if name == "" {
		return fmt.Errorf("%w: no verified client certificate with a user name", ErrProof)
	}
	e.user, err = e.accounts.prove(e.ctx, &e.attempt, authorization, name, nil)
	return err
}

// Token checks a bearer token; a passdb of another driver takes it as a password. A failure is booked at once, since clients need not wait for the
// end of the exchange.
func (e *exchange) Token(authentication, token string) error {
	err := e.Plain("", authentication, token)
	if err == nil {
		return nil
	}
	err = e.accounts.settle(e.ctx, &e.attempt, err)
	e.attempt.settled = true
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %w", sasl.ErrUnchecked, err)
	}
	return err
}

func (e *exchange) Anonymous(string) error {
	return fmt.Errorf("%w: anonymous users are not configured", ErrProof)
}

func (e *exchange) Proven(authorization, authentication string) (err error) {
	e.user, err = e.accounts.prove(e.ctx, &e.attempt, authorization, authentication, nil)
	return err
}

func certificateName(client Client, field string) string {
	if client.TLS == nil || len(client.TLS.VerifiedChains) == 0 || field == "" {
		return ""
	}
	leaf := client.TLS.VerifiedChains[0][0]
	if strings.EqualFold(field, "emailAddress") {
		if len(leaf.EmailAddresses) > 0 {
			return leaf.EmailAddresses[0]
		}
		return ""
	}
	return leaf.Subject.CommonName
}

// plain checks a password; authorization names another user to become.
func (a *Accounts) plain(ctx context.Context, t *attempt, authorization, authentication, secret string) (*User, error) {
	return a.prove(ctx, t, authorization, authentication, func(name string, stored password.Stored) (bool, error) {
		return stored.Verify(name, secret)
	})
}

// check tells whether what the client proved fits the stored password of name; nil when the proof was made elsewhere.
type check func(name string, stored password.Stored) (bool, error)

// prove finds the user, has the password checked and looks the user up in userdb.
func (a *Accounts) prove(ctx context.Context, t *attempt, authorization, authentication string, check check) (*User, error) {
	if separator := a.options.MasterUserSeparator; separator != "" && authorization == "" {
		if login, master, found := strings.Cut(authentication, separator); found {
			authorization, authentication = login, master
		}
	}
	t.name = authentication
	name, err := a.normalise(authentication)
	if err != nil {
		return nil, err
	}
	if authorization != "" && authorization != authentication {
		target, err := a.normalise(authorization)
		if err != nil {
			return nil, err
		}
		return a.proveMaster(ctx, t, target, name, check)
	}
	record, err := a.verify(ctx, t, name, check, false)
	if err != nil {
		return nil, err
	}
	return a.userOf(ctx, t.client, record, name, "")
}

func (a *Accounts) proveMaster(ctx context.Context, t *attempt, target, master string, check check) (*User, error) {
	if _, err := a.verify(ctx, t, master, check, true); err != nil {
		return nil, err
	}
	a.options.Log.Info("Master user logging in as "+target, "user", target)
	record := fields{}
	for _, db := range a.passdbs {
		if db.Master && db.Pass {
			var err error
			if record, err = a.verify(ctx, t, target, nil, false); err != nil {
				return nil, err
			}
			break
		}
	}
	return a.userOf(ctx, t.client, record, target, master)
}

// verify runs the passdbs as auth_passdb's result rules say and returns the fields of all that were found.
func (a *Accounts) verify(ctx context.Context, t *attempt, name string, check check, master bool) (fields, error) {
	state := outcome{}
	var record fields
	checked := false
	for i := range a.passdbs {
		db := &a.passdbs[i]
		if db.Master != master || !state.runs(db.Skip) || !db.serves(t.mechanism, name) {
			continue
		}
		found, ok, err := a.consult(ctx, t, db, name, check, &checked)
		if db.Deny {
			if err != nil {
				// Whether the user is denied is not known.
				return nil, fmt.Errorf("%w: deny passdb: %w", ErrUnavailable, err)
			}
			if found != nil {
				a.explain(t, db, name, "User found from deny passdb")
				return nil, fmt.Errorf("%w: %s is denied by %s", ErrProof, name, db.Where)
			}
			continue
		}
		record = record.merge(found)
		if state.step(ok, err, db.ResultSuccess, db.ResultFailure, db.ResultInternalFail) {
			break
		}
	}
	if !checked && check != nil {
		a.spendTime(name, check)
	}
	switch {
	case state.ok:
		return record, a.admit(t.client, record)
	case state.err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, state.err)
	}
	return nil, ErrProof
}

// spendTime hashes once for a user who does not exist, so that the time tells nothing.
func (a *Accounts) spendTime(name string, check check) {
	a.checks <- struct{}{}
	defer func() { <-a.checks }()
	// The result means nothing: there is no such user.
	_, _ = check(name, a.decoy)
}

// consult asks one passdb. found is nil when it does not know the user.
func (a *Accounts) consult(ctx context.Context, t *attempt, db *passdb, name string, check check, checked *bool) (found fields, ok bool, err error) {
	variables := a.variables(name, t.client)
	if tokens, ok := db.source.(*tokens); ok {
		return a.consultTokens(ctx, t, db, tokens, name, variables, checked)
	}
	found, known, err := db.source.lookup(ctx, variables)
	if err == nil && !known && check != nil {
		a.explain(t, db, name, "unknown user")
	}
	if err != nil || !known {
		return nil, false, err
	}
	if found, err = a.withDefaults(found, db.DefaultFields, db.OverrideFields, variables); err != nil {
		return nil, false, err
	}
	if !found.netsAllow(t.client.Remote.Addr()) {
		a.explain(t, db, name, "allow_nets check failed: IP "+addrText(t.client.Remote)+" not in allowed networks")
		return found, false, nil
	}
	if check == nil || found.has("nopassword") {
		return found, true, nil
	}
	text, has := found.get("password")
	if !has {
		return found, false, nil
	}
	stored, err := password.Parse(text, found.first("default_pass_scheme", "CRYPT"))
	if err != nil {
		return found, false, err
	}
	a.checks <- struct{}{}
	ok, err = check(name, stored)
	<-a.checks
	*checked = true
	if errors.Is(err, password.ErrScheme) && !strings.HasPrefix(t.mechanism, "PLAIN") && t.mechanism != "LOGIN" {
		// The stored scheme cannot serve this mechanism: the client may try another.
		a.options.Log.Info("auth: " + err.Error() + " for user " + name)
		err = nil
	}
	if !ok && err == nil {
		a.explain(t, db, name, "Password mismatch")
	}
	return found, ok, err
}

// explain logs why a passdb refused, as Dovecot's auth_verbose does.
func (a *Accounts) explain(t *attempt, db *passdb, name, why string) {
	if db.Master {
		name += ",master"
	}
	a.verbosely(db.Verbose, db.Driver, t.client, name, why)
}

// verbosely writes a line when the block's auth_verbose, or the general one, asks for it.
func (a *Accounts) verbosely(verbose, driver string, client Client, name, why string) {
	if verbose == "no" || verbose != "yes" && !a.options.Verbose {
		return
	}
	if ip := addrText(client.Remote); ip != "" {
		name += "," + ip
	}
	if client.Session != "" {
		name += ",<" + client.Session + ">"
	}
	a.options.Log.Info(driver + "(" + name + "): " + why)
}

// secret returns the stored password of a user, for the mechanisms whose arithmetic is made with it; the decoy when there is none.
func (a *Accounts) secret(ctx context.Context, t *attempt, authentication string) (password.Stored, string) {
	t.name = authentication
	name, err := a.normalise(authentication)
	if err != nil {
		return a.decoy, authentication
	}
	result := a.decoy
	_, _ = a.verify(ctx, t, name, func(_ string, stored password.Stored) (bool, error) {
		result = stored
		return true, nil
	}, false)
	return result, name
}

// admit refuses users whose record says that they may not log in.
func (a *Accounts) admit(client Client, record fields) error {
	if record.has("nologin") {
		if reason, _ := record.get("reason"); reason != "" {
			return &Refusal{Kind: ErrDenied, Text: reason}
		}
		return fmt.Errorf("%w: account is disabled", ErrDenied)
	}
	if _, proxied := record.get("proxy"); proxied {
		return fmt.Errorf("%w: passdb asks to proxy %s logins, which this server does not do", ErrUnavailable, client.Service)
	}
	return nil
}

// normalise applies auth_username_chars, auth_username_translation, auth_default_realm and auth_username_format.
func (a *Accounts) normalise(name string) (string, error) {
	if name == "" || len(name) > 1024 || strings.ContainsAny(name, "\x00\r\n") {
		return "", fmt.Errorf("%w: user name is empty, too long or has control characters", ErrProof)
	}
	if from := a.options.UsernameTranslation; from != "" {
		name = translate(name, from)
	}
	if chars := a.options.UsernameChars; chars != "" {
		for i := range len(name) {
			if name[i] < 0x80 && strings.IndexByte(chars, name[i]) < 0 {
				return "", fmt.Errorf("%w: user name has a character that auth_username_chars does not allow", ErrProof)
			}
		}
	}
	if realm := a.options.DefaultRealm; realm != "" && !strings.Contains(name, "@") {
		name += "@" + realm
	}
	if format := a.options.UsernameFormat; format != "" {
		expanded, err := a.options.Expand(format, userVariables(name))
		if err != nil {
			return "", fmt.Errorf("%w: auth_username_format: %w", ErrUnavailable, err)
		}
		name = expanded
	}
	return name, nil
}

// translate replaces each first character of the pairs by the second.
func translate(name, pairs string) string {
	return strings.Map(func(r rune) rune {
		table := []rune(pairs)
		for i := 0; i+1 < len(table); i += 2 {
			if table[i] == r {
				return table[i+1]
			}
		}
		return r
	}, name)
}

func userVariables(name string) map[string]string {
	local, domain, _ := strings.Cut(name, "@")
	return map[string]string{"u": name, "n": local, "d": domain, "user": name, "username": local, "domain": domain}
}

func (a *Accounts) variables(name string, client Client) map[string]string {
	v := userVariables(name)
	v["s"], v["service"] = client.Service, client.Service
	v["r"], v["rip"] = addrText(client.Remote), addrText(client.Remote)
	v["l"], v["lip"] = addrText(client.Local), addrText(client.Local)
	v["session"] = client.Session
	if client.TLS != nil || client.Secured {
		v["c"], v["secured"] = "secured", "secured"
	} else {
		v["c"], v["secured"] = "", ""
	}
	return v
}

func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr().Unmap().String()
}

func randomSeed() []byte {
	seed := make([]byte, 16)
	// crypto/rand.Read never fails (it ends the process when the system has no randomness).
	_, _ = rand.Read(seed)
	return seed
}
