package imapd

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"postilion/mail/charset"
	"postilion/mail/header"
	"postilion/mail/message"
	"postilion/proto/imap"
)

// dated tells a message's date of some kind; the day is taken in the time's own zone.
type dated func(m *candidate) (time.Time, bool)

// relation compares a day with the day asked for, both as midnight UTC.
type relation func(day, asked time.Time) bool

func before(day, asked time.Time) bool { return day.Before(asked) }
func on(day, asked time.Time) bool     { return day.Equal(asked) }
func since(day, asked time.Time) bool  { return !day.Before(asked) }

func dateKey(name string, get dated, holds relation) searcher {
	return searcher{name: name, make: func(_ *query, key *imap.SearchKey) matcher {
		return func(m *candidate) bool {
			t, ok := get(m)
			return ok && holds(dayOf(t.Local()), key.Date)
		}
	}}
}

// sentKey compares the Date field, whose day is meant in the sender's zone (RFC 9051 section 6.4.4).
func sentKey(name string, holds relation) searcher {
	return searcher{name: name, cost: 1, make: func(_ *query, key *imap.SearchKey) matcher {
		return func(m *candidate) bool {
			if m.parts() != nil || m.structure.Root.Envelope == nil || m.structure.Root.Envelope.Date == nil {
				return false
			}
			t, ok := header.ParseDate([]byte(*m.structure.Root.Envelope.Date))
			return ok && holds(dayOf(t), key.Date)
		}
	}}
}

