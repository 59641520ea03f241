package header

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"postilion/mail/token"
)

func TestDecodeWords(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"plain", "plain"},
		{"=?utf-8?q?a=C3=A4_b?=", "aä b"},
		{"=?ISO-8859-1?Q?=E4?=", "ä"},
		{"=?iso-8859-1*de?q?=E4?=", "ä"},
		{"=?utf-8?b?w6Q=?=", "ä"},
		{"=?utf-8?B?w6Q?=", "ä"},
		{"x =?utf-8?q?a?= y", "x a y"},
		{"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"},
		{"=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"},
		{"=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"},
		{"=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"},
		{"=?utf-8?q?a?= =?iso-8859-1?q?=E4?=", "aä"},
		{`"=?utf-8?q?a?="`, `"a"`},
		{"(=?utf-8?q?a?=)", "(a)"},
		{"x=?utf-8?q?a?=y", "xay"},
		{"=?utf-8?x?a?=", "=?utf-8?x?a?="},
		{"=?utf-8?q?a", "=?utf-8?q?a"},
		{"=?utf-8?q?a?", "=?utf-8?q?a?"},
		{"=?utf-8?q", "=?utf-8?q"},
		{"=?", "=?"},
		{"=?utf-8?q??=", ""},
		{"=?utf-8?q?a b?=", "a b"},
		{"=?utf-8?q?=ZZ?=", "=ZZ"},
		{"a\xe4b", "a\uFFFDb"},
		{"=?x-nobody-knows?q?a=E4?=", "a\uFFFD"},
		{"=?iso-2022-jp?B?GyRCJCIbKEI=?=", "あ"},
		{"=?=?utf-8?q?a?=", "=?a"},
	} {
		if got := string(DecodeWords(nil, []byte(c.in))); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestEncodeText(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain text": "plain text", "ä": "=?utf-8?B?w6Q=?=", "a\nb": "a b", "=?x": "=?utf-8?B?PT94?=",
	} {
		if got := string(EncodeText(nil, in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"A B": "A B", "A. B": `"A. B"`, `a"b\`: `"a\"b\\"`, "": `""`, "Ä": "=?utf-8?B?w4Q=?="} {
		if got := string(EncodePhrase(nil, in)); got != want {
			t.Errorf("phrase %q: %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ -~äöü€😊]{0,200}`).Draw(t, "text")
		encoded := EncodeText(nil, text)
		for word := range strings.SplitSeq(string(encoded), " ") {
			if strings.HasPrefix(word, "=?utf-8?B?") && len(word) > 75 {
				t.Fatalf("a word of %d bytes", len(word))
			}
		}
		if got := string(DecodeWords(nil, encoded)); got != text {
			t.Fatalf("%q came back as %q", text, got)
		}
	})
}

func readParams(s string) []token.Param {
	scanner := token.Scanner{Text: []byte(s)}
	return scanner.Params()
}

func TestParam(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"; filename=a", "a"},
		{`; filename="a b"`, "a b"},
		{`; FileName="=?utf-8?q?=C3=A4?="`, "ä"},
		{"; filename*=utf-8''%C3%A4", "ä"},
		{"; filename*=iso-8859-1'de'%E4", "ä"},
		{"; filename=x; filename*=utf-8''%C3%A4", "ä"},
		{"; filename*0=a; filename*1=b", "ab"},
		{"; filename*1=b; filename*0=a", "ab"},
		{"; filename*0*=utf-8''%C3; filename*1*=%A4; filename*2=%41", "ä%41"},
		{"; filename*=%C3%A4", "ä"},
		{"; filename*=''%C3%A4", "ä"},
		{"; filename*0=a; filename*2=c", ""},
		{"; other=a", ""},
		{"", ""},
	} {
		if got := Param(readParams(c.in), "filename"); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`[ -~äöü€😊]{0,60}`).Filter(func(s string) bool { return !strings.Contains(s, "=?") }).Draw(t, "value")
		written := AppendParam([]byte("text/plain"), "name", value)
		if got := Param(readParams(strings.TrimPrefix(string(written), "text/plain")), "name"); got != value {
			t.Fatalf("%q came back as %q from %q", value, got, written)
		}
	})
}

