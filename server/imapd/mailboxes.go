package imapd

import (
	"context"
	"errors"
	"strings"

	"postilion/proto/imap"
	"postilion/store"
)

// mailboxes is CREATE (with RFC 6154), DELETE, RENAME, SUBSCRIBE and UNSUBSCRIBE.
func mailboxes() feature {
	return feature{commands: []command{
		{name: "CREATE", run: (*session).create},
		{name: "DELETE", run: (*session).deleteMailbox},
		{name: "RENAME", run: (*session).rename},
		{name: "SUBSCRIBE", run: func(s *session, ctx context.Context, cmd *imap.Command) { s.subscribe(ctx, cmd, true) }},
		{name: "UNSUBSCRIBE", run: func(s *session, ctx context.Context, cmd *imap.Command) { s.subscribe(ctx, cmd, false) }},
	}}
}

// Dovecot's limits of a mailbox name: of the whole and of one level.
const (
	maxNameLength  = 4096
	maxLevelLength = 255
)

func checkNewName(p place) error {
	if len(p.name) > maxNameLength {
		return cannot("Name too long")
	}
	for level := range strings.SplitSeq(p.name, "/") {
		if len(imap.AppendUTF7(nil, level)) > maxLevelLength {
			return cannot("Name too long")
		}
	}
	for _, c := range p.name {
		if c < ' ' || c == 0x7f {
			return cannot("Control characters not allowed in new mailbox names")
		}
	}
	return nil
}

func (s *session) create(ctx context.Context, cmd *imap.Command) {
	if !s.stringArgs(cmd, 1) {
		return
	}
	name := cmd.Args[0]
	if p, ok := s.decodeName(name.Text); ok {
		if ns := s.namespaceOf(p); ns != nil && len(p) > 0 && p[len(p)-1] == ns.Separator {
			name.Text = name.Text[:len(name.Text)-1]
		}
	}
	p, err := s.locate(&name)
	use := ""
	if err == nil && len(cmd.Args) > 1 && cmd.Args[1].Kind == imap.List {
		if l := cmd.Args[1].List; len(l) == 2 && l[0].IsAtom("USE") && l[1].Kind == imap.List && len(l[1].List) > 0 {
			use = string(l[1].List[0].Text)
		}
	}
	if err == nil {
		err = checkNewName(p)
	}
	if err == nil {
		err = p.ns.Account.Create(ctx, p.name, s.knownUse(use))
	}
	if err != nil {
		s.fail(ctx, cmd, err, p)
		return
	}
	if s.opt.MailboxID {
		if status, err := p.ns.Account.Status(ctx, p.name); err == nil && status.ID != "" {
			s.finish(ctx, cmd, "OK [MAILBOXID ("+status.ID+")] Create completed.")
			return
		}
	}
	s.finish(ctx, cmd, "OK Create completed.")
}

// knownUse leaves uses to the configuration unless CREATE-SPECIAL-USE is announced.
func (s *session) knownUse(use string) string {
	if s.opt.CreateSpecialUse {
		return use
	}
	return ""
}

func (s *session) deleteMailbox(ctx context.Context, cmd *imap.Command) {
	if !s.stringArgs(cmd, 1) {
		return
	}
	p, err := s.locate(&cmd.Args[0])
	switch {
	case err != nil:
	case p.name == store.Inbox && p.ns.Inbox:
		err = failure{"", "INBOX can't be deleted"}
	default:
		if s.box != nil && s.box.ns == p.ns && s.box.box.Name() == p.name {
			s.closeMailbox()
		}
		if err = p.ns.Account.Delete(ctx, p.name); errors.Is(err, store.ErrNotFound) {
			err = failure{"NONEXISTENT", "Mailbox doesn't exist: " + p.shown}
		}
	}
	if err != nil {
		s.fail(ctx, cmd, err, p)
		return
	}
	s.finish(ctx, cmd, "OK Delete completed.")
}

