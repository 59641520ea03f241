// Package firststart writes the configuration with which somebody meets Postilion: the small loopback one of `quickstart`, and the one of `init` for a real
// host; and it sends a first message on its way and reads it back. The files are ordinary main.cf, master.cf, dovecot.conf and a passwd-file,
// with comments that teach.
//
// It serves nothing itself.
package firststart

import (
	"bytes"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"postilion/account/password"
	"postilion/service/certificate"
)

//go:embed templates
var templates embed.FS

// Account is a user with the password that was made for it.
type Account struct {
	Address, Password string
}

// Setup is what the templates are filled with.
type Setup struct {
	// Dir holds the configuration; State the mail, sockets and logs.
	Dir, State string
	// Domain is the mail domain, Hostname the server's name in it.
	Domain, Hostname string
	// Listen is the address of every listener: 127.0.0.1, or all for a real host.
	Listen string
	// Ports by protocol: smtp, submission, submissions, imap, imaps, pop3, pop3s.
	Ports map[string]int
	// Certificate and Key are the TLS files.
	Certificate, Key string
	// SelfSigned has them made.
	SelfSigned bool
	Accounts   []Account
	// Standard is true when all ports are the usual ones.
	Standard bool
}

// basePorts are the usual ports; quickstart adds its base.
func basePorts(base int) map[string]int {
	return map[string]int{
		"smtp": base + 25, "submission": base + 587, "submissions": base + 465,
		"imap": base + 143, "imaps": base + 993, "pop3": base + 110, "pop3s": base + 995,
	}
}

// MaxPortBase keeps all ports within 65535.
const MaxPortBase = 64000

// maxSocketPath is the longest path of a Unix socket that systems take.
const maxSocketPath = 100

// Quickstart describes the loopback system in dir, with ports from base on.
func Quickstart(dir string, base int) (*Setup, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if base < 0 || base > MaxPortBase {
		return nil, fmt.Errorf("port base %d is not between 0 and %d", base, MaxPortBase)
	}
	s := &Setup{
		Dir: dir, State: dir, Domain: "example.test", Hostname: "mail.example.test", Listen: "127.0.0.1", Ports: basePorts(base),
		Certificate: filepath.Join(dir, "tls/cert.pem"), Key: filepath.Join(dir, "tls/key.pem"), SelfSigned: true, Standard: base == 0,
	}
	for _, name := range []string{"alice", "bob"} {
		s.Accounts = append(s.Accounts, Account{Address: name + "@" + s.Domain})
	}
	return s, s.checkPaths()
}

// Host describes a real host for the domain. certificateFile and keyFile may be "" for a self-signed pair.
func Host(domain, dir, state, certificateFile, keyFile string) (*Setup, error) {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if err := checkDomain(domain); err != nil {
		return nil, err
	}
	if (certificateFile == "") != (keyFile == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	}
	for _, path := range []*string{&dir, &state, &certificateFile, &keyFile} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = absolute
	}
	if certificateFile != "" {
		if _, err := certificate.Load(certificate.Pair{CertificateFile: certificateFile, KeyFile: keyFile}); err != nil {
			return nil, err
		}
	}
	s := &Setup{
		Dir: dir, State: state, Domain: domain, Hostname: "mail." + domain, Listen: "all", Ports: basePorts(0), Standard: true,
		Certificate: certificateFile, Key: keyFile,
	}
	if certificateFile == "" {
		s.Certificate, s.Key, s.SelfSigned = filepath.Join(dir, "tls/cert.pem"), filepath.Join(dir, "tls/key.pem"), true
	}
	s.Accounts = []Account{{Address: "postmaster@" + domain}}
	return s, s.checkPaths()
}

func (s *Setup) checkPaths() error {
	if path := filepath.Join(s.State, "spool/private/dovecot-lmtp"); len(path) > maxSocketPath {
		return fmt.Errorf("the directory's path is too long for a Unix socket (%s): choose one that is %d characters shorter", path, len(path)-maxSocketPath)
	}
	if strings.ContainsAny(s.Dir+s.State+s.Certificate+s.Key, " \t\n\"'#$%<>") {
		return fmt.Errorf("%s: a path with blanks or one of \"'#$%%<> cannot stand in configuration files: choose another directory", s.Dir)
	}
	return nil
}

