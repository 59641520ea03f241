package account

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Field is one field of a passdb or userdb record.
type Field struct{ Name, Value string }

// PassdbFields returns what the passdbs say of a user without a proof: the extra fields that a login would give, without the password and without
// what belongs to userdb. Users who may not log in are found as well. Errors: ErrNoUser, ErrUnavailable.
func (a *Accounts) PassdbFields(ctx context.Context, client Client, name string) (user string, extra []Field, err error) {
	normal, err := a.normalise(name)
	if err != nil {
		if errors.Is(err, ErrProof) {
			return "", nil, fmt.Errorf("%w: %s", ErrNoUser, name)
		}
		return "", nil, err
	}
	t := attempt{client: client}
	record, err := a.verify(ctx, &t, normal, nil, false)
	switch {
	case errors.Is(err, ErrProof):
		return "", nil, fmt.Errorf("%w: %s", ErrNoUser, normal)
	case err != nil && record == nil:
		return "", nil, err
	}
	for _, f := range record.unique() {
		switch f.name {
		case "user":
			normal = f.value
			continue
		case "password", "default_pass_scheme", entryField, "allow_nets", "nopassword", "uid", "gid", "home":
			continue
		}
		if !strings.HasPrefix(f.name, "userdb_") {
			extra = append(extra, Field{f.name, f.value})
		}
	}
	return normal, extra, nil
}