func dayOf(t time.Time) time.Time {
	year, month, day := t.Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

func internalDate(m *candidate) (time.Time, bool) { return m.entry.InternalDate, true }

func addressKey(name string) searcher {
	return searcher{name: name, cost: 1, make: func(q *query, key *imap.SearchKey) matcher {
		return q.headerMatcher(name, key.Text)
	}}
}

// headerMatcher looks for text in a header field. The fields of the envelope are served from the structure; for others the header is read.
func (q *query) headerMatcher(field string, text []byte) matcher {
	needle := charset.Fold(text)
	return func(m *candidate) bool {
		if m.parts() != nil {
			return false
		}
		e := m.structure.Root.Envelope
		if e == nil {
			e = &message.Envelope{}
		}
		switch field {
		case "SUBJECT":
			return containsValue(e.Subject, needle)
		case "MESSAGE-ID":
			return containsValue(e.MessageID, needle)
		case "IN-REPLY-TO":
			return containsValue(e.InReplyTo, needle)
		case "FROM":
			return containsAddress(e.From, needle)
		case "TO":
			return containsAddress(e.To, needle)
		case "CC":
			return containsAddress(e.Cc, needle)
		case "BCC":
			return containsAddress(e.Bcc, needle)
		}
		return m.headerContains(field, needle)
	}
}

func containsValue(value *string, needle []byte) bool {
	if value == nil {
		return false
	}
	return bytes.Contains(foldHeader([]byte(*value)), needle)
}

// foldHeader decodes and folds an unfolded header value.
func foldHeader(value []byte) []byte {
	return charset.Fold(header.DecodeWords(nil, value))
}

// containsAddress looks into an address list written in a canonical way, so that quoting and comments do not matter.
func containsAddress(list []message.Address, needle []byte) bool {
	if len(list) == 0 {
		return false
	}
	var b strings.Builder
	group := false
	for i := range list {
		a := &list[i]
		switch {
		case a.Mailbox == nil:
			b.WriteString(";")
			group = false
			continue
		case i > 0 && !group:
			b.WriteString(", ")
		}
		group = false
		if a.Host == nil {
			b.WriteString(*a.Mailbox + ": ")
			group = true
			continue
		}
		if a.Name != nil {
			b.WriteString(*a.Name + " <" + *a.Mailbox + "@" + *a.Host + ">")
		} else {
			b.WriteString(*a.Mailbox + "@" + *a.Host)
		}
	}
	return bytes.Contains(foldHeader([]byte(b.String())), needle)
}

func (m *candidate) headerContains(field string, needle []byte) bool {
	root := &m.structure.Root
	text, err := m.read(span{root.HeaderStart, root.BodyStart})
	if err != nil {
		return false
	}
	for f := range message.Fields(text) {
		if f.Is(field) && bytes.Contains(foldHeader(message.Unfold(nil, f.Value)), needle) {
			return true
		}
	}
	return false
}

// textMatcher looks for text in the decoded text of all parts that have any, and with headers in all headers.
func (q *query) textMatcher(text []byte, headers bool) matcher {
	needle := charset.Fold(text)
	return func(m *candidate) bool {
		if m.parts() != nil || m.open() != nil {
			return false
		}
		return m.partContains(&m.structure.Root, needle, headers)
	}
}

func (m *candidate) partContains(part *message.Part, needle []byte, headers bool) bool {
	if headers && part.BodyStart > part.HeaderStart {
		text, err := m.read(span{part.HeaderStart, part.BodyStart})
		if err != nil {
			return false
		}
		for f := range message.Fields(text) {
			line := append(append([]byte{}, f.Name...), ": "...)
			if bytes.Contains(foldHeader(message.Unfold(line, f.Value)), needle) {
				return true
			}
		}
	}
	for i := range part.Children {
		if m.partContains(&part.Children[i], needle, headers) {
			return true
		}
	}
	if len(part.Children) > 0 || !textual(part) {
		return false
	}
	return streamContains(textReader(m.body, part), needle)
}

// textReader reads the text of a part as UTF-8. Text that is that already is read as it stands.
func textReader(body io.ReaderAt, part *message.Part) io.Reader {
	raw := io.NewSectionReader(body, part.BodyStart, part.BodyEnd-part.BodyStart)
	name := part.Param("charset")
	switch strings.ToLower(part.Encoding) {
	case "", "7bit", "8bit", "binary":
		if name == "" || strings.EqualFold(name, "us-ascii") || strings.EqualFold(name, "utf-8") {
			return raw
		}
	}
	return charset.NewTextReader(raw, part.Encoding, name)
}

// scanner holds the buffers of streamContains.
type scanner struct {
	raw, folded []byte
}

var scanners = sync.Pool{New: func() any { return &scanner{raw: make([]byte, 0, 16<<10)} }}

// textual tells whether a part's body is looked at: text, messages, and what does not say what it is.
func textual(part *message.Part) bool {
	return part.Type == "" || strings.EqualFold(part.Type, "text") || strings.EqualFold(part.Type, "message")
}

// streamContains looks for a folded needle in text of UTF-8 that is folded as it comes.
func streamContains(r io.Reader, needle []byte) bool {
	if len(needle) == 0 {
		return true
	}
	sc := scanners.Get().(*scanner)
	raw, folded := sc.raw[:0], sc.folded[:0]
	defer func() {
		sc.raw, sc.folded = raw, folded
		scanners.Put(sc)
	}()
	for {
		n, err := r.Read(raw[len(raw):cap(raw)])
		raw = raw[:len(raw)+n]
		whole := len(raw)
		if err == nil {
			whole = wholeRunes(raw)
		}
		folded = charset.AppendFold(folded, raw[:whole])
		raw = raw[:copy(raw, raw[whole:])]
		if bytes.Contains(folded, needle) {
			return true
		}
		if err != nil {
			return false
		}
		if keep := len(needle) - 1; len(folded) > keep {
			folded = folded[:copy(folded, folded[len(folded)-keep:])]
		}
	}
}

// wholeRunes returns the length of text without a last character that is not complete.
func wholeRunes(text []byte) int {
	for i := 1; i <= min(utf8.UTFMax, len(text)); i++ {
		if at := len(text) - i; utf8.RuneStart(text[at]) {
			if utf8.FullRune(text[at:]) {
				return len(text)
			}
			return at
		}
	}
	return len(text)
}
