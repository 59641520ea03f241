package password

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Each row was made by Dovecot 2.3.19 or by the C library's crypt.
func TestVerify(t *testing.T) {
	for _, row := range []struct{ stored, user, password string }{
		{"{PLAIN}secret", "", "secret"},
		{"{CLEARTEXT}secret", "", "secret"},
		{"{PLAIN.B64}c2VjcmV0", "", "secret"},
		{"{PLAIN.HEX}736563726574", "", "secret"},
		{"{PLAIN-TRUNC}6-secret", "", "secret and more"},
		{"{PLAIN-MD4}67d3dafef63ff00603aeef3769cfbf0d", "", "secret"},
		{"{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69", "", "secret"},
		{"{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "", "secret"},
		{"{MD5}5ebe2294ecd0e0f08eab7690d2a6ee69", "", "secret"},
		{"{MD5}$1$Jq/zUcSH$jr36Ybkl4LFSwoUzjuRGq0", "", "secret"},
		{"{SMD5}jRfSdk9fqGFRrQBsemqfKq9SadY=", "", "secret"},
		{"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "", "secret"},
		{"{SHA256.HEX}2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", "", "secret"},
		{"{SSHA}2Z6kPY+FpASfTtYVjAOAAnSzQsXvtPjk", "", "secret"},
		{"{ssha.b64}qAj+wkNpSj71z3Qm3T0Jx7kvtZuYQzzq", "", "secret"},
		{"{SSHA256}MNmORZESa8ECc9Ct2HsYS9srEb/dhTFxu1C2CLO/Cmk/SWjn", "", "secret"},
		{"{SSHA512}LX1YD9wvU9lVsLvz6Z2n2bmr7QkArs19xZiC/yVvrOSQNMdSMomAOeo87HWcgiw9vGiNcxydLFz6pvrC6shD4OXewd0=", "", "secret"},
		{"{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56", "", "secret"},
		{"{CRAM-MD5.B64}zTun3qrW5cojRIukLjeXR6ng9/H7wAyKgbuqw5VzG1Y=", "", "secret"},
		{"{DIGEST-MD5}fb2441a715a5484c6fa16147c4a6b7a8", "joe", "secret"},
		{"{DIGEST-MD5}c197225a9a698c115795c0e619e807cc", "joe@example.com", "secret"},
		{"{SCRAM-SHA-1}4096,ZVyBe0Wl//2E9sZxawacww==,vN7NCkljH4qh19c1y3RNVPgFtFE=,HEoCmWevNbvgaccMwX+lwoiOUQg=", "", "secret"},
		{"{SCRAM-SHA-256}4096,MqhaP9sVB6GEd7tx/mQ6ig==,urDBDbtaO7qmduCdKk+J9bJwyQcFdQA2MOA3kCC8j5E=,2/7+8jHGG6F4hRmuP7omMDZw/ZxPmecfrTVImnfrC54=", "", "secret"},
		{"{PBKDF2}$1$seli33Gu6Nw.n4L1$5000$158b10e525289b77410486bc04385ff8ce4a35bb", "", "secret"},
		{"{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$UKhA3e7+9h3VxeTuKgOXGA$gdinQq7cMnOzy7iJPyvFsrpYZf4AwGr8G/blBPNN87I", "", "secret"},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$CqzQX7q9f3N9t1sYSqKhug$nWn3ofKcNfTYaNbTssb3swBylC6JWUdBbEjo1j6nDEk", "", "secret"},
		{"{BLF-CRYPT}$2y$05$0nW8MtsiMtZ4bAaBbueISuOmRAa3xHvvJvNK4hkrz3j5h/miTVF3W", "", "secret"},
		{"{OTP}sha1 1024 d97a8025d375fd09 b91e51dbfacc3fd9", "", "secret"},
		{"{SHA256-CRYPT}$5$ULWSHP62.u5MEERH$srhSg5BJYjgh1pQ19OS4dnQq3ZNRCrcV.8gwz48Wfs9", "", "secret"},
		{"$5$abc$bBHLwRRW2Li0XKaX13kz/g2fkDil4Jx46aNvd.48MS8", "", ""},
		{"$5$rounds=1000$longersaltthansi$QAc4fQd8PEgQ0E1l/sB5WBepCntES1/OkrWjedLNmu3", "", "pässword with spaces and more than sixteen octets"},
		{"$6$salt$YpneRMDqacf3Cb8jYBiOgHJ8JSOP0u50ItO7gJeHxZgTzM5LWYkuEU2fu3OFmmvnM6ASCnSvDUM/MFm78SFyy/", "", strings.Repeat("x", 100)},
		{"$6$rounds=1234$s$nC.aGdNj2Ovxcdm/U0kIkZMaL95E8bwJuAl47m9ZO2odcxwhdB0TKBq.Gr.C.8chGUCTQoghwgCC4JQVvEWI61", "", "secret"},
		{"$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1", "", "secret"},
		{"$1$a$8CfZSfErbeskipdhZHtvu.", "", ""},
	} {
		stored, err := Parse(row.stored, "CRYPT")
		if err != nil {
			t.Errorf("%s: %v", row.stored, err)
			continue
		}
		if ok, err := stored.Verify(row.user, row.password); !ok || err != nil {
			t.Errorf("%s: right password: %v, %v", row.stored, ok, err)
		}
		for _, wrong := range []string{row.password + "x", "X" + row.password, strings.Repeat("long", 2000)} {
			if ok, err := stored.Verify(row.user, wrong); err != nil || (ok && stored.Scheme != "PLAIN-TRUNC") {
				t.Errorf("%s: wrong password: %v, %v", row.stored, ok, err)
			}
		}
	}
}

func TestGenerateVerifies(t *testing.T) {
	for _, name := range Schemes() {
		rounds := 0
		if name == "PBKDF2" || strings.HasPrefix(name, "SHA") && strings.HasSuffix(name, "CRYPT") {
			rounds = 1000
		}
		if name == "PLAIN-TRUNC" {
			// Dovecot makes it without the length that its check asks for.
			continue
		}
		text, err := Generate(name, "joe@example.com", "pässword", rounds)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		stored, err := Parse(text, "")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if ok, err := stored.Verify("joe@example.com", "pässword"); !ok || err != nil {
			t.Errorf("%s: %v, %v", text, ok, err)
		}
		if ok, _ := stored.Verify("joe@example.com", "Pässword"); ok {
			t.Errorf("%s takes a wrong password", text)
		}
	}
}

func TestBadData(t *testing.T) {
	for _, text := range []string{
		"{NOSUCH}x", "{PLAIN", "{PLAIN.BASE32}x", "{SHA.HEX}zz",
		"{SHA}short", "{SSHA256}!", "{SCRAM-SHA-1}1,2", "{PBKDF2}$1$a$x$y", "{PBKDF2}$1$a$999999999$y",
		"{ARGON2ID}x", "{ARGON2ID}$argon2id$v=19$m=999999999,t=1,p=1$AAAA$AAAAAAAA", "{OTP}md5 1 a b",
		"{CRYPT}$9$abc", "{PLAIN-TRUNC}secret", "{SHA512-CRYPT}$6$rounds=999999999$a$b", "{BLF-CRYPT}$2y$99$abc",
	} {
		stored, err := Parse(text, "")
		if err == nil {
			_, err = stored.Verify("u", "p")
		}
		if !errors.Is(err, ErrScheme) {
			t.Errorf("%s: error %v", text, err)
		}
	}
	for _, locked := range []string{"", "!", "*", "!$6$salt$x"} {
		if ok, err := (Stored{Scheme: "CRYPT", Data: locked}).Verify("u", ""); ok || err != nil {
			t.Errorf("locked %q: %v, %v", locked, ok, err)
		}
	}
}

func TestProofs(t *testing.T) {
	challenge := []byte("<1896.697170952@postoffice.reston.mci.net>")
	digest := []byte("\xb9\x13\xa6\x02\xc7\xed\xa7\xa4\x95\xb4\xe6\xe7\x33\x4d\x38\x90")
	hashed, err := Generate("CRAM-MD5", "", "tanstaaftanstaaf", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{PLAIN}tanstaaftanstaaf", hashed} {
		stored, _ := Parse(text, "")
		if ok, err := stored.CRAMMD5(challenge, digest); !ok || err != nil {
			t.Errorf("%s: %v, %v", text, ok, err)
		}
		if ok, err := stored.CRAMMD5([]byte("other"), digest); ok || err != nil {
			t.Errorf("%s, other challenge: %v, %v", text, ok, err)
		}
	}
	plain := Stored{Scheme: "PLAIN", Data: "tanstaaf"}
	if ok, err := plain.APOP("<1896.697170952@dbc.mtview.ca.us>", "c4c9334bac560ecc979e58001b3e22fb"); !ok || err != nil {
		t.Errorf("APOP of RFC 1939: %v, %v", ok, err)
	}
	sha := Stored{Scheme: "SHA", Data: "5en6G6MezRroT3XKqkdPOmY/BfQ="}
	if _, err := sha.CRAMMD5(challenge, digest); !errors.Is(err, ErrScheme) {
		t.Errorf("SHA serves CRAM-MD5: %v", err)
	}
	if _, err := sha.SCRAMKeys("SHA-1", nil); !errors.Is(err, ErrScheme) {
		t.Errorf("SHA serves SCRAM: %v", err)
	}
	if _, err := sha.APOP("", ""); !errors.Is(err, ErrScheme) {
		t.Errorf("SHA serves APOP: %v", err)
	}
	if _, err := sha.DigestHash("", ""); !errors.Is(err, ErrScheme) {
		t.Errorf("SHA serves DIGEST-MD5: %v", err)
	}
}

// TestDovecotAgrees has the real doveadm check what Generate makes.
func TestDovecotAgrees(t *testing.T) {
	doveadm, err := exec.LookPath("doveadm")
	if err != nil {
		t.Skip("doveadm is not installed: the comparison with the real Dovecot is not made")
	}
	theirs, err := exec.Command(doveadm, "-c", "/dev/null", "pw", "-l").Output()
	if err != nil {
		t.Skipf("doveadm pw -l: %v", err)
	}
	for _, name := range strings.Fields(string(theirs)) {
		if !slices.Contains(Schemes(), name) {
			t.Errorf("Dovecot has the scheme %s", name)
		}
	}
	for _, name := range Schemes() {
		if name == "PLAIN-TRUNC" {
			continue
		}
		text, err := Generate(name, "joe", "secret", 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if out, err := exec.Command(doveadm, "-c", "/dev/null", "pw", "-t", text, "-p", "secret", "-u", "joe").CombinedOutput(); err != nil {
			t.Errorf("Dovecot refuses %s: %v %s", text, err, out)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"{PLAIN}x", "{SHA.HEX}00", "{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAAAAAA", "$6$rounds=1000$a$b", "$1$a$b", "{OTP}sha1 1 a b", "{PBKDF2}$1$a$1$b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "$m=") || strings.Contains(text, "rounds=") || strings.Contains(text, "$2") || strings.Contains(text, "PBKDF2") || strings.Contains(text, "SCRAM") {
			// Their cost is the stored data's choice.
			return
		}
		stored, err := Parse(text, "CRYPT")
		if err != nil {
			return
		}
		if ok, err := stored.Verify("u", "\x00not the password"); ok && err == nil && stored.Scheme != "PLAIN-TRUNC" && !strings.Contains(text, "not the password") {
			t.Errorf("%q takes any password", text)
		}
	})
}
