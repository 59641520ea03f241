package address

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func show(list []Address) string {
	part := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	var b strings.Builder
	for _, a := range list {
		b.WriteString("[" + part(a.Name) + "|" + part(a.Route) + "|" + part(a.Mailbox) + "|" + part(a.Host) + "]")
	}
	return b.String()
}

// TestParseList has answers of Dovecot 2.3.19.1. More are in mail/message, as ENVELOPE.
func TestParseList(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{" \r\n ", ""},
		{"a@b", "[-|-|a|b]"},
		{"a@b, c@d", "[-|-|a|b][-|-|c|d]"},
		{`"x y" <a@b>`, "[x y|-|a|b]"},
		{`x "y z" <a@b>`, "[x y z|-|a|b]"},
		{"a@b (name)", "[name|-|a|b]"},
		{"<@r,@s:a@b>", "[-|@r,@s|a|b]"},
		{"<@r a@b>", "[-|INVALID_ROUTE|a|b]"},
		{"g: a@b, c@d;", "[-|-|g|-][-|-|a|b][-|-|c|d][-|-|-|-]"},
		{"g:;", "[-|-|g|-][-|-|-|-]"},
		{"undisclosed-recipients:;", "[-|-|undisclosed-recipients|-][-|-|-|-]"},
		{"a", "[-|-|a|MISSING_DOMAIN]"},
		{"a b", "[a b|-|MISSING_MAILBOX|MISSING_DOMAIN]"},
		{"x <>", "[x|-|MISSING_MAILBOX|MISSING_DOMAIN]"},
		{"<a@b", "[-|-|a|SYNTAX_ERROR]"},
		{".a@b", "[-|-|.a|b]"},
		{"a..b@c", "[-|-|a..b|c]"},
		{"a@[1.2.3.4]", "[-|-|a|[1.2.3.4]]"},
		{"(c (d) \\) e) a@b", "[-|-|a|b]"},
		{"a@b,,c@d", "[-|-|a|b][-|-|MISSING_MAILBOX|MISSING_DOMAIN][-|-|c|d]"},
	} {
		if got := show(ParseList([]byte(c.in), 0)); got != c.want {
			t.Errorf("%q\n got %s\nwant %s", c.in, got, c.want)
		}
	}
	if got := ParseList([]byte(strings.Repeat("a@b,", 100)+"g:a,b,c;"), 7); len(got) != 7 {
		t.Errorf("%d entries with a limit of 7", len(got))
	}
	if got := ParseList([]byte("g: "+strings.Repeat("a@b,", 100)), 7); len(got) != 7 {
		t.Errorf("%d entries of a group with a limit of 7", len(got))
	}
}

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		in   string
		utf8 bool
		want Mailbox
		rest string
		err  error
	}{
		{in: "<>", want: Mailbox{}},
		{in: "<> SIZE=1", rest: " SIZE=1"},
		{in: "<a@b.example> BODY=8BITMIME", want: Mailbox{"a", "b.example"}, rest: " BODY=8BITMIME"},
		{in: "<postmaster>", want: Mailbox{Local: "postmaster"}},
		{in: "<@x,@y.z:a@b>", want: Mailbox{"a", "b"}},
		{in: "<@x:>", err: ErrSyntax},
		{in: `<"a b\"c\\"@d>`, want: Mailbox{`a b"c\`, "d"}},
		{in: `<""@d>`, err: ErrSyntax},
		{in: "<a.b+c=d/e@f_g.h-i>", want: Mailbox{"a.b+c=d/e", "f_g.h-i"}},
		{in: "<a@[192.0.2.1]>", want: Mailbox{"a", "[192.0.2.1]"}},
		{in: "<a@[IPv6:2001:db8::1]>", want: Mailbox{"a", "[IPv6:2001:db8::1]"}},
		{in: "<a@[2001:db8::1]>", err: ErrSyntax},
		{in: "<a@[300.0.2.1]>", err: ErrSyntax},
		{in: "<a..b@c>", err: ErrSyntax},
		{in: "<.a@c>", err: ErrSyntax},
		{in: "<a@>", err: ErrSyntax},
		{in: "<a@b", err: ErrSyntax},
		{in: "<a@b.>", err: ErrSyntax},
		{in: "a@b", err: ErrSyntax},
		{in: "<a b@c>", err: ErrSyntax},
		{in: "<a\r\nb@c>", err: ErrSyntax},
		{in: "<\"a\r\nb\"@c>", err: ErrSyntax},
		{in: "<ä@b>", err: ErrNotASCII},
		{in: "<a@bücher.example>", err: ErrNotASCII},
		{in: "<ä@bücher.example>", utf8: true, want: Mailbox{"ä", "bücher.example"}},
		{in: "<\xe4@b>", utf8: true, err: ErrSyntax},
		{in: "<" + strings.Repeat("a", 2000) + "@b>", err: ErrTooLong},
		{in: "", err: ErrSyntax},
	} {
		got, rest, err := ParsePath(c.in, c.utf8)
		if c.err != nil {
			c.rest = c.in
		}
		if got != c.want || rest != c.rest || !errors.Is(err, c.err) {
			t.Errorf("%q: %+v %q %v, want %+v %q %v", c.in, got, rest, err, c.want, c.rest, c.err)
		}
	}
}

func TestMailbox(t *testing.T) {
	for in, want := range map[string]string{"a@b": "a@b", `"a b"@c`: `"a b"@c`, `"a.b"@c`: "a.b@c", "a": "a", `"\a"@b`: "a@b"} {
		m, err := ParseMailbox(in, false)
		if err != nil || m.String() != want {
			t.Errorf("%q: %q %v, want %q", in, m, err, want)
		}
	}
	for _, in := range []string{"", "a@b>", "a@b c", "@b", "<a@b>"} {
		if m, err := ParseMailbox(in, true); err == nil {
			t.Errorf("%q: accepted as %+v", in, m)
		}
	}
	if (Mailbox{}).String() != "" || !(Mailbox{}).IsNull() || (Mailbox{"ä", "b"}).IsASCII() || !(Mailbox{"a", "b"}).IsASCII() {
		t.Error("the null path, or what is ASCII")
	}
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"<a@b>", `<"a b"@[1.2.3.4]> X`, "<@a,@b:c@d>", "<ä@ö>", "<>"} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, s string, smtputf8 bool) {
		m, rest, err := ParsePath(s, smtputf8)
		if err != nil {
			return
		}
		if !strings.HasSuffix(s, rest) || !smtputf8 && !m.IsASCII() || strings.ContainsAny(m.String(), "\r\n\x00") {
			t.Fatalf("%+v, rest %q", m, rest)
		}
		again, rest, err := ParsePath("<"+m.String()+">", smtputf8)
		if err != nil && !errors.Is(err, ErrTooLong) || err == nil && (again != m || rest != "") {
			t.Fatalf("%+v is %+v again, %q, %v", m, again, rest, err)
		}
	})
}

func FuzzParseList(f *testing.F) {
	for _, seed := range []string{"a@b (c), \"d\" <@e:f@g>", "x: a, b;", "a . b @ c . d", "(((", "\"\\"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		list := ParseList(value, 0)
		if !reflect.DeepEqual(list, ParseList(value, 1<<30)) {
			t.Fatal("a limit that is not reached changes the list")
		}
		if len(list) > len(value)+3 {
			t.Fatalf("%d entries of %d bytes", len(list), len(value))
		}
		depth := 0
		for _, a := range list {
			switch {
			case a.Host != nil && a.Mailbox == nil:
				t.Fatalf("a host without a mailbox: %s", show(list))
			case a.Host == nil && a.Mailbox != nil:
				depth++
			case a.Host == nil:
				depth--
			}
		}
		if depth != 0 {
			t.Fatalf("groups that do not end: %s", show(list))
		}
	})
}

func BenchmarkParseList(b *testing.B) {
	value := []byte(`"A B" <a@example.com>, c@example.org (C), D E <d@example.net>`)
	b.ReportAllocs()
	for b.Loop() {
		ParseList(value, 0)
	}
}
