package imapd

import (
	"context"
	"slices"
	"strings"

	"postilion/proto/imap"
	"postilion/store"
)

func listing() feature {
	return feature{commands: []command{
		{name: "LIST", run: (*session).list},
		{name: "XLIST", run: (*session).list},
		{name: "LSUB", run: (*session).lsub},
	}}
}

// listQuery is what LIST asks for (RFC 5258, RFC 5819, RFC 6154).
type listQuery struct {
	subscribedOnly, remote, recursive, specialOnly bool
	returnSubscribed, returnChildren, returnUse    bool
	status                                         []*statusItem
	patterns                                       []string
	reference                                      string
	extended                                       bool
}

// listed is one name as LIST shows it.
type listed struct {
	place
	selectable, exists   bool
	children, subscribed bool
	subscribedBelow      bool
	use                  string
}

func (s *session) parseList(args []imap.Arg) (*listQuery, error) {
	q := &listQuery{}
	if len(args) > 0 && args[0].Kind == imap.List {
		q.extended = true
		for i := range args[0].List {
			switch args[0].List[i].Upper() {
			case "SUBSCRIBED":
				q.subscribedOnly, q.returnSubscribed = true, true
			case "RECURSIVEMATCH":
				q.recursive = true
			case "SPECIAL-USE":
				q.specialOnly, q.returnUse = true, true
			case "REMOTE":
				q.remote = true
			default:
				return nil, imap.SyntaxError("Unknown select options")
			}
		}
		if q.recursive && !q.subscribedOnly && !q.specialOnly {
			return nil, imap.SyntaxError("RECURSIVEMATCH must not be the only selection.")
		}
		args = args[1:]
	}
	if len(args) == 0 || !args[0].IsString() {
		return nil, imap.SyntaxError("Invalid reference")
	}
	var ok bool
	if q.reference, ok = s.decodeName(args[0].Text); !ok {
		return nil, failure{"", "Mailbox name is not valid mUTF-7"}
	}
	if len(args) < 2 {
		return nil, imap.SyntaxError("Invalid pattern")
	}
	patterns := args[1:2]
	if args[1].Kind == imap.List {
		q.extended = true
		patterns = args[1].List
	}
	for i := range patterns {
		if !patterns[i].IsString() {
			return nil, imap.SyntaxError("Invalid pattern")
		}
		pattern, ok := s.decodeName(patterns[i].Text)
		if !ok {
			continue
		}
		q.patterns = append(q.patterns, pattern)
	}
	if len(args) > 2 {
		if len(args) < 4 || !args[2].IsAtom("RETURN") || args[3].Kind != imap.List {
			return nil, imap.SyntaxError("Invalid arguments")
		}
		q.extended = true
		if err := s.parseReturn(q, args[3].List); err != nil {
			return nil, err
		}
	}
	return q, nil
}

func (s *session) parseReturn(q *listQuery, list []imap.Arg) (err error) {
	for i := 0; i < len(list); i++ {
		switch list[i].Upper() {
		case "SUBSCRIBED":
			q.returnSubscribed = true
		case "CHILDREN":
			q.returnChildren = true
		case "SPECIAL-USE":
			q.returnUse = true
		case "STATUS":
			if i+1 == len(list) || list[i+1].Kind != imap.List {
				return imap.SyntaxError("Missing STATUS list")
			}
			i++
			if q.status, err = s.parseStatus(list[i].List); err != nil {
				return err
			}
		default:
			return imap.SyntaxError("Unknown return options")
		}
	}
	return nil
}

func (s *session) list(ctx context.Context, cmd *imap.Command) {
	q, err := s.parseList(cmd.Args)
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	if !q.extended && len(q.patterns) == 1 && q.patterns[0] == "" {
		s.listRoot(q.reference)
		s.finish(ctx, cmd, "OK List completed.")
		return
	}
	if !q.extended {
		q.returnChildren, q.returnUse = true, true
	}
	names, err := s.gather(ctx, q)
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	for i := range names {
		s.sendListed(&names[i], q, "LIST")
		if q.status != nil && names[i].selectable {
			if err := s.sendStatus(ctx, names[i].place, q.status); err != nil {
				s.untagged("NO Failed to lookup status: " + s.explain(err, names[i].place).text)
			}
		}
		s.Overflow()
	}
	s.finish(ctx, cmd, "OK List completed.")
}

