package imap

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

var utf7Base64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding).Strict()

// AppendUTF7 appends name, in UTF-8, in the modified UTF-7 of RFC 3501 section 5.1.3. Bytes that are no UTF-8 become U+FFFD.
func AppendUTF7(dst []byte, name string) []byte {
	for i := 0; i < len(name); {
		c := name[i]
		switch {
		case c == '&':
			dst = append(dst, "&-"...)
			i++
		case c >= 0x20 && c < 0x7f:
			dst = append(dst, c)
			i++
		default:
			var units []byte
			for i < len(name) && (name[i] < 0x20 || name[i] >= 0x7f) {
				r, n := utf8.DecodeRuneInString(name[i:])
				for _, u := range utf16.AppendRune(nil, r) {
					units = append(units, byte(u>>8), byte(u))
				}
				i += n
			}
			dst = append(dst, '&')
			dst = utf7Base64.AppendEncode(dst, units)
			dst = append(dst, '-')
		}
	}
	return dst
}

// ParseUTF7 reads modified UTF-7. It refuses what AppendUTF7 would not have written, so that a mailbox has one name only.
func ParseUTF7(text []byte) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c < 0x20 || c >= 0x7f {
			return "", false
		}
		if c != '&' {
			b.WriteByte(c)
			continue
		}
		end := i + 1
		for end < len(text) && text[end] != '-' {
			end++
		}
		if end == len(text) {
			return "", false
		}
		if end == i+1 {
			b.WriteByte('&')
		} else if !shifted(&b, text[i+1:end]) {
			return "", false
		}
		i = end
	}
	name := b.String()
	return name, string(AppendUTF7(nil, name)) == string(text)
}

func shifted(b *strings.Builder, text []byte) bool {
	units, err := utf7Base64.AppendDecode(nil, text)
	if err != nil || len(units)%2 != 0 || len(units) == 0 {
		return false
	}
	wide := make([]uint16, 0, len(units)/2)
	for i := 0; i < len(units); i += 2 {
		wide = append(wide, uint16(units[i])<<8|uint16(units[i+1]))
	}
	for _, r := range utf16.Decode(wide) {
		b.WriteRune(r)
	}
	return true
}