// passwordsFile keeps the readable passwords of quickstart's users, for the owner alone.
const passwordsFile = "passwords.txt"

// Present tells whether the directory holds a configuration already.
func (s *Setup) Present() bool {
	_, err := os.Stat(filepath.Join(s.Dir, "main.cf"))
	return err == nil
}

// inTheWay names a file that Write would have to replace, or "".
func (s *Setup) inTheWay() string {
	names := []string{filepath.Join(s.Dir, "main.cf"), filepath.Join(s.Dir, "master.cf"), filepath.Join(s.Dir, "dovecot.conf"), filepath.Join(s.Dir, "users")}
	if s.SelfSigned {
		names = append(names, s.Certificate, s.Key)
	}
	for _, name := range names {
		if _, err := os.Lstat(name); err == nil {
			return name
		}
	}
	return ""
}

// Write makes directories, certificate, passwords and files. It replaces nothing: a file that is there is an error, and then nothing is written.
func (s *Setup) Write() error {
	if name := s.inTheWay(); name != "" {
		return fmt.Errorf("%s is there already, and nothing is ever replaced: choose another directory, or move the file away", name)
	}
	for _, dir := range []string{s.Dir, filepath.Join(s.State, "spool/private"), filepath.Join(s.State, "data"), filepath.Join(s.State, "run")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if s.SelfSigned {
		if err := os.MkdirAll(filepath.Dir(s.Certificate), 0o700); err != nil {
			return err
		}
		pair := certificate.Pair{CertificateFile: s.Certificate, KeyFile: s.Key}
		if err := certificate.MakeSelfSigned(pair, 825*24*time.Hour, s.Hostname, s.Domain, "localhost", "127.0.0.1"); err != nil {
			return err
		}
	}
	var users, readable strings.Builder
	fmt.Fprintf(&users, "# user:{SCHEME}password; make a line's second field with: postilion doveadm pw -s SCRAM-SHA-256\n")
	for i := range s.Accounts {
		a := &s.Accounts[i]
		a.Password = newPassword()
		stored, err := password.Generate("SCRAM-SHA-256", a.Address, a.Password, 0)
		if err != nil {
			return err
		}
		fmt.Fprintf(&users, "%s:%s\n", a.Address, stored)
		fmt.Fprintf(&readable, "%s %s\n", a.Address, a.Password)
	}
	files := []struct {
		name, text string
		mode       fs.FileMode
	}{{"users", users.String(), 0o600}, {passwordsFile, readable.String(), 0o600}}
	if s.Listen == "all" {
		// On a real host the password is shown once and kept nowhere.
		files = files[:1]
	}
	for _, f := range files {
		if err := writeNew(filepath.Join(s.Dir, f.name), []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	for _, name := range []string{"main.cf", "master.cf", "dovecot.conf"} {
		text, err := s.render(name)
		if err != nil {
			return err
		}
		if err := writeNew(filepath.Join(s.Dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s *Setup) render(name string) ([]byte, error) {
	t, err := template.ParseFS(templates, "templates/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ReadPasswords takes up the accounts of a quickstart directory that was written before.
func (s *Setup) ReadPasswords() error {
	text, err := os.ReadFile(filepath.Join(s.Dir, passwordsFile))
	if err != nil {
		return err
	}
	s.Accounts = nil
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 {
			s.Accounts = append(s.Accounts, Account{Address: fields[0], Password: fields[1]})
		}
	}
	if len(s.Accounts) < 2 {
		return fmt.Errorf("%s has fewer than two users: remove the directory %s and start again", passwordsFile, s.Dir)
	}
	return nil
}

func writeNew(name string, text []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// newPassword makes 20 characters that are easy to read and to type.
func newPassword() string {
	const alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
	raw := make([]byte, 20)
	// crypto/rand.Read never fails (it ends the process when the system has no randomness).
	_, _ = rand.Read(raw)
	for i, c := range raw {
		raw[i] = alphabet[int(c)%len(alphabet)]
	}
	return string(raw)
}
