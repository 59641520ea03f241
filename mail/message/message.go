// Package message is the structure of one message as it lies there: where each header and body begins and ends, what MIME says of
// every part, and the envelope fields that IMAP shows. Everything is an offset into the message's bytes; nothing is decoded or copied
// that a reader did not ask for. Parsing is lenient and never fails: whatever bytes come, there is a structure for them.
//
// It is not a mail user agent's view (decoded text and names are mail/charset's and Decode's business), holds no message bytes, and
// knows nothing of files or stores. It follows RFC 5322, 2045 to 2047, 2183, 2231 and the ENVELOPE and BODYSTRUCTURE of RFC 9051 as
// Dovecot 2.3 answers them.
package message

import (
	"strings"

	"postilion/mail/address"
	"postilion/mail/token"
)

// Message describes a whole message of Size bytes in network form: every line ends in CRLF. A bare LF is understood and counts as the two
// bytes it becomes in network form, so that sizes and offsets are those an IMAP client sees.
type Message struct {
	Size int64
	// Lines is the number of line ends of the whole message.
	Lines int64
	// BareLF is the number of lines that ended in LF alone. When it is 0, offsets are offsets into the very bytes that were parsed; else
	// into what NetworkForm makes of them.
	BareLF int64
	Root   Part
}

// Kind tells what a part holds.
type Kind uint8

// A Leaf has no children. A Multipart has any number of them. An Embedded part holds one message.
const (
	Leaf Kind = iota
	Multipart
	Embedded
)

// Presence tells of fields that were there but empty, which IMAP tells from absent ones.
type Presence uint8

// The fields that may be there and empty.
const (
	HasID Presence = 1 << iota
	HasDescription
	HasMD5
	HasDisposition
	HasLocation
)

// Part is one MIME entity: the message itself, a part of a multipart, or the message inside a message/rfc822 part.
type Part struct {
	// HeaderStart, BodyStart and BodyEnd are offsets into the whole message: the header with its empty line is
	// [HeaderStart, BodyStart), the body [BodyStart, BodyEnd).
	HeaderStart, BodyStart, BodyEnd int64
	// BodyLines counts the lines of the body as BODYSTRUCTURE does.
	BodyLines int64

	Kind Kind
	// Type and Subtype are as written; text and plain when there is no Content-Type. Compare them with Is.
	Type, Subtype string
	Params        []Param
	ID            string
	Description   string
	// Encoding is the Content-Transfer-Encoding as written, "" when there is none (then 7bit holds).
	Encoding          string
	MD5               string
	Disposition       string
	DispositionParams []Param
	Language          []string
	Location          string

	// Present names those of ID, Description, MD5, Disposition and Location whose field is there, though it may be empty.
	Present Presence

	// Children holds the parts of a multipart in order, or the one message inside a message/rfc822 or message/global part.
	Children []Part
	// Envelope is set for the root and for the message inside a message/rfc822 part.
	Envelope *Envelope
}

// Param is one parameter of Content-Type or Content-Disposition, its name as written, its value with quoting removed and nothing decoded.
// The pieces of RFC 2231 (name*0, name*1) are put together.
type Param = token.Param

// Envelope holds the header fields of RFC 9051 section 7.5.2 as they stand: unfolded, not decoded. An absent field is nil,
// which IMAP tells from an empty one.
type Envelope struct {
	Date, Subject                      *string
	From, Sender, ReplyTo, To, Cc, Bcc []Address
	InReplyTo, MessageID               *string
	// SubjectFolded tells that Subject stood on several lines, which decides how ENVELOPE writes it.
	SubjectFolded bool
}

// Address is one entry of an address list in ENVELOPE's terms: nil is NIL. A group begins with an entry that has only Mailbox (the group's
// name) and ends with one that has nothing.
type Address = address.Address

// Multipart tells whether the part has children that are parts of a multipart, or would have if any were there.
func (p *Part) Multipart() bool { return p.Kind == Multipart }

// Embedded returns the message inside a message/rfc822 part, or nil.
func (p *Part) Embedded() *Part {
	if p.Kind == Embedded && len(p.Children) == 1 {
		return &p.Children[0]
	}
	return nil
}

// Is tells whether the part's media type is typ/subtype, without regard to case. An empty subtype stands for any.
func (p *Part) Is(typ, subtype string) bool {
	return strings.EqualFold(p.Type, typ) && (subtype == "" || strings.EqualFold(p.Subtype, subtype))
}

// Param returns the value of a parameter of Content-Type, "" when there is none.
func (p *Part) Param(name string) string {
	for i := range p.Params {
		if strings.EqualFold(p.Params[i].Name, name) {
			return p.Params[i].Value
		}
	}
	return ""
}

// Charset returns the character set of a text part, us-ascii when none is written (RFC 2045 section 5.2).
func (p *Part) Charset() string {
	if name := p.Param("charset"); name != "" {
		return name
	}
	return "us-ascii"
}
