package imap

import "strings"

// Pattern is a LIST pattern over names whose levels are divided by Separator: "*" matches anything, "%" anything within a level.
type Pattern struct {
	Text      string
	Separator byte
}

// Match tells whether name matches. The letters of a first level INBOX match whatever their case.
func (p Pattern) Match(name string) bool {
	const inbox = "INBOX"
	caseless := 0
	if name == inbox || strings.HasPrefix(name, inbox+string(p.Separator)) {
		caseless = len(inbox)
	}
	return p.match(p.Text, name, caseless)
}

// match goes back to the last wildcard only, which suffices: a "*" before it can take over whatever a later one matched, and a "%" that fails
// makes the last "*" move on.
func (p Pattern) match(text, name string, caseless int) bool {
	i, j := 0, 0
	star, starName := -1, 0
	percent, percentName := -1, 0
	for {
		switch {
		case i < len(text) && text[i] == '*':
			star, starName = i, j
			percent = -1
			i++
			continue
		case i < len(text) && text[i] == '%':
			percent, percentName = i, j
			i++
			continue
		case i < len(text) && j < len(name) && (text[i] == name[j] || j < caseless && text[i]&^0x20 == name[j]):
			i++
			j++
			continue
		case i == len(text) && j == len(name):
			return true
		}
		if percent >= 0 && percentName < len(name) && name[percentName] != p.Separator {
			percentName++
			i, j = percent+1, percentName
			continue
		}
		if star >= 0 && starName < len(name) {
			starName++
			percent = -1
			i, j = star+1, starName
			continue
		}
		return false
	}
}

// MayHold tells whether some name below parent may match, so that a parent is shown in place of what lies below it ("%" of LSUB and of
// RECURSIVEMATCH).
func (p Pattern) MayHold(parent string) bool {
	return p.Match(parent + string(p.Separator) + "x")
}
