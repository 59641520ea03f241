package password

import (
	"os/exec"
	"strings"
	"testing"
)

// Each row was made by libxcrypt 4.4.
var cryptRows = []struct{ hash, password string }{
	{"abNANd1rDfiNc", "secret"},
	{"$y$j9T$abcdefgh$IUWJt2doU4Kf6E/JP1UkAT3S5O3Q7SSA8SJirXIlEu9", "secret"},
	{"$7$CU..../....abcdefgh$XWs9HxtpA2.6U5CDBBbcW.h3o9pYlC.MIIb8JqMgZx6", "secret"},
}

func TestCryptMethods(t *testing.T) {
	for _, row := range cryptRows {
		if ok, err := verifyCrypt(row.hash, "", row.password); !ok || err != nil {
			t.Errorf("%s: right password: %v, %v", row.hash, ok, err)
		}
		if ok, err := verifyCrypt(row.hash, "", "Secret"); ok || err != nil {
			t.Errorf("%s: wrong password: %v, %v", row.hash, ok, err)
		}
	}
	if ok, _ := verifyCrypt("abNANd1rDfiNc", "", "secret\x00"); !ok {
		t.Error("DES takes a NUL for a part of the key that is not empty")
	}
	if ok, _ := (Stored{Scheme: "CRYPT", Data: "abNANd1rDfiNc"}).Verify("", "secret\x00"); ok {
		t.Error("a password with NUL matches")
	}
	if _, err := Generate("DES-CRYPT", "", "a\x00b", 0); err == nil {
		t.Error("a password with NUL is hashed")
	}
}

func TestBcryptLongPassword(t *testing.T) {
	long := strings.Repeat("x", 72)
	text, err := Generate("BLF-CRYPT", "", long+"tail", 4)
	if err != nil {
		t.Fatal(err)
	}
	stored, _ := Parse(text, "")
	for password, want := range map[string]bool{long: true, long + "other": true, long[:71]: false} {
		if ok, err := stored.Verify("", password); ok != want || err != nil {
			t.Errorf("%d octets: %v, %v", len(password), ok, err)
		}
	}
}

func TestBadCryptSettings(t *testing.T) {
	for _, setting := range []string{
		"$y$", "$y$j", "$y$j9", "$y$j9T", "$y$j9T$!$x", "$y$j9T$a$x", "$y$.9T$abcdefgh$x", "$y$jzT$abcdefgh$x", "$y$j9zzzzzz$abcdefgh$x",
		"$y$j9T5....$abcdefgh$x", "$y$jGzzzz$abcdefgh$x", "$y$j9T/zzzzz$ab$", "$7$", "$7$CU..../...", "$7$zU..../....abc$", "$7$CU....!....abc$",
		"$7$C...../....abc$", "$7$CU.........abc$", "!!NANd1rDfiN!", "a!NANd1rDfiNc",
	} {
		if ok, err := verifyCrypt(setting, "", "x"); ok || (err == nil && !strings.HasPrefix(setting, "!")) {
			t.Errorf("%s: %v, %v", setting, ok, err)
		}
	}
}

// TestCryptAgrees compares with crypt(3) of the C library, by way of perl.
func TestCryptAgrees(t *testing.T) {
	perl, err := exec.LookPath("perl")
	if err != nil {
		t.Skip("perl is not installed: the comparison with crypt(3) is not made")
	}
	for _, setting := range []string{
		"ab", "./", "zZ", "9a", "$1$saltsalt", "$5$saltstring", "$6$rounds=1000$saltstring", "$y$j75$abcdefgh", "$y$j8.$LdJMENpBABJJ3hIHjB1Bi.",
		"$y$j9T$x.y/z012", "$y$j6G./$abcd", "$y$j75/.$abcd", "$y$j75..$abcd", "$y$j7505$abcd", "$y$j751..$abcdefg.", "$7$6..../2....salt", "$7$7/..../....",
	} {
		for _, password := range []string{"", "x", "secret", "eightcha", "eightchars and many more, indeed sixty-four octets and over, so many that HMAC hashes them", "p\xc3\xa4ss"} {
			out, err := exec.Command(perl, "-e", "print crypt($ARGV[0],$ARGV[1])", password, setting).Output()
			theirs := string(out)
			if err != nil || strings.HasPrefix(theirs, "*") || theirs == "" {
				t.Logf("crypt(3) does not take %s", setting)
				break
			}
			if ok, err := verifyCrypt(theirs, "", password); !ok || err != nil {
				t.Errorf("%q in %s: %v, %v", password, theirs, ok, err)
			}
		}
	}
}

func FuzzCrypt(f *testing.F) {
	for _, row := range cryptRows {
		f.Add(row.hash, row.password)
	}
	f.Fuzz(func(t *testing.T, hash, password string) {
		rest, isYescrypt := strings.CutPrefix(hash, "$y$")
		switch {
		case isYescrypt:
			if p, _, err := parseYescrypt(rest); err != nil || p.n*p.r*(p.t+1) > 1<<14 {
				return
			}
		case strings.HasPrefix(hash, "$7$"), strings.Contains(hash, "rounds="), strings.HasPrefix(hash, "$2"):
			return
		}
		if ok, err := verifyCrypt(hash, "", password); ok && (err != nil || len(hash) < 13) {
			t.Errorf("%q: %v, %v", hash, ok, err)
		}
	})
}

func BenchmarkYescrypt(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := verifyCrypt(cryptRows[1].hash, "", "secret"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkDESCrypt(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := verifyCrypt(cryptRows[0].hash, "", "secret"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
