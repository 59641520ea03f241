package account

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// expandLetters fills in %u, %n, %d, %Lu and the like, enough for these tests.
func expandLetters(template string, variables map[string]string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(template); i++ {
		if template[i] != '%' || i+1 == len(template) {
			b.WriteByte(template[i])
			continue
		}
		i++
		lower := template[i] == 'L'
		if lower {
			i++
		}
		value, ok := variables[template[i:i+1]]
		if !ok {
			return "", fmt.Errorf("unknown variable %%%c", template[i])
		}
		if lower {
			value = strings.ToLower(value)
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

const usersText = `# comment
alice:{PLAIN}pw:1000:1000::/home/alice::userdb_quota_rule=*:storage=1M userdb_mail=maildir:~/Mail
bob:{SHA256-CRYPT}$5$abc$bBHLwRRW2Li0XKaX13kz/g2fkDil4Jx46aNvd.48MS8::::
free:::::::nopassword=y
shut:{PLAIN}pw::::::nologin=y reason=closed
near:{PLAIN}pw::::::allow_nets=192.0.2.0/24,127.0.0.1
boss:{PLAIN}bpw
`

func testAccounts(t *testing.T, change func(o *Options)) *Accounts {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte(usersText), 0o600); err != nil {
		t.Fatal(err)
	}
	options := Options{
		Passdbs:    []Passdb{{Driver: "passwd-file", Args: "username_format=%n " + path, Where: "dovecot.conf:1"}},
		Userdbs:    []Userdb{{Driver: "passwd-file", Args: "username_format=%n " + path, DefaultFields: "uid=7 gid=8 home=/srv/%n"}},
		Mechanisms: []string{"plain", "login", "CRAM-MD5", "scram-sha-256"}, UsernameFormat: "%Lu", Expand: expandLetters,
	}
	if change != nil {
		change(&options)
	}
	accounts, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	return accounts
}

var fromNearby = Client{Service: "imap", Remote: netip.MustParseAddrPort("192.0.2.5:999"), Secured: true}

func TestPassword(t *testing.T) {
	accounts := testAccounts(t, nil)
	far := Client{Service: "imap", Remote: netip.MustParseAddrPort("198.51.100.1:999"), Secured: true}
	for _, row := range []struct {
		client         Client
		name, password string
		want           string
		err            error
	}{
		{fromNearby, "alice", "pw", "alice 1000 1000 /home/alice maildir:~/Mail [*:storage=1M]", nil},
		{fromNearby, "ALICE@Example.com", "pw", "alice@example.com 1000 1000 /home/alice maildir:~/Mail [*:storage=1M]", nil},
		{fromNearby, "alice", "Pw", "", ErrProof},
		{fromNearby, "bob", "", "bob 7 8 /srv/bob  []", nil},
		{fromNearby, "nobody", "pw", "", ErrProof},
		{fromNearby, "", "pw", "", ErrProof},
		{fromNearby, "free", "anything", "free 7 8 /srv/free  []", nil},
		{fromNearby, "shut", "pw", "", ErrDenied},
		{fromNearby, "shut", "wrong", "", ErrProof},
		{fromNearby, "near", "pw", "near 7 8 /srv/near  []", nil},
		{far, "near", "pw", "", ErrProof},
		{fromNearby, strings.Repeat("x", 5000), "pw", "", ErrProof},
	} {
		user, err := accounts.Password(t.Context(), row.client, row.name, row.password)
		if !errors.Is(err, row.err) || (row.err == nil) != (err == nil) {
			t.Errorf("%q %q: error %v, want %v", row.name, row.password, err, row.err)
			continue
		}
		if err != nil {
			continue
		}
		if got := fmt.Sprint(user.Name, " ", user.UID, " ", user.GID, " ", user.Home, " ", user.Mail, " ", user.QuotaRules); got != row.want {
			t.Errorf("%q: got %q, want %q", row.name, got, row.want)
		}
	}
}

func TestPlaintextNeedsProtection(t *testing.T) {
	accounts := testAccounts(t, func(o *Options) { o.DisablePlaintext = true })
	open := Client{Service: "imap", Remote: netip.MustParseAddrPort("192.0.2.5:999")}
	if _, err := accounts.Password(t.Context(), open, "alice", "pw"); !errors.Is(err, ErrPlaintext) {
		t.Errorf("password in clear: %v", err)
	}
	if _, err := accounts.Start(t.Context(), open, "PLAIN"); !errors.Is(err, ErrPlaintext) {
		t.Errorf("PLAIN in clear: %v", err)
	}
	if got := fmt.Sprint(accounts.Mechanisms(open)); got != "[{CRAM-MD5 false} {SCRAM-SHA-256 false}]" {
		t.Errorf("offered in clear: %s", got)
	}
	if n := len(accounts.Mechanisms(fromNearby)); n != 4 {
		t.Errorf("offered when protected: %d", n)
	}
	if _, err := accounts.Start(t.Context(), fromNearby, "DIGEST-MD5"); !errors.Is(err, ErrMechanism) {
		t.Errorf("a mechanism that is not configured: %v", err)
	}
}

func TestExchanges(t *testing.T) {
	accounts := testAccounts(t, nil)
	start := func(mechanism string) Exchange {
		e, err := accounts.Start(t.Context(), fromNearby, mechanism)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if _, user, err := start("PLAIN").Next(t.Context(), []byte("\x00alice\x00pw")); err != nil || user.Name != "alice" {
		t.Errorf("PLAIN: %v, %v", user, err)
	}
	if _, _, err := start("PLAIN").Next(t.Context(), []byte("alice")); !errors.Is(err, ErrMalformed) {
		t.Errorf("malformed PLAIN: %v", err)
	}
	for _, row := range []struct {
		password string
		err      error
	}{{"pw", nil}, {"no", ErrProof}} {
		cram := start("cram-md5")
		challenge, _, err := cram.Next(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(md5.New, []byte(row.password))
		mac.Write(challenge)
		_, user, err := cram.Next(t.Context(), fmt.Appendf(nil, "alice %x", mac.Sum(nil)))
		if !errors.Is(err, row.err) || (err == nil && user.Name != "alice") {
			t.Errorf("CRAM-MD5 %s: %v, %v", row.password, user, err)
		}
	}
	// A user who does not exist is asked for a proof like any other, always with the same salt.
	salts := map[string]bool{}
	for range 2 {
		challenge, _, err := start("SCRAM-SHA-256").Next(t.Context(), []byte("n,,n=nobody,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_, salt, _ := strings.Cut(string(challenge), ",")
		salts[salt] = true
	}
	if len(salts) != 1 {
		t.Errorf("salts of an unknown user differ: %v", salts)
	}
}

func TestMasterAndDeny(t *testing.T) {
	denied := filepath.Join(t.TempDir(), "denied")
	if err := os.WriteFile(denied, []byte("bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	accounts := testAccounts(t, func(o *Options) {
		o.MasterUserSeparator = "*"
		o.Passdbs = append([]Passdb{{Driver: "passwd-file", Args: denied, Deny: true}}, o.Passdbs...)
		o.Passdbs = append(o.Passdbs, Passdb{Driver: "static", Args: "password=bpw user=boss", Master: true, Pass: true})
	})
	user, err := accounts.Password(t.Context(), fromNearby, "alice*boss", "bpw")
	if err != nil || user.Name != "alice" || user.Master != "boss" {
		t.Errorf("master login: %+v, %v", user, err)
	}
	for _, row := range [][2]string{{"alice*boss", "pw"}, {"nobody*boss", "bpw"}, {"alice*bob", "bpw"}, {"bob", ""}} {
		if _, err := accounts.Password(t.Context(), fromNearby, row[0], row[1]); !errors.Is(err, ErrProof) {
			t.Errorf("%v: %v", row, err)
		}
	}
	exchange, err := accounts.Start(t.Context(), fromNearby, "PLAIN")
	if err != nil {
		t.Fatal(err)
	}
	if _, user, err := exchange.Next(t.Context(), []byte("alice\x00boss\x00bpw")); err != nil || user.Master != "boss" {
		t.Errorf("PLAIN as another: %+v, %v", user, err)
	}
}

func TestLookupAndUsers(t *testing.T) {
	accounts := testAccounts(t, nil)
	if user, err := accounts.Lookup(t.Context(), Client{Service: "lmtp"}, "Bob"); err != nil || user.Home != "/srv/bob" {
		t.Errorf("%+v, %v", user, err)
	}
	for _, name := range []string{"nobody", "", "a\nb"} {
		if _, err := accounts.Lookup(t.Context(), Client{Service: "lmtp"}, name); !errors.Is(err, ErrNoUser) {
			t.Errorf("%q: %v", name, err)
		}
	}
	var names []string
	if err := accounts.Users(t.Context(), func(name string) bool { names = append(names, name); return true }); err != nil || len(names) != 6 {
		t.Errorf("%v, %v", names, err)
	}
	fixed := testAccounts(t, func(o *Options) { o.Userdbs = []Userdb{{Driver: "static", Args: "uid=1 gid=2 home=/x/%u"}} })
	if user, err := fixed.Lookup(t.Context(), Client{}, "bob"); err != nil || user.Home != "/x/bob" || user.UID != 1 {
		t.Errorf("static userdb: %+v, %v", user, err)
	}
	if _, err := fixed.Lookup(t.Context(), Client{}, "nobody"); !errors.Is(err, ErrNoUser) {
		t.Errorf("static userdb knows nobody: %v", err)
	}
	lax := testAccounts(t, func(o *Options) {
		o.Userdbs = []Userdb{{Driver: "static", Args: "uid=1 gid=2 home=/x/%u allow_all_users=yes"}}
	})
	if _, err := lax.Lookup(t.Context(), Client{}, "nobody"); err != nil {
		t.Errorf("allow_all_users: %v", err)
	}
}

func TestFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	accounts := testAccounts(t, func(o *Options) {
		o.Passdbs = []Passdb{{Driver: "passwd-file", Args: "scheme=PLAIN " + path}}
		o.Userdbs = []Userdb{{Driver: "static", Args: "home=/x"}}
	})
	if _, err := accounts.Password(t.Context(), fromNearby, "new", "a"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v", err)
	}
	for _, secret := range []string{"a", "b"} {
		if err := os.WriteFile(path, []byte("new:"+secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := accounts.Password(t.Context(), fromNearby, "new", secret); err != nil {
			t.Errorf("password %s: %v", secret, err)
		}
	}
	if err := os.WriteFile(path, []byte("new:"+strings.Repeat("x", maxPasswdLine+1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := accounts.Password(t.Context(), fromNearby, "new", "b"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("endless line: %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	for _, block := range []Passdb{{}, {Driver: "oracle"}, {Driver: "passwd-file"}, {Driver: "passwd-file", Args: "scheme=NOSUCH /x"}, {Driver: "passwd-file", Args: "nosuch=1 /x"}} {
		block.Where = "/etc/dovecot/dovecot.conf:7"
		if _, err := New(Options{Passdbs: []Passdb{block}, Expand: expandLetters}); err == nil || !strings.Contains(err.Error(), block.Where) {
			t.Errorf("%+v: %v", block, err)
		}
	}
}

func TestPenalties(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := testAccounts(t, func(o *Options) { o.Penalty, o.FailureDelay = true, 2*time.Second })
		try := func(client Client, secret string) time.Duration {
			begin := time.Now()
			_, err := accounts.Password(t.Context(), client, "alice", secret)
			if (err == nil) != (secret == "pw") {
				t.Errorf("password %s: %v", secret, err)
			}
			return time.Since(begin)
		}
		var spent []time.Duration
		for range 6 {
			spent = append(spent, try(fromNearby, "wrong"))
		}
		if spent[0] < 2*time.Second || spent[5] < 15*time.Second {
			t.Errorf("guessing is not slowed: %v", spent)
		}
		elsewhere := Client{Service: "imap", Remote: netip.MustParseAddrPort("198.51.100.9:1"), Secured: true}
		if d := try(elsewhere, "pw"); d > time.Second {
			t.Errorf("the owner waits %v", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := accounts.Password(ctx, fromNearby, "alice", "wrong"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("cancelled: %v", err)
		}
	})
	p := newPenalties(time.Now)
	for i := range 2*maxPenalties + 10 {
		p.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), fmt.Sprint(i))
	}
	if len(p.addresses) > maxPenalties || len(p.accounts) > maxPenalties {
		t.Errorf("%d addresses, %d accounts are remembered", len(p.addresses), len(p.accounts))
	}
}

func TestSystemUsers(t *testing.T) {
	s := newSystem("passwd")
	found, ok, err := s.lookup(t.Context(), map[string]string{"u": "root"})
	if err != nil {
		t.Skipf("no name service here: %v", err)
	}
	if uid, _ := found.get("uid"); !ok || uid != "0" {
		t.Errorf("root: %v, %v", found, ok)
	}
	for _, name := range []string{"-s", "a b", "no such user", "0", "nosuchuser-at-all"} {
		if _, ok, err := s.lookup(t.Context(), map[string]string{"u": name}); ok || err != nil {
			t.Errorf("%q: %v, %v", name, ok, err)
		}
	}
}

func FuzzPasswdLine(f *testing.F) {
	for line := range strings.Lines(usersText) {
		f.Add(strings.TrimSuffix(line, "\n"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		name, record, ok := parsePasswdLine(line)
		if ok && name == "" {
			t.Errorf("%q gives a user without a name", line)
		}
		if len(record) > len(line)+2 {
			t.Errorf("%q gives %d fields", line, len(record))
		}
	})
}
