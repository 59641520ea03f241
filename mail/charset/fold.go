package charset

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Fold returns text as i;unicode-casemap compares it (RFC 5051): every character in title case and decomposed, compatibility characters
// too. Two texts are equal to that comparator when their folds are equal, and one is in the other when its fold is. Bytes that are no UTF-8
// become U+FFFD, one for each run of them.
func Fold(text []byte) []byte { return AppendFold(make([]byte, 0, len(text)), text) }

// Hangul syllables are decomposed by rule, not by table.
const (
	hangulFirst = 0xAC00
	hangulLast  = 0xD7A3
)

// AppendFold appends the fold of text to dst.
func AppendFold(dst, text []byte) []byte {
	for len(text) > 0 {
		if c := text[0]; c < utf8.RuneSelf {
			if c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			dst = append(dst, c)
			text = text[1:]
			continue
		}
		r, n := utf8.DecodeRune(text)
		invalid := r == utf8.RuneError && n == 1
		text = text[n:]
		if invalid {
			if !endsInReplacement(dst) {
				dst = utf8.AppendRune(dst, utf8.RuneError)
			}
			continue
		}
		var one [utf8.UTFMax]byte
		title := one[:utf8.EncodeRune(one[:], unicode.ToTitle(r))]
		if parts := norm.NFKD.Properties(title).Decomposition(); parts != nil {
			dst = append(dst, parts...)
		} else if r >= hangulFirst && r <= hangulLast {
			dst = norm.NFKD.Append(dst, title...)
		} else {
			dst = append(dst, title...)
		}
	}
	return dst
}

func endsInReplacement(dst []byte) bool {
	r, n := utf8.DecodeLastRune(dst)
	return r == utf8.RuneError && n == 3
}
