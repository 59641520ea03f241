package dovecot

import (
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	for _, c := range []struct {
		text string
		want line
	}{
		{"", line{kind: lineSkip}},
		{"  # note", line{kind: lineSkip}},
		{"a = b", line{kind: lineValue, key: "a", value: "b"}},
		{"a=b", line{kind: lineValue, key: "a", value: "b"}},
		{"\ta\t=\tb \t", line{kind: lineValue, key: "a", value: "b"}},
		{"a =", line{kind: lineValue, key: "a"}},
		{"a = b # c", line{kind: lineValue, key: "a", value: "b"}},
		{"a = b#c", line{kind: lineValue, key: "a", value: "b", ambiguous: true}},
		{`a = "b # c"`, line{kind: lineValue, key: "a", value: "b # c"}},
		{`a = "b \"c\" \\ d"`, line{kind: lineValue, key: "a", value: `b "c" \ d`}},
		{`a = "b`, line{kind: lineValue, key: "a", value: `"b`}},
		{`a = "`, line{kind: lineValue, key: "a"}},
		{`a = 'b'`, line{kind: lineValue, key: "a", value: "b"}},
		{`a = it's # kept`, line{kind: lineValue, key: "a", value: "it's # kept"}},
		{`a = "b" "c"`, line{kind: lineValue, key: "a", value: `b" "c`}},
		{"a = < /x", line{kind: lineFile, key: "a", value: "/x"}},
		{"a = b $c", line{kind: lineVariable, key: "a", value: "b $c"}},
		{`a = "b $c"`, line{kind: lineValue, key: "a", value: "b $c"}},
		{"a {", line{kind: lineSectionBegin, key: "a"}},
		{"a b {", line{kind: lineSectionBegin, key: "a", value: "b"}},
		{`a "b c" { # d`, line{kind: lineSectionBegin, key: "a", value: "b c"}},
		{"}", line{kind: lineSectionEnd, key: "}"}},
		{"!include x/*.conf", line{kind: lineInclude, key: "!include", value: "x/*.conf"}},
		{"!include_try x", line{kind: lineIncludeTry, key: "!include_try", value: "x"}},
		{"= b", line{kind: lineMalformed, value: "Missing key name ('=' at the beginning of line)"}},
		{"a b", line{kind: lineMalformed, key: "a", value: "Expecting '{'"}},
		{"a{", line{kind: lineMalformed, key: "a{", value: "Expecting '{'"}},
		{"a b { c = d }", line{kind: lineMalformed, key: "a", value: "Garbage after '{'"}},
		{"a = b\x00c", line{kind: lineValue, key: "a", value: "b"}},
	} {
		var p lineParser
		if got := p.parse(c.text); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.text, got, c.want)
		}
	}
}

func TestContinuedLines(t *testing.T) {
	for _, c := range []struct{ text, value string }{
		{"a = b \\\n  c", "b c"},
		{"a = b \\ # note\n  c \\\n d # note", "b c d"},
		{"a = \\\n\\\n  c", "c"},
	} {
		var p lineParser
		var last line
		for _, text := range strings.Split(c.text, "\n") {
			last = p.parse(text)
		}
		if last.kind != lineValue || last.value != c.value {
			t.Errorf("%q: %+v, want value %q", c.text, last, c.value)
		}
	}
}

func TestCommentEndsContinuation(t *testing.T) {
	var p lineParser
	for _, text := range []string{`a = b \`, "# note", "c"} {
		if l := p.parse(text); text == "c" && l.kind != lineMalformed {
			t.Errorf("%+v: what stood before the comment must be dropped", l)
		}
	}
}
