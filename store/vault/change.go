package vault

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"postilion/kv"
	"postilion/store"
)

// change is one durable step on its way: what it will do to accounts and mailboxes is gathered here and in the batch, and touches nothing in
// memory until the batch has started. Use: change, lock, plan, commit, in that order; close in any case.
type change struct {
	store    *Store
	batch    *kv.Batch
	accounts []*accountChange
	// stripes are the reference locks that are held.
	stripes uint64
	locked  bool
	// bodies are the references gained and lost, streamed the bodies whose rows were written ahead.
	bodies   map[uint64]reference
	streamed []uint64
	started  bool
	scratch  []byte
	// notify are mailboxes to tell beside those that changed.
	notify []*mailbox
}

type accountChange struct {
	account    *account
	row        accountRow
	rowChanged bool
	usage      usage
	boxes      []*boxChange
	// renamed are mailboxes with their new names, made the new ones, dropped the deleted ones.
	renamed map[*mailbox]string
	made    []*mailbox
	dropped []*mailbox
}

// boxChange is what a change does to one mailbox. state is the state afterwards.
type boxChange struct {
	box   *mailbox
	state state
	// modSeq is the change's mod-sequence here, 0 until one is needed.
	modSeq   store.ModSeq
	added    []addedEntry
	replaced []addedEntry
	removed  store.UIDSet
	// keywords are all names when some are new, else nil.
	keywords []string
	changed  bool
}

type addedEntry struct {
	entry
	keywords []uint16
}

func (s *Store) change() *change {
	return &change{store: s, batch: s.db.Batch(8 << 10)}
}

// lock takes the accounts in their order; each once.
func (c *change) lock(accounts ...*account) {
	accounts = slices.Clone(accounts)
	slices.SortFunc(accounts, func(a, b *account) int { return cmp.Compare(a.user, b.user) })
	for _, a := range slices.Compact(accounts) {
		a.mu.Lock()
		c.accounts = append(c.accounts, &accountChange{account: a, row: a.row, usage: a.usage})
	}
	c.locked = true
}

func (c *change) of(a *account) *accountChange {
	for _, ac := range c.accounts {
		if ac.account == a {
			return ac
		}
	}
	return nil
}

// close gives back what the change holds.
func (c *change) close() {
	c.unlock()
	c.batch.Close()
	if !c.started {
		c.dropStreamed()
	}
}

func (c *change) unlock() {
	if !c.locked {
		return
	}
	c.locked = false
	c.unlockReferences()
	for _, ac := range c.accounts {
		ac.account.mu.Unlock()
	}
}

// on returns the change of a mailbox.
func (ac *accountChange) on(box *mailbox) *boxChange {
	for _, bc := range ac.boxes {
		if bc.box == box {
			return bc
		}
	}
	bc := &boxChange{box: box, state: box.working.state}
	ac.boxes = append(ac.boxes, bc)
	return bc
}

// find returns the mailbox of that name as it is after what was planned so far.
func (ac *accountChange) find(name string) (*mailbox, error) {
	for _, box := range ac.made {
		if box.name == name {
			return box, nil
		}
	}
	return ac.account.find(name)
}

// create plans a mailbox; the name is free and well-formed.
func (c *change) create(ac *accountChange, name, use string) *mailbox {
	now := c.store.options.Now().Unix()
	validity := ac.row.lastUIDValidity + 1
	if now > int64(validity) && now < 1<<32-1 {
		validity = uint32(now)
	}
	ac.row.lastUIDValidity, ac.rowChanged = validity, true
	box := newMailbox(ac.account, name, nameRow{id: c.store.newID(), uidValidity: validity, use: use}, newState())
	box.known = true
	ac.made = append(ac.made, box)
	c.batch.Set(c.store.space, keyName(rowName, ac.row.id, name), box.row.append(nil))
	ac.on(box).changed = true
	return box
}

// nextModSeq returns the mod-sequence of the change in this mailbox.
func (bc *boxChange) nextModSeq() store.ModSeq {
	if bc.modSeq == 0 {
		bc.state.highestModSeq++
		bc.modSeq = bc.state.highestModSeq
		bc.changed = true
	}
	return bc.modSeq
}

