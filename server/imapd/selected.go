package imapd

import (
	"context"
	"errors"
	"slices"
	"sort"

	"postilion/proto/imap"
	"postilion/store"
)

// selected is the mailbox of the selected state as the client knows it: the messages of view, and among them, in order of UID, ghosts, which
// are gone from the store while the client has not been told.
type selected struct {
	ns       *Namespace
	name     string // as the client named it
	box      store.Mailbox
	view     store.View
	ghosts   []store.Entry
	readOnly bool
	// recent holds the UIDs that are recent in this session.
	recent store.UIDSet
	// told is the number of recent messages and of keywords that the client knows.
	toldRecent   int
	toldKeywords int
	cancel       func()
	contexts     []*searchContext
}

// length is the number of messages that the client counts.
func (b *selected) length() int { return b.view.Len() + len(b.ghosts) }

// ghostsBelow returns how many ghosts have a smaller UID.
func (b *selected) ghostsBelow(uid store.UID) int {
	if len(b.ghosts) == 0 {
		return 0
	}
	return sort.Search(len(b.ghosts), func(i int) bool { return b.ghosts[i].UID >= uid })
}

// seq returns the message number of the message at an index of the view.
func (b *selected) seq(index int) int {
	return index + b.ghostsBelow(b.view.UID(index)) + 1
}

// at returns the message with a number: its index in the view, or the ghost.
func (b *selected) at(seq int) (index int, ghost *store.Entry) {
	if len(b.ghosts) == 0 {
		return seq - 1, nil
	}
	// The number of ghosts below the message only grows with seq, so the index is searched for.
	index = sort.Search(b.view.Len(), func(i int) bool { return b.seq(i) >= seq })
	if index < b.view.Len() && b.seq(index) == seq {
		return index, nil
	}
	return index, &b.ghosts[seq-1-index]
}

// uid returns the UID of a message number.
func (b *selected) uid(seq int) store.UID {
	index, ghost := b.at(seq)
	if ghost != nil {
		return ghost.UID
	}
	return b.view.UID(index)
}

// entry returns what is kept of a message number.
func (b *selected) entry(seq int) (entry store.Entry, present bool) {
	index, ghost := b.at(seq)
	if ghost != nil {
		return *ghost, false
	}
	return b.view.Entry(index), true
}

// lastUID is what "*" means in a set of UIDs.
func (b *selected) lastUID() store.UID {
	if n := b.length(); n > 0 {
		return b.uid(n)
	}
	return 0
}

// find returns the number of the first message whose UID is not below uid.
func (b *selected) find(uid store.UID) int {
	index, _ := b.view.Index(uid)
	return index + b.ghostsBelow(uid) + 1
}

var errSet = imap.SyntaxError("Invalid messageset")

// resolve gives the UIDs of the messages that a set names. Message numbers that are not there are an error, UIDs are not.
func (s *session) resolve(text []byte, byUID bool) (store.UIDSet, error) {
	set, ok := imap.ParseSeqSet(text)
	if !ok {
		if byUID {
			return nil, imap.SyntaxError("Invalid UID messageset")
		}
		return nil, errSet
	}
	return s.resolveSet(set, byUID)
}

func (s *session) resolveSet(set imap.SeqSet, byUID bool) (store.UIDSet, error) {
	b := s.box
	if set.Saved {
		return s.saved, nil
	}
	var uids store.UIDSet
	for _, r := range set.Ranges {
		if byUID {
			low, high := r.Resolve(uint32(b.lastUID()))
			uids = b.addUIDs(uids, store.UID(low), store.UID(high))
			continue
		}
		low, high := r.Resolve(uint32(b.length()))
		if low == 0 || int64(high) > int64(b.length()) {
			return nil, errSet
		}
		uids = b.addUIDs(uids, b.uid(int(low)), b.uid(int(high)))
	}
	return uids, nil
}

// addUIDs adds the messages between two UIDs, both included, as one range where nothing else lies between.
func (b *selected) addUIDs(set store.UIDSet, low, high store.UID) store.UIDSet {
	if b.length() == 0 || high < low {
		return set
	}
	return set.AddRange(low, high)
}

// each calls fn with the number of every message of a set.
func (b *selected) each(set store.UIDSet, fn func(seq int) bool) {
	n := b.length()
	for _, r := range set {
		for seq := b.find(r.First); seq <= n && b.uid(seq) <= r.Last; seq++ {
			if !fn(seq) {
				return
			}
		}
	}
}

// present returns how many messages of the set the client knows, and how many of those are ghosts.
func (b *selected) present(set store.UIDSet) (known, ghosts int) {
	b.each(set, func(seq int) bool {
		known++
		if _, ghost := b.at(seq); ghost != nil {
			ghosts++
		}
		return true
	})
	return known, ghosts
}

func (b *selected) isRecent(uid store.UID) bool { return b.recent.Contains(uid) }

