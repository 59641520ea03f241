package account

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"postilion/account/oauth2"
)

// tokens is the passdb of driver oauth2.
type tokens struct{ checker *oauth2.Checker }

func newTokens(path string, options *Options) (*tokens, error) {
	if path = strings.TrimSpace(path); path == "" {
		return nil, errors.New("args: the path of the oauth2 settings is missing")
	}
	checker, err := oauth2.New(path, oauth2.Options{
		Expand: oauth2.Expander(options.Expand), CacheEntries: options.TokenCache, CacheTTL: options.TokenTTL, CacheNegativeTTL: options.TokenNegativeTTL,
	})
	if err != nil {
		return nil, err
	}
	return &tokens{checker}, nil
}

// lookup knows nobody: without a token there is no answer.
func (*tokens) lookup(context.Context, map[string]string) (fields, bool, error) {
	return nil, false, nil
}

func (*tokens) each(context.Context, func(name string) bool) error { return nil }

// consultTokens has the token of an attempt checked and returns the fields of pass_attrs.
func (a *Accounts) consultTokens(
	ctx context.Context, t *attempt, db *passdb, source *tokens, name string, variables map[string]string, checked *bool,
) (found fields, ok bool, err error) {
	if t.token == "" {
		return nil, false, nil
	}
	claims, err := source.checker.Check(ctx, name, t.token)
	*checked = true
	switch {
	case errors.Is(err, oauth2.ErrInvalid), errors.Is(err, oauth2.ErrDisabled):
		// Clients are told the same of both, as by Dovecot.
		a.explain(t, db, name, "oauth2 failed: "+err.Error())
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("oauth2: %w", err)
	}
	for name, value := range claims {
		variables["oauth2:"+name] = value
	}
	found, err = a.expandFields(parseFields(source.checker.PassAttributes()), variables)
	if err != nil {
		return nil, false, fmt.Errorf("pass_attrs: %w", err)
	}
	found, err = a.withDefaults(found, db.DefaultFields, db.OverrideFields, variables)
	return found, err == nil, err
}

// openIDConfiguration is what clients are told whose token was refused.
func (a *Accounts) openIDConfiguration() string {
	for i := range a.passdbs {
		if source, ok := a.passdbs[i].source.(*tokens); ok {
			if url := source.checker.ConfigurationURL(); url != "" {
				return url
			}
		}
	}
	return ""
}