func (s *session) rename(ctx context.Context, cmd *imap.Command) {
	if !s.stringArgs(cmd, 2) {
		return
	}
	from, err := s.locate(&cmd.Args[0])
	var to place
	if err == nil {
		to, err = s.locate(&cmd.Args[1])
	}
	if err == nil {
		err = checkNewName(to)
	}
	if err == nil {
		err = s.renameChecked(ctx, from, to)
	}
	if err != nil {
		s.fail(ctx, cmd, err, from)
		return
	}
	s.finish(ctx, cmd, "OK Rename completed.")
}

func (s *session) renameChecked(ctx context.Context, from, to place) error {
	switch {
	case from.ns.Account != to.ns.Account:
		return failure{"", "Can't rename mailboxes across specified storages."}
	case from.name == store.Inbox && from.ns.Inbox && !from.ns.RenameInbox:
		return failure{"CANNOT", "Renaming INBOX isn't supported"}
	case from.name == to.name:
		return failure{"ALREADYEXISTS", "Can't rename mailbox to itself"}
	case strings.HasPrefix(to.name, from.name+"/") && from.name != store.Inbox:
		return failure{"", "Can't rename mailbox under its own child"}
	}
	err := from.ns.Account.Rename(ctx, from.name, to.name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return failure{"NONEXISTENT", "Mailbox doesn't exist: " + from.shown}
	case errors.Is(err, store.ErrExists):
		return failure{"ALREADYEXISTS", "Target mailbox already exists"}
	}
	return err
}

func (s *session) subscribe(ctx context.Context, cmd *imap.Command, on bool) {
	if !s.stringArgs(cmd, 1) {
		return
	}
	text := cmd.Args[0]
	if n := len(text.Text); s.opt.TBExtraMailboxSep && n > 1 {
		if ns := s.namespaceOf(string(text.Text)); ns != nil && text.Text[n-1] == ns.Separator {
			text.Text = text.Text[:n-1]
		}
	}
	p, err := s.locate(&text)
	var bad failure
	if errors.As(err, &bad) && bad.code == "CANNOT" {
		err = failure{"", "Mailbox doesn't exist: " + p.shown}
	}
	if err == nil && on {
		if exists, lookErr := s.exists(ctx, p); lookErr != nil || !exists {
			if err = lookErr; err == nil {
				err = store.ErrNotFound
			}
		}
	}
	if err == nil {
		err = s.setSubscribed(ctx, p, on)
	}
	switch {
	case err != nil:
		s.fail(ctx, cmd, err, p)
	case on:
		s.finish(ctx, cmd, "OK Subscribe completed.")
	default:
		s.finish(ctx, cmd, "OK Unsubscribe completed.")
	}
}

// exists tells whether a mailbox can be selected.
func (s *session) exists(ctx context.Context, p place) (bool, error) {
	_, err := p.ns.Account.Status(ctx, p.name)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// setSubscribed keeps a subscription in its namespace, or in the parent's when the namespace has none of its own.
func (s *session) setSubscribed(ctx context.Context, p place, on bool) error {
	if p.ns.Subscriptions {
		return p.ns.Account.Subscribe(ctx, p.name, on)
	}
	holder := s.subscriptionHolder(p.ns)
	if holder == nil {
		return failure{"", "No subscriptions in this namespace"}
	}
	return holder.Account.Subscribe(ctx, strings.ReplaceAll(strings.TrimPrefix(p.shown, holder.Prefix), string(p.ns.Separator), "/"), on)
}

// subscriptionHolder is the namespace that keeps the subscriptions of one without: that with the longest prefix of its own prefix.
func (s *session) subscriptionHolder(of *Namespace) *Namespace {
	var best *Namespace
	for i := range s.namespaces {
		ns := &s.namespaces[i]
		if ns.Subscriptions && strings.HasPrefix(of.Prefix, ns.Prefix) && (best == nil || len(ns.Prefix) > len(best.Prefix)) {
			best = ns
		}
	}
	return best
}
