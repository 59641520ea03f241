package dovecotauth

import (
	"fmt"
	"strconv"
)

// Question is what is asked on a userdb or master socket.
type Question uint8

// The questions of a master client.
const (
	// Nothing needs no reply: VERSION.
	Nothing Question = iota
	// User asks for userdb's fields.
	User
	// Pass asks for passdb's fields without a proof.
	Pass
	// List asks for all names.
	List
	// FlushCache asks to forget cached answers.
	FlushCache
)

// Lookup is one line of a master client.
type Lookup struct {
	Question Question
	ID       uint32
	// Name is the user of User and Pass.
	Name   string
	Params Params
}

// MasterHello is what either end says first on a userdb or master socket; the server adds its SPID.
func MasterHello(dst []byte) []byte {
	return AppendLine(dst, "VERSION", strconv.Itoa(MajorVersion), strconv.Itoa(MasterMinorVersion))
}

// MasterGreeting is the server's MasterHello and its process id.
func MasterGreeting(dst []byte, pid uint32) []byte {
	return AppendLine(MasterHello(dst), "SPID", formatID(pid))
}

// Append writes the lookup.
func (l *Lookup) Append(dst []byte) []byte {
	switch l.Question {
	case User:
		return AppendLine(dst, appendWords([]string{"USER", formatID(l.ID), l.Name}, l.Params)...)
	case Pass:
		return AppendLine(dst, appendWords([]string{"PASS", formatID(l.ID), l.Name}, l.Params)...)
	case List:
		return AppendLine(dst, appendWords([]string{"LIST", formatID(l.ID)}, l.Params)...)
	case FlushCache:
		return AppendLine(dst, "CACHE-FLUSH", formatID(l.ID))
	}
	return dst
}

// MasterListener reads what a master client says on one connection. The zero value is ready.
type MasterListener struct{ version bool }

// Greeted tells whether the client's VERSION was read.
func (l *MasterListener) Greeted() bool { return l.version }

// Take reads one line. Errors wrap ErrProtocol.
func (l *MasterListener) Take(line []byte) (Lookup, error) {
	words := Split(line)
	if !l.version {
		l.version = true
		return Lookup{}, checkVersion(words)
	}
	var lookup Lookup
	fixed := 3
	switch words[0] {
	case "USER":
		lookup.Question = User
	case "PASS":
		lookup.Question = Pass
	case "LIST":
		lookup.Question, fixed = List, 2
	case "CACHE-FLUSH":
		lookup.Question, fixed = FlushCache, 2
	default:
		return Lookup{}, fmt.Errorf("%w: unknown command %.40q", ErrProtocol, words[0])
	}
	if len(words) < fixed {
		return Lookup{}, fmt.Errorf("%w: %s has too few parameters", ErrProtocol, words[0])
	}
	var err error
	if lookup.ID, err = parseID(words[1]); err != nil {
		return Lookup{}, err
	}
	if fixed == 3 {
		lookup.Name = words[2]
	}
	lookup.Params = ParseParams(words[fixed:])
	if service, _ := lookup.Params.Get("service"); service == "" && lookup.Question != FlushCache {
		return Lookup{}, fmt.Errorf("%w: %s without service", ErrProtocol, words[0])
	}
	return lookup, nil
}

// Finding is what a server answers to a lookup.
type Finding uint8

// The findings.
const (
	// Found is USER or PASS with fields.
	Found Finding = iota + 1
	NotFound
	// Failed means that it could not be found out now.
	Failed
	// Listed is one name of a list, Done its end.
	Listed
	Done
	Flushed
)

// Answer is one line of a server on a userdb or master socket.
type Answer struct {
	Finding Finding
	ID      uint32
	// Pass is true for an answer to a Pass, which has no name of its own.
	Pass bool
	Name string
	// Fields are userdb's or passdb's; with Failed reason= may be among them.
	Fields Params
}

// Append writes the answer.
func (a *Answer) Append(dst []byte) []byte {
	id := formatID(a.ID)
	switch a.Finding {
	case Found:
		if a.Pass {
			return AppendLine(dst, appendWords([]string{"PASS", id}, a.Fields)...)
		}
		return AppendLine(dst, appendWords([]string{"USER", id, a.Name}, a.Fields)...)
	case NotFound:
		return AppendLine(dst, "NOTFOUND", id)
	case Failed:
		return AppendLine(dst, appendWords([]string{"FAIL", id}, a.Fields)...)
	case Listed:
		return AppendLine(dst, "LIST", id, a.Name)
	case Done:
		return AppendLine(dst, "DONE", id, "")
	case Flushed:
		return AppendLine(dst, "OK", id, "0")
	}
	return dst
}

// ParseAnswer reads an answer; ok is false for lines that are none (the server's greeting). Errors wrap ErrProtocol.
func ParseAnswer(line []byte) (answer Answer, ok bool, err error) {
	words := Split(line)
	fixed := 2
	switch words[0] {
	case "USER":
		answer.Finding, fixed = Found, 3
	case "PASS":
		answer.Finding, answer.Pass = Found, true
	case "NOTFOUND":
		answer.Finding = NotFound
	case "FAIL":
		answer.Finding = Failed
	case "LIST":
		answer.Finding, fixed = Listed, 3
	case "DONE":
		answer.Finding = Done
	case "OK":
		answer.Finding = Flushed
	case "VERSION":
		return Answer{}, false, checkVersion(words)
	default:
		return Answer{}, false, nil
	}
	if len(words) < fixed {
		return Answer{}, false, fmt.Errorf("%w: %s has too few parameters", ErrProtocol, words[0])
	}
	if answer.ID, err = parseID(words[1]); err != nil {
		return Answer{}, false, err
	}
	if fixed == 3 {
		answer.Name = words[2]
	}
	answer.Fields = ParseParams(words[fixed:])
	return answer, true, nil
}
