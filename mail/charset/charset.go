// Package charset turns what mail carries into UTF-8: it knows the names of character sets as mail writes them, takes content transfer
// encodings off, and folds text for comparison as IMAP SEARCH needs it. Everything streams and nothing fails: what cannot be decoded becomes
// U+FFFD or is skipped.
//
// It knows no header fields and no message structure. It follows RFC 2045 section 6, RFC 2978 names with the aliases of the WHATWG encoding
// standard, and RFC 5051 for folding.
package charset

import (
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// alias gives names that mail programs write and the indexes do not know the name that they do.
func alias(name string) string {
	switch name {
	case "", "ascii", "us", "ansi_x3.4-1968", "ansi_x3.4-1986", "iso646-us", "iso_646.irv:1991", "7bit", "8bit", "utf8", "utf_8", "unicode-1-1-utf-8", "cp65001", "x-unicode-2-0-utf-8":
		return "utf-8"
	case "latin-1", "iso8859_1", "iso-latin-1", "8859-1", "iso 8859-1", "unknown-8bit", "x-unknown", "unknown", "default", "x-user-defined", "ansi":
		return "iso-8859-1"
	case "cp932", "ms932", "x-ms-cp932", "windows-932", "shift-jis", "x-shift-jis":
		return "shift_jis"
	case "cp936", "ms936", "windows-936", "gb-2312", "x-gbk", "gb_2312", "euc-cn":
		return "gbk"
	case "cp949", "ms949", "ks_c_5601", "x-windows-949", "uhc":
		return "euc-kr"
	case "cp950", "x-windows-950", "big-5":
		return "big5"
	case "iso-2022-jp-1", "iso-2022-jp-2", "iso-2022-jp-3", "iso-2022-jp-ms", "cp50220", "cp50221":
		return "iso-2022-jp"
	case "tis620", "cp874":
		return "windows-874"
	case "koi8u":
		return "koi8-u"
	case "mac", "x-mac", "macroman":
		return "macintosh"
	}
	if number, ok := strings.CutPrefix(name, "cp125"); ok {
		return "windows-125" + number
	}
	if number, ok := strings.CutPrefix(name, "windows125"); ok {
		return "windows-125" + number
	}
	if number, ok := strings.CutPrefix(name, "iso8859-"); ok {
		return "iso-8859-" + number
	}
	return name
}

// Lookup returns the encoding of that name, without regard to case, quotes and white space. US-ASCII is UTF-8 here: 8-bit text that calls
// itself US-ASCII is more often that than anything else. It is false for names nobody knows.
func Lookup(name string) (encoding.Encoding, bool) {
	name = strings.ToLower(strings.Trim(name, " \t\r\n\"'"))
	if star := strings.IndexByte(name, '*'); star > 0 {
		name = name[:star] // RFC 2231 section 5: charset*language
	}
	switch name = alias(name); name {
	case "utf-8", "us-ascii":
		return unicode.UTF8, true
	case "utf-7", "unicode-1-1-utf-7":
		return utf7{}, true
	case "hz-gb-2312", "hz":
		return simplifiedchinese.HZGB2312, true
	case "utf-16":
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM), true
	}
	if e, err := htmlindex.Get(name); err == nil && e != encoding.Replacement {
		return e, true
	}
	if e, err := ianaindex.MIME.Encoding(name); err == nil && e != nil && e != encoding.Replacement {
		return e, true
	}
	if e, err := ianaindex.IANA.Encoding(name); err == nil && e != nil && e != encoding.Replacement {
		return e, true
	}
	return nil, false
}

// decoder returns a transformer to UTF-8; for an unknown name one that keeps what is valid UTF-8.
func decoder(name string) transform.Transformer {
	e, ok := Lookup(name)
	if !ok {
		e = unicode.UTF8
	}
	return e.NewDecoder()
}

// Append appends text, which is in the named character set, to dst as UTF-8. Text in a set nobody knows is taken for UTF-8.
func Append(dst, text []byte, name string) []byte {
	if isASCII(text) && asciiCompatible(name) {
		return append(dst, text...)
	}
	out, _, err := transform.Bytes(decoder(name), text)
	if err != nil {
		return append(dst, strings.ToValidUTF8(string(text), "\uFFFD")...)
	}
	return append(dst, out...)
}

func isASCII(text []byte) bool {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// asciiCompatible tells of the most common sets that ASCII bytes stand for themselves.
func asciiCompatible(name string) bool {
	switch strings.ToLower(name) {
	case "", "utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252":
		return true
	}
	return false
}

// NewReader returns a reader of r's text, which is in the named character set, as UTF-8.
func NewReader(r io.Reader, name string) io.Reader {
	return transform.NewReader(r, decoder(name))
}

// NewTextReader returns a reader of the text of a part: r is its body as it stands, from which the transfer encoding and the character set
// are taken off.
func NewTextReader(r io.Reader, transferEncoding, name string) io.Reader {
	return NewReader(NewTransferReader(r, transferEncoding), name)
}
