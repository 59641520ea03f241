package service_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"postilion/service/certificate"
)

// serial is the serial number of the certificate that the protocol serves now.
func (s *system) serial(protocol string) (string, error) {
	conn, err := tls.Dial("tcp4", s.address(protocol), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// replaceCertificate puts a new pair in place of the old one, each file in one step as certbot does.
func (s *system) replaceCertificate() error {
	fresh := certificate.Pair{CertificateFile: filepath.Join(s.dir, "tls/new-cert.pem"), KeyFile: filepath.Join(s.dir, "tls/new-key.pem")}
	if err := certificate.MakeSelfSigned(fresh, time.Hour, "localhost", "127.0.0.1"); err != nil {
		return err
	}
	if err := os.Rename(fresh.KeyFile, s.pair().KeyFile); err != nil {
		return err
	}
	return os.Rename(fresh.CertificateFile, s.pair().CertificateFile)
}

// TestReloadUnderLoad reloads again and again, with new certificates, while mail flows: nothing is refused, no session ends, and what the old
// generations held is given back.
func TestReloadUnderLoad(t *testing.T) {
	reloads := 1000
	if testing.Short() {
		reloads = 50
	}
	const accounts = 4
	s := start(t, setting{accounts: accounts})
	text := []byte("Subject: during a reload\r\n\r\nbody\r\n")
	before := settled(t, func() error { return s.burst(text, accounts) })

	held, err := s.login("imaps", user(0))
	if err != nil {
		t.Fatal(err)
	}
	defer held.close()
	if err := held.conn.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := held.imap("SELECT INBOX"); err != nil {
		t.Fatal(err)
	}
	var over atomic.Bool
	var sent atomic.Int64
	var group errgroup.Group
	for n := range accounts {
		group.Go(func() error {
			// One connection lives through all reloads, and others come and go.
			long, err := s.greetSMTP("smtp")
			if err != nil {
				return err
			}
			defer long.close()
			for !over.Load() {
				if err := long.conn.SetDeadline(time.Now().Add(patience)); err != nil {
					return err
				}
				if err := long.mail("a@elsewhere.example", []string{user(n)}, text); err != nil {
					return fmt.Errorf("session in flight: %w", err)
				}
				if err := s.postOne(n, text); err != nil {
					return fmt.Errorf("new session: %w", err)
				}
				sent.Add(2)
			}
			return nil
		})
	}
	serials := map[string]bool{}
	for i := range reloads {
		if i%10 == 0 {
			if err := s.replaceCertificate(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.server.Reload(context.Background()); err != nil {
			t.Fatalf("reload %d: %v", i, err)
		}
		if i%10 == 0 {
			serial, err := s.serial("imaps")
			if err != nil {
				t.Fatal(err)
			}
			serials[serial] = true
		}
		s.server.Tidy()
		if _, err := held.imap("NOOP"); err != nil {
			t.Fatalf("reload %d: the IMAP session ended: %v", i, err)
		}
	}
	over.Store(true)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(serials) != (reloads+9)/10 {
		t.Errorf("%d certificates were seen of %d", len(serials), (reloads+9)/10)
	}
	t.Logf("%d messages during %d reloads", sent.Load(), reloads)
	s.countMail(accounts, int(sent.Load())+accounts)
	if _, err := held.imap("LOGOUT"); err != nil {
		t.Error(err)
	}
	held.close()
	var after usage
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s.server.Tidy()
		after = measure()
		if after.goroutines <= before.goroutines+10 || time.Now().After(deadline) {
			break
		}
	}
	if after.goroutines > before.goroutines+10 || after.files > before.files+20 || after.heap > before.heap+32<<20 {
		t.Errorf("before %+v, after %+v\n%s", before, after, stacks())
	}
	// What a thousand more reloads leave behind shows that nothing grows with their number.
	for i := range reloads {
		if err := s.server.Reload(context.Background()); err != nil {
			t.Fatalf("quiet reload %d: %v", i, err)
		}
		s.server.Tidy()
	}
	grown := measure()
	for deadline := time.Now().Add(20 * time.Second); grown.goroutines > after.goroutines && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		s.server.Tidy()
		grown = measure()
	}
	t.Logf("before %+v, after %+v, after %d quiet reloads %+v", before, after, reloads, grown)
	if grown.goroutines > after.goroutines+2 || grown.files > after.files+2 || grown.heap > after.heap+8<<20 {
		t.Errorf("%d quiet reloads: before %+v, after %+v\n%s", reloads, after, grown, stacks())
	}
}

// burst sends one message to each account.
func (s *system) burst(text []byte, accounts int) error {
	for n := range accounts {
		if err := s.postOne(n, text); err != nil {
			return err
		}
	}
	return nil
}

// postOne sends one message in a session of its own.
func (s *system) postOne(n int, text []byte) error {
	w, err := s.greetSMTP("smtp")
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.mail("a@elsewhere.example", []string{user(n)}, text); err != nil {
		return err
	}
	return w.smtp("QUIT", "221")
}

// countMail wants that many messages in the INBOXes together.
func (s *system) countMail(accounts, want int) {
	s.t.Helper()
	total := 0
	for n := range accounts {
		w, count, err := s.loginPOP3("pop3", user(n))
		if err != nil {
			s.t.Fatal(err)
		}
		w.close()
		total += count
	}
	if total != want {
		s.t.Errorf("%d messages in the mailboxes, %d were acknowledged", total, want)
	}
}

// usage is what a process holds.
type usage struct {
	goroutines, files int
	heap              uint64
}

func measure() usage {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		files = nil
	}
	return usage{goroutines: runtime.NumGoroutine(), files: len(files), heap: m.HeapInuse}
}

// settled measures after work was done once and its sessions ended.
func settled(t *testing.T, work func() error) usage {
	t.Helper()
	if err := work(); err != nil {
		t.Fatal(err)
	}
	last := measure()
	for range 100 {
		time.Sleep(20 * time.Millisecond)
		now := measure()
		if now.goroutines == last.goroutines {
			return now
		}
		last = now
	}
	return last
}

func stacks() string {
	buffer := make([]byte, 1<<16)
	return string(buffer[:runtime.Stack(buffer, true)])
}

// TestBrokenConfigurationChangesNothing reloads files that cannot be used: what runs goes on, and an error says why.
func TestBrokenConfigurationChangesNothing(t *testing.T) {
	s := start(t, setting{accounts: 1})
	text := []byte("Subject: still here\r\n\r\nbody\r\n")
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	sent := 0
	for _, c := range []struct{ name, file, text, want string }{
		{"no such setting", "dovecot.conf", "mail_locatoin = x\n", "mail_locatoin"},
		{"open brace", "dovecot.conf", "protocol imap {\n", "dovecot.conf"},
		{"no such driver", "dovecot.conf", "mail_location = cube:/x\nprotocol lmtp {\n  mail_location = cube:/x\n}\n", ""},
		{"not a number", "main.cf", "smtpd_recipient_limit = many\n", "smtpd_recipient_limit"},
		{"a relay rule that is none", "main.cf", "smtpd_relay_restrictions = permit\nsmtpd_recipient_restrictions = permit\n", ""},
		{"a socket that is taken", "master.cf", fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd\n", taken.Addr().(*net.TCPAddr).Port), "listen on"},
		{"master.cf fields", "master.cf", "smtp inet n\n", "master.cf"},
		{"a certificate that is none", "tls/cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cert.pem"},
		{"logins by a kind that is not here", "main.cf", "smtpd_sasl_type = cyrus\n", "smtpd_sasl_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(s.dir, c.file)
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			broken := string(good) + c.text
			if strings.HasPrefix(c.file, "tls/") {
				broken = c.text
			}
			s.write(c.file, broken)
			err = s.server.Reload(context.Background())
			s.write(c.file, string(good))
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("reload: %v, want an error about %q", err, c.want)
			}
			if err == nil {
				// What is no error at reload must be undone before the mail below.
				if err := s.server.Reload(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.postOne(0, text); err != nil {
				t.Fatal(err)
			}
			sent++
			s.countMail(1, sent)
		})
	}
	if err := s.server.Reload(context.Background()); err != nil {
		t.Errorf("the good files again: %v", err)
	}
}
