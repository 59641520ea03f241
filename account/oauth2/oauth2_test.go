package oauth2_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"postilion/account/oauth2"
)

func expand(template string, v map[string]string) (string, error) {
	return strings.NewReplacer("%Lu", strings.ToLower(v["u"]), "%u", v["u"], "%n", v["n"]).Replace(template), nil
}

func checker(t testing.TB, text string, options oauth2.Options) *oauth2.Checker {
	t.Helper()
	path := filepath.Join(t.TempDir(), "oauth2.conf.ext")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	options.Expand = expand
	c, err := oauth2.New(path, options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSettings(t *testing.T) {
	for text, want := range map[string]string{
		"introspection_url = http://idp.example/i\n": "",
		"# nothing\n":                                                                                  "tokeninfo_url or introspection_url is missing",
		"introspection_mode = local\n":                                                                 "needs local_validation_key_dict",
		"introspection_mode = guess\n":                                                                 "is none of",
		"\n\nlocal_validation_key_dict = redis:host=127.0.0.1\n":                                       ":3: local_validation_key_dict: ",
		"introspection_url = ftp://idp.example/\n":                                                     "is no http or https URL",
		"introspection_url = http://idp.example/i\nforce_introspection = maybe\n":                      ":2: force_introspection: ",
		"introspection_url = http://idp.example/i\ntimeout_msecs = soon\n":                             ":2: timeout_msecs: ",
		"introspection_url = http://idp.example/i\nmax_parallel_connections = 0\n":                     ":2: max_parallel_connections: ",
		"introspection_url = http://idp.example/i\nusername_atribute = x\n":                            ":2: unknown setting: username_atribute",
		"introspection_url\n":                                                                          ":1: expecting NAME = VALUE",
		"use_grant_password = yes\nintrospection_url = http://idp.example/i\n":                         "needs grant_url",
		"introspection_url = http://idp.example/i\ntls_ca_cert_file = /nonexistent\n":                  "/nonexistent",
		"introspection_url = \"http://idp.example/i\"\ndebug = yes\nmax_pipelined_requests = 1\n":      "",
		"introspection_url = http://idp.example/i\ntls_cert_file = /nonexistent\ntls_key_file = /no\n": "tls_cert_file",
		"x = " + strings.Repeat("y", 70<<10):                                                           "too long",
	} {
		path := filepath.Join(t.TempDir(), "x.conf.ext")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := oauth2.New(path, oauth2.Options{Expand: expand})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	if _, err := oauth2.New("/nonexistent", oauth2.Options{Expand: expand}); err == nil {
		t.Error("no file, no error")
	}
}

// idp answers as an authorization server may, by what the token says.
type idp struct {
	*httptest.Server
	last  atomic.Pointer[string]
	asked atomic.Int32
}

func newIDP(t testing.TB) *idp {
	i := &idp{}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen := r.Method + " " + r.URL.RequestURI() + " " + r.Header.Get("Authorization") + " " + string(body)
		i.last.Store(&seen)
		i.asked.Add(1)
		answer := func(status int, text string) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/info"):
			answer(200, `{"expires_in":3000}`)
		case strings.HasPrefix(r.URL.Path, "/grant"):
			if strings.Contains(string(body), "password=pw") {
				answer(200, `{"access_token":"good","token_type":"bearer"}`)
			} else {
				answer(400, `{"error":"invalid_grant"}`)
			}
		case strings.Contains(seen, "revoked"):
			answer(401, `{"error":"invalid_token"}`)
		case strings.Contains(seen, "inactive"):
			answer(200, `{"active":false,"username":"alice"}`)
		case strings.Contains(seen, "elsewhere"):
			http.Redirect(w, r, "/other", http.StatusFound)
		case strings.Contains(seen, "broken"):
			answer(500, "oops")
		case strings.Contains(seen, "nojson"):
			answer(200, "<html>")
		case strings.Contains(seen, "endless"):
			answer(200, `{"username":"`+strings.Repeat("x", 300<<10)+`"}`)
		case strings.Contains(seen, "slow"):
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Second):
			}
		case strings.Contains(seen, "narrow"):
			answer(200, `{"username":"alice","active":true,"scope":"web"}`)
		case strings.Contains(seen, "locked"):
			answer(200, `{"username":"alice","active":true,"scope":"mail","locked":"yes"}`)
		case strings.Contains(seen, "nameless"):
			answer(200, `{"active":true,"scope":"mail"}`)
		default:
			answer(200, `{"username":"Alice","active":true,"scope":"web mail","uid":17,"groups":["a","b"],"deep":{"x":1},"expires_in":3000}`)
		}
	}))
	t.Cleanup(i.Close)
	return i
}

