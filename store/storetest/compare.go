package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postilion/store"
)

// Compare gives the same random operations to a Memory and to all beds and wants the same answers from each, but for what the numbers of UIDs,
// mod-sequences and identifiers are. After each operation a client that knows each mailbox only by ChangedSince and ExpungedSince must know all of it.
// How many sequences are tried is rapid's business (-rapid.checks).
func Compare(t *testing.T, beds map[string]func(t *testing.T) *Bed) {
	rapid.Check(t, func(rt *rapid.T) {
		contestants := []*contestant{newContestant(t, "memory", memoryOf(t))}
		for name, bed := range beds {
			contestants = append(contestants, newContestant(t, name, bed(t)))
		}
		defer func() {
			for _, c := range contestants {
				if err := c.store.Close(); err != nil {
					t.Errorf("%s: close: %v", c.name, err)
				}
			}
		}()
		s := &sequence{rt: rt, contestants: contestants}
		for range rapid.IntRange(5, 40).Draw(rt, "length") {
			what, do := s.draw()
			if do == nil {
				continue
			}
			want := ""
			for i, c := range contestants {
				answer := do(c)
				if state, err := c.describe(); err != nil {
					rt.Fatalf("%s after %s: %v", c.name, what, err)
				} else {
					answer += "\n" + state
				}
				if i == 0 {
					want = answer
				} else if answer != want {
					rt.Fatalf("after %s\n%s says %s\n%s says %s", what, contestants[0].name, want, c.name, answer)
				}
			}
		}
	})
}

func memoryOf(*testing.T) *Bed {
	memory := NewMemory()
	return &Bed{Open: func(testing.TB) store.Store { return memory.Open() }, Can: Capabilities{ExactBytes: true, Atomic: true, RemembersAccounts: true}}
}

// contestant is one of the stores that are compared.
type contestant struct {
	t       *testing.T
	name    string
	bed     *Bed
	store   store.Store
	account store.Account
	// known is what a client that follows by mod-sequences knows, by the identifier of the mailbox.
	known map[string]*follower
	// nexts holds the UIDNEXT of each mailbox when it was looked at last.
	nexts map[string]store.UID
}

// follower is a client's picture of one mailbox.
type follower struct {
	highest  store.ModSeq
	messages map[store.UID]string
}

func newContestant(t *testing.T, name string, bed *Bed) *contestant {
	if bed.Owner == nil {
		bed.Owner = func(user string) store.Owner { return store.Owner{User: user, UID: -1, GID: -1} }
	}
	c := &contestant{t: t, name: name, bed: bed, known: map[string]*follower{}}
	c.open()
	return c
}

// restore has the power go now, unless it is off already, and opens what survived. A bed without a switch is opened again in order.
func (c *contestant) restore(seed uint64) {
	if c.bed.Power == nil {
		if err := c.store.Close(); err != nil {
			c.t.Fatalf("%s: %v", c.name, err)
		}
	} else {
		c.bed.Power.Restore(seed)
		// Nothing of what a dead machine says counts.
		_ = c.store.Close()
	}
	c.open()
}

func (c *contestant) open() {
	c.store = c.bed.Open(c.t)
	account, err := c.store.Open(c.t.Context(), c.bed.Owner("alice"))
	if err != nil {
		c.t.Fatalf("%s: %v", c.name, err)
	}
	c.account = account
}

