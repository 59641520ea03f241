package postfix

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Limits on what is read. Postfix has none for files; a configuration beyond these is a mistake.
const (
	MaxFileSize  = 16 << 20 // bytes of one main.cf or master.cf
	MaxValueSize = 1 << 20  // bytes of one logical line, and of one expanded value
	maxNesting   = 100      // depth of $name expansion, as in Postfix
)

// ErrTooLarge says that a file, a logical line or an expanded value is larger than its limit.
var ErrTooLarge = errors.New("larger than the limit")

// logicalLine is a line with its continuation lines, comments taken out.
type logicalLine struct {
	text        string // without the line ends and without trailing white space
	first, last int    // physical line numbers
}

func isSpace(c byte) bool {
	return c == ' ' || (c >= '\t' && c <= '\r')
}

func trimLeft(s string) string {
	for s != "" && isSpace(s[0]) {
		s = s[1:]
	}
	return s
}

func trimRight(s string) string {
	for s != "" && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func trim(s string) string { return trimLeft(trimRight(s)) }

// splitLogical joins physical lines: a line that starts with white space continues the one before it. Empty lines and lines whose
// first visible character is "#" are taken out wherever they stand, also between the parts of a logical line.
func splitLogical(text []byte) ([]logicalLine, error) {
	var (
		lines []logicalLine
		buf   []byte
		first int
		last  int
		line  int
	)
	flush := func() {
		if len(buf) > 0 {
			lines = append(lines, logicalLine{text: trimRight(string(buf)), first: first, last: last})
		}
		buf = buf[:0]
	}
	for len(text) > 0 {
		line++
		physical := text
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			physical, text = text[:end], text[end+1:]
		} else {
			text = nil
		}
		if visible := trimLeft(string(physical)); visible == "" || visible[0] == '#' {
			continue
		}
		if !isSpace(physical[0]) {
			flush()
		}
		if len(buf) == 0 {
			first = line
		}
		if len(buf)+len(physical) > MaxValueSize {
			return nil, fmt.Errorf("line %d: logical line %w of %d bytes", first, ErrTooLarge, MaxValueSize)
		}
		buf = append(buf, physical...)
		last = line
	}
	flush()
	return lines, nil
}

// SplitNameValue splits "name = value" as main.cf, -o options and postconf do. The error is Postfix's own wording.
func SplitNameValue(text string) (name, value string, err error) {
	text = trimLeft(text)
	if text == "" {
		return "", "", errors.New("missing attribute name")
	}
	end := 0
	for end < len(text) && !isSpace(text[end]) && text[end] != '=' {
		end++
	}
	name = text[:end]
	rest := trimLeft(text[end:])
	switch {
	case !strings.HasPrefix(rest, "="):
		return "", "", errors.New("missing '=' after attribute name")
	case name == "":
		return "", "", errors.New("missing attribute name")
	}
	return name, trim(rest[1:]), nil
}
