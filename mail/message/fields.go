package message

import (
	"bytes"
	"strings"

	"postilion/mail/address"
	"postilion/mail/token"
)

// finishField makes the field that was read part of the structure, now that its last line is known.
func (p *Parser) finishField() {
	h := &p.header
	id := h.field
	h.field = otherField
	if id == otherField {
		return
	}
	if p.kept += len(h.value); p.kept > p.limits.KeptBytes {
		return
	}
	part := &p.nodes[p.current].part
	if id <= fieldMessageID {
		if part.Envelope == nil {
			part.Envelope = &Envelope{}
		}
		p.kept += addressCost * part.Envelope.set(id, h.value, p.limits.Addresses)
		return
	}
	switch id {
	case fieldMIMEVersion:
		h.mime = true
	case fieldContentType:
		h.mime = true
		h.contentType(part)
	case fieldContentDisposition:
		if len(part.DispositionParams) == 0 {
			contentDisposition(part, h.value)
		}
	case fieldContentEncoding:
		if part.Encoding == "" {
			part.Encoding = contentEncoding(h.value)
		}
	case fieldContentLanguage:
		if part.Language == nil {
			part.Language = contentLanguage(h.value)
		}
	case fieldContentID:
		part.setText(&part.ID, HasID, h.value)
	case fieldContentDescription:
		part.setText(&part.Description, HasDescription, h.value)
	case fieldContentMD5:
		part.setText(&part.MD5, HasMD5, h.value)
	case fieldContentLocation:
		part.setText(&part.Location, HasLocation, h.value)
	}
}

// setText takes the first field of its name.
func (p *Part) setText(dst *string, bit Presence, value []byte) {
	if p.Present&bit != 0 {
		return
	}
	p.Present |= bit
	*dst = plain(value)
}

// plain returns a field's value as one line: line ends go, a space takes their place where none follows, and NUL becomes U+FFFD.
func plain(value []byte) string {
	if !bytes.ContainsAny(value, "\r\n\x00") {
		return string(value)
	}
	var b strings.Builder
	for i, c := range value {
		switch c {
		case 0:
			b.WriteRune('\uFFFD')
		case '\r', '\n':
			if i+1 < len(value) && !bytes.ContainsRune([]byte(" \t\r\n"), rune(value[i+1])) {
				b.WriteByte(' ')
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// addressCost is what an entry of an address list counts against KeptBytes beyond its text.
const addressCost = 64

// set takes one field and returns how many addresses it added.
func (e *Envelope) set(id fieldID, value []byte, limit int) (added int) {
	switch id {
	case fieldDate:
		e.Date = plainPointer(value)
	case fieldSubject:
		e.SubjectFolded = bytes.ContainsAny(value, "\r\n")
		e.Subject = plainPointer(value)
	case fieldInReplyTo:
		e.InReplyTo = plainPointer(value)
	case fieldMessageID:
		e.MessageID = plainPointer(value)
	case fieldFrom:
		return addAddresses(&e.From, value, limit)
	case fieldSender:
		return addAddresses(&e.Sender, value, limit)
	case fieldReplyTo:
		return addAddresses(&e.ReplyTo, value, limit)
	case fieldTo:
		return addAddresses(&e.To, value, limit)
	case fieldCc:
		return addAddresses(&e.Cc, value, limit)
	case fieldBcc:
		return addAddresses(&e.Bcc, value, limit)
	}
	return 0
}

func plainPointer(value []byte) *string {
	s := plain(value)
	return &s
}

// addAddresses appends, so that a field that comes twice reads as if it stood once with all its addresses.
func addAddresses(list *[]Address, value []byte, limit int) int {
	before := len(*list)
	if limit > before {
		*list = append(*list, address.ParseList(value, limit-before)...)
	}
	return len(*list) - before
}

// contentType reads the first Content-Type of a header.
func (h *headerState) contentType(part *Part) {
	if h.typed {
		return
	}
	h.typed = true
	s := token.Scanner{Text: h.value}
	var media []byte
	s.Space()
	out := s.MediaType(&media)
	typ, subtype, _ := strings.Cut(string(media), "/")
	part.Type, part.Subtype = typ, subtype
	switch {
	case strings.EqualFold(string(media), "message/rfc822"):
		part.Kind = Embedded
	case strings.EqualFold(typ, "multipart") && len(media) > len(typ):
		part.Kind = Multipart
		h.digest = strings.EqualFold(subtype, "digest")
	}
	if out == token.Broken {
		return
	}
	part.Params = s.Params()
	if part.Kind != Multipart {
		return
	}
	for _, param := range part.Params {
		if strings.EqualFold(param.Name, "boundary") {
			h.hasBoundary = true
			h.boundary = param.Value[:min(len(param.Value), boundaryMax)]
			return
		}
	}
}

func contentDisposition(part *Part, value []byte) {
	s := token.Scanner{Text: value}
	s.Space()
	var kind []byte
	if s.MIMEToken(&kind) == token.Broken {
		return
	}
	part.Disposition = string(kind)
	part.Present |= HasDisposition
	part.DispositionParams = s.Params()
}

func contentEncoding(value []byte) string {
	s := token.Scanner{Text: value}
	s.Space()
	var name []byte
	if s.MIMEToken(&name) == token.Broken || s.Space() != token.End {
		return ""
	}
	return string(name)
}

func contentLanguage(value []byte) (tags []string) {
	s := token.Scanner{Text: value}
	s.Space()
	for {
		var tag []byte
		if s.Atom(&tag) == token.Broken {
			return tags
		}
		tags = append(tags, string(tag))
		if s.Peek() != ',' {
			return tags
		}
		s.Pos++
		s.Space()
	}
}
