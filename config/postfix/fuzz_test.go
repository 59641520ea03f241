package postfix

import (
	"errors"
	"strings"
	"testing"
)

func FuzzMain(f *testing.F) {
	for _, seed := range []string{"a = b\n c\n#x\n d\n", "  a = b", "a\n = b", "= b", "\xef\xbb\xbfa=b\r\n", "a=\x00", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMain("main.cf", text)
		if err != nil {
			return
		}
		for _, e := range m.entries {
			if e.name == "" || e.value != trim(e.value) || e.pos.Line < 1 {
				t.Errorf("entry %+v of %q", e, text)
			}
		}
	})
}

func FuzzMaster(f *testing.F) {
	for _, seed := range []string{"smtp inet n - n - - smtpd -o a=b -o { c = d } -v\n", "x unix - - - 1? 0 pipe {a b} -o", "x unix - - - - - y -o {", "a"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		services, _, err := parseMaster("master.cf", text)
		if err != nil {
			return
		}
		for _, s := range services {
			if s.Name == "" || s.Command == "" {
				t.Errorf("service %+v of %q", s, text)
			}
		}
	})
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"$a", "${a?{$b}:{c}}", "${{$a} <level {3.6} ? {x} : {y}}", "$(a", "${a:}", "$$"} {
		f.Add(seed, "x", "$a")
	}
	f.Fuzz(func(t *testing.T, text, a, b string) {
		values := map[string]string{"a": a, "b": b}
		got, err := expand(text, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
		if err == nil && len(got) > MaxValueSize {
			t.Errorf("%d bytes", len(got))
		}
	})
}

func TestLimits(t *testing.T) {
	if _, err := parseMain("main.cf", make([]byte, MaxFileSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("file: %v", err)
	}
	if _, err := parseMain("main.cf", []byte("a="+strings.Repeat("x", MaxValueSize))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("line: %v", err)
	}
	// Names that double each other: as text, and as nothing at all.
	for _, last := range []string{"xxxxxxxx", ""} {
		lookup := func(name string) (string, bool) {
			if len(name) > 60 {
				return last, true
			}
			return "$" + name + "x$" + name + "x", true
		}
		var macro *MacroError
		if _, err := expand("$x", lookup); !errors.As(err, &macro) {
			t.Errorf("expansion bomb: %v", err)
		}
	}
}

func TestExpansion(t *testing.T) {
	values := map[string]string{"d": "example.com", "e": "", "ref": "$e", "loop": "$loop"}
	for _, test := range []struct{ text, want, failure string }{
		{"$d.x", "example.com.x", ""},
		{"${ d }-$(d)-$$d", "example.com-example.com-$d", ""},
		{"${d?x:y}", "x:y", ""},
		{"${e?{x} : {y}}", "y", ""},
		{"${ref?set}", "set", ""},
		{"${{010} == {10}?{x}:{y}}", "x", ""},
		{"${{$d} == {example.com}}", "true", ""},
		{"${{3.10} >level {3.9}?{x}:{y}}", "x", ""},
		{"${{x} <level {3.6}?{x}:{y}}", "", `malformed compatibility level syntax: "x"`},
		{"${d?{x}y}", "", `":" expected at: "...x}>>>y"`},
		{"${e:{x}y}", "", `unexpected input at: "...x}>>>y"`},
		{"${d+x}", "", `attribute name syntax error at: "...d>>>+x"`},
		{"a$", "", `empty macro name: "a$"`},
		{"${d", "", `truncated macro reference: "${d"`},
		{"${{a} ==foo {b}}", "", `bad operator suffix at: "...==>>>foo"`},
		{"$loop", "", `unreasonable macro call nesting: "loop"`},
	} {
		got, err := expand(test.text, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
		switch {
		case test.failure == "" && (err != nil || got != test.want):
			t.Errorf("%s: %q, %v; want %q", test.text, got, err, test.want)
		case test.failure != "" && (err == nil || err.Error() != test.failure):
			t.Errorf("%s: %v, want %s", test.text, err, test.failure)
		}
	}
}

func TestLint(t *testing.T) {
	c := load(t, "mydestinaton = a\nsmtpd_client_restrictions = permit, reject_rbl_client x\nrelayhost = x # y\nhtml_directory = no\n", "")
	var all strings.Builder
	for _, d := range c.Check() {
		all.WriteString(d.String() + "\n")
	}
	for _, want := range []string{
		"main.cf:1: warning: unused parameter: mydestinaton=a (did you mean mydestination?)",
		`main.cf:2: notice: smtpd_client_restrictions: everything after "permit" is unreachable`,
		`main.cf:3: notice: relayhost: "#" does not start a comment here`,
		"main.cf:4: notice: html_directory has no meaning here",
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no %q in\n%s", want, all.String())
		}
	}
}