// class names the kind of an error.
func class(err error) string {
	if err == nil {
		return "ok"
	}
	for _, kind := range []error{
		store.ErrNotFound, store.ErrExists, store.ErrName, store.ErrOverQuota, store.ErrExpunged, store.ErrOtherAccount, store.ErrNotDelivered, store.ErrTooMany, store.ErrClosed,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "unexpected: " + err.Error()
}

// on runs fn on a mailbox and returns its answer or the kind of error.
func (c *contestant) on(name string, fn func(ctx context.Context, m store.Mailbox, v store.View) (string, error)) string {
	ctx := c.t.Context()
	m, err := c.account.Mailbox(ctx, name)
	if err != nil {
		return class(err)
	}
	defer func() { _ = m.Close() }()
	v, err := m.View(ctx)
	if err != nil {
		return class(err)
	}
	answer, err := fn(ctx, m, v)
	if err != nil {
		return class(err)
	}
	return answer
}

// pick turns positions into UIDs; a position past the end names a UID that was never given.
func pick(v store.View, positions []int) store.UIDSet {
	var set store.UIDSet
	for _, position := range positions {
		if position < v.Len() {
			set = set.Add(v.UID(position))
		} else {
			set = set.Add(v.UIDNext() + 1000)
		}
	}
	return set
}

// places turns UIDs into positions in a view.
func places(v store.View, uids []store.UID) string {
	var at []int
	for _, uid := range uids {
		index, ok := v.Index(uid)
		if !ok {
			index = -1
		}
		at = append(at, index)
	}
	return fmt.Sprint(at)
}

// describe tells all that is there, without the numbers that stores choose, and lets the followers follow.
func (c *contestant) describe() (string, error) {
	ctx := c.t.Context()
	listed, err := c.account.List(ctx)
	if err != nil {
		return "", err
	}
	slices.SortFunc(listed, func(a, b store.Listed) int { return strings.Compare(a.Name, b.Name) })
	subscribed, err := c.account.Subscriptions(ctx)
	if err != nil {
		return "", err
	}
	slices.Sort(subscribed)
	usage, err := c.account.QuotaUsage(ctx)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "subscribed %q, %+v\n", subscribed, usage)
	emails := map[string]int{}
	for _, l := range listed {
		fmt.Fprintf(&out, "%q %v %q\n", l.Name, l.Selectable, l.Use)
		if !l.Selectable {
			continue
		}
		m, err := c.account.Mailbox(ctx, l.Name)
		if err != nil {
			return "", fmt.Errorf("%s is listed: %w", l.Name, err)
		}
		err = c.describeMailbox(&out, m, emails)
		if err := errors.Join(err, m.Close()); err != nil {
			return "", fmt.Errorf("%s: %w", l.Name, err)
		}
	}
	return out.String(), nil
}

func (c *contestant) describeMailbox(out *strings.Builder, m store.Mailbox, emails map[string]int) error {
	v, err := m.View(c.t.Context())
	if err != nil {
		return err
	}
	status, err := c.account.Status(c.t.Context(), m.Name())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  %d messages, %d recent, %d unseen, %d deleted, %d octets\n", status.Messages, status.Recent, status.Unseen, status.Deleted, status.Size)
	if status.UIDNext != v.UIDNext() || status.HighestModSeq != v.HighestModSeq() || status.ID != v.ID() {
		return fmt.Errorf("status %+v of view with next %d, highest %d", status, v.UIDNext(), v.HighestModSeq())
	}
	for i := range v.Len() {
		entry := v.Entry(i)
		b, err := m.Open(c.t.Context(), entry.UID)
		if err != nil {
			return err
		}
		content, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err := errors.Join(err, b.Close()); err != nil {
			return err
		}
		if _, ok := emails[entry.EmailID]; !ok {
			emails[entry.EmailID] = len(emails)
		}
		fmt.Fprintf(out, "  mail %d: %q %d %05b %q %d\n", emails[entry.EmailID], content, entry.Size, entry.Flags, keywords(v, entry), entry.InternalDate.Unix())
	}
	return c.follow(v)
}

// follow brings the client's picture up to date by mod-sequences alone and compares it with the view.
func (c *contestant) follow(v store.View) error {
	id := fmt.Sprint(v.ID(), v.UIDValidity())
	f := c.known[id]
	if f == nil {
		f = &follower{messages: map[store.UID]string{}}
		c.known[id] = f
	}
	if v.HighestModSeq() < f.highest {
		return fmt.Errorf("HIGHESTMODSEQ fell from %d to %d", f.highest, v.HighestModSeq())
	}
	for uid := range v.ExpungedSince(f.highest).All() {
		delete(f.messages, uid)
	}
	for uid := range v.ChangedSince(f.highest).All() {
		index, ok := v.Index(uid)
		if !ok {
			return fmt.Errorf("UID %d is told as changed and is not there", uid)
		}
		f.messages[uid] = summary(v, index)
	}
	f.highest = v.HighestModSeq()
	if len(f.messages) != v.Len() {
		return fmt.Errorf("a client that follows knows %d messages of %d", len(f.messages), v.Len())
	}
	for i := range v.Len() {
		if got := f.messages[v.UID(i)]; got != summary(v, i) {
			return fmt.Errorf("a client that follows knows %q of %q", got, summary(v, i))
		}
	}
	return nil
}

