package doveadm

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/proto/dovecotauth"
	"postilion/server/authd"
)

// authInfo reads -x NAME=VALUE options; names that mean nothing here are passed over.
func authInfo(service string, options []option) account.Client {
	client := account.Client{Service: service, Secured: true}
	var remote, local netip.Addr
	var remotePort, localPort uint16
	for _, o := range options {
		if o.letter != 'x' {
			continue
		}
		name, value, _ := strings.Cut(o.value, "=")
		switch name {
		case "service":
			client.Service = value
		case "session":
			client.Session = value
		case "rip":
			remote, _ = netip.ParseAddr(value)
		case "lip":
			local, _ = netip.ParseAddr(value)
		case "rport":
			remotePort = port(value)
		case "lport":
			localPort = port(value)
		}
	}
	client.Remote, client.Local = netip.AddrPortFrom(remote, remotePort), netip.AddrPortFrom(local, localPort)
	return client
}

func port(text string) uint16 {
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(number)
}

func refuseSocket(options []option) error {
	for _, o := range options {
		if o.letter == 'a' || o.letter == 'm' {
			return fatal("-%c %s: this command asks the passdbs and userdbs of the configuration itself; leave the option out", o.letter, o.value)
		}
	}
	return nil
}

// user looks users up in userdb, or lists them.
func (r *run) user(args []string) error {
	options, masks, err := getopt("user", args, "a:e:f:ux:")
	if err != nil {
		return err
	}
	if len(masks) == 0 {
		return commandUsage("user")
	}
	if err := refuseSocket(options); err != nil {
		return err
	}
	view, accounts, err := r.accounts()
	if err != nil {
		return err
	}
	if strings.ContainsAny(strings.Join(masks, ""), "*?") {
		return r.list(accounts, masks)
	}
	client := authInfo("doveadm", options)
	show := r.showFields
	only := false
	for _, o := range options {
		switch o.letter {
		case 'f':
			show, only = func(_ *account.User, fields dovecotauth.Params) error { return r.showField(fields, o.value) }, true
		case 'e':
			show, only = func(u *account.User, fields dovecotauth.Params) error { return r.showTemplate(u, fields, o.value) }, true
		}
	}
	raw := false
	for _, o := range options {
		raw = raw || o.letter == 'u'
	}
	if raw && !only {
		show = r.showUserdb
	}
	table := !raw && !only
	if table {
		r.begin("field", "value")
	}
	missing := false
	for i, name := range masks {
		if i > 0 && !table {
			fmt.Fprintln(r.stdout)
		}
		u, err := accounts.Lookup(r.ctx, client, name)
		switch {
		case errors.Is(err, account.ErrNoUser):
			missing = true
			fmt.Fprintf(r.stdout, "\nuserdb lookup: user %s doesn't exist\n", name)
			continue
		case err != nil:
			return &exit{exitTemp, "Error: userdb lookup: " + err.Error()}
		}
		fields := authd.UserFields(u)
		if !raw {
			if fields, err = withDefaults(view, u); err != nil {
				return fatal("user %s: %v", name, err)
			}
		}
		if err := show(u, fields); err != nil {
			return err
		}
	}
	if table {
		r.end()
	}
	if missing {
		return &exit{code: exitNoUser}
	}
	return nil
}

// list prints the users that match one of the masks.
func (r *run) list(accounts *account.Accounts, masks []string) error {
	var patterns []*regexp.Regexp
	for _, mask := range masks {
		text := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(mask))
		pattern, err := regexp.Compile("(?is)^" + text + "$")
		if err != nil {
			return fatal("mask %s: %v", mask, err)
		}
		patterns = append(patterns, pattern)
	}
	err := accounts.Users(r.ctx, func(name string) bool {
		for _, p := range patterns {
			if p.MatchString(name) {
				fmt.Fprintln(r.stdout, name)
				break
			}
		}
		return true
	})
	if err != nil {
		return &exit{exitTemp, "Error: user listing failed: " + err.Error()}
	}
	return nil
}

