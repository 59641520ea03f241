package charset

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

func TestAppend(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"us-ascii", "abc", "abc"},
		{"", "\xc3\xa4", "ä"},
		{"US-ASCII", "\xc3\xa4\xff", "ä\uFFFD"},
		{"utf8", "\xc3\xa4", "ä"},
		{"\"UTF-8\"", "\xc3\xa4", "ä"},
		{"utf-8*de", "\xc3\xa4", "ä"},
		{"ISO-8859-1", "\xe4", "ä"},
		{"iso8859-15", "\xa4", "€"},
		{"cp1252", "\x80", "€"},
		{"windows-1251", "\xcf\xf0\xe8", "При"},
		{"KOI8-R", "\xf0\xd2\xc9", "При"},
		{"iso-2022-jp", "\x1b$B$\"\x1b(B", "あ"},
		{"Shift_JIS", "\x82\xa0", "あ"},
		{"cp932", "\x82\xa0", "あ"},
		{"euc-jp", "\xa4\xa2", "あ"},
		{"gb2312", "\xc4\xe3", "你"},
		{"GB18030", "\xc4\xe3", "你"},
		{"big5", "\xa7\x41", "你"},
		{"ks_c_5601-1987", "\xb0\xa1", "가"},
		{"hz-gb-2312", "~{Dc~}", "你"},
		{"utf-16", "\x00a\x00b", "ab"},
		{"utf-16le", "a\x00b\x00", "ab"},
		{"utf-7", "Hi Mom -+Jjo--!", "Hi Mom -☺-!"},
		{"utf-7", "1 +- 1 = 2", "1 + 1 = 2"},
		{"utf-7", "+2D3eCg-", "😊"},
		{"utf-7", "+2D0-a", "\uFFFDa"},
		{"cp850", "\x84", "ä"},
		{"x-nobody-knows", "a\xe4b", "a\uFFFDb"},
	} {
		if got := string(Append(nil, []byte(c.in), c.name)); got != c.want {
			t.Errorf("%s %q: %q, want %q", c.name, c.in, got, c.want)
		}
		slow, err := io.ReadAll(NewReader(iotest.OneByteReader(strings.NewReader(c.in)), c.name))
		if err != nil || string(slow) != c.want {
			t.Errorf("%s %q as a stream: %q, %v, want %q", c.name, c.in, slow, err, c.want)
		}
	}
	for _, name := range []string{"iso-2022-kr", "replacement", "x-nobody-knows"} {
		if _, ok := Lookup(name); ok {
			t.Errorf("%s is known", name)
		}
	}
}

func TestTransfer(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, c := range []struct{ encoding, in, want string }{
		{"7bit", "a=20\r\n", "a=20\r\n"},
		{"x-whatever", "a", "a"},
		{"base64", "YWJj", "abc"},
		{"BASE64 ", "YW\r\nJj\r\n", "abc"},
		{"base64", "YQ==YmM=", "abc"},
		{"base64", "YQ", "a"},
		{"base64", "Y!W*Jj", "abc"},
		{"base64", "YQ=\r\n=\r\nYg==", "ab"},
		{"base64", "", ""},
		{"base64", "=", ""},
		{"base64", base64.StdEncoding.EncodeToString([]byte(long)), long},
		{"quoted-printable", "a=3Db=3d", "a=b="},
		{"quoted-printable", "soft=\r\nbreak=\nhere=  \r\n!", "softbreakhere!"},
		{"quoted-printable", "trailing \t \r\nspace  \n", "trailing\r\nspace\n"},
		{"quoted-printable", "a b\tc", "a b\tc"},
		{"quoted-printable", "broken =ZZ = =4", "broken =ZZ = =4"},
		{"quoted-printable", "end =", "end "},
		{"quoted-printable", "end  ", "end"},
		{"quoted-printable", long + "=\r\n" + long, long + long},
		{"x-uuencode", "text\nbegin 644 f\n#86)C\n`\nend\nmore\n", "abc"},
		{"x-uuencode", "begin 644 f\r\n#86)C\r\n#86)C\r\n \r\nend\r\n", "abcabc"},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in))} {
			got, err := io.ReadAll(NewTransferReader(r, c.encoding))
			if err != nil || string(got) != c.want {
				t.Errorf("%s %.60q: %.60q, %v, want %.60q", c.encoding, c.in, got, err, c.want)
			}
		}
	}
	if KnownTransfer("x-whatever") || !KnownTransfer("Base64") {
		t.Error("what is known")
	}
}

