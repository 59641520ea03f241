package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"postilion/kv"
)

// entries looks at each message of each mailbox.
func (c *checker) entries() error {
	return c.scan(rowEntry, 13, func(key, value []byte, err error) {
		id, uid := number(key), uidOf(key)
		box := c.boxes[id]
		if box == nil {
			box = c.adopt(id)
		}
		e, keywords, decodeErr := decodeEntry(uid, value, nil)
		if err = errors.Join(err, decodeErr); err != nil {
			c.report(c.in(id, uid, Problem{Text: err.Error(), Repaired: "removed the entry; its message is found below"}))
			c.fix.delete(key)
			c.fix.delete(keyUID(rowPrefix, id, uid))
			c.unread++
			return
		}
		if box.deleted {
			body := c.bodies[e.body]
			body.references++
			c.bodies[e.body] = body
			return
		}
		if c.entry(box, id, &e, keywords) {
			box.counted.count(&e, 1)
			held := c.usage[box.account]
			c.usage[box.account] = usage{held.bytes + e.size, held.messages + 1}
			c.done.Messages++
		}
		box.counted.uidNext = uint64(uid) + 1
		box.counted.highestModSeq = max(box.counted.highestModSeq, e.modSeq)
	})
}

// lostAndFound is the account for what belongs to nobody any more.
const lostAndFound = "lost+found"

// adopt makes a place for the messages of a mailbox that has no name.
func (c *checker) adopt(id uint64) *checkedBox {
	box := &checkedBox{name: "Recovered/" + mailboxID(id), row: nameRow{id: id, uidValidity: uint32(c.store.options.Now().Unix())}}
	c.boxes[id] = box
	account, err := c.fix.account(lostAndFound)
	if err == nil {
		box.account = account
		c.accountNames[account] = lostAndFound
		c.fix.set(keyName(rowName, account, box.name), box.row.append(nil))
	}
	c.report(c.in(id, 0, Problem{Text: "there are messages of a mailbox " + mailboxID(id) + ", which has no name", Repaired: "named it so"}))
	return box
}

// entry compares a message with its body and tells whether it stays.
func (c *checker) entry(box *checkedBox, id uint64, e *entry, keywords []uint16) bool {
	body := c.bodies[e.body]
	if body.unreadable {
		body.references++
		c.bodies[e.body] = body
		c.report(c.in(id, e.uid, Problem{Text: "its body lies in a damaged part of the database", Lost: true}))
		return true
	}
	if body.found == 0 && e.size > int64(e.prefix) {
		c.report(c.in(id, e.uid, Problem{Text: "its body is missing", Lost: true, Repaired: "took the message out of the mailbox"}))
		c.fix.delete(keyUID(rowEntry, id, e.uid))
		c.fix.delete(keyUID(rowPrefix, id, e.uid))
		box.removed = box.removed.Add(e.uid)
		return !c.options.Repair
	}
	changed := c.prefix(id, e)
	if size := e.size - int64(e.prefix); size != body.found {
		c.report(c.in(id, e.uid, Problem{Text: fmt.Sprintf("its body has %d octets instead of %d", body.found, size), Lost: true, Repaired: "kept what is there"}))
		e.size = body.found + int64(e.prefix)
		changed = true
	}
	body.references++
	c.bodies[e.body] = body
	if body.references == 1 {
		c.body(id, e, body)
	}
	if n := len(keywords); n > 0 && int(slices.Max(keywords)) >= box.keywords {
		c.report(c.in(id, e.uid, Problem{Text: "it has a keyword without a name", Repaired: "called it keyword-N"}))
		box.keywords = int(slices.Max(keywords)) + 1
		c.fix.keywords(id, box.keywords)
	}
	if changed {
		c.fix.set(keyUID(rowEntry, id, e.uid), appendEntry(nil, e, keywords))
	}
	return true
}

// prefix compares the header lines that the message has before a shared body.
func (c *checker) prefix(id uint64, e *entry) (changed bool) {
	if e.prefix == 0 {
		return false
	}
	prefix, err := c.from.Get(c.store.space, nil, keyUID(rowPrefix, id, e.uid))
	if err == nil && len(prefix) == int(e.prefix) {
		return false
	}
	c.report(c.in(id, e.uid, Problem{Text: fmt.Sprintf("of the header lines before its body %d octets are left of %d", len(prefix), e.prefix), Repaired: "kept the message without what is lost of them"}))
	e.size += int64(len(prefix)) - int64(e.prefix)
	e.prefix = uint32(len(prefix))
	return true
}

// body compares a body with what came in.
func (c *checker) body(id uint64, e *entry, body checkedBody) {
	switch {
	case !body.structure:
		c.report(c.in(id, e.uid, Problem{Text: "its parsed form is missing or damaged", Repaired: "parsed it again"}))
	case body.digest != body.kept:
		c.report(c.in(id, e.uid, Problem{Text: "its octets are not those that came in", Repaired: "kept them as they are"}))
	default:
		return
	}
	c.fix.structure(e.body, body)
}

// counters compares the counts of each mailbox.
func (c *checker) counters() error {
	if c.blind {
		return nil
	}
	err := c.scan(rowState, 9, func(key, value []byte, err error) {
		id := number(key)
		box := c.boxes[id]
		if box == nil {
			c.drop(key, "counters of a mailbox that is not there")
			return
		}
		kept, decodeErr := decodeState(value)
		if box.deleted || err != nil || decodeErr != nil {
			return
		}
		box.hasRow = true
		c.state(id, box, kept)
	})
	for id, box := range c.boxes {
		if !box.hasRow && !box.deleted {
			c.makeState(id, box)
		}
	}
	return err
}

