package imapd

import (
	"context"
	"errors"
	"fmt"

	"postilion/proto/imap"
	"postilion/store"
)

func selecting() feature {
	return feature{commands: []command{
		{name: "SELECT", run: func(s *session, ctx context.Context, cmd *imap.Command) { s.selectMailbox(ctx, cmd, false) }},
		{name: "EXAMINE", run: func(s *session, ctx context.Context, cmd *imap.Command) { s.selectMailbox(ctx, cmd, true) }},
		{name: "CLOSE", selected: true, run: (*session).closeCommand},
		{name: "UNSELECT", selected: true, run: func(s *session, _ context.Context, cmd *imap.Command) {
			s.closeMailbox()
			s.tagged(cmd, "OK Unselect completed.")
		}},
	}}
}

func (s *session) selectMailbox(ctx context.Context, cmd *imap.Command, readOnly bool) {
	if s.box != nil {
		s.closeMailbox()
		s.untagged("OK [CLOSED] Previous mailbox closed.")
	}
	if len(cmd.Args) == 0 || !cmd.Args[0].IsString() {
		s.refuse(cmd, "Invalid arguments")
		return
	}
	how := selectHow{readOnly: readOnly}
	err := s.parseSelect(cmd.Args[1:], &how)
	var p place
	if err == nil {
		p, err = s.locate(&cmd.Args[0])
	}
	if err == nil {
		err = s.open(ctx, p, how)
	}
	if err != nil {
		s.fail(ctx, cmd, err, p)
		return
	}
	if readOnly {
		s.tagged(cmd, "OK [READ-ONLY] Examine completed.")
	} else {
		s.tagged(cmd, "OK [READ-WRITE] Select completed.")
	}
}

// selectHow is what the parameters of SELECT say.
type selectHow struct {
	readOnly bool
	resync   resync
}

// selectParam is one parameter of SELECT. parse is given the list behind the name, or nil.
type selectParam struct {
	name  string
	parse func(s *session, how *selectHow, arg *imap.Arg) error
}

func (s *session) parseSelect(args []imap.Arg, how *selectHow) error {
	if len(args) == 0 || args[0].Kind != imap.List {
		return nil
	}
	list := args[0].List
	for i := 0; i < len(list); i++ {
		p := s.srv.features.selectParams[list[i].Upper()]
		if p == nil {
			return imap.SyntaxError("Unknown FETCH modifier")
		}
		var arg *imap.Arg
		if i+1 < len(list) && list[i+1].Kind == imap.List {
			i++
			arg = &list[i]
		}
		if err := p.parse(s, how, arg); err != nil {
			return err
		}
	}
	return nil
}

// open makes the mailbox the selected one and tells what it holds.
func (s *session) open(ctx context.Context, p place, how selectHow) error {
	readOnly := how.readOnly
	box, err := p.ns.Account.Mailbox(ctx, p.name)
	if err != nil {
		return err
	}
	b := &selected{ns: p.ns, name: p.shown, box: box, readOnly: readOnly}
	s.box = b
	if readOnly {
		b.view, err = box.View(ctx)
		if err == nil && b.view.FirstRecent() < b.view.UIDNext() {
			b.recent = store.UIDSetRange(b.view.FirstRecent(), b.view.UIDNext()-1)
		}
	} else {
		b.view, err = s.takeRecent(ctx)
	}
	b.cancel = box.Subscribe(s.mailboxChanged)
	if err != nil {
		s.closeMailbox()
		return err
	}
	view := b.view
	b.toldKeywords = len(view.Keywords())
	b.toldRecent = b.countRecent()
	s.sendFlagLists(view.Keywords(), readOnly)
	s.tellNumber(view.Len(), "EXISTS")
	if !s.enabled.rev2 {
		s.tellNumber(b.toldRecent, "RECENT")
		if unseen := firstUnseen(view); unseen > 0 {
			s.untagged(fmt.Sprintf("OK [UNSEEN %d] First unseen.", unseen))
		}
	}
	s.untagged(fmt.Sprintf("OK [UIDVALIDITY %d] UIDs valid", view.UIDValidity()))
	s.untagged(fmt.Sprintf("OK [UIDNEXT %d] Predicted next UID", view.UIDNext()))
	if s.srv.tracks(s.trackKey(), s.enabled.condstore) {
		s.tellHighest()
	}
	if s.enabled.rev2 {
		s.Out = append(s.Out, `* LIST () "`...)
		s.Out = append(append(s.Out, p.ns.Separator), `" `...)
		s.Out = append(s.appendName(s.Out, p.shown), "\r\n"...)
	}
	if s.opt.MailboxID && view.ID() != "" {
		s.untagged("OK [MAILBOXID (" + view.ID() + ")] Ok")
	}
	s.tellMissed(ctx, how.resync)
	return nil
}

func firstUnseen(view store.View) int {
	for i := range view.Len() {
		if view.Entry(i).Flags&store.FlagSeen == 0 {
			return i + 1
		}
	}
	return 0
}

// mailboxChanged is called by the store. It wakes the session when it idles.
func (s *session) mailboxChanged() {
	if s.idling.Load() && !s.changed.Swap(true) {
		s.Wake()
	}
}

func (s *session) tellHighest() {
	s.untagged(fmt.Sprintf("OK [HIGHESTMODSEQ %d] Highest", max(s.box.view.HighestModSeq(), 1)))
}

// enableCondstore is what the CONDSTORE-enabling commands of RFC 7162 section 3.1 do.
func (s *session) enableCondstore(ctx context.Context) {
	if s.enabled.condstore {
		return
	}
	s.enabled.condstore = true
	if s.box != nil {
		s.srv.tracks(s.trackKey(), true)
		s.tellHighest()
	}
}

// trackKey names the selected mailbox among those of all users.
func (s *session) trackKey() string { return s.User.Name + "\x00" + s.box.name }

// maxTracked bounds the memory of which mailboxes mod-sequences were asked for.
const maxTracked = 100_000

// tracks tells whether a client has asked for mod-sequences of a mailbox since the server started; now says that one does. Dovecot announces
// HIGHESTMODSEQ of those mailboxes only, and some clients take the announcement for a sign that CONDSTORE is on.
func (srv *Server) tracks(key string, now bool) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	_, tracked := srv.tracked[key]
	if now && !tracked && len(srv.tracked) < maxTracked {
		srv.tracked[key] = struct{}{}
	}
	return tracked || now
}

// closeCommand is CLOSE, which expunges without a word unless the mailbox is read-only.
func (s *session) closeCommand(ctx context.Context, cmd *imap.Command) {
	b := s.box
	if !b.readOnly {
		gone, err := b.box.Expunge(ctx, store.AllUIDs(), true)
		s.count.expunged += int(gone.Count())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			s.Log.Error("CLOSE " + b.name + ": " + err.Error())
		}
	}
	s.closeMailbox()
	s.tagged(cmd, "OK Close completed.")
}
