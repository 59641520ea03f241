package imap

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "write what was observed into the transcripts")

// describe runs a decoder over input in portions of step octets and tells what came out.
func describe(d *Decoder, input []byte, step int) string {
	var out strings.Builder
	for {
		event := d.Next()
		cmd := d.Command()
		switch event {
		case NeedInput:
			if len(input) == 0 {
				return out.String()
			}
			n := min(step, len(input))
			d.Feed(input[:n])
			input = input[n:]
		case Continue:
			out.WriteString("continue\n")
		case Ready:
			fmt.Fprintf(&out, "%s %s%s\n", cmd.Tag, cmd.Name, showArgs(cmd.Args))
			if cmd.Literal {
				size := 0
				sync := d.AcceptLiteral()
				for {
					part, done := d.ReadLiteral()
					size += len(part)
					if done || len(input) == 0 {
						break
					}
					n := min(step, len(input))
					d.Feed(input[:n])
					input = input[n:]
				}
				fmt.Fprintf(&out, "literal of %d octets (sync %t)\n", size, sync)
				d.Resume()
			}
		case Bad:
			fmt.Fprintf(&out, "bad %q %q: %s\n", cmd.Tag, cmd.Name, d.Failure())
		case Fatal:
			fmt.Fprintf(&out, "fatal: %s\n", d.Failure())
			return out.String()
		}
	}
}

func showArgs(args []Arg) string {
	var out strings.Builder
	for i := range args {
		a := &args[i]
		out.WriteByte(' ')
		switch a.Kind {
		case Atom:
			out.Write(a.Text)
		case Quoted, Literal:
			out.WriteString(strconv.Quote(string(a.Text)))
		case List:
			out.WriteString("(" + strings.TrimPrefix(showArgs(a.List), " ") + ")")
		case Pending:
			fmt.Fprintf(&out, "{%d}", a.Size)
		}
	}
	return out.String()
}

func testDecoder() *Decoder {
	return NewDecoder(NewGrammar(Extensions()...), Limits{Line: 200})
}

// TestDecoderTranscripts reads files of input lines (Go escapes) and the events below them. Every input is decoded whole and octet by octet.
func TestDecoderTranscripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "    ") {
				continue
			}
			out.WriteString(line + "\n")
			if line == "" || line[0] == '#' {
				continue
			}
			input, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
			if err != nil {
				t.Fatalf("%s: %s: %v", file, line, err)
			}
			got := describe(testDecoder(), []byte(input), len(input))
			for _, step := range []int{1, 3} {
				if other := describe(testDecoder(), []byte(input), step); other != got {
					t.Errorf("%s: in portions of %d:\n%s\nwhole:\n%s", line, step, other, got)
				}
			}
			for l := range strings.Lines(got) {
				out.WriteString("    " + l)
			}
		}
		if *rewrite {
			if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if out.String() != string(text) {
			t.Errorf("%s differs; observed:\n%s", file, out.String())
		}
	}
}

func TestPrepareLimits(t *testing.T) {
	d := NewDecoder(NewGrammar(Prelogin()), Limits{Line: PreloginLine, LineFatal: true})
	if got := describe(d, []byte(strings.Repeat("x", 10_000)), 1000); got != "fatal: Input buffer full, aborting\n" {
		t.Error(got)
	}
	d = testDecoder()
	if got := describe(d, []byte("a NOOP "+strings.Repeat("x", 100_000)+"\r\nb NOOP\r\n"), 1000); !strings.HasSuffix(got, "Too long argument\nb NOOP\n") {
		t.Error(got)
	}
	if cap(d.buf) > 64<<10 {
		t.Errorf("a long line made the buffer %d octets", cap(d.buf))
	}
	d.Idle()
	if cap(d.buf) > firstSpace {
		t.Errorf("an idle decoder keeps %d octets", cap(d.buf))
	}
}

