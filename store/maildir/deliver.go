package maildir

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"postilion/store"
)

// plan is one target of a delivery on its way.
type plan struct {
	target  *store.Target
	account *account
	mailbox *mailbox
	mark    deliveryMark
	outcome store.Outcome
	// before tells of a repeat that it was there before this delivery began.
	before bool
	// file is what this target gets; placed is its name once it is in the mailbox, under uid.
	file   *draftFile
	placed string
	uid    store.UID
}

func (p *plan) done() bool { return p.outcome.Err != nil || p.outcome.Duplicate }

// Deliver implements store.Store.
func (s *Store) Deliver(ctx context.Context, delivery *store.Delivery) ([]store.Outcome, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	plans := make([]*plan, len(delivery.Targets))
	for i := range plans {
		plans[i] = &plan{target: &delivery.Targets[i]}
		plans[i].outcome.Err = s.prepare(ctx, delivery, plans[i])
		plans[i].before = plans[i].outcome.Duplicate
	}
	defer func() {
		for _, p := range plans {
			if p.mailbox != nil {
				_ = p.mailbox.Close()
			}
			if p.file != nil && p.placed == "" {
				_ = s.disk.files.Remove(p.file.path)
			}
		}
	}()
	defer s.holdQuotas(plans)()
	if err := s.checkQuotas(ctx, delivery, plans); err != nil {
		return nil, err
	}
	if !delivery.AllOrNothing || !refuse(plans) {
		for i, p := range plans {
			if !p.done() {
				p.outcome.Err = s.write(ctx, delivery, plans[:i], p)
			}
		}
		if !delivery.AllOrNothing || !refuse(plans) {
			s.placeAll(ctx, plans)
		}
		if delivery.AllOrNothing && refuse(plans) {
			s.takeBack(ctx, plans)
		}
	}
	outcomes := make([]store.Outcome, len(plans))
	for i, p := range plans {
		outcomes[i] = p.outcome
		if p.outcome.Err != nil {
			outcomes[i].UID = 0
			outcomes[i].Err = failure("deliver", p.target.Owner.User, p.target.Mailbox, p.outcome.Err)
		}
	}
	return outcomes, nil
}

// refuse marks the other targets when one has failed, and tells whether one has. Those that had the delivery before keep it.
func refuse(plans []*plan) bool {
	if !slices.ContainsFunc(plans, func(p *plan) bool { return p.outcome.Err != nil }) {
		return false
	}
	for _, p := range plans {
		if p.outcome.Err == nil && !p.before {
			p.outcome = store.Outcome{Err: store.ErrNotDelivered}
		}
	}
	return true
}

// prepare opens the target's account and mailbox as far as they exist, and knows a repeat.
func (s *Store) prepare(ctx context.Context, delivery *store.Delivery, p *plan) error {
	var err error
	if err = checkKeywords(p.target.Keywords); err != nil {
		return err
	}
	if p.account, err = s.account(ctx, p.target.Owner); err != nil {
		return err
	}
	name := p.target.Mailbox
	if name != store.Inbox {
		if err := p.account.root.location.checkName(name); err != nil {
			return err
		}
		if !p.account.root.exists(name) {
			if p.target.Create {
				return nil
			}
			return store.ErrNotFound
		}
	}
	return p.open(ctx, delivery)
}

// open takes a handle on the mailbox and looks whether it has this delivery.
func (p *plan) open(ctx context.Context, delivery *store.Delivery) error {
	p.mailbox = p.account.handle(p.target.Mailbox)
	f := p.mailbox.folder
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(ctx); err != nil {
		return err
	}
	p.mark = markOf(delivery.ID, f.guid)
	p.lookForRepeat(f)
	return nil
}

// lookForRepeat makes the outcome that of a repeat when the folder, which is locked, has this delivery.
func (p *plan) lookForRepeat(f *folder) {
	if p.mark == "" {
		return
	}
	if uid, known := f.marks[p.mark]; known {
		p.outcome = store.Outcome{UID: uid, Duplicate: true}
	}
}

// holdQuotas keeps other deliveries from using what checkQuotas finds free.
func (s *Store) holdQuotas(plans []*plan) (free func()) {
	var roots []*root
	for _, p := range plans {
		if !p.done() && quotaOf(p.target.Owner.Quota).limited() {
			roots = append(roots, p.account.root)
		}
	}
	slices.SortFunc(roots, func(a, b *root) int { return cmp.Compare(a.location.key(), b.location.key()) })
	roots = slices.Compact(roots)
	for _, r := range roots {
		r.quota.Lock()
	}
	return func() {
		for _, r := range roots {
			r.quota.Unlock()
		}
	}
}

// checkQuotas refuses the targets whose account would hold too much, earlier targets of the same account counted in.
func (s *Store) checkQuotas(ctx context.Context, delivery *store.Delivery, plans []*plan) error {
	taken := map[*root]store.QuotaUsage{}
	content := int64(-1)
	for _, p := range plans {
		q := quotaOf(p.target.Owner.Quota)
		if p.done() || !q.limited() || q.ignores(p.target.Mailbox) {
			continue
		}
		if content < 0 {
			var err error
			if content, err = networkSizeOf(delivery.Content); err != nil {
				return err
			}
		}
		used, known := taken[p.account.root]
		if !known {
			if used, p.outcome.Err = p.account.usage(ctx); p.outcome.Err != nil {
				continue
			}
		}
		size := content + int64(len(p.target.Prefix))
		if !q.allows(p.target.Mailbox, used, size, 1) {
			p.outcome.Err = store.ErrOverQuota
			continue
		}
		used.Bytes += size
		used.Messages++
		taken[p.account.root] = used
	}
	return nil
}

