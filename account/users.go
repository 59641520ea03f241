package account

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/user"
	"strconv"
	"strings"
)

// userOf looks the user up in the userdbs; record is what the passdbs said.
func (a *Accounts) userOf(ctx context.Context, client Client, record fields, name, master string) (*User, error) {
	if renamed, has := record.get("user"); has && renamed != "" {
		name = renamed
	}
	found, ok, err := a.lookup(ctx, client, record, name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case !ok:
		return nil, fmt.Errorf("%w: user %s is in a passdb but in no userdb", ErrUnavailable, name)
	}
	u, err := makeUser(name, found)
	if err != nil {
		return nil, fmt.Errorf("%w: user %s: %w", ErrUnavailable, name, err)
	}
	u.Master = master
	return u, nil
}

// lookup runs the userdbs.
func (a *Accounts) lookup(ctx context.Context, client Client, record fields, name string) (fields, bool, error) {
	if len(a.userdbs) == 0 {
		return prefetched(record), true, nil
	}
	state := outcome{}
	var merged fields
	variables := a.variables(name, client)
	for _, db := range a.userdbs {
		if !state.runs(db.Skip) {
			continue
		}
		found, ok, err := a.consultUserdb(ctx, db, record, variables)
		if !ok && err == nil {
			a.verbosely(db.Verbose, db.Driver, client, name, "unknown user")
		}
		if ok {
			merged = merged.merge(found)
		}
		if state.step(ok, err, db.ResultSuccess, db.ResultFailure, db.ResultInternalFail) {
			break
		}
	}
	if !state.ok && state.err != nil {
		return nil, false, state.err
	}
	// What passdb says of userdb fields wins.
	return merged.override(prefetched(record)), state.ok, nil
}

func (a *Accounts) consultUserdb(ctx context.Context, db userdb, record fields, variables map[string]string) (fields, bool, error) {
	if db.source == nil {
		found := prefetched(record)
		return found, len(found) > 0, nil
	}
	found, ok, err := db.source.lookup(ctx, variables)
	if err != nil || !ok {
		return nil, false, err
	}
	plain := make(fields, 0, len(found))
	for _, f := range found {
		if f.name == "password" || f.name == entryField {
			continue
		}
		if name, ours := strings.CutPrefix(f.name, "userdb_"); ours {
			plain = append(plain, field{name, f.value})
		} else if db.Driver != "passwd-file" || isAccountField(f.name) {
			plain = append(plain, f)
		}
	}
	if plain, err = a.withDefaults(plain, db.DefaultFields, db.OverrideFields, variables); err != nil {
		return nil, false, err
	}
	if entry, has := found.get(entryField); has {
		plain, err = a.oneAccount(plain, found, db, entry, variables)
	}
	return plain, err == nil, err
}

// oneAccount keeps the entry's name as that of the account, unless the fields put the mail of its names into different places.
func (a *Accounts) oneAccount(record, found fields, db userdb, entry string, variables map[string]string) (fields, error) {
	own := maps.Clone(variables)
	maps.Copy(own, userVariables(entry))
	plain := make(fields, 0, len(found))
	for _, f := range found {
		if name, ours := strings.CutPrefix(f.name, "userdb_"); ours || isAccountField(f.name) {
			plain = append(plain, field{name, f.value})
		}
	}
	other, err := a.withDefaults(plain, db.DefaultFields, db.OverrideFields, own)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"home", "mail"} {
		if other.first(name, "") != record.first(name, "") {
			return record, nil
		}
	}
	return append(record, field{entryField, entry}), nil
}

func isAccountField(name string) bool { return name == "uid" || name == "gid" || name == "home" }

// prefetched takes the userdb_ fields out of a passdb record.
func prefetched(record fields) fields {
	var found fields
	for _, f := range record {
		if name, ours := strings.CutPrefix(f.name, "userdb_"); ours {
			found = append(found, field{name, f.value})
		}
	}
	return found
}

func makeUser(name string, found fields) (*User, error) {
	u := &User{Name: name, UID: -1, GID: -1, Fields: map[string]string{}}
	for _, f := range found.unique() {
		switch {
		case f.name == "uid":
			id, err := UserID(f.value)
			if err != nil {
				return nil, err
			}
			u.UID = id
		case f.name == "gid":
			id, err := GroupID(f.value)
			if err != nil {
				return nil, err
			}
			u.GID = id
		case f.name == "home":
			u.Home = f.value
		case f.name == entryField:
			u.Entry = f.value
		case f.name == "mail":
			u.Mail = f.value
		case strings.HasPrefix(f.name, "quota_rule"):
			u.QuotaRules = append(u.QuotaRules, f.value)
		case f.name == "user":
			u.Name = f.value
		default:
			u.Fields[f.name] = f.value
		}
	}
	return u, nil
}

// UserID resolves a number or the name of a system user; "" is -1.
func UserID(text string) (int, error) {
	return resolveID(text, func(name string) (string, error) {
		found, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return found.Uid, nil
	})
}

// GroupID resolves a number or the name of a system group; "" is -1.
func GroupID(text string) (int, error) {
	return resolveID(text, func(name string) (string, error) {
		found, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return found.Gid, nil
	})
}

func resolveID(text string, find func(name string) (string, error)) (int, error) {
	if text == "" {
		return -1, nil
	}
	if id, err := strconv.ParseUint(text, 10, 31); err == nil {
		return int(id), nil
	}
	number, err := find(text)
	if err != nil {
		return -1, err
	}
	id, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return -1, fmt.Errorf("id %q of %q is out of range", number, text)
	}
	return int(id), nil
}

// Lookup implements Directory. With userdbs that know no list of users (static), a user exists when a passdb knows the name, unless the
// userdb says allow_all_users=yes.
func (a *Accounts) Lookup(ctx context.Context, client Client, name string) (*User, error) {
	normal, err := a.normalise(name)
	if err != nil {
		if errors.Is(err, ErrProof) {
			return nil, fmt.Errorf("%w: %s", ErrNoUser, name)
		}
		return nil, err
	}
	var record fields
	if a.existenceNeedsPassdb() {
		t := attempt{client: client}
		record, err = a.verify(ctx, &t, normal, nil, false)
		switch {
		case errors.Is(err, ErrProof):
			return nil, fmt.Errorf("%w: %s", ErrNoUser, normal)
		case errors.Is(err, ErrUnavailable):
			return nil, err
		}
	}
	found, ok, err := a.lookup(ctx, client, record, normal)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case !ok:
		return nil, fmt.Errorf("%w: %s", ErrNoUser, normal)
	}
	u, err := makeUser(normal, found)
	if err != nil {
		return nil, fmt.Errorf("%w: user %s: %w", ErrUnavailable, normal, err)
	}
	return u, nil
}

func (a *Accounts) existenceNeedsPassdb() bool {
	for _, db := range a.userdbs {
		if s, ok := db.source.(*static); ok {
			return !s.fields.has("allow_all_users")
		}
		if db.source != nil {
			return false
		}
	}
	return true
}

// Users implements Directory.
func (a *Accounts) Users(ctx context.Context, fn func(name string) bool) error {
	seen := map[string]bool{}
	more := true
	each := func(s source) error {
		if s == nil || !more {
			return nil
		}
		return s.each(ctx, func(name string) bool {
			if !seen[name] {
				seen[name] = true
				more = fn(name)
			}
			return more
		})
	}
	for _, db := range a.userdbs {
		if err := each(db.source); err != nil {
			return fmt.Errorf("%s: %w", db.Where, err)
		}
	}
	return nil
}
