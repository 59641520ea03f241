package imap

import (
	"strconv"
)

// AppendNumber appends n in decimal.
func AppendNumber(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }

// AppendAString appends text as an atom when it can be one, else as AppendString.
func AppendAString(dst, text []byte) []byte {
	if len(text) == 0 {
		return append(dst, `""`...)
	}
	for _, c := range text {
		if !AtomChar(c) {
			return AppendString(dst, text)
		}
	}
	if len(text) == 3 && upper(text) == "NIL" {
		return AppendString(dst, text)
	}
	return append(dst, text...)
}

// AtomChar tells whether c may stand in an atom.
func AtomChar(c byte) bool {
	switch c {
	case '(', ')', '{', '%', '*', '"', '\\':
		return false
	}
	return c > ' ' && c < 0x7f
}

// AppendString appends text quoted when it is short enough and of ASCII characters without line ends, else as a literal.
func AppendString(dst, text []byte) []byte {
	escapes := 0
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			escapes++
		case c == 0 || c == '\r' || c == '\n' || c >= 0x80:
			return AppendLiteral(dst, text)
		}
	}
	if escapes > 4 {
		return AppendLiteral(dst, text)
	}
	return appendQuoted(dst, text)
}

func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// AppendLiteral appends text as a literal.
func AppendLiteral(dst, text []byte) []byte {
	dst = append(dst, '{')
	dst = strconv.AppendInt(dst, int64(len(text)), 10)
	dst = append(dst, "}\r\n"...)
	return append(dst, text...)
}

// AppendMailbox appends a mailbox name in UTF-8: as modified UTF-7, or as it is when the client has said that it takes UTF-8 (RFC 6855).
func AppendMailbox(dst []byte, name string, utf8 bool) []byte {
	if !utf8 {
		return AppendAString(dst, AppendUTF7(nil, name))
	}
	for i := range len(name) {
		if name[i] >= 0x80 {
			return appendQuoted(dst, []byte(name))
		}
	}
	return AppendAString(dst, []byte(name))
}

// AppendText appends the text of a status response, which is one line without NUL.
func AppendText(dst []byte, text string) []byte {
	for i := range len(text) {
		c := text[i]
		if c == '\r' || c == '\n' || c == 0 {
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}
