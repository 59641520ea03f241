package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"postilion/kv"
)

// Checked is what Check went through.
type Checked struct {
	Accounts, Mailboxes, Messages, Bodies int64
	// Octets is the size of all bodies, each counted once.
	Octets   int64
	Problems int64
}

// Check reads the whole store as it is at this moment, while everything goes on, and calls problem with each thing that does not fit together. progress is
// called now and then with what was done so far; both may be nil. It takes about 100 octets of memory for each different body. An
// error means that it could not go on.
func (s *Store) Check(ctx context.Context, progress func(Checked), problem func(string)) (Checked, error) {
	if err := s.enter(ctx); err != nil {
		return Checked{}, wrap("check", "", "", err)
	}
	defer s.leave()
	snapshot, err := s.db.Snapshot()
	if err != nil {
		return Checked{}, wrap("check", "", "", err)
	}
	c := &checker{
		store: s, from: snapshot, ctx: ctx, progress: progress, problem: problem,
		usage: map[uint64]usage{}, bodies: map[uint64]checkedBody{}, names: map[uint64]uint64{}, boxes: map[uint64]state{},
	}
	for _, step := range []func() error{c.accounts, c.mailboxes, c.deleted, c.unfinished, c.entries, c.counters, c.references, c.contents, c.usages} {
		if err = step(); err != nil {
			break
		}
	}
	return c.done, wrap("check", "", "", errors.Join(err, snapshot.Close()))
}

type checker struct {
	store    *Store
	from     *kv.Snapshot
	ctx      context.Context
	progress func(Checked)
	problem  func(string)
	done     Checked
	seen     int

	// usage is by account, names gives the account of a mailbox, boxes what is counted in it.
	usage  map[uint64]usage
	names  map[uint64]uint64
	boxes  map[uint64]state
	bodies map[uint64]checkedBody
}

type checkedBody struct {
	references uint32
	structure  bool
	unfinished bool
	expected   int64
	found      int64
}

func (c *checker) report(format string, args ...any) {
	c.done.Problems++
	if c.problem != nil {
		c.problem(fmt.Sprintf(format, args...))
	}
}

// scan goes through the rows of a kind; keys have at least least octets.
func (c *checker) scan(kind byte, least int, fn func(key, value []byte) error) error {
	it, err := c.from.Iterate(c.store.space, []byte{kind}, []byte{kind + 1})
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		if c.seen++; c.seen%4096 == 0 {
			if err = c.ctx.Err(); c.progress != nil {
				c.progress(c.done)
			}
		}
		if len(it.Key()) < least {
			c.report("row %x has a key that is too short", it.Key())
			continue
		}
		value, valueErr := it.Value()
		if valueErr == nil {
			valueErr = fn(it.Key(), value)
		}
		if valueErr != nil {
			c.report("row %x: %v", it.Key(), valueErr)
		}
	}
	return errors.Join(err, it.Close())
}

func number(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:]) }

func (c *checker) accounts() error {
	return c.scan(rowAccount, 2, func(_, value []byte) error {
		row, err := decodeAccount(value)
		if err == nil {
			c.usage[row.id] = usage{}
			c.done.Accounts++
		}
		return err
	})
}

func (c *checker) mailboxes() error {
	return c.scan(rowName, 10, func(key, value []byte) error {
		row, err := decodeName(value)
		if err != nil {
			return err
		}
		if _, ok := c.usage[number(key)]; !ok {
			c.report("mailbox %s belongs to no account", mailboxID(row.id))
		}
		if _, twice := c.names[row.id]; twice {
			c.report("mailbox %s has two names", mailboxID(row.id))
		}
		c.names[row.id] = number(key)
		c.done.Mailboxes++
		return nil
	})
}

// noAccount is the account of mailboxes that are deleted.
const noAccount = 0

func (c *checker) deleted() error {
	return c.scan(rowDeleted, 9, func(key, _ []byte) error {
		if _, named := c.names[number(key)]; named {
			c.report("mailbox %s is deleted and has a name", mailboxID(number(key)))
		}
		c.names[number(key)] = noAccount
		return nil
	})
}

func (c *checker) unfinished() error {
	return c.scan(rowUnfinished, 9, func(key, _ []byte) error {
		c.bodies[number(key)] = checkedBody{unfinished: true}
		return nil
	})
}

