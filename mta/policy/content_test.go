package policy

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"postilion/table"
)

// lineTable has the entries of "lines:{ {key = value}, ... }"; keys may hold any character but =.
type lineTable map[string]string

func openLines(spec string) table.Table {
	text, ok := strings.CutPrefix(spec, "lines:{")
	if !ok {
		return table.OpenLazily(spec, table.Options{})
	}
	t := lineTable{}
	for _, entry := range strings.Split(strings.TrimSuffix(text, "}"), "}") {
		if key, value, ok := strings.Cut(strings.TrimLeft(entry, ", {"), " = "); ok {
			t[key] = value
		}
	}
	return t
}

func (t lineTable) Find(_ context.Context, key string) (table.Entry, bool, error) {
	value, ok := t[key]
	return table.Entry{Value: value, Source: "test:1"}, ok, nil
}

func (t lineTable) Lookup(_ context.Context, key string) (string, bool, error) {
	value, ok := t[key]
	return value, ok, nil
}

func (t lineTable) Spec() string  { return "lines:" }
func (t lineTable) Pattern() bool { return true }

// runContent puts a message through the checks of a configuration, in pieces of the given size, and gives what is left of it and what was logged.
func runContent(t testing.TB, conf, message string, piece int) (kept string, log []string, s *Scan) {
	t.Helper()
	checks := NewContentChecks(ContentOptions{View: testView(t, conf), Open: openLines})
	var out bytes.Buffer
	s = checks.Scan(context.Background(), func(b []byte) { out.Write(b) }, func(e ContentEvent) { log = append(log, strings.TrimSpace(e.Verb+": "+e.What+": "+e.Text)) })
	wire := []byte(strings.ReplaceAll(message, "\n", "\r\n"))
	for len(wire) > 0 {
		n := min(piece, len(wire))
		s.Write(wire[:n])
		wire = wire[n:]
	}
	s.Finish()
	return strings.ReplaceAll(out.String(), "\r\n", "\n"), log, s
}

const nested = `Subject: test
Content-Type: multipart/mixed; boundary="bb"

preamble
--bb
Content-Type: text/plain;
	name="bad.exe"

text
--bb
Content-Type: message/rfc822

Subject: inner
X-Inner: drop

inner body
--bb--
epilogue
`

func TestContentChecks(t *testing.T) {
	for _, row := range []struct{ name, conf, in, out, log, refusal string }{
		{"nothing", "", nested, nested, "", ""},
		{
			"header", "header_checks = lines:{ {Subject: test = REPLACE Subject: other}, {X: y = IGNORE} }\n",
			"Subject: test\nX: y\nZ: a\n b\n\nSubject: test\n", "Subject: other\nZ: a\n b\n\nSubject: test\n",
			"replace: header Subject: test: Subject: other", "",
		},
		{
			"mime", "mime_header_checks = lines:{ {X-Y = x} }\nheader_checks =\nnested_header_checks = lines:{ {X-Inner: drop = IGNORE}, {Subject: inner = PREPEND X-Pre: 1} }\n",
			nested, strings.Replace(strings.Replace(nested, "X-Inner: drop\n", "", 1), "Subject: inner", "X-Pre: 1\nSubject: inner", 1),
			"prepend: header Subject: inner: X-Pre: 1", "",
		},
		{
			"body", "body_checks = lines:{ {text = REJECT 5.7.9 no text} }\n", nested, nested, "reject: body text: 5.7.9 no text", "550 5.7.9 no text",
		},
		{
			"first reason", "body_checks = lines:{ {text = REJECT}, {preamble = REJECT 4.2.1 later} }\n", nested, nested,
			"reject: body preamble: 4.2.1 later", "450 4.2.1 later",
		},
		{
			"body line", "body_checks = lines:{ {inner body = PREPEND new}, {epilogue = REPLACE end}, {preamble = STRIP} }\n", nested,
			strings.NewReplacer("preamble\n", "", "inner body", "new\ninner body", "epilogue", "end").Replace(nested),
			"strip: body preamble:|prepend: body inner body: new|replace: body epilogue: end", "",
		},
		{
			"limit by part", "body_checks_size_limit = 3\nbody_checks = lines:{ {late = STRIP}, {text = STRIP} }\n",
			strings.Replace(nested, "text\n", "text\nlate\n", 1), strings.Replace(nested, "text\n", "late\n", 1), "strip: body text:", "",
		},
		{
			"broken actions", "header_checks = lines:{ {A: 1 = REPLACE}, {A: 2 = REPLACE x}, {A: 3 = FILTER x}, {A: 4 = REDIRECT x}, {A: 5 = 550 x}, {A: 6 = OK} }\n",
			"A: 1\nA: 2\nA: 3\nA: 4\nA: 5\nA: 6\n\n", "A: 1\nA: 2\nA: 3\nA: 4\nA: 5\nA: 6\n\n", "", "",
		},
		{"only headers", "header_checks = lines:{ {A: 1 = IGNORE} }\n", "A: 1\nB: 2", "B: 2", "", ""},
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			kept, log, s := runContent(t, row.conf, row.in, piece)
			if kept != row.out {
				t.Errorf("%s in pieces of %d: kept\n%s\nwant\n%s", row.name, piece, kept, row.out)
			}
			if got := strings.Join(log, "|"); got != row.log {
				t.Errorf("%s: log %s, want %s", row.name, got, row.log)
			}
			if s.Refusal != row.refusal || s.Err != nil {
				t.Errorf("%s: %q %v", row.name, s.Refusal, s.Err)
			}
		}
	}
}

func TestContentEffects(t *testing.T) {
	_, log, s := runContent(t, "header_checks = lines:{ {A: 1 = HOLD}, {A: 2 = FILTER slow:x}, {A: 3 = BCC a@b}, {A: 4 = REDIRECT c@d}, {A: 5 = DISCARD} }\n",
		"A: 1\nA: 1\nA: 2\nA: 3\nA: 4\nA: 5\n\n", 100)
	if len(s.Effects) != 4 || s.Discard || len(log) != 4 {
		t.Errorf("%v %v %v", s.Effects, s.Discard, log)
	}
	_, _, s = runContent(t, "header_checks = lines:{ {A: 5 = DISCARD} }\nbody_checks = fail:x\n", "A: 5\n\nbody\n", 100)
	if !s.Discard || s.Err != nil {
		t.Errorf("%v %v", s.Discard, s.Err)
	}
	_, _, s = runContent(t, "body_checks = fail:x\n", "A: 5\n\nbody\n", 100)
	if s.Err == nil {
		t.Error("a table that fails was not told of")
	}
}

// FuzzScan looks that checks without an entry leave every message as it is.
func FuzzScan(f *testing.F) {
	f.Add(nested, 3)
	f.Add("A\n\n", 1)
	f.Add("Content-Type: multipart/x; boundary=a\n\n--a\n--a\nb: c\n d\n--a--\n--a\n", 5)
	f.Fuzz(func(t *testing.T, message string, piece int) {
		conf := "body_checks = lines:{ {no such line = REJECT} }\nheader_checks = lines:{ {no such: header = REJECT} }\n"
		checks := NewContentChecks(ContentOptions{View: testView(t, conf), Open: openLines})
		var out bytes.Buffer
		s := checks.Scan(context.Background(), func(b []byte) { out.Write(b) }, nil)
		for rest := []byte(message); len(rest) > 0; {
			n := max(1, min(piece, len(rest)))
			s.Write(rest[:n])
			rest = rest[n:]
		}
		s.Finish()
		if out.String() != message {
			t.Errorf("%q became %q", message, out.String())
		}
	})
}
