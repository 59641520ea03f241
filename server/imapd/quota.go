package imapd

import (
	"context"

	"postilion/proto/imap"
	"postilion/store"
)

// quota is RFC 2087's QUOTA for the one root that Options.QuotaRoot names.
func quota() feature {
	return feature{
		capability: []string{"QUOTA"},
		commands: []command{
			{name: "GETQUOTAROOT", run: (*session).getQuotaRoot},
			{name: "GETQUOTA", run: (*session).getQuota},
			{name: "SETQUOTA", run: func(s *session, ctx context.Context, cmd *imap.Command) {
				if len(cmd.Args) < 2 {
					s.refuse(cmd, "Missing arguments")
				} else {
					s.finish(ctx, cmd, "NO Quota can be changed only by admin.")
				}
			}},
		},
	}
}

func (s *session) getQuotaRoot(ctx context.Context, cmd *imap.Command) {
	if !s.stringArgs(cmd, 1) {
		return
	}
	name, ok := s.decodeName(cmd.Args[0].Text)
	ns := s.namespaceOf(name)
	if !ok || ns == nil {
		s.fail(ctx, cmd, store.ErrNotFound, place{shown: name})
		return
	}
	s.Room()
	s.Out = s.appendName(append(s.Out, "* QUOTAROOT "...), name)
	s.Out = imap.AppendString(append(s.Out, ' '), []byte(s.opt.QuotaRoot))
	s.Out = append(s.Out, "\r\n"...)
	s.answerQuota(ctx, cmd, ns, "OK Getquotaroot completed.")
}

func (s *session) getQuota(ctx context.Context, cmd *imap.Command) {
	if !s.stringArgs(cmd, 1) {
		return
	}
	if string(cmd.Args[0].Text) != s.opt.QuotaRoot {
		s.finish(ctx, cmd, "NO Quota root doesn't exist.")
		return
	}
	s.answerQuota(ctx, cmd, s.namespaceOf(store.Inbox), "OK Getquota completed.")
}

// answerQuota tells the resources that have a limit: storage in units of 1024 octets, begun ones included, and messages.
func (s *session) answerQuota(ctx context.Context, cmd *imap.Command, ns *Namespace, text string) {
	usage, err := ns.Account.QuotaUsage(ctx)
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	s.Room()
	s.Out = imap.AppendString(append(s.Out, "* QUOTA "...), []byte(s.opt.QuotaRoot))
	s.Out = append(s.Out, " ("...)
	resource := func(name string, used, limit int64) {
		if limit <= 0 {
			return
		}
		if s.Out[len(s.Out)-1] != '(' {
			s.Out = append(s.Out, ' ')
		}
		s.Out = imap.AppendNumber(append(append(s.Out, name...), ' '), uint64(max(used, 0)))
		s.Out = imap.AppendNumber(append(s.Out, ' '), uint64(limit))
	}
	const unit = 1024
	resource("STORAGE", (usage.Bytes+unit-1)/unit, usage.LimitBytes/unit)
	resource("MESSAGE", usage.Messages, usage.LimitMessages)
	s.Out = append(s.Out, ")\r\n"...)
	s.finish(ctx, cmd, text)
}
