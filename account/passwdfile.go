package account

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"postilion/account/password"
)

// Limits of passwd-files: MaxPasswdFile octets a file, maxPasswdLine octets a line, maxPasswdFiles files kept in memory for one block whose
// path has variables.
const (
	MaxPasswdFile  = 64 << 20
	maxPasswdLine  = 64 << 10
	maxPasswdFiles = 256
)

// openSource opens what a driver's args name. scheme is the default password scheme, "" where there is none.
func openSource(driver, args string, options *Options, isPassdb bool) (opened source, scheme string, err error) {
	switch driver {
	case "passwd-file":
		return newPasswdFile(args, options)
	case "static":
		s := &static{fields: parseFields(args)}
		return s, "PLAIN", nil
	case "passwd":
		return newSystem("passwd"), "CRYPT", nil
	case "shadow", "pam":
		if !isPassdb {
			return nil, "", fmt.Errorf("driver %s is no userdb", driver)
		}
		s := newSystem("shadow")
		if options.Shadow != nil {
			s.ask = func(ctx context.Context, name string) (string, bool, error) {
				line, err := options.Shadow(ctx, name)
				return line, line != "", err
			}
		}
		return s, "CRYPT", nil
	case "oauth2":
		if !isPassdb {
			return nil, "", errors.New("driver oauth2 is no userdb")
		}
		opened, err = newTokens(args, options)
		return opened, "", err
	case "":
		return nil, "", errors.New("driver is missing: say, for example, driver = passwd-file")
	}
	return nil, "", fmt.Errorf("driver %s is not supported by this version: use passwd-file, static, passwd, pam or oauth2", driver)
}

// passwdFile is Dovecot's passwd-file: user:password:uid:gid:gecos:home:shell:extra fields.
type passwdFile struct {
	path           string
	scheme         string
	usernameFormat string
	expand         Expander
	open           func(name string) (*os.File, error)

	mu    sync.Mutex
	files map[string]*passwdEntries
}

// passwdEntries is one file as it was when read.
type passwdEntries struct {
	modified time.Time
	size     int64
	users    map[string]fields
	order    []string
}

func newPasswdFile(args string, options *Options) (source, string, error) {
	p := &passwdFile{scheme: "CRYPT", expand: options.Expand, open: options.Open, files: map[string]*passwdEntries{}}
	if p.open == nil {
		p.open = os.Open
	}
	rest := strings.TrimSpace(args)
	for {
		word, after, _ := strings.Cut(rest, " ")
		name, value, isOption := strings.Cut(word, "=")
		if !isOption || strings.HasPrefix(word, "/") {
			break
		}
		switch name {
		case "scheme":
			p.scheme = strings.ToUpper(value)
			if _, err := password.Parse("{"+value+"}", ""); err != nil {
				return nil, "", fmt.Errorf("args: %w", err)
			}
		case "username_format":
			p.usernameFormat = value
		default:
			return nil, "", fmt.Errorf("args: unknown option %s: passwd-file takes scheme= and username_format=", name)
		}
		rest = strings.TrimSpace(after)
	}
	if rest == "" {
		return nil, "", errors.New("args: the path of the passwd-file is missing")
	}
	p.path = rest
	return p, p.scheme, nil
}

func (p *passwdFile) lookup(_ context.Context, variables map[string]string) (fields, bool, error) {
	path, err := p.expand(p.path, variables)
	if err != nil {
		return nil, false, fmt.Errorf("passwd-file %s: %w", p.path, err)
	}
	if path != p.path && strings.Contains(path, "..") {
		return nil, false, fmt.Errorf("passwd-file %s: user name leads to %s", p.path, path)
	}
	name := variables["u"]
	if p.usernameFormat != "" {
		if name, err = p.expand(p.usernameFormat, variables); err != nil {
			return nil, false, fmt.Errorf("passwd-file %s: username_format: %w", p.path, err)
		}
	}
	entries, err := p.load(path)
	if err != nil {
		if path != p.path && errors.Is(err, fs.ErrNotExist) {
			// A file a domain: no file, no such domain.
			return nil, false, nil
		}
		return nil, false, err
	}
	found, ok := entries.users[name]
	if !ok {
		return nil, false, nil
	}
	record := fields{{"default_pass_scheme", p.scheme}}
	if path == p.path && name != variables["u"] {
		record = append(record, field{entryField, name})
	}
	return append(record, found...), true, nil
}

