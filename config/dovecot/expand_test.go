package dovecot

import (
	"errors"
	"strings"
	"testing"
)

var someone = VarMap(map[string]string{
	"user": "Jo.Doe@Example.COM", "n": "Jo.Doe", "domain": "Example.COM", "h": "/home/jo", "service": "imap", "rip": "192.0.2.1",
	"pid": "4711", "q": `a"b\c'd`, "passwd-file:home": "/x", "env:CASE": "world", "v": "1700000000", "blank": "x  ",
})

func TestExpand(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"plain", "plain"},
		{"100%%", "100%"},
		{"end%", "end"},
		{"%u", "Jo.Doe@Example.COM"},
		{"%{user}", "Jo.Doe@Example.COM"},
		{"%n@%d", "Jo.Doe@Example.COM"},
		{"%{username}", "Jo.Doe"},
		{"%Lu", "jo.doe@example.com"},
		{"%Ud", "EXAMPLE.COM"},
		{"%L{user}", "jo.doe@example.com"},
		{"%LUn", "JO.DOE"},
		{"%h/mail", "/home/jo/mail"},
		{"%s(%p)", "imap(4711)"},
		{"%{home}", "/home/jo"},
		{"%1n", "J"},
		{"%1.1n", "o"},
		{"%2.3n", ".Do"},
		{"%0.2n", "Jo"},
		{"%-3n", "Doe"},
		{"%-3.2n", "Do"},
		{"%10.3n", ""},
		{"%.2n", "Jo"},
		{"%1Mu", "2"},
		{"%2.2Mu", "56"},
		{"%Nn", "9d01536e"},
		{"%256Nn", "6e"},
		{"%Rp", "1174"},
		{"%Eq", `a\"b\\c\'d`},
		{"%Xp", "1267"},
		{"%08Xv", "6553f100"},
		{"%06p", "004711"},
		{"%Dd", "dc=Example,dc=COM"},
		{"%T{blank}|", "x|"},
		{"%{env:CASE}", "world"},
		{"%{env:POSTILION_NO_SUCH}", ""},
		{"%{passwd-file:home}", "/x"},
		{"%{passwd-file:none:y}", "y"},
		{"%{md5:n}", "9d01536e0fdaea42d3bab40996bf4430"},
		{"%{sha1;truncate=8:n}", "ae"},
		{"%{sha256;rounds=2,salt=s,format=base64:n}", "Y0p7FaaU+GGLmdL/ZhrkLa5H6mj7Uo9NDP4lWcztx7I="},
		{"%{if;%d;ne;;%d;%{n}}", "Example.COM"},
		{"%{if;%s;eq;pop3;p;i}", "i"},
		{"%{if;%n;*;Jo*;yes;no}", "yes"},
		{"%{if;3;>=;2;a\\;b;c}", "a;b"},
		{"%{if;%{if;1;==;1;x;y};eq;x;in;out}", "in"},
		{"%{user|username}", "Jo.Doe"},
		{"%{user | domain | lower}", "example.com"},
		{"%{nosuch | default('d')}", "d"},
		{"%{user|username|upper}", "JO.DOE"},
	} {
		got, err := Expand(c.text, someone)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.text, got, err, c.want)
		}
	}
}

func TestExpandErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"%z", "unknown variable %z"},
		{"%{nosuch}", "unknown variable %{nosuch}"},
		{"%{user", "missing } after %{user"},
		{"%L", "a variable ends after %L"},
		{"%{if;a;b}", "%{if} has 2 parts instead of 5"},
		{"%{if;a;~;b;c;d}", `%{if}: unsupported comparison "~"`},
		{"%{if;a;<;1;c;d}", "does not compare numbers"},
		{"%{sha1;rounds=x:n}", "is no number from"},
		{"%{sha1;foo=1:n}", "unknown option"},
		{"%{user|nofilter}", "unknown filter"},
		{strings.Repeat("%{if;a;eq;a;", 12) + "x" + strings.Repeat(";}", 12), "nested more than"},
		{strings.Repeat("%u", MaxExpandLength/10), "longer than"},
	} {
		if got, err := Expand(c.text, someone); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: %.40q, %v; want %s", c.text, got, err, c.want)
		}
	}
	if _, err := Expand("%z", nil); !errors.Is(err, ErrUnknownVariable) {
		t.Error(err)
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"%u", "%Lu/%2.3Mn", "%{if;%d;ne;;%d;%{hostname}}", "%{sha256;rounds=2:user}", "%{user | username | lower}", "%-5.3HXn", "%{", "%0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Expand(text, someone)
		if err == nil && len(got) > 8*MaxExpandLength {
			t.Errorf("%d octets", len(got))
		}
		if err == nil && !strings.Contains(text, "%") && got != text {
			t.Errorf("%q became %q", text, got)
		}
	})
}
