// Package address reads mail addresses: the lists in header fields (From, To, ...) as IMAP's ENVELOPE shows them, and the paths and
// mailboxes of an SMTP envelope.
//
// Lists are read leniently and decide as Dovecot 2.3 does; paths are read strictly by RFC 5321 and 6531. It rewrites no addresses, looks
// up nothing and decodes no encoded words.
package address

import "postilion/mail/token"

// Address is one entry of an address list in ENVELOPE's terms (RFC 9051 section 7.5.2): nil is NIL. A group begins with an entry that has
// only Mailbox (the group's name) and ends with one that has nothing.
type Address struct {
	Name, Route, Mailbox, Host *string
}

// What stands in for the parts of an address that are not there or cannot be read; scripts and clients know these words from Dovecot.
const (
	MissingMailbox = "MISSING_MAILBOX"
	MissingDomain  = "MISSING_DOMAIN"
	InvalidRoute   = "INVALID_ROUTE"
	SyntaxError    = "SYNTAX_ERROR"
)

// ParseList reads the value of an address header field. It never fails: what cannot be read ends the list, with an entry that says so. At
// most limit entries are returned when limit is above 0.
func ParseList(value []byte, limit int) []Address {
	l := lister{s: token.Scanner{Text: value, KeepComment: true}, limit: limit}
	if l.s.Space() != token.More {
		return nil
	}
	l.list()
	return l.found
}

type lister struct {
	s       token.Scanner
	buf     []byte
	entry   Address
	invalid bool
	found   []Address
	limit   int
}

func text(b []byte) *string {
	s := string(b)
	return &s
}

func fixed(s string) *string { return &s }

func (l *lister) full() bool { return l.limit > 0 && len(l.found) >= l.limit }

func (l *lister) add() {
	if !l.full() {
		l.found = append(l.found, l.entry)
	}
	l.entry, l.invalid = Address{}, false
}

// addFilled adds the entry with words in place of what is missing, so that it is never taken for a group's mark.
func (l *lister) addFilled() {
	if l.entry.Mailbox == nil {
		l.entry.Mailbox = fixed(MissingMailbox)
	}
	if l.entry.Host == nil || *l.entry.Host == "" {
		l.entry.Host = fixed(MissingDomain)
	}
	l.add()
}

func (l *lister) list() {
	for !l.full() {
		if l.address() == token.End {
			return
		}
		if l.s.Peek() != ',' {
			return
		}
		l.s.Pos++
		switch l.s.Space() {
		case token.End:
			return
		case token.Broken:
			l.addFilled()
			return
		}
	}
}

func (l *lister) address() token.Outcome {
	start := l.s.Pos
	if out := l.group(); out != token.Broken {
		return out
	}
	l.s.Pos = start
	return l.mailbox()
}

// group reads "name: mailbox, mailbox;". It is Broken only when this is no group at all.
func (l *lister) group() token.Outcome {
	l.buf = l.buf[:0]
	if l.s.Phrase(&l.buf) != token.More || l.s.Peek() != ':' {
		return token.Broken
	}
	l.s.Pos++
	out := l.s.Space()
	l.entry.Mailbox = text(l.buf)
	l.add()
	if out == token.More && l.s.Peek() != ';' {
		for !l.full() {
			l.mailbox()
			if l.s.Peek() != ',' {
				break
			}
			l.s.Pos++
			if l.s.Space() != token.More {
				out = token.Broken
				break
			}
		}
	}
	if out != token.Broken {
		if l.s.Peek() == ';' {
			l.s.Pos++
			out = l.s.Space()
		} else {
			out = token.Broken
		}
	}
	l.add()
	if out == token.End {
		return token.End
	}
	return token.More
}

func (l *lister) mailbox() token.Outcome {
	start := l.s.Pos
	out := l.nameAddr()
	if out == token.Broken {
		l.s.Pos = start
		out = l.addrSpec()
		if e := &l.entry; l.invalid && e.Name == nil && e.Mailbox != nil && e.Host == nil {
			e.Name, e.Mailbox = e.Mailbox, nil
		}
	}
	l.addFilled()
	return out
}

