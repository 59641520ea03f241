package message

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func parseChunks(data []byte, limits Limits, next func(left int) int) *Message {
	p := NewParser(limits)
	for len(data) > 0 {
		n := min(max(next(len(data)), 1), len(data))
		_, _ = p.Write(data[:n])
		data = data[n:]
	}
	return p.Finish()
}

// genMail draws mails that are made of the lines on which structure depends.
func genMail() *rapid.Generator[[]byte] {
	lines := []string{
		"", "", "", "text", "--b", "--b--", "--b--", "--bb", "--", "-", "--c", "--c--", "--b-", " folded", "\tfolded", "--b junk",
		"Content-Type: multipart/mixed; boundary=b", "Content-Type: multipart/digest; boundary=\"bb\"", "Content-Type: multipart/x;\n boundary=c",
		"Content-Type: message/rfc822", "Content-Type: text/html", "Content-Type", "MIME-Version: 1.0", "Subject: a", "From: a@b, c <d@e>",
		"Content-Disposition: attachment; filename=x", "a\rb", "\r", "\x00", strings.Repeat("-", 90), "--" + strings.Repeat("b", 85),
	}
	return rapid.Custom(func(t *rapid.T) []byte {
		var b []byte
		for range rapid.IntRange(0, 40).Draw(t, "lines") {
			b = append(b, rapid.SampledFrom(lines).Draw(t, "line")...)
			b = append(b, rapid.SampledFrom([]string{"\r\n", "\r\n", "\n", ""}).Draw(t, "end")...)
		}
		return b
	})
}

func TestChunksMakeNoDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mail := genMail().Draw(t, "mail")
		limits := Limits{FieldBytes: rapid.SampledFrom([]int{0, 10, 40}).Draw(t, "field"), Parts: rapid.SampledFrom([]int{0, 4}).Draw(t, "parts")}
		whole := parseChunks(mail, limits, func(left int) int { return left })
		chunked := parseChunks(mail, limits, func(int) int { return rapid.SampledFrom([]int{1, 2, 3, 5, 17, 80}).Draw(t, "chunk") })
		if !reflect.DeepEqual(whole, chunked) {
			t.Fatalf("whole %+v\nchunked %+v", whole, chunked)
		}
		checkInvariants(t, mail, whole)
	})
}

// TestNetworkFormMakesNoDifference: a mail with bare LF has the structure of its network form.
func TestNetworkFormMakesNoDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mail := genMail().Draw(t, "mail")
		bare, full := Parse(mail), Parse(NetworkForm(mail))
		bare.BareLF = 0
		if !reflect.DeepEqual(bare, full) {
			t.Fatalf("bare %+v\nfull %+v", bare, full)
		}
	})
}

func TestNetworkReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mail := genMail().Draw(t, "mail")
		got, err := io.ReadAll(NewNetworkReader(iotest.OneByteReader(bytes.NewReader(mail))))
		if err != nil || !bytes.Equal(got, NetworkForm(mail)) {
			t.Fatalf("%q, %v, want %q", got, err, NetworkForm(mail))
		}
	})
}

