package maildir

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// modifiedBase64 is the alphabet of RFC 3501 section 5.1.3.
var modifiedBase64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// encodeUTF7 writes valid UTF-8 as modified UTF-7.
func encodeUTF7(name string) string {
	plain := func(r rune) bool { return r >= ' ' && r <= '~' }
	if !strings.ContainsFunc(name, func(r rune) bool { return r == '&' || !plain(r) }) {
		return name
	}
	var out strings.Builder
	for name != "" {
		end := strings.IndexFunc(name, func(r rune) bool { return !plain(r) })
		if end < 0 {
			end = len(name)
		}
		out.WriteString(strings.ReplaceAll(name[:end], "&", "&-"))
		name = name[end:]
		if end = strings.IndexFunc(name, plain); end < 0 {
			end = len(name)
		}
		if end == 0 {
			continue
		}
		var octets []byte
		for _, unit := range utf16.Encode([]rune(name[:end])) {
			octets = append(octets, byte(unit>>8), byte(unit))
		}
		out.WriteByte('&')
		out.WriteString(modifiedBase64.EncodeToString(octets))
		out.WriteByte('-')
		name = name[end:]
	}
	return out.String()
}

// decodeUTF7 reads modified UTF-7. It is false for text that encodeUTF7 would not have written, so that a name and its directory
// always correspond.
func decodeUTF7(text string) (string, bool) {
	if !strings.Contains(text, "&") {
		return text, !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
	}
	var out strings.Builder
	rest := text
	for {
		before, after, shifted := strings.Cut(rest, "&")
		out.WriteString(before)
		if !shifted {
			break
		}
		coded, after, ended := strings.Cut(after, "-")
		if !ended {
			return "", false
		}
		rest = after
		if coded == "" {
			out.WriteByte('&')
			continue
		}
		octets, err := modifiedBase64.DecodeString(coded)
		if err != nil || len(octets)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(octets)/2)
		for i := range units {
			units[i] = uint16(octets[2*i])<<8 | uint16(octets[2*i+1])
		}
		for _, r := range utf16.Decode(units) {
			out.WriteRune(r)
		}
	}
	name := out.String()
	return name, utf8.ValidString(name) && encodeUTF7(name) == text
}
