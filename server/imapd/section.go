package imapd

import (
	"bytes"
	"errors"
	"math"
	"strings"

	"postilion/mail/message"
	"postilion/proto/imap"
	"postilion/server/login"
)

// span is a run of octets of a message.
type span struct {
	start, end int64
}

// span finds the octets of a section; an empty one when the message has no such part.
func (f *fetch) span(section *imap.Section) (span, error) {
	if len(section.Path) == 0 && section.Kind == imap.WholeSection {
		if err := f.open(); err != nil {
			return span{}, err
		}
		return span{0, f.body.Size()}, nil
	}
	if err := f.parts(); err != nil {
		return span{}, err
	}
	part := f.part(section.Path)
	if part == nil {
		return span{}, nil
	}
	if len(section.Path) > 0 && (section.Kind == imap.HeaderSection || section.Kind == imap.TextSection || section.Kind == imap.HeaderFields || section.Kind == imap.HeaderFieldsNot) {
		if part = part.Embedded(); part == nil {
			return span{}, nil
		}
	}
	switch section.Kind {
	case imap.WholeSection, imap.TextSection:
		return span{part.BodyStart, part.BodyEnd}, nil
	}
	return span{part.HeaderStart, part.BodyStart}, nil
}

func (f *fetch) part(path []uint32) *message.Part {
	numbers := make([]int, len(path))
	for i, n := range path {
		numbers[i] = int(min(n, math.MaxInt32))
	}
	part, ok := f.structure.Section(numbers)
	if !ok {
		return nil
	}
	return part
}

// fetchSection writes BODY[...], RFC822 and their like.
func fetchSection(f *fetch, item *imap.FetchItem) error {
	where, err := f.span(&item.Section)
	if err == nil {
		err = f.open()
	}
	if err != nil {
		return err
	}
	s := f.s
	if item.Section.Kind == imap.HeaderFields || item.Section.Kind == imap.HeaderFieldsNot {
		header, err := f.fields(where, item.Section.Fields, item.Section.Kind == imap.HeaderFieldsNot)
		if err != nil {
			return err
		}
		s.Out = append(append(s.Out, item.Label...), ' ')
		s.Out = imap.AppendLiteral(s.Out, cut(header, item))
		return nil
	}
	if item.Section.Kind == imap.HeaderSection || item.Section.Kind == imap.MIMESection {
		s.count.headers++
		s.count.headerBytes += where.end - where.start
	} else {
		s.count.bodies++
		s.count.bodyBytes += where.end - where.start
	}
	if item.Partial {
		where.start = min(where.start+int64(min(item.Offset, 1<<61)), where.end)
		where.end = min(where.start+int64(min(item.Length, 1<<61)), where.end)
	}
	s.Out = append(append(s.Out, item.Label...), " {"...)
	s.Out = append(imap.AppendNumber(s.Out, uint64(where.end-where.start)), "}\r\n"...)
	return f.copyOut(where)
}

// cut applies a partial to what is in memory.
func cut(text []byte, item *imap.FetchItem) []byte {
	if !item.Partial {
		return text
	}
	text = text[min(item.Offset, uint64(len(text))):]
	return text[:min(item.Length, uint64(len(text)))]
}

// errBroken ends a session in the middle of a literal that cannot be completed.
var errBroken = errors.New("message cannot be read to its end")

// copyOut writes octets of the message, NUL as 0x80 as Dovecot does.
func (f *fetch) copyOut(where span) error {
	s := f.s
	for where.start < where.end {
		s.Overflow()
		n := int(min(where.end-where.start, login.OutputSize/2))
		at := len(s.Out)
		s.Out = append(s.Out, make([]byte, n)...)
		read, err := f.body.ReadAt(s.Out[at:], where.start)
		if read < n {
			s.Out = s.Out[:at]
			s.Ended, s.Reason = true, "Internal error"
			s.Log.Error("FETCH in "+s.box.name+": "+errBroken.Error(), "uid", f.entry.UID, "error", err)
			return errBroken
		}
		part := s.Out[at:]
		for i := bytes.IndexByte(part, 0); i >= 0; i = bytes.IndexByte(part, 0) {
			part[i] = 0x80
		}
		where.start += int64(n)
	}
	return nil
}

const maxHeaderRead = 32 << 20

// read brings a run of octets into memory, where they stay until the next call.
func (f *fetch) read(where span) ([]byte, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	n := int(min(where.end-where.start, maxHeaderRead))
	if cap(f.scratch) < n {
		f.scratch = make([]byte, max(n, 4<<10))
	}
	text := f.scratch[:n]
	if read, err := f.body.ReadAt(text, where.start); read < n {
		return nil, err
	}
	return text, nil
}

// fields picks header fields by name, or all others.
func (f *fetch) fields(where span, names []string, others bool) ([]byte, error) {
	f.s.count.headers++
	f.s.count.headerBytes += where.end - where.start
	header, err := f.read(where)
	if err != nil || len(header) == 0 {
		return nil, err
	}
	picked := header[:0]
	take := false
	for rest := header; len(rest) > 0; {
		line := rest
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line = rest[:i+1]
		}
		rest = rest[len(line):]
		if text := bytes.TrimRight(line, "\r\n"); len(text) == 0 {
			break
		}
		if line[0] != ' ' && line[0] != '\t' {
			name, _, isField := bytes.Cut(line, []byte(":"))
			take = isField && (named(names, bytes.TrimRight(name, " \t")) != others) || !isField && others
		}
		if take {
			picked = append(picked, line...)
		}
	}
	for i := range picked {
		if picked[i] == 0 {
			picked[i] = 0x80
		}
	}
	f.scratch = append(picked, "\r\n"...)
	return f.scratch, nil
}

func named(names []string, name []byte) bool {
	for _, n := range names {
		if len(n) == len(name) && strings.EqualFold(n, string(name)) {
			return true
		}
	}
	return false
}
