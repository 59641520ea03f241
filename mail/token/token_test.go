package token

import (
	"fmt"
	"strings"
	"testing"
)

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		read           func(*Scanner, *[]byte) Outcome
	}{
		{"atom", "a=b/c (x) d", "a=b/c|1|d", (*Scanner).Atom},
		{"atom at the end", "abc", "abc|0|", (*Scanner).Atom},
		{"no atom", ".", "|-1|.", (*Scanner).Atom},
		{"dot-atom", "a . b.c@", "a.b.c|1|@", (*Scanner).DotAtom},
		{"dot at the end", "a.", "a.|-1|", (*Scanner).DotAtom},
		{"token", "a.b=c", "a.b|1|=c", (*Scanner).MIMEToken},
		{"empty token", "=c", "|1|=c", (*Scanner).MIMEToken},
		{"quoted", "\"a\\\"b\r\n c\" d", "a\"b c|1|d", (*Scanner).Quoted},
		{"unclosed", `"ab`, "|-1|", (*Scanner).Quoted},
		{"NUL", "\"a\x00b\"", "a\uFFFDb|0|", (*Scanner).Quoted},
		{"phrase", `a. "b c" d<`, "a. b c d|1|<", (*Scanner).Phrase},
		{"domain", "@ a.b>", "a.b|1|>", (*Scanner).Domain},
		{"literal", "@[1.2]>", "[1.2]|1|>", (*Scanner).Domain},
		{"unclosed literal", "@[1.2", "|-1|", (*Scanner).Domain},
		{"media type", "text / plain; a=b", "text/plain|1|; a=b", (*Scanner).MediaType},
		{"no subtype", "text/; a=b", "|-1|; a=b", (*Scanner).MediaType},
		{"type alone", "text", "text|-1|", (*Scanner).MediaType},
		{"junk behind it", "text/plain x", "|-1|x", (*Scanner).MediaType},
	} {
		s := Scanner{Text: []byte(c.in)}
		var dst []byte
		out := c.read(&s, &dst)
		if got := fmt.Sprintf("%s|%d|%s", dst, out, s.Text[s.Pos:]); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestParams(t *testing.T) {
	for in, want := range map[string]string{
		"; a=b; c=\"d e\"":            "a=b,c=d e",
		"; a=b c=d; e=f":              "a=b,e=f",
		"; name==?utf-8?q?x?=; a=b":   "name==?utf-8?q?x?=,a=b",
		"; a*1=y; b=z; a*0=x":         "b=z,a=xy",
		"; a*0*=u''x; a*1=%":          "a*=u''x%25",
		"; a*0=x; a*1*=y":             "a*=''xy",
		"; a*0=x; a*2=y":              "a*0=x,a*2=y",
		"; a; b=c;;; d=e; f=\"g":      "d=e",
		"; a*4294967296=x":            "a=x",
		"; a=":                        "a=",
		strings.Repeat("; a=b", 3000): strings.TrimSuffix(strings.Repeat("a=b,", 3000), ","),
	} {
		s := Scanner{Text: []byte(in)}
		var got []string
		for _, p := range s.Params() {
			got = append(got, p.Name+"="+p.Value)
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%.60q: %.100q, want %.100q", in, strings.Join(got, ","), want)
		}
	}
}
