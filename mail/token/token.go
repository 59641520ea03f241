// Package token reads the lexical units that header fields are made of: white space with comments, atoms, quoted strings, domain
// literals, MIME tokens and MIME parameters. It accepts what real mail holds rather than what the grammar allows, and where the two
// differ it decides as Dovecot 2.3 does, so that IMAP clients see the same structure.
//
// It knows no header fields, decodes no encoded words and no character sets (mail/header does). It follows RFC 5322 section 3.2 and 4,
// RFC 2045 section 5.1 and RFC 2231 section 3.
package token

// Outcome tells how reading one unit ended.
type Outcome int

// A unit ended because the text is broken there, because the text ended, or with more text after it.
const (
	Broken Outcome = iota - 1
	End
	More
)

// Scanner reads units from Text, from Pos on. The zero value over a Text is ready for use.
type Scanner struct {
	Text []byte
	Pos  int
	// KeepComment makes the scanner remember the last comment it skipped in Comment, without its outer parentheses.
	KeepComment bool
	Comment     []byte
}

const (
	atomChar = 1 << iota
	mimeChar
)

// class holds the character classes of RFC 5322 atext and RFC 2045 token; bytes with the high bit belong to both.
var class = func() (t [256]byte) {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	for _, c := range []byte(letters + "!#$%&'*+-^_`{|}~") {
		t[c] = atomChar | mimeChar
	}
	for _, c := range []byte("/=?") {
		t[c] = atomChar
	}
	for c := 0x80; c < 0x100; c++ {
		t[c] = atomChar | mimeChar
	}
	return t
}()

// IsAtom tells whether c may stand in an atom.
func IsAtom(c byte) bool { return class[c]&atomChar != 0 }

func isMIME(c byte) bool { return class[c]&mimeChar != 0 || c == '.' }

// Done tells whether the text is used up.
func (s *Scanner) Done() bool { return s.Pos >= len(s.Text) }

// Peek returns the next byte, or 0 at the end.
func (s *Scanner) Peek() byte {
	if s.Pos >= len(s.Text) {
		return 0
	}
	return s.Text[s.Pos]
}

func (s *Scanner) rest() Outcome {
	if s.Pos < len(s.Text) {
		return More
	}
	return End
}