// nameAddr reads "display name <address>".
func (l *lister) nameAddr() token.Outcome {
	l.buf = l.buf[:0]
	if l.s.Phrase(&l.buf) != token.More || l.s.Peek() != '<' {
		return token.Broken
	}
	if len(l.buf) > 0 {
		l.entry.Name = text(l.buf)
	}
	if l.angle() == token.Broken {
		l.entry.Host = fixed(SyntaxError)
		l.invalid = true
	}
	if l.s.Done() {
		return token.End
	}
	return token.More
}

// angle reads "<@route:local@domain>".
func (l *lister) angle() token.Outcome {
	l.s.Pos++
	if l.s.Space() != token.More {
		return token.Broken
	}
	if l.s.Peek() == '@' {
		if l.route() == token.More && l.s.Peek() == ':' {
			l.s.Pos++
		} else {
			l.entry.Route = fixed(InvalidRoute)
			if l.s.Done() {
				return token.Broken
			}
		}
		if l.s.Space() != token.More {
			return token.Broken
		}
	}
	if l.s.Peek() != '>' {
		if l.local() != token.More {
			return token.Broken
		}
		if l.s.Peek() == '@' && l.domain() != token.More {
			return token.Broken
		}
	}
	if l.s.Peek() != '>' {
		return token.Broken
	}
	l.s.Pos++
	return l.s.Space()
}

func (l *lister) route() token.Outcome {
	l.buf = l.buf[:0]
	for {
		if l.s.Done() {
			return token.End
		}
		if l.s.Peek() != '@' {
			break
		}
		if len(l.buf) > 0 {
			l.buf = append(l.buf, ',')
		}
		l.buf = append(l.buf, '@')
		if out := l.s.Domain(&l.buf); out != token.More {
			return out
		}
		for l.s.Space() == token.More && l.s.Peek() == ',' {
			l.s.Pos++
		}
	}
	l.entry.Route = text(l.buf)
	return token.More
}

func (l *lister) local() token.Outcome {
	l.buf = l.buf[:0]
	var out token.Outcome
	if l.s.Peek() == '"' {
		out = l.s.Quoted(&l.buf)
	} else {
		out = l.dottedWords()
	}
	if out != token.Broken {
		l.entry.Mailbox = text(l.buf)
	}
	return out
}

// dottedWords reads a local part in which dots may stand anywhere, as some providers give them out.
func (l *lister) dottedWords() token.Outcome {
	out := token.Broken
	for {
		for l.s.Peek() == '.' {
			l.buf = append(l.buf, '.')
			l.s.Pos++
			if l.s.Done() {
				return token.End
			}
			out = token.More
		}
		if l.s.Peek() == '@' {
			return out
		}
		out = l.s.Atom(&l.buf)
		if out != token.More || l.s.Peek() != '.' {
			return out
		}
	}
}

func (l *lister) domain() token.Outcome {
	l.buf = l.buf[:0]
	out := l.s.Domain(&l.buf)
	if out != token.Broken {
		l.entry.Host = text(l.buf)
	}
	return out
}

// addrSpec reads "local@domain", whose comment is the name, or words without an address.
func (l *lister) addrSpec() token.Outcome {
	l.s.Comment = l.s.Comment[:0]
	quoted := l.s.Peek() == '"'
	out := l.local()
	if out != token.More {
		l.invalid = true
	}
	hasDomain := false
	if out != token.End && l.s.Peek() == '@' {
		hasDomain = true
		if second := l.domain(); second != token.More {
			out = second
		}
	}
	switch {
	case len(l.s.Comment) > 0:
		l.entry.Name = text(l.s.Comment)
	case !hasDomain:
		// One word alone is a mailbox; anything behind it makes the whole a display name.
		l.buf = append(l.buf, ' ')
		before := len(l.buf)
		l.s.Phrase(&l.buf)
		if len(l.buf) != before {
			l.entry.Mailbox = nil
			l.entry.Name = text(l.buf)
		} else if !quoted {
			l.entry.Host = fixed("")
		}
		l.invalid = true
		out = token.Broken
	}
	return out
}
