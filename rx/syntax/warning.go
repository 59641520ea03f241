package syntax

import (
	"fmt"
	"strings"
)

// Warning tells what a valid pattern most likely does not mean.
type Warning struct {
	// Offset counts bytes from the start of the pattern.
	Offset int
	Text   string
}

func (w Warning) String() string { return fmt.Sprintf("at offset %d: %s", w.Offset, w.Text) }

// Warnings looks for notations that one language has and the other reads as something else: \d or [^\n] in a POSIX
// pattern, \{6,\} where braces are operators. It is meant for valid patterns; it changes nothing.
func Warnings(notation Notation, pattern string) []Warning {
	w := warner{s: pattern, posix: notation != Perl, extended: notation != POSIXBasic}
	for w.i < len(w.s) {
		switch c := w.s[w.i]; {
		case c == '\\' && w.i+1 < len(w.s):
			w.escape()
			w.i += 2
		case c == '[':
			w.list()
		default:
			if w.posix && w.extended && c == '?' && w.i > 0 && strings.IndexByte("*+?}", w.s[w.i-1]) >= 0 && !w.escapedBefore() {
				w.warn("%c? is not a lazy repetition in a POSIX expression", w.s[w.i-1])
			}
			w.i++
		}
	}
	return w.out
}

type warner struct {
	s        string
	i        int
	posix    bool
	extended bool
	out      []Warning
}

func (w *warner) warn(format string, args ...any) {
	w.out = append(w.out, Warning{w.i, fmt.Sprintf(format, args...)})
}

// escapedBefore says whether the byte before the current one is itself escaped.
func (w *warner) escapedBefore() bool { return w.i >= 2 && w.s[w.i-2] == '\\' }

func (w *warner) escape() {
	c := w.s[w.i+1]
	switch {
	case c == '{' && w.extended:
		rest := w.s[w.i+2:]
		if end := strings.Index(rest, `\}`); end > 0 && strings.Trim(rest[:end], "0123456789,") == "" {
			w.warn(`\{%s\} is literal text here; a repetition is written {%s}`, rest[:end], rest[:end])
		}
	case w.posix && (isLetter(c) || c == '0') && strings.IndexByte("wWsSbB", c) < 0:
		w.warn(`\%c is the letter %c in a POSIX expression%s`, c, c, instead(c))
	}
}

// instead names what a POSIX expression offers in place of a Perl escape.
func instead(c byte) string {
	switch c {
	case 'd':
		return "; a digit is [[:digit:]]"
	case 'D':
		return "; what is no digit is [^[:digit:]]"
	case 'h':
		return "; a blank is [[:blank:]]"
	case 'A':
		return "; the start of the text is ^"
	case 'z', 'Z':
		return "; the end of the text is $"
	}
	return ""
}

// list looks into a bracket expression and passes over it.
func (w *warner) list() {
	start := w.i
	if rest := w.s[start:]; w.posix && len(rest) > 4 && rest[1] == ':' {
		if end := strings.Index(rest, ":]"); end > 2 && !strings.HasPrefix(rest[end+2:], "]") {
			if _, ok := class(rest[2:end]); ok {
				w.warn("[:%s:] is a list of letters here; the class is written [[:%s:]]", rest[2:end], rest[2:end])
			}
		}
	}
	w.i++
	if strings.HasPrefix(w.s[w.i:], "^") {
		w.i++
	}
	for first := true; w.i < len(w.s); first = false {
		c := w.s[w.i]
		switch {
		case c == ']' && !first:
			w.i++
			return
		case c == '[' && w.i+1 < len(w.s) && strings.IndexByte(":.=", w.s[w.i+1]) >= 0:
			end := strings.Index(w.s[w.i+2:], w.s[w.i+1:w.i+2]+"]")
			if end < 0 {
				w.i = len(w.s)
				return
			}
			w.i += end + 4
			continue
		case c == '\\' && w.i+1 < len(w.s) && !w.posix:
			w.i++
		case c == '\\' && w.i+1 < len(w.s) && (isLetter(w.s[w.i+1]) || w.s[w.i+1] == ']'):
			w.warn(`\ is an ordinary character in a POSIX list: [\%c] holds a backslash`, w.s[w.i+1])
		}
		w.i++
	}
}
