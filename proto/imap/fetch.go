package imap

import (
	"bytes"
	"fmt"
	"strconv"
)

// FetchItem is one item that FETCH asks for.
type FetchItem struct {
	// Name is the item's name in capitals; items with a section end in "[" ("BODY[", "BODY.PEEK[", "BINARY.SIZE[").
	Name    string
	Section Section
	// Partial is true when a part of the octets is asked for: Length of them from Offset. Dovecot takes <5> for all from the fifth on, and a
	// length of 0.
	Partial        bool
	Offset, Length uint64
	// Lazy is true when a PREVIEW that is not at hand need not be made.
	Lazy bool
	// Peek is true when fetching the item does not set \Seen.
	Peek bool
	// Label is what the response calls the item.
	Label string
}

// Section is the section of BODY[] and BINARY[].
type Section struct {
	// Path numbers parts from 1.
	Path []uint32
	Kind SectionKind
	// Fields are the names of HEADER.FIELDS in capitals.
	Fields []string
}

// SectionKind is what of a part is meant.
type SectionKind uint8

// The kinds of sections.
const (
	WholeSection SectionKind = iota
	HeaderSection
	HeaderFields
	HeaderFieldsNot
	TextSection
	MIMESection
)

// FetchSpec is how one FETCH item is read.
type FetchSpec struct {
	Name string
	// Parse reads what follows the name; nil when nothing does.
	Parse func(p *FetchParser, item *FetchItem) error
}

// FetchParser walks over the items of a FETCH.
type FetchParser struct {
	args []Arg
	// word is the present item as written, rest what follows its name.
	word, rest []byte
}

// ParseFetch reads FETCH's items: one of the macros, one item, or a list.
func (g *Grammar) ParseFetch(args []Arg) (items []FetchItem, rest []Arg, err error) {
	if len(args) == 0 {
		return nil, nil, SyntaxError("Invalid arguments")
	}
	p := &FetchParser{}
	switch first := &args[0]; {
	case first.Kind == List && len(first.List) == 0:
		return nil, nil, SyntaxError("FETCH list is empty")
	case first.Kind == List:
		p.args = first.List
		for len(p.args) > 0 {
			item, err := g.fetchItem(p)
			if err != nil {
				return nil, nil, err
			}
			items = addItem(items, item)
		}
		return items, args[1:], nil
	case first.Kind != Atom:
		return nil, nil, SyntaxError("Invalid arguments")
	}
	for _, name := range fetchMacro(args[0].Upper()) {
		items = append(items, FetchItem{Name: name, Label: name, Peek: true})
	}
	if items != nil {
		return items, args[1:], nil
	}
	p.args = args
	item, err := g.fetchItem(p)
	return []FetchItem{item}, p.args, err
}

func addItem(items []FetchItem, item FetchItem) []FetchItem {
	if item.Section.Kind == WholeSection && item.Section.Path == nil {
		for _, other := range items {
			if other.Name == item.Name && other.Label == item.Label {
				return items
			}
		}
	}
	return append(items, item)
}

func fetchMacro(name string) []string {
	switch name {
	case "ALL":
		return []string{"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"}
	case "FAST":
		return []string{"FLAGS", "INTERNALDATE", "RFC822.SIZE"}
	case "FULL":
		return []string{"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"}
	}
	return nil
}

func (g *Grammar) fetchItem(p *FetchParser) (FetchItem, error) {
	arg := p.args[0]
	if arg.Kind != Atom {
		return FetchItem{}, SyntaxError("FETCH list contains non-atoms")
	}
	p.args = p.args[1:]
	p.word, p.rest = arg.Text, nil
	name := p.word
	if i := bytes.IndexByte(name, '['); i >= 0 {
		name, p.rest = name[:i+1], name[i+1:]
	}
	item := FetchItem{Name: upper(name), Peek: true}
	spec := g.fetch[item.Name]
	if spec == nil {
		return item, SyntaxError("Unknown parameter: " + upper(p.word))
	}
	if item.Label = item.Name; spec.Parse == nil {
		return item, nil
	}
	err := spec.Parse(p, &item)
	return item, err
}

func baseFetch() []FetchSpec {
	body := func(peek bool) func(*FetchParser, *FetchItem) error {
		return func(p *FetchParser, item *FetchItem) error {
			item.Peek = peek
			return p.section(item)
		}
	}
	sees := func(_ *FetchParser, item *FetchItem) error {
		item.Peek = false
		return nil
	}
	return []FetchSpec{
		{Name: "UID"},
		{Name: "FLAGS"},
		{Name: "INTERNALDATE"},
		{Name: "RFC822.SIZE"},
		{Name: "ENVELOPE"},
		{Name: "BODYSTRUCTURE"},
		{Name: "BODY"},
		{Name: "RFC822.HEADER"},
		{Name: "RFC822", Parse: sees},
		{Name: "RFC822.TEXT", Parse: sees},
		{Name: "EMAILID"},
		{Name: "THREADID"},
		{Name: "BODY[", Parse: body(false)},
		{Name: "BODY.PEEK[", Parse: body(true)},
	}
}

const badSection = SyntaxError("Invalid BODY[..] section")

