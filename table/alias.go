package table

import (
	"strings"
)

// SplitAlias takes a line of aliases(5) apart: a local name, a colon, a list of destinations. The name comes out without
// quotes, the destinations are written anew as Postfix writes them: one space after each comma, quotes kept.
func SplitAlias(line string) (name, value string, err error) {
	tokens := scanAddress(line)
	colon := -1
	for i, t := range tokens {
		if t.kind == ':' {
			colon = i
			break
		}
	}
	if colon <= 0 || colon == len(tokens)-1 {
		return "", "", &RecordError{"need name:value pair"}
	}
	for _, t := range tokens[:colon] {
		if t.kind == ',' {
			return "", "", &RecordError{"need name:value pair"}
		}
	}
	for _, t := range tokens[:colon] {
		if t.kind == '@' {
			return "", "", &RecordError{"name must be local"}
		}
	}
	return writeAddress(tokens[:colon], false), writeAddress(tokens[colon+1:], true), nil
}

// addressToken is a token of RFC 822 as Postfix reads it. Operators are their own kind.
type addressToken struct {
	kind byte
	text string
}

const (
	tokenAtom    = 'A'
	tokenQuoted  = '"'
	tokenLiteral = '['
	tokenComment = '('
)

// addressOperators separate atoms.
const addressOperators = "|\"%.,:;<>@[]()!\\"

func scanAddress(s string) []addressToken {
	var tokens []addressToken
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case isBlank(c):
			i++
		case c == '(':
			length := commentLength(s[i:])
			tokens = append(tokens, addressToken{tokenComment, s[i : i+length]})
			i += length
		case c == '"' || c == '[':
			closing := c
			if c == '[' {
				closing = ']'
			}
			text, length := unescape(s[i+1:], func(b byte) bool { return b == closing })
			tokens = append(tokens, addressToken{c, text})
			i = min(i+1+length+1, len(s))
		case c != '\\' && strings.IndexByte(addressOperators, c) >= 0:
			tokens = append(tokens, addressToken{c, ""})
			i++
		default:
			text, length := unescape(s[i:], func(b byte) bool {
				return isBlank(b) || strings.IndexByte(addressOperators, b) >= 0
			})
			if text != "" {
				tokens = append(tokens, addressToken{atomOrQuoted(text), text})
			}
			i += max(length, 1)
		}
	}
	return tokens
}

// atomOrQuoted tells how an atom is written again: one that holds an escaped operator needs quotes.
func atomOrQuoted(text string) byte {
	if strings.ContainsAny(text, addressOperators+" \t\r\n") {
		return tokenQuoted
	}
	return tokenAtom
}

// unescape reads up to a byte that ends the token, taking backslashes off.
func unescape(s string, ends func(b byte) bool) (text string, length int) {
	var out strings.Builder
	i := 0
	for i < len(s) {
		c := s[i]
		if c == '\\' {
			if i++; i >= len(s) {
				break
			}
		} else if ends(c) {
			break
		}
		out.WriteByte(s[i])
		i++
	}
	return out.String(), i
}

func commentLength(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// writeAddress writes tokens, quoted or as they are meant.
func writeAddress(tokens []addressToken, quoted bool) string {
	var out strings.Builder
	for i, t := range tokens {
		switch t.kind {
		case tokenAtom, tokenComment:
			out.WriteString(t.text)
		case tokenQuoted:
			if !quoted {
				out.WriteString(t.text)
				break
			}
			out.WriteString(`"` + escape(t.text, "\"\\\r\n") + `"`)
		case tokenLiteral:
			out.WriteString("[" + escape(t.text, "\\\r\n") + "]")
		default:
			out.WriteByte(t.kind)
		}
		if t.kind == ',' || i+1 < len(tokens) && isWordToken(t) && (isWordToken(tokens[i+1]) || tokens[i+1].kind == '<') {
			out.WriteByte(' ')
		}
	}
	return out.String()
}

func isWordToken(t addressToken) bool {
	return t.kind == tokenAtom || t.kind == tokenQuoted || t.kind == tokenLiteral || t.kind == tokenComment
}

func escape(text, special string) string {
	var out strings.Builder
	for i := range len(text) {
		if strings.IndexByte(special, text[i]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(text[i])
	}
	return out.String()
}
