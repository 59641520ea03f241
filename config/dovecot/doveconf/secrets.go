package doveconf

import "strings"

const (
	hiddenValue = "# hidden, use -P to show it"
	hiddenPart  = "#hidden_use-P_to_show#"
)

// hideSecrets replaces what must not be shown by default; ok is false when the value has nothing of the kind.
func hideSecrets(name, value string) (text string, ok bool) {
	if value == "" {
		return "", false
	}
	for _, suffix := range []string{"_password", "_key", "_nonce"} {
		if strings.HasSuffix(name, suffix) && len(name) > len(suffix) {
			return hiddenValue, true
		}
	}
	if strings.HasPrefix(name, "ssl_dh") {
		return hiddenValue, true
	}
	write := func(s string) string { return s }
	if needsQuotes(value) {
		write = escaper.Replace
	}
	return hideWithin(value, write)
}

// secretWords begin what may be hidden within a value: name=SECRET pairs and the user part of URLs.
var secretWords = []string{"key", "secret", "pass", "http://", "https://", "ftp://"}

func nextSecret(s string) (at int, word string) {
	at = -1
	for _, w := range secretWords {
		if i := strings.Index(s, w); i >= 0 && (at < 0 || i < at) {
			at, word = i, w
		}
	}
	return at, word
}

func hideWithin(value string, write func(string) string) (string, bool) {
	var b strings.Builder
	hidden := false
	written, at := 0, 0 // octets of value that were written, and looked at
	for {
		i, word := nextSecret(value[at:])
		if i < 0 {
			break
		}
		at += i
		hidden = true
		switch {
		case strings.HasSuffix(word, "://"):
			at += len(word)
			b.WriteString(write(value[written:at]))
			end, host := userPart(value, at)
			if host > at {
				b.WriteString(hiddenPart)
			} else {
				b.WriteString(write(value[at:end]))
			}
			at, written = end, end
		case at > 0 && isAlnum(value[at-1]):
			at++
		default:
			at = wordEnd(value, at)
			b.WriteString(write(value[written:at]))
			if at < len(value) && value[at] == '=' {
				b.WriteString("=" + hiddenPart)
				for at < len(value) && !isSpace(value[at]) && value[at] != ';' && value[at] != ':' {
					at++
				}
			}
			written = at
		}
	}
	if !hidden {
		return "", false
	}
	b.WriteString(write(value[written:]))
	return b.String(), true
}

// userPart finds the "@" after the user part of a URL that begins at from, and the end of what was looked through.
func userPart(value string, from int) (end, host int) {
	for end = from; end < len(value) && !isSpace(value[end]) && value[end] != '/'; end++ {
		if value[end] == '@' {
			return end, end
		}
	}
	return end, from
}

// wordEnd is the place of "=" or of what follows the blanks after the word.
func wordEnd(value string, at int) int {
	for at < len(value) && value[at] != '=' && !isSpace(value[at]) {
		at++
	}
	for at < len(value) && isSpace(value[at]) {
		at++
	}
	return at
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