// write makes the mailbox where that is wanted and the file that goes there; earlier targets may lend theirs.
func (s *Store) write(ctx context.Context, delivery *store.Delivery, earlier []*plan, p *plan) error {
	if p.mailbox == nil {
		err := p.account.create(ctx, p.target.Mailbox, "")
		if err == nil && p.target.SubscribeCreated {
			err = p.account.subscribe(ctx, p.target.Mailbox, true)
		}
		if err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
		if err := p.open(ctx, delivery); err != nil || p.outcome.Duplicate {
			return err
		}
	}
	return p.mailbox.folder.vanished(p.obtain(delivery, earlier))
}

// maxPlacing bounds how many mailboxes of one delivery are worked on at the same time.
const maxPlacing = 8

// placeAll puts the files into their mailboxes, several mailboxes at the same time.
func (s *Store) placeAll(ctx context.Context, plans []*plan) {
	var folders []*folder
	byFolder := map[*folder][]*plan{}
	for _, p := range plans {
		if p.done() {
			continue
		}
		f := p.mailbox.folder
		if byFolder[f] == nil {
			folders = append(folders, f)
		}
		byFolder[f] = append(byFolder[f], p)
	}
	if len(folders) == 1 {
		folders[0].receive(ctx, byFolder[folders[0]])
		return
	}
	var group errgroup.Group
	group.SetLimit(maxPlacing)
	for _, f := range folders {
		group.Go(func() error {
			f.receive(ctx, byFolder[f])
			return nil
		})
	}
	// Each target has its own error.
	_ = group.Wait()
}

// inbound is what one delivery brings to a folder.
type inbound struct {
	plans []*plan
	// placed tells that it was taken care of by another delivery that came first.
	placed bool
}

// receive places the files of plans. Deliveries that wait for the folder are placed together, by the first that gets it.
func (f *folder) receive(ctx context.Context, plans []*plan) {
	mine := &inbound{plans: plans}
	f.waiting.Lock()
	f.inbound = append(f.inbound, mine)
	f.waiting.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if mine.placed {
		return
	}
	f.waiting.Lock()
	batch := f.inbound
	f.inbound = nil
	f.waiting.Unlock()
	err := f.updateKnown(ctx, func(c *tx) error {
		for _, in := range batch {
			for _, p := range in.plans {
				p.outcome.Err = p.place(f, c)
			}
		}
		return nil
	})
	err = f.vanished(err)
	for _, in := range batch {
		if err != nil && ctx.Err() != nil && in != mine {
			// Only this delivery was given up; those who wait go on by themselves.
			f.waiting.Lock()
			f.inbound = append(f.inbound, in)
			f.waiting.Unlock()
			continue
		}
		in.placed = true
		for _, p := range in.plans {
			if err != nil {
				p.outcome, p.placed = store.Outcome{Err: err}, ""
			}
		}
	}
}

// place puts the file of a plan into its folder, which is locked.
func (p *plan) place(f *folder, c *tx) error {
	if p.lookForRepeat(f); p.outcome.Duplicate {
		return nil
	}
	uid, err := f.place(c, arrival{
		path: p.file.path, base: p.file.base, size: p.file.size, date: p.file.date, flags: p.target.Flags, keywords: p.target.Keywords,
	})
	if err != nil {
		return f.vanished(err)
	}
	p.outcome.UID, p.uid, p.placed = uid, uid, f.find(uid).path(f)
	return nil
}

// vanished makes of an error about a missing file that the mailbox is missing, when that is so: another program, or another session, deleted or
// renamed it meanwhile.
func (f *folder) vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) && !f.store.disk.isDir(filepath.Join(f.paths.mail, "cur")) {
		return store.ErrNotFound
	}
	return err
}

// obtain links the file of an earlier target that got the same octets, or writes one.
func (p *plan) obtain(delivery *store.Delivery, earlier []*plan) error {
	f := p.mailbox.folder
	for _, other := range earlier {
		if other.file == nil || f.store.options.NoHardLinks || !bytes.Equal(other.target.Prefix, p.target.Prefix) ||
			other.account.root.uid != p.account.root.uid || other.account.root.gid != p.account.root.gid {
			continue
		}
		if file, err := f.linkFrom(other, p.mark); err == nil {
			p.file = file
			return nil
		}
	}
	file, err := f.write(p.target.Prefix, delivery.Content, delivery.InternalDate, p.mark)
	p.file = file
	return err
}

// takeBack removes what was delivered to earlier targets of a delivery that failed.
func (s *Store) takeBack(ctx context.Context, plans []*plan) {
	ctx = context.WithoutCancel(ctx)
	for _, p := range plans {
		if p.placed == "" {
			continue
		}
		f := p.mailbox.folder
		f.mu.Lock()
		err := f.updateKnown(ctx, func(c *tx) error {
			c.forget = true
			_, _, err := f.expunge(c, store.UIDSetOf(p.uid), false)
			return err
		})
		f.mu.Unlock()
		if err != nil {
			// It stays: offered again it is a repeat, and still there once.
			continue
		}
		p.placed = ""
	}
}
