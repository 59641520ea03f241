package dovecot

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Type is the kind of value a setting takes.
type Type int

// The types of Dovecot's settings. Time is in whole seconds, Msecs in milliseconds.
const (
	String Type = iota
	Bool
	Uint
	Octal
	Port
	Size
	Time
	Msecs
	Enum
)

// normal checks text as a value of the setting and writes it as doveconf does: "yes" for "true", "1 G" for "1024M".
func (s *Setting) normal(text string) (string, error) {
	switch s.Type {
	case Bool:
		v, err := parseBool(text)
		if err != nil {
			return "", err
		}
		return formatBool(v), nil
	case Uint:
		v, err := parseUint(text)
		if err != nil {
			return "", err
		}
		return strconv.FormatUint(v, 10), nil
	case Octal:
		v, err := parseOctal(text)
		if err != nil {
			return "", err
		}
		return "0" + strconv.FormatUint(v, 8), nil
	case Port:
		v, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return "", Refuse("Invalid port number %s", text)
		}
		return strconv.FormatUint(v, 10), nil
	case Size:
		v, err := parseSize(text)
		if err != nil {
			return "", err
		}
		return formatSize(v), nil
	case Time, Msecs:
		v, err := parseTime(text, s.Type == Msecs)
		if err != nil {
			return "", err
		}
		return formatTime(v, s.Type == Msecs), nil
	case Enum:
		if !slices.Contains(s.Values, text) {
			return "", Refuse("Invalid value: %s", text)
		}
	}
	return text, nil
}

func parseBool(text string) (bool, error) {
	switch {
	case strings.EqualFold(text, "yes"), strings.EqualFold(text, "y"), text == "1":
		return true, nil
	case strings.EqualFold(text, "no"):
		return false, nil
	}
	return false, Refuse("Invalid boolean value: %s (use yes or no)", text)
}

func formatBool(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func parseUint(text string) (uint64, error) {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, Refuse("Invalid number %s: Not a valid number", text)
		}
	}
	v, err := strconv.ParseUint(text, 10, 32)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, Refuse("Invalid number %s: Number too large", text)
	case err != nil:
		return 0, Refuse("Invalid number %s: Not a valid number", text)
	}
	return v, nil
}

// parseOctal takes octal digits after a leading zero, else a decimal number.
func parseOctal(text string) (uint64, error) {
	if !strings.HasPrefix(text, "0") {
		return parseUint(text)
	}
	v, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		return 0, Refuse("Invalid number: %s", text)
	}
	return v, nil
}

// splitNumber separates leading digits and the word after them.
func splitNumber(text string) (n uint64, unit string, ok bool) {
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(text[:end], 10, 64)
	if err != nil {
		return 0, "", false
	}
	return n, strings.TrimLeft(text[end:], " "), true
}

func parseSize(text string) (uint64, error) {
	invalid := Refuse("Invalid size: %s", text)
	n, unit, ok := splitNumber(text)
	if !ok {
		return 0, invalid
	}
	shift := 0
	switch u := strings.ToUpper(unit); u {
	case "", "B":
	default:
		shift = 10 * (strings.IndexByte("KMGT", u[0]) + 1)
		if rest := u[1:]; shift == 0 || rest != "" && rest != "B" && rest != "IB" {
			return 0, invalid
		}
	}
	if n > math.MaxUint64>>shift {
		return 0, Refuse("Size is too large: %s", text)
	}
	return n << shift, nil
}

func formatSize(n uint64) string {
	if n == 0 {
		return "0"
	}
	unit := 0
	for unit < 4 && n%1024 == 0 {
		n /= 1024
		unit++
	}
	return strconv.FormatUint(n, 10) + " " + "BkMGT"[unit:unit+1]
}

// timeUnits are the words for intervals. A word may be cut to any beginning that is not shorter than the first member.
var timeUnits = []struct {
	short, long string
	msecs       uint64
}{
	{"s", "seconds", 1000},
	{"m", "minutes", 60_000},
	{"h", "hours", 3600_000},
	{"d", "days", 24 * 3600_000},
	{"w", "weeks", 7 * 24 * 3600_000},
	{"ms", "msecs", 1},
	{"mil", "milliseconds", 1},
	{"mil", "millisecs", 1},
	{"s", "secs", 1000},
	{"m", "mins", 60_000},
}

// parseTime gives seconds, or milliseconds when msecs is set.
func parseTime(text string, msecs bool) (uint64, error) {
	n, unit, ok := splitNumber(text)
	if !ok {
		return 0, Refuse("Invalid time interval: %s", text)
	}
	if unit == "" {
		if n != 0 {
			return 0, Refuse("Time interval '%s' is missing units (add e.g. 's' for seconds)", text)
		}
		return 0, nil
	}
	unit = strings.ToLower(unit)
	for _, u := range timeUnits {
		if !strings.HasPrefix(unit, u.short) || !strings.HasPrefix(u.long, unit) && unit != u.short {
			continue
		}
		if n > math.MaxUint32 {
			return 0, Refuse("Time interval is too large: %s", text)
		}
		n *= u.msecs
		if msecs && n > math.MaxUint32 || n/1000 > math.MaxUint32 {
			return 0, Refuse("Time interval is too large: %s", text)
		}
		if msecs {
			return n, nil
		}
		if n%1000 != 0 {
			return 0, Refuse("Milliseconds not supported for this setting: %s", text)
		}
		return n / 1000, nil
	}
	return 0, Refuse("Invalid time interval: %s", text)
}

func formatTime(n uint64, msecs bool) string {
	if n == 0 {
		return "0"
	}
	if msecs {
		if n%1000 != 0 {
			return strconv.FormatUint(n, 10) + " ms"
		}
		n /= 1000
	}
	unit := "secs"
	for _, step := range []struct {
		count uint64
		name  string
	}{{60, "mins"}, {60, "hours"}, {24, "days"}, {7, "weeks"}} {
		if n%step.count != 0 {
			break
		}
		n, unit = n/step.count, step.name
	}
	return strconv.FormatUint(n, 10) + " " + unit
}

// duration reads a normal time value.
func duration(text string) time.Duration {
	n, unit := uint64(0), time.Second
	var err error
	if strings.HasSuffix(text, "ms") {
		n, err = parseTime(text, true)
		unit = time.Millisecond
	} else {
		n, err = parseTime(text, false)
	}
	if err != nil {
		return 0
	}
	return time.Duration(n) * unit
}
