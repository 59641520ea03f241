package message

import (
	"strconv"
	"strings"
)

// escapesMax is how many characters a quoted string may escape before a literal is shorter.
const escapesMax = 4

// AppendString appends s as an IMAP string: quoted when it can be, else a literal. Line ends, bytes above 127 and many characters to
// escape make it a literal.
func AppendString(dst []byte, s string) []byte {
	escapes := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			escapes++
		case c == '\r' || c == '\n' || c >= 0x80 || c == 0:
			escapes = escapesMax + 1
		}
		if escapes > escapesMax {
			return appendLiteral(dst, s)
		}
	}
	dst = append(dst, '"')
	if escapes == 0 {
		dst = append(dst, s...)
		return append(dst, '"')
	}
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

func appendLiteral(dst []byte, s string) []byte {
	dst = append(dst, '{')
	dst = strconv.AppendInt(dst, int64(len(s)), 10)
	dst = append(dst, "}\r\n"...)
	return append(dst, s...)
}

// appendLine is AppendString for text that must be one line.
func appendLine(dst []byte, s string) []byte {
	if strings.ContainsAny(s, "\r\n") {
		s = plain([]byte(s))
	}
	return AppendString(dst, s)
}

// appendHuman is AppendString for text that people read: runs of white space become one space, at both ends none. When that or escaping
// changes anything, or the text was folded, Dovecot sends a literal.
func appendHuman(dst []byte, text *string, folded bool) []byte {
	if text == nil {
		return append(dst, "NIL"...)
	}
	s := *text
	clean := strings.Join(strings.FieldsFunc(s, isBlank), " ")
	if clean == "" && s != "" {
		return append(dst, `""`...)
	}
	if clean == s && !folded && strings.IndexFunc(s, needsLiteral) < 0 {
		return AppendString(dst, s)
	}
	return appendLiteral(dst, clean)
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }

func needsLiteral(r rune) bool { return r >= 0x80 || r == '"' || r == '\\' }

func appendNString(dst []byte, s *string) []byte {
	if s == nil {
		return append(dst, "NIL"...)
	}
	return appendLine(dst, *s)
}

// AppendEnvelope appends e in IMAP syntax, with its parentheses (RFC 9051 section 7.5.2). Sender and Reply-To stand for From where they are
// absent. A nil e is an envelope of nothing.
func AppendEnvelope(dst []byte, e *Envelope) []byte {
	if e == nil {
		e = &Envelope{}
	}
	dst = append(dst, '(')
	dst = appendNString(dst, e.Date)
	dst = append(dst, ' ')
	dst = appendHuman(dst, e.Subject, e.SubjectFolded)
	sender, replyTo := e.Sender, e.ReplyTo
	if sender == nil {
		sender = e.From
	}
	if replyTo == nil {
		replyTo = e.From
	}
	for _, list := range [...][]Address{e.From, sender, replyTo, e.To, e.Cc, e.Bcc} {
		dst = append(dst, ' ')
		dst = appendAddresses(dst, list)
	}
	dst = append(dst, ' ')
	dst = appendNString(dst, e.InReplyTo)
	dst = append(dst, ' ')
	dst = appendNString(dst, e.MessageID)
	return append(dst, ')')
}

func appendAddresses(dst []byte, list []Address) []byte {
	if len(list) == 0 {
		return append(dst, "NIL"...)
	}
	dst = append(dst, '(')
	for i := range list {
		a := &list[i]
		dst = append(dst, '(')
		dst = appendHuman(dst, a.Name, false)
		dst = append(dst, ' ')
		dst = appendNString(dst, a.Route)
		dst = append(dst, ' ')
		dst = appendNString(dst, a.Mailbox)
		dst = append(dst, ' ')
		dst = appendNString(dst, a.Host)
		dst = append(dst, ')')
	}
	return append(dst, ')')
}

const (
	emptyBody          = `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)`
	emptyBodyStructure = `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)`
)

// AppendBodyStructure appends what FETCH BODYSTRUCTURE answers for the part, or, when extended is false, what BODY answers, with its
// parentheses (RFC 9051 section 7.5.2).
func AppendBodyStructure(dst []byte, p *Part, extended bool) []byte {
	dst = append(dst, '(')
	if p.plainASCII() {
		dst = appendPlainASCII(dst, p, extended)
	} else if p.Kind == Multipart {
		dst = appendMultipart(dst, p, extended)
	} else {
		dst = appendSinglePart(dst, p, extended)
	}
	return append(dst, ')')
}