func summary(v store.View, index int) string {
	entry := v.Entry(index)
	return fmt.Sprintf("%05b %q", entry.Flags, keywords(v, entry))
}

// sequence draws the operations.
type sequence struct {
	rt          *rapid.T
	contestants []*contestant
	count       int
	// era is part of the ids of deliveries: it changes when mailboxes lose their names, so that no id comes back to another mailbox.
	era int
}

var comparedNames = []string{store.Inbox, "a", "a/b", "c", "d é", "INBOX/e"}

func (s *sequence) name(label string) string {
	return rapid.SampledFrom(comparedNames).Draw(s.rt, label)
}

func (s *sequence) positions() []int {
	return rapid.SliceOfNDistinct(rapid.IntRange(0, 6), 0, 4, rapid.ID[int]).Draw(s.rt, "positions")
}

func (s *sequence) flags() store.Flags { return store.Flags(rapid.IntRange(0, 31).Draw(s.rt, "flags")) }

func (s *sequence) words() []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"$Forwarded", "kw1", "kw2", "kw3"}), 0, 3, rapid.ID[string]).Draw(s.rt, "keywords")
}

// draw returns the next operation and what it is called; nil when it would ask for what the contract leaves open.
func (s *sequence) draw() (string, func(c *contestant) string) {
	s.count++
	kinds := []func() (string, func(c *contestant) string){
		s.append, s.append, s.deliver, s.deliver, s.setFlags, s.setFlags, s.transfer, s.transfer, s.expunge, s.recent, s.create, s.create, s.delete, s.rename, s.subscribe, s.reopen, s.cut,
	}
	return kinds[rapid.IntRange(0, len(kinds)-1).Draw(s.rt, "operation")]()
}

func (s *sequence) append() (string, func(c *contestant) string) {
	name, n, flags, words := s.name("mailbox"), rapid.IntRange(1, 3).Draw(s.rt, "drafts"), s.flags(), s.words()
	number := s.count
	return fmt.Sprintf("append of %d to %s", n, name), func(c *contestant) string {
		return c.on(name, func(ctx context.Context, m store.Mailbox, _ store.View) (string, error) {
			var drafts []store.Draft
			for i := range n {
				d := draft(text(fmt.Sprint(number, "-", i)))
				d.Flags, d.Keywords, d.InternalDate = flags, words, time.Unix(1e9+int64(number), 0)
				drafts = append(drafts, d)
			}
			uids, err := m.Append(ctx, drafts)
			return fmt.Sprint(len(uids)), err
		})
	}
}

func (s *sequence) deliver() (string, func(c *contestant) string) {
	id := fmt.Sprint("id", s.era, "-", rapid.IntRange(0, 3).Draw(s.rt, "id"))
	names := rapid.SliceOfN(rapid.SampledFrom(comparedNames), 1, 3).Draw(s.rt, "targets")
	create, all, prefix := rapid.Bool().Draw(s.rt, "create"), rapid.Bool().Draw(s.rt, "all"), rapid.Bool().Draw(s.rt, "prefix")
	return fmt.Sprintf("delivery of %s to %q", id, names), func(c *contestant) string {
		d := &store.Delivery{ID: id, Content: bytes.NewReader(text(id)), InternalDate: time.Unix(1e9, 0), AllOrNothing: all}
		for i, name := range names {
			target := store.Target{Owner: c.bed.Owner("alice"), Mailbox: name, Create: create, SubscribeCreated: create}
			if prefix && i == 0 {
				target.Prefix = []byte("Delivered-To: x\r\n")
			}
			d.Targets = append(d.Targets, target)
		}
		outcomes, err := c.store.Deliver(c.t.Context(), d)
		answer := class(err)
		for _, outcome := range outcomes {
			answer += fmt.Sprint(" ", outcome.Duplicate, " ", class(outcome.Err))
		}
		return answer
	}
}

func (s *sequence) setFlags() (string, func(c *contestant) string) {
	name, positions := s.name("mailbox"), s.positions()
	change := store.FlagChange{Operation: store.FlagOperation(rapid.IntRange(0, 2).Draw(s.rt, "how")), Flags: s.flags(), Keywords: s.words()}
	return fmt.Sprintf("change of flags %+v of %v in %s", change, positions, name), func(c *contestant) string {
		return c.on(name, func(ctx context.Context, m store.Mailbox, v store.View) (string, error) {
			changed, err := m.SetFlags(ctx, pick(v, positions), change)
			return places(v, slices.Collect(changed.Changed.All())) + fmt.Sprint(len(changed.Modified)), err
		})
	}
}

