package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"postilion/kv"
	"postilion/mail/message"
	"postilion/store"
)

// Checked is what Check went through.
type Checked struct {
	Accounts  int64 `json:"accounts"`
	Mailboxes int64 `json:"mailboxes"`
	Messages  int64 `json:"messages"`
	Bodies    int64 `json:"bodies"`
	// Octets is the size of all bodies, each counted once.
	Octets int64 `json:"octets"`
	// Problems counts what does not fit together, Lost the messages among them that cannot be read, Repaired what was put right.
	Problems int64 `json:"problems"`
	Lost     int64 `json:"lost"`
	Repaired int64 `json:"repaired"`
}

// Problem is one thing that does not fit together.
type Problem struct {
	Account string    `json:"account,omitempty"`
	Mailbox string    `json:"mailbox,omitempty"`
	UID     store.UID `json:"uid,omitempty"`
	Text    string    `json:"text"`
	// Lost tells that the message cannot be read any more.
	Lost bool `json:"lost,omitempty"`
	// Repaired says what was done about it, "" for nothing.
	Repaired string `json:"repaired,omitempty"`
}

// String is the problem in one line.
func (p Problem) String() string {
	text := p.Text
	switch {
	case p.UID != 0:
		text = fmt.Sprintf("%s, mailbox %q, UID %d: %s", p.Account, p.Mailbox, p.UID, text)
	case p.Mailbox != "":
		text = fmt.Sprintf("%s, mailbox %q: %s", p.Account, p.Mailbox, text)
	case p.Account != "":
		text = p.Account + ": " + text
	}
	if p.Repaired != "" {
		text += "; repaired: " + p.Repaired
	}
	return text
}

// CheckOptions tell Check what to do.
type CheckOptions struct {
	// Repair puts right what can be put right without losing mail. Nothing else uses the store meanwhile: operations wait, and mailboxes that are open
	// must be opened again.
	Repair bool
	// Progress is called now and then with what was done so far, Problem with each finding; both may be nil.
	Progress func(Checked)
	Problem  func(Problem)
}

// ErrUnreadable: rows could not be read, so that nothing can be repaired in place.
var ErrUnreadable = fmt.Errorf("%w: some of its rows cannot be read", store.ErrDamaged)

// Check reads the whole store as it is at this moment, while everything goes on: every row parses, bodies are there and are what came in, counters equal
// what is counted, UIDs and mod-sequences lie below what was promised. It takes about 150 octets of memory for each different body. An error means that it
// could not go on; ErrUnreadable that it went through what can be read.
func (s *Store) Check(ctx context.Context, options CheckOptions) (Checked, error) {
	if options.Repair {
		return s.repair(ctx, options)
	}
	if err := s.enter(ctx); err != nil {
		return Checked{}, wrap("check", "", "", err)
	}
	defer s.leave()
	c, err := s.check(ctx, options)
	return c.done, wrap("check", "", "", err)
}

func (s *Store) check(ctx context.Context, options CheckOptions) (*checker, error) {
	c := &checker{
		store: s, ctx: ctx, options: options, accountNames: map[uint64]string{}, usage: map[uint64]usage{},
		bodies: map[uint64]checkedBody{}, boxes: map[uint64]*checkedBox{}, fix: newFixes(s, options.Repair),
	}
	defer c.fix.close()
	snapshot, err := s.db.Snapshot()
	if err != nil {
		return c, err
	}
	c.from = snapshot
	for _, step := range []func() error{
		c.accounts, c.mailboxes, c.deleted, c.unfinished, c.structures, c.contents, c.keywords, c.entries, c.prefixes, c.expunged, c.counters,
		c.references, c.unreferenced, c.usages, c.delivered,
	} {
		if err = errors.Join(step(), ctx.Err()); err != nil {
			break
		}
	}
	err = errors.Join(err, snapshot.Close())
	if err == nil && c.blind {
		err = ErrUnreadable
	}
	if err == nil {
		err = c.fix.commit()
	}
	return c, err
}

type checker struct {
	store   *Store
	from    *kv.Snapshot
	ctx     context.Context
	options CheckOptions
	fix     *fixes
	done    Checked
	seen    int
	// blind is set when rows could not be read: what is counted is then too little, and nothing follows from it.
	blind bool

	accountNames map[uint64]string
	usage        map[uint64]usage
	boxes        map[uint64]*checkedBox
	bodies       map[uint64]checkedBody
	// orphans are bodies that no message has, or fewer messages than are said to have it while unread entries cannot be read.
	orphans []uint64
	unread  int
}

// checkedBox is what was found out about one mailbox.
type checkedBox struct {
	account uint64
	name    string
	row     nameRow
	deleted bool
	// counted is the state as its entries say.
	counted  state
	keywords int
	// removed are messages that repair takes out.
	removed store.UIDSet
	hasRow  bool
}

type checkedBody struct {
	found      int64
	references uint32
	digest     uint32
	kept       uint32
	structure  bool
	unfinished bool
	unreadable bool
}

