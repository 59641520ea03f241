package header

import (
	"strings"
	"time"

	"postilion/mail/token"
)

const (
	monthNames = "JanFebMarAprMayJunJulAugSepOctNovDec"
)

// ParseDate reads the value of a date field: [weekday ","] day month year hour:minute[:second] [zone], with comments and white space
// anywhere (RFC 5322 section 3.3 and 4.3). A year of two digits is from 1970 to 2069; "." may stand for ":"; a zone that is missing or
// unknown is UTC. The time has the zone's offset. ok is false when there is no such date, as Dovecot decides.
func ParseDate(value []byte) (t time.Time, ok bool) {
	d := dateReader{s: token.Scanner{Text: value}}
	d.s.Space()
	first, out := d.next()
	if out == token.Broken {
		return t, false
	}
	if len(first) == 3 {
		if d.s.Peek() != ',' {
			return t, false
		}
		d.s.Pos++
		d.s.Space()
		if first, out = d.next(); out == token.Broken {
			return t, false
		}
	}
	day, ok := number(first, 1, 2)
	if !ok {
		return t, false
	}
	month, ok := d.month()
	if !ok {
		return t, false
	}
	year, ok := d.year()
	if !ok {
		return t, false
	}
	hour, minute, second, ok := d.clock()
	if !ok {
		return t, false
	}
	if day < 1 || day > time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day() {
		return t, false
	}
	offset := 0
	if !d.s.Done() {
		zone, out := d.next()
		if out == token.Broken {
			return t, false
		}
		offset = zoneMinutes(zone)
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, 0, time.FixedZone("", offset*60)), true
}

type dateReader struct{ s token.Scanner }

func (d *dateReader) next() (string, token.Outcome) {
	var word []byte
	out := d.s.Atom(&word)
	if len(word) == 0 {
		return "", token.Broken
	}
	return string(word), out
}

// number reads a word of only digits whose length lies in the bounds.
func number(word string, shortest, longest int) (n int, ok bool) {
	if len(word) < shortest || len(word) > longest {
		return 0, false
	}
	for i := 0; i < len(word); i++ {
		if word[i] < '0' || word[i] > '9' {
			return 0, false
		}
		n = n*10 + int(word[i]-'0')
	}
	return n, true
}

func (d *dateReader) month() (int, bool) {
	word, out := d.next()
	if out == token.Broken || len(word) < 3 {
		return 0, false
	}
	for m := 0; m < len(monthNames); m += 3 {
		if strings.EqualFold(word[:3], monthNames[m:m+3]) {
			return m/3 + 1, true
		}
	}
	return 0, false
}

func (d *dateReader) year() (int, bool) {
	word, out := d.next()
	year, ok := number(word, 2, 4)
	switch {
	case out == token.Broken || !ok || len(word) == 3:
		return 0, false
	case len(word) == 2 && year < 70:
		return year + 2000, true
	case len(word) == 2:
		return year + 1900, true
	}
	return year, year >= 1900
}

func (d *dateReader) clock() (hour, minute, second int, ok bool) {
	word, out := d.next()
	if hour, ok = number(word, 1, 2); out == token.Broken || !ok || !d.separator() {
		return 0, 0, 0, false
	}
	word, out = d.next()
	if minute, ok = number(word, 2, 2); out == token.Broken || !ok {
		return 0, 0, 0, false
	}
	if d.separator() {
		word, out = d.next()
		if second, ok = number(word, 2, 2); out == token.Broken || !ok {
			return 0, 0, 0, false
		}
	}
	// A leap second counts as the one before it.
	return hour, minute, min(second, 59), hour < 24 && minute < 60 && second <= 60
}

func (d *dateReader) separator() bool {
	if c := d.s.Peek(); c != ':' && c != '.' {
		return false
	}
	d.s.Pos++
	d.s.Space()
	return true
}

// zoneMinutes reads a zone: digits, a name of RFC 822, or one military letter.
func zoneMinutes(zone string) int {
	if len(zone) == 5 && (zone[0] == '+' || zone[0] == '-') {
		hhmm, ok := number(zone[1:], 4, 4)
		if !ok || hhmm%100 > 59 || hhmm > 2400 {
			return 0
		}
		minutes := hhmm/100*60 + hhmm%100
		if zone[0] == '-' {
			return -minutes
		}
		return minutes
	}
	zone = strings.ToUpper(zone)
	switch zone {
	case "EST", "CDT":
		return -5 * 60
	case "CST", "MDT":
		return -6 * 60
	case "MST", "PDT":
		return -7 * 60
	case "PST":
		return -8 * 60
	case "EDT":
		return -4 * 60
	}
	if len(zone) != 1 {
		return 0
	}
	switch c := int(zone[0]); {
	case c >= 'A' && c < 'J':
		return (c - 'A' + 1) * 60
	case c > 'J' && c <= 'M':
		return (c - 'A') * 60
	case c > 'M' && c < 'Z':
		return ('M' - c) * 60
	}
	return 0
}

// AppendDate appends t as a date field has it, in t's own zone: Mon, 02 Jan 2006 15:04:05 +0100.
func AppendDate(dst []byte, t time.Time) []byte {
	return t.AppendFormat(dst, "Mon, 02 Jan 2006 15:04:05 -0700")
}