func (c *checker) state(id uint64, box *checkedBox, kept state) {
	right := kept
	counted := box.counted
	right.messages, right.unseen, right.deleted, right.size = counted.messages, counted.unseen, counted.deleted, counted.size
	right.uidNext = max(kept.uidNext, counted.uidNext)
	right.highestModSeq = max(kept.highestModSeq, counted.highestModSeq)
	right.recent = min(kept.recent, counted.messages)
	switch {
	case right == kept:
	case right.uidNext != kept.uidNext || right.highestModSeq != kept.highestModSeq:
		c.report(c.in(id, 0, Problem{
			Text:     fmt.Sprintf("UIDNEXT %d and HIGHESTMODSEQ %d are below what its messages have, %d and %d", kept.uidNext, kept.highestModSeq, right.uidNext, right.highestModSeq),
			Repaired: "raised them",
		}))
	case len(box.removed) == 0 || !c.options.Repair:
		c.report(c.in(id, 0, Problem{
			Text: fmt.Sprintf("it counts %d messages, %d unseen, %d deleted, %d octets, and has %d, %d, %d, %d",
				kept.messages, kept.unseen, kept.deleted, kept.size, right.messages, right.unseen, right.deleted, right.size),
			Repaired: "counted anew",
		}))
	}
	if len(box.removed) > 0 {
		right.highestModSeq++
		c.fix.set(keyModSeq(id, right.highestModSeq), appendUIDs(nil, box.removed))
	}
	if right != kept {
		c.fix.set(key1(rowState, id), right.append(nil))
	}
}

// makeState counts a mailbox whose counters are lost. Which UIDs it gave out before is not known any more, so it gets a new UIDVALIDITY.
func (c *checker) makeState(id uint64, box *checkedBox) {
	c.report(c.in(id, 0, Problem{Text: "its counters are missing or damaged", Repaired: "counted it, with a new UIDVALIDITY"}))
	right := box.counted
	right.firstRecent, right.recent = max(right.uidNext, 1), 0
	right.uidNext, right.highestModSeq = max(right.uidNext, 1), max(right.highestModSeq, 1)
	right.expungedFloor = right.highestModSeq
	box.row.uidValidity = max(box.row.uidValidity+1, uint32(c.store.options.Now().Unix()))
	c.fix.set(key1(rowState, id), right.append(nil))
	c.fix.set(keyName(rowName, box.account, box.name), box.row.append(nil))
	c.fix.validity(c.accountNames[box.account], box.row.uidValidity)
}

// fixes gathers the rows that repair writes; without repair it does nothing.
type fixes struct {
	store  *Store
	active bool
	batch  *kv.Batch
	err    error
	// validities are the highest UIDVALIDITY given out, by account.
	validities map[string]uint32
}

func newFixes(s *Store, active bool) *fixes {
	f := &fixes{store: s, active: active, validities: map[string]uint32{}}
	if active {
		f.batch = s.db.Batch(4 << 10)
	}
	return f
}

func (f *fixes) close() {
	if f.batch != nil {
		f.batch.Close()
	}
}

func (f *fixes) set(key, value []byte) {
	if f.active {
		f.batch.Set(f.store.space, key, value)
	}
}

func (f *fixes) delete(key []byte) {
	if f.active {
		f.batch.Delete(f.store.space, key)
	}
}

func (f *fixes) dropBody(id uint64) {
	if f.active {
		f.store.dropBody(f.batch, id, chunkSize+1)
	}
}

func (f *fixes) references(id uint64, n uint32) {
	if n <= 1 {
		f.delete(key1(rowReferences, id))
		return
	}
	f.set(key1(rowReferences, id), binary.AppendUvarint(nil, uint64(n)))
}

// keywords makes sure that a mailbox has n names.
func (f *fixes) keywords(id uint64, n int) {
	if !f.active {
		return
	}
	names, err := f.store.readKeywords(id)
	if err != nil {
		names = nil
	}
	for i := len(names); i < n; i++ {
		names = append(names, fmt.Sprintf("keyword-%d", i))
	}
	f.set(key1(rowKeywords, id), appendTexts(nil, names))
}

// account returns the number of an account, which is made when it is not there.
func (f *fixes) account(user string) (uint64, error) {
	if !f.active {
		return 0, errNotRepairing
	}
	a, err := f.store.acquire(user)
	if err != nil {
		f.err = errors.Join(f.err, err)
		return 0, err
	}
	defer f.store.release(a)
	return a.row.id, nil
}

var errNotRepairing = errors.New("vault: only looking")

func (f *fixes) validity(user string, n uint32) {
	if f.active && user != "" {
		f.validities[user] = max(f.validities[user], n)
	}
}

// structure parses a body again.
func (f *fixes) structure(id uint64, body checkedBody) {
	if !f.active {
		return
	}
	content, err := f.store.openBody(0, &entry{body: id, size: body.found})
	if err == nil {
		m, parseErr := parse(content)
		if err = errors.Join(parseErr, content.Close()); err == nil {
			f.set(key1(rowStructure, id), appendDigest(m.AppendBinary(nil), body.digest))
		}
	}
	f.err = errors.Join(f.err, err)
}

// commit makes the fixes durable.
func (f *fixes) commit() error {
	if !f.active || f.err != nil {
		return f.err
	}
	for user, n := range f.validities {
		key := append([]byte{rowAccount}, user...)
		row, err := f.store.db.Get(f.store.space, nil, key)
		if err != nil {
			continue
		}
		if account, err := decodeAccount(row); err == nil && account.lastUIDValidity < n {
			account.lastUIDValidity = n
			f.set(key, account.append(nil))
		}
	}
	if f.batch.Empty() {
		return nil
	}
	return f.batch.Commit()
}
