package header

import (
	"strings"

	"postilion/mail/charset"
	"postilion/mail/token"
)

// Param returns the value of a parameter as UTF-8 text, "" when there is none: name* with its character set and percent encoding (RFC 2231
// section 4) before name, in which encoded words are decoded although RFC 2047 forbids them there. params is as mail/token reads it, with the
// pieces put together.
func Param(params []token.Param, name string) string {
	plain := ""
	for _, p := range params {
		base, extended := strings.CutSuffix(p.Name, "*")
		switch {
		case !strings.EqualFold(base, name):
		case extended:
			return DecodeExtended(p.Value)
		case plain == "":
			plain = string(DecodeWords(nil, []byte(p.Value)))
		}
	}
	return plain
}

// DecodeExtended decodes charset'language'text of RFC 2231. A value without the quotes is taken for percent-encoded UTF-8.
func DecodeExtended(value string) string {
	set, text := "utf-8", value
	if name, rest, ok := strings.Cut(value, "'"); ok {
		if _, after, ok := strings.Cut(rest, "'"); ok {
			set, text = name, after
		}
	}
	if set == "" {
		set = "utf-8"
	}
	raw := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]) {
			raw = append(raw, fromHex(text[i+1])<<4|fromHex(text[i+2]))
			i += 2
			continue
		}
		raw = append(raw, text[i])
	}
	return string(charset.Append(nil, raw, set))
}

// AppendParam appends "; name=value", quoted when it must be, and by RFC 2231 when value is not ASCII.
func AppendParam(dst []byte, name, value string) []byte {
	dst = append(dst, "; "...)
	dst = append(dst, name...)
	if !NeedsEncoding(value) {
		dst = append(dst, '=')
		if value != "" && isToken(value) {
			return append(dst, value...)
		}
		dst = append(dst, '"')
		for i := 0; i < len(value); i++ {
			if value[i] == '"' || value[i] == '\\' {
				dst = append(dst, '\\')
			}
			dst = append(dst, value[i])
		}
		return append(dst, '"')
	}
	dst = append(dst, "*=utf-8''"...)
	const hex = "0123456789ABCDEF"
	for _, c := range []byte(strings.ToValidUTF8(value, "\uFFFD")) {
		if isTokenChar(c) && c != '*' && c != '\'' && c != '%' {
			dst = append(dst, c)
			continue
		}
		dst = append(dst, '%', hex[c>>4], hex[c&15])
	}
	return dst
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isTokenChar(s[i]) {
			return false
		}
	}
	return true
}

func isTokenChar(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}
