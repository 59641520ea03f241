package table

import (
	"errors"
	"fmt"
	"strings"
)

// stripBraces takes the outer braces and the white space inside them off. The text must begin with a brace.
func stripBraces(text string) (string, error) {
	end := closingBrace(text)
	switch {
	case end < 0:
		return "", fmt.Errorf("missing '}' in \"%s\"", text)
	case end != len(text)-1:
		return "", fmt.Errorf("syntax error after '}' in \"%s\"", text)
	}
	return strings.Trim(text[1:end], blanks), nil
}

// closingBrace gives the offset of the brace that closes the one at the start of text, -1 when there is none.
func closingBrace(text string) int {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// splitBraced splits at commas and white space outside braces.
func splitBraced(text string) []string {
	var items []string
	depth, start := 0, -1
	for i := range len(text) {
		c := text[i]
		if depth <= 0 && (c == ',' || isBlank(c)) {
			if start >= 0 {
				items = append(items, text[start:i])
			}
			start = -1
			continue
		}
		if start < 0 {
			start = i
			depth = 0
		}
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		}
	}
	if start >= 0 {
		items = append(items, text[start:])
	}
	return items
}

// bracedList splits "{a, b}". Not ok means that the text is not in braces or holds nothing.
func bracedList(text string) (items []string, ok bool) {
	if !strings.HasPrefix(text, "{") {
		return nil, false
	}
	body, err := stripBraces(text)
	if err != nil {
		return nil, false
	}
	items = splitBraced(body)
	return items, len(items) > 0
}

var (
	errNoName   = errors.New("missing attribute name")
	errNoEquals = errors.New("missing '=' after attribute name")
)

// splitNameValue takes "name = value" apart.
func splitNameValue(text string) (name, value string, err error) {
	text = strings.TrimLeft(text, blanks)
	end := strings.IndexAny(text, "="+blanks)
	if end < 0 {
		end = len(text)
	}
	name = text[:end]
	rest := strings.TrimLeft(text[end:], blanks)
	switch {
	case name == "":
		return "", "", errNoName
	case !strings.HasPrefix(rest, "="):
		return "", "", errNoEquals
	}
	return name, strings.Trim(rest[1:], blanks), nil
}
