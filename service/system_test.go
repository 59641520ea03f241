package service_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/account/password"
	"postilion/service"
	"postilion/service/certificate"
)

// domain is the mail domain of every system under test.
const domain = "example.test"

// pass is every account's password.
const pass = "correct horse"

// patience bounds every wait for a peer.
const patience = 30 * time.Second

// system is a whole Postilion in this process, configured by ordinary files in a directory of the test.
type system struct {
	t      testing.TB
	dir    string
	driver string
	ports  map[string]int
	log    *logText
	server *service.Server
}

// logText collects the log.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// setting is what a test wants changed in the ordinary configuration.
type setting struct {
	// driver is vault or maildir.
	driver string
	// accounts is the number of users u0, u1 ...
	accounts int
	// scheme is the password scheme; "" is PLAIN, which costs no time.
	scheme string
	// mynetworks is 127.0.0.0/8 when empty.
	mynetworks string
	// relay is smtpd_relay_restrictions; "" leaves the line out when noRelay is set.
	noRelay bool
	// main and mail are lines added to main.cf and dovecot.conf.
	main, mail string
}

var serviceNames = [...]string{"smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s"}

// freePorts finds ports that nobody listens on.
func freePorts(t testing.TB) map[string]int {
	t.Helper()
	ports := map[string]int{}
	var held []net.Listener
	for _, name := range serviceNames {
		l := listenBelowEphemeral(t)
		held = append(held, l)
		ports[name] = l.Addr().(*net.TCPAddr).Port
	}
	for _, l := range held {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return ports
}

// drawnPorts are those that a test of this process was given: tests that run at the same time must not be given one twice.
var drawnPorts sync.Map

// listenBelowEphemeral listens on a port that the system gives to no outgoing connection, so that it is still free when a server begins.
func listenBelowEphemeral(t testing.TB) net.Listener {
	t.Helper()
	const lowest, highest = 11_000, 32_000
	err := errors.New("every port was drawn before")
	for range 1000 {
		port := lowest + rand.IntN(highest-lowest)
		if _, taken := drawnPorts.LoadOrStore(port, true); taken {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return l
		}
	}
	t.Fatal(err)
	return nil
}

// shortDir is a directory whose path is short enough for Unix sockets.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// configure writes the files of a system, without starting it.
func configure(t testing.TB, with setting) *system {
	t.Helper()
	if with.driver == "" {
		with.driver = "vault"
	}
	s := &system{t: t, dir: shortDir(t), driver: with.driver, ports: freePorts(t), log: &logText{}}
	for _, dir := range []string{"spool/private", "data", "run", "tls"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := certificate.MakeSelfSigned(s.pair(), 24*time.Hour, "localhost", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	s.write("users", s.users(with))
	s.write("main.cf", s.mainConfig(with))
	s.write("master.cf", s.masterConfig())
	s.write("dovecot.conf", s.mailConfig(with))
	return s
}

func (s *system) pair() certificate.Pair {
	return certificate.Pair{CertificateFile: filepath.Join(s.dir, "tls/cert.pem"), KeyFile: filepath.Join(s.dir, "tls/key.pem")}
}

func (s *system) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) users(with setting) string {
	var b strings.Builder
	for i := range with.accounts {
		scheme := with.scheme
		if scheme == "" {
			scheme = "PLAIN"
		}
		stored, err := password.Generate(scheme, user(i), pass, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s:%s:::::\n", user(i), stored)
	}
	return b.String()
}

// user is the address of account i.
func user(i int) string { return fmt.Sprintf("u%d@%s", i, domain) }

func (s *system) mainConfig(with setting) string {
	networks := with.mynetworks
	if networks == "" {
		networks = "127.0.0.0/8"
	}
	relay := "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination\n"
	if with.noRelay {
		relay = ""
	}
	return fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = /dev/stderr
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.%[2]s
mydomain = %[2]s
mydestination =
mynetworks = %[3]s
alias_maps =
recipient_delimiter = +
virtual_mailbox_domains = %[2]s
virtual_transport = lmtp:unix:private/dovecot-lmtp
smtpd_tls_cert_file = %[1]s/tls/cert.pem
smtpd_tls_key_file = %[1]s/tls/key.pem
smtpd_tls_security_level = may
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_peername_lookup = no
local_header_rewrite_clients =
smtp_dns_support_level = disabled
smtp_host_lookup = native
%[4]s%[5]s
`, s.dir, domain, networks, relay, with.main)
}

func (s *system) masterConfig() string {
	return fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
127.0.0.1:%d inet n - n - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=may
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
127.0.0.1:%d inet n - n - - smtpd
  -o syslog_name=postfix/submissions
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
lmtp unix - - n - - lmtp
discard unix - - n - - discard
error unix - - n - - error
`, s.ports["smtp"], s.ports["submission"], s.ports["submissions"])
}

func (s *system) mailConfig(with setting) string {
	location := "vault:" + s.dir + "/vault"
	if s.driver == "maildir" {
		location = "maildir:" + s.dir + "/mail/%n"
	}
	ports := s.ports
	return fmt.Sprintf(`protocols = imap pop3 lmtp
listen = 127.0.0.1
log_path = /dev/stderr
base_dir = %[1]s/run
ssl = yes
ssl_cert = <%[1]s/tls/cert.pem
ssl_key = <%[1]s/tls/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5 scram-sha-256
mail_max_userip_connections = 200
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=%[8]d gid=%[9]d home=%[1]s/home/%%n
}
mail_location = %[2]s
recipient_delimiter = +
namespace inbox {
  inbox = yes
  separator = /
  mailbox Sent {
    auto = subscribe
    special_use = \Sent
  }
  mailbox Trash {
    auto = subscribe
    special_use = \Trash
  }
}
service imap-login {
  inet_listener imap {
    port = %[3]d
  }
  inet_listener imaps {
    port = %[4]d
    ssl = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %[5]d
  }
  inet_listener pop3s {
    port = %[6]d
    ssl = yes
  }
}
service lmtp {
  unix_listener %[1]s/spool/private/dovecot-lmtp {
    mode = 0600
  }
}
service auth {
  unix_listener %[1]s/spool/private/auth {
    mode = 0600
  }
}
%[7]s
`, s.dir, location, ports["imap"], ports["imaps"], ports["pop3"], ports["pop3s"], with.mail, os.Getuid(), os.Getgid())
}

// start configures and starts a system; it is stopped, and must stop in order, when the test ends.
func start(t testing.TB, with setting) *system {
	t.Helper()
	s := configure(t, with)
	server, err := service.Start(context.Background(), service.Options{
		PostfixDir: s.dir, DovecotFile: filepath.Join(s.dir, "dovecot.conf"), Getenv: s.getenv, Stderr: s.log,
	})
	if err != nil {
		t.Fatalf("start: %v\n%s", err, s.log)
	}
	s.server = server
	t.Cleanup(s.stop)
	return s
}

func (s *system) getenv(name string) string {
	if name == "TMPDIR" {
		return s.dir
	}
	return ""
}

func (s *system) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.server.Stop(ctx); err != nil {
		s.t.Errorf("stop: %v", err)
	}
	if s.t.Failed() {
		s.t.Logf("troubles in the log:\n%s", s.troubles(40))
	}
}

// troubles are the last log lines that are warnings or worse.
func (s *system) troubles(lines int) string {
	var all []string
	for line := range strings.Lines(s.log.String()) {
		if lower := strings.ToLower(line); strings.Contains(lower, "warning") || strings.Contains(lower, "error") || strings.Contains(lower, "fatal") {
			all = append(all, line)
		}
	}
	return strings.Join(all[max(0, len(all)-lines):], "")
}

func (s *system) address(protocol string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[protocol]))
}

