package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"postilion/store"
)

// Power is the switch of the disk that a bed lies on.
type Power interface {
	// CutAfter has the power go before the n-th change of the disk from now on; 1 is the next.
	CutAfter(n int)
	// Off tells whether the power is off.
	Off() bool
	// Restore has the power go if it is still on, and puts in the disk's place what survived, as seed says. Bed.Open then opens that.
	Restore(seed uint64)
}

// Survive has the power go in the middle of random operations and holds the store to what it acknowledged: it is all there afterwards, under its UID, with
// its flags; UIDs are never given again, mod-sequences never fall, a delivery that is offered again is there once. What was not acknowledged
// has happened or not, for each message by itself. Beds need a Power.
func Survive(t *testing.T, bed func(t *testing.T) *Bed) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newContestant(t, "store", bed(t))
		defer func() { _ = c.store.Close() }()
		s := &survivor{rt: rt, c: c, sequence: &sequence{rt: rt, contestants: []*contestant{c}}, contents: map[string]string{}, next: map[string]store.UID{}}
		s.state = s.look("the start")
		for range rapid.IntRange(3, 25).Draw(rt, "length") {
			s.step()
		}
	})
}

type survivor struct {
	rt       *rapid.T
	c        *contestant
	sequence *sequence
	state    snapshot
	// contents is what was seen under a mailbox's identifier and a UID, next the highest UIDNEXT that was seen.
	contents map[string]string
	next     map[string]store.UID
	// copied tells that messages were copied, so that one may be in a mailbox twice; the same holds for mailboxes that lost their names.
	copied bool
}

// snapshot is all that is there: mailboxes by identifier.
type snapshot struct {
	boxes      map[string]*boxShot
	subscribed []string
}

type boxShot struct {
	name     string
	messages map[store.UID]messageShot
}

type messageShot struct{ content, flags string }

// step does one operation, with a power cut in it or after it, or none.
func (s *survivor) step() {
	what, do := s.sequence.draw()
	if do == nil {
		return
	}
	s.copied = s.copied || strings.HasPrefix(what, "transfer") || strings.HasPrefix(what, "renaming") || strings.HasPrefix(what, "expunge")
	cut := rapid.IntRange(0, 2).Draw(s.rt, "cut")
	if cut == 1 {
		s.c.bed.Power.CutAfter(rapid.IntRange(1, 40).Draw(s.rt, "operations"))
	}
	answer := do(s.c)
	if !s.c.bed.Power.Off() {
		if strings.HasPrefix(answer, "unexpected") {
			s.rt.Fatalf("%s: %s", what, answer)
		}
		done := s.look(what)
		if !s.c.bed.Power.Off() {
			if s.state = done; cut > 0 {
				s.restore()
				s.same(what+", answered, then the power went", done, s.look(what))
				s.offerAgain(what, do)
			}
			return
		}
	}
	s.restore()
	found := s.look(what + ", cut short")
	s.check(what, s.state, found)
	s.state = found
	s.offerAgain(what, do)
}

func (s *survivor) restore() { s.c.restore(rapid.Uint64().Draw(s.rt, "seed")) }

// offerAgain repeats a delivery: whatever became of the first, it is in each mailbox once.
func (s *survivor) offerAgain(what string, do func(*contestant) string) {
	if !strings.HasPrefix(what, "delivery") {
		return
	}
	do(s.c)
	once := s.look(what + " offered again")
	do(s.c)
	s.state = s.look(what + " offered again twice")
	s.same(what+", offered again twice", once, s.state)
	s.once(what)
}

// once wants no mailbox to have two messages of one delivery.
func (s *survivor) once(what string) {
	if s.copied {
		return
	}
	for _, box := range s.state.boxes {
		seen := map[string]bool{}
		for _, m := range box.messages {
			_, content, _ := strings.Cut(m.content, "From: ")
			if strings.Contains(content, "Subject: id") && seen[content] {
				s.rt.Fatalf("%s: twice in %s: %q", what, box.name, content)
			}
			seen[content] = true
		}
	}
}

// look takes a snapshot and checks what is true of all.
func (s *survivor) look(when string) snapshot {
	if _, err := s.c.describe(); err != nil && !s.c.bed.Power.Off() {
		s.rt.Fatalf("%s: %v", when, err)
	}
	shot, err := s.c.snapshot()
	if s.c.bed.Power.Off() {
		return shot
	}
	if err != nil {
		s.rt.Fatalf("%s: %v", when, err)
	}
	for id, box := range shot.boxes {
		for uid, m := range box.messages {
			key := fmt.Sprint(id, " ", uid)
			if known, ok := s.contents[key]; ok && known != m.content {
				s.rt.Fatalf("%s: UID %d of %s was %q and is %q", when, uid, box.name, known, m.content)
			}
			s.contents[key] = m.content
		}
	}
	for id, next := range s.c.nexts {
		if next < s.next[id] {
			s.rt.Fatalf("%s: UIDNEXT of %s fell from %d to %d", when, id, s.next[id], next)
		}
		s.next[id] = next
	}
	return shot
}

