package doveadm

import (
	"encoding/json"
	"errors"
	"fmt"

	"postilion/account"
	"postilion/server/authd"
)

// jsonText is text as a JSON string.
func jsonText(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		return `""`
	}
	return string(raw)
}

const authUsage = `usage: doveadm [-Dv] [-f <formatter>] auth <command> [<args>]
  cache        flush
  login        [-x <auth info>] [-M <master user>] <user> [<password>]
  lookup       [-x <auth info>] [-f field] <user> [<user> [...]]
  test         [-x <auth info>] [-M <master user>] <user> [<password>]`

// auth tries logins and looks passdb records up.
func (r *run) auth(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "cache":
			if len(args) > 1 && args[1] == "flush" {
				// A command of its own has no cache, and the server's passdbs see changes by themselves.
				fmt.Fprintln(r.stdout, "0 cache entries flushed")
				return nil
			}
		case "lookup":
			return r.authLookup(args[1:])
		case "test":
			return r.authTest(args[1:], false)
		case "login":
			return r.authTest(args[1:], true)
		}
	}
	return &exit{exitUsage, authUsage}
}

func (r *run) authLookup(args []string) error {
	options, users, err := getopt("lookup", args, "a:f:x:")
	if err != nil {
		return err
	}
	if len(users) == 0 {
		return &exit{exitUsage, authUsage}
	}
	if err := refuseSocket(options); err != nil {
		return err
	}
	_, accounts, err := r.accounts()
	if err != nil {
		return err
	}
	only := ""
	for _, o := range options {
		if o.letter == 'f' {
			only = o.value
		}
	}
	client := authInfo("doveadm", options)
	missing := false
	for i, name := range users {
		if i > 0 {
			fmt.Fprintln(r.stdout)
		}
		user, extra, err := accounts.PassdbFields(r.ctx, client, name)
		switch {
		case errors.Is(err, account.ErrNoUser):
			missing = true
			fmt.Fprintf(r.stdout, "passdb lookup: user %s doesn't exist\n", name)
			continue
		case err != nil:
			return &exit{exitTemp, "Error: passdb lookup: " + err.Error()}
		}
		fields := append([]account.Field{{Name: "user", Value: user}}, extra...)
		if only == "" {
			fmt.Fprintf(r.stdout, "passdb: %s\n", user)
		}
		for _, f := range fields {
			switch only {
			case "":
				fmt.Fprintf(r.stdout, "  %-10s: %s\n", f.Name, f.Value)
			case f.Name:
				fmt.Fprintln(r.stdout, f.Value)
			}
		}
	}
	if missing {
		return &exit{code: exitNoUser}
	}
	return nil
}

// authTest tries a password; login also shows what userdb says.
func (r *run) authTest(args []string, login bool) error {
	options, words, err := getopt("test", args, "a:m:M:x:")
	if err != nil {
		return err
	}
	if len(words) < 1 || len(words) > 2 {
		return &exit{exitUsage, authUsage}
	}
	if err := refuseSocket(options); err != nil {
		return err
	}
	_, accounts, err := r.accounts()
	if err != nil {
		return err
	}
	secret := ""
	if len(words) == 2 {
		secret = words[1]
	} else if secret, err = r.ask("Password: "); err != nil {
		return err
	}
	client, master := authInfo("doveadm", options), ""
	for _, o := range options {
		if o.letter == 'M' {
			master = o.value
		}
	}
	name := words[0]
	user, err := r.try(accounts, client, name, master, secret)
	denied := errors.Is(err, account.ErrDenied)
	if err != nil && !denied {
		fmt.Fprintf(r.stdout, "passdb: %s auth failed\nextra fields:\n  user=%s\n", name, name)
		if errors.Is(err, account.ErrUnavailable) {
			return &exit{exitNoPerm, "Error: " + err.Error()}
		}
		return &exit{code: exitNoPerm}
	}
	fmt.Fprintf(r.stdout, "passdb: %s auth succeeded\nextra fields:\n", name)
	if normal, extra, err := accounts.PassdbFields(r.ctx, client, name); err == nil {
		fmt.Fprintf(r.stdout, "  user=%s\n", normal)
		for _, f := range extra {
			if f.Name == "nologin" || f.Name == "proxy" {
				fmt.Fprintf(r.stdout, "  %s\n", f.Name)
				continue
			}
			fmt.Fprintf(r.stdout, "  %s=%s\n", f.Name, f.Value)
		}
	}
	if master != "" {
		fmt.Fprintf(r.stdout, "  original_user=%s\n  auth_user=%s\n", master, master)
	}
	switch {
	case login && denied:
		return &exit{exitNoPerm, "Error: userdb lookup failed: " + err.Error()}
	case login:
		r.showLogin(user)
	}
	return nil
}

func (r *run) try(accounts *account.Accounts, client account.Client, name, master, secret string) (*account.User, error) {
	if master == "" {
		return accounts.Password(r.ctx, client, name, secret)
	}
	steps, err := accounts.Start(r.ctx, client, "PLAIN")
	if err != nil {
		return nil, err
	}
	_, user, err := steps.Next(r.ctx, []byte(name+"\x00"+master+"\x00"+secret))
	return user, err
}

// showLogin prints the userdb fields that a mail process would get.
func (r *run) showLogin(user *account.User) {
	fmt.Fprintf(r.stdout, "userdb extra fields:\n  %s\n", user.Name)
	fields := authd.UserFields(user)
	if len(fields) == 0 {
		fmt.Fprintln(r.stdout, "  ")
	}
	for _, f := range fields {
		fmt.Fprintf(r.stdout, "  %s\n", f.Word())
	}
	if user.Master != "" {
		fmt.Fprintf(r.stdout, "  master_user=%s\n", user.Master)
	}
	fmt.Fprintln(r.stdout, "  auth_mech=PLAIN")
	if user.Master != "" {
		fmt.Fprintf(r.stdout, "  auth_user=%s\n", user.Master)
	}
}
