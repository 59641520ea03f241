package sasl

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

var errWrong = errors.New("wrong")

// secrets is a Credentials over passwords in memory.
type secrets struct {
	passwords map[string]string
	tokens    map[string]string
	salt      []byte
	proven    string
}

func (s *secrets) Plain(authorization, authentication, password string) error {
	if want, ok := s.passwords[authentication]; !ok || want != password {
		return errWrong
	}
	return s.Proven(authorization, authentication)
}

func (s *secrets) CRAMMD5(authentication string, challenge, digest []byte) error {
	mac := hmac.New(md5.New, []byte(s.passwords[authentication]))
	mac.Write(challenge)
	if !hmac.Equal(mac.Sum(nil), digest) {
		return errWrong
	}
	return s.Proven("", authentication)
}

func (s *secrets) DigestHash(authentication, realm string) ([16]byte, error) {
	return md5.Sum([]byte(authentication + ":" + realm + ":" + s.passwords[authentication])), nil
}

func (s *secrets) SCRAMKeys(authentication, hash string) (SCRAMKeys, error) {
	return MakeSCRAMKeys(hash, s.passwords[authentication], s.salt, 4096)
}

func (s *secrets) External(authorization string) error { return s.Proven("", authorization) }
func (s *secrets) Anonymous(trace string) error        { return s.Proven("", "anonymous "+trace) }

func (s *secrets) Token(authentication, token string) error {
	if want, ok := s.tokens[authentication]; !ok || want != token {
		return errWrong
	}
	return s.Proven("", authentication)
}

func (s *secrets) Proven(authorization, authentication string) error {
	s.proven = authorization + "/" + authentication
	return nil
}

