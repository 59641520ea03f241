package smtp

import (
	"iter"
	"strings"
)

// token is one word of a command. Brackets and quotes keep blanks inside a word.
type token struct {
	text []byte
	// broken: a quote or bracket was not closed.
	broken bool
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// tokenize splits a command line as smtpd does: at white space outside quotes and angle brackets, and after "from:" and "to:".
func tokenize(line []byte, tokens []token) []token {
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i >= len(line) {
			return tokens
		}
		start, broken := i, false
	word:
		for i < len(line) && !isSpace(line[i]) {
			switch line[i] {
			case '<':
				i, broken = closing(line, i, '>')
			case '"':
				i, broken = closing(line, i, '"')
			case '[':
				i, broken = closing(line, i, ']')
			case ':':
				i++
				if word := line[start:i]; foldedBytes(word, "from:") || foldedBytes(word, "to:") {
					break word
				}
			default:
				i++
			}
			if broken {
				break
			}
		}
		tokens = append(tokens, token{line[start:i], broken})
	}
}

// closing returns the offset after the delimiter that closes the one at line[i], and whether it is missing. Angle brackets nest; inside
// quotes nothing counts but the closing quote.
func closing(line []byte, i int, want byte) (int, bool) {
	depth, quoted := 1, want == '"'
	for i++; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			i++
		case quoted:
			if c != '"' {
				continue
			}
			if want == '"' {
				return i + 1, false
			}
			quoted = false
		case c == '"':
			quoted = true
		case c == want:
			if depth--; depth == 0 {
				return i + 1, false
			}
		case c == '<' && want == '>':
			depth++
		}
	}
	return len(line), true
}

func foldedBytes(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		if toLower(b[i]) != toLower(lower[i]) {
			return false
		}
	}
	return true
}

func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if toLower(a[i]) != toLower(b[i]) {
			return false
		}
	}
	return true
}

func toLower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// prefixFold cuts a prefix, given in capitals, in any case.
func prefixFold(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || !foldedBytes(b[:len(prefix)], prefix) {
		return b, false
	}
	return b[len(prefix):], true
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// decimal reads digits; ok is false beyond 63 bits.
func decimal(b []byte) (n int64, ok bool) {
	for _, c := range b {
		d := int64(c - '0')
		if n > (1<<63-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// words yields the words of a configuration list, separated by blanks or commas.
func words(list string) iter.Seq[string] {
	return strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
}

// DecodeXtext decodes the xtext of RFC 3461 section 4. Characters that RFC 3461 wants encoded are taken as they are, as Postfix does.
func DecodeXtext(text []byte) ([]byte, bool) {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '+' {
			out = append(out, text[i])
			continue
		}
		if i+2 >= len(text) {
			return nil, false
		}
		high, low := hexDigit(text[i+1]), hexDigit(text[i+2])
		if high < 0 || low < 0 {
			return nil, false
		}
		out = append(out, byte(high<<4|low))
		i += 2
	}
	return out, true
}

// AppendXtext appends text in the encoding of RFC 3461 section 4.
func AppendXtext(out []byte, text string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 127 || c == '+' || c == '=' {
			out = append(out, '+', digits[c>>4], digits[c&15])
		} else {
			out = append(out, c)
		}
	}
	return out
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// printable replaces what a terminal should not see with "?".
func printable(b []byte) string {
	clean := true
	for _, c := range b {
		if c < ' ' || c == 127 {
			clean = false
			break
		}
	}
	if clean {
		return string(b)
	}
	out := make([]byte, len(b))
	for i, c := range b {
		if c < ' ' || c == 127 {
			c = '?'
		}
		out[i] = c
	}
	return string(out)
}

// neuter makes a HELO name harmless for headers and logs.
func neuter(name string) string {
	const special = " \t<>()\\\";@"
	if !strings.ContainsAny(name, special) {
		return name
	}
	out := []byte(name)
	for i, c := range out {
		if strings.IndexByte(special, c) >= 0 {
			out[i] = '?'
		}
	}
	return string(out)
}
