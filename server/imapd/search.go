package imapd

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"postilion/mail/charset"
	"postilion/proto/imap"
	"postilion/store"
)

// candidate is the message that a SEARCH looks at. Its parts and bytes are opened only by keys that need them.
type candidate struct {
	fetch
}

// matcher tells whether a message is what was asked for.
type matcher func(m *candidate) bool

// searcher makes the matcher of one SEARCH key.
type searcher struct {
	name string
	// cost orders the keys of a conjunction: 0 looks at the entry, 1 at the structure, 2 at the header, 3 at the body.
	cost int
	make func(q *query, key *imap.SearchKey) matcher
}

// query is a SEARCH under way.
type query struct {
	s      *session
	search *imap.Search
	now    time.Time
}

func everything(*candidate) bool { return true }

func searching() feature {
	keys := []searcher{
		{name: "ALL", make: func(*query, *imap.SearchKey) matcher { return everything }},
		{name: "SEQ", make: func(q *query, key *imap.SearchKey) matcher { return q.inSet(key.Set, false) }},
		{name: "UID", make: func(q *query, key *imap.SearchKey) matcher { return q.inSet(key.Set, true) }},
		{name: "KEYWORD", make: func(_ *query, key *imap.SearchKey) matcher { return hasKeyword(key.Field) }},
		{name: "UNKEYWORD", make: func(_ *query, key *imap.SearchKey) matcher { return not(hasKeyword(key.Field)) }},
		{name: "LARGER", make: func(_ *query, key *imap.SearchKey) matcher {
			return func(m *candidate) bool { return uint64(m.entry.Size) > key.Number }
		}},
		{name: "SMALLER", make: func(_ *query, key *imap.SearchKey) matcher {
			return func(m *candidate) bool { return uint64(m.entry.Size) < key.Number }
		}},
		dateKey("BEFORE", internalDate, before), dateKey("ON", internalDate, on), dateKey("SINCE", internalDate, since),
		sentKey("SENTBEFORE", before), sentKey("SENTON", on), sentKey("SENTSINCE", since),
		addressKey("FROM"), addressKey("TO"), addressKey("CC"), addressKey("BCC"),
		{name: "SUBJECT", cost: 1, make: func(q *query, key *imap.SearchKey) matcher { return q.headerMatcher("SUBJECT", key.Text) }},
		{name: "HEADER", cost: 2, make: func(q *query, key *imap.SearchKey) matcher { return q.headerMatcher(key.Field, key.Text) }},
		{name: "BODY", cost: 3, make: func(q *query, key *imap.SearchKey) matcher { return q.textMatcher(key.Text, false) }},
		{name: "TEXT", cost: 3, make: func(q *query, key *imap.SearchKey) matcher { return q.textMatcher(key.Text, true) }},
	}
	for _, f := range []struct {
		name string
		flag store.Flags
	}{
		{"ANSWERED", store.FlagAnswered}, {"DELETED", store.FlagDeleted}, {"DRAFT", store.FlagDraft}, {"FLAGGED", store.FlagFlagged}, {"SEEN", store.FlagSeen},
	} {
		has := func(m *candidate) bool { return m.entry.Flags&f.flag != 0 }
		keys = append(keys,
			searcher{name: f.name, make: func(*query, *imap.SearchKey) matcher { return has }},
			searcher{name: "UN" + f.name, make: func(*query, *imap.SearchKey) matcher { return not(has) }})
	}
	recent := func(m *candidate) bool { return m.s.box.isRecent(m.entry.UID) }
	keys = append(keys,
		searcher{name: "RECENT", make: func(*query, *imap.SearchKey) matcher { return recent }},
		searcher{name: "OLD", make: func(*query, *imap.SearchKey) matcher { return not(recent) }},
		searcher{name: "NEW", make: func(*query, *imap.SearchKey) matcher {
			return func(m *candidate) bool { return recent(m) && m.entry.Flags&store.FlagSeen == 0 }
		}})
	return feature{
		commands: []command{
			{name: "SEARCH", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.search(ctx, cmd, false) }},
			{name: "UID SEARCH", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.search(ctx, cmd, true) }},
		},
		search: keys,
	}
}

// esearch is RFC 4731 and RFC 5182.
func esearch() feature {
	return feature{
		capability: []string{"ESEARCH", "ESORT", "SEARCHRES"},
		search: []searcher{{name: "$", make: func(q *query, _ *imap.SearchKey) matcher {
			return q.inSet(imap.SeqSet{Saved: true}, true)
		}}},
	}
}

