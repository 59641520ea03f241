package pop3d

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"postilion/proto/pop3"
	"postilion/server/login"
	"postilion/store"
)

// mailCommands is the table of the transaction state.
func mailCommands(name string) commandFunc {
	switch name {
	case "RETR":
		return (*session).retr
	case "DELE":
		return (*session).dele
	case "TOP":
		return (*session).top
	case "UIDL":
		return (*session).uidl
	case "LIST":
		return (*session).list
	case "STAT":
		return (*session).stat
	case "NOOP":
		return func(s *session, _ context.Context, _ *pop3.Command) { s.ok("") }
	case "RSET":
		return (*session).rset
	case "LAST":
		return (*session).last
	case "CAPA":
		return (*session).capa
	case "QUIT":
		return (*session).quitCommand
	}
	return nil
}

// openMail takes the INBOX as it is now as the session's maildrop.
func (s *session) openMail(ctx context.Context) error {
	var err error
	if s.mail, err = s.opt.Mail.Open(ctx, s.User); err != nil {
		return err
	}
	if s.box, err = s.mail.Mailbox(ctx, store.Inbox); err != nil {
		return err
	}
	if !s.opt.NoFlagUpdates {
		if _, err = s.box.TakeRecent(ctx); err != nil {
			return err
		}
	}
	if s.view, err = s.box.View(ctx); err != nil {
		return err
	}
	if origins, ok := s.view.(store.Origins); ok && s.opt.UIDLFormat != defaultUIDLFormat {
		if err := origins.LoadOrigins(ctx); err != nil {
			return err
		}
		s.origins = origins
	}
	hidden := -1
	if s.opt.DeletedFlag != "" {
		hidden = slices.Index(s.view.Keywords(), s.opt.DeletedFlag)
	}
	var total int64
	var last, count uint32
	for i := range s.view.Len() {
		entry := s.view.Entry(i)
		if hidden >= 0 && slices.Contains(entry.Keywords, uint16(hidden)) {
			if s.shown == nil {
				s.shown = make([]int32, 0, s.view.Len())
				for j := range i {
					s.shown = append(s.shown, int32(j))
				}
			}
			continue
		}
		if s.shown != nil {
			s.shown = append(s.shown, int32(i))
		}
		count++
		total += entry.Size
		if entry.Flags&store.FlagSeen != 0 {
			last = count
		}
	}
	s.drop = pop3.NewMaildrop(count, total, func(n uint32) int64 { return s.entry(n).Size })
	s.drop.SetLast(last)
	return nil
}

// index is where message n is in the view.
func (s *session) index(n uint32) int {
	if s.shown != nil {
		return int(s.shown[n-1])
	}
	return int(n - 1)
}

func (s *session) uid(n uint32) store.UID { return s.view.UID(s.index(n)) }

func (s *session) entry(n uint32) store.Entry { return s.view.Entry(s.index(n)) }

// message reads a command's only argument, the number of a message that is there.
func (s *session) message(cmd *pop3.Command) (uint32, bool) {
	n, err := pop3.OnlyNumber(cmd.Args)
	if err == nil {
		err = s.drop.Check(n)
	}
	if err != nil {
		s.refuse(err)
		return 0, false
	}
	return n, true
}

func (s *session) stat(context.Context, *pop3.Command) {
	count, octets := s.drop.Stat()
	s.ok(fmt.Sprintf("%d %d", count, octets))
}

func (s *session) list(_ context.Context, cmd *pop3.Command) {
	if len(cmd.Args) > 0 {
		if n, ok := s.message(cmd); ok {
			s.ok(fmt.Sprintf("%d %d", n, s.drop.Size(n)))
		}
		return
	}
	count, _ := s.drop.Stat()
	s.ok(fmt.Sprintf("%d messages:", count))
	for n := uint32(1); n <= s.drop.Count() && !s.Ended; n++ {
		if s.drop.Deleted(n) {
			continue
		}
		s.number(int64(n))
		s.Out = append(s.Out, ' ')
		s.number(s.drop.Size(n))
		s.Out = append(s.Out, "\r\n"...)
		if len(s.Out) >= login.OutputSize {
			s.Flush()
			s.Room()
		}
	}
	s.Send(".\r\n")
}

func (s *session) dele(_ context.Context, cmd *pop3.Command) {
	if n, ok := s.message(cmd); ok {
		s.drop.Delete(n)
		s.ok("Marked to be deleted.")
	}
}

func (s *session) last(_ context.Context, cmd *pop3.Command) {
	if !s.opt.EnableLast {
		s.refuse(pop3.Unknown(cmd))
		return
	}
	s.ok(fmt.Sprint(s.drop.Last()))
}

// rset takes back marks; where LAST is served it takes \Seen from every message too (RFC 1460 section 5, RSET).
func (s *session) rset(ctx context.Context, _ *pop3.Command) {
	s.drop.Reset()
	if s.opt.EnableLast {
		var uids store.UIDSet
		for n := uint32(1); n <= s.drop.Count(); n++ {
			uids = uids.Add(s.uid(n))
		}
		if _, err := s.box.SetFlags(ctx, uids, store.FlagChange{Operation: store.RemoveFlags, Flags: store.FlagSeen}); err != nil {
			s.Log.Error("RSET: " + err.Error())
			s.fail("[SYS/TEMP] Internal error occurred. Refer to server log for more information.")
			return
		}
	}
	s.ok("")
}