// sharedFile finds a file of the shared directory that lies beside the module, "" when it is absent.
func sharedFile(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("POSTILION_SHARED"); dir != "" {
		return present(filepath.Join(dir, name))
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return present(filepath.Join(filepath.Dir(dir), "shared", name))
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

func present(path string) string {
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// corpus is at most limit messages: of the shared corpus, else the package's own ones.
func corpus(t testing.TB, limit int) [][]byte {
	t.Helper()
	var mails [][]byte
	if name := sharedFile(t, "corpus/mail/corpus.tar.gz"); name != "" {
		mails = unpack(t, name)
	} else {
		files, err := filepath.Glob("testdata/mails/*.eml")
		if err != nil || len(files) == 0 {
			t.Fatalf("no messages: %v", err)
		}
		slices.Sort(files)
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			mails = append(mails, text)
		}
	}
	if limit < len(mails) {
		// Evenly spread, so that every source of the corpus is in a small part too.
		var part [][]byte
		for i := range limit {
			part = append(part, mails[i*len(mails)/limit])
		}
		mails = part
	}
	return mails
}

func unpack(t testing.TB, name string) [][]byte {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var mails [][]byte
	for archive := tar.NewReader(zipped); ; {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return mails
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(entry.Name, ".eml") {
			text, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			mails = append(mails, text)
		}
	}
}
