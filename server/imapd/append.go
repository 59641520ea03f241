package imapd

import (
	"context"
	"errors"
	"io"
	"time"

	"postilion/mail/message"
	"postilion/proto/imap"
	"postilion/store"
	"postilion/store/spool"
)

// maxDrafts bounds MULTIAPPEND (RFC 3502).
const maxDrafts = 1000

func appending() feature {
	return feature{commands: []command{{name: "APPEND", run: (*session).appendCommand}}}
}

// appendix is an APPEND under way.
type appendix struct {
	cmd    imap.Command
	target place
	box    store.Mailbox
	drafts []store.Draft
	held   []*spool.Content
	size   int64
	// utf8 is true when the last message stood in UTF8 (...), whose end comes with the next arguments (RFC 6855 section 4).
	utf8 bool
}

// appendCommand is APPEND. The decoder stops at the literal of each message; its octets go to the spool and through the message parser as they
// come.
func (s *session) appendCommand(ctx context.Context, cmd *imap.Command) {
	a := &appendix{cmd: imap.Command{Tag: cmd.Tag, Name: cmd.Name}}
	defer a.release()
	if len(cmd.Args) == 0 || !cmd.Args[0].IsString() {
		s.refuse(cmd, "Missing arguments")
		return
	}
	if cmd.Literal && len(cmd.Args) < 2 || !cmd.Literal && len(cmd.Args) == 1 {
		s.refuse(cmd, "Missing message size")
		s.skipLiteral()
		return
	}
	var err error
	if a.target, err = s.locate(&cmd.Args[0]); err == nil {
		a.box, err = a.target.ns.Account.Mailbox(ctx, a.target.name)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = failure{"TRYCREATE", "Mailbox doesn't exist: " + a.target.shown}
	}
	args, literal := cmd.Args[1:], cmd.Literal
	for err == nil {
		if len(args) == 0 && !literal && len(a.drafts) > 0 {
			s.appendDone(ctx, a)
			return
		}
		if err = s.appendOne(ctx, a, args, literal); err != nil {
			break
		}
		s.dec.Resume()
		if !s.resumed(a) {
			return
		}
		next := s.dec.Command()
		args, literal = next.Args, next.Literal
		if a.utf8 {
			if len(args) == 0 || args[0].Kind != imap.List || len(args[0].List) > 0 {
				err = imap.SyntaxError("Invalid arguments")
				break
			}
			args = args[1:]
		}
	}
	if s.Ended {
		return
	}
	s.fail(ctx, &a.cmd, err, a.target)
	s.skipLiteral()
}

// resumed waits for the arguments behind a message.
func (s *session) resumed(a *appendix) bool {
	for !s.Ended {
		switch s.dec.Next() {
		case imap.NeedInput:
			s.read()
		case imap.Continue:
			s.Send("+ OK\r\n")
		case imap.Ready:
			return true
		case imap.Bad:
			s.refuse(&a.cmd, s.dec.Failure())
			return false
		case imap.Fatal:
			s.bye(s.dec.Failure())
			s.Reason = s.dec.Failure()
		}
	}
	return false
}

// skipLiteral passes over a literal that is not wanted, if one comes.
func (s *session) skipLiteral() {
	cmd := s.dec.Command()
	if !cmd.Literal || s.Ended {
		return
	}
	if !s.dec.RefuseLiteral() {
		return
	}
	s.dec.AcceptLiteral()
	_ = s.readLiteral(io.Discard)
	s.dec.Abandon()
}

// readLiteral copies the literal's octets.
func (s *session) readLiteral(w io.Writer) error {
	for {
		part, done := s.dec.ReadLiteral()
		if _, err := w.Write(part); err != nil {
			return err
		}
		if done {
			return nil
		}
		if !s.read() && s.Ended {
			return io.ErrUnexpectedEOF
		}
	}
}

