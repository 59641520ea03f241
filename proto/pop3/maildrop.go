package pop3

import "fmt"

// Maildrop keeps the books of a session in the transaction state (RFC 1939 section 5). Messages are numbered from 1.
type Maildrop struct {
	size    func(n uint32) int64
	count   uint32
	total   int64
	deleted bitmap
	// deletedCount and deletedSize sum up the messages marked as deleted.
	deletedCount uint32
	deletedSize  int64
	seen         bitmap
	seenCount    uint32
	last         uint32
}

// bitmap has a bit for each message; it is made when the first bit is set.
type bitmap []uint64

func (b bitmap) has(n uint32) bool { return b != nil && b[(n-1)/64]&(1<<((n-1)%64)) != 0 }

func (b *bitmap) set(n, count uint32) {
	if *b == nil {
		*b = make(bitmap, (count+63)/64)
	}
	(*b)[(n-1)/64] |= 1 << ((n - 1) % 64)
}

// NewMaildrop makes the books of count messages, total octets together. size tells that of one.
func NewMaildrop(count uint32, total int64, size func(n uint32) int64) *Maildrop {
	return &Maildrop{size: size, count: count, total: total}
}

// Count is the number of messages, those marked as deleted included, Total the sum of their sizes.
func (m *Maildrop) Count() uint32 { return m.count }

// Total is the sum of all sizes.
func (m *Maildrop) Total() int64 { return m.total }

// Check tells why a client cannot have message n, or nil.
func (m *Maildrop) Check(n uint32) error {
	switch {
	case n == 0 || n > m.count:
		return SyntaxError(fmt.Sprintf("There's no message %d.", n))
	case m.deleted.has(n):
		return SyntaxError("Message is deleted.")
	}
	return nil
}

// Stat returns how many messages are not marked as deleted and their octets.
func (m *Maildrop) Stat() (count uint32, octets int64) {
	return m.count - m.deletedCount, m.total - m.deletedSize
}

// Size is the octets of message n.
func (m *Maildrop) Size(n uint32) int64 { return m.size(n) }

// Delete marks message n, which Check let pass.
func (m *Maildrop) Delete(n uint32) {
	m.deleted.set(n, m.count)
	m.deletedCount++
	m.deletedSize += m.size(n)
}

// Deleted tells whether message n is marked.
func (m *Maildrop) Deleted(n uint32) bool { return m.deleted.has(n) }

// Marked returns how many messages are marked as deleted and their octets.
func (m *Maildrop) Marked() (count uint32, octets int64) { return m.deletedCount, m.deletedSize }

// Retrieved notes that the client has message n, for LAST; unseen says that it is to be flagged \Seen.
func (m *Maildrop) Retrieved(n uint32, unseen bool) {
	m.last = max(m.last, n)
	if unseen && !m.seen.has(n) {
		m.seen.set(n, m.count)
		m.seenCount++
	}
}

// ToFlag tells whether message n is to be flagged \Seen; Flagging counts these.
func (m *Maildrop) ToFlag(n uint32) bool { return m.seen.has(n) }

// Flagging returns how many messages are to be flagged \Seen.
func (m *Maildrop) Flagging() uint32 { return m.seenCount }

// Flagged notes that the flags were written.
func (m *Maildrop) Flagged() {
	clear(m.seen)
	m.seenCount = 0
}

// Last is the highest number that was retrieved (RFC 1460, LAST).
func (m *Maildrop) Last() uint32 { return m.last }

// SetLast is for a mailbox whose flags tell of earlier sessions.
func (m *Maildrop) SetLast(n uint32) { m.last = n }

// Reset takes back all marks (RSET).
func (m *Maildrop) Reset() {
	clear(m.deleted)
	clear(m.seen)
	m.deletedCount, m.deletedSize, m.seenCount, m.last = 0, 0, 0, 0
}