func (b *selected) countRecent() int {
	n := 0
	for _, r := range b.recent {
		first, _ := b.view.Index(r.First)
		last := b.view.Len()
		if r.Last != 1<<32-1 {
			last, _ = b.view.Index(r.Last + 1)
		}
		n += last - first
	}
	for i := range b.ghosts {
		if b.isRecent(b.ghosts[i].UID) {
			n++
		}
	}
	return n
}

// closeMailbox leaves the selected state.
func (s *session) closeMailbox() {
	if s.box == nil {
		return
	}
	s.box.cancel()
	_ = s.box.box.Close()
	s.box, s.saved = nil, nil
}

// syncing says what may be told when a command ends.
type syncing struct {
	// keepExpunged holds EXPUNGE back: the command spoke of message numbers (RFC 9051 section 7.5.1).
	keepExpunged bool
	// silent names messages whose flags the client knows already.
	silent store.UIDSet
	// known names messages whose flags and mod-sequence the client knows already.
	known store.UIDSet
	// gone names messages that the client was told to be gone in the course of the command.
	gone store.UIDSet
	// uid has FETCH responses name the UID.
	uid bool
}

// finish ends a command: what happened in the mailbox is told, then the tagged response.
func (s *session) finish(ctx context.Context, cmd *imap.Command, text string) {
	s.finishWith(ctx, cmd, text, syncing{})
}

func (s *session) finishWith(ctx context.Context, cmd *imap.Command, text string, how syncing) {
	s.vanishedTold = false
	if s.sync(ctx, how) {
		s.tagged(cmd, s.withHighest(text))
	}
}

// sync tells what changed in the selected mailbox. It returns false when the session had to end.
func (s *session) sync(ctx context.Context, how syncing) bool {
	s.changed.Store(false)
	b := s.box
	if b == nil {
		return true
	}
	now, err := b.box.View(ctx)
	if err == nil {
		now = s.withoutNew(now)
	}
	if err == nil && now.UIDNext() > b.view.UIDNext() && !b.readOnly {
		now, err = s.takeRecent(ctx)
	}
	if err != nil {
		s.lost(err)
		return false
	}
	if now == b.view && len(b.ghosts) == 0 {
		return true
	}
	if now.UIDValidity() != b.view.UIDValidity() {
		s.lost(store.ErrNotFound)
		return false
	}
	before := b.length()
	old := b.view
	s.tellKeywords(now)
	s.tellFlags(old, now, how)
	gone := goneSince(old, now)
	for _, entry := range gone {
		s.tellDeleted(old, entry, how)
	}
	if how.keepExpunged {
		b.ghosts = mergeGhosts(b.ghosts, gone)
	} else {
		before -= s.tellExpunged(old, gone)
	}
	if b.readOnly && now.UIDNext() > old.UIDNext() {
		if first := max(now.FirstRecent(), old.UIDNext()); first < now.UIDNext() {
			b.recent = b.recent.AddRange(first, now.UIDNext()-1)
		}
	}
	b.view = now
	if n := b.length(); n != before {
		s.tellNumber(n, "EXISTS")
	}
	if recent := b.countRecent(); recent != b.toldRecent && !s.enabled.rev2 {
		s.tellNumber(recent, "RECENT")
		b.toldRecent = recent
	}
	if b.contexts != nil && now != old {
		s.updateContexts(ctx)
	}
	return true
}

// takeRecent takes the new messages as recent and returns a view that holds them.
func (s *session) takeRecent(ctx context.Context) (store.View, error) {
	b := s.box
	first, err := b.box.TakeRecent(ctx)
	if err != nil {
		return nil, err
	}
	view, err := b.box.View(ctx)
	if err == nil && view.UIDNext() > first {
		b.recent = b.recent.AddRange(first, view.UIDNext()-1)
	}
	return view, err
}

// lost ends a session whose mailbox went away under it.
func (s *session) lost(err error) {
	if errors.Is(err, store.ErrNotFound) {
		s.Reason = "Mailbox deleted"
	} else {
		s.Log.Error("mailbox " + s.box.name + ": " + err.Error())
		s.Reason = "Internal error"
	}
	s.bye("IMAP session state is inconsistent, please relogin.")
}

func (s *session) tellNumber(n int, what string) {
	s.Room()
	s.Out = append(s.Out, "* "...)
	s.Out = imap.AppendNumber(s.Out, uint64(n))
	s.Out = append(append(append(s.Out, ' '), what...), "\r\n"...)
}

// tellKeywords announces keywords that the mailbox did not have before.
func (s *session) tellKeywords(now store.View) {
	b := s.box
	if len(now.Keywords()) == b.toldKeywords {
		return
	}
	b.toldKeywords = len(now.Keywords())
	s.sendFlagLists(now.Keywords(), b.readOnly)
}