// appendOne reads [flags] [date] and one message.
func (s *session) appendOne(ctx context.Context, a *appendix, args []imap.Arg, literal bool) error {
	draft := store.Draft{InternalDate: time.Now()}
	var err error
	if len(args) > 0 && args[0].Kind == imap.List {
		if draft.Flags, draft.Keywords, err = parseFlags(args[0].List); err != nil {
			return err
		}
		args = args[1:]
	}
	if len(args) > 0 && (args[0].Kind == imap.Quoted || args[0].Kind == imap.Literal) {
		var ok bool
		if draft.InternalDate, ok = imap.ParseDateTime(args[0].Text); !ok {
			return imap.SyntaxError("Invalid internal date")
		}
		args = args[1:]
	}
	a.utf8 = len(args) == 2 && args[0].IsAtom("UTF8") && args[1].Kind == imap.List && len(args[1].List) == 1 && s.opt.UTF8Accept
	if a.utf8 {
		args = args[1].List
	}
	if !literal || len(args) != 1 || args[0].Kind != imap.Pending {
		return imap.SyntaxError("Invalid arguments")
	}
	size := args[0].Size
	if err := s.appendFits(ctx, a, size); err != nil {
		return err
	}
	if s.dec.AcceptLiteral() {
		s.Send("+ OK\r\n")
	}
	content := s.opt.Spool.Create()
	a.held = append(a.held, content)
	parser := message.NewParser(message.Limits{})
	lines := &networkLines{w: io.MultiWriter(content, parser)}
	err = s.readLiteral(lines)
	if err == nil {
		err = lines.flush()
	}
	if err != nil {
		if !s.Ended {
			s.Log.Error("APPEND: " + err.Error())
			_ = s.readLiteral(io.Discard)
			s.dec.Abandon()
		}
		return err
	}
	draft.Content, draft.Structure = content, parser.Finish()
	a.size += content.Size()
	a.drafts = append(a.drafts, draft)
	return nil
}

// appendFits refuses a message before it is sent when it cannot be kept.
func (s *session) appendFits(ctx context.Context, a *appendix, size uint64) error {
	switch {
	case size == 0:
		return failure{"", "Can't save a zero byte message."}
	case size > 1<<62 || s.opt.AppendLimit > 0 && int64(size) > s.opt.AppendLimit:
		return failure{"TOOBIG", "Message is too large."}
	case len(a.drafts) >= maxDrafts:
		return failure{"LIMIT", "Too many messages in one command."}
	}
	usage, err := a.target.ns.Account.QuotaUsage(ctx)
	if err != nil {
		return err
	}
	if usage.LimitBytes > 0 && usage.Bytes+a.size+int64(size) > usage.LimitBytes ||
		usage.LimitMessages > 0 && usage.Messages+int64(len(a.drafts))+1 > usage.LimitMessages {
		return store.ErrOverQuota
	}
	return nil
}

func (s *session) appendDone(ctx context.Context, a *appendix) {
	uids, err := a.box.Append(ctx, a.drafts)
	if err != nil {
		s.fail(ctx, &a.cmd, err, a.target)
		return
	}
	text := "OK Append completed."
	if view, err := a.box.View(ctx); err == nil && len(uids) > 0 {
		b := imap.AppendNumber([]byte("OK [APPENDUID "), uint64(view.UIDValidity()))
		b = append(appendUIDs(append(b, ' '), uids), "] Append completed."...)
		text = string(b)
	}
	s.finish(ctx, &a.cmd, text)
}

func (a *appendix) release() {
	for _, content := range a.held {
		content.Release()
	}
	if a.box != nil {
		_ = a.box.Close()
	}
}

// appendUIDs writes UIDs in their order, rising runs as ranges.
func appendUIDs(dst []byte, uids []store.UID) []byte {
	for i := 0; i < len(uids); {
		j := i
		for j+1 < len(uids) && uids[j+1] == uids[j]+1 {
			j++
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = imap.AppendNumber(dst, uint64(uids[i]))
		if j > i {
			dst = imap.AppendNumber(append(dst, ':'), uint64(uids[j]))
		}
		i = j + 1
	}
	return dst
}

// networkLines puts a CR before every LF that has none: what IMAP shows has lines that end in CRLF.
type networkLines struct {
	w   io.Writer
	cr  bool
	buf []byte
}

func (l *networkLines) Write(p []byte) (int, error) {
	for _, c := range p {
		if c == '\n' && !l.cr {
			l.buf = append(l.buf, '\r')
		}
		l.buf = append(l.buf, c)
		l.cr = c == '\r'
		if len(l.buf) >= 16<<10 {
			if err := l.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (l *networkLines) flush() error {
	_, err := l.w.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}