// within is RFC 5032.
func within() feature {
	age := func(younger bool) func(*query, *imap.SearchKey) matcher {
		return func(q *query, key *imap.SearchKey) matcher {
			limit := q.now.Add(-time.Duration(key.Number) * time.Second)
			return func(m *candidate) bool { return m.entry.InternalDate.After(limit) == younger }
		}
	}
	return feature{
		capability: []string{"WITHIN"},
		search:     []searcher{{name: "OLDER", make: age(false)}, {name: "YOUNGER", make: age(true)}},
	}
}

func not(inner matcher) matcher { return func(m *candidate) bool { return !inner(m) } }

func hasKeyword(word string) matcher {
	return func(m *candidate) bool {
		for _, k := range m.entry.Keywords {
			if strings.EqualFold(m.view.Keywords()[k], word) {
				return true
			}
		}
		return false
	}
}

func (q *query) inSet(set imap.SeqSet, byUID bool) matcher {
	if byUID || set.Saved {
		uids, _ := q.s.resolveSet(set, true)
		return func(m *candidate) bool { return uids.Contains(m.entry.UID) }
	}
	var seqs store.UIDSet
	last := uint32(q.s.box.length())
	for _, r := range set.Ranges {
		// Beside others a "*" is no message here but the end of all, so that 9:* finds nothing among five.
		low, high := r.Resolve(math.MaxUint32)
		if low == math.MaxUint32 {
			low = last
		}
		if high = min(high, last); low > high || low == 0 {
			continue
		}
		seqs = seqs.AddRange(store.UID(low), store.UID(high))
	}
	return func(m *candidate) bool { return seqs.Contains(store.UID(m.seq)) }
}

// compile makes the matcher of a tree of keys; the cheap keys of a conjunction or disjunction come first.
func (q *query) compile(key *imap.SearchKey) (matcher, int, error) {
	switch key.Name {
	case "NOT":
		inner, cost, err := q.compile(&key.Keys[0])
		if err != nil {
			return nil, 0, err
		}
		return not(inner), cost, nil
	case "AND", "OR":
		type part struct {
			match matcher
			cost  int
		}
		parts := make([]part, 0, len(key.Keys))
		most := 0
		for i := range key.Keys {
			match, cost, err := q.compile(&key.Keys[i])
			if err != nil {
				return nil, 0, err
			}
			parts = append(parts, part{match, cost})
			most = max(most, cost)
		}
		slices.SortStableFunc(parts, func(a, b part) int { return a.cost - b.cost })
		all := key.Name == "AND"
		return func(m *candidate) bool {
			for i := range parts {
				if parts[i].match(m) != all {
					return !all
				}
			}
			return all
		}, most, nil
	}
	maker := q.s.srv.features.search[key.Name]
	if maker == nil {
		return nil, 0, imap.SyntaxError("Unknown argument " + key.Name)
	}
	if q.search.Charset != "" && len(key.Text) > 0 {
		key.Text = charset.Append(nil, key.Text, q.search.Charset)
	}
	return maker.make(q, key), maker.cost, nil
}

func (s *session) search(ctx context.Context, cmd *imap.Command, byUID bool) {
	search, err := s.srv.grammar.ParseSearch(cmd.Args)
	if err == nil && search.Charset != "" {
		if _, ok := charset.Lookup(search.Charset); !ok {
			err = failure{"BADCHARSET", "Unknown charset"}
		}
	}
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	if search.UsesModSeq {
		s.enableCondstore(ctx)
	}
	if s.enabled.rev2 && !search.Return {
		search.Return, search.All = true, true
	}
	var found []hit
	var highest store.ModSeq
	match, err := s.matcher(search)
	if err == nil {
		found, highest, err = s.matching(ctx, match)
	}
	how := syncing{keepExpunged: !byUID, uid: byUID}
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	if search.Save {
		s.saveResult(search, found)
	}
	switch {
	case !search.Return:
		s.sendSearch("SEARCH", search, found, highest, byUID)
	case search.Min || search.Max || search.All || search.Count || search.PartialFirst > 0 || search.Update:
		s.sendESearch(cmd.Tag, search, found, highest, byUID)
	}
	if search.Update {
		s.keepUpdated(cmd.Tag, byUID, match, found)
	}
	s.finishWith(ctx, cmd, "OK Search completed.", how)
}

