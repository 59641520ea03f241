package imap

import "strings"

// Pattern is a LIST pattern over names whose levels are divided by Separator: "*" matches anything, "%" anything within a level.
type Pattern struct {
	Text      string
	Separator byte
}

// Match tells whether name matches. INBOX as a first level matches whatever its case.
func (p Pattern) Match(name string) bool {
	if p.match(p.Text, name) {
		return true
	}
	if name == "INBOX" || strings.HasPrefix(name, "INBOX"+string(p.Separator)) {
		return p.match(foldInbox(p.Text, p.Separator), name)
	}
	return false
}

// foldInbox puts a pattern's leading inbox in capitals.
func foldInbox(text string, separator byte) string {
	const inbox = "INBOX"
	n := 0
	for n < len(text) && n < len(inbox) && text[n]&^0x20 == inbox[n] {
		n++
	}
	if n == 0 || n < len(inbox) && n < len(text) && text[n] != '*' && text[n] != '%' || n == len(inbox) && n < len(text) && text[n] != separator && text[n] != '*' && text[n] != '%' {
		return text
	}
	return inbox[:n] + text[n:]
}

// match goes back to the last wildcard only, which suffices: a "*" before it can take over whatever a later one matched, and a "%" that fails
// makes the last "*" move on.
func (p Pattern) match(text, name string) bool {
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
		case i < len(text) && j < len(name) && text[i] == name[j]:
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
