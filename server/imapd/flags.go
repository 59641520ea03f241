package imapd

import (
	"strings"

	"postilion/proto/imap"
	"postilion/store"
)

// systemFlags are in the order in which Dovecot writes them.
var systemFlags = [...]struct {
	flag store.Flags
	name string
}{
	{store.FlagAnswered, `\Answered`},
	{store.FlagFlagged, `\Flagged`},
	{store.FlagDeleted, `\Deleted`},
	{store.FlagSeen, `\Seen`},
	{store.FlagDraft, `\Draft`},
}

// appendFlags writes the flag list of a message.
func (s *session) appendFlags(dst []byte, view store.View, entry *store.Entry) []byte {
	dst = append(dst, '(')
	start := len(dst)
	for i := range systemFlags {
		if entry.Flags&systemFlags[i].flag != 0 {
			dst = append(append(dst, systemFlags[i].name...), ' ')
		}
	}
	if s.box.isRecent(entry.UID) && !s.enabled.rev2 {
		dst = append(dst, `\Recent `...)
	}
	if len(entry.Keywords) > 0 {
		names := view.Keywords()
		for _, n := range entry.Keywords {
			dst = append(append(dst, names[n]...), ' ')
		}
	}
	if len(dst) > start {
		dst = dst[:len(dst)-1]
	}
	return append(dst, ')')
}

// sendFlagLists sends FLAGS and PERMANENTFLAGS.
func (s *session) sendFlagLists(keywords []string, readOnly bool) {
	var names strings.Builder
	for i, f := range systemFlags {
		if i > 0 {
			names.WriteByte(' ')
		}
		names.WriteString(f.name)
	}
	for _, k := range keywords {
		names.WriteByte(' ')
		names.WriteString(k)
	}
	s.untagged("FLAGS (" + names.String() + ")")
	if readOnly {
		s.untagged("OK [PERMANENTFLAGS ()] Read-only mailbox.")
	} else {
		s.untagged("OK [PERMANENTFLAGS (" + names.String() + ` \*)] Flags permitted.`)
	}
}

const maxKeywordLength = 200

// parseFlags reads flags and keywords: a list, or the rest of the arguments when list is false.
func parseFlags(args []imap.Arg) (flags store.Flags, keywords []string, err error) {
	for i := range args {
		if args[i].Kind != imap.Atom {
			return 0, nil, imap.SyntaxError("Flags list contains non-atoms.")
		}
		word := string(args[i].Text)
		if word[0] != '\\' {
			if len(word) > maxKeywordLength {
				return 0, nil, imap.SyntaxError("Invalid keyword: Keyword name too long")
			}
			if strings.ContainsRune(word, ']') {
				return 0, nil, failure{"CANNOT", "Invalid characters in keyword"}
			}
			keywords = addKeyword(keywords, word)
			continue
		}
		known := false
		for _, f := range systemFlags {
			if strings.EqualFold(f.name, word) {
				flags |= f.flag
				known = true
			}
		}
		if !known {
			return 0, nil, imap.SyntaxError("Invalid system flag " + args[i].Upper())
		}
	}
	return flags, keywords, nil
}

func addKeyword(keywords []string, word string) []string {
	for _, k := range keywords {
		if strings.EqualFold(k, word) {
			return keywords
		}
	}
	return append(keywords, word)
}