// listRoot answers LIST "" "": the separator and the root of the reference.
func (s *session) listRoot(reference string) {
	ns := s.namespaceOf(reference)
	if ns == nil {
		ns = &s.namespaces[0]
	}
	root := ""
	if ns.Prefix != "" && strings.HasPrefix(reference, ns.Prefix) {
		root = ns.Prefix
	}
	s.Send(`* LIST (\Noselect) "` + string(ns.Separator) + `" `)
	s.Out = append(imap.AppendString(s.Out, s.encodeName(root)), "\r\n"...)
}

// gather finds the names that a query asks for.
func (s *session) gather(ctx context.Context, q *listQuery) ([]listed, error) {
	var found []listed
	for i := range s.namespaces {
		ns := &s.namespaces[i]
		names, err := s.names(ctx, ns, q.subscribedOnly || q.returnSubscribed)
		if err != nil {
			return nil, err
		}
		patterns := joinPatterns(q, ns)
		// A namespace with list = no is listed only to those who know its prefix.
		if ns.List == ListNo && !namesPrefix(q, ns) {
			continue
		}
		for j := range names {
			n := &names[j]
			if !s.wanted(q, n) {
				continue
			}
			for _, p := range patterns {
				if p.Match(n.shown) {
					found = append(found, *n)
					break
				}
			}
		}
	}
	return found, nil
}

// namesPrefix tells whether a pattern begins with the namespace's prefix.
func namesPrefix(q *listQuery, ns *Namespace) bool {
	for _, p := range q.patterns {
		if ns.Prefix != "" && strings.HasPrefix(q.reference+p, ns.Prefix) {
			return true
		}
	}
	return false
}

func joinPatterns(q *listQuery, ns *Namespace) []imap.Pattern {
	patterns := make([]imap.Pattern, 0, len(q.patterns))
	for _, text := range q.patterns {
		if q.reference != "" && strings.HasPrefix(text, string(ns.Separator)) {
			text = strings.TrimSuffix(q.reference, string(ns.Separator)) + text
		} else {
			text = q.reference + text
		}
		patterns = append(patterns, imap.Pattern{Text: text, Separator: ns.Separator})
	}
	return patterns
}

func (s *session) wanted(q *listQuery, n *listed) bool {
	if q.subscribedOnly && !n.subscribed && !(q.recursive && n.subscribedBelow) {
		return false
	}
	if !q.subscribedOnly && !n.exists {
		return false
	}
	return !q.specialOnly || n.use != ""
}

// names lists a namespace's names in order, with those that are only subscribed when subscriptions is set.
func (s *session) names(ctx context.Context, ns *Namespace, subscriptions bool) ([]listed, error) {
	stored, err := ns.Account.List(ctx)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*listed, len(stored))
	order := make([]string, 0, len(stored))
	add := func(name string) *listed {
		n := byName[name]
		if n == nil {
			n = &listed{place: place{ns, name, ns.show(name)}}
			byName[name] = n
			order = append(order, name)
		}
		return n
	}
	for _, l := range stored {
		if l.Name == store.Inbox && !ns.Inbox && s.aliasOfInbox(ns) {
			continue
		}
		n := add(l.Name)
		n.exists, n.selectable, n.use = true, l.Selectable, l.Use
		if m := ns.setting(l.Name); m != nil && m.SpecialUse != "" {
			n.use = m.SpecialUse
		}
	}
	if subscriptions {
		subscribed, err := s.subscribed(ctx, ns)
		if err != nil {
			return nil, err
		}
		for _, name := range subscribed {
			add(name).subscribed = true
		}
	}
	slices.Sort(order)
	for _, name := range order {
		n := byName[name]
		for up := parentOf(name); up != ""; up = parentOf(up) {
			if p := byName[up]; p != nil {
				p.children = p.children || n.exists
				p.subscribedBelow = p.subscribedBelow || n.subscribed
			}
		}
	}
	names := make([]listed, 0, len(order)+1)
	if root := strings.TrimSuffix(ns.Prefix, string(ns.Separator)); root != "" && !strings.EqualFold(root, store.Inbox) && ns.List != ListChildren {
		names = append(names, listed{place: place{ns, "", root}, exists: true, children: len(order) > 0})
	}
	for _, name := range order {
		names = append(names, *byName[name])
	}
	return names, nil
}

// aliasOfInbox tells whether the INBOX of an account is shown by another namespace over the same account.
func (s *session) aliasOfInbox(ns *Namespace) bool {
	for i := range s.namespaces {
		if s.namespaces[i].Inbox && s.namespaces[i].Account != nil && s.namespaces[i].Account.User() == ns.Account.User() {
			return true
		}
	}
	return false
}

