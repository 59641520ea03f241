// Package dovecotauth is the grammar of Dovecot's authentication protocol 1.2 ("Authentication Protocol" in its developer manual), both ends: what MTAs
// ask on an auth client socket (VERSION, CPID, MECH, AUTH, CONT, OK, FAIL) and what delivery agents ask on a userdb or master socket (USER, PASS, LIST).
//
// It has no sockets and decides nothing: lines go in, requests and replies come out. Who is let in is package account's business.
package dovecotauth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// MaxLine is the limit in octets of one line without its LF.
	MaxLine = 16384
	// MajorVersion must be the same on both ends.
	MajorVersion = 1
	// MinorVersion is spoken on client sockets.
	MinorVersion = 2
	// MasterMinorVersion is spoken on userdb and master sockets.
	MasterMinorVersion = 1
	// MaxMechanisms is how many MECH lines a handshake may have.
	MaxMechanisms = 64
)

// ErrProtocol tells that the other end does not speak the protocol; the connection is of no further use.
var ErrProtocol = errors.New("not the authentication protocol")

// Param is an optional parameter: NAME=VALUE, or a NAME alone.
type Param struct{ Name, Value string }

// Params are the optional parameters of a line in their order.
type Params []Param

// Get returns the value of the first parameter of that name; a parameter without value has "".
func (p Params) Get(name string) (string, bool) {
	for _, one := range p {
		if one.Name == name {
			return one.Value, true
		}
	}
	return "", false
}

// Has tells whether the parameter is there.
func (p Params) Has(name string) bool {
	_, ok := p.Get(name)
	return ok
}

// ParseParams splits NAME=VALUE words; empty ones are left out.
func ParseParams(words []string) Params {
	var params Params
	for _, word := range words {
		if word == "" {
			continue
		}
		name, value, _ := strings.Cut(word, "=")
		params = append(params, Param{name, value})
	}
	return params
}

// Split takes a line without its LF apart at TABs and undoes the escapes. The first word is the command.
func Split(line []byte) []string {
	words := strings.Split(string(line), "\t")
	for i, word := range words {
		words[i] = Unescape(word)
	}
	return words
}

// AppendLine appends the escaped words with TABs between them, and the LF.
func AppendLine(dst []byte, words ...string) []byte {
	for i, word := range words {
		if i > 0 {
			dst = append(dst, '\t')
		}
		dst = appendEscaped(dst, word)
	}
	return append(dst, '\n')
}

// appendEscaped writes \001 and a letter for the octets that would end a word or a line.
func appendEscaped(dst []byte, word string) []byte {
	for i := range len(word) {
		switch word[i] {
		case 0:
			dst = append(dst, 1, '0')
		case 1:
			dst = append(dst, 1, '1')
		case '\t':
			dst = append(dst, 1, 't')
		case '\r':
			dst = append(dst, 1, 'r')
		case '\n':
			dst = append(dst, 1, 'n')
		default:
			dst = append(dst, word[i])
		}
	}
	return dst
}

// Unescape undoes the escapes of one word. An octet that has no escape stands for itself; a \001 at the end is dropped.
func Unescape(word string) string {
	if strings.IndexByte(word, 1) < 0 {
		return word
	}
	out := make([]byte, 0, len(word))
	for i := 0; i < len(word); i++ {
		if word[i] != 1 {
			out = append(out, word[i])
			continue
		}
		if i++; i == len(word) {
			break
		}
		switch word[i] {
		case '0':
			out = append(out, 0)
		case '1':
			out = append(out, 1)
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'n':
			out = append(out, '\n')
		default:
			out = append(out, word[i])
		}
	}
	return string(out)
}

func parseID(word string) (uint32, error) {
	id, err := strconv.ParseUint(word, 10, 32)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("%w: id %.20q is not a number of 32 bits above 0", ErrProtocol, word)
	}
	return uint32(id), nil
}

func formatID(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// checkVersion reads the words of a VERSION line.
func checkVersion(words []string) error {
	if len(words) < 3 || words[0] != "VERSION" {
		return fmt.Errorf("%w: it began with %.40q instead of VERSION", ErrProtocol, words[0])
	}
	if major, err := strconv.ParseUint(words[1], 10, 16); err != nil || major != MajorVersion {
		return fmt.Errorf("%w: major version %.20q is not %d", ErrProtocol, words[1], MajorVersion)
	}
	return nil
}

// Word returns the parameter as it stands in a line.
func (p Param) Word() string {
	if p.Value == "" {
		return p.Name
	}
	return p.Name + "=" + p.Value
}

func appendWords(words []string, params Params) []string {
	for _, p := range params {
		words = append(words, p.Word())
	}
	return words
}
