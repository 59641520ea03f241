package imap

import (
	"math"
	"strings"
	"time"
)

// SearchKey is a node of what SEARCH asks for.
type SearchKey struct {
	// Name is the key in capitals; "AND", "OR" and "NOT" have Keys, "SEQ" has Set.
	Name string
	Keys []SearchKey
	Set  SeqSet
	// Field is the header's name in capitals (HEADER), or the keyword.
	Field string
	// Text is what is looked for, in the charset of the search.
	Text []byte
	Date time.Time
	// Number is a size, an interval in seconds or a mod-sequence.
	Number uint64
}

// SearchSpec is how one SEARCH key is read.
type SearchSpec struct {
	Name string
	// Parse reads the key's arguments; nil when it has none.
	Parse func(p *SearchParser, key *SearchKey) error
}

// Search is a SEARCH command.
type Search struct {
	Key SearchKey
	// Charset is in capitals, "" when none was named.
	Charset string
	// Return is true when RETURN was given (RFC 4731); what it names is below. PartialFirst is 0 without PARTIAL (RFC 5267).
	Return                     bool
	Min, Max, All, Count, Save bool
	Update, Context            bool
	PartialFirst, PartialLast  uint32
	partialGiven               bool
	UsesModSeq                 bool
}

const maxSearchKeys = 20000

// SearchParser walks over the arguments of SEARCH.
type SearchParser struct {
	grammar *Grammar
	search  *Search
	args    []Arg
	key     string
	depth   int
	keys    int
}

// ParseSearch reads the arguments of SEARCH (RFC 9051 section 6.4.4, RFC 4731, RFC 5182, RFC 5267).
func (g *Grammar) ParseSearch(args []Arg) (*Search, error) {
	s := &Search{}
	var err error
	if len(args) > 0 && args[0].IsAtom("RETURN") {
		if len(args) < 2 || args[1].Kind != List {
			return nil, SyntaxError("SEARCH return options must be a list.")
		}
		if err = s.options(args[1].List); err != nil {
			return nil, err
		}
		args = args[2:]
	}
	if len(args) > 0 && args[0].IsAtom("CHARSET") {
		if len(args) < 2 || !args[1].IsString() {
			return nil, SyntaxError("Invalid charset argument.")
		}
		s.Charset = args[1].Upper()
		args = args[2:]
	}
	if len(args) == 0 {
		return nil, SyntaxError("Missing search parameters")
	}
	p := &SearchParser{grammar: g, search: s, args: args}
	s.Key, err = p.all()
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Search) options(list []Arg) error {
	s.Return = true
	for i := 0; i < len(list); i++ {
		if list[i].Kind != Atom {
			return SyntaxError("SEARCH return options contain non-atoms.")
		}
		switch list[i].Upper() {
		case "MIN":
			s.Min = true
		case "MAX":
			s.Max = true
		case "ALL":
			s.All = true
		case "COUNT":
			s.Count = true
		case "SAVE":
			s.Save = true
		case "UPDATE":
			s.Update = true
		case "CONTEXT":
			s.Context = true
		case "PARTIAL":
			if s.partialGiven {
				return SyntaxError("PARTIAL can be used only once.")
			}
			if i++; i == len(list) || list[i].Kind != Atom {
				return SyntaxError("PARTIAL range missing.")
			}
			set, ok := ParseSeqSet(list[i].Text)
			if !ok || len(set.Ranges) != 1 || set.Ranges[0].First == 0 || set.Ranges[0].Last == 0 {
				return SyntaxError("PARTIAL range broken.")
			}
			s.partialGiven = true
			s.PartialFirst, s.PartialLast = set.Ranges[0].Resolve(0)
		default:
			return SyntaxError("Unknown SEARCH return option")
		}
	}
	if !s.Min && !s.Max && !s.All && !s.Count && !s.Save && !s.partialGiven && !s.Update {
		s.All = true
	}
	return nil
}

