package policy

import (
	"bytes"
	"context"
	"strings"

	"postilion/mail/token"
)

// Scan takes a message as it streams in and puts out what the checks leave of it. It follows MIME (RFC 2045, 2046) as far as is needed to know
// headers of parts and of nested messages from bodies, in the way of Postfix: nothing is decoded.
type Scan struct {
	// Refusal is the reply for a message that is not wanted, Discard tells that it is accepted and goes nowhere; Effects take place when it is
	// accepted.
	Refusal string
	Discard bool
	Effects []Effect
	// Err tells that a table could not be asked; the client is to try again.
	Err error

	ctx    context.Context
	checks *ContentChecks
	put    func([]byte)
	log    func(ContentEvent)
	// off: no more checks are made. held: HOLD was logged.
	off, held bool

	// line is the beginning of a line whose end is still to come; inLine tells that a part of it was handed on already.
	line   []byte
	inLine bool

	header bool
	class  headerClass
	// field is the header field that may still be continued.
	field []byte

	// kind, boundary and so on are what the present header says of its body.
	typed          bool
	nested, digest bool
	boundary       string
	// stack holds the boundaries of the multiparts that the present place is in.
	stack  []multipart
	offset int
}

// multipart is one that has begun. digest tells that its parts are messages if they do not say otherwise.
type multipart struct {
	boundary string
	digest   bool
}

// headerClass tells which checks a header gets.
type headerClass uint8

const (
	primaryHeader headerClass = iota
	partHeader
	nestedHeader
)

// Write takes octets of the message, with lines that end in LF or CRLF.
func (s *Scan) Write(data []byte) {
	for len(data) > 0 {
		if s.idle() {
			s.put(data)
			return
		}
		room := s.checks.lineLimit - len(s.line)
		end := bytes.IndexByte(data[:min(len(data), room)], '\n')
		piece := data[:min(len(data), room)]
		if end >= 0 {
			piece = data[:end+1]
		}
		data = data[len(piece):]
		if end < 0 && len(s.line)+len(piece) < s.checks.lineLimit {
			s.line = append(s.line, piece...)
			return
		}
		if len(s.line) > 0 {
			s.line = append(s.line, piece...)
			piece = s.line
		}
		s.record(piece, !s.inLine)
		s.inLine = end < 0
		s.line = s.line[:0]
	}
}

// idle tells that the rest of the message goes by unseen.
func (s *Scan) idle() bool {
	return !s.header && len(s.line) == 0 && len(s.stack) == 0 && !s.checksBody()
}

func (s *Scan) checksBody() bool {
	return !s.off && len(s.checks.body.tables) > 0 && (s.checks.bodyLimit == 0 || s.offset < s.checks.bodyLimit)
}

// Pass adds lines to the header that are not looked at.
func (s *Scan) Pass(data []byte) {
	s.endField()
	s.put(data)
}

// Finish ends the message.
func (s *Scan) Finish() {
	if len(s.line) > 0 {
		line := s.line
		s.line = nil
		s.record(line, !s.inLine)
	}
	s.endField()
}

// record takes a line with its end, or a piece of a long one; first tells that it begins a line.
func (s *Scan) record(record []byte, first bool) {
	if s.header && s.inHeader(record, first) {
		return
	}
	if first && len(s.stack) > 0 && bytes.HasPrefix(record, []byte("--")) && s.delimiter(record) {
		return
	}
	s.body(record)
}

// inHeader takes a record of a header; false means that it is none.
func (s *Scan) inHeader(record []byte, first bool) bool {
	switch {
	case !first && len(s.field) > 0, first && len(s.field) > 0 && (record[0] == ' ' || record[0] == '\t'):
		s.extend(record)
		return true
	case first && len(bytes.TrimRight(record, "\r\n")) == 0:
		s.endHeader()
		s.put(record)
		return true
	case first && isHeader(string(record[:min(len(record), maxFieldProbe)])):
		s.endField()
		s.extend(record)
		return true
	}
	s.endHeader()
	return false
}

// maxFieldProbe is how much of a line is looked at for the name of a header field.
const maxFieldProbe = 256

// extend adds to the present field. What is beyond header_size_limit is passed on without being checked.
func (s *Scan) extend(record []byte) {
	s.field = append(s.field, record...)
	if len(s.field) > s.checks.headerLimit+s.checks.lineLimit {
		s.endField()
	}
}