// appendText appends a piece of a quoted string or comment without its line ends; a NUL becomes U+FFFD, as no string that leaves here may
// hold one.
func appendText(dst, piece []byte) []byte {
	for i, c := range piece {
		switch {
		case c == 0:
			dst = append(dst, "\uFFFD"...)
		case c == '\n' || c == '\r' && i+1 < len(piece) && piece[i+1] == '\n':
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func (s *Scanner) skipComment() Outcome {
	s.Comment = s.Comment[:0]
	depth := 1
	s.Pos++
	start := s.Pos
	keep := func(end int) {
		if s.KeepComment {
			s.Comment = appendText(s.Comment, s.Text[start:end])
		}
	}
	for ; s.Pos < len(s.Text); s.Pos++ {
		switch s.Text[s.Pos] {
		case '(':
			depth++
		case ')':
			depth--
			if depth == 0 {
				keep(s.Pos)
				s.Pos++
				return s.rest()
			}
		case '\\':
			keep(s.Pos)
			s.Pos++
			start = s.Pos
			if s.Pos >= len(s.Text) {
				return Broken
			}
		}
	}
	return Broken
}

// Space skips white space, line ends and comments. A comment that is never closed is Broken and uses up the text.
func (s *Scanner) Space() Outcome {
	for s.Pos < len(s.Text) {
		switch s.Text[s.Pos] {
		case ' ', '\t', '\r', '\n':
			s.Pos++
			continue
		case '(':
			if s.skipComment() == Broken {
				return Broken
			}
			continue
		}
		return More
	}
	return End
}

// Atom appends one atom to dst and skips the space behind it. An empty atom is Broken.
func (s *Scanner) Atom(dst *[]byte) Outcome {
	start := s.Pos
	for s.Pos < len(s.Text) && IsAtom(s.Text[s.Pos]) {
		s.Pos++
	}
	if s.Pos == start {
		return Broken
	}
	*dst = append(*dst, s.Text[start:s.Pos]...)
	return s.Space()
}

// DotAtom appends atoms joined by dots; space around the dots is skipped (RFC 5322 section 4.4). A dot without an atom behind it is Broken.
func (s *Scanner) DotAtom(dst *[]byte) Outcome {
	if s.Done() || !IsAtom(s.Text[s.Pos]) {
		return Broken
	}
	for {
		start := s.Pos
		for s.Pos < len(s.Text) && IsAtom(s.Text[s.Pos]) {
			s.Pos++
		}
		*dst = append(*dst, s.Text[start:s.Pos]...)
		if out := s.Space(); out != More {
			return out
		}
		if s.Text[s.Pos] != '.' {
			return More
		}
		s.Pos++
		*dst = append(*dst, '.')
		if s.Space() != More || !IsAtom(s.Text[s.Pos]) {
			return Broken
		}
	}
}

// MIMEToken appends one token of RFC 2045, possibly empty, and skips the space behind it.
func (s *Scanner) MIMEToken(dst *[]byte) Outcome {
	start := s.Pos
	for s.Pos < len(s.Text) && isMIME(s.Text[s.Pos]) {
		s.Pos++
	}
	*dst = append(*dst, s.Text[start:s.Pos]...)
	if s.Done() {
		return End
	}
	return s.Space()
}

// Quoted appends the content of the quoted string that begins at Pos, its escapes and line folds taken out. One that is never closed is Broken
// and uses up the text.
func (s *Scanner) Quoted(dst *[]byte) Outcome {
	s.Pos++
	start := s.Pos
	for ; s.Pos < len(s.Text); s.Pos++ {
		switch s.Text[s.Pos] {
		case '"':
			*dst = appendText(*dst, s.Text[start:s.Pos])
			s.Pos++
			return s.Space()
		case '\n':
			// Of a string that is never closed the folded lines before the last one count.
			*dst = appendText(*dst, s.Text[start:s.Pos+1])
			start = s.Pos + 1
		case '\\':
			s.Pos++
			if s.Pos >= len(s.Text) {
				return Broken
			}
			if s.Text[s.Pos] == '\n' {
				s.Pos-- // a fold is never escaped
				continue
			}
			*dst = appendText(*dst, s.Text[start:s.Pos-1])
			start = s.Pos
		}
	}
	return Broken
}

// Phrase appends words joined by one space each: a display name. Dots stand for themselves, but may not come first.
func (s *Scanner) Phrase(dst *[]byte) Outcome {
	if s.Done() {
		return End
	}
	if s.Text[s.Pos] == '.' {
		return Broken
	}
	for {
		var out Outcome
		if s.Text[s.Pos] == '"' {
			out = s.Quoted(dst)
		} else {
			out = s.atomOrDots(dst)
		}
		if out != More {
			return out
		}
		if c := s.Text[s.Pos]; !IsAtom(c) && c != '"' && c != '.' {
			return s.Space()
		}
		*dst = append(*dst, ' ')
	}
}

func (s *Scanner) atomOrDots(dst *[]byte) Outcome {
	start := s.Pos
	for s.Pos < len(s.Text) && (IsAtom(s.Text[s.Pos]) || s.Text[s.Pos] == '.') {
		s.Pos++
	}
	*dst = append(*dst, s.Text[start:s.Pos]...)
	if s.Done() {
		return End
	}
	return s.Space()
}

// Domain appends the domain behind the @ that stands at Pos.
func (s *Scanner) Domain(dst *[]byte) Outcome {
	s.Pos++
	if s.Space() != More {
		return Broken
	}
	if s.Text[s.Pos] == '[' {
		return s.domainLiteral(dst)
	}
	return s.DotAtom(dst)
}

func (s *Scanner) domainLiteral(dst *[]byte) Outcome {
	start := s.Pos
	for ; s.Pos < len(s.Text); s.Pos++ {
		switch s.Text[s.Pos] {
		case '\\':
			s.Pos++
		case '[':
			if s.Pos > start {
				return Broken
			}
		case ']':
			s.Pos++
			*dst = appendText(*dst, s.Text[start:s.Pos])
			return s.Space()
		}
	}
	s.Pos = len(s.Text)
	return Broken
}
