package rx

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestCaptures(t *testing.T) {
	for _, c := range []struct {
		notation Syntax
		flags    Flags
		pattern  string
		text     string
		want     []int
	}{
		{Perl, 0, `(a|ab)(c|bcd)(d*)`, "abcd", []int{0, 4, 0, 1, 1, 4, 4, 4}},
		{Perl, 0, `(a|ab)(c|bcd)?`, "abc", []int{0, 1, 0, 1, -1, -1}},
		{POSIXExtended, 0, `(a|ab)(c|bcd)?`, "abc", []int{0, 3, 0, 2, 2, 3}},
		{POSIXExtended, 0, `a\{2\}`, "a{2}", []int{0, 4}},
		{POSIXExtended, 0, `x\s+y`, "x \ty", []int{0, 4}},
		{POSIXExtended, 0, `\<b`, "ab b", []int{3, 4}},
		{POSIXBasic, 0, `\(a\)\{2\}`, "aa", []int{0, 2, 1, 2}},
		{POSIXBasic, 0, `a+`, "aaa+", []int{2, 4}},
		{Perl, 0, `(?<!my\.)domain$`, "their.domain\n", []int{6, 12}},
		{Perl, DollarEndOnly, `domain$`, "their.domain\n", nil},
		{Perl, FoldCase, `caf\xE9`, "CAF\xe9", []int{0, 4}},
		{Perl, FoldCase, `caf\xE9`, "caf\xc9", nil},
		{Perl, Ungreedy, `(g+)(h*?)`, "gghh", []int{0, 1, 0, 1, 1, 1}},
		{Perl, Anchored, `b`, "ab", nil},
		{Perl, 0, `foo\Kbar`, "foobar", []int{3, 6}},
		{Perl, 0, `(?|a(b)|c(d))`, "cd", []int{0, 2, 1, 2}},
		{Perl, 0, `a(?:b|\R)c`, "a\r\nc", []int{0, 4}},
		{Perl, 0, `[[:alpha:]]\xff`, "z\xff", []int{0, 2}},
	} {
		re, err := Compile(c.notation, c.pattern, c.flags)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		got, err := re.Captures([]byte(c.text))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s on %q: %v, %v; want %v", c.pattern, c.text, got, err, c.want)
		}
	}
}

