package remote

import (
	"fmt"
	"slices"

	"postilion/store"
)

const (
	// slabSize is how many entries are allocated together.
	slabSize = 128
	// maxWords bounds the sum of a mailbox's keywords in octets.
	maxWords = 1 << 20
	// maxMarked is how many keywords one message may have.
	maxMarked = 4096
	// markedWeight is how many of a message's keywords weigh as much as a message.
	markedWeight = 32
)

// viewBuilder reads a content as the far side tells it, and refuses what cannot be one.
type viewBuilder struct {
	d      *decoder
	recent *recentViews
	// weight was reserved, of which spare is not used yet.
	weight, spare int

	content *content
	last    store.Entry
	// slab is where the next entries go; ids are the object identifiers of those since slab began, which become one string.
	slab  []store.Entry
	taken []*store.Entry
	ids   []byte
	ends  []int
	// marked are the keywords of the message before, which the next one mostly shares.
	marked []uint16
}

// weigh takes weight from what is reserved.
func (b *viewBuilder) weigh(weight int) bool {
	if b.spare < weight {
		more := max(weight, 1024)
		if err := b.recent.reserve(more); err != nil {
			if more = weight; b.recent.reserve(more) != nil {
				b.d.fail(err)
				return false
			}
		}
		b.weight += more
		b.spare += more
	}
	b.spare -= weight
	return true
}

// head reads what stands before the messages.
func (b *viewBuilder) head() {
	d := b.d
	b.content = &content{
		number: d.number(), validity: uint32(d.below(1<<32-1, "a UIDVALIDITY")), next: d.uid(), highest: d.modSeq(), id: d.objectID(false), recent: d.uid(),
	}
	if c := b.content; d.err == nil && (c.number == 0 || c.validity == 0 || c.next == 0 || c.highest == 0) {
		d.fail(malformed("a view with UIDVALIDITY %d, UIDNEXT %d, HIGHESTMODSEQ %d", c.validity, c.next, c.highest))
	}
}

// words reads the keywords of a mailbox.
func (b *viewBuilder) words() []string {
	d, left := b.d, maxWords
	n := d.below(maxKeywords, "the number of keywords")
	words := make([]string, 0, min(n, 64))
	for range n {
		word := d.text(maxKeyword, "a keyword")
		if left -= len(word) + 16; left < 0 {
			d.fail(fmt.Errorf("%w: the keywords of a mailbox take more than %d octets", store.ErrTooMany, maxWords))
		}
		if !isKeyword(word) {
			d.fail(malformed("the keyword %.40q", word))
		}
		if d.err != nil {
			return nil
		}
		words = append(words, word)
	}
	return words
}

// isKeyword refuses what would break the line of a response: stores have their own, narrower rules.
func isKeyword(word string) bool {
	for i := range len(word) {
		switch c := word[i]; {
		case c <= ' ', c == 0x7f, c == '(', c == ')', c == '{', c == '"', c == '\\':
			return false
		}
	}
	return word != ""
}

// entry reads one message; nil after a failure.
func (b *viewBuilder) entry() *store.Entry {
	d, c := b.d, b.content
	uid := uint64(b.last.UID) + d.below(1<<32-1, "a distance of UIDs")
	modSeq := int64(b.last.ModSeq) + d.signed()
	flags := d.flags()
	keywords := b.marks()
	internal, saved := d.time(), d.time()
	size := d.below(maxMessage, "a message's size")
	id := d.octets(maxID, "an object identifier")
	if d.err != nil || !b.weigh(1+len(keywords)/markedWeight) {
		return nil
	}
	if uid <= uint64(b.last.UID) || uid >= uint64(c.next) || modSeq <= 0 || modSeq > int64(c.highest) || len(id) == 0 || !isObjectID(id) {
		d.fail(malformed("UID %d after %d with mod-sequence %d and identifier %q in a view with UIDNEXT %d and HIGHESTMODSEQ %d",
			uid, b.last.UID, modSeq, id, c.next, c.highest))
		return nil
	}
	if len(b.slab) == 0 {
		b.seal()
		b.slab = make([]store.Entry, slabSize)
	}
	e := &b.slab[0]
	b.slab = b.slab[1:]
	*e = store.Entry{
		UID: store.UID(uid), ModSeq: store.ModSeq(modSeq), Flags: flags, Keywords: keywords, InternalDate: internal, SaveDate: saved, Size: int64(size),
	}
	b.taken = append(b.taken, e)
	b.ids = append(b.ids, id...)
	b.ends = append(b.ends, len(b.ids))
	b.last.UID, b.last.ModSeq = e.UID, e.ModSeq
	return e
}