func userVariables(u *account.User, fields dovecotauth.Params) map[string]string {
	local, domain, _ := strings.Cut(u.Name, "@")
	v := map[string]string{"u": u.Name, "n": local, "d": domain, "user": u.Name, "username": local, "domain": domain}
	for _, f := range fields {
		v["userdb:"+f.Name] = f.Value
	}
	v["h"] = v["userdb:home"]
	v["home"] = v["h"]
	return v
}

// withDefaults puts the configuration's values where userdb has none: uid, gid, home and mail come first, the others behind.
func withDefaults(view *dovecot.View, u *account.User) (dovecotauth.Params, error) {
	given := authd.UserFields(u)
	var fields dovecotauth.Params
	for _, pair := range [...]struct{ name, setting string }{{"uid", "mail_uid"}, {"gid", "mail_gid"}, {"home", "mail_home"}, {"mail", "mail_location"}} {
		value, has := given.Get(pair.name)
		if !has {
			var err error
			value, err = dovecot.Expand(view.String(pair.setting), dovecot.VarMap(userVariables(u, fields)))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pair.setting, err)
			}
		}
		if value != "" {
			fields = append(fields, dovecotauth.Param{Name: pair.name, Value: value})
		}
	}
	for _, f := range given {
		switch f.Name {
		case "uid", "gid", "home", "mail":
		default:
			fields = append(fields, f)
		}
	}
	return fields, nil
}

func (r *run) showFields(_ *account.User, fields dovecotauth.Params) error {
	for _, f := range fields {
		r.row(f.Name, f.Value)
	}
	return nil
}

func (r *run) showField(fields dovecotauth.Params, name string) error {
	if value, ok := fields.Get(name); ok {
		fmt.Fprintln(r.stdout, value)
	}
	return nil
}

func (r *run) showTemplate(u *account.User, fields dovecotauth.Params, template string) error {
	text, err := dovecot.Expand(template, dovecot.VarMap(userVariables(u, fields)))
	if err != nil {
		return fatal("Failed to expand field '%s': %v", template, err)
	}
	fmt.Fprintln(r.stdout, text)
	return nil
}

func (r *run) showUserdb(u *account.User, fields dovecotauth.Params) error {
	fmt.Fprintf(r.stdout, "userdb: %s\n  %-10s: %s\n", u.Name, "user", u.Name)
	for _, f := range fields {
		fmt.Fprintf(r.stdout, "  %-10s: %s\n", f.Name, f.Value)
	}
	return nil
}

// begin, row and end print a table of two columns in the form that -f names.
func (r *run) begin(columns ...string) {
	switch r.format {
	case "json":
		fmt.Fprint(r.stdout, "[")
	case "table":
		fmt.Fprintf(r.stdout, "%-10s %s\n", columns[0], columns[1])
	case "flow", "pager":
	default:
		fmt.Fprintf(r.stdout, "%s\t%s\n", columns[0], columns[1])
	}
}

func (r *run) row(field, value string) {
	switch r.format {
	case "json":
		if r.rows > 0 {
			fmt.Fprint(r.stdout, ",")
		}
		fmt.Fprintf(r.stdout, `{"field":%s,"value":%s}`, jsonText(field), jsonText(value))
	case "table":
		fmt.Fprintf(r.stdout, "%-10s %s\n", field, value)
	case "flow":
		fmt.Fprintf(r.stdout, "field=%s value=%s\n", field, value)
	case "pager":
		fmt.Fprintf(r.stdout, "field: %s\nvalue: %s\n\f\n", field, value)
	default:
		clean := strings.NewReplacer("\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n")
		fmt.Fprintf(r.stdout, "%s\t%s\n", field, clean.Replace(value))
	}
	r.rows++
}

func (r *run) end() {
	if r.format == "json" {
		fmt.Fprintln(r.stdout, "]")
	}
}
