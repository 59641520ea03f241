package vault

import (
	"encoding/binary"
	"errors"
	"fmt"

	"postilion/store"
)

// formatVersion is of the rows below. A store of a newer version is refused, one of an older is brought to this one, see migrate.go.
const formatVersion = 2

// The first octet of a key says which kind of row it is. Numbers in keys are big-endian, so rows lie in the order of their numbers.
const (
	rowFormat       = 'v' // version of the rows
	rowEpoch        = 'n' // how often the store was opened, see Store.newID
	rowAccount      = 'a' // user -> account
	rowUsage        = 'q' // account -> octets and messages that it holds
	rowName         = 'm' // account, name -> mailbox
	rowSubscription = 's' // account, name
	rowState        = 'i' // mailbox -> its counters
	rowKeywords     = 'k' // mailbox -> names of its keywords
	rowEntry        = 'e' // mailbox, UID -> entry
	rowPrefix       = 'p' // mailbox, UID -> octets before a body that several messages share
	rowExpunged     = 'x' // mailbox, mod-sequence -> UIDs
	rowBody         = 'b' // body, chunk -> octets
	rowStructure    = 't' // body -> parsed form, and the digest of the body's octets
	rowReferences   = 'r' // body -> number of messages that have it, when more than one
	rowUnfinished   = 'o' // body whose chunks are being written; nothing refers to it yet
	rowDeleted      = 'g' // mailbox that is deleted and whose messages are still to be removed
	rowDelivered    = 'd' // period, delivery id, hash of the target -> mailbox, UID
)

func key1(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 16), kind), n)
}

func keyUID(kind byte, mailbox uint64, uid store.UID) []byte {
	return binary.BigEndian.AppendUint32(key1(kind, mailbox), uint32(uid))
}

func keyModSeq(mailbox uint64, modSeq store.ModSeq) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 24), key1(rowExpunged, mailbox)...), uint64(modSeq))
}

func keyName(kind byte, account uint64, name string) []byte {
	return append(binary.BigEndian.AppendUint64(append(make([]byte, 0, 16+len(name)), kind), account), name...)
}

func keyChunk(body uint64, chunk uint32) []byte {
	return binary.BigEndian.AppendUint32(key1(rowBody, body), chunk)
}

// decoder takes numbers and texts off the front of a row.
type decoder struct {
	row []byte
	bad bool
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.row)
	if size <= 0 {
		d.bad, d.row = true, nil
		return 0
	}
	d.row = d.row[size:]
	return n
}

func (d *decoder) signed() int64 {
	n := d.number()
	return int64(n>>1) ^ -int64(n&1)
}

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.row)) {
		d.bad, d.row = true, nil
		return ""
	}
	text := string(d.row[:n])
	d.row = d.row[n:]
	return text
}

func (d *decoder) err(what string) error {
	if d.bad {
		return fmt.Errorf("%w: %s", store.ErrDamaged, what)
	}
	return nil
}

func appendSigned(dst []byte, n int64) []byte {
	return binary.AppendUvarint(dst, uint64(n<<1)^uint64(n>>63))
}

func appendText(dst []byte, text string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}

// accountRow is what is kept about an account.
type accountRow struct {
	id uint64
	// lastUIDValidity is the highest that a mailbox of the account ever had.
	lastUIDValidity uint32
}

func (r accountRow) append(dst []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, r.id), uint64(r.lastUIDValidity))
}

func decodeAccount(row []byte) (accountRow, error) {
	d := decoder{row: row}
	return accountRow{id: d.number(), lastUIDValidity: uint32(d.number())}, d.err("account row")
}

// usage is what an account or a mailbox holds.
type usage struct{ bytes, messages int64 }

func (u usage) append(dst []byte) []byte {
	return appendSigned(appendSigned(dst, u.bytes), u.messages)
}

func decodeUsage(row []byte) (usage, error) {
	d := decoder{row: row}
	return usage{bytes: d.signed(), messages: d.signed()}, d.err("usage row")
}

// nameRow is what a name stands for.
type nameRow struct {
	id          uint64
	uidValidity uint32
	use         string
}

func (r nameRow) append(dst []byte) []byte {
	return appendText(binary.AppendUvarint(binary.AppendUvarint(dst, r.id), uint64(r.uidValidity)), r.use)
}

func decodeName(row []byte) (nameRow, error) {
	d := decoder{row: row}
	return nameRow{id: d.number(), uidValidity: uint32(d.number()), use: d.text()}, d.err("mailbox row")
}

// state is what changes with every change of a mailbox.
type state struct {
	uidNext       uint64
	highestModSeq store.ModSeq
	messages      uint32
	recent        uint32
	unseen        uint32
	deleted       uint32
	size          int64
	firstRecent   uint64
	// expungedFloor is the mod-sequence up to which expunged UIDs were forgotten.
	expungedFloor store.ModSeq
}

