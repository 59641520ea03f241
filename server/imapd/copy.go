package imapd

import (
	"context"
	"errors"

	"postilion/proto/imap"
	"postilion/store"
)

func copying() feature {
	return feature{commands: []command{
		{name: "COPY", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.copy(ctx, cmd, false, false) }},
		{name: "UID COPY", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.copy(ctx, cmd, true, false) }},
	}}
}

// moving is MOVE (RFC 6851).
func moving() feature {
	return feature{capability: []string{"BINARY", "MOVE"}, commands: []command{
		{name: "MOVE", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.copy(ctx, cmd, false, true) }},
		{name: "UID MOVE", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.copy(ctx, cmd, true, true) }},
	}}
}

func (s *session) copy(ctx context.Context, cmd *imap.Command, byUID, move bool) {
	if !s.stringArgs(cmd, 2) {
		return
	}
	b := s.box
	uids, err := s.resolve(cmd.Args[0].Text, byUID)
	var p place
	if err == nil {
		p, err = s.locate(&cmd.Args[1])
	}
	var target store.Mailbox
	if err == nil {
		target, err = p.ns.Account.Mailbox(ctx, p.name)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = failure{"TRYCREATE", "Mailbox doesn't exist: " + p.shown}
	}
	if err != nil {
		s.fail(ctx, cmd, err, p)
		return
	}
	defer target.Close()
	if move && b.readOnly {
		s.finish(ctx, cmd, "NO [CANNOT] Mailbox is read-only.")
		return
	}
	if s.vanished(ctx, uids) {
		s.finish(ctx, cmd, "NO [EXPUNGEISSUED] Some of the requested messages no longer exist.")
		return
	}
	copied, err := s.transfer(ctx, uids, target, move)
	switch {
	case err != nil:
		s.fail(ctx, cmd, err, p)
	case len(copied.Target) == 0:
		s.finish(ctx, cmd, "OK No messages found.")
	case move:
		s.count.expunged += len(copied.Source)
		s.untagged("OK [" + copyUID(copied) + "] Moved UIDs.")
		s.finish(ctx, cmd, "OK Move completed.")
	default:
		s.finish(ctx, cmd, "OK ["+copyUID(copied)+"] Copy completed.")
	}
}

// vanished tells whether messages that the client names are gone already.
func (s *session) vanished(ctx context.Context, uids store.UIDSet) bool {
	known, ghosts := s.box.present(uids)
	if ghosts > 0 {
		return true
	}
	now, err := s.box.box.View(ctx)
	if err != nil || now == s.box.view {
		return false
	}
	there := 0
	s.box.each(uids, func(seq int) bool {
		if _, ok := now.Index(s.box.uid(seq)); ok {
			there++
		}
		return true
	})
	return there < known
}

// transfer copies within an account in one step, and message by message into another account.
func (s *session) transfer(ctx context.Context, uids store.UIDSet, target store.Mailbox, move bool) (store.Copied, error) {
	known, _ := s.box.present(uids)
	if known == 0 {
		return store.Copied{}, nil
	}
	uids = s.onlyKnown(uids)
	act := s.box.box.Copy
	if move {
		act = s.box.box.Move
	}
	copied, err := act(ctx, uids, target)
	if !errors.Is(err, store.ErrOtherAccount) {
		return copied, err
	}
	if copied, err = s.copyAcross(ctx, uids, target); err == nil && move {
		_, err = s.box.box.Expunge(ctx, store.UIDSetOf(copied.Source...), false)
	}
	return copied, err
}

// onlyKnown leaves out messages that came since and that the client cannot mean.
func (s *session) onlyKnown(uids store.UIDSet) store.UIDSet {
	last := s.box.lastUID()
	var kept store.UIDSet
	for _, r := range uids {
		if r.First <= last {
			kept = kept.AddRange(r.First, min(r.Last, last))
		}
	}
	return kept
}

func (s *session) copyAcross(ctx context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	var copied store.Copied
	var drafts []store.Draft
	var bodies []store.Body
	defer func() {
		for _, body := range bodies {
			_ = body.Close()
		}
	}()
	var err error
	view := s.box.view
	s.box.each(uids, func(seq int) bool {
		entry, there := s.box.entry(seq)
		if !there {
			return true
		}
		var body store.Body
		if body, err = s.box.box.Open(ctx, entry.UID); err != nil {
			return false
		}
		bodies = append(bodies, body)
		draft := store.Draft{Content: body, Flags: entry.Flags, InternalDate: entry.InternalDate}
		if draft.Structure, err = s.box.box.Structure(ctx, entry.UID); err != nil {
			return false
		}
		for _, k := range entry.Keywords {
			draft.Keywords = append(draft.Keywords, view.Keywords()[k])
		}
		drafts = append(drafts, draft)
		copied.Source = append(copied.Source, entry.UID)
		return true
	})
	if err == nil {
		copied.Target, err = target.Append(ctx, drafts)
	}
	if err == nil {
		if now, viewErr := target.View(ctx); viewErr == nil {
			copied.UIDValidity = now.UIDValidity()
		}
	}
	return copied, err
}

func copyUID(c store.Copied) string {
	b := imap.AppendNumber([]byte("COPYUID "), uint64(c.UIDValidity))
	b = appendUIDs(append(b, ' '), c.Source)
	return string(appendUIDs(append(b, ' '), c.Target))
}