func TestSeqSet(t *testing.T) {
	for text, want := range map[string]string{
		"1": "[{1 1}]", "*": "[{0 0}]", "1:*": "[{1 0}]", "5:2,9": "[{5 2} {9 9}]", "4294967295": "[{4294967295 4294967295}]",
		"": "", "0": "", "1:": "", ":1": "", "1,,2": "", "1:2:3": "", "4294967296": "", "01234567890": "", "a": "", "1 ": "", "**": "", "-1": "", ",": "",
	} {
		set, ok := ParseSeqSet([]byte(text))
		got := ""
		if ok {
			got = fmt.Sprint(set.Ranges)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if set, ok := ParseSeqSet([]byte("$")); !ok || !set.Saved {
		t.Error("$ is not the saved result")
	}
	if low, high := (SeqRange{0, 3}).Resolve(9); low != 3 || high != 9 {
		t.Errorf("*:3 of 9 is %d:%d", low, high)
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a/b", true},
		{"%", "a/b", false},
		{"%", "a", true},
		{"%/%", "a/b", true},
		{"%/%", "a/b/c", false},
		{"*/c", "a/b/c", true},
		{"a*b%d", "axxb/b1d", true},
		{"a*b%d", "axxb/b1/d", false},
		{"inbox", "INBOX", true},
		{"inb%", "INBOX", true},
		{"*b*", "INBOX", true},
		{"inbox/sub", "INBOX/sub", true},
		{"inbox/SUB", "INBOX/sub", false},
		{"inbox", "INBOXES", false},
		{"Work", "work", false},
		{"", "", true},
		{"", "a", false},
		{"%%", "ab", true},
	} {
		if got := (Pattern{c.pattern, '/'}).Match(c.name); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.name, got)
		}
	}
	many := Pattern{strings.Repeat("*a%", 300), '/'}
	if many.Match(strings.Repeat("a", 5000) + "b/") {
		t.Error("matched")
	}
}