func newState() state { return state{uidNext: 1, highestModSeq: 1, firstRecent: 1} }

func (s state) append(dst []byte) []byte {
	for _, n := range [...]uint64{
		s.uidNext, uint64(s.highestModSeq), uint64(s.messages), uint64(s.recent), uint64(s.unseen), uint64(s.deleted), uint64(s.size), s.firstRecent, uint64(s.expungedFloor),
	} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func decodeState(row []byte) (state, error) {
	d := decoder{row: row}
	return state{
		uidNext: d.number(), highestModSeq: store.ModSeq(d.number()), messages: uint32(d.number()), recent: uint32(d.number()), unseen: uint32(d.number()),
		deleted: uint32(d.number()), size: int64(d.number()), firstRecent: d.number(), expungedFloor: store.ModSeq(d.number()),
	}, d.err("mailbox state")
}

// count adds (sign 1) or takes away (-1) a message with these properties.
func (s *state) count(e *entry, sign int) {
	add := func(n *uint32, when bool) {
		if when {
			*n = uint32(int64(*n) + int64(sign))
		}
	}
	add(&s.messages, true)
	add(&s.recent, uint64(e.uid) >= s.firstRecent)
	add(&s.unseen, e.flags&store.FlagSeen == 0)
	add(&s.deleted, e.flags&store.FlagDeleted != 0)
	s.size += int64(sign) * e.size
}

// entry is a message of a mailbox; without pointers, for there may be a hundred thousand.
type entry struct {
	uid   store.UID
	flags store.Flags
	// zone is the internal date's offset from UTC in minutes.
	zone int16
	// set is the number of its keyword set in the view; not kept.
	set uint32
	// prefix is the length of its prefix row, 0 for none.
	prefix   uint32
	modSeq   store.ModSeq
	internal int64
	saved    int64
	size     int64
	body     uint64
	email    uint64
}

func appendEntry(dst []byte, e *entry, keywords []uint16) []byte {
	dst = append(dst, byte(e.flags))
	dst = binary.AppendUvarint(dst, uint64(e.modSeq))
	dst = appendSigned(dst, e.internal)
	dst = appendSigned(dst, e.saved-e.internal)
	dst = appendSigned(dst, int64(e.zone))
	dst = binary.AppendUvarint(dst, uint64(e.size))
	dst = binary.AppendUvarint(dst, e.body)
	dst = appendSigned(dst, int64(e.email-e.body))
	dst = binary.AppendUvarint(dst, uint64(e.prefix))
	for _, number := range keywords {
		dst = binary.AppendUvarint(dst, uint64(number))
	}
	return dst
}

// decodeEntry reads an entry; its keywords are appended to numbers.
func decodeEntry(uid store.UID, row []byte, numbers []uint16) (entry, []uint16, error) {
	if len(row) == 0 {
		return entry{}, numbers, fmt.Errorf("%w: empty entry of UID %d", store.ErrDamaged, uid)
	}
	d := decoder{row: row[1:]}
	e := entry{uid: uid, flags: store.Flags(row[0]), modSeq: store.ModSeq(d.number()), internal: d.signed()}
	e.saved = e.internal + d.signed()
	e.zone = int16(d.signed())
	e.size = int64(d.number())
	e.body = d.number()
	e.email = e.body + uint64(d.signed())
	e.prefix = uint32(d.number())
	for len(d.row) > 0 && !d.bad {
		numbers = append(numbers, uint16(d.number()))
	}
	if d.bad || e.size < 0 {
		return entry{}, numbers, fmt.Errorf("%w: entry of UID %d", store.ErrDamaged, uid)
	}
	return e, numbers, nil
}

func appendTexts(dst []byte, texts []string) []byte {
	for _, text := range texts {
		dst = appendText(dst, text)
	}
	return dst
}

func decodeTexts(row []byte) ([]string, error) {
	var texts []string
	d := decoder{row: row}
	for len(d.row) > 0 {
		texts = append(texts, d.text())
	}
	return texts, d.err("list of names")
}

func appendUIDs(dst []byte, set store.UIDSet) []byte {
	last := store.UID(0)
	for _, r := range set {
		dst = binary.AppendUvarint(dst, uint64(r.First-last))
		dst = binary.AppendUvarint(dst, uint64(r.Last-r.First))
		last = r.Last
	}
	return dst
}

func decodeUIDs(row []byte) (store.UIDSet, error) {
	var set store.UIDSet
	d := decoder{row: row}
	last := uint64(0)
	for len(d.row) > 0 {
		gap, more := d.number(), d.number()
		first := last + gap
		last = first + more
		if gap > 1<<32-1 || more > 1<<32-1 || last > 1<<32-1 || first == 0 {
			return nil, errors.Join(store.ErrDamaged, errors.New("set of UIDs"))
		}
		set = set.AddRange(store.UID(first), store.UID(last))
	}
	return set, d.err("set of UIDs")
}
