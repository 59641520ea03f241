package policy

import (
	"strings"

	"golang.org/x/net/idna"
)

// Limits of host names (RFC 1035 section 2.3.4), as in valid_hostname(3).
const (
	maxHostname = 255
	maxLabel    = 63
)

// ValidHostname tells whether a text has the form of a host name: letters, digits, hyphens inside labels, and the underline that
// Postfix lets pass; not digits and dots alone.
func ValidHostname(name string) bool {
	if name == "" || len(name) > maxHostname {
		return false
	}
	label, numeric := 0, true
	for i := range len(name) {
		c := name[i]
		last := i+1 == len(name)
		switch {
		case c >= '0' && c <= '9':
			label++
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
			label++
			numeric = false
		case c == '.':
			if label == 0 || last {
				return false
			}
			label = 0
		case c == '-':
			label++
			numeric = false
			if label == 1 || last || name[i+1] == '.' {
				return false
			}
		default:
			return false
		}
		if label > maxLabel {
			return false
		}
	}
	return !numeric
}

// isAddress tells whether a text is a network address without brackets.
func isAddress(text string) bool {
	_, ok := parseAddress(text)
	return ok
}

// trimDot takes off one dot at the end, but not of two.
func trimDot(name string) string {
	if len(name) > 1 && strings.HasSuffix(name, ".") && name[len(name)-2] != '.' {
		return name[:len(name)-1]
	}
	return name
}

// qualified tells whether a name is a valid host name of more than one label.
func qualified(name string) bool {
	return ValidHostname(name) && strings.Contains(name, ".")
}

// asciiDomain gives the form of a domain that the DNS knows; a name that has none stays as it is.
func asciiDomain(domain string) string {
	for i := range len(domain) {
		if domain[i] >= 0x80 {
			if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
				return ascii
			}
			break
		}
	}
	return domain
}