// seal gives the entries since the last slab their identifiers.
func (b *viewBuilder) seal() {
	ids, from := string(b.ids), 0
	for i, e := range b.taken {
		e.EmailID, from = ids[from:b.ends[i]], b.ends[i]
	}
	b.taken, b.ids, b.ends = b.taken[:0], b.ids[:0], b.ends[:0]
}

// marks reads the numbers of a message's keywords.
func (b *viewBuilder) marks() []uint16 {
	d := b.d
	n := d.below(maxMarked, "the number of a message's keywords")
	if n == 0 {
		return nil
	}
	marked := make([]uint16, 0, min(n, 16))
	for range n {
		number := d.below(maxKeywords-1, "a keyword's number")
		if d.err != nil {
			return nil
		}
		if number >= uint64(len(b.content.keywords)) || (len(marked) > 0 && uint16(number) <= marked[len(marked)-1]) {
			d.fail(malformed("keyword %d of %d", number, len(b.content.keywords)))
			return nil
		}
		marked = append(marked, uint16(number))
	}
	if slices.Equal(marked, b.marked) {
		return b.marked
	}
	b.marked = marked
	return marked
}

// done makes the content one that others may see.
func (b *viewBuilder) done() (*content, error) {
	b.seal()
	if b.d.err != nil || !b.weigh(1) {
		return nil, b.d.err
	}
	b.content.weight, b.content.counted = b.weight, true
	return b.content, nil
}

// whole reads a view that is told without another.
func (b *viewBuilder) whole() (*content, error) {
	b.head()
	c := b.content
	c.keywords, c.floor = b.words(), c.highest
	n := b.d.below(1<<32-1, "the number of messages")
	c.entries = make([]*store.Entry, 0, min(n, 1024))
	for range n {
		e := b.entry()
		if e == nil {
			break
		}
		c.entries = append(c.entries, e)
	}
	return b.done()
}

// change reads a view that is told as what differs from base.
func (b *viewBuilder) change(base *content) (*content, error) {
	b.head()
	d, c := b.d, b.content
	if d.err == nil && (c.validity != base.validity || c.id != base.id || c.highest < base.highest || c.next < base.next) {
		d.fail(malformed("a view with HIGHESTMODSEQ %d and UIDNEXT %d after one with %d and %d", c.highest, c.next, base.highest, base.next))
	}
	c.keywords = base.keywords
	if d.truth() {
		c.keywords = b.words()
	}
	gone := d.set()
	if len(gone) > 0 && gone[len(gone)-1].Last >= c.next {
		d.fail(malformed("UID %d is gone, UIDNEXT is %d", gone[len(gone)-1].Last, c.next))
	}
	n := d.below(uint64(1<<32-1), "the number of messages")
	changed := make([]*store.Entry, 0, min(n, 256))
	for range n {
		e := b.entry()
		if e == nil {
			break
		}
		if gone.Contains(e.UID) {
			d.fail(malformed("UID %d is gone and there", e.UID))
		}
		changed = append(changed, e)
	}
	if d.err != nil || !b.weigh(max(0, len(base.entries)-len(changed))) {
		return nil, d.err
	}
	c.entries = merge(base.entries, changed, gone)
	for _, e := range c.entries {
		if len(e.Keywords) > 0 && int(e.Keywords[len(e.Keywords)-1]) >= len(c.keywords) {
			return nil, malformed("UID %d has keyword %d of %d", e.UID, e.Keywords[len(e.Keywords)-1], len(c.keywords))
		}
	}
	c.remember(base, gone)
	return b.done()
}

// merge returns the entries of base with changed in their places and without those that are gone.
func merge(base, changed []*store.Entry, gone store.UIDSet) []*store.Entry {
	merged := make([]*store.Entry, 0, len(base)+len(changed))
	for _, e := range base {
		for len(changed) > 0 && changed[0].UID < e.UID {
			merged, changed = append(merged, changed[0]), changed[1:]
		}
		for len(gone) > 0 && gone[0].Last < e.UID {
			gone = gone[1:]
		}
		switch {
		case len(changed) > 0 && changed[0].UID == e.UID:
			merged, changed = append(merged, changed[0]), changed[1:]
		case len(gone) == 0 || e.UID < gone[0].First:
			merged = append(merged, e)
		}
	}
	return append(merged, changed...)
}

// remember notes what was expunged since base, and forgets the oldest when that is much.
func (c *content) remember(base *content, gone store.UIDSet) {
	c.floor, c.log = base.floor, base.log
	if len(gone) == 0 {
		return
	}
	c.log = append(slices.Clone(base.log), expunges{until: c.highest, gone: gone})
	ranges := 0
	for _, step := range c.log {
		ranges += len(step.gone)
	}
	for len(c.log) > maxLog || (ranges > maxLogRanges && len(c.log) > 0) {
		ranges -= len(c.log[0].gone)
		c.floor = c.log[0].until
		c.log = c.log[1:]
	}
}
