// Package oauth2 checks OAuth 2.0 bearer tokens as Dovecot's passdb of driver oauth2 does: by asking an authorization server (its token information
// or introspection endpoint, RFC 7662), or by the signature of a JSON Web Token (RFC 7519) and keys in files. Its settings are those of
// dovecot-oauth2.conf.ext.
//
// It is not a SASL mechanism (proto/sasl has OAUTHBEARER and XOAUTH2) and obtains no tokens, except for grant_url.
package oauth2

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// ErrInvalid: the token does not hold, or is not this user's. ErrDisabled: it holds, and its owner may not log in (scope, active_attribute).
// Every other error means that the token could not be checked now.
var (
	ErrInvalid  = errors.New("invalid token")
	ErrDisabled = errors.New("user disabled")
)

// MaxToken is the limit of a token in octets.
const MaxToken = 16 << 10

// Expander fills %-variables into a template.
type Expander func(template string, variables map[string]string) (string, error)

// Options configure a Checker beside its file.
type Options struct {
	Expand Expander
	// CacheEntries is how many answers are remembered, CacheTTL and CacheNegativeTTL for how long; 0 entries remember none. An answer is
	// never used past the time that its token names.
	CacheEntries               int
	CacheTTL, CacheNegativeTTL time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Checker checks tokens. Its methods may be called at the same time.
type Checker struct {
	settings settings
	options  Options
	client   *http.Client
	keys     keyFiles

	mu    sync.Mutex
	cache map[[sha256.Size]byte]remembered
}

// remembered is an answer that may be used again.
type remembered struct {
	claims claims
	err    error
	until  time.Time
}

// claims are what is known of a token: members of a JSON object as text.
type claims map[string]string

// New reads the settings of a file. Errors name it and the line.
func New(path string, options Options) (*Checker, error) {
	if options.Now == nil {
		options.Now = time.Now
	}
	c := &Checker{options: options, cache: map[[sha256.Size]byte]remembered{}}
	var err error
	if c.settings, err = readSettings(path); err != nil {
		return nil, err
	}
	c.keys.prefix = c.settings.keyPrefix
	c.client, err = c.settings.httpClient()
	return c, err
}

// ConfigurationURL is openid_configuration_url, which clients are told with a failure (RFC 7628 section 3.2.2); "" for none.
func (c *Checker) ConfigurationURL() string { return c.settings.openidConfigurationURL }

// PassAttributes is pass_attrs: the template of the extra fields of a passdb, whose variables are the claims as oauth2:NAME.
func (c *Checker) PassAttributes() string { return c.settings.passAttributes }

// Check tells whether the token is the user's, and what is known of it. With use_grant_password the token is a password. Errors: ErrInvalid,
// ErrDisabled, or why it could not be checked.
func (c *Checker) Check(ctx context.Context, user, token string) (map[string]string, error) {
	if token == "" || len(token) > MaxToken || strings.ContainsAny(token, "\x00\r\n") {
		return nil, fmt.Errorf("%w: empty, longer than %d octets or with control characters", ErrInvalid, MaxToken)
	}
	key := sha256.Sum256([]byte(user + "\x00" + token))
	known, err, ok := c.recall(key)
	if !ok {
		known, err = c.ask(ctx, user, token)
		c.remember(key, known, err)
	}
	if err != nil {
		return nil, err
	}
	if err := c.judge(user, known); err != nil {
		return nil, err
	}
	return known, nil
}

// ask finds out what is known of the token.
func (c *Checker) ask(ctx context.Context, user, token string) (claims, error) {
	s := &c.settings
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	if s.useGrantPassword {
		granted, err := c.grant(ctx, user, token)
		if err != nil {
			return nil, err
		}
		token = granted
	}
	if s.introspectionMode == "local" {
		known, err := c.validate(token)
		if err != nil {
			return nil, fmt.Errorf("local validation failed: %w", err)
		}
		return known.with("access_token", token), nil
	}
	var known claims
	if s.tokeninfoURL != "" {
		found, err := c.tokeninfo(ctx, token)
		if err != nil {
			return nil, fmt.Errorf("token validation failed: %w", err)
		}
		known = found
	}
	if _, has := known[s.usernameAttribute]; s.introspectionURL != "" && (known == nil || !has || s.forceIntrospection) {
		found, err := c.introspect(ctx, token)
		if err != nil {
			return nil, fmt.Errorf("introspection failed: %w", err)
		}
		for name, value := range found {
			known = known.with(name, value)
		}
	}
	return known.with("access_token", token), nil
}

func (k claims) with(name, value string) claims {
	if k == nil {
		k = claims{}
	}
	k[name] = value
	return k
}

// judge compares what is known with what is wanted.
func (c *Checker) judge(user string, known claims) error {
	s := &c.settings
	if known["active"] == "false" {
		return fmt.Errorf("%w: the token is not active", ErrInvalid)
	}
	owner := known[s.usernameAttribute]
	if owner == "" {
		return fmt.Errorf("%w: no %s returned", ErrInvalid, s.usernameAttribute)
	}
	local, domain, _ := strings.Cut(owner, "@")
	variables := map[string]string{"u": owner, "user": owner, "n": local, "username": local, "d": domain, "domain": domain}
	normal, err := c.options.Expand(s.usernameFormat, variables)
	if err != nil {
		return fmt.Errorf("username_format: %w", err)
	}
	if normal != user {
		return fmt.Errorf("%w: username '%s' did not match '%s'", ErrInvalid, user, normal)
	}
	if s.scope != "" && !c.inScope(known) {
		return fmt.Errorf("%w: token is not valid for scope '%s'", ErrDisabled, s.scope)
	}
	if s.activeAttribute != "" {
		value, has := known[s.activeAttribute]
		if !has || s.activeValue != "" && value != s.activeValue {
			return fmt.Errorf("%w: %s is %q", ErrDisabled, s.activeAttribute, value)
		}
	}
	return nil
}

// inScope looks for the scope; some servers tell it as the audience.
func (c *Checker) inScope(known claims) bool {
	scopes, has := known["scope"]
	if !has {
		scopes = known["aud"]
	}
	for word := range strings.FieldsSeq(scopes) {
		if word == c.settings.scope {
			return true
		}
	}
	return false
}

func (c *Checker) recall(key [sha256.Size]byte) (claims, error, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.cache[key]
	if !ok || !c.options.Now().Before(r.until) {
		return nil, nil, false
	}
	return r.claims, r.err, true
}

// remember keeps an answer: a good one no longer than its token lasts, of the bad ones only those that are about the token.
func (c *Checker) remember(key [sha256.Size]byte, known claims, err error) {
	if c.options.CacheEntries <= 0 || err != nil && !errors.Is(err, ErrInvalid) {
		return
	}
	now := c.options.Now()
	until := now.Add(c.options.CacheTTL)
	if err != nil {
		until = now.Add(c.options.CacheNegativeTTL)
	}
	if end, ok := known.expiry(now); ok && end.Before(until) {
		until = end
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, renewed := c.cache[key]; !renewed && len(c.cache) >= c.options.CacheEntries {
		// What map order gives cannot be chosen by an attacker.
		for old := range c.cache {
			delete(c.cache, old)
			if len(c.cache) <= c.options.CacheEntries/2 {
				break
			}
		}
	}
	c.cache[key] = remembered{known, err, until}
}
