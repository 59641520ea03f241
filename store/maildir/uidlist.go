package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"postilion/store"
)

// uidList is the content of a dovecot-uidlist file.
type uidList struct {
	validity uint32
	next     store.UID
	// guid is the mailbox's, 32 hexadecimal digits, or "".
	guid string
	// entries are in the order of their UIDs.
	entries []uidEntry
	version int
	// torn tells that the last line has no end: nothing may be appended to it.
	torn bool
}

// uidEntry is one record. extensions is kept as it stands: space-separated words, each a letter and its value (W virtual size, S physical
// size, G identifier, P POP3 UIDL, O POP3 order).
type uidEntry struct {
	uid        store.UID
	extensions string
	base       string
}

const (
	uidListName = "dovecot-uidlist"
	// maxControlFile bounds the control files that are read, in octets: some million messages.
	maxControlFile = 256 << 20
	// maxUIDListHeader bounds the first line of a UID list in octets, and maxUIDListRecord each of the others: a file name and what POP3 may add.
	maxUIDListHeader = 4096
	maxUIDListRecord = 4096
)

var errUIDList = errors.New("not a UID list of version 1 or 3")

// parseUIDList reads a UID list of version 1 or 3. A line without end, which a crash leaves or a program that is at it, is left out; a record that makes no sense or whose
// UID does not rise is left out too, so that its file is found as new.
func parseUIDList(text []byte) (*uidList, error) {
	header, rest, complete := bytes.Cut(text, []byte("\n"))
	if !complete || len(header) > maxUIDListHeader {
		return nil, errUIDList
	}
	list, err := parseUIDListHeader(string(header))
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(rest, '\n') + 1
	rest, list.torn = rest[:end], end < len(rest)
	list.entries = make([]uidEntry, 0, bytes.Count(rest, []byte("\n")))
	all := string(rest)
	var last store.UID
	for line := range strings.Lines(all) {
		entry, ok := parseUIDEntry(strings.TrimSuffix(line, "\n"), list.version)
		if !ok || entry.uid <= last {
			continue
		}
		last = entry.uid
		list.entries = append(list.entries, entry)
	}
	if last != 0 && list.next <= last {
		list.next = last + 1
		if list.next == 0 {
			return nil, fmt.Errorf("%w: all UIDs are used up", store.ErrTooMany)
		}
	}
	return list, nil
}

func parseUIDListHeader(line string) (*uidList, error) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return nil, errUIDList
	}
	list := &uidList{next: 1}
	number := func(text string) uint32 {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return 0
		}
		return uint32(n)
	}
	switch words[0] {
	case "1":
		if len(words) != 3 {
			return nil, errUIDList
		}
		list.version, list.validity, list.next = 1, number(words[1]), store.UID(number(words[2]))
	case "3":
		list.version = 3
		for _, word := range words[1:] {
			switch word[0] {
			case 'V':
				list.validity = number(word[1:])
			case 'N':
				list.next = store.UID(number(word[1:]))
			case 'G':
				list.guid = word[1:]
			}
		}
	default:
		return nil, errUIDList
	}
	if list.validity == 0 || list.next == 0 {
		return nil, errUIDList
	}
	return list, nil
}

func parseUIDEntry(line string, version int) (uidEntry, bool) {
	if len(line) > maxUIDListRecord {
		return uidEntry{}, false
	}
	digits, rest, ok := strings.Cut(line, " ")
	uid, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || uid == 0 {
		return uidEntry{}, false
	}
	entry := uidEntry{uid: store.UID(uid)}
	file := rest
	if version == 3 {
		extensions, name, found := strings.Cut(rest, ":")
		if !found {
			return uidEntry{}, false
		}
		entry.extensions, file = strings.TrimSpace(extensions), name
	}
	entry.base, _, _ = strings.Cut(file, infoSeparator)
	if entry.base == "" || strings.ContainsAny(entry.base, "/\x00") {
		return uidEntry{}, false
	}
	return entry, true
}

// appendHeader writes the first line of version 3.
func (l *uidList) appendHeader(dst []byte) []byte {
	return fmt.Appendf(dst, "3 V%d N%d G%s\n", l.validity, l.next, l.guid)
}

// appendTo writes one record of version 3.
func (e uidEntry) appendTo(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(e.uid), 10)
	dst = append(dst, ' ')
	if e.extensions != "" {
		dst = append(append(dst, e.extensions...), ' ')
	}
	dst = append(append(dst, ':'), e.base...)
	return append(dst, '\n')
}

// format writes the whole list.
func (l *uidList) format() []byte {
	out := l.appendHeader(make([]byte, 0, 64+64*len(l.entries)))
	for _, entry := range l.entries {
		out = entry.appendTo(out)
	}
	return out
}

// extension returns the value of an extension word, or "".
func (e uidEntry) extension(letter byte) string {
	for word := range strings.FieldsSeq(e.extensions) {
		if word[0] == letter {
			return word[1:]
		}
	}
	return ""
}
