package imapd

import (
	"context"
	"errors"
	"strings"
	"time"

	"postilion/mail/message"
	"postilion/proto/imap"
	"postilion/store"
)

// fetcher writes one FETCH item: its label and value.
type fetcher struct {
	name  string
	write func(f *fetch, item *imap.FetchItem) error
}

// fetch is a FETCH under way, at one message.
type fetch struct {
	s    *session
	ctx  context.Context
	view store.View
	seq  int
	// entry is what the store keeps of the message; gone is true when it was expunged.
	entry     store.Entry
	gone      bool
	body      store.Body
	structure *message.Message
	scratch   []byte
	// expunged holds the messages of which something could not be shown any more.
	expunged store.UIDSet
}

func fetching() feature {
	return feature{
		commands: []command{
			{name: "FETCH", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.fetch(ctx, cmd, false) }},
			{name: "UID FETCH", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.fetch(ctx, cmd, true) }},
		},
		fetch: []fetcher{
			{"UID", func(f *fetch, _ *imap.FetchItem) error {
				f.s.Out = imap.AppendNumber(append(f.s.Out, "UID "...), uint64(f.entry.UID))
				return nil
			}},
			{"FLAGS", func(f *fetch, _ *imap.FetchItem) error {
				f.s.Out = f.s.appendFlags(append(f.s.Out, "FLAGS "...), f.view, &f.entry)
				return nil
			}},
			{"INTERNALDATE", func(f *fetch, _ *imap.FetchItem) error {
				f.s.Out = imap.AppendDateTime(append(f.s.Out, "INTERNALDATE "...), f.entry.InternalDate.Local())
				return nil
			}},
			{"RFC822.SIZE", func(f *fetch, _ *imap.FetchItem) error {
				f.s.Out = imap.AppendNumber(append(f.s.Out, "RFC822.SIZE "...), uint64(f.entry.Size))
				return nil
			}},
			{"ENVELOPE", fetchEnvelope},
			{"BODY", func(f *fetch, _ *imap.FetchItem) error { return f.bodyStructure("BODY ", false) }},
			{"BODYSTRUCTURE", func(f *fetch, _ *imap.FetchItem) error { return f.bodyStructure("BODYSTRUCTURE ", true) }},
			{"BODY[", fetchSection},
			{"BODY.PEEK[", fetchSection},
			{"RFC822", fetchSection},
			{"RFC822.HEADER", func(f *fetch, item *imap.FetchItem) error {
				header := *item
				header.Section.Kind = imap.HeaderSection
				return fetchSection(f, &header)
			}},
			{"RFC822.TEXT", func(f *fetch, item *imap.FetchItem) error {
				text := *item
				text.Section.Kind = imap.TextSection
				return fetchSection(f, &text)
			}},
		},
	}
}

// condstore is RFC 7162 without QRESYNC.
func condstore() feature {
	return feature{
		capability: []string{"CONDSTORE"},
		fetch: []fetcher{{"MODSEQ", func(f *fetch, _ *imap.FetchItem) error {
			f.s.Out = imap.AppendNumber(append(f.s.Out, "MODSEQ ("...), uint64(f.entry.ModSeq))
			f.s.Out = append(f.s.Out, ')')
			return nil
		}}},
		search: []searcher{{name: "MODSEQ", make: func(_ *query, key *imap.SearchKey) matcher {
			return func(m *candidate) bool { return uint64(m.entry.ModSeq) >= key.Number }
		}}},
		enable: []enabler{{"CONDSTORE", (*session).enableCondstore}},
		selectParams: []selectParam{{"CONDSTORE", func(s *session, _ *selectHow, _ *imap.Arg) error {
			s.enabled.condstore = true
			return nil
		}}},
		fetchModifiers: []fetchModifier{{"CHANGEDSINCE", true, func(m *fetchModifiers, arg *imap.Arg) error {
			n, ok := arg.Number()
			if !ok {
				return imap.SyntaxError("Invalid CHANGEDSINCE modseq.")
			}
			m.since, m.changed = store.ModSeq(n), true
			return nil
		}}},
		status: []statusItem{statusNumber("HIGHESTMODSEQ", func(st *store.Status) uint64 { return max(uint64(st.HighestModSeq), 1) })},
	}
}

// savedate is RFC 8514.
func savedate() feature {
	return feature{
		capability: []string{"SAVEDATE"},
		fetch: []fetcher{{"SAVEDATE", func(f *fetch, _ *imap.FetchItem) error {
			f.s.Out = append(f.s.Out, "SAVEDATE "...)
			if f.entry.SaveDate.IsZero() {
				f.s.Out = append(f.s.Out, "NIL"...)
			} else {
				f.s.Out = imap.AppendDateTime(f.s.Out, f.entry.SaveDate.Local())
			}
			return nil
		}}},
		search: []searcher{
			dateKey("SAVEDBEFORE", saveDate, before), dateKey("SAVEDON", saveDate, on), dateKey("SAVEDSINCE", saveDate, since),
			{name: "SAVEDATESUPPORTED", make: func(*query, *imap.SearchKey) matcher { return everything }},
		},
	}
}

