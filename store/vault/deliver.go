package vault

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"postilion/kv"
	"postilion/store"
)

// maxPrefix bounds Target.Prefix in octets.
const maxPrefix = 64 << 10

// Deliver implements store.Store.
func (s *Store) Deliver(ctx context.Context, d *store.Delivery) ([]store.Outcome, error) {
	return s.DeliverWith(ctx, d, nil)
}

// DeliverWith is Deliver with rows of another room in the same batch, such as queue entries for the recipients that have no mailbox here. also is
// told the outcomes and puts its rows into the batch, which becomes durable as a whole, also when no target took the message. It is called with accounts
// locked: it must return at once and not call the store. When it fails nothing is delivered.
func (s *Store) DeliverWith(ctx context.Context, d *store.Delivery, also func(batch *kv.Batch, outcomes []store.Outcome) error) ([]store.Outcome, error) {
	if err := s.enter(ctx); err != nil {
		return nil, wrap("deliver", "", "", err)
	}
	defer s.leave()
	outcomes, err := s.deliver(d, also)
	if err != nil {
		return nil, wrap("deliver", "", "", err)
	}
	return outcomes, nil
}

func (s *Store) deliver(d *store.Delivery, also func(*kv.Batch, []store.Outcome) error) ([]store.Outcome, error) {
	if err := s.checkSpace(); err != nil {
		return nil, err
	}
	c := s.change()
	defer c.close()
	run := &deliveryRun{change: c, delivery: d, also: also, outcomes: make([]store.Outcome, len(d.Targets)), accounts: make([]*account, len(d.Targets))}
	defer run.release()
	if possible, err := run.acquire(); err != nil {
		return nil, err
	} else if possible == 0 {
		return run.outcomes, run.commit()
	}
	if err := run.putBody(); err != nil {
		return nil, err
	}
	c.lock(slices.DeleteFunc(slices.Clone(run.accounts), func(a *account) bool { return a == nil })...)
	// Whoever may have been first with this id to one of these accounts has noted it before the lock was free.
	run.fresh = d.ID == "" || s.delivered.surelyNew(d.ID)
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
	also     func(*kv.Batch, []store.Outcome) error
	outcomes []store.Outcome
	// accounts are the targets', nil where there is none to be had.
	accounts []*account
	body     newBody
	// shared is true when a prefix is not part of the body's rows.
	shared     bool
	references int
	// fresh is true when no target can have had the delivery before; marks are those planned in this run.
	fresh bool
	marks []mark
}

// acquire gets the accounts of the targets and returns how many targets have not failed by then.
func (r *deliveryRun) acquire() (possible int, err error) {
	for i, target := range r.delivery.Targets {
		err := checkTarget(&target)
		if err == nil {
			r.accounts[i], err = r.store.acquire(target.Owner.User)
		}
		if err != nil && r.store.db.Err() != nil {
			return 0, err
		}
		if r.outcomes[i].Err = wrap("deliver", target.Owner.User, target.Mailbox, err); err == nil {
			possible++
		}
	}
	return possible, nil
}

func checkTarget(target *store.Target) error {
	if len(target.Prefix) > maxPrefix {
		return fmt.Errorf("%w: prefix of %d octets", store.ErrTooMany, len(target.Prefix))
	}
	return checkKeywords(target.Keywords)
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
	r.body, err = r.change.putBody(prefix, r.delivery.Content, r.delivery.Structure)
	return err
}

// plan puts the rows of target i into the batch once nothing can keep it from being delivered.
func (r *deliveryRun) plan(i int) error {
	target, ac := &r.delivery.Targets[i], r.of(r.accounts[i])
	var name deliveryName
	if r.delivery.ID != "" {
		name = nameDelivery(ac.row.id, target.Mailbox, r.delivery.ID)
		found, err := r.duplicate(name)
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
		r.marks = append(r.marks, mark{name: name, mailbox: bc.box.row.id, uid: uid})
		r.store.delivered.note(r.delivery.ID)
		r.batch.Set(r.store.space, name.key(r.store.delivered.current(r.store)), r.marks[len(r.marks)-1].row())
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
	}
	// Each target gets a message of its own: only what Copy makes are copies.
	if r.references > 0 || e.prefix > 0 {
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

// giveUp turns the outcomes into those of a delivery that one target failed. A target that had the delivery before has it still.
func (r *deliveryRun) giveUp() {
	fresh := map[[2]string]bool{}
	for i := range r.outcomes {
		target := r.delivery.Targets[i]
		place := [2]string{target.Owner.User, target.Mailbox}
		if r.outcomes[i].Duplicate && !fresh[place] {
			continue
		}
		fresh[place] = true
		if r.outcomes[i].Err == nil {
			r.outcomes[i] = store.Outcome{Err: wrap("deliver", target.Owner.User, target.Mailbox, store.ErrNotDelivered)}
		}
	}
	r.references = 0
}

func (r *deliveryRun) commit() error {
	if r.references == 0 {
		return r.commitOthers()
	}
	if r.references > 1 {
		r.batch.Set(r.store.space, key1(rowReferences, r.body.id), binary.AppendUvarint(nil, uint64(r.references)))
	}
	if r.also != nil {
		if err := r.also(r.batch, r.outcomes); err != nil {
			return err
		}
	}
	return r.change.commit()
}

// commitOthers ends a delivery that no target took.
func (r *deliveryRun) commitOthers() error {
	r.unlock()
	if r.also != nil {
		batch := r.store.db.Batch(256)
		defer batch.Close()
		if err := r.also(batch, r.outcomes); err != nil {
			return err
		}
		if !batch.Empty() {
			return batch.Commit()
		}
	}
	for _, outcome := range r.outcomes {
		if outcome.Duplicate {
			// The delivery that was first may still be on its way to the disk.
			return r.store.db.Sync()
		}
	}
	return nil
}

// duplicate returns the mark of the same delivery, if it is known. The account is locked, so no other can be between looking and starting.
func (r *deliveryRun) duplicate(name deliveryName) (*mark, error) {
	for i := range r.marks {
		if bytes.Equal(r.marks[i].name, name) {
			return &r.marks[i], nil
		}
	}
	if r.fresh {
		return nil, nil
	}
	for _, period := range r.store.delivered.periods() {
		row, err := r.store.db.Get(r.store.space, nil, name.key(period))
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		d := decoder{row: row}
		return &mark{name: name, mailbox: d.number(), uid: store.UID(d.number())}, d.err("mark of a delivery")
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
