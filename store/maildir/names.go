package maildir

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"postilion/store"
)

// infoSeparator begins the flags in a file name.
const infoSeparator = ":2,"

// fileName is the name of a message file, taken apart: base, then ":2," and the flag letters, then perhaps a comma and what other programs put.
type fileName struct {
	base string
	// letters are the flags as they stand: sorted capitals and keyword letters, and others that mean nothing here.
	letters string
	// rest is what follows the letters, with its comma.
	rest string
	// info tells whether ":2," is there at all.
	info bool
}

func parseFileName(name string) fileName {
	base, info, ok := strings.Cut(name, infoSeparator)
	if !ok {
		// A colon without version 2 behind it belongs to some other scheme; what stands before it names the file all the same.
		base, _, _ = strings.Cut(name, ":")
		return fileName{base: base}
	}
	f := fileName{base: base, letters: info, info: true}
	if comma := strings.IndexByte(info, ','); comma >= 0 {
		f.letters, f.rest = info[:comma], info[comma:]
	}
	return f
}

func (f fileName) String() string {
	if !f.info {
		return f.base
	}
	return f.base + infoSeparator + f.letters + f.rest
}

// flagLetters pairs the flags with their letters, in the order of the letters.
func flagLetters() [5]struct {
	letter byte
	flag   store.Flags
} {
	return [5]struct {
		letter byte
		flag   store.Flags
	}{{'D', store.FlagDraft}, {'F', store.FlagFlagged}, {'R', store.FlagAnswered}, {'S', store.FlagSeen}, {'T', store.FlagDeleted}}
}

func (f fileName) flags() store.Flags {
	var flags store.Flags
	for _, pair := range flagLetters() {
		if strings.IndexByte(f.letters, pair.letter) >= 0 {
			flags |= pair.flag
		}
	}
	return flags
}

// withFlags returns the name with other flags and keyword letters; letters that mean nothing here stay.
func (f fileName) withFlags(flags store.Flags, keywords []byte) fileName {
	letters := slices.Clone(keywords)
	for i := range len(f.letters) {
		letter := f.letters[i]
		if !strings.ContainsRune("DFRST", rune(letter)) && (letter < 'a' || letter > 'z') {
			letters = append(letters, letter)
		}
	}
	for _, pair := range flagLetters() {
		if flags&pair.flag != 0 {
			letters = append(letters, pair.letter)
		}
	}
	slices.Sort(letters)
	f.letters, f.info = string(slices.Compact(letters)), true
	return f
}

// sizeIn returns the size that a base name tells: key 'S' is the file's, 'W' the one in network form.
func sizeIn(base string, key byte) (int64, bool) {
	for part := range strings.SplitSeq(base, ",") {
		if len(part) > 2 && part[0] == key && part[1] == '=' {
			n, err := strconv.ParseInt(part[2:], 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}

// deliveryMark is what names a delivery in the names of its files: 24 hexadecimal digits of a hash of its id and the mailbox's identifier.
// It stands after a D in the middle part of the base name ("1700000000.M1P2Q3D0123456789abcdef01234567.host"), so it goes along when the
// file moves from new to cur, and means nothing in another mailbox.
type deliveryMark string

const markLength = 24

func markOf(id, mailboxID string) deliveryMark {
	if id == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(mailboxID + "\x00" + id))
	return deliveryMark(hex.EncodeToString(sum[:markLength/2]))
}

// markIn returns the mark in a base name, or "".
func markIn(base string) deliveryMark {
	_, rest, ok := strings.Cut(base, ".")
	middle, _, more := strings.Cut(rest, ".")
	if !ok || !more || len(middle) < markLength+1 {
		return ""
	}
	mark := middle[len(middle)-markLength:]
	if middle[len(middle)-markLength-1] != 'D' || strings.Trim(mark, "0123456789abcdef") != "" {
		return ""
	}
	return deliveryMark(mark)
}

// nameSource makes base names that no other file has: seconds, microseconds, process, a count, host.
type nameSource struct {
	host  string
	pid   int
	count atomic.Uint64
}

func newNameSource(host string) *nameSource {
	return &nameSource{host: strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`).Replace(host), pid: os.Getpid()}
}

// next returns a base name without sizes.
func (n *nameSource) next(mark deliveryMark) string {
	now := time.Now()
	middle := fmt.Sprintf("M%dP%dQ%d", now.Nanosecond()/1000, n.pid, n.count.Add(1))
	if mark != "" {
		middle += "D" + string(mark)
	}
	return fmt.Sprintf("%d.%s.%s", now.Unix(), middle, n.host)
}

// emailID makes the object identifier of a message out of its global identifier.
func emailID(guid string) string {
	sum := sha256.Sum256([]byte(guid))
	return "M" + hex.EncodeToString(sum[:12])
}