// hit is a message found.
type hit struct {
	seq int
	uid store.UID
}

// number is what a result calls the message.
func (h hit) number(byUID bool) store.UID {
	if byUID {
		return h.uid
	}
	return store.UID(h.seq)
}

func (s *session) findMessages(ctx context.Context, search *imap.Search) ([]hit, store.ModSeq, error) {
	match, err := s.matcher(search)
	if err != nil {
		return nil, 0, err
	}
	return s.matching(ctx, match)
}

func (s *session) matcher(search *imap.Search) (matcher, error) {
	q := &query{s: s, search: search, now: time.Now()}
	match, _, err := q.compile(&search.Key)
	return match, err
}

// matching returns the messages that match and their highest mod-sequence.
func (s *session) matching(ctx context.Context, match matcher) ([]hit, store.ModSeq, error) {
	m := &candidate{fetch{s: s, ctx: ctx}}
	var err error
	if m.view, err = s.box.box.View(ctx); err != nil {
		return nil, 0, err
	}
	var found []hit
	var highest store.ModSeq
	for seq := 1; seq <= s.box.length(); seq++ {
		m.move(seq)
		if match(m) {
			found = append(found, hit{seq, m.entry.UID})
			highest = max(highest, m.entry.ModSeq)
		}
	}
	m.closeBody()
	return found, highest, nil
}

// saveResult keeps what "$" means (RFC 5182 section 2.1): with MIN or MAX and nothing else only those.
func (s *session) saveResult(search *imap.Search, found []hit) {
	s.saved = nil
	if (search.Min || search.Max) && !search.All && !search.Count && len(found) > 0 {
		if search.Min {
			s.saved = s.saved.Add(found[0].uid)
		}
		if search.Max {
			s.saved = s.saved.Add(found[len(found)-1].uid)
		}
		return
	}
	for _, h := range found {
		s.saved = s.saved.Add(h.uid)
	}
}

func (s *session) sendSearch(name string, search *imap.Search, found []hit, highest store.ModSeq, byUID bool) {
	s.Send("* " + name)
	for _, h := range found {
		s.Out = imap.AppendNumber(append(s.Out, ' '), uint64(h.number(byUID)))
		s.Overflow()
	}
	if search.UsesModSeq && len(found) > 0 {
		s.Out = imap.AppendNumber(append(s.Out, " (MODSEQ "...), uint64(highest))
		s.Out = append(s.Out, ')')
	}
	s.Out = append(s.Out, "\r\n"...)
}

func (s *session) sendESearch(tag string, search *imap.Search, found []hit, highest store.ModSeq, byUID bool) {
	s.Send("* ESEARCH (TAG ")
	s.Out = append(imap.AppendString(s.Out, []byte(tag)), ')')
	if byUID {
		s.Out = append(s.Out, " UID"...)
	}
	n := len(found)
	if search.Min && n > 0 {
		s.Out = imap.AppendNumber(append(s.Out, " MIN "...), uint64(found[0].number(byUID)))
	}
	if search.Max && n > 0 {
		s.Out = imap.AppendNumber(append(s.Out, " MAX "...), uint64(found[n-1].number(byUID)))
	}
	if search.All && n > 0 {
		s.Out = appendHits(append(s.Out, " ALL "...), found, byUID)
	}
	if search.PartialFirst > 0 {
		s.Out = imap.AppendNumber(append(s.Out, " PARTIAL ("...), uint64(search.PartialFirst))
		s.Out = append(imap.AppendNumber(append(s.Out, ':'), uint64(search.PartialLast)), ' ')
		first := min(int(search.PartialFirst)-1, n)
		if part := found[first:max(first, min(int(search.PartialLast), n))]; len(part) > 0 {
			s.Out = appendHits(s.Out, part, byUID)
		} else {
			s.Out = append(s.Out, "NIL"...)
		}
		s.Out = append(s.Out, ')')
	}
	if search.Count {
		s.Out = imap.AppendNumber(append(s.Out, " COUNT "...), uint64(n))
	}
	if search.UsesModSeq && n > 0 {
		s.Out = imap.AppendNumber(append(s.Out, " MODSEQ "...), uint64(highest))
	}
	s.Out = append(s.Out, "\r\n"...)
}

func appendHits(dst []byte, found []hit, byUID bool) []byte {
	numbers := make([]store.UID, len(found))
	for i, h := range found {
		numbers[i] = h.number(byUID)
	}
	return appendUIDs(dst, numbers)
}