func TestUTF7(t *testing.T) {
	for name, want := range map[string]string{
		"Entwürfe": "Entw&APw-rfe", "a&b": "a&-b", "台北": "&U,BTFw-", "😀": "&2D3eAA-", "plain": "plain", "ü ü": "&APw- &APw-",
	} {
		if got := string(AppendUTF7(nil, name)); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
		if got, ok := ParseUTF7([]byte(want)); !ok || got != name {
			t.Errorf("%s reads as %q %t", want, got, ok)
		}
	}
	for _, bad := range []string{"&", "&AA", "&AA-", "a&b", "&AGE-", "ü", "&!-", "&APw-&APw-", "a\x01", "&2D0-"} {
		if name, ok := ParseUTF7([]byte(bad)); ok {
			t.Errorf("%q reads as %q", bad, name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		if got, ok := ParseUTF7(AppendUTF7(nil, name)); !ok || got != strings.ToValidUTF8(name, "\ufffd") {
			t.Fatalf("%q comes back as %q %t", name, got, ok)
		}
	})
}

func TestDates(t *testing.T) {
	for text, want := range map[string]string{
		"01-Feb-2022 10:20:30 +0200": "2022-02-01T10:20:30+02:00", " 1-feb-2022 10:20:30 -0730": "2022-02-01T10:20:30-07:30",
		"1-Feb-2022 00:00:00 +0000": "2022-02-01T00:00:00Z",
		"x":                         "", "01-Feb-2022": "", "01-Foo-2022 10:20:30 +0200": "", "01-Feb-2022 24:20:30 +0200": "", "01-Feb-2022 10:20:30": "", "00-Feb-2022 10:20:30 +0200": "",
		"01-Feb-2022 10:20:30 *0200": "", "01-Feb-2022 1a:20:30 +0200": "",
	} {
		got := ""
		if date, ok := ParseDateTime([]byte(text)); ok {
			got = date.Format(time.RFC3339)
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]bool{"1-Jan-1999": true, "31-DEC-2023": true, "1-Jan-99": false, "32-Jan-1999": false, "1 Jan 1999": false, "": false, "1-anf-1999": false} {
		if _, ok := ParseDate([]byte(text)); ok != want {
			t.Errorf("%q: %t", text, ok)
		}
	}
}

func TestStrings(t *testing.T) {
	for text, want := range map[string]string{
		"": `""`, "abc": "abc", "a b": `"a b"`, `q"t`: `"q\"t"`, "ü": "{2}\r\nü", "a\r\nb": "{4}\r\na\r\nb", "nil": `"nil"`, `"""""`: "{5}\r\n\"\"\"\"\"", "a*": `"a*"`,
	} {
		if got := string(AppendAString(nil, []byte(text))); got != want {
			t.Errorf("%q is written %q, want %q", text, got, want)
		}
	}
	if got := string(AppendMailbox(nil, "é x", true)); got != `"é x"` {
		t.Error(got)
	}
	if got := string(AppendText(nil, "a\r\nb\x00")); got != "a  b " {
		t.Errorf("%q", got)
	}
}

// commandOf decodes one command.
func commandOf(t testing.TB, line string) *Command {
	d := NewDecoder(NewGrammar(Extensions()...), Limits{})
	d.Feed([]byte("t " + line + "\r\n"))
	if event := d.Next(); event != Ready {
		t.Fatalf("%s: event %d: %s", line, event, d.Failure())
	}
	return d.Command()
}

func TestParseSearch(t *testing.T) {
	g := NewGrammar(Extensions()...)
	for line, want := range map[string]string{
		"SEARCH ALL":                         "ALL",
		"SEARCH SEEN FLAGGED":                "AND(SEEN FLAGGED)",
		"SEARCH OR NOT SEEN (1:3 KEYWORD x)": "OR(NOT(SEEN) AND(SEQ KEYWORD))",
		"SEARCH CHARSET utf-8 TEXT x":        "TEXT",
		"SEARCH RETURN (MIN) UID 1:*":        "UID",
		`SEARCH MODSEQ "/flags/x" all 5`:     "MODSEQ",
		"SEARCH YOUNGER 10":                  "YOUNGER",
		"SEARCH":                             "Missing search parameters",
		"SEARCH NOT":                         "Missing argument",
		"SEARCH NOSUCH":                      "Unknown argument NOSUCH",
		"SEARCH RETURN x ALL":                "SEARCH return options must be a list.",
		"SEARCH RETURN (PARTIAL x) ALL":      "PARTIAL range broken.",
		"SEARCH YOUNGER 0":                   "Invalid search interval parameter",
		"SEARCH LARGER x":                    "Invalid search size parameter",
		"SEARCH UID x":                       "Invalid UID messageset",
		"SEARCH 1,,2":                        "Invalid messageset",
		`SEARCH "x"`:                         "Unexpected string as search key: x",
	} {
		search, err := g.ParseSearch(commandOf(t, line).Args)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = showKey(&search.Key)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func showKey(k *SearchKey) string {
	if len(k.Keys) == 0 {
		return k.Name
	}
	parts := make([]string, len(k.Keys))
	for i := range k.Keys {
		parts[i] = showKey(&k.Keys[i])
	}
	return k.Name + "(" + strings.Join(parts, " ") + ")"
}

func TestParseFetch(t *testing.T) {
	g := NewGrammar(Extensions()...)
	for line, want := range map[string]string{
		"FETCH 1 ALL":                                          "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE",
		"FETCH 1 (UID UID FLAGS)":                              "UID FLAGS",
		"FETCH 1 body.peek[1.2.mime]<5.10>":                    "BODY[1.2.MIME]<5>",
		`FETCH 1 BODY[HEADER.FIELDS (from "To")]<0.1>`:         `BODY[HEADER.FIELDS (FROM "TO")]<0>`,
		"FETCH 1 (BINARY.SIZE[2] BINARY[2.1] BODY.PEEK[TEXT])": "BINARY.SIZE[2] BINARY[2.1] BODY[TEXT]",
		"FETCH 1 BODY[MIME]":                                   "Invalid BODY[..] section",
		"FETCH 1 BODY[1.]":                                     "Invalid BODY[..] section",
		"FETCH 1 BODY[]<1>":                                    "BODY[]<1>",
		"FETCH 1 BODY[]<1.0>":                                  "BODY[]<1>",
		"FETCH 1 BODY[]<1.>":                                   `Invalid BODY[..] parameter: Invalid partial "<1.>"`,
		"FETCH 1 ()":                                           "FETCH list is empty",
		"FETCH 1 BODY[HEADER.FIELDS ()]":                       "Invalid BODY[..] section",
		"FETCH 1 BODY[HEADER.FIELDS x]":                        "Invalid BODY[..] section",
		"FETCH 1 (FLAGS \"x\")":                                "FETCH list contains non-atoms",
		"FETCH 1 BODY[1":                                       "Invalid BODY[..] parameter: Missing ']'",
		"FETCH 1 BINARY.SIZE[1]<0.1>":                          "Invalid BINARY[..] parameter: Unexpected partial",
		"FETCH 1 PREVIEW":                                      "PREVIEW",
	} {
		items, _, err := g.ParseFetch(commandOf(t, line).Args[1:])
		var labels []string
		for _, item := range items {
			labels = append(labels, item.Label)
		}
		got := strings.Join(labels, " ")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, seed := range []string{
		"a NOOP\r\n", "a LOGIN {3}\r\nabc {2+}\r\nde\r\n", "a FETCH 1:* (FLAGS BODY[HEADER.FIELDS (a b)]<0.5>)\r\n",
		"a APPEND x (\\Seen) {5}\r\nhello {3+}\r\nabc\r\n", "a SEARCH OR NOT (SEEN) $ RETURN\r\n", "a UID STORE 1,2 (UNCHANGEDSINCE 5) +FLAGS (x)\r\n",
		"a SELECT \"q\\\"x\"\r\nb UID\r\n", "a STATUS ~{3}\r\na\x00b (X)\r\n", "a APPEND x CATENATE (TEXT {3}\r\nabc URL y)\r\n", "\r\n(\r\n",
	} {
		f.Add([]byte(seed), uint8(3))
	}
	g := NewGrammar(Extensions()...)
	f.Fuzz(func(t *testing.T, input []byte, step uint8) {
		whole := describe(testDecoder(), input, len(input)+1)
		parts := describe(testDecoder(), input, int(step)+1)
		if whole != parts && !strings.Contains(whole+parts, "Too long argument") {
			t.Fatalf("portions of %d octets:\n%s\nwhole:\n%s", int(step)+1, parts, whole)
		}
		d := NewDecoder(g, Limits{})
		d.Feed(input)
		for range 100 {
			event := d.Next()
			if event == NeedInput || event == Fatal {
				break
			}
			if cmd := d.Command(); event == Ready {
				parseAll(g, cmd)
				if cmd.Literal {
					break
				}
			}
		}
	})
}

// parseAll reads a command's arguments as everything that they might be.
func parseAll(g *Grammar, cmd *Command) {
	_, _, _ = g.ParseFetch(cmd.Args)
	_, _ = g.ParseSearch(cmd.Args)
	for i := range cmd.Args {
		text := cmd.Args[i].Text
		_, _ = ParseSeqSet(text)
		_, _ = ParseDateTime(text)
		if name, ok := ParseUTF7(text); ok && !bytes.Equal(AppendUTF7(nil, name), text) {
			panic("a name in UTF-7 that is not the only one")
		}
		if !(Pattern{"*", '/'}).Match(string(text)) || !(Pattern{"*" + string(text), '/'}).Match("x"+string(text)) && !bytes.ContainsAny(text, "*%") {
			panic("a pattern that does not match itself")
		}
	}
}

func BenchmarkDecodeCommand(b *testing.B) {
	d := NewDecoder(NewGrammar(Extensions()...), Limits{})
	line := []byte("a123 UID FETCH 1:500 (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (From To Subject)])\r\n")
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		d.Feed(line)
		if d.Next() != Ready {
			b.Fatal(d.Failure())
		}
	}
}