func TestEndpoints(t *testing.T) {
	server := newIDP(t)
	url := server.URL
	base := "username_attribute = username\nscope = mail\ntimeout_msecs = 300\n"
	for _, c := range []struct {
		name, settings, token, asked string
		kind                         error
		unavailable                  bool
	}{
		{name: "auth", settings: "introspection_url = " + url + "/me", token: "good", asked: "GET /me Bearer good "},
		{name: "get", settings: "introspection_mode = get\nintrospection_url = " + url + "/me?t=", token: "g+d/%", asked: "GET /me?t=g%2Bd%2F%25  "},
		{
			name: "post", settings: "introspection_mode = post\nclient_id = me\nclient_secret = s&t\nintrospection_url = " + url + "/me", token: "good",
			asked: "POST /me  token=good&client_id=me&client_secret=s%26t",
		},
		{name: "tokeninfo first", settings: "tokeninfo_url = " + url + "/info?t=\nintrospection_url = " + url + "/me", token: "good", asked: "GET /me Bearer good "},
		{name: "tokeninfo alone", settings: "tokeninfo_url = " + url + "/me?t=", token: "good", asked: "GET /me?t=good  "},
		{name: "revoked", settings: "introspection_url = " + url + "/me", token: "revoked", kind: oauth2.ErrInvalid},
		{name: "inactive", settings: "introspection_mode = post\nintrospection_url = " + url + "/me", token: "inactive", kind: oauth2.ErrInvalid},
		{name: "narrow", settings: "introspection_url = " + url + "/me", token: "narrow", kind: oauth2.ErrDisabled},
		{name: "nameless", settings: "introspection_url = " + url + "/me", token: "nameless", kind: oauth2.ErrInvalid},
		{name: "unlocked is wanted", settings: "active_attribute = locked\nactive_value = no\nintrospection_url = " + url + "/me", token: "locked", kind: oauth2.ErrDisabled},
		{name: "any value will do", settings: "active_attribute = locked\nintrospection_url = " + url + "/me", token: "locked"},
		{name: "attribute is missing", settings: "active_attribute = locked\nintrospection_url = " + url + "/me", token: "good", kind: oauth2.ErrDisabled},
		{name: "redirection", settings: "introspection_url = " + url + "/me", token: "elsewhere", unavailable: true},
		{name: "broken", settings: "introspection_url = " + url + "/me", token: "broken", unavailable: true},
		{name: "no JSON", settings: "introspection_url = " + url + "/me", token: "nojson", unavailable: true},
		{name: "endless", settings: "introspection_url = " + url + "/me", token: "endless", unavailable: true},
		{name: "slow", settings: "introspection_url = " + url + "/me", token: "slow", unavailable: true},
		{name: "away", settings: "introspection_url = http://127.0.0.1:1/me", token: "good", unavailable: true},
		{name: "grant", settings: "use_grant_password = yes\ngrant_url = " + url + "/grant\nintrospection_url = " + url + "/me", token: "pw", asked: "GET /me Bearer good "},
		{name: "grant refused", settings: "use_grant_password = yes\ngrant_url = " + url + "/grant\nintrospection_url = " + url + "/me", token: "no", kind: oauth2.ErrInvalid},
		{name: "empty", settings: "introspection_url = " + url + "/me", token: "", kind: oauth2.ErrInvalid},
		{name: "huge", settings: "introspection_url = " + url + "/me", token: strings.Repeat("x", 17<<10), kind: oauth2.ErrInvalid},
		{name: "control characters", settings: "introspection_url = " + url + "/me", token: "a\r\nX: y", kind: oauth2.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			claims, err := checker(t, base+c.settings+"\n", oauth2.Options{}).Check(context.Background(), "alice", c.token)
			switch {
			case c.unavailable:
				if err == nil || errors.Is(err, oauth2.ErrInvalid) || errors.Is(err, oauth2.ErrDisabled) || strings.Contains(err.Error(), "token="+c.token) {
					t.Errorf("%v", err)
				}
			case c.kind != nil:
				if !errors.Is(err, c.kind) {
					t.Errorf("%v instead of %v", err, c.kind)
				}
			case err != nil:
				t.Error(err)
			case c.asked != "" && *server.last.Load() != c.asked:
				t.Errorf("asked %q instead of %q", *server.last.Load(), c.asked)
			case c.asked != "" && (claims["uid"] != "17" || claims["groups"] != "a b" || claims["deep"] != ""):
				t.Errorf("claims %v", claims)
			}
		})
	}
	c := checker(t, base+"introspection_url = "+url+"/me\n", oauth2.Options{})
	if _, err := c.Check(context.Background(), "bob", "good"); !errors.Is(err, oauth2.ErrInvalid) || !strings.Contains(err.Error(), "'bob' did not match 'alice'") {
		t.Errorf("another's token: %v", err)
	}
}

