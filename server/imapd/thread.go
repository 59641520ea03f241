package imapd

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"postilion/mail/charset"
	"postilion/mail/header"
	"postilion/mail/message"
	"postilion/proto/imap"
)

// threading is RFC 5256's THREAD, with REFS as the draft before RFC 5256's successor has it: REFERENCES without subjects, the threads in the order of
// their newest messages.
func threading() feature {
	return feature{
		capability: []string{"THREAD=REFERENCES", "THREAD=REFS", "THREAD=ORDEREDSUBJECT"},
		commands: []command{
			{name: "THREAD", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.thread(ctx, cmd, false) }},
			{name: "UID THREAD", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.thread(ctx, cmd, true) }},
		},
	}
}

// threadNode is a message of a thread, or with seq 0 a message that is not there and that others refer to.
type threadNode struct {
	hit
	sent, arrived time.Time
	subject       []byte
	reply         bool
	parent        *threadNode
	children      []*threadNode
}

func (s *session) thread(ctx context.Context, cmd *imap.Command, byUID bool) {
	algorithm, search, err := s.srv.grammar.ParseThread(cmd.Args)
	if err == nil {
		if _, ok := charset.Lookup(search.Charset); !ok {
			err = failure{"BADCHARSET", "Unknown charset"}
		}
	}
	if err == nil && algorithm != "REFERENCES" && algorithm != "REFS" && algorithm != "ORDEREDSUBJECT" {
		err = imap.SyntaxError("Unknown thread algorithm.")
	}
	var found []hit
	if err == nil {
		found, _, err = s.findMessages(ctx, search)
	}
	f := &fetch{s: s, ctx: ctx}
	if err == nil {
		f.view, err = s.box.box.View(ctx)
	}
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	var roots []*threadNode
	if algorithm == "ORDEREDSUBJECT" {
		roots = f.threadBySubject(found)
	} else {
		roots = f.threadByReferences(found, algorithm == "REFERENCES")
	}
	f.closeBody()
	s.Send("* THREAD")
	if len(roots) > 0 {
		s.Out = append(s.Out, ' ')
	}
	for _, root := range roots {
		s.Out = append(s.Out, '(')
		s.sendThread(root, byUID)
		s.Out = append(s.Out, ')')
		s.Overflow()
	}
	s.Out = append(s.Out, "\r\n"...)
	s.finishWith(ctx, cmd, "OK Thread completed.", syncing{keepExpunged: !byUID, uid: byUID})
}

// sendThread writes a node and what is below it. A chain is written on, a fork in lists.
func (s *session) sendThread(n *threadNode, byUID bool) {
	for {
		if n.seq != 0 {
			s.Out = imap.AppendNumber(s.Out, uint64(n.number(byUID)))
		}
		if len(n.children) != 1 {
			break
		}
		if n.seq != 0 {
			s.Out = append(s.Out, ' ')
		}
		n = n.children[0]
	}
	if len(n.children) > 0 && n.seq != 0 {
		s.Out = append(s.Out, ' ')
	}
	for _, child := range n.children {
		s.Out = append(s.Out, '(')
		s.sendThread(child, byUID)
		s.Out = append(s.Out, ')')
	}
}

// node reads what threading needs of a message.
func (f *fetch) node(h hit) (n *threadNode, e *message.Envelope) {
	f.move(h.seq)
	e = &message.Envelope{}
	if f.parts() == nil && f.structure.Root.Envelope != nil {
		e = f.structure.Root.Envelope
	}
	n = &threadNode{hit: h, sent: sentDate(e, f.entry.InternalDate), arrived: f.entry.InternalDate}
	if e.Subject != nil {
		text := bytes.Join(bytes.Fields(header.DecodeWords(nil, []byte(*e.Subject))), []byte(" "))
		base := baseSubject(text)
		n.subject = charset.Fold(base)
		n.reply = len(subjectLeader(text)) != len(text) || len(base) < len(text) && (hasFold(text, "(fwd)") || hasFold(text, "[fwd:"))
	}
	return n, e
}

func hasFold(text []byte, word string) bool {
	return bytes.Contains(bytes.ToLower(text), []byte(word))
}

func (f *fetch) threadBySubject(found []hit) []*threadNode {
	threads := map[string]*threadNode{}
	var nodes, roots []*threadNode
	for _, h := range found {
		n, _ := f.node(h)
		nodes = append(nodes, n)
	}
	sortNodes(nodes, false)
	for _, n := range nodes {
		if first := threads[string(n.subject)]; first != nil {
			first.children = append(first.children, n)
			continue
		}
		threads[string(n.subject)] = n
		roots = append(roots, n)
	}
	return roots
}