func TestTransferIsBounded(t *testing.T) {
	for _, encoding := range []string{"base64", "quoted-printable", "x-uuencode"} {
		for _, piece := range []string{" ", "=", "a", "M", "= \t"} {
			r := io.LimitReader(&endless{piece: []byte(strings.Repeat(piece, 1000))}, 2<<20)
			if _, err := io.Copy(io.Discard, NewTransferReader(r, encoding)); err != nil {
				t.Errorf("%s of %q: %v", encoding, piece, err)
			}
		}
	}
}

// endless repeats its piece.
type endless struct{ piece []byte }

func (e *endless) Read(p []byte) (int, error) { return copy(p, e.piece), nil }

func TestTransferOfWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		var qp bytes.Buffer
		w := quotedprintable.NewWriter(&qp)
		w.Binary = true
		_, _ = w.Write(data)
		_ = w.Close()
		if got, err := io.ReadAll(NewTransferReader(&qp, "quoted-printable")); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("quoted-printable: %q, %v, want %q", got, err, data)
		}
		b := base64.StdEncoding.EncodeToString(data)
		if got, err := io.ReadAll(NewTransferReader(strings.NewReader(b), "base64")); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("base64: %q, %v, want %q", got, err, data)
		}
	})
}

func TestFold(t *testing.T) {
	for _, c := range []struct{ a, b string }{
		{"abc", "ABC"},
		{"ä", "Ä"},
		{"ä", "a\u0308"},
		{"ﬁ", "ﬁ"},
		{"ｗｉｄｅ", "WIDE"},
		{"Σ", "ς"},
		{"가", "\u1100\u1161"},
		{"ǖ", "Ǖ"},
	} {
		if a, b := Fold([]byte(c.a)), Fold([]byte(c.b)); !bytes.Equal(a, b) {
			t.Errorf("%q folds to %q, %q to %q", c.a, a, c.b, b)
		}
	}
	if got := string(Fold([]byte("a\xff\xfeb"))); got != "A\uFFFDB" {
		t.Errorf("broken UTF-8 folds to %q", got)
	}
}

// TestFoldIsNFKDOfTitleCase compares every character with the definition.
func TestFoldIsNFKDOfTitleCase(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		want := norm.NFKD.String(string(unicode.ToTitle(r)))
		if got := string(Fold([]byte(string(r)))); got != want {
			t.Errorf("%U folds to %q, want %q", r, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("=C3=A4"), "quoted-printable", "utf-8")
	f.Add([]byte("w6Q="), "base64", "iso-8859-1")
	f.Add([]byte("begin 644 x\n#86)C\nend\n"), "x-uuencode", "utf-7")
	f.Add([]byte("+Jjo-\x1b$B"), "7bit", "iso-2022-jp")
	f.Fuzz(func(t *testing.T, body []byte, encoding, name string) {
		whole, err := io.ReadAll(NewTextReader(bytes.NewReader(body), encoding, name))
		if err != nil {
			t.Fatal(err)
		}
		slow, err := io.ReadAll(NewTextReader(iotest.OneByteReader(bytes.NewReader(body)), encoding, name))
		if err != nil || !bytes.Equal(whole, slow) {
			t.Fatalf("whole %q, slow %q, %v", whole, slow, err)
		}
		if !utf8.Valid(Append(nil, body, name)) || !utf8.Valid(Fold(body)) {
			t.Fatal("not UTF-8")
		}
	})
}

func BenchmarkTransfer(b *testing.B) {
	data := bytes.Repeat([]byte("some text with a few = signs and ä\r\n"), 2000)
	var qp bytes.Buffer
	w := quotedprintable.NewWriter(&qp)
	_, _ = w.Write(data)
	_ = w.Close()
	for _, c := range []struct{ name, text string }{
		{"base64", base64.StdEncoding.EncodeToString(data)}, {"quoted-printable", qp.String()},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.text)))
			for b.Loop() {
				_, _ = io.Copy(io.Discard, NewTransferReader(strings.NewReader(c.text), c.name))
			}
		})
	}
}

func BenchmarkFold(b *testing.B) {
	text := []byte(strings.Repeat("Some text with an Ä now and then. ", 30))
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	var dst []byte
	for b.Loop() {
		dst = AppendFold(dst[:0], text)
	}
}
