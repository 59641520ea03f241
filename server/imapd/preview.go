package imapd

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"postilion/mail/message"
	"postilion/proto/imap"
)

const (
	previewRunes = 200
	previewRead  = 32 << 10
)

// preview is RFC 8970 and the SNIPPET that came before it.
func preview() feature {
	return feature{
		capability: []string{"SNIPPET=FUZZY", "PREVIEW=FUZZY", "PREVIEW"},
		fetch: []fetcher{
			{"PREVIEW", fetchPreview},
			{"SNIPPET", func(f *fetch, item *imap.FetchItem) error {
				text, err := f.preview()
				if err == nil {
					f.s.Out = imap.AppendString(append(f.s.Out, "SNIPPET (FUZZY "...), text)
					f.s.Out = append(f.s.Out, ')')
				}
				return err
			}},
		},
	}
}

// fetchPreview is PREVIEW. No previews are kept, so a lazy one, which must not cost the reading of a body, is not known.
func fetchPreview(f *fetch, item *imap.FetchItem) error {
	if item.Lazy {
		f.s.Out = append(f.s.Out, "PREVIEW NIL"...)
		return nil
	}
	text, err := f.preview()
	if err == nil {
		f.s.Out = imap.AppendString(append(f.s.Out, "PREVIEW "...), text)
	}
	return err
}

// preview returns the beginning of the first text of a message as one line.
func (f *fetch) preview() ([]byte, error) {
	if err := f.parts(); err != nil {
		return nil, err
	}
	if err := f.open(); err != nil {
		return nil, err
	}
	part := firstText(&f.structure.Root)
	if part == nil {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(textReader(f.body, part), previewRead))
	if err != nil {
		return nil, err
	}
	html := strings.EqualFold(part.Subtype, "html")
	return oneLine(text, html), nil
}

func firstText(part *message.Part) *message.Part {
	if len(part.Children) == 0 {
		if part.Type == "" || strings.EqualFold(part.Type, "text") {
			return part
		}
		return nil
	}
	for i := range part.Children {
		if found := firstText(&part.Children[i]); found != nil {
			return found
		}
	}
	return nil
}

// oneLine takes runs of white space together, leaves out quoted lines and, of HTML, what stands in tags.
func oneLine(text []byte, html bool) []byte {
	var out []byte
	runes, space, tag, quoted, start := 0, false, false, false, true
	for len(text) > 0 && runes < previewRunes {
		r, n := utf8.DecodeRune(text)
		text = text[n:]
		switch {
		case r == '\n':
			start, quoted, space = true, false, true
			continue
		case start && r == '>' && !html:
			quoted = true
		case html && r == '<':
			tag = true
		case html && r == '>' && tag:
			tag, space = false, true
			continue
		}
		start = false
		if quoted || tag {
			continue
		}
		if unicode.IsSpace(r) {
			space = true
			continue
		}
		if space && len(out) > 0 {
			out = append(out, ' ')
			runes++
		}
		space = false
		out = utf8.AppendRune(out, r)
		runes++
	}
	return out
}