func TestCache(t *testing.T) {
	server := newIDP(t)
	now := time.Now()
	c := checker(t, "username_attribute = username\nintrospection_url = "+server.URL+"/me\n", oauth2.Options{
		CacheEntries: 2, CacheTTL: time.Hour, CacheNegativeTTL: time.Minute, Now: func() time.Time { return now },
	})
	check := func(token string, asked int32, ok bool) {
		t.Helper()
		before := server.asked.Load()
		_, err := c.Check(context.Background(), "alice", token)
		if (err == nil) != ok || server.asked.Load()-before != asked {
			t.Errorf("%s: %v after %d questions", token, err, server.asked.Load()-before)
		}
	}
	check("good", 1, true)
	check("good", 0, true)
	check("revoked", 1, false)
	check("revoked", 0, false)
	check("broken", 1, false)
	check("broken", 1, false)
	now = now.Add(61 * time.Second)
	check("revoked", 1, false)
	check("good", 0, true)
	// No longer than the token lasts.
	now = now.Add(50 * time.Minute)
	check("good", 1, true)
	for i := range 20 {
		check(fmt.Sprint("good", i), 1, true)
	}
}

// key is a key of an algorithm and the text of its file.
func key(t *testing.T, method jwt.SigningMethod) (private any, file string) {
	t.Helper()
	public := func(k crypto.PublicKey) string {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	switch m := method.(type) {
	case *jwt.SigningMethodHMAC:
		secret := []byte("a secret of thirty-two octets !!" + m.Name)
		return secret, base64.StdEncoding.EncodeToString(secret) + "\n"
	case *jwt.SigningMethodECDSA:
		curve := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}[m.Name]
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k, public(&k.PublicKey)
	case *jwt.SigningMethodEd25519:
		pub, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k, public(pub)
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k, public(&k.PublicKey)
}

func sign(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for name, value := range header {
		token.Header[name] = value
		if value == nil {
			delete(token.Header, name)
		}
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func keyDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir + "/"
}

func TestAlgorithms(t *testing.T) {
	now := time.Now().Unix()
	claims := jwt.MapClaims{"sub": "alice", "exp": now + 60}
	for _, name := range []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
		t.Run(name, func(t *testing.T) {
			method := jwt.GetSigningMethod(name)
			private, file := key(t, method)
			other, _ := key(t, method)
			if secret, ok := other.([]byte); ok {
				other = append(secret, 'x')
			}
			c := checker(t, "introspection_mode = local\nusername_attribute = sub\nlocal_validation_key_dict = fs:posix:prefix="+
				keyDir(t, map[string]string{"default/" + name + "/default": file})+"\n", oauth2.Options{})
			if _, err := c.Check(context.Background(), "alice", sign(t, method, private, claims, nil)); err != nil {
				t.Error(err)
			}
			if _, err := c.Check(context.Background(), "alice", sign(t, method, other, claims, nil)); !errors.Is(err, oauth2.ErrInvalid) {
				t.Errorf("another key: %v", err)
			}
		})
	}
}

// TestLocalRules: what the real Dovecot says to each of these is in the second column.
func TestLocalRules(t *testing.T) {
	method := jwt.SigningMethodHS256
	secret, file := key(t, method)
	dir := keyDir(t, map[string]string{
		"default/HS256/default": file, "app/HS256/x%2fy": file, "default/RS256/default": "no PEM", "default/HS512/default": "***", "secret/HS256/default": file,
	})
	local := "introspection_mode = local\nusername_attribute = sub\nusername_format = %u\nlocal_validation_key_dict = fs:posix:prefix=" + dir + "\n"
	now := time.Now().Unix()
	for _, c := range []struct {
		name     string
		settings string
		claims   jwt.MapClaims
		header   map[string]any
		want     string
	}{
		{name: "plain", claims: jwt.MapClaims{"iat": now, "nbf": now}},
		{name: "no end", claims: jwt.MapClaims{"exp": nil}, want: "missing 'exp'"},
		{name: "expired", claims: jwt.MapClaims{"exp": now - 10}, want: "token has expired"},
		{name: "end as text", claims: jwt.MapClaims{"exp": fmt.Sprint(now + 60)}},
		{name: "malformed end", claims: jwt.MapClaims{"exp": "soon"}, want: "malformed 'exp'"},
		{name: "not yet", claims: jwt.MapClaims{"nbf": now + 50}, want: "not valid yet"},
		{name: "issued in future", claims: jwt.MapClaims{"iat": now + 50}, want: "issued in future"},
		{name: "nobody", claims: jwt.MapClaims{"sub": nil}, want: "missing 'sub'"},
		{name: "no type", header: map[string]any{"typ": nil}, want: "'typ'"},
		{name: "another type", header: map[string]any{"typ": "at+jwt"}, want: "'typ'"},
		{name: "empty key id", header: map[string]any{"kid": ""}, want: "'kid' field is empty"},
		{name: "key id that is a number", header: map[string]any{"kid": 7}, want: "'kid'"},
		{name: "unknown key id", header: map[string]any{"kid": "x"}, want: "key 'x' not found"},
		{name: "party and key id", claims: jwt.MapClaims{"azp": "app"}, header: map[string]any{"kid": "x/y"}},
		{name: "way out of the directory", claims: jwt.MapClaims{"azp": ".."}, want: "not found"},
		{name: "way out by the key id", claims: jwt.MapClaims{"azp": "app"}, header: map[string]any{"kid": "../../secret/HS256/default"}, want: "not found"},
		{name: "issuer", settings: "issuers = https://a https://b", claims: jwt.MapClaims{"iss": "https://b"}},
		{name: "another issuer", settings: "issuers = https://a", claims: jwt.MapClaims{"iss": "https://b"}, want: "'https://b' is not allowed"},
		{name: "no issuer", settings: "issuers = https://a", want: "missing 'iss'"},
		{name: "audience", settings: "client_id = me", claims: jwt.MapClaims{"aud": []string{"x", "me"}}},
		{name: "another audience", settings: "client_id = me", claims: jwt.MapClaims{"aud": "you"}, want: "client_id not found in aud"},
		{name: "no audience", settings: "client_id = me", want: "client_id not found in aud"},
		{name: "scope", settings: "scope = mail", claims: jwt.MapClaims{"scope": "web mail"}},
		{name: "another scope", settings: "scope = mail", claims: jwt.MapClaims{"scope": "mailing web"}, want: "not valid for scope 'mail'"},
		{name: "other case", claims: jwt.MapClaims{"sub": "ALICE"}, want: "did not match"},
	} {
		claims := jwt.MapClaims{"sub": "alice", "exp": now + 60}
		for name, value := range c.claims {
			claims[name] = value
			if value == nil {
				delete(claims, name)
			}
		}
		_, err := checker(t, local+c.settings+"\n", oauth2.Options{}).Check(context.Background(), "alice", sign(t, method, secret, claims, c.header))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v instead of %q", c.name, err, c.want)
		}
		if err != nil && !errors.Is(err, oauth2.ErrInvalid) && !errors.Is(err, oauth2.ErrDisabled) {
			t.Errorf("%s: kind of %v", c.name, err)
		}
	}
	c := checker(t, local, oauth2.Options{})
	good := sign(t, method, secret, jwt.MapClaims{"sub": "alice", "exp": now + 60}, nil)
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + good[strings.Index(good, "."):]
	for _, text := range []string{"abc", "a.b", "a.b.c", "..", good + "x", good[:len(good)-4], none, none[:strings.LastIndex(none, ".")+1]} {
		if _, err := c.Check(context.Background(), "alice", text); !errors.Is(err, oauth2.ErrInvalid) {
			t.Errorf("%.30s: %v", text, err)
		}
	}
	// Keys that cannot be used are no fault of the token.
	for _, broken := range []jwt.SigningMethod{jwt.SigningMethodRS256, jwt.SigningMethodHS512} {
		private, _ := key(t, broken)
		_, err := c.Check(context.Background(), "alice", sign(t, broken, private, jwt.MapClaims{"sub": "alice", "exp": now + 60}, nil))
		if err == nil || errors.Is(err, oauth2.ErrInvalid) || !strings.Contains(err.Error(), "validation key ") {
			t.Errorf("%s: %v", broken.Alg(), err)
		}
	}
}

func FuzzToken(f *testing.F) {
	dir := f.TempDir()
	c := checker(f, "introspection_mode = local\nusername_attribute = sub\nlocal_validation_key_dict = fs:posix:prefix="+dir+"/\n", oauth2.Options{})
	f.Add("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MX0.AAAA")
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := c.Check(context.Background(), "alice", token); err == nil {
			t.Error("a token without a key holds")
		}
	})
}