func TestParseDate(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"Mon, 02 Jan 2006 15:04:05 +0100", "2006-01-02T15:04:05+01:00"},
		{"2 Jan 2006 15:04 -0730", "2006-01-02T15:04:00-07:30"},
		{" Mon (x), 2 (y) January 06 5.04.05 (z) GMT (comment)", "2006-01-02T05:04:05Z"},
		{"2 Jan 69 15:04:05", "2069-01-02T15:04:05Z"},
		{"2 Jan 70 15:04:05 EST", "1970-01-02T15:04:05-05:00"},
		{"2 Jan 2006 15:04:05 pdt", "2006-01-02T15:04:05-07:00"},
		{"2 Jan 2006 15:04:05 A", "2006-01-02T15:04:05+01:00"},
		{"2 Jan 2006 15:04:05 K", "2006-01-02T15:04:05+10:00"},
		{"2 Jan 2006 15:04:05 N", "2006-01-02T15:04:05-01:00"},
		{"2 Jan 2006 15:04:05 Z", "2006-01-02T15:04:05Z"},
		{"2 Jan 2006 15:04:05 CET", "2006-01-02T15:04:05Z"},
		{"2 Jan 2006\r\n 15:04:05 +0000", "2006-01-02T15:04:05Z"},
		{"31 Dec 2016 23:59:60 +0000", "2016-12-31T23:59:59Z"},
		{"29 Feb 2024 00:00:00 +9999", "2024-02-29T00:00:00Z"},
		{"29 Feb 2023 00:00:00 +0000", ""},
		{"0 Jan 2006 15:04:05", ""},
		{"", ""},
		{"Mon", ""},
		{"Mon 2 Jan 2006 15:04:05", ""},
		{"2006-01-02 15:04:05", ""},
		{"2 Foo 2006 15:04:05", ""},
		{"2 Jan 206 15:04:05", ""},
		{"2 Jan 1899 15:04:05", ""},
		{"2 Jan 2006 25:04:05", ""},
		{"2 Jan 2006 15", ""},
		{"2 Jan 2006 15:4", ""},
		{"123 Jan 2006 15:04", ""},
	} {
		got, ok := ParseDate([]byte(c.in))
		if ok != (c.want != "") || ok && got.Format(time.RFC3339) != c.want {
			t.Errorf("%q: %s %t, want %q", c.in, got.Format(time.RFC3339), ok, c.want)
		}
	}
	when := time.Date(2024, 2, 9, 8, 7, 6, 0, time.FixedZone("", -3*3600))
	written := AppendDate(nil, when)
	if got, ok := ParseDate(written); string(written) != "Fri, 09 Feb 2024 08:07:06 -0300" || !ok || !got.Equal(when) {
		t.Errorf("%s, read again %s", written, got)
	}
}

func FuzzDecodeWords(f *testing.F) {
	f.Add([]byte("=?utf-8?q?a=C3=A4?= =?utf-8?b?w6Q=?= x"))
	f.Add([]byte("=?=?=?utf-8?q"))
	f.Fuzz(func(t *testing.T, value []byte) {
		if got := DecodeWords(nil, value); !utf8.Valid(got) {
			t.Fatalf("%q is not UTF-8", got)
		}
	})
}

func FuzzParam(f *testing.F) {
	f.Add([]byte("; a*0*=utf-8''%C3; a*1=b; c=\"d\""))
	f.Add([]byte("; a*99999999999999=b;;;=(x"))
	f.Fuzz(func(t *testing.T, value []byte) {
		s := token.Scanner{Text: value}
		params := s.Params()
		if len(params) > len(value) {
			t.Fatalf("%d parameters in %d bytes", len(params), len(value))
		}
		for _, p := range params {
			if !utf8.ValidString(Param(params, strings.TrimSuffix(p.Name, "*"))) {
				t.Fatal("not UTF-8")
			}
		}
	})
}

func FuzzParseDate(f *testing.F) {
	f.Add([]byte("Mon, 02 Jan 2006 15:04:05 +0100"))
	f.Add([]byte("(x) 2 Jan 70 5.04 pdt"))
	f.Fuzz(func(t *testing.T, value []byte) {
		when, ok := ParseDate(value)
		if !ok {
			return
		}
		written := AppendDate(nil, when)
		if again, ok := ParseDate(written); !ok && when.Year() >= 1900 && when.Year() < 10000 || ok && !again.Equal(when) {
			t.Fatalf("%s is %s again, %t", written, again, ok)
		}
	})
}

func BenchmarkDecodeWords(b *testing.B) {
	value := []byte("Re: =?utf-8?q?a_subject_with_=C3=A4?= and more")
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		dst = DecodeWords(dst[:0], value)
	}
}

func BenchmarkParseDate(b *testing.B) {
	value := []byte("Mon, 02 Jan 2006 15:04:05 +0100")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := ParseDate(value); !ok {
			b.Fatal("not a date")
		}
	}
}

// TestManyWords: an endless row of beginnings takes time in proportion.
func TestManyWords(t *testing.T) {
	for _, piece := range []string{"=?", "=?a?q?", "=?utf-8?q?a?= ", "=?a?b?="} {
		if out := DecodeWords(nil, bytes.Repeat([]byte(piece), 1<<20/len(piece))); len(out) > 2<<20 {
			t.Errorf("%q became %d bytes", piece, len(out))
		}
	}
}