// all reads the remaining keys as one conjunction.
func (p *SearchParser) all() (SearchKey, error) {
	var keys []SearchKey
	for len(p.args) > 0 {
		key, err := p.one()
		if err != nil {
			return SearchKey{}, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 1 {
		return keys[0], nil
	}
	return SearchKey{Name: "AND", Keys: keys}, nil
}

func (p *SearchParser) one() (SearchKey, error) {
	if len(p.args) == 0 {
		return SearchKey{}, SyntaxError("Missing argument")
	}
	if p.keys++; p.keys > maxSearchKeys || p.depth > DefaultDepth {
		return SearchKey{}, SyntaxError("Search query is too complex")
	}
	p.depth++
	defer func() { p.depth-- }()
	arg := p.args[0]
	p.args = p.args[1:]
	switch arg.Kind {
	case List:
		if len(arg.List) == 0 {
			return SearchKey{}, SyntaxError("No search parameters inside list")
		}
		outer := p.args
		p.args = arg.List
		key, err := p.all()
		p.args = outer
		return key, err
	case Atom:
	default:
		return SearchKey{}, SyntaxError("Unexpected string as search key: " + string(arg.Text))
	}
	if c := arg.Text[0]; '0' <= c && c <= '9' || c == '*' {
		set, ok := ParseSeqSet(arg.Text)
		if !ok {
			return SearchKey{}, SyntaxError("Invalid messageset")
		}
		return SearchKey{Name: "SEQ", Set: set}, nil
	}
	key := SearchKey{Name: arg.Upper()}
	spec := p.grammar.search[key.Name]
	if spec == nil {
		return key, SyntaxError("Unknown argument " + key.Name)
	}
	p.key = key.Name
	if spec.Parse == nil {
		return key, nil
	}
	err := spec.Parse(p, &key)
	return key, err
}

// text reads a string that belongs to the present key.
func (p *SearchParser) text() ([]byte, error) {
	if len(p.args) == 0 {
		return nil, SyntaxError("Missing parameter for search key (for search key: " + p.key + ")")
	}
	arg := &p.args[0]
	if !arg.IsString() {
		return nil, SyntaxError("Unexpected ( (for search key: " + p.key + ")")
	}
	p.args = p.args[1:]
	return arg.Text, nil
}

func baseSearch() []SearchSpec {
	specs := []SearchSpec{
		{Name: "NOT", Parse: parseNot},
		{Name: "OR", Parse: parseOr},
		{Name: "FUZZY", Parse: parseFuzzy},
		{Name: "UID", Parse: parseUIDKey},
		{Name: "HEADER", Parse: parseHeaderKey},
		{Name: "KEYWORD", Parse: parseKeyword},
		{Name: "UNKEYWORD", Parse: parseKeyword},
		{Name: "LARGER", Parse: parseSize},
		{Name: "SMALLER", Parse: parseSize},
	}
	for _, name := range []string{"ALL", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "NEW", "OLD", "RECENT", "SEEN", "UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN"} {
		specs = append(specs, SearchSpec{Name: name})
	}
	for _, name := range []string{"BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE"} {
		specs = append(specs, SearchSpec{Name: name, Parse: parseDateKey})
	}
	for _, name := range []string{"BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO"} {
		specs = append(specs, SearchSpec{Name: name, Parse: parseText})
	}
	return specs
}

func parseNot(p *SearchParser, key *SearchKey) error {
	inner, err := p.one()
	key.Keys = []SearchKey{inner}
	return err
}

// parseFuzzy reads RFC 6203's FUZZY, which asks for nothing that is refused when matched exactly.
func parseFuzzy(p *SearchParser, key *SearchKey) error {
	inner, err := p.one()
	*key = inner
	return err
}

func parseOr(p *SearchParser, key *SearchKey) error {
	left, err := p.one()
	if err != nil {
		return err
	}
	right, err := p.one()
	key.Keys = []SearchKey{left, right}
	return err
}

func parseUIDKey(p *SearchParser, key *SearchKey) error {
	text, err := p.text()
	if err != nil {
		return err
	}
	set, ok := ParseSeqSet(text)
	if !ok {
		return SyntaxError("Invalid UID messageset")
	}
	key.Set = set
	return nil
}

func parseHeaderKey(p *SearchParser, key *SearchKey) error {
	field, err := p.text()
	if err != nil {
		return err
	}
	key.Field = upper(field)
	return parseText(p, key)
}

func parseText(p *SearchParser, key *SearchKey) error {
	text, err := p.text()
	key.Text = append([]byte{}, text...)
	return err
}

func parseKeyword(p *SearchParser, key *SearchKey) error {
	text, err := p.text()
	key.Field = string(text)
	return err
}

func parseSize(p *SearchParser, key *SearchKey) error {
	text, err := p.text()
	if err != nil {
		return err
	}
	n, ok := number(text)
	if !ok {
		return SyntaxError("Invalid search size parameter")
	}
	key.Number = n
	return nil
}

func parseInterval(p *SearchParser, key *SearchKey) error {
	text, err := p.text()
	if err != nil {
		return err
	}
	n, ok := number(text)
	if !ok || n == 0 || n > math.MaxUint32 {
		return SyntaxError("Invalid search interval parameter")
	}
	key.Number = n
	return nil
}

func parseDateKey(p *SearchParser, key *SearchKey) error {
	text, err := p.text()
	if err != nil {
		return err
	}
	date, ok := ParseDate(text)
	if !ok {
		return SyntaxError("Invalid search date parameter")
	}
	key.Date = date
	return nil
}

// parseModSeqKey reads RFC 7162's [entry-name entry-type] value; entries are not kept apart.
func parseModSeqKey(p *SearchParser, key *SearchKey) error {
	p.search.UsesModSeq = true
	text, err := p.text()
	if err != nil {
		return err
	}
	if strings.HasPrefix(string(text), "/flags/") {
		kind, err := p.text()
		if err != nil {
			return err
		}
		switch upper(kind) {
		case "ALL", "PRIV", "SHARED":
		default:
			return SyntaxError("Invalid MODSEQ type")
		}
		if text, err = p.text(); err != nil {
			return err
		}
	}
	n, ok := number(text)
	if !ok {
		return SyntaxError("Invalid MODSEQ value")
	}
	key.Number = n
	return nil
}
