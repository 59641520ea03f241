package maildir

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"postilion/store"
)

const journalName = "postilion.index"

// journal is what postilion.index remembers of one mailbox. The file is a list of lines, each with a checksum before it; the first tells the
// version, UIDVALIDITY and identifier of the mailbox, and a journal of another mailbox is worth nothing. Reading stops at the first line that is
// not whole, which a crash leaves at the end.
type journal struct {
	validity uint32
	guid     string
	highest  store.ModSeq
	next     store.UID
	// recent is the first UID that nobody took as recent; 0 when never told.
	recent   store.UID
	messages map[store.UID]remembered
	expunged []expunge
	// floor is the mod-sequence up to which expunges were forgotten.
	floor store.ModSeq
	lines int
}

// remembered is what the journal keeps of a message.
type remembered struct {
	modseq  store.ModSeq
	date    int64 // internal date, Unix nanoseconds
	saved   int64 // save date, Unix seconds
	size    int64 // in network form, -1 unknown
	letters string
	// more are the keywords that have no letter.
	more []string
}

// expunge is one message that is gone.
type expunge struct {
	uid    store.UID
	modseq store.ModSeq
	when   int64 // Unix seconds
	mark   deliveryMark
}

const journalVersion = "postilion-index 1"

// maxExpunged bounds the expunges that are remembered without a delivery's mark.
const maxExpunged = 20000

func appendLine(dst []byte, line string) []byte {
	return fmt.Appendf(dst, "%08x %s\n", crc32.ChecksumIEEE([]byte(line)), line)
}

func (j *journal) headerLine() string {
	return fmt.Sprintf("%s %d %s", journalVersion, j.validity, j.guid)
}

func messageLine(uid store.UID, m remembered) string {
	line := fmt.Sprintf("m %d %d %d %d %d =%s", uid, m.modseq, m.date, m.saved, m.size, m.letters)
	for _, name := range m.more {
		line += " " + name
	}
	return line
}

func expungeLine(e expunge) string {
	return fmt.Sprintf("x %d %d %d =%s", e.uid, e.modseq, e.when, e.mark)
}

// parseJournal reads as far as the text is whole. It returns nil when there is no usable header.
func parseJournal(text []byte) *journal {
	j := &journal{messages: make(map[store.UID]remembered, bytes.Count(text, []byte(" m "))), next: 1}
	for line := range strings.Lines(string(text)) {
		sum, content, ok := strings.Cut(line, " ")
		content, ended := strings.CutSuffix(content, "\n")
		want, err := strconv.ParseUint(sum, 16, 32)
		if !ok || !ended || err != nil || len(sum) != 8 || uint32(want) != crc32.ChecksumIEEE([]byte(content)) || !j.apply(content) {
			break
		}
		j.lines++
	}
	if j.validity == 0 {
		return nil
	}
	return j
}

// apply takes one line in; false for one that means nothing.
func (j *journal) apply(line string) bool {
	if j.lines == 0 {
		rest, ok := strings.CutPrefix(line, journalVersion+" ")
		number, guid, _ := strings.Cut(rest, " ")
		validity, err := strconv.ParseUint(number, 10, 32)
		j.validity, j.guid = uint32(validity), guid
		return ok && err == nil && validity != 0
	}
	kind, rest, _ := strings.Cut(line, " ")
	var numbers [5]int64
	count := 0
	for ; rest != "" && rest[0] != '='; count++ {
		var word string
		word, rest, _ = strings.Cut(rest, " ")
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil || count == len(numbers) {
			return false
		}
		numbers[count] = n
	}
	if count == 0 || numbers[0] < 0 || (kind != "h" && numbers[0] >= 1<<32) || numbers[1] < 0 {
		return false
	}
	letters, names, more := strings.Cut(strings.TrimPrefix(rest, "="), " ")
	switch {
	case kind == "m" && count == 5 && rest != "":
		uid := store.UID(numbers[0])
		r := remembered{modseq: store.ModSeq(numbers[1]), date: numbers[2], saved: numbers[3], size: numbers[4], letters: letters}
		if more {
			r.more = strings.Split(names, " ")
		}
		j.messages[uid] = r
		j.rise(uid, r.modseq)
	case kind == "x" && count == 3 && rest != "":
		e := expunge{uid: store.UID(numbers[0]), modseq: store.ModSeq(numbers[1]), when: numbers[2], mark: deliveryMark(letters)}
		delete(j.messages, e.uid)
		j.expunged = append(j.expunged, e)
		j.rise(e.uid, e.modseq)
	case kind == "r" && count == 1:
		j.recent = max(j.recent, store.UID(numbers[0]))
	case kind == "h" && count == 2:
		j.highest, j.floor = max(j.highest, store.ModSeq(numbers[0])), max(j.floor, store.ModSeq(numbers[1]))
	case kind == "n" && count == 1:
		j.next = max(j.next, store.UID(numbers[0]))
	default:
		return false
	}
	return true
}

func (j *journal) rise(uid store.UID, modseq store.ModSeq) {
	j.highest = max(j.highest, modseq)
	if uid >= j.next && uid+1 != 0 {
		j.next = uid + 1
	}
}

// prune forgets expunges that are neither recent enough to be asked for nor needed to know a delivery again.
func prune(expunged []expunge, floor store.ModSeq, memory time.Duration) ([]expunge, store.ModSeq) {
	if len(expunged) <= maxExpunged {
		return expunged, floor
	}
	oldest := time.Now().Add(-memory).Unix()
	surplus := len(expunged) - maxExpunged/2
	kept := make([]expunge, 0, maxExpunged)
	for i, e := range expunged {
		if i >= surplus || (e.mark != "" && e.when >= oldest) {
			kept = append(kept, e)
		}
	}
	return kept, max(floor, expunged[surplus-1].modseq)
}
