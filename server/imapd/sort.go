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
	"postilion/store"
)

// sorting is RFC 5256's SORT, RFC 5267's ESORT and RFC 5957's display names.
func sorting() feature {
	return feature{
		capability: []string{"SORT", "SORT=DISPLAY"},
		commands: []command{
			{name: "SORT", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.sort(ctx, cmd, false) }},
			{name: "UID SORT", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) { s.sort(ctx, cmd, true) }},
		},
	}
}

// sortable is a message found with the values it is sorted by: one for each key, of one of the kinds.
type sortable struct {
	hit
	numbers []int64
	texts   [][]byte
}

func (s *session) sort(ctx context.Context, cmd *imap.Command, byUID bool) {
	keys, search, err := s.srv.grammar.ParseSort(cmd.Args)
	if err == nil {
		if _, ok := charset.Lookup(search.Charset); !ok {
			err = failure{"BADCHARSET", "Unknown charset"}
		}
	}
	var found []hit
	var highest store.ModSeq
	if err == nil {
		if search.UsesModSeq {
			s.enableCondstore(ctx)
		}
		found, highest, err = s.findMessages(ctx, search)
	}
	if err == nil {
		found, err = s.sortHits(ctx, found, keys)
	}
	if err != nil {
		s.fail(ctx, cmd, err, place{})
		return
	}
	if search.Save {
		s.saveResult(search, found)
	}
	switch {
	case !search.Return:
		s.sendSearch("SORT", search, found, highest, byUID)
	case search.Min || search.Max || search.All || search.Count || search.PartialFirst > 0:
		s.sendESearch(cmd.Tag, search, found, highest, byUID)
	}
	s.finishWith(ctx, cmd, "OK Sort completed.", syncing{keepExpunged: !byUID, uid: byUID})
}

func (s *session) sortHits(ctx context.Context, found []hit, keys []imap.SortKey) ([]hit, error) {
	f := &fetch{s: s, ctx: ctx}
	var err error
	if f.view, err = s.box.box.View(ctx); err != nil {
		return nil, err
	}
	all := make([]sortable, len(found))
	for i, h := range found {
		f.move(h.seq)
		all[i] = sortable{hit: h, numbers: make([]int64, len(keys)), texts: make([][]byte, len(keys))}
		for k := range keys {
			all[i].numbers[k], all[i].texts[k] = f.sortValue(keys[k].Name)
		}
	}
	f.closeBody()
	slices.SortStableFunc(all, func(a, b sortable) int {
		for k := range keys {
			c := cmp.Compare(a.numbers[k], b.numbers[k])
			if c == 0 {
				c = bytes.Compare(a.texts[k], b.texts[k])
			}
			if keys[k].Reverse {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	for i := range all {
		found[i] = all[i].hit
	}
	return found, nil
}

// sortValue gives what a message is sorted by; a message that is gone has empty values.
func (f *fetch) sortValue(name string) (int64, []byte) {
	switch name {
	case "ARRIVAL":
		return f.entry.InternalDate.Unix(), nil
	case "SIZE":
		return f.entry.Size, nil
	}
	e := &message.Envelope{}
	if f.parts() == nil && f.structure.Root.Envelope != nil {
		e = f.structure.Root.Envelope
	}
	switch name {
	case "DATE":
		return sentDate(e, f.entry.InternalDate).Unix(), nil
	case "SUBJECT":
		if e.Subject == nil {
			return 0, nil
		}
		return 0, charset.Fold(baseSubject(header.DecodeWords(nil, []byte(*e.Subject))))
	case "FROM":
		return 0, localPart(e.From)
	case "TO":
		return 0, localPart(e.To)
	case "CC":
		return 0, localPart(e.Cc)
	case "DISPLAYFROM":
		return 0, displayName(e.From)
	case "DISPLAYTO":
		return 0, displayName(e.To)
	}
	return 0, nil
}

// sentDate is the Date field, or the internal date when there is none (RFC 5256 section 2.2).
func sentDate(e *message.Envelope, internal time.Time) time.Time {
	if e.Date != nil {
		if t, ok := header.ParseDate([]byte(*e.Date)); ok {
			return t
		}
	}
	return internal
}

// firstMailbox returns the first address of a list that is no group's name or end.
func firstMailbox(list []message.Address) *message.Address {
	for i := range list {
		if list[i].Mailbox != nil && list[i].Host != nil {
			return &list[i]
		}
	}
	return nil
}

func localPart(list []message.Address) []byte {
	a := firstMailbox(list)
	if a == nil {
		return nil
	}
	return charset.Fold([]byte(*a.Mailbox))
}

func displayName(list []message.Address) []byte {
	a := firstMailbox(list)
	switch {
	case a == nil:
		return nil
	case a.Name != nil && *a.Name != "":
		return foldHeader([]byte(*a.Name))
	}
	return charset.Fold([]byte(*a.Mailbox + "@" + *a.Host))
}

// baseSubject takes off what replying and forwarding add (RFC 5256 section 2.1).
func baseSubject(subject []byte) []byte {
	text := bytes.Join(bytes.Fields(subject), []byte(" "))
	for {
		for {
			rest, ok := cutSuffixFold(text, "(fwd)")
			if !ok {
				break
			}
			text = bytes.TrimRight(rest, " ")
		}
		for {
			rest := subjectLeader(text)
			if len(rest) == len(text) {
				if rest = subjectBlob(text); len(rest) == 0 {
					rest = text
				}
			}
			if len(rest) == len(text) {
				break
			}
			text = rest
		}
		inner, ok := cutPrefixFold(text, "[fwd:")
		if !ok || !bytes.HasSuffix(inner, []byte("]")) {
			return text
		}
		text = bytes.TrimSpace(inner[:len(inner)-1])
	}
}

// subjectLeader cuts *blob ("re" / "fw" / "fwd") [blob] ":" from the beginning.
func subjectLeader(text []byte) []byte {
	rest := text
	for {
		next := subjectBlob(rest)
		if len(next) == len(rest) {
			break
		}
		rest = next
	}
	for _, word := range []string{"fwd", "fw", "re"} {
		after, ok := cutPrefixFold(rest, word)
		if !ok {
			continue
		}
		after = subjectBlob(bytes.TrimLeft(after, " "))
		if len(after) > 0 && after[0] == ':' {
			return bytes.TrimLeft(after[1:], " ")
		}
	}
	return text
}

// subjectBlob cuts a bracketed word from the beginning.
func subjectBlob(text []byte) []byte {
	if len(text) == 0 || text[0] != '[' {
		return text
	}
	end := bytes.IndexAny(text[1:], "[]")
	if end < 0 || text[1+end] != ']' {
		return text
	}
	return bytes.TrimLeft(text[end+2:], " ")
}

func cutPrefixFold(text []byte, prefix string) ([]byte, bool) {
	if len(text) < len(prefix) || !bytes.EqualFold(text[:len(prefix)], []byte(prefix)) {
		return text, false
	}
	return text[len(prefix):], true
}

func cutSuffixFold(text []byte, suffix string) ([]byte, bool) {
	n := len(text) - len(suffix)
	if n < 0 || !bytes.EqualFold(text[n:], []byte(suffix)) {
		return text, false
	}
	return text[:n], true
}