// endField checks the field that is complete now, and learns from it what MIME wants to know.
func (s *Scan) endField() {
	if len(s.field) == 0 {
		return
	}
	field := s.field
	text := string(bytes.TrimRight(bytes.ReplaceAll(field, []byte("\r\n"), []byte("\n")), "\n"))
	colon := strings.IndexByte(text, ':')
	name := strings.ToLower(strings.TrimRight(text[:max(colon, 0)], " \t"))
	if colon > 0 {
		s.learn(name, text[colon+1:])
	}
	result := outcome{}
	if !s.off {
		result = s.check(s.tablesFor(name), "header", text)
	}
	if result.before != "" {
		s.putLines(result.before)
	}
	switch {
	case result.replaced:
		s.putLines(result.instead)
	case !result.drop:
		s.put(field)
	}
	s.field = field[:0]
}

func (s *Scan) putLines(text string) {
	s.put([]byte(strings.ReplaceAll(text, "\n", "\r\n") + "\r\n"))
}

// tablesFor gives the checks of a field: those of MIME see the MIME fields of every header but a nested one.
func (s *Scan) tablesFor(name string) *contentTables {
	switch s.class {
	case nestedHeader:
		return &s.checks.nested
	case partHeader:
		return &s.checks.mime
	}
	switch name {
	case "content-description", "content-disposition", "content-id", "content-transfer-encoding", "content-type", "mime-version":
		return &s.checks.mime
	}
	return &s.checks.header
}

func (s *Scan) learn(name, value string) {
	if s.typed || name != "content-type" || s.checks.plain {
		return
	}
	s.typed = true
	scanner := token.Scanner{Text: []byte(value)}
	scanner.Space()
	var media []byte
	if scanner.MediaType(&media) == token.Broken {
		return
	}
	kind, subtype, _ := strings.Cut(strings.ToLower(string(media)), "/")
	switch kind {
	case "message":
		s.nested = subtype == "rfc822" || subtype == "global"
	case "multipart":
		s.nested, s.digest = false, subtype == "digest"
		for _, parameter := range scanner.Params() {
			if strings.EqualFold(parameter.Name, "boundary") {
				s.boundary = parameter.Value[:min(len(parameter.Value), s.checks.boundaryLimit)]
			}
		}
	}
}

// endHeader ends the present header. A nested message begins with another one.
func (s *Scan) endHeader() {
	s.endField()
	s.header, s.offset = false, 0
	switch {
	case s.boundary != "" && len(s.stack) < s.checks.nesting:
		s.stack = append(s.stack, multipart{s.boundary, s.digest})
	case s.nested || !s.typed && s.class == partHeader && len(s.stack) > 0 && s.stack[len(s.stack)-1].digest:
		s.beginHeader(nestedHeader)
		return
	}
	s.typed, s.nested, s.digest, s.boundary = false, false, false, ""
}

func (s *Scan) beginHeader(class headerClass) {
	s.header, s.class, s.offset = true, class, 0
	s.typed, s.nested, s.digest, s.boundary = false, false, false, ""
}

// delimiter takes a line that begins or ends a part; false means that it does not.
func (s *Scan) delimiter(line []byte) bool {
	for i := len(s.stack) - 1; i >= 0; i-- {
		rest, ok := bytes.CutPrefix(line[2:], []byte(s.stack[i].boundary))
		if !ok {
			continue
		}
		if bytes.HasPrefix(rest, []byte("--")) {
			s.stack = s.stack[:i]
			s.offset = 0
			s.body(line)
			return true
		}
		s.stack = s.stack[:i+1]
		s.body(line)
		s.beginHeader(partHeader)
		return true
	}
	return false
}

// body checks a line of a body.
func (s *Scan) body(record []byte) {
	text := bytes.TrimRight(record, "\r\n")
	if !s.checksBody() {
		s.put(record)
		return
	}
	s.offset += len(text)
	result := s.check(&s.checks.body, "body", string(text))
	if result.before != "" {
		s.putLines(result.before)
	}
	switch {
	case result.replaced:
		s.putLines(result.instead)
	case !result.drop:
		s.put(record)
	}
}