func (c *checker) report(p Problem) {
	c.done.Problems++
	if p.Lost {
		c.done.Lost++
	}
	if !c.options.Repair {
		p.Repaired = ""
	}
	if p.Repaired != "" {
		c.done.Repaired++
	}
	if c.options.Problem != nil {
		c.options.Problem(p)
	}
}

// in gives a problem the place of a mailbox.
func (c *checker) in(id uint64, uid store.UID, p Problem) Problem {
	p.Mailbox, p.UID = mailboxID(id), uid
	if box := c.boxes[id]; box != nil && box.name != "" {
		p.Account, p.Mailbox = c.accountNames[box.account], box.name
	}
	return p
}

// scan goes through the rows of a kind; keys have at least least octets. fn is given the value or the error of reading it, and returns what is wrong with the
// row.
func (c *checker) scan(kind byte, least int, fn func(key, value []byte, err error)) error {
	it, err := c.from.Iterate(c.store.space, []byte{kind}, []byte{kind + 1})
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		if c.seen++; c.seen%1024 == 0 {
			if err = c.ctx.Err(); c.options.Progress != nil {
				c.options.Progress(c.done)
			}
		}
		if len(it.Key()) < least {
			c.drop(it.Key(), "its key is too short")
			continue
		}
		value, valueErr := it.Value()
		fn(it.Key(), value, valueErr)
	}
	if closeErr := it.Close(); closeErr != nil {
		if dbErr := c.store.db.Err(); dbErr != nil {
			return dbErr
		}
		c.blind = true
		c.report(Problem{Text: fmt.Sprintf("rows of kind %q cannot be read to their end: %v", kind, closeErr)})
	}
	return err
}

// drop reports a row that says nothing.
func (c *checker) drop(key []byte, why string) {
	c.report(Problem{Text: fmt.Sprintf("row %x: %s", key, why), Repaired: "removed the row"})
	c.fix.delete(key)
}

func number(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:]) }

func (c *checker) accounts() error {
	return c.scan(rowAccount, 2, func(key, value []byte, err error) {
		row, decodeErr := decodeAccount(value)
		if err = errors.Join(err, decodeErr); err != nil {
			c.report(Problem{Account: string(key[1:]), Text: err.Error()})
			c.blind = true
			return
		}
		c.accountNames[row.id] = string(key[1:])
		c.done.Accounts++
	})
}

func (c *checker) mailboxes() error {
	return c.scan(rowName, 10, func(key, value []byte, err error) {
		row, decodeErr := decodeName(value)
		account, name := number(key), string(key[9:])
		if err = errors.Join(err, decodeErr); err != nil {
			c.report(Problem{Account: c.accountNames[account], Mailbox: name, Text: err.Error(), Repaired: "removed the name; its messages are found below"})
			c.fix.delete(key)
			return
		}
		if _, ok := c.accountNames[account]; !ok {
			made := fmt.Sprintf("recovered-%d", account)
			c.report(Problem{Mailbox: name, Text: fmt.Sprintf("it belongs to account %d, which has no name", account), Repaired: "named the account " + made})
			c.fix.set(append([]byte{rowAccount}, made...), accountRow{id: account, lastUIDValidity: row.uidValidity}.append(nil))
			c.accountNames[account] = made
		}
		if other := c.boxes[row.id]; other != nil {
			c.report(Problem{Account: c.accountNames[account], Mailbox: name, Text: fmt.Sprintf("it is the same as %q", other.name), Repaired: "removed the second name"})
			c.fix.delete(key)
			return
		}
		c.boxes[row.id] = &checkedBox{account: account, name: name, row: row}
		c.done.Mailboxes++
	})
}

func (c *checker) deleted() error {
	return c.scan(rowDeleted, 9, func(key, _ []byte, _ error) {
		id := number(key)
		if box := c.boxes[id]; box != nil {
			c.report(c.in(id, 0, Problem{Text: "it is marked as deleted", Repaired: "removed the mark"}))
			c.fix.delete(key)
			return
		}
		c.boxes[id] = &checkedBox{deleted: true}
	})
}

func (c *checker) unfinished() error {
	return c.scan(rowUnfinished, 9, func(key, _ []byte, _ error) { c.bodies[number(key)] = checkedBody{unfinished: true} })
}

func (c *checker) structures() error {
	return c.scan(rowStructure, 9, func(key, value []byte, err error) {
		body := c.bodies[number(key)]
		row, digest, cutErr := cutDigest(value)
		if err == nil && cutErr == nil {
			_, decodeErr := message.Decode(row)
			body.kept, body.structure = digest, decodeErr == nil
		}
		c.bodies[number(key)] = body
	})
}

func (c *checker) contents() error {
	return c.scan(rowBody, 13, func(key, value []byte, err error) {
		body := c.bodies[number(key)]
		if err != nil {
			body.unreadable = true
		}
		body.found += int64(len(value))
		body.digest = addDigest(body.digest, value)
		c.bodies[number(key)] = body
		c.done.Octets += int64(len(value))
	})
}