func (s *session) retr(ctx context.Context, cmd *pop3.Command) {
	n, ok := s.message(cmd)
	if !ok {
		return
	}
	s.drop.Retrieved(n, !s.opt.NoFlagUpdates && s.entry(n).Flags&store.FlagSeen == 0)
	s.count.retrievals++
	s.count.retrBytes += s.fetch(ctx, n, &pop3.Stuffer{NoNULs: s.opt.OutlookNoNULs, EndHeader: s.opt.OENSEndOfHeader})
}

func (s *session) top(ctx context.Context, cmd *pop3.Command) {
	n, lines, err := pop3.TopArguments(cmd.Args)
	if err == nil {
		err = s.drop.Check(n)
	}
	if err != nil {
		s.refuse(err)
		return
	}
	s.count.tops++
	s.count.topBytes += s.fetch(ctx, n, &pop3.Stuffer{Top: true, Lines: lines, NoNULs: s.opt.OutlookNoNULs, EndHeader: s.opt.OENSEndOfHeader})
}

// fetch sends a message and returns the octets of the response without the dot that ends it, as Dovecot counts them.
func (s *session) fetch(ctx context.Context, n uint32, stuffer *pop3.Stuffer) int64 {
	body, err := s.box.Open(ctx, s.uid(n))
	switch {
	case errors.Is(err, store.ErrExpunged):
		s.refuse(pop3.SyntaxError(fmt.Sprintf("Message %d expunged.", n)))
		return 0
	case err != nil:
		s.Log.Error(fmt.Sprintf("message %d: %v", n, err))
		s.fail("[SYS/TEMP] Internal error occurred. Refer to server log for more information.")
		return 0
	}
	defer body.Close()
	s.Room()
	start := len(s.Out)
	if stuffer.Top {
		s.ok("")
	} else {
		s.bad = 0
		s.Send("+OK ")
		s.number(body.Size())
		s.Send(" octets\r\n")
	}
	sent := int64(0)
	portion := portions.Get().(*[32 << 10]byte)
	defer portions.Put(portion)
	for offset := int64(0); offset < body.Size() && !stuffer.Done() && !s.Ended; {
		got, err := body.ReadAt(portion[:min(int64(len(portion)), body.Size()-offset)], offset)
		if got == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			s.cut(n, err)
			return sent
		}
		offset += int64(got)
		s.Out = stuffer.Append(s.Out, portion[:got])
		if len(s.Out) >= login.OutputSize {
			sent += int64(len(s.Out) - start)
			s.Flush()
			s.Room()
			start = 0
		}
	}
	s.Out = stuffer.Finish(s.Out)
	sent += int64(len(s.Out) - start)
	s.Send(".\r\n")
	return sent
}

// cut ends the session amid a message that cannot be read: the response must not look whole.
func (s *session) cut(n uint32, err error) {
	s.Log.Error(fmt.Sprintf("message %d: %v", n, err))
	s.Flush()
	s.Ended, s.Broken, s.Reason = true, true, "Internal error"
}

// quitCommand enters the update state: what is marked is deleted before the reply is sent.
func (s *session) quitCommand(ctx context.Context, _ *pop3.Command) {
	s.quit, s.Ended, s.Reason = true, true, "Logged out"
	marked, _ := s.drop.Marked()
	if err := s.update(ctx); err != nil {
		s.fail("[SYS/TEMP] Internal error occurred. Refer to server log for more information.")
		s.Reason = "Storage error during logout."
		return
	}
	if marked > 0 {
		s.ok("Logging out, messages deleted.")
	} else {
		s.ok("Logging out.")
	}
}

// update writes flags and, after QUIT, deletions. What was written is not written again.
func (s *session) update(ctx context.Context) error {
	if s.drop == nil {
		return nil
	}
	drop := s.drop
	var seen, deleted store.UIDSet
	marked, _ := drop.Marked()
	if drop.Flagging() == 0 && (marked == 0 || !s.quit) {
		return nil
	}
	for n := uint32(1); n <= drop.Count(); n++ {
		if drop.ToFlag(n) {
			seen = seen.Add(s.uid(n))
		}
		if s.quit && drop.Deleted(n) {
			deleted = deleted.Add(s.uid(n))
		}
	}
	err := s.write(ctx, seen, deleted)
	if err != nil {
		s.Log.Error("update at the end of the session: " + err.Error())
	}
	drop.Flagged()
	return err
}

func (s *session) write(ctx context.Context, seen, deleted store.UIDSet) error {
	if len(seen) > 0 {
		if _, err := s.box.SetFlags(ctx, seen, store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen}); err != nil {
			return err
		}
	}
	if len(deleted) == 0 {
		return nil
	}
	var err error
	if s.opt.DeleteFlags {
		_, err = s.box.SetFlags(ctx, deleted, store.FlagChange{Operation: store.AddFlags, Keywords: []string{s.opt.DeletedFlag}})
	} else {
		_, err = s.box.Expunge(ctx, deleted, false)
	}
	if err != nil {
		return err
	}
	s.removed, _ = s.drop.Marked()
	return nil
}