func (c *contestant) snapshot() (snapshot, error) {
	shot := snapshot{boxes: map[string]*boxShot{}}
	c.nexts = map[string]store.UID{}
	ctx := context.Background()
	listed, err := c.account.List(ctx)
	if err != nil {
		return shot, err
	}
	if shot.subscribed, err = c.account.Subscriptions(ctx); err != nil {
		return shot, err
	}
	slices.Sort(shot.subscribed)
	for _, l := range listed {
		if !l.Selectable {
			continue
		}
		m, err := c.account.Mailbox(ctx, l.Name)
		if err != nil {
			return shot, err
		}
		err = c.shootMailbox(&shot, m)
		if err := errors.Join(err, m.Close()); err != nil {
			return shot, err
		}
	}
	return shot, nil
}

func (c *contestant) shootMailbox(shot *snapshot, m store.Mailbox) error {
	v, err := m.View(context.Background())
	if err != nil {
		return err
	}
	box := &boxShot{name: m.Name(), messages: map[store.UID]messageShot{}}
	id := fmt.Sprint(v.ID(), " ", v.UIDValidity())
	shot.boxes[id] = box
	c.nexts[id] = v.UIDNext()
	for i := range v.Len() {
		entry := v.Entry(i)
		b, err := m.Open(context.Background(), entry.UID)
		if err != nil {
			return err
		}
		content, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err := errors.Join(err, b.Close()); err != nil {
			return err
		}
		box.messages[entry.UID] = messageShot{fmt.Sprintf("%d %s", entry.InternalDate.Unix(), content), summary(v, i)}
	}
	return nil
}

// same wants two snapshots to be equal.
func (s *survivor) same(when string, want, got snapshot) {
	if !slices.Equal(want.subscribed, got.subscribed) {
		s.rt.Fatalf("%s: subscribed were %q and are %q", when, want.subscribed, got.subscribed)
	}
	if a, b := want.String(), got.String(); a != b {
		s.rt.Fatalf("%s: there was\n%sand is\n%s", when, a, b)
	}
}

func (shot snapshot) String() string {
	var out strings.Builder
	for _, id := range slices.Sorted(maps.Keys(shot.boxes)) {
		box := shot.boxes[id]
		fmt.Fprintf(&out, "%s (%s)\n", box.name, id)
		for _, uid := range slices.Sorted(maps.Keys(box.messages)) {
			fmt.Fprintf(&out, "  %d %q\n", uid, box.messages[uid])
		}
	}
	return out.String()
}

// check compares what was there before an operation that was cut short with what is found.
func (s *survivor) check(what string, before, found snapshot) {
	is := func(kinds ...string) bool {
		return slices.ContainsFunc(kinds, func(kind string) bool { return strings.HasPrefix(what, kind) })
	}
	fail := func(format string, arguments ...any) {
		s.rt.Helper()
		s.rt.Fatalf("%s, cut short: %s\nbefore\n%sfound\n%s", what, fmt.Sprintf(format, arguments...), before, found)
	}
	held := map[string]int{}
	for id, old := range before.boxes {
		now := found.boxes[id]
		switch {
		case now == nil && !is("deletion"):
			fail("%s is gone", old.name)
		case now == nil:
			continue
		case now.name != old.name && !is("renaming"):
			fail("%s is called %s", old.name, now.name)
		}
		for uid, m := range old.messages {
			still, there := now.messages[uid]
			switch {
			case !there && !is("expunge", "transfer (move true)", "renaming of INBOX"):
				fail("UID %d of %s is gone", uid, old.name)
			case there && still.flags != m.flags && !is("change of flags"):
				fail("UID %d of %s has the flags %s", uid, old.name, still.flags)
			}
			held[m.content]++
		}
	}
	for id, now := range found.boxes {
		old := before.boxes[id]
		if old == nil && !is("creation", "delivery", "renaming of INBOX") {
			fail("%s came", now.name)
		}
		for uid, m := range now.messages {
			if held[m.content]--; old != nil && old.messages[uid].content != m.content && !is("append", "delivery", "transfer", "renaming of INBOX") {
				fail("UID %d of %s came", uid, now.name)
			}
		}
	}
	for content, n := range held {
		if n > 0 && !is("expunge", "deletion") {
			fail("%q is lost", content)
		}
		if n < 0 && is("transfer (move true)") {
			fail("%q is there more than once", content)
		}
	}
	if !slices.Equal(before.subscribed, found.subscribed) && !is("subscription", "delivery") {
		fail("subscribed %q", found.subscribed)
	}
}