func TestErrorsNameOffsetAndReason(t *testing.T) {
	for _, c := range []struct {
		notation Syntax
		pattern  string
		want     Error
	}{
		{Perl, `unclosed(`, Error{Offset: 9, Reason: "missing closing parenthesis"}},
		{Perl, `(?<=a+)b`, Error{Offset: 0, Reason: "lookbehind assertion is not fixed length"}},
		{Perl, `a)`, Error{Offset: 1, Reason: "unmatched closing parenthesis"}},
		{Perl, `a\`, Error{Offset: 2, Reason: `\ at end of pattern`}},
		{Perl, `(?R)`, Error{Offset: 2, Reason: "recursion and subroutine calls are not supported"}},
		{Perl, `(?C1)`, Error{Offset: 2, Reason: "callouts are not supported"}},
		{POSIXExtended, `a{2,1}`, Error{Offset: 5, Reason: `Invalid content of \{\}`}},
		{POSIXExtended, `a(`, Error{Offset: 2, Reason: `Unmatched ( or \(`}},
		{POSIXExtended, `*a`, Error{Offset: 0, Reason: "Invalid preceding regular expression"}},
		{POSIXExtended, `(a)\2`, Error{Offset: 3, Reason: "Invalid back reference"}},
	} {
		_, err := Compile(c.notation, c.pattern, 0)
		var got *Error
		if !errors.As(err, &got) || *got != c.want {
			t.Errorf("%s: %v; want %v", c.pattern, err, &c.want)
		}
	}
}

func TestPatternLimits(t *testing.T) {
	for name, pattern := range map[string]string{
		"length":   strings.Repeat("a", 64<<10+1),
		"nesting":  strings.Repeat("(", 300) + strings.Repeat(")", 300),
		"captures": strings.Repeat("()", 1001),
		"size":     `((ab|cd){1000}){1000}`,
		"deeper":   `((((((((((ab|c){30000}){30000}){30000}){30000}){30000}){30000}){30000}){30000}){30000}){30000}`,
		"number":   `a{65536}`,
		"nothing":  `(((){30000}){30000}){30000}`,
		"empties":  `((a{0}){30000}){30000}|*`,
	} {
		for _, notation := range []Syntax{Perl, POSIXExtended} {
			if _, err := Compile(notation, pattern, 0); err == nil {
				t.Errorf("%s in notation %d: no error", name, notation)
			}
		}
	}
}

// TestHostileTexts holds patterns that make a plain backtracker run for years.
func TestHostileTexts(t *testing.T) {
	as := strings.Repeat("a", 2000)
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{`^(a+)+$`, as + "b", false},
		{`^(a|aa)+$`, as + "b", false},
		{`^(a*)*$`, as + "b", false},
		{`(a|a|a)*c`, as, false},
		{`(x+x+)+y`, strings.Repeat("x", 3000), false},
		{`^(([a-z])+.)+[A-Z]([a-z])+$`, as, false},
		{`(?=(a+)+$)b`, as, false},
		{`((a+)+)+$`, as + "!", false},
		{`^((((((((((a+)+)+)+)+)+)+)+)+)+)+$`, as, true},
	} {
		for _, notation := range []Syntax{Perl, POSIXExtended} {
			re, err := Compile(notation, c.pattern, 0)
			if err != nil {
				continue
			}
			if got, err := re.Match([]byte(c.text)); err != nil || got != c.want {
				t.Errorf("%s notation %d: %v, %v; want %v", c.pattern, notation, got, err, c.want)
			}
		}
	}
}

func TestBudgetIsAnError(t *testing.T) {
	text := []byte(strings.Repeat("a", 3000))
	for _, pattern := range []string{`(a*)*\1b|(a*)*(a*)*\2\3c`, `(.*)(.*)(.*)\1\2\3x`, `^(?:(a)|b|aa)*(?(1)c|d)`} {
		re, err := Compile(Perl, pattern, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := re.WithBudget(100_000).Match(append(text[:len(text):len(text)], "xbcd"...)); !errors.Is(err, ErrBudget) {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// TestRememberingChangesNothing compares short budgets of plain search with a machine that remembers from the start.
func TestRememberingChangesNothing(t *testing.T) {
	for i, q := range questions(99, 4000, []Syntax{Perl, POSIXExtended}, map[Syntax][]string{Perl: perlPieces, POSIXExtended: posixPieces}) {
		re, err := Compile(q.notation, q.pattern, q.flags)
		if err != nil {
			continue
		}
		text := []byte(strings.Repeat(q.text, 1+i%3))
		plain, err := re.Captures(text)
		if err != nil {
			continue
		}
		m := re.machine(text)
		m.wantCaptures, m.longest = true, re.prog.longest
		var remembering []int
		for start := 0; start <= len(text); start++ {
			if start == 0 && re.prog.canMemo {
				m.startRemembering()
			}
			if (start == 0 || !re.filter.startOnly) && m.matchAt(start) {
				for _, slot := range m.slots[:2*(re.captures+1)] {
					remembering = append(remembering, int(slot))
				}
				break
			}
		}
		if !reflect.DeepEqual(plain, remembering) {
			t.Errorf("%v x%d: plain %v, remembering %v", q, 1+i%3, plain, remembering)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, pieces := range [][]string{perlPieces, posixPieces, basicPieces} {
		for _, p := range pieces {
			f.Add(uint8(0), uint16(0), p, "abc")
			f.Add(uint8(1), uint16(1), p+p, "aBc\n")
		}
	}
	f.Add(uint8(0), uint16(127), `^(?!owner-)(.*)-outgoing@(.*)`, "x-outgoing@y")
	f.Fuzz(func(t *testing.T, notation uint8, flags uint16, pattern, text string) {
		re, err := Compile(Syntax(notation%3), pattern, Flags(flags))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(pattern)+1 {
				t.Fatalf("%q: %#v", pattern, err)
			}
			return
		}
		re = re.WithBudget(200_000)
		caps, err := re.Captures([]byte(text))
		matched, matchErr := re.Match([]byte(text))
		if err == nil && matchErr == nil && matched != (caps != nil) {
			t.Fatalf("%q on %q: %v but %v", pattern, text, matched, caps)
		}
		for i := 0; i < len(caps); i += 2 {
			if caps[i+1] >= 0 && (caps[i] < 0 || caps[i+1] > len(text)) {
				t.Fatalf("%q on %q: %v", pattern, text, caps)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	line := []byte("Received: from mail-qt1-f172.google.com (mail-qt1-f172.google.com [209.85.160.172])\n\tby mx.example.org (Postfix) with ESMTPS id 4F2B91C0034 for <someone@example.org>; Tue, 24 Nov 2026 10:00:00 +0000 (UTC)")
	for name, pattern := range map[string]string{
		"literal-absent": `^Subject: make money fast`,
		"class":          `name=[^>]*\.(bat|com|exe|dll)`,
		"anchored":       `^(.*)-outgoing@(.*)$`,
		"address":        `<([^<>@]+)@([a-z.]+)>`,
		"lookahead":      `^(?!X-)(?=.*google).*ESMTPS`,
	} {
		re, err := Compile(Perl, pattern, FoldCase|DotAll)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(line)))
			for range b.N {
				if _, err := re.Match(line); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	re, err := Compile(Perl, `<([^<>@]+)@([a-z.]+)>`, FoldCase)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("captures", func(b *testing.B) {
		b.ReportAllocs()
		var dst []int
		for range b.N {
			dst, _ = re.AppendCaptures(dst[:0], line)
		}
	})
}

func ExampleCompile() {
	re, err := Compile(Perl, `^(?!owner-)(.*)-outgoing@(.*)`, FoldCase)
	if err != nil {
		fmt.Println(err)
		return
	}
	text := "staff-OUTGOING@example.org"
	caps, err := re.Captures([]byte(text))
	fmt.Println(text[caps[2]:caps[3]], text[caps[4]:caps[5]], err)
	// Output: staff example.org <nil>
}
