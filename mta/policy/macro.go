package policy

import (
	"errors"
	"strings"
)

// errMacro tells of a malformed $name expression.
var errMacro = errors.New("malformed $name expression")

// expand replaces $name, $(name), ${name}, ${name?text}, ${name:text} and ${name?{text}:{text}} of a text. Values are put in as they are, cleaned by
// clean, and not expanded again: they come from outside.
func expand(text string, lookup func(name string) (string, bool), clean func(string) string) (string, error) {
	var b strings.Builder
	err := expandInto(&b, text, lookup, clean, 0)
	return b.String(), err
}

func expandInto(b *strings.Builder, text string, lookup func(string) (string, bool), clean func(string) string, depth int) error {
	if depth > maxDepth {
		return errMacro
	}
	for text != "" {
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 {
			b.WriteString(text)
			return nil
		}
		b.WriteString(text[:dollar])
		text = text[dollar+1:]
		var inner string
		switch {
		case strings.HasPrefix(text, "$"):
			b.WriteByte('$')
			text = text[1:]
			continue
		case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "("):
			end := closing(text)
			if end < 0 {
				return errMacro
			}
			inner, text = text[1:end], text[end+1:]
		default:
			n := nameLength(text)
			if n == 0 {
				return errMacro
			}
			inner, text = text[:n], text[n:]
		}
		if err := expandOne(b, inner, lookup, clean, depth); err != nil {
			return err
		}
	}
	return nil
}

// expandOne expands what stood between the braces.
func expandOne(b *strings.Builder, inner string, lookup func(string) (string, bool), clean func(string) string, depth int) error {
	n := nameLength(inner)
	if n == 0 {
		return errMacro
	}
	value, ok := lookup(inner[:n])
	ok = ok && value != ""
	rest := inner[n:]
	if rest == "" {
		b.WriteString(clean(value))
		return nil
	}
	wanted := rest[0] == '?'
	if rest[0] != '?' && rest[0] != ':' {
		return errMacro
	}
	first, second := rest[1:], ""
	if strings.HasPrefix(first, "{") {
		end := closing(first)
		if end < 0 {
			return errMacro
		}
		after := first[end+1:]
		first = first[1:end]
		if wanted && strings.HasPrefix(after, ":") {
			second = after[1:]
			if strings.HasPrefix(second, "{") && closing(second) == len(second)-1 {
				second = second[1 : len(second)-1]
			}
		} else if after != "" {
			return errMacro
		}
	}
	if ok == wanted {
		return expandInto(b, first, lookup, clean, depth+1)
	}
	return expandInto(b, second, lookup, clean, depth+1)
}

// closing finds the bracket that closes the one a text begins with.
func closing(text string) int {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '{', '(':
			depth++
		case '}', ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func nameLength(text string) int {
	n := 0
	for n < len(text) && (text[n] == '_' || text[n] >= '0' && text[n] <= '9' || text[n] >= 'a' && text[n] <= 'z' || text[n] >= 'A' && text[n] <= 'Z') {
		n++
	}
	return n
}

// printable puts _ for characters that smtpd_expansion_filter does not name.
func (r *Rules) printable(value string) string {
	clean := []byte(value)
	for i, c := range clean {
		if !r.expansion[c] {
			clean[i] = '_'
		}
	}
	return string(clean)
}

// readFilter reads a set of characters with the escapes of C.
func readFilter(text string) (set [256]bool) {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' && i+1 < len(text) {
			i++
			c = text[i]
			if at := strings.IndexByte("abfnrtv", c); at >= 0 {
				c = "\a\b\f\n\r\t\v"[at]
			} else if c >= '0' && c <= '7' {
				n := 0
				start := i
				for i < len(text) && i < start+3 && text[i] >= '0' && text[i] <= '7' {
					n = n*8 + int(text[i]-'0')
					i++
				}
				i--
				c = byte(n)
			}
		}
		set[c] = true
	}
	return set
}
