package imapd

import (
	"context"

	"postilion/proto/imap"
	"postilion/store"
)

// statusItem writes one STATUS item after its name.
type statusItem struct {
	name  string
	value func(s *session, dst []byte, status *store.Status) []byte
}

func statusNumber(name string, get func(*store.Status) uint64) statusItem {
	return statusItem{name, func(_ *session, dst []byte, status *store.Status) []byte {
		return imap.AppendNumber(dst, get(status))
	}}
}

func statuses() feature {
	return feature{
		commands: []command{{name: "STATUS", run: (*session).status}},
		status: []statusItem{
			statusNumber("MESSAGES", func(st *store.Status) uint64 { return uint64(st.Messages) }),
			statusNumber("RECENT", func(st *store.Status) uint64 { return uint64(st.Recent) }),
			statusNumber("UIDNEXT", func(st *store.Status) uint64 { return uint64(st.UIDNext) }),
			statusNumber("UIDVALIDITY", func(st *store.Status) uint64 { return uint64(st.UIDValidity) }),
			statusNumber("UNSEEN", func(st *store.Status) uint64 { return uint64(st.Unseen) }),
			statusNumber("DELETED", func(st *store.Status) uint64 { return uint64(st.Deleted) }),
			statusNumber("SIZE", func(st *store.Status) uint64 { return uint64(st.Size) }),
			{"APPENDLIMIT", func(s *session, dst []byte, _ *store.Status) []byte {
				if s.opt.AppendLimit <= 0 {
					return append(dst, "NIL"...)
				}
				return imap.AppendNumber(dst, uint64(s.opt.AppendLimit))
			}},
		},
	}
}

// parseStatus reads a list of STATUS items.
func (s *session) parseStatus(list []imap.Arg) ([]*statusItem, error) {
	var items []*statusItem
	for i := range list {
		if list[i].Kind != imap.Atom {
			return nil, imap.SyntaxError("Status list contains non-atoms.")
		}
		item := s.srv.features.status[list[i].Upper()]
		if item == nil {
			return nil, imap.SyntaxError("Invalid status item " + list[i].Upper())
		}
		items = append(items, item)
	}
	if len(items) == 0 {
		return nil, imap.SyntaxError("Empty status list")
	}
	return items, nil
}

func (s *session) status(ctx context.Context, cmd *imap.Command) {
	if len(cmd.Args) < 2 {
		s.refuse(cmd, "Missing arguments")
		return
	}
	if !cmd.Args[0].IsString() || cmd.Args[1].Kind != imap.List {
		s.refuse(cmd, "Status items must be list")
		return
	}
	items, err := s.parseStatus(cmd.Args[1].List)
	var p place
	if err == nil {
		p, err = s.locate(&cmd.Args[0])
	}
	if err == nil {
		err = s.sendStatus(ctx, p, items)
	}
	if err != nil {
		s.fail(ctx, cmd, err, p)
		return
	}
	s.finish(ctx, cmd, "OK Status completed.")
}

func (s *session) sendStatus(ctx context.Context, p place, items []*statusItem) error {
	status, err := p.ns.Account.Status(ctx, p.name)
	if err != nil {
		return err
	}
	for _, item := range items {
		if item.name == "HIGHESTMODSEQ" {
			s.enableCondstore(ctx)
		}
	}
	s.Room()
	s.Out = append(s.Out, "* STATUS "...)
	s.Out = append(s.appendName(s.Out, p.shown), " ("...)
	for i, item := range items {
		if i > 0 {
			s.Out = append(s.Out, ' ')
		}
		s.Out = append(append(s.Out, item.name...), ' ')
		s.Out = item.value(s, s.Out, &status)
	}
	s.Out = append(s.Out, ")\r\n"...)
	return nil
}