// objectID is RFC 8474.
func objectID() feature {
	return feature{
		capability: []string{"OBJECTID"},
		fetch: []fetcher{
			{"EMAILID", func(f *fetch, _ *imap.FetchItem) error {
				f.s.Out = append(append(append(f.s.Out, "EMAILID ("...), f.entry.EmailID...), ')')
				return nil
			}},
			{"THREADID", func(f *fetch, _ *imap.FetchItem) error {
				f.s.Out = append(f.s.Out, "THREADID NIL"...)
				return nil
			}},
		},
		status: []statusItem{{"MAILBOXID", func(_ *session, dst []byte, st *store.Status) []byte {
			return append(append(append(dst, '('), st.ID...), ')')
		}}},
	}
}

// fetchModifiers is what the modifiers of FETCH say.
type fetchModifiers struct {
	// changed leaves out messages whose mod-sequence is not above since.
	changed  bool
	since    store.ModSeq
	vanished bool
}

// fetchModifier is one modifier of FETCH, with an argument or without.
type fetchModifier struct {
	name     string
	argument bool
	parse    func(m *fetchModifiers, arg *imap.Arg) error
}

func (s *session) parseFetchModifiers(args []imap.Arg, byUID bool) (m fetchModifiers, err error) {
	if len(args) == 0 {
		return m, nil
	}
	if args[0].Kind != imap.List {
		return m, imap.SyntaxError("Invalid arguments")
	}
	list := args[0].List
	for i := 0; i < len(list); i++ {
		modifier := s.srv.features.fetchModifiers[list[i].Upper()]
		if modifier == nil {
			return m, imap.SyntaxError("Unknown FETCH modifier")
		}
		var arg *imap.Arg
		if modifier.argument {
			if i++; i == len(list) {
				return m, imap.SyntaxError("Missing " + modifier.name + " argument.")
			}
			arg = &list[i]
		}
		if err := modifier.parse(&m, arg); err != nil {
			return m, err
		}
	}
	switch {
	case !m.vanished:
	case !byUID:
		err = imap.SyntaxError("VANISHED allowed only with UID FETCH")
	case !s.enabled.qresync:
		err = imap.SyntaxError("VANISHED used without QRESYNC being enabled")
	case !m.changed:
		err = imap.SyntaxError("VANISHED used without CHANGEDSINCE")
	}
	return m, err
}

func (s *session) fetch(ctx context.Context, cmd *imap.Command, byUID bool) {
	if len(cmd.Args) < 2 || cmd.Args[0].Kind != imap.Atom {
		s.refuse(cmd, "Invalid arguments")
		return
	}
	uids, err := s.resolve(cmd.Args[0].Text, byUID)
	var items []imap.FetchItem
	var rest []imap.Arg
	if err == nil {
		items, rest, err = s.srv.grammar.ParseFetch(cmd.Args[1:])
	}
	var modifiers fetchModifiers
	if err == nil {
		modifiers, err = s.parseFetchModifiers(rest, byUID)
	}
	var writers []*fetcher
	if err == nil {
		items, writers, err = s.prepareFetch(ctx, items, byUID, modifiers.changed)
	}
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	f := &fetch{s: s, ctx: ctx}
	if f.view, err = s.box.box.View(ctx); err != nil {
		s.lost(err)
		return
	}
	if modifiers.vanished {
		s.tellVanished(f.view, modifiers.since, uids)
	}
	seen := s.markSeen(ctx, f, uids, items)
	s.box.each(uids, func(seq int) bool {
		if f.move(seq); modifiers.changed && f.entry.ModSeq <= modifiers.since {
			return true
		}
		err = f.message(items, writers, seen)
		s.Overflow()
		return err == nil && !s.Ended
	})
	f.closeBody()
	how := syncing{keepExpunged: !byUID, uid: byUID, known: seen, gone: f.expunged}
	switch {
	case s.Ended:
	case err != nil:
		s.finishWith(ctx, cmd, s.explain(err, place{}).reply(), how)
	case len(f.expunged) > 0:
		s.finishWith(ctx, cmd, "OK [EXPUNGEISSUED] Some messages were already expunged.", how)
	default:
		s.finishWith(ctx, cmd, "OK Fetch completed.", how)
	}
}

// prepareFetch finds who writes each item, and adds the items that a UID FETCH and CONDSTORE imply.
func (s *session) prepareFetch(ctx context.Context, items []imap.FetchItem, byUID, changed bool) ([]imap.FetchItem, []*fetcher, error) {
	has := func(name string) bool {
		for i := range items {
			if items[i].Name == name {
				return true
			}
		}
		return false
	}
	if byUID && !has("UID") {
		items = append([]imap.FetchItem{{Name: "UID", Label: "UID", Peek: true}}, items...)
	}
	if changed && !has("MODSEQ") {
		items = append(items, imap.FetchItem{Name: "MODSEQ", Label: "MODSEQ", Peek: true})
	}
	writers := make([]*fetcher, len(items))
	for i := range items {
		if writers[i] = s.srv.features.fetch[items[i].Name]; writers[i] == nil {
			return nil, nil, imap.SyntaxError("Unknown parameter: " + strings.TrimSuffix(items[i].Name, "["))
		}
	}
	if has("MODSEQ") {
		s.enableCondstore(ctx)
	}
	return items, writers, nil
}