// tellFlags sends FETCH for messages whose flags changed.
func (s *session) tellFlags(old, now store.View, how syncing) {
	if now.HighestModSeq() == old.HighestModSeq() {
		return
	}
	sameNames := slices.Equal(old.Keywords(), now.Keywords())
	for _, r := range now.ChangedSince(old.HighestModSeq()) {
		for i, _ := now.Index(r.First); i < now.Len() && now.UID(i) <= r.Last; i++ {
			uid := now.UID(i)
			j, known := old.Index(uid)
			if !known || how.known.Contains(uid) {
				continue
			}
			entry, was := now.Entry(i), old.Entry(j)
			same := entry.Flags == was.Flags && sameKeywords(old, now, was.Keywords, entry.Keywords, sameNames)
			silent := how.silent.Contains(uid)
			if (same || silent) && (!s.enabled.condstore || entry.ModSeq == was.ModSeq) {
				continue
			}
			s.Room()
			s.Out = append(s.Out, "* "...)
			s.Out = imap.AppendNumber(s.Out, uint64(j+s.box.ghostsBelow(uid)+1))
			s.Out = append(s.Out, " FETCH ("...)
			if how.uid || s.enabled.qresync {
				s.Out = append(s.Out, "UID "...)
				s.Out = append(imap.AppendNumber(s.Out, uint64(uid)), ' ')
			}
			if !same && !silent {
				s.Out = append(s.Out, "FLAGS "...)
				s.Out = append(s.appendFlags(s.Out, now, &entry), ' ')
			}
			if s.enabled.condstore {
				s.Out = append(s.Out, "MODSEQ ("...)
				s.Out = append(imap.AppendNumber(s.Out, uint64(entry.ModSeq)), ") "...)
			}
			s.Out = append(s.Out[:len(s.Out)-1], ")\r\n"...)
			s.Overflow()
		}
	}
}

func sameKeywords(old, now store.View, a, b []uint16, sameNames bool) bool {
	if sameNames {
		return slices.Equal(a, b)
	}
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if old.Keywords()[a[i]] != now.Keywords()[b[i]] {
			return false
		}
	}
	return true
}

// goneSince returns the entries of old that now does not have, rising.
func goneSince(old, now store.View) []store.Entry {
	if now.HighestModSeq() == old.HighestModSeq() && now.Len() >= old.Len() {
		return nil
	}
	var gone []store.Entry
	for _, r := range now.ExpungedSince(old.HighestModSeq()) {
		for i, _ := old.Index(r.First); i < old.Len() && old.UID(i) <= r.Last; i++ {
			if _, there := now.Index(old.UID(i)); !there {
				gone = append(gone, old.Entry(i))
			}
		}
	}
	return gone
}

// tellDeleted shows a message that another session expunged as \Deleted to a client that cannot be told of the expunge yet, so that it learns what
// the other session did first.
func (s *session) tellDeleted(old store.View, entry store.Entry, how syncing) {
	if !how.keepExpunged || entry.Flags&store.FlagDeleted != 0 || how.gone.Contains(entry.UID) {
		return
	}
	i, _ := old.Index(entry.UID)
	entry.Flags |= store.FlagDeleted
	s.Room()
	s.Out = append(s.Out, "* "...)
	s.Out = imap.AppendNumber(s.Out, uint64(i+s.box.ghostsBelow(entry.UID)+1))
	s.Out = append(s.Out, " FETCH (FLAGS "...)
	s.Out = s.appendFlags(s.Out, old, &entry)
	s.Out = append(s.Out, ")\r\n"...)
}

func mergeGhosts(ghosts, gone []store.Entry) []store.Entry {
	for i := range gone {
		gone[i].Flags |= store.FlagDeleted
	}
	if len(ghosts) == 0 {
		return gone
	}
	ghosts = append(ghosts, gone...)
	slices.SortFunc(ghosts, func(a, b store.Entry) int { return int(int64(a.UID) - int64(b.UID)) })
	return ghosts
}

// tellExpunged tells that the ghosts and the messages of gone are no more, from the end on as Dovecot does. It returns how many they were.
func (s *session) tellExpunged(old store.View, gone []store.Entry) int {
	b := s.box
	if len(gone) == 0 && len(b.ghosts) == 0 {
		return 0
	}
	if s.enabled.qresync {
		var uids store.UIDSet
		for _, entry := range append(gone, b.ghosts...) {
			uids = uids.Add(entry.UID)
		}
		s.untagged("VANISHED " + uids.String())
		s.vanishedTold = true
		n := len(gone) + len(b.ghosts)
		b.ghosts = nil
		return n
	}
	seqs := make([]int, 0, len(gone)+len(b.ghosts))
	for _, entry := range gone {
		i, _ := old.Index(entry.UID)
		seqs = append(seqs, i+b.ghostsBelow(entry.UID)+1)
	}
	for i, ghost := range b.ghosts {
		j, _ := old.Index(ghost.UID)
		seqs = append(seqs, j+i+1)
	}
	slices.Sort(seqs)
	for _, seq := range slices.Backward(seqs) {
		s.tellNumber(seq, "EXPUNGE")
		s.Overflow()
	}
	b.ghosts = nil
	return len(seqs)
}