// section reads the section after "BODY[", with the list of header fields, which are arguments of their own, and the partial.
func (p *FetchParser) section(item *FetchItem) error {
	text := p.rest
	end := bytes.IndexByte(text, ']')
	tail := []byte(nil)
	if end >= 0 {
		text, tail = text[:end], text[end+1:]
	}
	section, err := parseSection(text)
	if err != nil {
		if end < 0 && len(p.args) == 0 {
			return SyntaxError("Invalid BODY[..] parameter: Missing ']'")
		}
		return err
	}
	item.Section = section
	label := append([]byte("BODY["), upper(text)...)
	if section.Kind == HeaderFields || section.Kind == HeaderFieldsNot {
		if end >= 0 || len(p.args) == 0 || p.args[0].Kind != List {
			return badSection
		}
		if label, err = p.fields(label, item); err != nil {
			return err
		}
		if len(p.args) == 0 || p.args[0].Kind != Atom || p.args[0].Text[0] != ']' {
			return SyntaxError("Invalid BODY[..] parameter: Missing ']'")
		}
		tail = p.args[0].Text[1:]
		p.args = p.args[1:]
	} else if end < 0 {
		return SyntaxError("Invalid BODY[..] parameter: Missing ']'")
	}
	item.Label = string(append(label, ']'))
	return p.partial(item, tail)
}

// fields reads the names after HEADER.FIELDS and writes them to the label as the client wrote them.
func (p *FetchParser) fields(label []byte, item *FetchItem) ([]byte, error) {
	list := p.args[0].List
	p.args = p.args[1:]
	if len(list) == 0 {
		return nil, badSection
	}
	label = append(label, " ("...)
	for i := range list {
		field := &list[i]
		if !field.IsString() {
			return nil, badSection
		}
		name := field.Upper()
		item.Section.Fields = append(item.Section.Fields, name)
		if i > 0 {
			label = append(label, ' ')
		}
		if field.Kind == Atom {
			label = append(label, name...)
		} else {
			label = AppendString(label, []byte(name))
		}
	}
	return append(label, ')'), nil
}

func (p *FetchParser) partial(item *FetchItem, tail []byte) error {
	if len(tail) == 0 {
		return nil
	}
	inner, ok := bytes.CutPrefix(tail, []byte("<"))
	inner, ok2 := bytes.CutSuffix(inner, []byte(">"))
	offset, length, ranged := bytes.Cut(inner, []byte("."))
	o, ok3 := number(offset)
	n, ok4 := uint64(1<<62), true
	if ranged {
		n, ok4 = number(length)
	}
	if !ok || !ok2 || !ok3 || !ok4 || o > 1<<62 || n > 1<<62 {
		return SyntaxError("Invalid BODY[..] parameter: Invalid partial " + strconv.Quote(string(tail)))
	}
	item.Partial, item.Offset, item.Length = true, o, n
	item.Label += fmt.Sprintf("<%d>", o)
	return nil
}

func parseSection(text []byte) (Section, error) {
	var s Section
	for len(text) > 0 && '0' <= text[0] && text[0] <= '9' {
		head, rest, more := bytes.Cut(text, []byte("."))
		n, ok := number(head)
		if !ok || n >= 1<<32 || more && len(rest) == 0 || len(s.Path) == 200 {
			return s, badSection
		}
		s.Path = append(s.Path, uint32(n))
		text = rest
	}
	switch upper(text) {
	case "":
		s.Kind = WholeSection
	case "HEADER":
		s.Kind = HeaderSection
	case "HEADER.FIELDS":
		s.Kind = HeaderFields
	case "HEADER.FIELDS.NOT":
		s.Kind = HeaderFieldsNot
	case "TEXT":
		s.Kind = TextSection
	case "MIME":
		if s.Kind = MIMESection; len(s.Path) == 0 {
			return s, badSection
		}
	default:
		return s, badSection
	}
	return s, nil
}

func parseBinary(peek bool) func(*FetchParser, *FetchItem) error {
	return func(p *FetchParser, item *FetchItem) error {
		item.Peek = peek
		end := bytes.IndexByte(p.rest, ']')
		if end < 0 {
			return SyntaxError("Invalid BINARY[..] parameter: Missing ']'")
		}
		section, err := parseSection(p.rest[:end])
		if err != nil || section.Kind != WholeSection {
			return SyntaxError("Invalid BINARY[..] section")
		}
		item.Section = section
		if item.Label = "BINARY["; item.Name == "BINARY.SIZE[" {
			item.Label = item.Name
			if len(p.rest) > end+1 {
				return SyntaxError("Invalid BINARY[..] parameter: Unexpected partial")
			}
		}
		item.Label += upper(p.rest[:end]) + "]"
		return p.partial(item, p.rest[end+1:])
	}
}

// parsePreview reads the modifier list of RFC 8970.
func parsePreview(p *FetchParser, item *FetchItem) error {
	if len(p.args) == 0 || p.args[0].Kind != List {
		return nil
	}
	for i := range p.args[0].List {
		word := &p.args[0].List[i]
		if !word.IsAtom("LAZY") && !word.IsAtom("FUZZY") && !word.IsAtom("LAZY=FUZZY") {
			return SyntaxError("'" + string(word.Text) + "' is not a supported PREVIEW modifier")
		}
		item.Lazy = item.Lazy || !word.IsAtom("FUZZY")
	}
	p.args = p.args[1:]
	return nil
}
