package pop3

import (
	"bytes"
	"math"
)

// SyntaxError is a mistake in a command's arguments, or a message number that names nothing: the text that goes after "-ERR ".
type SyntaxError string

func (e SyntaxError) Error() string { return string(e) }

// number reads the decimal number at the beginning of args, after spaces that do not count.
func number(args []byte) (value uint64, rest []byte, digits int, overflow bool) {
	for digits < len(args) && '0' <= args[digits] && args[digits] <= '9' {
		d := uint64(args[digits] - '0')
		if value > (math.MaxUint64-d)/10 {
			overflow = true
		}
		value = value*10 + d
		digits++
	}
	return value, args[digits:], digits, overflow
}

func trimLeft(args []byte) []byte { return bytes.TrimLeft(args, " ") }

// Number reads a message number. rest is what follows it, for commands that take more.
func Number(args []byte) (n uint32, rest []byte, err error) {
	args = trimLeft(args)
	value, rest, digits, overflow := number(args)
	switch {
	case digits == 0:
		return 0, nil, SyntaxError("Invalid message number: " + printable(args))
	case overflow || value > math.MaxUint32:
		return 0, nil, SyntaxError("Message number too large: " + printable(args))
	}
	return uint32(value), rest, nil
}

// OnlyNumber reads a message number after which nothing may follow.
func OnlyNumber(args []byte) (uint32, error) {
	n, rest, err := Number(args)
	if err == nil && len(rest) > 0 {
		err = SyntaxError("Noise after message number: " + printable(rest))
	}
	return n, err
}

// TopArguments reads what TOP takes: a message number and how many lines of the body.
func TopArguments(args []byte) (n uint32, lines uint64, err error) {
	n, rest, err := Number(args)
	if err != nil {
		return 0, 0, err
	}
	if len(rest) == 0 || rest[0] != ' ' {
		return 0, 0, SyntaxError("Noise after message number: " + printable(rest))
	}
	rest = trimLeft(rest)
	lines, tail, digits, overflow := number(rest)
	switch {
	case digits == 0:
		return 0, 0, SyntaxError("Invalid size: " + printable(rest))
	case overflow:
		return 0, 0, SyntaxError("Size too large: " + printable(rest))
	case len(tail) > 0:
		return 0, 0, SyntaxError("Noise after size: " + printable(tail))
	}
	return n, lines, nil
}

// maxEcho bounds how much of the client's words is repeated in a refusal; a response line has at most 512 octets (RFC 1939 section 3).
const maxEcho = 400

// printable makes the client's words fit to stand in a response line.
func printable(text []byte) string {
	text = text[:min(len(text), maxEcho)]
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, text))
}

// Unknown is the refusal of a command that does not exist after login.
func Unknown(cmd *Command) error {
	if cmd.Name == "" {
		return SyntaxError("Unknown command.")
	}
	return SyntaxError("Unknown command: " + printable([]byte(cmd.Name)))
}
