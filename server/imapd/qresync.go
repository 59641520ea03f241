package imapd

import (
	"context"
	"strings"

	"postilion/proto/imap"
	"postilion/store"
)

// qresync is RFC 7162's second half: expunged messages are named by UID, and a client that comes back is told what it missed.
func qresync() feature {
	return feature{
		capability: []string{"QRESYNC"},
		enable: []enabler{{"QRESYNC", func(s *session, ctx context.Context) {
			s.enableCondstore(ctx)
			s.enabled.qresync = true
		}}},
		selectParams: []selectParam{{"QRESYNC", parseQResync}},
		fetchModifiers: []fetchModifier{{"VANISHED", false, func(m *fetchModifiers, _ *imap.Arg) error {
			m.vanished = true
			return nil
		}}},
	}
}

// resync is what a client knows of a mailbox that it selects again.
type resync struct {
	given    bool
	validity uint32
	since    store.ModSeq
	// known are the UIDs the client has; nil is all.
	known store.UIDSet
}

const errQResync = imap.SyntaxError("Invalid QRESYNC parameters")

// parseQResync reads (uidvalidity mod-sequence [known-uids] [(known-sequence-set known-uid-set)]).
func parseQResync(s *session, how *selectHow, arg *imap.Arg) error {
	if !s.enabled.qresync {
		return imap.SyntaxError("QRESYNC not enabled")
	}
	if arg == nil || arg.Kind != imap.List || len(arg.List) < 2 || len(arg.List) > 4 {
		return errQResync
	}
	validity, ok := arg.List[0].Number()
	since, ok2 := arg.List[1].Number()
	if !ok || !ok2 || validity == 0 || validity >= 1<<32 || since == 0 {
		return errQResync
	}
	how.resync = resync{given: true, validity: uint32(validity), since: store.ModSeq(since)}
	for i := 2; i < len(arg.List); i++ {
		a := &arg.List[i]
		if a.Kind == imap.List && i == len(arg.List)-1 {
			continue // The pairs of sequence numbers and UIDs only save octets; what is expunged is known exactly here.
		}
		set, ok := imap.ParseSeqSet(a.Text)
		if a.Kind != imap.Atom || !ok || i > 2 {
			return errQResync
		}
		for _, r := range set.Ranges {
			low, high := r.Resolve(1<<32 - 1)
			how.resync.known = how.resync.known.AddRange(store.UID(low), store.UID(high))
		}
	}
	return nil
}

// tellMissed tells what happened in the mailbox since the client knew it.
func (s *session) tellMissed(ctx context.Context, r resync) {
	view := s.box.view
	if !r.given || r.validity != view.UIDValidity() {
		return
	}
	known := r.known
	if known == nil {
		known = store.AllUIDs()
	}
	s.tellVanished(view, r.since, known)
	f := &fetch{s: s, ctx: ctx, view: view}
	items, writers, err := s.prepareFetch(ctx, []imap.FetchItem{{Name: "UID"}, {Name: "FLAGS"}, {Name: "MODSEQ"}}, true, true)
	if err != nil {
		return
	}
	s.box.each(view.ChangedSince(r.since), func(seq int) bool {
		if f.move(seq); known.Contains(f.entry.UID) {
			_ = f.message(items, writers, nil)
			s.Overflow()
		}
		return true
	})
}

// tellVanished sends VANISHED (EARLIER) for the messages among known that were expunged after since.
func (s *session) tellVanished(view store.View, since store.ModSeq, known store.UIDSet) {
	var gone store.UIDSet
	for _, r := range view.ExpungedSince(since) {
		for _, k := range known {
			low, high := max(r.First, k.First), min(r.Last, k.Last, view.UIDNext()-1)
			for i, _ := view.Index(low); low <= high; i++ {
				next := high + 1
				if i < view.Len() {
					next = min(view.UID(i), high+1)
				}
				if next > low {
					gone = gone.AddRange(low, next-1)
				}
				low = next + 1
			}
		}
	}
	if len(gone) > 0 {
		s.untagged("VANISHED (EARLIER) " + gone.String())
	}
}

// withHighest puts HIGHESTMODSEQ into the tagged response of a command that told VANISHED (RFC 7162 section 3.2.10).
func (s *session) withHighest(text string) string {
	if !s.vanishedTold || s.box == nil || !strings.HasPrefix(text, "OK ") || strings.HasPrefix(text, "OK [") {
		return text
	}
	b := imap.AppendNumber([]byte("OK [HIGHESTMODSEQ "), uint64(s.box.view.HighestModSeq()))
	return string(append(b, "] "+strings.TrimPrefix(text, "OK ")...))
}