func parentOf(name string) string {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)]
}

// subscribed returns the store's names that are subscribed in a namespace.
func (s *session) subscribed(ctx context.Context, ns *Namespace) ([]string, error) {
	if ns.Subscriptions {
		return ns.Account.Subscriptions(ctx)
	}
	holder := s.subscriptionHolder(ns)
	if holder == nil {
		return nil, nil
	}
	all, err := holder.Account.Subscriptions(ctx)
	var own []string
	for _, name := range all {
		if rest, ok := strings.CutPrefix(holder.show(name), ns.Prefix); ok && rest != "" {
			own = append(own, strings.ReplaceAll(rest, string(ns.Separator), "/"))
		}
	}
	return own, err
}

func (s *session) sendListed(n *listed, q *listQuery, word string) {
	s.Room()
	s.Out = append(append(append(s.Out, "* "...), word...), " ("...)
	start := len(s.Out)
	attr := func(name string) { s.Out = append(append(s.Out, name...), ' ') }
	switch {
	case !n.exists:
		attr(`\NonExistent`)
	case !n.selectable:
		attr(`\Noselect`)
	}
	if q.returnSubscribed && n.subscribed {
		attr(`\Subscribed`)
	}
	if n.exists && (q.returnChildren || !n.selectable) {
		if n.children {
			attr(`\HasChildren`)
		} else if n.selectable {
			attr(`\HasNoChildren`)
		}
	}
	if q.returnUse && n.use != "" {
		attr(n.use)
	}
	if len(s.Out) > start {
		s.Out = s.Out[:len(s.Out)-1]
	}
	s.Out = append(append(append(s.Out, `) "`...), n.ns.Separator), `" `...)
	s.Out = s.appendName(s.Out, n.shown)
	if q.recursive && n.subscribedBelow && q.subscribedOnly {
		s.Out = append(s.Out, ` ("CHILDINFO" ("SUBSCRIBED"))`...)
	}
	s.Out = append(s.Out, "\r\n"...)
}

// lsub is LSUB: subscribed names, and in place of those below a level that a "%" ends at, that level with \Noselect.
func (s *session) lsub(ctx context.Context, cmd *imap.Command) {
	if len(cmd.Args) < 2 {
		s.refuse(cmd, "Missing arguments")
		return
	}
	q, err := s.parseList(cmd.Args)
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	for i := range s.namespaces {
		ns := &s.namespaces[i]
		subscribed, err := s.subscribed(ctx, ns)
		if err != nil {
			s.fail(ctx, cmd, err, place{})
			return
		}
		missing, err := s.unselectable(ctx, ns, subscribed)
		if err != nil {
			s.fail(ctx, cmd, err, place{})
			return
		}
		s.sendSubscribed(ns, subscribed, missing, joinPatterns(q, ns))
	}
	s.finish(ctx, cmd, "OK Lsub completed.")
}

// unselectable tells which subscribed names are no mailboxes, for clients that want to know it from LSUB (tb-lsub-flags).
func (s *session) unselectable(ctx context.Context, ns *Namespace, subscribed []string) (map[string]bool, error) {
	if !s.opt.TBLSubFlags || len(subscribed) == 0 {
		return nil, nil
	}
	stored, err := ns.Account.List(ctx)
	missing := make(map[string]bool, len(subscribed))
	for _, name := range subscribed {
		missing[name] = true
	}
	for _, l := range stored {
		if l.Selectable {
			delete(missing, l.Name)
		}
	}
	return missing, err
}

func (s *session) sendSubscribed(ns *Namespace, subscribed []string, missing map[string]bool, patterns []imap.Pattern) {
	slices.Sort(subscribed)
	seen := map[string]bool{}
	tell := func(name string, below bool) {
		shown := ns.show(name)
		if seen[shown] {
			return
		}
		seen[shown] = true
		attribute := ""
		if below {
			attribute = `\Noselect`
		}
		s.Send("* LSUB (" + attribute + `) "` + string(ns.Separator) + `" `)
		s.Out = append(s.appendName(s.Out, shown), "\r\n"...)
		s.Overflow()
	}
	matches := func(name string) bool {
		for _, p := range patterns {
			if p.Match(ns.show(name)) {
				return true
			}
		}
		return false
	}
	for _, name := range subscribed {
		if matches(name) {
			tell(name, missing[name])
			continue
		}
		for up := parentOf(name); up != ""; up = parentOf(up) {
			if matches(up) && !slices.Contains(subscribed, up) {
				tell(up, true)
				break
			}
		}
	}
}
