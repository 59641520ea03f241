// Package header reads and writes what stands inside header fields: encoded words (RFC 2047), parameters in other character sets (RFC 2231)
// and dates (RFC 5322). Reading is lenient: whatever stands there becomes UTF-8 text.
//
// It does not find the fields (mail/message does) nor read addresses (mail/address).
package header

import (
	"bytes"
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"postilion/mail/charset"
)

// DecodeWords appends value to dst as UTF-8 text, with its encoded words decoded. White space between two encoded words goes; words are
// decoded wherever they stand, also inside of quotes and next to other text, as mail programs write them. Words that follow each other in
// one character set are put together first, as some split characters between them. Line ends are kept: unfold before.
func DecodeWords(dst, value []byte) []byte {
	var run wordRun
	text := 0 // where the text begins that is not yet appended
	for pos := 0; pos+1 < len(value); {
		if value[pos] != '=' || value[pos+1] != '?' {
			pos++
			continue
		}
		w, size, ok := parseWord(value[pos:])
		if !ok {
			pos += 2
			continue
		}
		if between := value[text:pos]; !(run.begun && isBlank(between)) {
			dst = run.flush(dst)
			dst = charset.Append(dst, between, "utf-8")
		}
		dst = run.add(dst, w)
		pos += size
		text = pos
	}
	dst = run.flush(dst)
	return charset.Append(dst, value[text:], "utf-8")
}

func isBlank(b []byte) bool { return len(bytes.Trim(b, " \t\r\n")) == 0 }

type word struct {
	charset  string
	encoding byte
	text     []byte
}

// parseWord reads the encoded word at the beginning of value: =?charset?encoding?text?=
func parseWord(value []byte) (w word, size int, ok bool) {
	rest := value[2:]
	i := bytes.IndexByte(rest, '?')
	if i < 0 || i+2 >= len(rest) || rest[i+2] != '?' || bytes.ContainsAny(rest[:i], " \t\r\n") {
		return w, 0, false
	}
	w.charset = string(rest[:i])
	w.encoding = rest[i+1] | 0x20
	text := rest[i+3:]
	j := bytes.IndexByte(text, '?')
	if j < 0 || j+1 >= len(text) || text[j+1] != '=' {
		return w, 0, false
	}
	w.text = text[:j]
	return w, 2 + i + 3 + j + 2, w.encoding == 'q' || w.encoding == 'b'
}

// wordRun gathers the bytes of encoded words that follow each other in one character set.
type wordRun struct {
	begun   bool
	charset string
	bytes   []byte
}

func (r *wordRun) add(dst []byte, w word) []byte {
	if r.begun && !strings.EqualFold(r.charset, w.charset) {
		dst = r.flush(dst)
	}
	r.begun, r.charset = true, w.charset
	if w.encoding == 'q' {
		r.bytes = appendQ(r.bytes, w.text)
	} else {
		r.bytes = appendBase64(r.bytes, w.text)
	}
	return dst
}

func (r *wordRun) flush(dst []byte) []byte {
	if r.begun {
		dst = charset.Append(dst, r.bytes, r.charset)
	}
	*r = wordRun{bytes: r.bytes[:0]}
	return dst
}

func appendQ(dst, text []byte) []byte {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '_':
			dst = append(dst, ' ')
		case c == '=' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]):
			dst = append(dst, fromHex(text[i+1])<<4|fromHex(text[i+2]))
			i += 2
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func fromHex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return (c | 0x20 - 'a') + 10
}

// appendBase64 decodes text up to its padding, which may be missing; what is not base64 is skipped.
func appendBase64(dst, text []byte) []byte {
	clean := make([]byte, 0, len(text))
	for _, c := range text {
		if c == '=' {
			break
		}
		if c == '+' || c == '/' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			clean = append(clean, c)
		}
	}
	if len(clean)%4 == 1 {
		clean = clean[:len(clean)-1]
	}
	out, err := base64.RawStdEncoding.AppendDecode(dst, clean)
	if err != nil {
		return dst
	}
	return out
}

// wordTextMax is how many bytes of text go into one encoded word, whose length RFC 2047 section 2 limits to 75.
const wordTextMax = 42

// NeedsEncoding tells whether text cannot stand as it is in a header field of ASCII.
func NeedsEncoding(text string) bool {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c >= utf8.RuneSelf || c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return strings.Contains(text, "=?")
}

// EncodeText appends text for an unstructured field such as Subject: as it is when it is ASCII, else as encoded words of UTF-8 separated by a
// space, at which the field can be folded. Line ends become spaces.
func EncodeText(dst []byte, text string) []byte {
	text = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ").Replace(text)
	if !NeedsEncoding(text) {
		return append(dst, text...)
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	for first := true; text != ""; first = false {
		n := min(len(text), wordTextMax)
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n--
		}
		if !first {
			dst = append(dst, ' ')
		}
		dst = append(dst, "=?utf-8?B?"...)
		dst = base64.StdEncoding.AppendEncode(dst, []byte(text[:n]))
		dst = append(dst, "?="...)
		text = text[n:]
	}
	return dst
}

// EncodePhrase appends a display name for an address: as it is when it is made of atoms, quoted when it is other ASCII, else encoded.
func EncodePhrase(dst []byte, name string) []byte {
	if NeedsEncoding(name) {
		return EncodeText(dst, name)
	}
	atoms := name != "" && !strings.HasPrefix(name, " ") && !strings.HasSuffix(name, " ") && !strings.Contains(name, "  ")
	for i := 0; i < len(name) && atoms; i++ {
		c := name[i]
		atoms = c == ' ' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
	}
	if atoms {
		return append(dst, name...)
	}
	dst = append(dst, '"')
	for i := 0; i < len(name); i++ {
		if name[i] == '"' || name[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, name[i])
	}
	return append(dst, '"')
}
