package vault

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"postilion/kv"
	"postilion/store"
)

// maxPrefix bounds Target.Prefix in octets.
const maxPrefix = 64 << 10

// Deliver implements store.Store.
func (s *Store) Deliver(ctx context.Context, d *store.Delivery) ([]store.Outcome, error) {
	if err := s.enter(ctx); err != nil {
		return nil, wrap("deliver", "", "", err)
	}
	defer s.leave()
	outcomes, err := s.deliver(d)
	return outcomes, wrap("deliver", "", "", err)
}

func (s *Store) deliver(d *store.Delivery) ([]store.Outcome, error) {
	if err := s.checkSpace(); err != nil {
		return nil, err
	}
	c := s.change()
	defer c.close()
	run := &deliveryRun{change: c, delivery: d, outcomes: make([]store.Outcome, len(d.Targets)), accounts: make([]*account, len(d.Targets))}
	defer run.release()
	if err := run.acquire(); err != nil {
		return nil, err
	}
	if err := run.putBody(); err != nil {
		return nil, err
	}
	c.lock(slices.DeleteFunc(slices.Clone(run.accounts), func(a *account) bool { return a == nil })...)
	failed := false
	for i := range d.Targets {
		if run.outcomes[i].Err == nil {
			run.outcomes[i].Err = wrap("deliver", d.Targets[i].Owner.User, d.Targets[i].Mailbox, run.plan(i))
		}
		failed = failed || run.outcomes[i].Err != nil
	}
	if err := s.db.Err(); err != nil {
		return nil, err
	}
	if failed && d.AllOrNothing {
		run.giveUp()
	}
	return run.outcomes, run.commit()
}

// deliveryRun is one Delivery on its way.
type deliveryRun struct {
	*change
	delivery *store.Delivery
	outcomes []store.Outcome
	// accounts are the targets', nil where there is none to be had.
	accounts []*account
	body     newBody
	// shared is true when a prefix is not part of the body's rows.
	shared     bool
	references int
	// marks are the hashes planned in this run.
	marks []mark
}

func (r *deliveryRun) acquire() error {
	for i, target := range r.delivery.Targets {
		a, err := r.store.acquire(target.Owner.User)
		if err != nil && !errors.Is(err, store.ErrName) && !errors.Is(err, store.ErrDamaged) {
			return err
		}
		r.accounts[i], r.outcomes[i].Err = a, wrap("deliver", target.Owner.User, target.Mailbox, err)
	}
	return nil
}

func (r *deliveryRun) release() {
	for _, a := range r.accounts {
		if a != nil {
			r.store.release(a)
		}
	}
}

func (r *deliveryRun) putBody() (err error) {
	var prefix []byte
	r.shared = len(r.delivery.Targets) != 1
	if !r.shared {
		prefix = r.delivery.Targets[0].Prefix
	}
	if len(prefix) > maxPrefix {
		return fmt.Errorf("%w: prefix of %d octets", store.ErrTooMany, len(prefix))
	}
	r.body, err = r.change.putBody(prefix, r.delivery.Content, r.delivery.Structure)
	return err
}

// plan puts the rows of target i into the batch once nothing can keep it from being delivered.
func (r *deliveryRun) plan(i int) error {
	target, ac := &r.delivery.Targets[i], r.of(r.accounts[i])
	var hash deliveryHash
	if r.delivery.ID != "" {
		hash = hashDelivery(ac.row.id, target.Mailbox, r.delivery.ID)
		found, err := r.duplicate(hash)
		if err != nil {
			return err
		}
		if found != nil {
			r.outcomes[i] = store.Outcome{Duplicate: true, UID: r.uidOf(ac, target.Mailbox, found)}
			return nil
		}
	}
	e := r.entry(target)
	if err := ac.checkQuota(&target.Owner.Quota, target.Mailbox, usage{bytes: e.size, messages: 1}); err != nil {
		return err
	}
	bc, err := r.mailbox(ac, target)
	if err != nil {
		return err
	}
	numbers, err := r.numbers(bc, target.Keywords)
	if err = errors.Join(err, bc.room(1)); err != nil {
		return err
	}
	uid := r.add(ac, bc, e, numbers)
	if e.prefix > 0 {
		r.batch.Set(r.store.space, keyUID(rowPrefix, bc.box.row.id, uid), target.Prefix)
	}
	if r.delivery.ID != "" {
		r.marks = append(r.marks, mark{hash: hash, mailbox: bc.box.row.id, uid: uid})
		r.batch.Set(r.store.space, hash.key(r.store.delivered.current(r.store)), r.marks[len(r.marks)-1].row())
	}
	r.references++
	r.outcomes[i].UID = uid
	return nil
}

// mailbox returns the change of the target's mailbox, which is made when the target asks for it.
func (r *deliveryRun) mailbox(ac *accountChange, target *store.Target) (*boxChange, error) {
	box, err := ac.find(target.Mailbox)
	if err == nil {
		return ac.on(box), nil
	}
	if !target.Create || !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err := ac.free(target.Mailbox); err != nil {
		return nil, err
	}
	if len(target.Keywords) > r.store.options.MaxKeywords {
		return nil, fmt.Errorf("%w: %d keywords", store.ErrTooMany, len(target.Keywords))
	}
	box = r.create(ac, target.Mailbox, "")
	if target.SubscribeCreated {
		r.batch.Set(r.store.space, keyName(rowSubscription, ac.row.id, target.Mailbox), nil)
	}
	return ac.on(box), nil
}

func (r *deliveryRun) entry(target *store.Target) entry {
	e := r.store.newEntry(r.body, r.delivery.InternalDate)
	e.flags = target.Flags & allFlags
	if r.shared && len(target.Prefix) > 0 {
		e.prefix = uint32(len(target.Prefix))
		e.size += int64(e.prefix)
		e.email = r.store.newID()
	}
	return e
}