// room tells whether n more messages can have UIDs.
func (bc *boxChange) room(n int) error {
	if bc.state.uidNext+uint64(n) > 1<<32-1 {
		return fmt.Errorf("%w: mailbox has no UIDs left", store.ErrTooMany)
	}
	return nil
}

// add plans a new message with the properties of e; its UID and mod-sequence are set here. There is room.
func (c *change) add(ac *accountChange, bc *boxChange, e entry, keywords []uint16) store.UID {
	e.uid = store.UID(bc.state.uidNext)
	e.modSeq = bc.nextModSeq()
	bc.state.uidNext++
	bc.state.count(&e, 1)
	ac.usage.bytes += e.size
	ac.usage.messages++
	bc.added = append(bc.added, addedEntry{e, keywords})
	var buffer [96]byte
	c.batch.Set(c.store.space, keyUID(rowEntry, bc.box.row.id, e.uid), appendEntry(buffer[:0], &e, keywords))
	return e.uid
}

// replace plans other flags for a message that is there.
func (c *change) replace(bc *boxChange, old *entry, flags store.Flags, keywords []uint16) {
	e := *old
	bc.state.count(&e, -1)
	e.flags, e.modSeq = flags, bc.nextModSeq()
	bc.state.count(&e, 1)
	bc.replaced = append(bc.replaced, addedEntry{e, keywords})
	var buffer [96]byte
	c.batch.Set(c.store.space, keyUID(rowEntry, bc.box.row.id, e.uid), appendEntry(buffer[:0], &e, keywords))
}

// remove plans that a message leaves the mailbox; what becomes of its body is the caller's business.
func (c *change) remove(ac *accountChange, bc *boxChange, e *entry) {
	bc.nextModSeq()
	bc.state.count(e, -1)
	ac.usage.bytes -= e.size
	ac.usage.messages--
	bc.removed = bc.removed.Add(e.uid)
	c.batch.Delete(c.store.space, keyUID(rowEntry, bc.box.row.id, e.uid))
	if e.prefix > 0 {
		c.batch.Delete(c.store.space, keyUID(rowPrefix, bc.box.row.id, e.uid))
	}
}

