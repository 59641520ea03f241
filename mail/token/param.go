package token

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// Param is one MIME parameter: its name as written, its value with quoting removed and nothing decoded.
type Param struct {
	Name, Value string
}

// MediaType reads "type/subtype" and appends it to dst. It must be followed by a parameter or nothing. When it is broken, dst stays as it was,
// except for a type alone, without a slash and with nothing behind it, which is Broken but appended.
func (s *Scanner) MediaType(dst *[]byte) Outcome {
	before := len(*dst)
	out := s.mediaType(dst)
	if out == Broken && !(s.Done() && len(*dst) > before && isToken((*dst)[before:])) {
		*dst = (*dst)[:before]
	}
	return out
}

func isToken(text []byte) bool {
	for _, c := range text {
		if !isMIME(c) {
			return false
		}
	}
	return true
}

func (s *Scanner) mediaType(dst *[]byte) Outcome {
	if s.Space() != More {
		return Broken
	}
	start := s.Pos
	if s.MIMEToken(dst) != More || s.Pos == start || s.Text[s.Pos] != '/' {
		return Broken
	}
	s.Pos++
	*dst = append(*dst, '/')
	if s.Space() != More {
		return Broken
	}
	before := len(*dst)
	out := s.MIMEToken(dst)
	if out == Broken || len(*dst) == before || out == More && s.Text[s.Pos] != ';' {
		return Broken
	}
	return out
}

// param reads one "; name=value". End means that there is none left.
func (s *Scanner) param() (name, value []byte, out Outcome) {
	if s.Done() {
		return nil, nil, End
	}
	if s.Text[s.Pos] != ';' {
		return nil, nil, Broken
	}
	s.Pos++
	if s.Space() != More {
		return nil, nil, Broken
	}
	if s.MIMEToken(&name) != More || s.Text[s.Pos] != '=' {
		return nil, nil, Broken
	}
	s.Pos++
	out = s.Space()
	switch {
	case out != More:
	case s.Text[s.Pos] == '"':
		out = s.Quoted(&value)
	case s.Text[s.Pos] == '=':
		// An encoded word without quotes: name==?utf-8?b?...?=
		start := s.Pos
		for !s.Done() && !strings.ContainsRune("; \t\r\n", rune(s.Text[s.Pos])) {
			s.Pos++
		}
		value = appendText(value, s.Text[start:s.Pos])
	default:
		out = s.MIMEToken(&value)
	}
	if out == Broken {
		return nil, nil, Broken
	}
	return name, value, More
}

// piece is one parameter of RFC 2231: name*index=value or name*index*=value.
type piece struct {
	name, value string
	index       uint32
	extended    bool
}

func splitName(name []byte) (p piece, ok bool) {
	star := bytes.IndexByte(name, '*')
	if star < 0 {
		return p, false
	}
	p.name = string(name[:star])
	rest := name[star:]
	if len(rest) > 1 {
		rest = rest[1:]
		for len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
			p.index = p.index*10 + uint32(rest[0]-'0')
			rest = rest[1:]
		}
	}
	if len(rest) > 0 && rest[0] == '*' {
		p.extended = true
		rest = rest[1:]
	}
	return p, len(rest) == 0
}

// Params reads the parameters up to the end of the text, skipping what is broken. Pieces of RFC 2231 are put together: name*0, name*1 become
// one name; when one of them is percent-encoded they become name* with the value in the form charset'language'text. Plain parameters come
// first, in their order; then the others by name. Pieces whose numbers have a gap stay as they are.
func (s *Scanner) Params() []Param {
	var plain []Param
	var pieces []piece
	for {
		name, value, out := s.param()
		if out == End {
			break
		}
		if out == Broken {
			if s.Done() {
				break
			}
			s.Pos++
			continue
		}
		if p, ok := splitName(name); ok {
			p.value = string(value)
			pieces = append(pieces, p)
			continue
		}
		plain = append(plain, Param{string(name), string(value)})
	}
	slices.SortStableFunc(pieces, func(a, b piece) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return int(int64(a.index) - int64(b.index))
	})
	for len(pieces) > 0 {
		n := 1
		for n < len(pieces) && strings.EqualFold(pieces[n].name, pieces[0].name) {
			n++
		}
		plain = joinPieces(plain, pieces[:n])
		pieces = pieces[n:]
	}
	return plain
}

func joinPieces(dst []Param, pieces []piece) []Param {
	whole, extended := true, false
	for i, p := range pieces {
		whole = whole && p.index == uint32(i)
		extended = extended || p.extended
	}
	if !whole {
		for _, p := range pieces {
			name := p.name + "*" + strconv.FormatUint(uint64(p.index), 10)
			if p.extended {
				name += "*"
			}
			dst = append(dst, Param{name, p.value})
		}
		return dst
	}
	var value strings.Builder
	if extended && !pieces[0].extended {
		value.WriteString("''")
	}
	for _, p := range pieces {
		if extended && !p.extended {
			value.WriteString(strings.ReplaceAll(p.value, "%", "%25"))
			continue
		}
		value.WriteString(p.value)
	}
	name := pieces[0].name
	if extended {
		name += "*"
	}
	return append(dst, Param{name, value.String()})
}
