package pop3d

import (
	"context"

	"postilion/proto/pop3"
	"postilion/server/login"
	"postilion/store"
)

// Dovecot's login process gives up at the third bad command, its pop3 process after twenty in a row.
const (
	maxBadPrelogin = 3
	maxBad         = 20
)

// session is one connection.
type session struct {
	*login.Conn
	srv   *Server
	opt   *Options
	dec   pop3.Decoder
	holds chan struct{}

	// given is what USER gave, banner the timestamp for APOP.
	given, banner string
	bad           int

	mail    store.Account
	box     store.Mailbox
	view    store.View
	origins store.Origins
	// shown holds the index in view of each message when some are hidden; nil when message n has index n-1.
	shown   []int32
	drop    *pop3.Maildrop
	renamed map[uint32]string
	quit    bool
	// removed counts the messages that QUIT expunged or flagged.
	removed uint32
	count   counters
}

// counters are told when a session ends, as pop3_logout_format wants.
type counters struct {
	tops, retrievals    int
	topBytes, retrBytes int64
}

// Serve implements login.Session.
func (s *session) Serve(ctx context.Context) {
	s.greet()
	s.loop(ctx)
	s.Flush()
	_ = s.update(ctx)
}

func (s *session) loop(ctx context.Context) {
	for !s.Ended {
		limit := pop3.PreloginLine
		if s.User != nil {
			limit = pop3.Line
		}
		switch s.dec.Next(limit) {
		case pop3.NeedInput:
			s.read()
		case pop3.Ready:
			s.command(ctx, s.dec.Command())
			s.Overflow()
		case pop3.TooLong:
			if s.User == nil {
				s.stop("Input buffer full, aborting", "Input buffer full")
			} else {
				s.stop("Input line too long.", "Input line too long")
			}
		}
	}
}

func (s *session) command(ctx context.Context, cmd *pop3.Command) {
	table := preloginCommands
	if s.User != nil {
		table = mailCommands
	}
	run := table(cmd.Name)
	if run == nil {
		s.unknown(cmd)
		return
	}
	if s.User == nil {
		s.bad = 0
	}
	run(s, ctx, cmd)
}

// unknown refuses a command that does not exist.
func (s *session) unknown(cmd *pop3.Command) {
	if s.User != nil {
		s.refuse(pop3.Unknown(cmd))
		return
	}
	s.fail("Unknown command.")
	if s.bad++; s.bad >= maxBadPrelogin {
		s.stop("Too many invalid bad commands.", "Too many bad commands")
	}
}

// refuse answers a mistake of a client that is logged in.
func (s *session) refuse(err error) {
	s.fail(err.Error())
	if s.bad++; s.bad > maxBad {
		s.stop("Too many bad commands.", "Too many bad commands.")
	}
}

// read sends what there is to send and waits for input, giving back memory meanwhile.
func (s *session) read() {
	if _, timedOut := s.Fill(&s.dec, s.Deadline(s.opt.IdleTimeout)); timedOut && !s.Ended {
		s.stop("Disconnected for inactivity.", "Inactivity")
	}
}

// Dismiss implements login.Session.
func (s *session) Dismiss(text, reason string) { s.stop("[SYS/TEMP] "+text, reason) }

// Close implements login.Session: it ends what the session holds and logs its end.
func (s *session) Close() {
	if !s.Ended {
		s.stop("[SYS/TEMP] Internal error occurred. Refer to server log for more information.", s.Reason)
	}
	s.Flush()
	if s.box != nil {
		_ = s.box.Close()
	}
	if s.mail != nil {
		_ = s.mail.Close()
	}
	s.srv.unlock(s)
	if s.User != nil {
		s.logEnd()
	}
	s.dec.Idle()
}