func TestFields(t *testing.T) {
	header := []byte("Subject: a\r\n b\r\nNo colon\r\nX-Y \t: z\r\nsubject:second\r\n\r\nBody: x\r\n")
	var got []string
	for f := range Fields(header) {
		got = append(got, fmt.Sprintf("%d %s|%s|%d", f.Offset, f.Name, Unfold(nil, f.Value), len(f.Raw)))
	}
	want := []string{"0 Subject|a b|16", "16 |No colon|10", "26 X-Y|z|10", "36 subject|second|16"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if f, ok := Lookup(header, "SUBJECT"); !ok || string(f.Value) != " a\r\n b" {
		t.Errorf("Lookup: %q %t", f.Value, ok)
	}
	if _, ok := Lookup(header, "Body"); ok {
		t.Error("a field of the body was found")
	}
	if all := LookupAll(header, "subject"); len(all) != 2 {
		t.Errorf("LookupAll: %d", len(all))
	}
	for _, empty := range []string{"", "\r\n", "\n", "\r\n x"} {
		for f := range Fields([]byte(empty)) {
			t.Errorf("%q has a field %q", empty, f.Raw)
		}
	}
}

type failer interface{ Fatalf(string, ...any) }

// checkInvariants holds for any input.
func checkInvariants(t failer, mail []byte, m *Message) {
	if want := int64(len(NetworkForm(mail))); m.Size != want {
		t.Fatalf("size %d, want %d", m.Size, want)
	}
	if want := int64(bytes.Count(mail, newline)); m.Lines != want {
		t.Fatalf("lines %d, want %d", m.Lines, want)
	}
	checkPart(t, &m.Root, 0, m.Size)
	decoded, err := Decode(m.AppendBinary(nil))
	if err != nil || !reflect.DeepEqual(decoded, m) {
		t.Fatalf("decoded %+v, %v\nwant %+v", decoded, err, m)
	}
}

func checkPart(t failer, p *Part, start, end int64) {
	if p.HeaderStart < start || p.BodyStart < p.HeaderStart || p.BodyEnd < p.BodyStart || p.BodyEnd > end || p.BodyLines < 0 {
		t.Fatalf("part %+v lies outside of [%d,%d)", p, start, end)
	}
	if p.Kind == Embedded && len(p.Children) != 1 || p.Kind == Leaf && p.Children != nil {
		t.Fatalf("part of kind %d has %d children", p.Kind, len(p.Children))
	}
	for i := range p.Children {
		checkPart(t, &p.Children[i], start, end)
		start = p.Children[i].BodyEnd
	}
}

func TestShift(t *testing.T) {
	trace := "Return-Path: <a@b>\r\nReceived: from x\r\n\tby y; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
	rapid.Check(t, func(t *rapid.T) {
		mail := genMail().Filter(func(b []byte) bool {
			return len(b) > 0 && !bytes.HasPrefix(b, []byte(" ")) && !bytes.HasPrefix(b, []byte("\t"))
		}).Draw(t, "mail")
		got := Parse(mail).Shift(int64(len(trace)), int64(strings.Count(trace, "\n")))
		want := Parse(append([]byte(trace), mail...))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("shifted %+v\nparsed %+v", got, want)
		}
	})
}

// writer makes a big mail piece by piece, so that only what the parser keeps counts.
func writeMany(p *Parser, n int, piece func(i int) string) {
	for i := range n {
		_, _ = p.Write([]byte(piece(i)))
	}
}

func TestBadInputIsBounded(t *testing.T) {
	for _, c := range []struct {
		name  string
		start string
		n     int
		piece func(i int) string
		parts int
		depth int
	}{
		{"10 MB of fields", "", 100_000, func(i int) string { return fmt.Sprintf("X-%d: %090d\r\n", i, i) }, 1, 1},
		{"10 MB in one field", "To: ", 100_000, func(int) string { return strings.Repeat("a@b, ", 20) }, 1, 1},
		{"10 MB of address fields", "", 100_000, func(int) string { return "To: " + strings.Repeat("a@b, ", 20) + "\r\n" }, 1, 1},
		{
			"30 MB of messages with many addresses", "Content-Type: multipart/digest; boundary=b\r\n\r\n", 4000,
			func(int) string { return "--b\r\n\r\nTo: " + strings.Repeat("a,", 4000) + "\r\n\r\n" }, 8001, 3,
		},
		{"10 MB of parameters", "Content-Type: text/plain", 100_000, func(i int) string { return fmt.Sprintf(";\r\n a*%d=%090d", i, i) }, 1, 1},
		{"10 MB of open comments", "From: ", 100, func(int) string { return strings.Repeat("(", 100_000) }, 1, 1},
		{"a line of 100 MB in the body", "\r\n", 1000, func(int) string { return strings.Repeat("x", 100_000) }, 1, 1},
		{"a line of 100 MB in a multipart", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n", 1000, func(int) string { return strings.Repeat("-", 100_000) }, 2, 2},
		{"a field name of 100 MB", "X", 1000, func(int) string { return strings.Repeat("x", 100_000) }, 1, 1},
		{"50,000 parts", "Content-Type: multipart/mixed; boundary=b\r\n\r\n", 50_000, func(int) string { return "--b\r\n\r\ntext\r\n" }, 10_000, 2},
		{
			"10,000 multiparts in each other", "", 10_000,
			func(i int) string {
				return fmt.Sprintf("Content-Type: multipart/mixed; boundary=\"%d.\"\r\n\r\n--%d.\r\n", i, i)
			}, 100, 100,
		},
		{"10,000 messages in each other", "", 10_000, func(int) string { return "Content-Type: message/rfc822\r\n\r\n" }, 100, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			p := NewParser(Limits{})
			_, _ = p.Write([]byte(c.start))
			writeMany(p, c.n, c.piece)
			runtime.GC()
			runtime.ReadMemStats(&after)
			if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 64<<20 {
				t.Errorf("the parser holds %d MB", held>>20)
			}
			m := p.Finish()
			if parts := countParts(&m.Root); parts != c.parts {
				t.Errorf("%d parts, want %d", parts, c.parts)
			}
			if depth := depthOf(&m.Root); depth != c.depth {
				t.Errorf("depth %d, want %d", depth, c.depth)
			}
			if size := len(m.AppendBinary(nil)); size > 8<<20 {
				t.Errorf("the stored form has %d bytes", size)
			}
		})
	}
}

