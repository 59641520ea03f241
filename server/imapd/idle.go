package imapd

import (
	"context"
	"time"

	"postilion/proto/imap"
)

const maxDoneLine = 1024

func idling() feature {
	return feature{commands: []command{{name: "IDLE", run: (*session).idle}}}
}

// idle is IDLE (RFC 2177). The goroutine waits for input as always; a change of the mailbox wakes it by moving the deadline of the read.
func (s *session) idle(ctx context.Context, cmd *imap.Command) {
	kept := imap.Command{Tag: cmd.Tag, Name: cmd.Name}
	s.Send("+ idling\r\n")
	s.idling.Store(true)
	defer s.idling.Store(false)
	s.changed.Store(true)
	end := time.Now().Add(s.opt.IdleTimeout)
	notify := time.Now().Add(s.opt.IdleNotify)
	for !s.Ended {
		line, more, tooLong := s.dec.Line(maxDoneLine)
		if tooLong {
			s.bye("Input buffer full, aborting")
			s.Reason = "Input buffer full"
			return
		}
		if !more {
			if len(line) == 4 && upperEqual(line, "DONE") {
				s.finish(ctx, &kept, "OK Idle completed.")
			} else if !s.tooManyBad() {
				s.tagged(&kept, "BAD Expected DONE.")
			}
			return
		}
		if s.changed.Load() && !s.sync(ctx, syncing{}) {
			return
		}
		now := time.Now()
		switch {
		case now.After(end):
			s.bye("Disconnected for inactivity.")
			s.Reason = "Inactivity"
			return
		case now.After(notify):
			s.untagged("OK Still here")
			notify = now.Add(s.opt.IdleNotify)
		}
		if end.Before(notify) {
			s.Fill(s.dec, end)
			continue
		}
		s.Fill(s.dec, notify)
	}
}

func upperEqual(text []byte, word string) bool {
	for i := range word {
		if text[i]&^0x20 != word[i] {
			return false
		}
	}
	return true
}