const allFlags = store.FlagSeen | store.FlagAnswered | store.FlagFlagged | store.FlagDeleted | store.FlagDraft

// newEntry is the entry of a message that has the body; a zero date means now.
func (s *Store) newEntry(body newBody, internal time.Time) entry {
	now := s.options.Now()
	if internal.IsZero() {
		internal = now
	}
	_, offset := internal.Zone()
	return entry{body: body.id, email: body.id, size: body.size, internal: internal.Unix(), zone: int16(offset / 60), saved: now.Unix()}
}

// giveUp turns the outcomes into those of a delivery that one target failed.
func (r *deliveryRun) giveUp() {
	for i := range r.outcomes {
		if r.outcomes[i].Err == nil && !r.outcomes[i].Duplicate {
			target := r.delivery.Targets[i]
			r.outcomes[i] = store.Outcome{Err: wrap("deliver", target.Owner.User, target.Mailbox, store.ErrNotDelivered)}
		}
		if r.outcomes[i].Err != nil {
			r.outcomes[i].UID = 0
		}
	}
	r.references = 0
}

func (r *deliveryRun) commit() error {
	if r.references > 0 {
		if r.references > 1 {
			r.batch.Set(r.store.space, key1(rowReferences, r.body.id), binary.AppendUvarint(nil, uint64(r.references)))
		}
		return r.change.commit()
	}
	r.unlock()
	for _, outcome := range r.outcomes {
		if outcome.Duplicate {
			// The delivery that was first may still be on its way to the disk.
			return r.store.db.Sync()
		}
	}
	return nil
}

// deliveryHash stands for a delivery's id and the name of the mailbox it goes to.
type deliveryHash [16]byte

// mark remembers a delivery.
type mark struct {
	hash    deliveryHash
	mailbox uint64
	uid     store.UID
}

func (m mark) row() []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, m.mailbox), uint64(m.uid))
}

func hashDelivery(account uint64, mailbox, id string) (hash deliveryHash) {
	text := binary.AppendUvarint(make([]byte, 0, 128), account)
	text = append(appendText(text, mailbox), id...)
	sum := sha256.Sum256(text)
	copy(hash[:], sum[:])
	return hash
}

func (h deliveryHash) key(period uint32) []byte {
	return append(binary.BigEndian.AppendUint32(append(make([]byte, 0, 24), rowDelivered), period), h[:]...)
}

// duplicate returns the mark of the same delivery, if it is known. The account is locked, so no other can be between looking and starting.
func (r *deliveryRun) duplicate(hash deliveryHash) (*mark, error) {
	for i := range r.marks {
		if r.marks[i].hash == hash {
			return &r.marks[i], nil
		}
	}
	for _, period := range r.store.delivered.periods() {
		row, err := r.store.db.Get(r.store.space, nil, hash.key(period))
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		d := decoder{row: row}
		return &mark{hash: hash, mailbox: d.number(), uid: store.UID(d.number())}, d.err("mark of a delivery")
	}
	return nil, nil
}

// uidOf is the UID of a duplicate, 0 when its mailbox now has another name.
func (r *deliveryRun) uidOf(ac *accountChange, name string, found *mark) store.UID {
	if box, err := ac.find(name); err == nil && box.row.id == found.mailbox {
		return found.uid
	}
	return 0
}

// delivered keeps the marks of deliveries in periods of half the time that they are remembered, so that a whole period is forgotten
// with one range deletion. A period is named by the second it began.
type delivered struct {
	mu     sync.Mutex
	starts []uint32
}

// load finds the periods that have rows.
func (d *delivered) load(s *Store) error {
	it, err := s.db.Iterate(s.space, []byte{rowDelivered}, []byte{rowDelivered + 1})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; {
		if len(it.Key()) != 21 {
			return errors.Join(fmt.Errorf("%w: mark of a delivery", store.ErrDamaged), it.Close())
		}
		start := binary.BigEndian.Uint32(it.Key()[1:])
		d.starts = append(d.starts, start)
		if start == 1<<32-1 {
			break
		}
		ok = it.SeekGE(s.space, binary.BigEndian.AppendUint32([]byte{rowDelivered}, start+1))
	}
	return it.Close()
}

// periods returns those that may hold marks, the newest first.
func (d *delivered) periods() []uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	periods := slices.Clone(d.starts)
	slices.Reverse(periods)
	return periods
}

// current returns the period that new marks go to.
func (d *delivered) current(s *Store) uint32 {
	now := s.options.Now().Unix()
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.starts); n == 0 || now >= int64(d.starts[n-1])+int64(s.options.RememberDeliveries/time.Second)/2 {
		if start := uint32(min(max(now, 1), 1<<32-1)); n == 0 || start > d.starts[n-1] {
			d.starts = append(d.starts, start)
		}
	}
	return d.starts[len(d.starts)-1]
}

// forget removes the periods of which every mark is old enough.
func (d *delivered) forget(s *Store) error {
	now := s.options.Now().Unix()
	for {
		d.mu.Lock()
		starts := slices.Clone(d.starts)
		d.mu.Unlock()
		if len(starts) < 2 || int64(starts[1])+int64(s.options.RememberDeliveries/time.Second) >= now {
			return nil
		}
		batch := s.db.Batch(64)
		batch.DeleteRange(s.space, binary.BigEndian.AppendUint32([]byte{rowDelivered}, starts[0]), binary.BigEndian.AppendUint32([]byte{rowDelivered}, starts[0]+1))
		err := batch.CommitUnsynced()
		batch.Close()
		if err != nil {
			return err
		}
		d.mu.Lock()
		d.starts = d.starts[1:]
		d.mu.Unlock()
	}
}
