package smtp

import "testing"

// TestPathsAsPostfixReadsThem holds what a real Postfix 3.7.11 made of each argument of MAIL FROM: the sender in its log, or "!" for
// "501 5.1.7 Bad sender address syntax".
func TestPathsAsPostfixReadsThem(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{`<a@b.c>`, `a@b.c`},
		{`a@b.c`, `a@b.c`},
		{`a@b.c>`, `a@b.c`},
		{`<"a b"@c.d>`, `"a b"@c.d`},
		{`<"a\"b"@c.d>`, `"a\"b"@c.d`},
		{`<a\ b@c.d>`, `"a b"@c.d`},
		{`<a\b@c.d>`, `ab@c.d`},
		{`<"ab"@c.d>`, `ab@c.d`},
		{`<"a.b"@c.d>`, `a.b@c.d`},
		{`<""@c.d>`, `""@c.d`},
		{`<a..b@c.d>`, `"a..b"@c.d`},
		{`<a.@c.d>`, `"a."@c.d`},
		{`<.a@c.d>`, `".a"@c.d`},
		{`<a @ b.c>`, `a@b.c`},
		{`<a@b .c>`, `a@b.c`},
		{`<a(comment)@b.c>`, `a@b.c`},
		{`<(x)a@b.c>`, `a@b.c`},
		{`<a@b.c(x)>`, `a@b.c`},
		{`<a@b.c,d@e.f>`, `!`},
		{`<a@b.c;>`, `a@b.c`},
		{`<x:a@b.c>`, `"x:a"@b.c`},
		{`<x:a@b.c;>`, `a@b.c`},
		{`<@x:a@b.c>`, `a@b.c`},
		{`<@x,@y:a@b.c>`, `a@b.c`},
		{`<@x.y>`, `""@x.y`},
		{`<@>`, `!`},
		{`<a@>`, `!`},
		{`<a@@b.c>`, `"a@"@b.c`},
		{`<a@b@c.d>`, `"a@b"@c.d`},
		{`<a@b.c.>`, `a@b.c.`},
		{`<a@b.c..>`, `!`},
		{`<a@[1.2.3.4]>`, `a@[1.2.3.4]`},
		{`<a@[IPv6:2001:db8::1]>`, `a@[IPv6:2001:db8::1]`},
		{`<a@[ipv6:::1]>`, `a@[ipv6:::1]`},
		{`<a@[2001:db8::1]>`, `!`},
		{`<a@[x]>`, `!`},
		{`<a@[1.2.3.4>`, `a@[1.2.3.4]`},
		{`<a@1.2.3.4>`, `!`},
		{`<a@1>`, `!`},
		{`<a@-b.c>`, `!`},
		{`<a@b-.c>`, `!`},
		{`<a@b_c.d>`, `a@b_c.d`},
		{`<a@b+c>`, `!`},
		{`<a@b:c>`, `!`},
		{`<a@b%c>`, `!`},
		{`<a%b@c.d>`, `a%b@c.d`},
		{`<a%b@>`, `a%b@`},
		{`<x!y>`, `x!y`},
		{`<x y>`, `!`},
		{`<<a@b.c>>`, `a@b.c`},
		{`<<a@b.c>`, `!`},
		{`<>`, ``},
		{`<<>>`, ``},
		{`< >`, ``},
		{`< a@b.c >`, `a@b.c`},
		{`<"a@b.c">`, `a@b.c`},
		{`<"a@b"@c.d>`, `"a@b"@c.d`},
		{`"a b"@c.d`, `"a b"@c.d`},
		{`"a b`, `!`},
		{`<"a b>`, `!`},
		{`Joe<a@b.c>`, `a@b.c`},
		{`<a@b.c>SIZE=1`, `!`},
		{`<a|b@c.d>`, `a|b@c.d`},
		{`<-a@b.c>`, `!`},
		{`<a\>`, `!`},
		{`<a\>@b.c>`, `"a>"@b.c`},
		{`<[a]@b.c>`, `"[a]"@b.c`},
		{`<a@b.c [x]>`, `!`},
		{`<root>`, `root`},
		{`<a@b.123>`, `a@b.123`},
		{`<a@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.org>`, `!`},
	} {
		tokens := tokenize([]byte("FROM:"+c.raw), nil)
		got := "!"
		if len(tokens) == 2 && !tokens[1].broken {
			if address, ok := parsePath(tokens[1].text, pathRules{}); ok {
				got = QuoteLocal(address)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.raw, got, c.want)
		}
	}
}

func TestXtext(t *testing.T) {
	for _, c := range []struct {
		coded, text string
		ok          bool
	}{{"a+2Bb", "a+b", true}, {"a+2bb", "a+b", true}, {"+", "", false}, {"+2", "", false}, {"+GG", "", false}, {"a=b", "a=b", true}} {
		got, ok := DecodeXtext([]byte(c.coded))
		if ok != c.ok || ok && string(got) != c.text {
			t.Errorf("%s: %q, %t", c.coded, got, ok)
		}
	}
	for _, text := range []string{"", "plain", "a+b=c d", "\x00\x7f\xff"} {
		if got, ok := DecodeXtext(AppendXtext(nil, text)); !ok || string(got) != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
}