// markSeen sets \Seen on the messages that an item without PEEK shows, and returns which.
func (s *session) markSeen(ctx context.Context, f *fetch, uids store.UIDSet, items []imap.FetchItem) store.UIDSet {
	if s.box.readOnly {
		return nil
	}
	peek := true
	for i := range items {
		peek = peek && items[i].Peek
	}
	if peek {
		return nil
	}
	var unseen store.UIDSet
	s.box.each(uids, func(seq int) bool {
		if f.move(seq); !f.gone && f.entry.Flags&store.FlagSeen == 0 {
			unseen = unseen.Add(f.entry.UID)
		}
		return true
	})
	if len(unseen) == 0 {
		return nil
	}
	_, err := s.box.box.SetFlags(ctx, unseen, store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen})
	if err == nil {
		var view store.View
		if view, err = s.box.box.View(ctx); err == nil {
			f.view = view
			return unseen
		}
	}
	s.Log.Error("FETCH in " + s.box.name + ": setting \\Seen: " + err.Error())
	return nil
}

// move goes to another message.
func (f *fetch) move(seq int) {
	f.seq = seq
	f.closeBody()
	index, ghost := f.s.box.at(seq)
	if ghost != nil {
		f.entry, f.gone = *ghost, true
		return
	}
	uid := f.s.box.view.UID(index)
	if i, ok := f.view.Index(uid); ok {
		f.entry, f.gone = f.view.Entry(i), false
		return
	}
	f.entry, f.gone = f.s.box.view.Entry(index), true
}

func (f *fetch) closeBody() {
	if f.body != nil {
		_ = f.body.Close()
	}
	f.body, f.structure = nil, nil
}

// message writes one FETCH response.
func (f *fetch) message(items []imap.FetchItem, writers []*fetcher, seen store.UIDSet) error {
	s := f.s
	s.Room()
	s.Out = append(s.Out, "* "...)
	s.Out = append(imap.AppendNumber(s.Out, uint64(f.seq)), " FETCH ("...)
	written := false
	if !f.gone && seen.Contains(f.entry.UID) && !hasItem(items, "FLAGS") {
		s.Out = s.appendFlags(append(s.Out, "FLAGS "...), f.view, &f.entry)
		if s.enabled.condstore && !hasItem(items, "MODSEQ") {
			s.Out = imap.AppendNumber(append(s.Out, " MODSEQ ("...), uint64(f.entry.ModSeq))
			s.Out = append(s.Out, ')')
		}
		written = true
	}
	var failed error
	for i, w := range writers {
		before := len(s.Out)
		if written {
			s.Out = append(s.Out, ' ')
		}
		err := w.write(f, &items[i])
		if errors.Is(err, store.ErrExpunged) {
			f.expunged = f.expunged.AddRange(f.entry.UID, f.entry.UID)
			s.Out = append(append(s.Out, items[i].Label...), " NIL"...)
			err = nil
		}
		if err != nil {
			s.Out = s.Out[:before]
			failed = err
			break
		}
		written = true
	}
	if !written {
		s.Out = imap.AppendNumber(append(s.Out, "UID "...), uint64(f.entry.UID))
	}
	s.Out = append(s.Out, ")\r\n"...)
	return failed
}

func hasItem(items []imap.FetchItem, name string) bool {
	for i := range items {
		if items[i].Name == name {
			return true
		}
	}
	return false
}

// open opens the message's bytes; parts opens its structure.
func (f *fetch) open() error {
	if f.body != nil {
		return nil
	}
	if f.gone {
		return store.ErrExpunged
	}
	var err error
	f.body, err = f.s.box.box.Open(f.ctx, f.entry.UID)
	return err
}

func (f *fetch) parts() error {
	if f.structure != nil {
		return nil
	}
	if f.gone {
		return store.ErrExpunged
	}
	var err error
	f.structure, err = f.s.box.box.Structure(f.ctx, f.entry.UID)
	return err
}

func fetchEnvelope(f *fetch, _ *imap.FetchItem) error {
	if err := f.parts(); err != nil {
		return err
	}
	f.s.Out = message.AppendEnvelope(append(f.s.Out, "ENVELOPE "...), f.structure.Root.Envelope)
	return nil
}

func (f *fetch) bodyStructure(label string, extended bool) error {
	if err := f.parts(); err != nil {
		return err
	}
	f.s.Out = message.AppendBodyStructure(append(f.s.Out, label...), &f.structure.Root, extended)
	return nil
}

func saveDate(m *candidate) (time.Time, bool) { return m.entry.SaveDate, !m.entry.SaveDate.IsZero() }
