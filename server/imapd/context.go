package imapd

import (
	"context"

	"postilion/proto/imap"
	"postilion/store"
)

// maxContexts bounds the searches that a session keeps up to date.
const maxContexts = 10

// searchContexts is RFC 5267's CONTEXT=SEARCH: results that are kept up to date until they are cancelled or the mailbox is left.
func searchContexts() feature {
	return feature{
		capability: []string{"CONTEXT=SEARCH"},
		commands:   []command{{name: "CANCELUPDATE", selected: true, run: (*session).cancelUpdate}},
	}
}

// searchContext is one result kept up to date.
type searchContext struct {
	tag   string
	byUID bool
	match matcher
	found store.UIDSet
}

// keepUpdated makes a search a context, or says that it cannot.
func (s *session) keepUpdated(tag string, byUID bool, match matcher, found []hit) {
	if len(s.box.contexts) >= maxContexts {
		s.untagged(`NO [NOUPDATE "` + tag + `"] Too many search contexts.`)
		return
	}
	c := &searchContext{tag: tag, byUID: byUID, match: match}
	for _, h := range found {
		c.found = c.found.Add(h.uid)
	}
	s.box.contexts = append(s.box.contexts, c)
}

// updateContexts tells what came to the results and what left them. Expunged messages leave them without a word.
func (s *session) updateContexts(ctx context.Context) {
	for _, c := range s.box.contexts {
		found, _, err := s.matching(ctx, c.match)
		if err != nil {
			return
		}
		var now store.UIDSet
		var added, removed []store.UID
		for _, h := range found {
			now = now.Add(h.uid)
			if !c.found.Contains(h.uid) {
				added = append(added, h.number(c.byUID))
			}
		}
		s.box.each(c.found, func(seq int) bool {
			if h := (hit{seq, s.box.uid(seq)}); c.found.Contains(h.uid) && !now.Contains(h.uid) {
				removed = append(removed, h.number(c.byUID))
			}
			return true
		})
		c.found = now
		s.tellContext(c, "ADDTO", added)
		s.tellContext(c, "REMOVEFROM", removed)
	}
}

func (s *session) tellContext(c *searchContext, what string, numbers []store.UID) {
	if len(numbers) == 0 {
		return
	}
	s.Send("* ESEARCH (TAG ")
	s.Out = append(imap.AppendString(s.Out, []byte(c.tag)), ')')
	if c.byUID {
		s.Out = append(s.Out, " UID"...)
	}
	s.Out = append(append(append(s.Out, ' '), what...), " (0 "...)
	s.Out = append(appendUIDs(s.Out, numbers), ")\r\n"...)
}

func (s *session) cancelUpdate(ctx context.Context, cmd *imap.Command) {
	if !s.stringArgs(cmd, 1) {
		return
	}
	for i := range cmd.Args {
		if !s.cancelContext(string(cmd.Args[i].Text)) {
			s.finish(ctx, cmd, "NO Unknown tag.")
			return
		}
	}
	s.finish(ctx, cmd, "OK Updates cancelled.")
}

func (s *session) cancelContext(tag string) bool {
	for i, c := range s.box.contexts {
		if c.tag == tag {
			s.box.contexts = append(s.box.contexts[:i], s.box.contexts[i+1:]...)
			return true
		}
	}
	return false
}
