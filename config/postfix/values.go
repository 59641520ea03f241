package postfix

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var errBool = errors.New(`neither "yes" nor "no"`)

func parseBool(text string) (bool, error) {
	switch {
	case strings.EqualFold(text, "yes"):
		return true, nil
	case strings.EqualFold(text, "no"):
		return false, nil
	}
	return false, errBool
}

func unitSeconds(unit string) (int64, bool) {
	switch unit {
	case "s":
		return 1, true
	case "m":
		return 60, true
	case "h":
		return 3600, true
	case "d":
		return 24 * 3600, true
	case "w":
		return 7 * 24 * 3600, true
	}
	return 0, false
}

// parseTime reads digits and an optional unit, as Postfix does: within the range of a 32-bit number of seconds.
func parseTime(text string, unit byte) (time.Duration, error) {
	digits := text
	if text != "" {
		if last := text[len(text)-1]; last < '0' || last > '9' {
			digits, unit = text[:len(text)-1], last
		}
	}
	seconds, ok := unitSeconds(strings.ToLower(string(unit)))
	if !ok {
		return 0, fmt.Errorf("unknown time unit %q: one of s, m, h, d, w", unit)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, errors.New("not a number with a time unit")
	}
	if n < 0 || n > math.MaxInt32/seconds {
		return 0, errors.New("time out of range")
	}
	return time.Duration(n*seconds) * time.Second, nil
}

// underlying gives the system's words for an error, without the operation and path around it, as Postfix prints them.
func underlying(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