func (c *checker) entries() error {
	return c.scan(rowEntry, 13, func(key, value []byte) error {
		id := number(key)
		account, ok := c.names[id]
		if !ok {
			return fmt.Errorf("its mailbox %s does not exist", mailboxID(id))
		}
		e, _, err := decodeEntry(uidOf(key), value, nil)
		if err != nil {
			return err
		}
		counted := c.boxes[id]
		counted.count(&e, 1)
		counted.uidNext = uint64(e.uid) + 1
		counted.highestModSeq = max(counted.highestModSeq, e.modSeq)
		c.boxes[id] = counted
		held := c.usage[account]
		c.usage[account] = usage{held.bytes + e.size, held.messages + 1}
		body := c.bodies[e.body]
		body.references++
		body.expected = e.size - int64(e.prefix)
		c.bodies[e.body] = body
		if e.prefix > 0 {
			if prefix, err := c.from.Get(c.store.space, nil, keyUID(rowPrefix, id, e.uid)); err != nil || len(prefix) != int(e.prefix) {
				c.report("mailbox %s, UID %d: its prefix has %d octets instead of %d", mailboxID(id), e.uid, len(prefix), e.prefix)
			}
		}
		c.done.Messages++
		return nil
	})
}

func (c *checker) counters() error {
	return c.scan(rowState, 9, func(key, value []byte) error {
		id := number(key)
		kept, err := decodeState(value)
		if err != nil {
			return err
		}
		account, ok := c.names[id]
		if !ok {
			return fmt.Errorf("mailbox %s does not exist", mailboxID(id))
		}
		if account == noAccount {
			return nil
		}
		counted := c.boxes[id]
		if kept.uidNext < counted.uidNext || kept.highestModSeq < counted.highestModSeq {
			c.report("mailbox %s: UIDNEXT %d and HIGHESTMODSEQ %d are below what its messages have", mailboxID(id), kept.uidNext, kept.highestModSeq)
		}
		if kept.messages != counted.messages || kept.unseen != counted.unseen || kept.deleted != counted.deleted || kept.size != counted.size {
			c.report("mailbox %s: counters %+v, counted %+v", mailboxID(id), kept, counted)
		}
		delete(c.names, id)
		return nil
	})
}

func (c *checker) references() error {
	for id, account := range c.names {
		if account != noAccount {
			c.report("mailbox %s has no counters", mailboxID(id))
		}
	}
	expected := 0
	for _, body := range c.bodies {
		if body.references > 1 {
			expected++
		}
	}
	found := 0
	err := c.scan(rowReferences, 9, func(key, value []byte) error {
		found++
		kept, size := binary.Uvarint(value)
		if counted := c.bodies[number(key)].references; size <= 0 || kept != uint64(counted) {
			c.report("body %d: %d references, counted %d", number(key), kept, counted)
		}
		return nil
	})
	if found != expected {
		c.report("%d bodies count their references, %d have several", found, expected)
	}
	return err
}

func (c *checker) contents() error {
	err := c.scan(rowBody, 13, func(key, value []byte) error {
		body, ok := c.bodies[number(key)]
		if !ok {
			return fmt.Errorf("no message has the body %d", number(key))
		}
		body.found += int64(len(value))
		c.bodies[number(key)] = body
		c.done.Octets += int64(len(value))
		return nil
	})
	if err != nil {
		return err
	}
	err = c.scan(rowStructure, 9, func(key, _ []byte) error {
		body, ok := c.bodies[number(key)]
		if !ok {
			return fmt.Errorf("no message has the structure %d", number(key))
		}
		body.structure = true
		c.bodies[number(key)] = body
		return nil
	})
	for id, body := range c.bodies {
		if body.unfinished {
			continue
		}
		c.done.Bodies++
		if body.found != body.expected || !body.structure {
			c.report("body %d has %d octets instead of %d, structure %v", id, body.found, body.expected, body.structure)
		}
	}
	return err
}

func (c *checker) usages() error {
	delete(c.usage, noAccount)
	err := c.scan(rowUsage, 9, func(key, value []byte) error {
		kept, err := decodeUsage(value)
		if err != nil {
			return err
		}
		if counted := c.usage[number(key)]; kept != counted {
			c.report("account %d: quota says %+v, counted %+v", number(key), kept, counted)
		}
		delete(c.usage, number(key))
		return nil
	})
	for id, counted := range c.usage {
		if counted != (usage{}) {
			c.report("account %d: quota says nothing, counted %+v", id, counted)
		}
	}
	return err
}
