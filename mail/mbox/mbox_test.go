package mbox

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

func TestParseFromLine(t *testing.T) {
	for _, c := range []struct{ in, sender, when string }{
		{"From a@b Mon Jan  2 15:04:05 2006", "a@b", "2006-01-02T15:04:05Z"},
		{"From a@b  Mon Jan  2 15:04:05 2006\r\n", "a@b", "2006-01-02T15:04:05Z"},
		{"From a@b Mon Jan 2 15:04 2006", "a@b", "2006-01-02T15:04:00Z"},
		{"From a@b Mon Jan 2 15:04:05 +0100 2006", "a@b", "2006-01-02T15:04:05+01:00"},
		{"From a@b Mon Jan 2 15:04:05 2006 -0730", "a@b", "2006-01-02T15:04:05-07:30"},
		{"From a@b Mon Jan 2 15:04:05 MET 2006 remote from x", "a@b", "2006-01-02T15:04:05Z"},
		{"From - Mon Jan 2 15:04:05 2006", "-", "2006-01-02T15:04:05Z"},
		{"From  Mon Jan 2 15:04:05 2006", "", "2006-01-02T15:04:05Z"},
		{"From here on", "", ""},
		{"From a@b", "", ""},
		{"From: a@b Mon Jan 2 15:04:05 2006", "", ""},
		{">From a@b Mon Jan 2 15:04:05 2006", "", ""},
		{"From a@b Mon Jan 42 15:04:05 2006", "", ""},
		{"From " + strings.Repeat("x ", 2000) + "Mon Jan 2 15:04:05 2006", "", ""},
	} {
		from, ok := ParseFromLine([]byte(c.in))
		if ok != (c.when != "") || ok && (from.Sender != c.sender || from.Time.Format(time.RFC3339) != c.when) {
			t.Errorf("%.60q: %+v %t", c.in, from, ok)
		}
	}
	when := time.Date(2024, 2, 9, 8, 7, 6, 0, time.FixedZone("", 3600))
	if got := string(AppendFromLine(nil, "a b", when)); got != "From a-b Fri Feb  9 07:07:06 2024\n" {
		t.Errorf("%q", got)
	}
	if got := string(AppendFromLine(nil, "", when)); got != "From MAILER-DAEMON Fri Feb  9 07:07:06 2024\n" {
		t.Errorf("%q", got)
	}
}

func TestWriter(t *testing.T) {
	when := time.Date(2024, 2, 9, 8, 7, 6, 0, time.UTC)
	const from = "From a@b Fri Feb  9 08:07:06 2024\n"
	for _, c := range []struct {
		quoting  Quoting
		in, want string
	}{
		{RD, "A: b\r\n\r\nFrom x\r\n>From y\r\n", "A: b\n\n>From x\n>>From y\n"},
		{O, "A: b\n\nFrom x\n>From y\n", "A: b\n\n>From x\n>From y\n"},
		{None, "A: b\n\nFrom x\n>From y\n", "A: b\n\nFrom x\n>From y\n"},
		{RD, "A: b\n\nno end", "A: b\n\nno end\n"},
		{RD, "A: b\n\nFro", "A: b\n\nFro\n"},
		{RD, "a\rb\r\r\n\r", "a\rb\r\n\r\n"},
		{RD, "From: x\n>>>\nFromage\n", "From: x\n>>>\nFromage\n"},
	} {
		for _, size := range []int{1, 3, 1000} {
			var out bytes.Buffer
			w := NewWriter(&out, c.quoting)
			if err := w.Begin("a@b", when); err != nil {
				t.Fatal(err)
			}
			for rest := c.in; rest != ""; rest = rest[min(size, len(rest)):] {
				_, _ = w.Write([]byte(rest[:min(size, len(rest))]))
			}
			if err := w.Flush(); err != nil || out.String() != from+c.want+"\n" {
				t.Errorf("%q in pieces of %d: %q, %v", c.in, size, out.String(), err)
			}
		}
	}
	if _, err := NewWriter(io.Discard, RD).Write([]byte("x")); err == nil {
		t.Error("wrote without a message")
	}
}

