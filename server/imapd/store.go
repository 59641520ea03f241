package imapd

import (
	"context"
	"strings"

	"postilion/proto/imap"
	"postilion/store"
)

func storing() feature {
	return feature{commands: []command{
		{name: "STORE", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.storeFlags(ctx, cmd, false) }},
		{name: "UID STORE", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.storeFlags(ctx, cmd, true) }},
		{name: "EXPUNGE", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) {
			s.expunge(ctx, cmd, store.AllUIDs())
		}},
		{name: "UID EXPUNGE", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) {
			if !s.stringArgs(cmd, 1) {
				return
			}
			uids, err := s.resolve(cmd.Args[0].Text, true)
			if err != nil {
				s.fail(ctx, cmd, err, place{})
				return
			}
			s.expunge(ctx, cmd, uids)
		}},
	}}
}

// parseStore reads the arguments of STORE behind the set (RFC 7162 section 3.1.3).
func parseStore(args []imap.Arg) (change store.FlagChange, silent bool, err error) {
	const invalid = imap.SyntaxError("Invalid arguments")
	if len(args) > 0 && args[0].Kind == imap.List {
		list := args[0].List
		if len(list) != 2 || !list[0].IsAtom("UNCHANGEDSINCE") {
			return change, false, imap.SyntaxError("Unknown STORE modifier")
		}
		n, ok := list[1].Number()
		if !ok {
			return change, false, imap.SyntaxError("Invalid modseq")
		}
		since := store.ModSeq(n)
		change.UnchangedSince = &since
		args = args[1:]
	}
	if len(args) == 0 || args[0].Kind != imap.Atom {
		return change, false, invalid
	}
	word := args[0].Upper()
	word, silent = strings.CutSuffix(word, ".SILENT")
	switch word {
	case "FLAGS":
		change.Operation = store.ReplaceFlags
	case "+FLAGS":
		change.Operation = store.AddFlags
	case "-FLAGS":
		change.Operation = store.RemoveFlags
	default:
		return change, false, invalid
	}
	flags := args[1:]
	if len(flags) > 0 && flags[0].Kind == imap.List {
		flags = flags[0].List
	}
	change.Flags, change.Keywords, err = parseFlags(flags)
	return change, silent, err
}

func (s *session) storeFlags(ctx context.Context, cmd *imap.Command, byUID bool) {
	if len(cmd.Args) < 2 || cmd.Args[0].Kind != imap.Atom {
		s.refuse(cmd, "Invalid arguments")
		return
	}
	uids, err := s.resolve(cmd.Args[0].Text, byUID)
	var change store.FlagChange
	var silent bool
	if err == nil {
		change, silent, err = parseStore(cmd.Args[1:])
	}
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	if change.UnchangedSince != nil {
		s.enableCondstore(ctx)
	}
	b := s.box
	how := syncing{keepExpunged: !byUID, uid: byUID}
	if b.readOnly {
		s.announceKeywords(change.Keywords)
		s.finishWith(ctx, cmd, "OK Store ignored with read-only mailbox.", how)
		return
	}
	_, ghosts := b.present(uids)
	result, err := b.box.SetFlags(ctx, uids, change)
	if err != nil {
		s.fail(ctx, cmd, err, place{shown: b.name})
		return
	}
	if change.Flags&store.FlagDeleted != 0 && change.Operation != store.RemoveFlags {
		s.count.deleted += int(result.Changed.Count())
	}
	if silent {
		how.silent = result.Changed
	}
	switch {
	case len(result.Modified) > 0:
		s.finishWith(ctx, cmd, "OK [MODIFIED "+s.nameMessages(result.Modified, byUID)+"] Conditional store failed.", how)
	case ghosts > 0 && !byUID:
		s.finishWith(ctx, cmd, "OK [EXPUNGEISSUED] Store completed.", how)
	default:
		s.finishWith(ctx, cmd, "OK Store completed.", how)
	}
}

// announceKeywords tells keywords that a client used although they were not stored, as Dovecot does.
func (s *session) announceKeywords(keywords []string) {
	known := s.box.view.Keywords()
	var all []string
	for _, k := range keywords {
		if !containsFold(known, k) {
			all = append(all, k)
		}
	}
	if all != nil {
		s.sendFlagLists(append(append([]string{}, known...), all...), s.box.readOnly)
	}
}

func containsFold(list []string, word string) bool {
	for _, w := range list {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}

// nameMessages writes a set of UIDs as UIDs or as message numbers.
func (s *session) nameMessages(uids store.UIDSet, byUID bool) string {
	if byUID {
		return uids.String()
	}
	var seqs store.UIDSet
	s.box.each(uids, func(seq int) bool {
		seqs = seqs.Add(store.UID(seq))
		return true
	})
	return seqs.String()
}

func (s *session) expunge(ctx context.Context, cmd *imap.Command, uids store.UIDSet) {
	b := s.box
	if b.readOnly {
		s.finish(ctx, cmd, "OK Expunge ignored with read-only mailbox.")
		return
	}
	gone, err := b.box.Expunge(ctx, uids, true)
	s.count.expunged += int(gone.Count())
	if err != nil {
		s.fail(ctx, cmd, err, place{shown: b.name})
		return
	}
	s.finish(ctx, cmd, "OK Expunge completed.")
}
