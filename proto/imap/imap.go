// Package imap is the server's side of IMAP as a language: it turns the bytes of a client into commands and their arguments, knows sequence
// sets, FETCH items, SEARCH keys, dates, mailbox names and LIST patterns, and writes the pieces that responses are made of. It follows RFC 3501
// and RFC 9051 and the extensions named at each file; where the RFCs leave a choice, and in which input it refuses with which words, it follows
// Dovecot 2.3.
//
// It is not a server: it has no socket, no clock, no goroutine, no mailbox and no policy. Package server/imapd is the session around it.
//
// An extension is a file of its own that returns an Extension: the commands, FETCH items, SEARCH keys and STATUS items it adds to the language.
// Extensions lists them; NewGrammar joins a list into the tables that the parsers read.
package imap

// Limits bounds what a client may make the decoder keep.
type Limits struct {
	// Line is the octets of one command, literals kept in memory included (imap_max_line_length).
	Line int
	// LiteralMinus refuses non-synchronising literals above 4096 octets (imap_literal_minus).
	LiteralMinus bool
	// LineFatal ends the connection at a longer command, as Dovecot's login process does; else the command is refused.
	LineFatal bool
	// Depth is how deep parenthesised lists may nest; 0 is DefaultDepth.
	Depth int
}

const (
	// DefaultLine is Dovecot's default of imap_max_line_length.
	DefaultLine = 64 << 10
	// PreloginLine is what Dovecot's login process accepts as one command.
	PreloginLine = 8 << 10
	// DefaultDepth is the nesting of lists that no real client comes near.
	DefaultDepth = 200

	literalMinusLimit = 4096
)

// Extension is what one extension adds to the language.
type Extension struct {
	Commands []CommandSpec
	Fetch    []FetchSpec
	Search   []SearchSpec
	// Status names STATUS items in capitals.
	Status []string
}

// CommandSpec tells the decoder how a command's arguments are read.
type CommandSpec struct {
	// Name is in capitals; the UID forms are "UID FETCH" and so on.
	Name string
	// Args is how many arguments are read: AllArgs, NoArgs, or a number after which the rest of the line is passed over.
	Args int
	// Stream is the number of leading arguments after which literals are handed on as they come instead of being kept; 0 is never.
	Stream int
}

// Values of CommandSpec.Args.
const (
	AllArgs = 0
	NoArgs  = -1
)

// Grammar is the joined tables of the extensions in force. It does not change and may be shared.
type Grammar struct {
	commands map[string]*CommandSpec
	fetch    map[string]*FetchSpec
	search   map[string]*SearchSpec
	status   map[string]bool
}

// NewGrammar joins extensions; a later one replaces entries of the same name.
func NewGrammar(extensions ...Extension) *Grammar {
	g := &Grammar{map[string]*CommandSpec{}, map[string]*FetchSpec{}, map[string]*SearchSpec{}, map[string]bool{}}
	for _, e := range extensions {
		for _, c := range e.Commands {
			g.commands[c.Name] = &c
		}
		for _, f := range e.Fetch {
			g.fetch[f.Name] = &f
		}
		for _, s := range e.Search {
			g.search[s.Name] = &s
		}
		for _, s := range e.Status {
			g.status[s] = true
		}
	}
	return g
}

// Extensions returns the whole language after login.
func Extensions() []Extension {
	return []Extension{
		Base(), Listing(), Condstore(), Binary(), ESearch(), Move(), Within(), SaveDate(), Preview(), Sort(), Thread(), Context(), Quota(),
	}
}

// SyntaxError is a mistake of the client in a command's arguments; its text goes after "Error in IMAP command NAME: ".
type SyntaxError string

func (e SyntaxError) Error() string { return string(e) }