// plainASCII tells of a whole message that it is nothing but text in us-ascii, for which Dovecot keeps no structure: it is answered in lower
// case however it was written.
func (p *Part) plainASCII() bool {
	isRoot := p.Envelope != nil && p.HeaderStart == 0
	if !isRoot || p.Kind != Leaf || !p.Is("text", "plain") || p.Present != 0 || len(p.Language) > 0 {
		return false
	}
	if len(p.Params) > 1 || p.Encoding != "" && !strings.EqualFold(p.Encoding, "7bit") {
		return false
	}
	return len(p.Params) == 0 || strings.EqualFold(p.Params[0].Name, "charset") && strings.EqualFold(p.Params[0].Value, "us-ascii")
}

func appendPlainASCII(dst []byte, p *Part, extended bool) []byte {
	dst = append(dst, `"text" "plain" ("charset" "us-ascii") NIL NIL "7bit" `...)
	dst = strconv.AppendInt(dst, p.BodyEnd-p.BodyStart, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, p.BodyLines, 10)
	if extended {
		dst = append(dst, " NIL NIL NIL NIL"...)
	}
	return dst
}

func appendMultipart(dst []byte, p *Part, extended bool) []byte {
	switch {
	case len(p.Children) > 0:
		for i := range p.Children {
			dst = AppendBodyStructure(dst, &p.Children[i], extended)
		}
	case extended:
		dst = append(dst, emptyBodyStructure...)
	default:
		dst = append(dst, emptyBody...)
	}
	dst = append(dst, ' ')
	dst = AppendString(dst, p.Subtype)
	if !extended {
		return dst
	}
	dst = append(dst, ' ')
	dst = appendParams(dst, p.Params, false)
	return appendExtension(dst, p)
}

func appendSinglePart(dst []byte, p *Part, extended bool) []byte {
	text := p.Kind == Leaf && strings.EqualFold(p.Type, "text")
	dst = AppendString(dst, p.Type)
	dst = append(dst, ' ')
	dst = AppendString(dst, p.Subtype)
	dst = append(dst, ' ')
	dst = appendParams(dst, p.Params, text)
	dst = append(dst, ' ')
	dst = appendPresent(dst, p.ID, p.Present&HasID != 0)
	dst = append(dst, ' ')
	dst = appendPresent(dst, p.Description, p.Present&HasDescription != 0)
	dst = append(dst, ' ')
	if p.Encoding != "" {
		dst = AppendString(dst, p.Encoding)
	} else {
		dst = append(dst, `"7bit"`...)
	}
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, p.BodyEnd-p.BodyStart, 10)
	if message := p.Embedded(); message != nil {
		dst = append(dst, ' ')
		dst = AppendEnvelope(dst, message.Envelope)
		dst = append(dst, ' ')
		dst = AppendBodyStructure(dst, message, extended)
	}
	if text || p.Kind == Embedded {
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, p.BodyLines, 10)
	}
	if !extended {
		return dst
	}
	dst = append(dst, ' ')
	dst = appendPresent(dst, p.MD5, p.Present&HasMD5 != 0)
	return appendExtension(dst, p)
}

func appendPresent(dst []byte, s string, present bool) []byte {
	if s == "" && !present {
		return append(dst, "NIL"...)
	}
	return appendLine(dst, s)
}

// appendParams appends a list of parameters. Text has a character set even when none is written.
func appendParams(dst []byte, params []Param, text bool) []byte {
	if len(params) == 0 && !text {
		return append(dst, "NIL"...)
	}
	dst = append(dst, '(')
	for i := range params {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = AppendString(dst, params[i].Name)
		dst = append(dst, ' ')
		dst = AppendString(dst, params[i].Value)
		text = text && !strings.EqualFold(params[i].Name, "charset")
	}
	if text {
		if len(params) > 0 {
			dst = append(dst, ' ')
		}
		dst = append(dst, `"charset" "us-ascii"`...)
	}
	return append(dst, ')')
}

// appendExtension appends disposition, language and location.
func appendExtension(dst []byte, p *Part) []byte {
	dst = append(dst, ' ')
	if p.Disposition == "" && p.Present&HasDisposition == 0 {
		dst = append(dst, "NIL"...)
	} else {
		dst = append(dst, '(')
		dst = AppendString(dst, p.Disposition)
		dst = append(dst, ' ')
		dst = appendParams(dst, p.DispositionParams, false)
		dst = append(dst, ')')
	}
	dst = append(dst, ' ')
	if len(p.Language) == 0 {
		dst = append(dst, "NIL"...)
	} else {
		separator := byte('(')
		for _, tag := range p.Language {
			dst = append(dst, separator)
			dst = AppendString(dst, tag)
			separator = ' '
		}
		dst = append(dst, ')')
	}
	dst = append(dst, ' ')
	return appendPresent(dst, p.Location, p.Present&HasLocation != 0)
}
