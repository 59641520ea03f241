package vault

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"strings"

	"postilion/store"
)

const (
	// recoveredBox is the mailbox for messages that were in no mailbox any more.
	recoveredBox = "Recovered"
	// relinkBatch is how many of them are put there in one step.
	relinkBatch = 200
)

// repair checks, keeps everybody else out, and puts right what it finds.
func (s *Store) repair(ctx context.Context, options CheckOptions) (Checked, error) {
	s.gate.Lock()
	if s.closed {
		s.gate.Unlock()
		return Checked{}, wrap("repair", "", "", store.ErrClosed)
	}
	c, err := s.check(ctx, options)
	if err == nil {
		s.forget()
	}
	s.gate.Unlock()
	if err == nil {
		err = c.relink()
	}
	return c.done, wrap("repair", "", "", err)
}

// forget drops what is in memory of accounts and mailboxes, because the rows are different now. Handles that are open answer store.ErrNotFound from now on. The
// gate is held for writing.
func (s *Store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		for _, box := range a.boxes {
			box.gone.Store(true)
		}
		a.stale.Store(true)
	}
	s.accounts, s.idle = map[string]*account{}, list.New()
}

// relink gives the bodies that no message has a place: in the account that their trace headers name, or in lost+found.
func (c *checker) relink() error {
	places := map[string][]uint64{}
	for _, id := range c.orphans {
		places[c.accountOf(id)] = append(places[c.accountOf(id)], id)
	}
	for user, ids := range places {
		for len(ids) > 0 {
			n := min(len(ids), relinkBatch)
			if err := c.relinkTo(user, ids[:n]); err != nil {
				return err
			}
			ids = ids[n:]
		}
	}
	return nil
}

// accountOf reads to whom a body was delivered.
func (c *checker) accountOf(id uint64) string {
	start := make([]byte, 4096)
	content, err := c.store.openBody(0, &entry{body: id, size: c.bodies[id].found})
	if err != nil {
		return lostAndFound
	}
	n, _ := content.ReadAt(start, 0)
	_ = content.Close()
	for line := range bytes.Lines(start[:n]) {
		line = bytes.TrimRight(line, "\r\n")
		name, value, ok := strings.Cut(string(line), ":")
		if len(line) == 0 {
			break
		}
		if !ok || !strings.EqualFold(name, "Delivered-To") {
			continue
		}
		user := strings.Trim(strings.TrimSpace(value), "<>")
		for _, known := range c.accountNames {
			if strings.EqualFold(known, user) {
				return known
			}
		}
	}
	return lostAndFound
}

func (c *checker) relinkTo(user string, ids []uint64) error {
	s := c.store
	a, err := s.acquire(user)
	if err != nil {
		return err
	}
	defer s.release(a)
	change := s.change()
	defer change.close()
	change.lock(a)
	ac := change.of(a)
	box, err := ac.find(recoveredBox)
	if errors.Is(err, store.ErrNotFound) {
		box, err = change.create(ac, recoveredBox, ""), nil
	}
	if err != nil {
		return err
	}
	bc := ac.on(box)
	if err := bc.room(len(ids)); err != nil {
		return err
	}
	structures := newFixes(s, true)
	structures.batch.Close()
	structures.batch = change.batch
	for _, id := range ids {
		body := c.bodies[id]
		e := s.newEntry(newBody{id: id, size: body.found}, s.options.Now())
		uid := change.add(ac, bc, e, nil)
		if !body.structure || body.digest != body.kept {
			structures.structure(id, body)
		}
		c.report(Problem{
			Account: user, Mailbox: recoveredBox, UID: uid, Text: fmt.Sprintf("a message that had its %d octets was gone", body.found), Repaired: "put it here",
		})
	}
	if structures.err != nil {
		return structures.err
	}
	return change.commit()
}
