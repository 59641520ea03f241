package account

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// file writes a file of a test and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func reasonOf(err error) string {
	var told interface{ Reason() string }
	if errors.As(err, &told) {
		return told.Reason()
	}
	return ""
}

// TestPassdbControl: what the blocks' settings make of the same names and passwords.
func TestPassdbControl(t *testing.T) {
	first := file(t, "first", "alice:{PLAIN}one\nboth:{PLAIN}one\nshut:{PLAIN}one::::::nologin reason=Gone_fishing\nmute:{PLAIN}one::::::nologin\n"+
		"moved:{PLAIN}one::::::user=alice\nprox:{PLAIN}one::::::proxy=y host=127.0.0.1\nfar:{PLAIN}one::::::allow_nets=10.0.0.0/8\n"+
		"broken:{NOSUCHSCHEME}one\n")
	second := file(t, "second", "both:{PLAIN}two\nbob:{PLAIN}two\nbroken:{PLAIN}two\n")
	denied := file(t, "denied", "bob:\n")
	masters := file(t, "masters", "boss:{PLAIN}mpw\n")
	block := func(path string, change func(*Passdb)) Passdb {
		p := Passdb{Driver: "passwd-file", Args: path, Where: "dovecot.conf:1"}
		if change != nil {
			change(&p)
		}
		return p
	}
	two := []Passdb{block(first, nil), block(second, nil)}
	for _, c := range []struct {
		name, user, password string
		passdbs              []Passdb
		want                 string
		kind                 error
		reason               string
	}{
		{name: "first", user: "alice", password: "one", passdbs: two, want: "alice"},
		{name: "second", user: "bob", password: "two", passdbs: two, want: "bob"},
		{name: "the second has another password", user: "both", password: "two", passdbs: two, want: "both"},
		{name: "neither", user: "both", password: "three", passdbs: two, kind: ErrProof},
		{name: "failure returns", user: "both", password: "two", passdbs: []Passdb{block(first, func(p *Passdb) { p.ResultFailure = "return-fail" }), two[1]}, kind: ErrProof},
		{name: "failure is good enough", user: "nobody", password: "x", passdbs: []Passdb{block(first, func(p *Passdb) { p.ResultFailure = "return-ok" })}, want: "nobody"},
		{name: "both must agree", user: "both", password: "one", passdbs: []Passdb{
			block(first, func(p *Passdb) { p.ResultSuccess = "continue-ok" }), block(second, func(p *Passdb) { p.ResultFailure = "return-fail" }),
		}, kind: ErrProof},
		{name: "success goes on", user: "alice", password: "one", passdbs: []Passdb{block(first, func(p *Passdb) { p.ResultSuccess = "continue-ok" }), two[1]}, want: "alice"},
		{name: "success means no", user: "alice", password: "one", passdbs: []Passdb{block(first, func(p *Passdb) { p.ResultSuccess = "return-fail" })}, kind: ErrProof},
		{name: "skipped when authenticated", user: "both", password: "one", passdbs: []Passdb{
			block(first, func(p *Passdb) { p.ResultSuccess = "continue-ok" }), block(second, func(p *Passdb) { p.Skip, p.ResultFailure = "authenticated", "return-fail" }),
		}, want: "both"},
		{name: "internal failure goes on", user: "broken", password: "two", passdbs: two, want: "broken"},
		{name: "internal failure alone", user: "broken", password: "one", passdbs: two[:1], kind: ErrUnavailable},
		{name: "internal failure returns", user: "broken", password: "two", passdbs: []Passdb{block(first, func(p *Passdb) { p.ResultInternalFail = "return-fail" }), two[1]}, kind: ErrUnavailable},
		{name: "missing file", user: "alice", password: "one", passdbs: []Passdb{block("/nonexistent/users", nil)}, kind: ErrUnavailable},
		{name: "denied", user: "bob", password: "two", passdbs: []Passdb{block(denied, func(p *Passdb) { p.Deny = true }), two[1]}, kind: ErrProof},
		{name: "not denied", user: "both", password: "two", passdbs: []Passdb{block(denied, func(p *Passdb) { p.Deny = true }), two[1]}, want: "both"},
		{name: "deny is not known", user: "both", password: "two", passdbs: []Passdb{block("/nonexistent/denied", func(p *Passdb) { p.Deny = true }), two[1]}, kind: ErrUnavailable},
		{name: "nologin", user: "shut", password: "one", passdbs: two, kind: ErrDenied, reason: "Gone_fishing"},
		{name: "nologin without a reason", user: "mute", password: "one", passdbs: two, kind: ErrDenied},
		{name: "nologin and a wrong password", user: "shut", password: "x", passdbs: two, kind: ErrProof},
		{name: "another name", user: "moved", password: "one", passdbs: two, want: "alice"},
		{name: "proxy", user: "prox", password: "one", passdbs: two, kind: ErrUnavailable},
		{name: "allow_nets", user: "far", password: "one", passdbs: two, kind: ErrProof},
		{name: "default_fields", user: "alice", password: "one", passdbs: []Passdb{block(first, func(p *Passdb) { p.DefaultFields = "user=eve nologin" })}, kind: ErrDenied},
		{name: "override_fields", user: "moved", password: "one", passdbs: []Passdb{block(first, func(p *Passdb) { p.OverrideFields = "user=%u-x" })}, want: "moved-x"},
		{name: "another mechanism's", user: "alice", password: "one", passdbs: []Passdb{block(first, func(p *Passdb) { p.Mechanisms = []string{"login"} })}, kind: ErrProof},
		{name: "filtered", user: "alice", password: "one", passdbs: []Passdb{block(first, func(p *Passdb) { p.UsernameFilter = []string{"*", "!al*"} })}, kind: ErrProof},
		{name: "master", user: "alice*boss", password: "mpw", passdbs: []Passdb{two[0], block(masters, func(p *Passdb) { p.Master = true })}, want: "alice"},
		{name: "master's own name", user: "boss", password: "mpw", passdbs: []Passdb{two[0], block(masters, func(p *Passdb) { p.Master = true })}, kind: ErrProof},
		{name: "no master", user: "eve*alice", password: "one", passdbs: []Passdb{two[0], block(masters, func(p *Passdb) { p.Master = true })}, kind: ErrProof},
		{name: "master of nobody", user: "nobody*boss", password: "mpw", passdbs: []Passdb{block(masters, func(p *Passdb) { p.Master, p.Pass = true, true }), two[0]}, kind: ErrProof},
		{name: "master of one who may not", user: "shut*boss", password: "mpw", passdbs: []Passdb{block(masters, func(p *Passdb) { p.Master, p.Pass = true, true }), two[0]}, kind: ErrDenied, reason: "Gone_fishing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := New(Options{
				Passdbs: c.passdbs, Userdbs: []Userdb{{Driver: "static", Args: "uid=7"}}, Mechanisms: []string{"plain"}, MasterUserSeparator: "*", Expand: expandLetters,
			})
			if err != nil {
				t.Fatal(err)
			}
			user, err := a.Password(t.Context(), fromNearby, c.user, c.password)
			if c.kind != nil {
				if !errors.Is(err, c.kind) || reasonOf(err) != c.reason {
					t.Errorf("%v (told %q) instead of %v (%q)", err, reasonOf(err), c.kind, c.reason)
				}
				return
			}
			if err != nil || user.Name != c.want || user.UID != 7 {
				t.Errorf("%+v, %v", user, err)
			}
		})
	}
}