// entryField holds the name of the entry that was found under another name. No file can have such a field.
const entryField = "\x00entry"

func (p *passwdFile) each(_ context.Context, fn func(name string) bool) error {
	if strings.Contains(p.path, "%") {
		return nil
	}
	entries, err := p.load(p.path)
	if err != nil {
		return err
	}
	for _, name := range entries.order {
		if !fn(name) {
			return nil
		}
	}
	return nil
}

// load returns the entries of a file, read again when its time or size changed.
func (p *passwdFile) load(path string) (*passwdEntries, error) {
	stat, err := p.stat(path)
	if err != nil {
		return nil, fmt.Errorf("passwd-file: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.files[path]; ok && known.modified.Equal(stat.ModTime()) && known.size == stat.Size() {
		return known, nil
	}
	entries, err := p.read(path, stat)
	if err != nil {
		return nil, err
	}
	if len(p.files) >= maxPasswdFiles {
		clear(p.files)
	}
	// A file that was changed within the clock's grain may change once more without a new time: do not keep it as known.
	if time.Since(stat.ModTime()) < 2*time.Second {
		entries.size = -1
	}
	p.files[path] = entries
	return entries, nil
}

// stat looks at a file; one in a directory that this process cannot pass is opened for that.
func (p *passwdFile) stat(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if !errors.Is(err, fs.ErrPermission) {
		return info, err
	}
	file, err := p.open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.Stat()
}

func (p *passwdFile) read(path string, stat fs.FileInfo) (*passwdEntries, error) {
	if stat.Size() > MaxPasswdFile {
		return nil, fmt.Errorf("passwd-file %s: %d octets are more than %d", path, stat.Size(), MaxPasswdFile)
	}
	file, err := p.open(path)
	if err != nil {
		return nil, fmt.Errorf("passwd-file: %w", err)
	}
	defer file.Close()
	entries := &passwdEntries{modified: stat.ModTime(), size: stat.Size(), users: map[string]fields{}}
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, 0, 4096), maxPasswdLine)
	for number := 1; lines.Scan(); number++ {
		name, record, ok := parsePasswdLine(lines.Text())
		if !ok {
			continue
		}
		if _, twice := entries.users[name]; !twice {
			entries.order = append(entries.order, name)
		}
		entries.users[name] = record
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("passwd-file %s: %w (a line may have %d octets)", path, err, maxPasswdLine)
	}
	return entries, nil
}

// parsePasswdLine reads one line; ok is false for comments, empty lines and lines without a user.
func parsePasswdLine(line string) (name string, record fields, ok bool) {
	line = strings.TrimRight(line, "\r")
	if line == "" || line[0] == '#' || line[0] == ':' {
		return "", nil, false
	}
	parts := strings.Split(line, ":")
	name = parts[0]
	part := func(i int) string {
		if i < len(parts) {
			return parts[i]
		}
		return ""
	}
	if secret := part(1); secret != "" {
		record = append(record, field{"password", passwordField(secret)})
	}
	for i, field1 := range []string{"uid", "gid"} {
		if value := part(2 + i); value != "" {
			record = append(record, field{field1, value})
		}
	}
	// libpam-pwdfile's lines and short ones have other things in these places; a home always has a slash.
	if home := part(5); home != "" {
		record = append(record, field{"home", home})
	}
	if len(parts) > 7 {
		record = append(record, parseFields(strings.Join(parts[7:], ":"))...)
	}
	return name, record, true
}

// passwordField takes libpam-pwdfile's password[13] and password[34] (crypt and MD5 in hexadecimal).
func passwordField(text string) string {
	if strings.HasPrefix(text, "{") || !strings.HasSuffix(text, "]") {
		return text
	}
	if secret, isMD5 := strings.CutSuffix(text, "[34]"); isMD5 {
		return "{PLAIN-MD5}" + secret
	}
	if secret, isCrypt := strings.CutSuffix(text, "[13]"); isCrypt {
		return "{CRYPT}" + secret
	}
	return text
}

// static answers every name with the same fields.
type static struct{ fields fields }

func (s *static) lookup(_ context.Context, variables map[string]string) (fields, bool, error) {
	found := append(fields{{"default_pass_scheme", "PLAIN"}}, s.fields...)
	if only, has := s.fields.get("user"); has && only != variables["u"] && !strings.Contains(only, "%") {
		return nil, false, nil
	}
	return found, true, nil
}

func (s *static) each(context.Context, func(name string) bool) error { return nil }