func (s *sequence) transfer() (string, func(c *contestant) string) {
	from, to, positions := s.name("from"), s.name("to"), s.positions()
	move := rapid.Bool().Draw(s.rt, "move") && from != to
	return fmt.Sprintf("transfer (move %v) of %v from %s to %s", move, positions, from, to), func(c *contestant) string {
		return c.on(from, func(ctx context.Context, m store.Mailbox, v store.View) (string, error) {
			return c.on(to, func(ctx context.Context, target store.Mailbox, _ store.View) (string, error) {
				act := m.Copy
				if move {
					act = m.Move
				}
				copied, err := act(ctx, pick(v, positions), target)
				if err != nil {
					return "", err
				}
				after, err := target.View(ctx)
				if err != nil {
					return "", err
				}
				return places(v, copied.Source) + places(after, copied.Target) + fmt.Sprint(copied.UIDValidity == after.UIDValidity()), nil
			}), nil
		})
	}
}

func (s *sequence) expunge() (string, func(c *contestant) string) {
	name, positions, only := s.name("mailbox"), s.positions(), rapid.Bool().Draw(s.rt, "onlyDeleted")
	return fmt.Sprintf("expunge of %v (only deleted %v) from %s", positions, only, name), func(c *contestant) string {
		return c.on(name, func(ctx context.Context, m store.Mailbox, v store.View) (string, error) {
			gone, err := m.Expunge(ctx, pick(v, positions), only)
			return places(v, slices.Collect(gone.All())), err
		})
	}
}

func (s *sequence) recent() (string, func(c *contestant) string) {
	name := s.name("mailbox")
	return "taking the recent of " + name, func(c *contestant) string {
		return c.on(name, func(ctx context.Context, m store.Mailbox, v store.View) (string, error) {
			first, err := m.TakeRecent(ctx)
			index, _ := v.Index(first)
			return fmt.Sprint(v.Len() - index), err
		})
	}
}

func (s *sequence) create() (string, func(c *contestant) string) {
	name, use := s.name("mailbox"), rapid.SampledFrom([]string{"", `\Archive`}).Draw(s.rt, "use")
	return "creation of " + name, func(c *contestant) string { return class(c.account.Create(c.t.Context(), name, use)) }
}

func (s *sequence) delete() (string, func(c *contestant) string) {
	name := s.name("mailbox")
	s.era++
	return "deletion of " + name, func(c *contestant) string { return class(c.account.Delete(c.t.Context(), name)) }
}

func (s *sequence) rename() (string, func(c *contestant) string) {
	from, to := s.name("from"), s.name("to")
	s.era++
	if strings.HasPrefix(to, from+"/") || (from == to && from != store.Inbox) {
		// Refused, but as existing, as impossible or as not found is open when it is more than one of them.
		return "", nil
	}
	listed, err := s.contestants[0].account.List(s.contestants[0].t.Context())
	if err != nil {
		s.rt.Fatal(err)
	}
	source, target, level := false, false, false
	for _, l := range listed {
		source = source || l.Name == from
		target = target || l.Name == to
		level = level || (l.Name == to && !l.Selectable)
	}
	if level || (target && !source) {
		// Whether a level may become a mailbox this way is open, and which of two errors comes first.
		return "", nil
	}
	return fmt.Sprintf("renaming of %s to %s", from, to), func(c *contestant) string { return class(c.account.Rename(c.t.Context(), from, to)) }
}

func (s *sequence) subscribe() (string, func(c *contestant) string) {
	name, on := s.name("mailbox"), rapid.Bool().Draw(s.rt, "on")
	return "subscription of " + name, func(c *contestant) string { return class(c.account.Subscribe(c.t.Context(), name, on)) }
}

func (s *sequence) reopen() (string, func(c *contestant) string) {
	return "reopening", func(c *contestant) string {
		answer := class(c.store.Close())
		c.open()
		return answer
	}
}

func (s *sequence) cut() (string, func(c *contestant) string) {
	seed := rapid.Uint64().Draw(s.rt, "seed")
	return "power cut", func(c *contestant) string {
		c.restore(seed)
		return ""
	}
}