// TestVerbose: auth_verbose says why, and no password.
func TestVerbose(t *testing.T) {
	var log strings.Builder
	users := file(t, "users", usersText)
	for _, verbose := range []string{"default", "no", "yes"} {
		log.Reset()
		a, err := New(Options{
			Passdbs: []Passdb{{Driver: "passwd-file", Args: users, Verbose: verbose}}, Userdbs: []Userdb{{Driver: "static"}}, Mechanisms: []string{"plain"},
			Expand: expandLetters, Log: slog.New(slog.NewTextHandler(&log, nil)), Verbose: verbose == "default",
		})
		if err != nil {
			t.Fatal(err)
		}
		client := fromNearby
		client.Session = "S"
		for _, name := range []string{"alice", "nobody"} {
			if _, err := a.Password(t.Context(), client, name, "sesame"); !errors.Is(err, ErrProof) {
				t.Error(err)
			}
		}
		said := strings.Contains(log.String(), "passwd-file(alice,192.0.2.5,<S>): Password mismatch") && strings.Contains(log.String(), "passwd-file(nobody,192.0.2.5,<S>): unknown user")
		if said != (verbose != "no") || strings.Contains(log.String(), "sesame") {
			t.Errorf("%s:\n%s", verbose, log.String())
		}
	}
}

// TestOneEntryOneAccount: names that username_format leads to one entry mean one account, unless domains have their own files or homes.
func TestOneEntryOneAccount(t *testing.T) {
	users := file(t, "users", "alice:{PLAIN}pw:::::\nroamer:{PLAIN}pw:::/home/roamer::\n")
	for _, c := range []struct{ args, overrides, name, entry string }{
		{"username_format=%n " + users, "", "alice@example.org", "alice"},
		{"username_format=%n " + users, "", "alice", ""},
		{"username_format=%n " + users, "home=/srv/%n", "alice@example.org", "alice"},
		{"username_format=%n " + users, "home=/srv/%d/%n", "alice@example.org", ""},
		{"username_format=%n " + users, "mail=vault:/srv/%d", "alice@example.org", ""},
		{"username_format=%n " + users, "", "roamer@example.org", "roamer"},
		{"username_format=%n " + filepath.Dir(users) + "/%d", "", "alice@users", ""},
	} {
		a, err := New(Options{Userdbs: []Userdb{{Driver: "passwd-file", Args: c.args, OverrideFields: c.overrides}}, Expand: expandLetters})
		if err != nil {
			t.Fatal(err)
		}
		user, err := a.Lookup(t.Context(), fromNearby, c.name)
		if err != nil || user.Entry != c.entry || user.Name != c.name || user.Fields["\x00entry"] != "" {
			t.Errorf("%s (%s): %+v, %v", c.name, c.args, user, err)
		}
	}
}