// keywords counts the names of each mailbox.
func (c *checker) keywords() error {
	return c.scan(rowKeywords, 9, func(key, value []byte, err error) {
		names, decodeErr := decodeTexts(value)
		box := c.boxes[number(key)]
		switch err = errors.Join(err, decodeErr); {
		case err != nil:
			c.report(c.in(number(key), 0, Problem{Text: "names of keywords: " + err.Error(), Repaired: "keywords are called keyword-N"}))
			c.fix.delete(key)
		case box == nil:
			c.drop(key, "keywords of a mailbox that is not there")
		default:
			box.keywords = len(names)
		}
	})
}

// prefixes looks for prefixes that no message has.
func (c *checker) prefixes() error {
	return c.scan(rowPrefix, 13, func(key, _ []byte, _ error) {
		if _, err := c.from.Get(c.store.space, nil, append([]byte{rowEntry}, key[1:]...)); errors.Is(err, kv.ErrNotFound) && !c.blind {
			c.drop(key, "header lines of a message that is not there")
		}
	})
}

func (c *checker) expunged() error {
	return c.scan(rowExpunged, 17, func(key, value []byte, err error) {
		if _, decodeErr := decodeUIDs(value); err != nil || decodeErr != nil {
			c.drop(key, "list of expunged messages cannot be read")
			return
		}
		if box := c.boxes[number(key)]; box != nil && !box.deleted {
			box.counted.highestModSeq = max(box.counted.highestModSeq, modSeqOf(key))
		}
	})
}

func (c *checker) delivered() error {
	return c.scan(rowDelivered, 5, func(key, value []byte, err error) {
		d := decoder{row: value}
		d.number()
		d.number()
		if err != nil || d.bad || len(key) < 5+targetLen {
			c.drop(key, "mark of a delivery cannot be read")
		}
	})
}

func (c *checker) usages() error {
	if c.blind {
		return nil
	}
	err := c.scan(rowUsage, 9, func(key, value []byte, err error) {
		kept, decodeErr := decodeUsage(value)
		name, ok := c.accountNames[number(key)]
		counted := c.usage[number(key)]
		delete(c.usage, number(key))
		switch {
		case !ok:
			c.drop(key, fmt.Sprintf("quota of account %d, which is not there", number(key)))
		case err != nil || decodeErr != nil || kept != counted:
			c.report(Problem{
				Account: name, Text: fmt.Sprintf("quota says %d octets in %d messages, counted %d in %d", kept.bytes, kept.messages, counted.bytes, counted.messages), Repaired: "counted anew",
			})
			c.fix.set(key, counted.append(nil))
		}
	})
	for id, counted := range c.usage {
		if counted != (usage{}) && id != 0 {
			c.report(Problem{Account: c.accountNames[id], Text: fmt.Sprintf("quota says nothing, counted %d octets in %d messages", counted.bytes, counted.messages), Repaired: "counted anew"})
			c.fix.set(key1(rowUsage, id), counted.append(nil))
		}
	}
	return err
}

// references compares the counts of messages that share a body.
func (c *checker) references() error {
	if c.blind {
		return nil
	}
	kept := map[uint64]bool{}
	err := c.scan(rowReferences, 9, func(key, value []byte, err error) {
		id := number(key)
		kept[id] = true
		n, size := binary.Uvarint(value)
		counted := c.bodies[id].references
		if missing := int64(n) - int64(counted); err == nil && counted > 0 && missing > 0 && missing <= int64(c.unread) {
			for range missing {
				c.unread--
				c.orphans = append(c.orphans, id)
			}
			return
		}
		if err != nil || size <= 0 || n != uint64(counted) {
			c.report(Problem{Text: fmt.Sprintf("body %d: %d messages are said to have it, counted %d", id, n, counted), Repaired: "counted anew"})
			c.fix.references(id, counted)
		}
	})
	for id, body := range c.bodies {
		if body.references > 1 && !kept[id] {
			c.report(Problem{Text: fmt.Sprintf("body %d: one message is said to have it, counted %d", id, body.references), Repaired: "counted anew"})
			c.fix.references(id, body.references)
		}
	}
	return err
}

// unreferenced looks for bodies that no message has, and parsed forms without a body.
func (c *checker) unreferenced() error {
	if c.blind {
		return nil
	}
	for id, body := range c.bodies {
		switch {
		case body.unfinished:
		case body.references > 0:
			c.done.Bodies++
		case body.found > 0 && !body.unreadable:
			c.orphans = append(c.orphans, id)
		default:
			c.report(Problem{Text: fmt.Sprintf("body %d: no message has it, and nothing of it is left", id), Repaired: "removed its rows"})
			c.fix.dropBody(id)
		}
	}
	slices.Sort(c.orphans)
	if c.options.Repair {
		return nil
	}
	for _, id := range c.orphans {
		c.report(Problem{Text: fmt.Sprintf("body %d: a message that had its %d octets is gone", id, c.bodies[id].found)})
	}
	return nil
}