// threadByReferences is the REFERENCES algorithm of RFC 5256 section 3; without subjects steps 4 to 5 are left out.
func (f *fetch) threadByReferences(found []hit, subjects bool) []*threadNode {
	byID := map[string]*threadNode{}
	var all []*threadNode
	get := func(id string) *threadNode {
		n := byID[id]
		if n == nil {
			n = &threadNode{}
			byID[id] = n
			all = append(all, n)
		}
		return n
	}
	for _, h := range found {
		n, e := f.node(h)
		references := f.references(e)
		id := ""
		if e.MessageID != nil {
			if ids := messageIDs([]byte(*e.MessageID)); len(ids) > 0 {
				id = ids[0]
			}
		}
		if known := byID[id]; id != "" && known != nil && known.seq == 0 {
			known.hit, known.sent, known.arrived, known.subject, known.reply = n.hit, n.sent, n.arrived, n.subject, n.reply
			n = known
		} else {
			all = append(all, n)
			if id != "" && known == nil {
				byID[id] = n
			}
		}
		var parent *threadNode
		for _, ref := range references {
			r := get(ref)
			if parent != nil && r.parent == nil && !descends(parent, r) {
				link(parent, r)
			}
			parent = r
		}
		unlink(n)
		if parent != nil && !descends(parent, n) {
			link(parent, n)
		}
	}
	var roots []*threadNode
	for _, n := range all {
		if n.parent == nil {
			roots = append(roots, n)
		}
	}
	roots = prune(roots, true)
	for _, root := range roots {
		sortTree(root)
	}
	if !subjects {
		sortNodes(roots, true)
		return roots
	}
	sortNodes(roots, false)
	roots = mergeSubjects(roots)
	for _, root := range roots {
		sortTree(root)
	}
	sortNodes(roots, false)
	return roots
}

// references returns the identifiers that a message refers to, oldest first.
func (f *fetch) references(e *message.Envelope) []string {
	if f.structure == nil {
		return nil
	}
	root := &f.structure.Root
	if text, err := f.read(span{root.HeaderStart, root.BodyStart}); err == nil {
		if field, ok := message.Lookup(text, "References"); ok {
			if ids := messageIDs(field.Value); len(ids) > 0 {
				return ids
			}
		}
	}
	if e.InReplyTo != nil {
		if ids := messageIDs([]byte(*e.InReplyTo)); len(ids) > 0 {
			return ids[:1]
		}
	}
	return nil
}

const maxReferences = 1000

// messageIDs returns the message identifiers in a field without their angle brackets.
func messageIDs(value []byte) (ids []string) {
	for len(ids) < maxReferences {
		start := bytes.IndexByte(value, '<')
		if start < 0 {
			return ids
		}
		value = value[start+1:]
		end := bytes.IndexByte(value, '>')
		if end < 0 {
			return ids
		}
		if id := value[:end]; bytes.IndexByte(id, '@') > 0 {
			ids = append(ids, string(id))
		}
		value = value[end+1:]
	}
	return ids
}

// descends tells whether n lies below ancestor, or is it.
func descends(n, ancestor *threadNode) bool {
	for ; n != nil; n = n.parent {
		if n == ancestor {
			return true
		}
	}
	return false
}

func link(parent, child *threadNode) {
	child.parent = parent
	parent.children = append(parent.children, child)
}

func unlink(n *threadNode) {
	if n.parent == nil {
		return
	}
	n.parent.children = slices.DeleteFunc(n.parent.children, func(c *threadNode) bool { return c == n })
	n.parent = nil
}

// prune takes out nodes without a message; at the top one with several children stays and holds them together.
func prune(nodes []*threadNode, top bool) []*threadNode {
	var kept []*threadNode
	for _, n := range nodes {
		n.children = prune(n.children, false)
		switch {
		case n.seq != 0, top && len(n.children) > 1:
			kept = append(kept, n)
		default:
			kept = append(kept, n.children...)
		}
	}
	return kept
}

// key is the date that a node is sorted by: its own, or that of its first child; of the newest message below when newest is set.
func (n *threadNode) key(newest bool) (time.Time, int) {
	if newest {
		at, seq := n.arrived, n.seq
		for _, c := range n.children {
			if t, q := c.key(true); t.After(at) {
				at, seq = t, q
			}
		}
		return at, seq
	}
	if n.seq == 0 && len(n.children) > 0 {
		return n.children[0].key(false)
	}
	return n.sent, n.seq
}

func sortNodes(nodes []*threadNode, newest bool) {
	slices.SortStableFunc(nodes, func(a, b *threadNode) int {
		s, i := a.key(newest)
		t, j := b.key(newest)
		if c := s.Compare(t); c != 0 {
			return c
		}
		return cmp.Compare(i, j)
	})
}

func sortTree(n *threadNode) {
	for _, c := range n.children {
		sortTree(c)
	}
	sortNodes(n.children, false)
}

// subjectOf is a thread's subject: of its message, or of the first below a node without one.
func subjectOf(n *threadNode) ([]byte, bool) {
	if n.seq == 0 && len(n.children) > 0 {
		n = n.children[0]
	}
	return n.subject, n.reply
}

// mergeSubjects joins threads of the same subject (RFC 5256 section 3, step 5).
func mergeSubjects(roots []*threadNode) []*threadNode {
	table := map[string]*threadNode{}
	for _, n := range roots {
		subject, reply := subjectOf(n)
		if len(subject) == 0 {
			continue
		}
		known := table[string(subject)]
		knownReply := false
		if known != nil {
			_, knownReply = subjectOf(known)
		}
		if known == nil || n.seq == 0 && known.seq != 0 || known.seq != 0 && knownReply && !reply {
			table[string(subject)] = n
		}
	}
	var kept []*threadNode
	for _, n := range roots {
		subject, reply := subjectOf(n)
		first := table[string(subject)]
		if len(subject) == 0 || first == nil || first == n {
			kept = append(kept, n)
			continue
		}
		_, firstReply := subjectOf(first)
		switch {
		case first.seq == 0 && n.seq == 0:
			first.children = append(first.children, n.children...)
		case first.seq == 0, reply && !firstReply:
			first.children = append(first.children, n)
		default:
			copied := *first
			*first = threadNode{children: []*threadNode{&copied, n}}
		}
	}
	return kept
}
