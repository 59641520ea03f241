package export

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
)

// utf7 writes a mailbox name in the modified UTF-7 of RFC 3501 section 5.1.3, as Dovecot names its files.
func utf7(name string) string {
	var out strings.Builder
	var held []rune
	flush := func() {
		if len(held) == 0 {
			return
		}
		var octets []byte
		for _, unit := range utf16.Encode(held) {
			octets = append(octets, byte(unit>>8), byte(unit))
		}
		out.WriteByte('&')
		out.WriteString(strings.ReplaceAll(base64.RawStdEncoding.EncodeToString(octets), "/", ","))
		out.WriteByte('-')
		held = held[:0]
	}
	for _, r := range name {
		switch {
		case r < ' ' || r > '~':
			held = append(held, r)
		case r == '&':
			flush()
			out.WriteString("&-")
		default:
			flush()
			out.WriteRune(r)
		}
	}
	flush()
	return out.String()
}
