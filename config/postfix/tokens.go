package postfix

import "strings"

// ListSeparators are the characters between the words of a list parameter.
const ListSeparators = ", \t\r\n"

const blanks = " \t\r\n"

// SplitQuoted splits text at any of the separators; a group in braces is not split and keeps its braces, wherever it stands in a
// word. closed is false when a brace was left open.
func SplitQuoted(text, separators string) (words []string, closed bool) {
	start, level := -1, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '{':
			level++
		case c == '}' && level > 0:
			level--
		case level == 0 && strings.IndexByte(separators, c) >= 0:
			if start >= 0 {
				words = append(words, text[start:i])
			}
			start = -1
			continue
		}
		if start < 0 {
			start = i
		}
	}
	if start >= 0 {
		words = append(words, text[start:])
	}
	return words, level == 0
}

// Unbrace takes the outer braces, and white space within them, from a word that starts with "{". Problem is Postfix's wording for a
// word that is not a single group; the text is then as good as Postfix makes it.
func Unbrace(word string) (text, problem string) {
	if !strings.HasPrefix(word, "{") {
		return word, ""
	}
	n := balanced(word)
	switch {
	case n == 0:
		return trim(word[1:]), "missing '}' in " + quote(word)
	case n < len(word):
		return trim(word[1 : n-1]), "syntax error after '}' in " + quote(word)
	}
	return trim(word[1 : n-1]), ""
}
