package maildir

import (
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
	j := &journal{messages: map[store.UID]remembered{}, next: 1}
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
	words := strings.Split(line, " ")
	numbers := make([]int64, 0, 5)
	i := 1
	for ; i < len(words) && !strings.HasPrefix(words[i], "="); i++ {
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return false
		}
		numbers = append(numbers, n)
	}
	if len(numbers) == 0 || numbers[0] < 0 || (words[0] != "h" && numbers[0] >= 1<<32) || (len(numbers) > 1 && numbers[1] < 0) {
		return false
	}
	switch {
	case words[0] == "m" && len(numbers) == 5 && i < len(words):
		uid := store.UID(numbers[0])
		j.messages[uid] = remembered{
			modseq: store.ModSeq(numbers[1]), date: numbers[2], saved: numbers[3], size: numbers[4], letters: words[i][1:], more: words[i+1:],
		}
		j.rise(uid, store.ModSeq(numbers[1]))
	case words[0] == "x" && len(numbers) == 3 && i < len(words):
		e := expunge{uid: store.UID(numbers[0]), modseq: store.ModSeq(numbers[1]), when: numbers[2], mark: deliveryMark(words[i][1:])}
		delete(j.messages, e.uid)
		j.expunged = append(j.expunged, e)
		j.rise(e.uid, e.modseq)
	case words[0] == "r" && len(numbers) == 1:
		j.recent = max(j.recent, store.UID(numbers[0]))
	case words[0] == "h" && len(numbers) == 2:
		j.highest, j.floor = max(j.highest, store.ModSeq(numbers[0])), max(j.floor, store.ModSeq(numbers[1]))
	case words[0] == "n" && len(numbers) == 1:
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
