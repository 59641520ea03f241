package imapd

import (
	"context"
	"sync/atomic"
	"time"

	"postilion/proto/imap"
	"postilion/server/login"
	"postilion/store"
)

// Dovecot's login process gives up at the third bad command, its imap process after twenty.
const (
	maxBadPrelogin = 3
	maxBad         = 20
)

// session is one connection.
type session struct {
	*login.Conn
	srv *Server
	opt *Options
	dec *imap.Decoder

	// changed is set by other goroutines, which then wake the reader while it idles.
	changed atomic.Bool
	idling  atomic.Bool

	bad         int
	namespaces  []Namespace
	box         *selected
	saved       store.UIDSet
	enabled     enabled
	lastCommand string
	lastTime    time.Time
	count       counters
	// asked is true when the client asked for CAPABILITY before login, and so is told the new ones in the same form.
	asked bool
	// vanishedTold is true when the present command told VANISHED.
	vanishedTold bool
	// tellsNew is true in commands that tell of new mail under delay-newmail.
	tellsNew bool
}

// enabled is what ENABLE and the CONDSTORE-enabling commands turned on.
type enabled struct {
	condstore, qresync, rev2, utf8 bool
}

// counters are told when a session ends, as imap_logout_format's default does.
type counters struct {
	deleted, expunged, trashed int
	headers, bodies            int
	headerBytes, bodyBytes     int64
}

func newSession(srv *Server, c *login.Conn) *session {
	s := &session{Conn: c, srv: srv, opt: &srv.opt}
	c.Interrupted = func() bool { return s.idling.Load() && s.changed.Load() }
	s.dec = imap.NewDecoder(srv.prelogin, imap.Limits{Line: imap.PreloginLine, LineFatal: true, LiteralMinus: s.opt.LiteralMinus})
	return s
}

// Serve implements login.Session.
func (s *session) Serve(ctx context.Context) {
	s.greet()
	s.loop(ctx)
}

func (s *session) loop(ctx context.Context) {
	for !s.Ended {
		switch s.dec.Next() {
		case imap.NeedInput:
			s.read()
		case imap.Continue:
			s.Send("+ OK\r\n")
			s.Flush()
		case imap.Ready:
			s.command(ctx, s.dec.Command())
		case imap.Bad:
			s.badInput()
		case imap.Fatal:
			s.bye(s.dec.Failure())
			s.Reason = s.dec.Failure()
		}
	}
	s.Flush()
}

// read sends what there is to send and waits for input, giving back memory meanwhile. It returns false when the session is over or, while
// idling, when something else happened.
func (s *session) read() bool {
	ok, timedOut := s.Fill(s.dec, s.Deadline(s.opt.IdleTimeout))
	if timedOut && !s.Ended {
		s.Dismiss("Disconnected for inactivity.", "Inactivity")
	}
	return ok
}

// Dismiss implements login.Session.
func (s *session) Dismiss(text, reason string) {
	s.bye(text)
	s.Reason = reason
}

// tagged sends the response that ends a command; text begins with OK, NO or BAD.
func (s *session) tagged(cmd *imap.Command, text string) {
	s.Room()
	tag := cmd.Tag
	if tag == "" {
		tag = "*"
	}
	s.Out = append(append(s.Out, tag...), ' ')
	s.Out = imap.AppendText(s.Out, text)
	s.Out = append(s.Out, "\r\n"...)
	if len(text) > 2 && text[:2] == "OK" {
		s.bad = 0
	}
}

// untagged sends "* " and the text.
func (s *session) untagged(text string) {
	s.Room()
	s.Out = append(s.Out, "* "...)
	s.Out = imap.AppendText(s.Out, text)
	s.Out = append(s.Out, "\r\n"...)
}

func (s *session) bye(text string) {
	s.untagged("BYE " + text)
	s.Ended = true
}

// refuse sends the BAD response to a mistake in a command's arguments.
func (s *session) refuse(cmd *imap.Command, text string) {
	if s.tooManyBad() {
		return
	}
	switch {
	case s.User == nil:
		s.tagged(cmd, "BAD Error in IMAP command received by server.")
	case cmd.Tag == "":
		s.tagged(cmd, "BAD Error in IMAP tag: "+text)
	case cmd.Name == "":
		s.tagged(cmd, "BAD Error in IMAP command: "+text)
	default:
		s.tagged(cmd, "BAD Error in IMAP command "+cmd.Name+": "+text)
	}
}

func (s *session) tooManyBad() bool {
	s.bad++
	if s.User == nil && s.bad >= maxBadPrelogin || s.bad > maxBad {
		s.bye("Too many invalid IMAP commands.")
		s.Reason = "Too many invalid commands"
		return true
	}
	return false
}

func (s *session) badInput() {
	cmd := s.dec.Command()
	s.refuse(cmd, s.dec.Failure())
	s.lastCommand, s.lastTime = cmd.Name, time.Now()
}

// Close implements login.Session: it ends what the session holds and logs its end.
func (s *session) Close() {
	if !s.Ended {
		s.bye("Internal error occurred. Refer to server log for more information.")
	}
	s.Flush()
	s.closeMailbox()
	for _, ns := range s.namespaces {
		_ = ns.Account.Close()
	}
	if s.User != nil {
		s.logEnd()
	}
	s.dec.Idle()
}