func readAll(t failer, r io.Reader, q Quoting) (messages []string, offsets []int64) {
	m := NewReader(r, q)
	for {
		_, offset, err := m.Next()
		if errors.Is(err, io.EOF) {
			return messages, offsets
		}
		if err != nil {
			t.Fatalf("%v", err)
		}
		text, err := io.ReadAll(m)
		if err != nil {
			t.Fatalf("%v", err)
		}
		messages, offsets = append(messages, string(text)), append(offsets, offset)
	}
}

type failer interface{ Fatalf(string, ...any) }

func TestReader(t *testing.T) {
	const from = "From a@b Fri Feb  9 08:07:06 2024\n"
	text := from + "A: b\n\nbody\n>From x\nFrom here\n\nFrom there\n\n" + from + "\n" + from + from + "C: d\n\nlast"
	messages, offsets := readAll(t, iotest.OneByteReader(strings.NewReader(text)), RD)
	want := []string{"A: b\n\nbody\nFrom x\nFrom here\n\nFrom there\n", "", from + "C: d\n\nlast"}
	if strings.Join(messages, "|") != strings.Join(want, "|") {
		t.Errorf("got %q\nwant %q", messages, want)
	}
	for _, offset := range offsets {
		if !strings.HasPrefix(text[offset:], from) {
			t.Errorf("offset %d is no From line", offset)
		}
	}
	if _, _, err := NewReader(strings.NewReader("A: b\n"), RD).Next(); !errors.Is(err, ErrNoFromLine) {
		t.Errorf("no From line: %v", err)
	}
	if _, _, err := NewReader(strings.NewReader(""), RD).Next(); !errors.Is(err, io.EOF) {
		t.Errorf("nothing: %v", err)
	}
	long := from + "A: b\n\n" + strings.Repeat("x", 1<<20) + "\n\n" + from + "C: d\n\n"
	if messages, _ := readAll(t, strings.NewReader(long), RD); len(messages) != 2 || len(messages[0]) != 1<<20+7 {
		t.Errorf("a long line: %d messages", len(messages))
	}
}

// TestRoundTrip: what was written in RD comes back, except that it ends in one line end and CRLF became LF.
func TestRoundTrip(t *testing.T) {
	line := rapid.SampledFrom([]string{"", "", "A: b", "From a@b Fri Feb  9 08:07:06 2024", ">From x", ">>From ", "From", "text", ">", strings.Repeat(">", 70) + "From "})
	rapid.Check(t, func(t *rapid.T) {
		var want []string
		var file bytes.Buffer
		w := NewWriter(&file, RD)
		for range rapid.IntRange(0, 4).Draw(t, "messages") {
			message := strings.Join(rapid.SliceOfN(line, 0, 8).Draw(t, "lines"), "\n")
			if message != "" {
				message += "\n"
			}
			want = append(want, message)
			_ = w.Begin("a@b", time.Unix(1e9, 0))
			_, _ = w.Write([]byte(message))
		}
		if err := w.Flush(); err != nil {
			t.Fatalf("%v", err)
		}
		got, _ := readAll(t, &file, RD)
		if strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Fatalf("got %q\nwant %q", got, want)
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("From a@b Fri Feb  9 08:07:06 2024\nA: b\n\n>From x\n\nFrom a@b Fri Feb  9 08:07:06 2024\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := NewReader(bytes.NewReader(text), RD)
		total := int64(0)
		for {
			_, offset, err := r.Next()
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, r)
			if total += n; err != nil || offset > int64(len(text)) || total > int64(len(text)) {
				t.Fatalf("offset %d, %d bytes, %v of %d", offset, total, err, len(text))
			}
		}
	})
}
