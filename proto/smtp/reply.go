package smtp

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

const (
	// replyLineLimit is the longest line of a reply, replyTextLimit the longest reply that a client keeps; the rest is cut off.
	replyLineLimit = 4096
	replyTextLimit = 16 << 10
	// replyLinesLimit bounds a reply that never ends.
	replyLinesLimit = 1000
)

// ServerReply is what a server answered.
type ServerReply struct {
	Code int
	// Lines are the texts without code, and with their enhanced status codes.
	Lines []string
}

// Class returns the first digit.
func (r ServerReply) Class() int { return r.Code / 100 }

// Enhanced returns the enhanced status code of the first line (RFC 2034), "" when there is none of the reply's class.
func (r ServerReply) Enhanced() string {
	if len(r.Lines) == 0 {
		return ""
	}
	word, _, _ := strings.Cut(r.Lines[0], " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(r.Class()) {
		return ""
	}
	for _, p := range parts[1:] {
		if len(p) == 0 || len(p) > 3 || !allDigits([]byte(p)) {
			return ""
		}
	}
	return word
}

// String gives the reply in one line, as logs have it.
func (r ServerReply) String() string {
	return strconv.Itoa(r.Code) + " " + strings.Join(r.Lines, " ")
}

// replyReader puts replies together from pieces of input.
type replyReader struct {
	line    []byte
	reply   ServerReply
	size    int
	lines   int
	tooLong bool
}

// take uses input up to the end of a line and returns a reply when it is complete.
func (r *replyReader) take(in []byte) (n int, reply ServerReply, complete bool, err error) {
	end := bytes.IndexByte(in, '\n')
	piece := in
	if end >= 0 {
		piece = in[:end]
	}
	n = len(piece)
	if room := replyLineLimit - len(r.line); len(piece) > room {
		piece, r.tooLong = piece[:room], true
	}
	r.line = append(r.line, piece...)
	if end < 0 {
		if r.lines >= replyLinesLimit {
			return n, reply, false, fmt.Errorf("reply of more than %d lines", replyLinesLimit)
		}
		return n, reply, false, nil
	}
	n++
	line := bytes.TrimRight(r.line, "\r")
	r.line, r.tooLong = r.line[:0], false
	if r.lines++; r.lines > replyLinesLimit {
		return n, reply, false, fmt.Errorf("reply of more than %d lines", replyLinesLimit)
	}
	if len(line) < 3 || !allDigits(line[:3]) || line[0] < '2' || line[0] > '5' || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return n, reply, false, fmt.Errorf("not a reply of SMTP: %q", line[:min(len(line), 80)])
	}
	code, text := int(line[0]-'0')*100+int(line[1]-'0')*10+int(line[2]-'0'), ""
	if len(line) > 4 {
		text = string(line[4:])
	}
	r.reply.Code = code
	if r.size += len(text); r.size <= replyTextLimit {
		r.reply.Lines = append(r.reply.Lines, text)
	}
	if len(line) > 3 && line[3] == '-' {
		return n, reply, false, nil
	}
	reply = r.reply
	r.reply, r.size, r.lines = ServerReply{}, 0, 0
	return n, reply, true, nil
}

// Extensions is what EHLO or LHLO announced.
type Extensions struct {
	// Name is the server's name in its greeting.
	Name  string
	words map[string]string
}

// Has tells whether the server announced a keyword, given in capitals.
func (e *Extensions) Has(keyword string) bool {
	_, ok := e.words[keyword]
	return ok
}

// Parameters returns what stood behind a keyword.
func (e *Extensions) Parameters(keyword string) string { return e.words[keyword] }

// Size returns the limit of SIZE, 0 without one.
func (e *Extensions) Size() int64 {
	n, ok := decimal([]byte(e.words["SIZE"]))
	if !ok || !allDigits([]byte(e.words["SIZE"])) {
		return 0
	}
	return n
}

// Auth tells whether a SASL mechanism is offered.
func (e *Extensions) Auth(mechanism string) bool {
	for word := range words(e.words["AUTH"]) {
		if equalFold(word, mechanism) {
			return true
		}
	}
	return false
}

func parseExtensions(reply ServerReply) Extensions {
	e := Extensions{words: map[string]string{}}
	for i, line := range reply.Lines {
		if i == 0 {
			e.Name, _, _ = strings.Cut(line, " ")
			continue
		}
		word, rest, _ := strings.Cut(strings.Replace(line, "AUTH=", "AUTH ", 1), " ")
		word = strings.ToUpper(word)
		if word == "AUTH" && e.words[word] != "" {
			rest = e.words[word] + " " + rest
		}
		e.words[word] = rest
	}
	return e
}
