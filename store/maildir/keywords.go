package maildir

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	keywordsName = "dovecot-keywords"
	// letterKeywords is how many keywords have a letter in file names.
	letterKeywords = 26
)

// parseKeywords reads dovecot-keywords: lines of a number and a name. The result has the name of each letter, "" where there is none.
func parseKeywords(text []byte) (names [letterKeywords]string) {
	for line := range strings.Lines(string(text)) {
		digits, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		number, err := strconv.ParseUint(digits, 10, 8)
		if ok && err == nil && number < letterKeywords && checkKeyword(name) == nil && names[number] == "" {
			names[number] = name
		}
	}
	return names
}

// formatKeywords writes dovecot-keywords.
func formatKeywords(names [letterKeywords]string) []byte {
	var out []byte
	for i, name := range names {
		if name != "" {
			out = fmt.Appendf(out, "%d %s\n", i, name)
		}
	}
	return out
}

// maxKeyword is the longest keyword in octets, and maxKeywords the most in one mailbox.
const (
	maxKeyword  = 200
	maxKeywords = 1000
)

// checkKeyword refuses what the keyword file cannot hold.
func checkKeyword(name string) error {
	if name == "" || len(name) > maxKeyword || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("keyword %.40q is empty, too long, or has a space or control character", name)
	}
	return nil
}
