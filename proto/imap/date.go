package imap

import (
	"strings"
	"time"
)

const months = "janfebmaraprmayjunjulaugsepoctnovdec"

// ParseDate reads a date of SEARCH, such as 1-Feb-2024; the time is midnight UTC.
func ParseDate(text []byte) (time.Time, bool) {
	day, month, year, rest, ok := date(text)
	if !ok || len(rest) > 0 {
		return time.Time{}, false
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC), true
}

func date(text []byte) (day int, month time.Month, year int, rest []byte, ok bool) {
	if len(text) > 0 && text[0] == ' ' {
		text = text[1:]
	}
	digits := func(n int) int {
		v := 0
		for i := range n {
			if i >= len(text) || text[i] < '0' || text[i] > '9' {
				return -1
			}
			v = v*10 + int(text[i]-'0')
		}
		text = text[n:]
		return v
	}
	n := 1
	if len(text) > 1 && text[1] != '-' {
		n = 2
	}
	day = digits(n)
	if day < 1 || day > 31 || len(text) < 9 || text[0] != '-' || text[4] != '-' {
		return 0, 0, 0, nil, false
	}
	at := strings.Index(months, strings.ToLower(string(text[1:4])))
	text = text[5:]
	year = digits(4)
	if at < 0 || at%3 != 0 || year < 1 {
		return 0, 0, 0, nil, false
	}
	return day, time.Month(at/3 + 1), year, text, true
}

// ParseDateTime reads the date-time of APPEND, such as " 1-Feb-2024 10:00:00 +0100".
func ParseDateTime(text []byte) (time.Time, bool) {
	day, month, year, rest, ok := date(text)
	if !ok || len(rest) != 15 || rest[0] != ' ' || rest[3] != ':' || rest[6] != ':' || rest[9] != ' ' {
		return time.Time{}, false
	}
	two := func(i, most int) int {
		a, b := rest[i], rest[i+1]
		if a < '0' || a > '9' || b < '0' || b > '9' || int(a-'0')*10+int(b-'0') > most {
			ok = false
		}
		return int(a-'0')*10 + int(b-'0')
	}
	hour, minute, second := two(1, 23), two(4, 59), two(7, 60)
	zone := (two(11, 23)*60 + two(13, 59)) * 60
	switch rest[10] {
	case '+':
	case '-':
		zone = -zone
	default:
		return time.Time{}, false
	}
	if !ok {
		return time.Time{}, false
	}
	return time.Date(year, month, day, hour, minute, second, 0, time.FixedZone("", zone)), true
}

// AppendDateTime writes t as INTERNALDATE shows it.
func AppendDateTime(dst []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	_, zone := t.Zone()
	two := func(n int) { dst = append(dst, byte('0'+n/10%10), byte('0'+n%10)) }
	dst = append(dst, '"')
	two(day)
	dst = append(append(append(dst, '-'), month.String()[:3]...), '-')
	two(year / 100)
	two(year)
	dst = append(dst, ' ')
	two(hour)
	dst = append(dst, ':')
	two(minute)
	dst = append(dst, ':')
	two(second)
	if zone < 0 {
		dst = append(dst, " -"...)
		zone = -zone
	} else {
		dst = append(dst, " +"...)
	}
	two(zone / 3600)
	two(zone / 60 % 60)
	return append(dst, '"')
}