func countParts(p *Part) int {
	n := 1
	for i := range p.Children {
		n += countParts(&p.Children[i])
	}
	return n
}

func depthOf(p *Part) int {
	deepest := 0
	for i := range p.Children {
		deepest = max(deepest, depthOf(&p.Children[i]))
	}
	return deepest + 1
}

func TestDecodeRefuses(t *testing.T) {
	good := Parse([]byte("From: a@b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n")).AppendBinary(nil)
	for n := range good {
		if _, err := Decode(good[:n]); err == nil {
			t.Errorf("accepted %d bytes of %d", n, len(good))
		}
	}
	if _, err := Decode(append(bytes.Clone(good), 0)); err == nil {
		t.Error("accepted a byte too many")
	}
	if _, err := Decode(append([]byte{99}, good[1:]...)); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("another version: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range readAwkward(f)[:120] {
		f.Add(narrow(c.Mail), uint16(7))
	}
	f.Fuzz(func(t *testing.T, mail []byte, chunk uint16) {
		whole := Parse(mail)
		checkInvariants(t, mail, whole)
		chunked := parseChunks(mail, Limits{}, func(int) int { return int(chunk)%100 + 1 })
		if !reflect.DeepEqual(whole, chunked) {
			t.Fatalf("whole %+v\nchunked %+v", whole, chunked)
		}
		for _, b := range [][]byte{AppendEnvelope(nil, whole.Root.Envelope), AppendBodyStructure(nil, &whole.Root, true)} {
			if items, rest := parseItems(b); len(items) != 1 || len(rest) != 0 {
				t.Fatalf("%q is not one list", b)
			}
		}
		rejoined := 0
		for field := range Fields(mail) {
			rejoined += len(field.Raw)
		}
		if rejoined > len(mail) {
			t.Fatalf("fields of %d bytes in a mail of %d", rejoined, len(mail))
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, c := range readAwkward(f)[:40] {
		f.Add(Parse(narrow(c.Mail)).AppendBinary(nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Decode(m.AppendBinary(nil))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v\n%+v, %v", m, again, err)
		}
		AppendBodyStructure(nil, &m.Root, true)
	})
}

func benchMail(size int) []byte {
	header := "Return-Path: <a@example.com>\r\nReceived: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: A <a@example.com>\r\nTo: b@example.org\r\n" +
		"Subject: a subject\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n"
	return []byte(header + "Content-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72))
}

func BenchmarkParse(b *testing.B) {
	line := strings.Repeat("x", 70) + "\r\n"
	multi := "From: a@b\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n" +
		strings.Repeat("--bb\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"+strings.Repeat(line, 200), 10) + "--bb--\r\n"
	for _, c := range []struct {
		name string
		mail []byte
	}{{"plain4K", benchMail(4 << 10)}, {"plain100K", benchMail(100 << 10)}, {"multipart150K", []byte(multi)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.mail)))
			for b.Loop() {
				Parse(c.mail)
			}
		})
	}
}

func BenchmarkRender(b *testing.B) {
	m := Parse([]byte("From: A <a@b>\r\nTo: c@d, e@f\r\nSubject: s\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n" +
		strings.Repeat("--bb\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ntext\r\n", 3) + "--bb--\r\n"))
	stored := m.AppendBinary(nil)
	b.Run("envelope", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst = AppendEnvelope(dst[:0], m.Root.Envelope)
		}
	})
	b.Run("bodystructure", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst = AppendBodyStructure(dst[:0], &m.Root, true)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(stored); err != nil {
				b.Fatal(err)
			}
		}
	})
}
