package imap

import (
	"bytes"
	"strconv"
)

// ArgKind tells how an argument was written.
type ArgKind uint8

// The kinds of arguments.
const (
	Atom ArgKind = iota
	Quoted
	Literal
	List
	// Pending is a literal that has not been read: its octets follow, see Decoder.AcceptLiteral. Only commands with CommandSpec.Stream get it.
	Pending
)

// Arg is one argument of a command. Its bytes belong to the decoder and are valid until the next command is asked for.
type Arg struct {
	Kind ArgKind
	// Binary is true for a literal8.
	Binary bool
	// Text is the atom, or the string with quoting removed.
	Text []byte
	List []Arg
	// Size is the octets of a Pending literal.
	Size uint64
}

// IsString tells whether the argument is an astring: an atom, a quoted string or a literal.
func (a *Arg) IsString() bool { return a.Kind == Atom || a.Kind == Quoted || a.Kind == Literal }

// IsAtom tells whether the argument is the atom word, whatever its case.
func (a *Arg) IsAtom(word string) bool {
	return a.Kind == Atom && len(a.Text) == len(word) && bytes.EqualFold(a.Text, []byte(word))
}

// Nil tells whether the argument is NIL.
func (a *Arg) Nil() bool { return a.IsAtom("NIL") }

// Number reads a decimal atom of at most 64 bits.
func (a *Arg) Number() (uint64, bool) {
	if a.Kind != Atom {
		return 0, false
	}
	return number(a.Text)
}

func number(text []byte) (uint64, bool) {
	if len(text) == 0 || len(text) > 20 || text[0] < '0' || text[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	return n, err == nil
}

// Upper returns an atom or string in ASCII capitals.
func (a *Arg) Upper() string { return upper(a.Text) }

func upper(text []byte) string {
	var space [64]byte
	return string(appendUpper(space[:0], text))
}

func appendUpper(dst, text []byte) []byte {
	for _, c := range text {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}