func decode64(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// step is a response and the challenge that answers it; response "-" is none, want "done" or "done:DATA" the good end.
type step struct{ response, want string }

func TestExchanges(t *testing.T) {
	scramSalt := decode64(t, "W22ZaJ0SNY7soEsUEjb6gQ==")
	for _, test := range []struct {
		name, mechanism string
		nonce           string
		realms          []string
		credentials     secrets
		steps           []step
		err             error
		proven          string
	}{
		{
			name: "PLAIN with initial response", mechanism: "plain", credentials: secrets{passwords: map[string]string{"tim": "tanstaaf"}},
			steps: []step{{"\x00tim\x00tanstaaf", "done"}}, proven: "/tim",
		},
		{
			name: "PLAIN as another user", mechanism: "PLAIN", credentials: secrets{passwords: map[string]string{"boss": "b"}},
			steps: []step{{"-", ""}, {"alice\x00boss\x00b", "done"}}, proven: "alice/boss",
		},
		{
			name: "PLAIN wrong", mechanism: "PLAIN", credentials: secrets{passwords: map[string]string{"tim": "x"}},
			steps: []step{{"\x00tim\x00y", ""}}, err: errWrong,
		},
		{name: "PLAIN short", mechanism: "PLAIN", steps: []step{{"tim\x00y", ""}}, err: ErrMalformed},
		{name: "PLAIN empty after prompt", mechanism: "PLAIN", steps: []step{{"-", ""}, {"", ""}}, err: ErrMalformed},
		{
			name: "LOGIN", mechanism: "LOGIN", credentials: secrets{passwords: map[string]string{"tim": "tanstaaf"}},
			steps: []step{{"-", "Username:"}, {"tim", "Password:"}, {"tanstaaf", "done"}}, proven: "/tim",
		},
		{
			name: "LOGIN with initial response", mechanism: "LOGIN", credentials: secrets{passwords: map[string]string{"tim": "p"}},
			steps: []step{{"tim", "Password:"}, {"p", "done"}}, proven: "/tim",
		},
		{name: "CRAM-MD5 with initial response", mechanism: "CRAM-MD5", steps: []step{{"tim abc", ""}}, err: ErrMalformed},
		{
			name: "SCRAM-SHA-256 of RFC 7677", mechanism: "SCRAM-SHA-256", nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
			credentials: secrets{passwords: map[string]string{"user": "pencil"}, salt: scramSalt},
			steps: []step{
				{"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"},
				{"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
				{"", "done"},
			}, proven: "/user",
		},
		{
			name: "SCRAM-SHA-1 of RFC 5802", mechanism: "SCRAM-SHA-1", nonce: "3rfcNHYJY1ZVvWVs7j",
			credentials: secrets{passwords: map[string]string{"user": "pencil"}, salt: decode64(t, "QSXCR+Q6sek8bf92")},
			steps: []step{
				{"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"},
				{"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ="},
				{"", "done"},
			}, proven: "/user",
		},
		{
			name: "SCRAM wrong password", mechanism: "SCRAM-SHA-1", nonce: "3rfcNHYJY1ZVvWVs7j",
			credentials: secrets{passwords: map[string]string{"user": "Pencil"}, salt: decode64(t, "QSXCR+Q6sek8bf92")},
			steps: []step{
				{"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"},
				{"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", ""},
			}, err: ErrMismatch,
		},
		{name: "SCRAM with binding but not PLUS", mechanism: "SCRAM-SHA-1", steps: []step{{"p=tls-unique,,n=user,r=abc", ""}}, err: ErrMalformed},
		{name: "SCRAM PLUS without TLS", mechanism: "SCRAM-SHA-1-PLUS", steps: []step{{"p=tls-unique,,n=user,r=abc", ""}}, err: ErrMalformed},
		{
			name: "DIGEST-MD5 of RFC 2831", mechanism: "DIGEST-MD5", nonce: "OA6MG9tEQGm2hh", realms: []string{"elwood.innosoft.com"},
			credentials: secrets{passwords: map[string]string{"chris": "secret"}},
			steps: []step{
				{"-", `realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",charset="utf-8",algorithm="md5-sess"`},
				{
					`charset=utf-8,username="chris",realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",nc=00000001,cnonce="OA6MHXh6VqTrRk",` +
						`digest-uri="imap/elwood.innosoft.com",response=d388dad90d4bbd760a152321f2143af7,qop=auth`,
					"rspauth=ea40f60335c427b5527b84dbabcdfffd",
				},
				{"", "done"},
			}, proven: "/chris",
		},
		{
			name: "DIGEST-MD5 field twice", mechanism: "DIGEST-MD5", nonce: "n",
			steps: []step{{"-", `realm="",nonce="n",qop="auth",charset="utf-8",algorithm="md5-sess"`}, {`nonce="n",nonce="n"`, ""}}, err: ErrMalformed,
		},
		{
			name: "OAUTHBEARER", mechanism: "OAUTHBEARER", credentials: secrets{tokens: map[string]string{"user@example.com": "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="}},
			steps: []step{{"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01", "done"}}, proven: "/user@example.com",
		},
		{
			name: "OAUTHBEARER wrong", mechanism: "OAUTHBEARER", credentials: secrets{},
			steps: []step{{"n,a=u,\x01auth=Bearer x\x01\x01", `{"status":"invalid_token"}`}, {"\x01", ""}}, err: errWrong,
		},
		{
			name: "XOAUTH2", mechanism: "XOAUTH2", credentials: secrets{tokens: map[string]string{"u@example.com": "tok"}},
			steps: []step{{"user=u@example.com\x01auth=Bearer tok\x01\x01", "done"}}, proven: "/u@example.com",
		},
		{name: "EXTERNAL", mechanism: "EXTERNAL", steps: []step{{"-", ""}, {"alice", "done"}}, proven: "/alice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := Options{Hostname: "mx.example.com", Realms: test.realms}
			if test.nonce != "" {
				options.Nonce = func() string { return test.nonce }
			}
			server := New(test.mechanism, &test.credentials, options)
			for i, s := range test.steps {
				response := []byte(s.response)
				if s.response == "-" {
					response = nil
				}
				challenge, done, err := server.Next(response)
				if err != nil {
					if i != len(test.steps)-1 || !errors.Is(err, test.err) || test.err == nil {
						t.Fatalf("step %d: %v", i, err)
					}
					return
				}
				got := string(challenge)
				if done {
					got = "done"
					if challenge != nil {
						got += ":" + string(challenge)
					}
				}
				if got != s.want {
					t.Fatalf("step %d: got %q, want %q", i, got, s.want)
				}
			}
			if test.err != nil || test.credentials.proven != test.proven {
				t.Errorf("proven %q, want %q", test.credentials.proven, test.proven)
			}
		})
	}
}

func TestCRAMMD5OfRFC2195(t *testing.T) {
	credentials := &secrets{passwords: map[string]string{"tim": "tanstaaftanstaaf"}}
	server := &cramMD5{credentials: credentials, challenge: []byte("<1896.697170952@postoffice.reston.mci.net>")}
	if _, done, err := server.Next([]byte("tim b913a602c7eda7a495b4e6e7334d3890")); !done || err != nil {
		t.Fatal(done, err)
	}
	for _, bad := range []string{"tim", "tim b913", "tim b913a602c7eda7a495b4e6e7334d389z", "tim b913a602c7eda7a495b4e6e7334d38900"} {
		if _, _, err := server.Next([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	fresh := New("CRAM-MD5", credentials, Options{Hostname: "h"})
	challenge, _, err := fresh.Next(nil)
	if err != nil || !strings.HasPrefix(string(challenge), "<") || !strings.HasSuffix(string(challenge), "@h>") {
		t.Errorf("challenge %q, %v", challenge, err)
	}
}

func TestKnown(t *testing.T) {
	for _, m := range mechanisms {
		if New(strings.ToLower(m.name), &secrets{}, Options{}) == nil {
			t.Errorf("%s is listed but cannot be made", m.name)
		}
	}
	if _, known := Known("NTLM"); known || New("NTLM", &secrets{}, Options{}) != nil {
		t.Error("NTLM is not here")
	}
	if plaintext, known := Known("login"); !plaintext || !known {
		t.Error("LOGIN is plaintext")
	}
}

func FuzzServers(f *testing.F) {
	f.Add(uint8(0), []byte("\x00tim\x00tanstaaf"), []byte(""))
	f.Add(uint8(5), []byte("tim"), []byte("x"))
	f.Add(uint8(8), []byte("n,,n=user,r=abc"), []byte("c=biws,r=abcN,p=AAAA"))
	f.Add(uint8(7), []byte(`username="a",nonce="N"`), []byte(`realm="\`))
	f.Fuzz(func(t *testing.T, which uint8, first, second []byte) {
		m := mechanisms[int(which)%len(mechanisms)]
		server := New(m.name, &secrets{passwords: map[string]string{"user": "pencil"}, salt: []byte("salt")}, Options{Nonce: func() string { return "N" }})
		for _, response := range [][]byte{nil, first, second, {}} {
			_, done, err := server.Next(response)
			if done || err != nil {
				return
			}
		}
	})
}

// TestEmptyFirstResponse: an empty response in the first place is none, as Exim's dovecot authenticator has it.
func TestEmptyFirstResponse(t *testing.T) {
	for mechanism, want := range map[string]string{"PLAIN": "", "LOGIN": "Username:", "OAUTHBEARER": "", "XOAUTH2": ""} {
		server := New(mechanism, nil, Options{})
		challenge, done, err := server.Next([]byte{})
		if string(challenge) != want || done || err != nil {
			t.Errorf("%s: %q, %v, %v", mechanism, challenge, done, err)
		}
		if mechanism == "LOGIN" {
			continue
		}
		if _, _, err := server.Next([]byte{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: a second empty response: %v", mechanism, err)
		}
	}
}