// TestTokens: OAUTHBEARER and XOAUTH2 through a passdb of driver oauth2.
func TestTokens(t *testing.T) {
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer good":
			_, _ = io.WriteString(w, `{"email":"alice","dept":"it"}`)
		case "Bearer busy":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer idp.Close()
	settings := file(t, "oauth2", "introspection_url = "+idp.URL+"/me\nopenid_configuration_url = https://idp.example/openid\npass_attrs = userdb_dept=x\n")
	a, err := New(Options{
		Passdbs: []Passdb{{Driver: "oauth2", Args: settings, Mechanisms: []string{"oauthbearer", "xoauth2"}}, {Driver: "passwd-file", Args: file(t, "users", usersText), Mechanisms: []string{"plain"}}},
		Userdbs: []Userdb{{Driver: "static", Args: "uid=7"}}, Mechanisms: []string{"plain", "oauthbearer", "xoauth2"}, Expand: expandLetters,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mechanism, name, token, document string
		kind                             error
	}{
		{mechanism: "OAUTHBEARER", name: "alice", token: "good"},
		{mechanism: "XOAUTH2", name: "alice", token: "good"},
		{mechanism: "OAUTHBEARER", name: "alice", token: "stolen", kind: ErrProof, document: `{"status":"invalid_token","openid-configuration":"https://idp.example/openid"}`},
		{mechanism: "XOAUTH2", name: "alice", token: "stolen", kind: ErrProof, document: `{"status":"401","schemes":"bearer","scope":"mail","openid-configuration":"https://idp.example/openid"}`},
		{mechanism: "OAUTHBEARER", name: "bob", token: "good", kind: ErrProof, document: `{"status":"invalid_token","openid-configuration":"https://idp.example/openid"}`},
		{mechanism: "OAUTHBEARER", name: "alice", token: "busy", kind: ErrUnavailable},
		{mechanism: "OAUTHBEARER", name: "alice", token: "", kind: ErrMalformed},
		// The passwd-file is not for tokens.
		{mechanism: "OAUTHBEARER", name: "alice", token: "pw", kind: ErrProof, document: `{"status":"invalid_token","openid-configuration":"https://idp.example/openid"}`},
	} {
		steps, err := a.Start(t.Context(), fromNearby, c.mechanism)
		if err != nil {
			t.Fatal(err)
		}
		response := "user=" + c.name + "\x01auth=Bearer " + c.token + "\x01\x01"
		if c.mechanism == "OAUTHBEARER" {
			response = "n,a=" + c.name + ",\x01auth=Bearer " + c.token + "\x01\x01"
		}
		challenge, user, err := steps.Next(t.Context(), []byte(response))
		if string(challenge) != c.document {
			t.Errorf("%s %s %s: document %q", c.mechanism, c.name, c.token, challenge)
		}
		if c.document != "" && err == nil && user == nil {
			_, user, err = steps.Next(t.Context(), []byte("\x01"))
		}
		if c.kind != nil {
			if !errors.Is(err, c.kind) || user != nil {
				t.Errorf("%s %s %s: %v", c.mechanism, c.name, c.token, err)
			}
			continue
		}
		if err != nil || user == nil || user.Name != "alice" || user.Fields["dept"] != "x" {
			t.Errorf("%s %s %s: %+v, %v", c.mechanism, c.name, c.token, user, err)
		}
	}
	if _, err := a.Password(t.Context(), fromNearby, "alice", "pw"); err != nil {
		t.Errorf("password beside tokens: %v", err)
	}
	if _, err := New(Options{Userdbs: []Userdb{{Driver: "oauth2", Args: settings}}, Expand: expandLetters}); err == nil {
		t.Error("a userdb of tokens")
	}
}

// TestTokenFailureCounts: a client that does not wait for the end of a refused exchange is slowed like any other.
func TestTokenFailureCounts(t *testing.T) {
	a := testAccounts(t, func(o *Options) { o.Mechanisms, o.Penalty = []string{"xoauth2"}, true })
	steps, err := a.Start(t.Context(), fromNearby, "XOAUTH2")
	if err != nil {
		t.Fatal(err)
	}
	if challenge, _, err := steps.Next(t.Context(), []byte("user=alice\x01auth=Bearer guess\x01\x01")); err != nil || len(challenge) == 0 {
		t.Fatalf("%q, %v", challenge, err)
	}
	if f := a.penalties.addresses[network(fromNearby.Remote.Addr())]; f == nil || f.count != 1 {
		t.Errorf("failures of the address: %+v", f)
	}
	if _, _, err := steps.Next(t.Context(), []byte("\x01")); !errors.Is(err, ErrProof) {
		t.Error(err)
	}
	if f := a.penalties.addresses[network(fromNearby.Remote.Addr())]; f == nil || f.count != 1 {
		t.Errorf("one failure is counted twice: %+v", f)
	}
}