// numbers returns the keywords as rising numbers of the mailbox, new ones included.
func (c *change) numbers(bc *boxChange, names []string) ([]uint16, error) {
	if len(names) == 0 {
		return nil, nil
	}
	known, err := c.knownKeywords(bc)
	if err != nil {
		return nil, err
	}
	if err := checkKeywords(names); err != nil {
		return nil, err
	}
	var numbers []uint16
	for _, name := range names {
		number := slices.IndexFunc(known, func(other string) bool { return strings.EqualFold(other, name) })
		if number < 0 {
			if len(known) >= c.store.options.MaxKeywords {
				return nil, fmt.Errorf("%w: mailbox has %d different keywords", store.ErrTooMany, len(known))
			}
			number = len(known)
			known = append(known[:number:number], name)
			bc.keywords = known
		}
		numbers = append(numbers, uint16(number))
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

func checkKeywords(names []string) error {
	for _, name := range names {
		if name == "" || len(name) > maxKeywordLen {
			return fmt.Errorf("%w: keyword of %d octets", store.ErrName, len(name))
		}
	}
	return nil
}

func (c *change) knownKeywords(bc *boxChange) ([]string, error) {
	box := bc.box
	switch {
	case bc.keywords != nil:
		return bc.keywords, nil
	case box.working.loaded:
		return box.working.keywords, nil
	case box.known:
		return box.keywords, nil
	}
	names, err := c.store.readKeywords(box.row.id)
	if err != nil {
		return nil, err
	}
	box.keywords, box.known = names, true
	return names, nil
}

// commit starts the batch, lets go of the locks, waits for the disk and shows the change.
func (c *change) commit() error {
	for _, ac := range c.accounts {
		c.write(ac)
	}
	if err := c.writeReferences(); err != nil {
		return err
	}
	c.started = true
	if err := c.batch.Start(); err != nil {
		return err
	}
	type shown struct {
		box  *mailbox
		view *view
	}
	var all [4]shown
	changed := all[:0]
	for _, ac := range c.accounts {
		for _, bc := range ac.apply() {
			changed = append(changed, shown{bc.box, bc.box.working})
		}
	}
	c.unlock()
	if err := c.batch.Wait(); err != nil {
		return err
	}
	for _, s := range changed {
		s.box.publish(s.view)
	}
	for _, s := range changed {
		s.box.notify()
		if s.view.loaded && s.box.handles.Load() == 0 {
			s.box.account.mu.Lock()
			s.box.unload()
			s.box.account.mu.Unlock()
		}
	}
	for _, box := range c.notify {
		box.notify()
	}
	return nil
}

// write puts the rows of counters into the batch.
func (c *change) write(ac *accountChange) {
	s, buffer := c.store, [128]byte{}
	if ac.rowChanged {
		c.batch.Set(s.space, append([]byte{rowAccount}, ac.account.user...), ac.row.append(buffer[:0]))
	}
	if ac.usage != ac.account.usage {
		c.batch.Set(s.space, key1(rowUsage, ac.row.id), ac.usage.append(buffer[:0]))
	}
	for _, bc := range ac.boxes {
		if len(bc.removed) > 0 {
			c.batch.Set(s.space, keyModSeq(bc.box.row.id, bc.modSeq), appendUIDs(nil, bc.removed))
			c.forgetExpunges(bc)
		}
		if bc.changed {
			c.batch.Set(s.space, key1(rowState, bc.box.row.id), bc.state.append(buffer[:0]))
		}
		if bc.keywords != nil {
			c.batch.Set(s.space, key1(rowKeywords, bc.box.row.id), appendTexts(nil, bc.keywords))
		}
	}
}

// forgetExpunges drops the older half of what is remembered when it became too much. The mailbox is loaded.
func (c *change) forgetExpunges(bc *boxChange) {
	known, keep := bc.box.working.expunged, c.store.options.ExpungesKept
	if len(known) < 2*keep {
		return
	}
	bc.state.expungedFloor = known[len(known)-keep].modSeq
	c.batch.DeleteRange(c.store.space, keyModSeq(bc.box.row.id, 0), keyModSeq(bc.box.row.id, bc.state.expungedFloor+1))
}

// apply brings the state in memory to what the started batch says, and returns the mailboxes that changed.
func (ac *accountChange) apply() []*boxChange {
	a := ac.account
	a.row, a.usage = ac.row, ac.usage
	for _, box := range ac.made {
		a.boxes[box.name] = box
	}
	for _, box := range ac.dropped {
		box.gone.Store(true)
		delete(a.boxes, box.name)
	}
	for box := range ac.renamed {
		delete(a.boxes, box.name)
	}
	for box, name := range ac.renamed {
		box.name = name
		a.boxes[name] = box
	}
	changed := ac.boxes[:0]
	for _, bc := range ac.boxes {
		if bc.changed || bc.keywords != nil {
			bc.box.apply(bc)
			changed = append(changed, bc)
		}
	}
	return changed
}

func (m *mailbox) apply(bc *boxChange) {
	v := *m.working
	v.order++
	v.state = bc.state
	switch {
	case v.loaded:
		m.applyEntries(&v, bc)
	case bc.keywords != nil:
		m.keywords, m.known = bc.keywords, true
	}
	m.working = &v
	m.pending.Add(1)
}

func (m *mailbox) applyEntries(v *view, bc *boxChange) {
	if bc.keywords != nil {
		v.keywords = bc.keywords
	}
	if len(bc.replaced) > 0 {
		entries := make([]entry, len(bc.replaced))
		for i, r := range bc.replaced {
			r.set = internSet(&v.sets, m.setNumbers, r.keywords)
			entries[i] = r.entry
		}
		v.index = v.index.replace(entries)
	}
	for _, added := range bc.added {
		added.set = internSet(&v.sets, m.setNumbers, added.keywords)
		v.index = v.index.add(added.entry)
	}
	if len(bc.removed) > 0 {
		v.index = v.index.remove(bc.removed)
		v.expunged = append(v.expunged, expunge{bc.modSeq, bc.removed})
		from, _ := slices.BinarySearchFunc(v.expunged, v.state.expungedFloor+1, func(e expunge, modSeq store.ModSeq) int { return cmp.Compare(e.modSeq, modSeq) })
		v.expunged = v.expunged[from:]
	}
}

func uidOf(key []byte) store.UID { return store.UID(binary.BigEndian.Uint32(key[9:])) }

func modSeqOf(key []byte) store.ModSeq { return store.ModSeq(binary.BigEndian.Uint64(key[9:])) }
