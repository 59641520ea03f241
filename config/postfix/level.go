package postfix

import (
	"fmt"
	"strconv"
	"strings"
)

// Level is a compatibility level: up to three numbers, of which missing ones count as zero.
type Level struct {
	Major, Minor, Patch int
}

// maxLevelPart bounds the second and third number, so that they can be compared as one integer.
const maxLevelPart = 1023

// ParseLevel reads "3", "3.6" or "3.6.1". The error is Postfix's own wording.
func ParseLevel(text string) (Level, error) {
	bad := fmt.Errorf("malformed compatibility level syntax: %q", text)
	fields := strings.Split(text, ".")
	if len(fields) > 3 {
		return Level{}, bad
	}
	var part [3]int
	for i, field := range fields {
		n, err := strconv.ParseUint(field, 10, 31)
		if err != nil || (i > 0 && n > maxLevelPart) {
			return Level{}, bad
		}
		part[i] = int(n)
	}
	return Level{part[0], part[1], part[2]}, nil
}

// Compare gives -1, 0 or 1 as l is below, at or above m.
func (l Level) Compare(m Level) int {
	for _, pair := range [...][2]int{{l.Major, m.Major}, {l.Minor, m.Minor}, {l.Patch, m.Patch}} {
		switch {
		case pair[0] < pair[1]:
			return -1
		case pair[0] > pair[1]:
			return 1
		}
	}
	return 0
}

// AtLeast tells whether l is m or above.
func (l Level) AtLeast(m Level) bool { return l.Compare(m) >= 0 }

// String gives the level without trailing zero parts.
func (l Level) String() string {
	switch {
	case l.Patch != 0:
		return fmt.Sprintf("%d.%d.%d", l.Major, l.Minor, l.Patch)
	case l.Minor != 0:
		return fmt.Sprintf("%d.%d", l.Major, l.Minor)
	}
	return strconv.Itoa(l.Major)
}
