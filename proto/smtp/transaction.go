package smtp

import (
	"bytes"
	"strings"

	"postilion/mail/envelope"
)

// badOrder and badSyntax choose between Postfix's replies and those of an LMTP server.
func (s *Server) badOrder(reply string) {
	if s.settings.LMTP {
		reply = "503 5.5.0 " + strings.TrimPrefix(reply, "503 5.5.1 Error: ")
	}
	s.refuse(reply)
}

func (s *Server) badSyntax(reply string) {
	if s.settings.LMTP {
		reply = "501 5.5.4 " + reply[len("501 5.x.x "):]
	}
	s.refuse(reply)
}

// nonASCII tells whether an address needs SMTPUTF8.
func nonASCII(address string) bool {
	for i := range len(address) {
		if address[i] >= 128 {
			return true
		}
	}
	return false
}

// pathArgument finds the path of MAIL and RCPT. In LMTP it must stand in brackets right behind the colon.
func (s *Server) pathArgument(keyword string) (token, bool) {
	if len(s.tokens) < 3 || !foldedBytes(s.tokens[1].text, keyword) {
		return token{}, false
	}
	path := s.tokens[2]
	if s.settings.LMTP {
		colon := s.tokens[1].text
		if cap(colon) == len(colon) || colon[:len(colon)+1][len(colon)] != '<' || path.text[0] != '<' {
			return token{}, false
		}
	}
	return path, true
}

func (s *Server) mailCommand() {
	if s.settings.HeloRequired && s.helo == "" {
		s.refuse("503 5.5.1 Error: send HELO/EHLO first")
		return
	}
	if s.inMail {
		s.badOrder("503 5.5.1 Error: nested MAIL command")
		return
	}
	path, ok := s.pathArgument("from:")
	if !ok {
		s.refuse("501 5.5.4 Syntax: MAIL FROM:<address>")
		return
	}
	if path.broken {
		s.badSyntax("501 5.1.7 Bad sender address syntax")
		return
	}
	address, ok := parsePath(path.text, s.rules(s.settings.StrictEnvelopes))
	if !ok {
		s.illegalAddress(path.text)
		s.badSyntax("501 5.1.7 Bad sender address syntax")
		return
	}
	s.mail = envelope.Envelope{Sender: address}
	s.size, s.binary = 0, false
	for _, t := range s.tokens[3:] {
		if reply := s.mailParameter(t.text); reply != "" {
			s.mail = envelope.Envelope{}
			s.refuse(reply)
			return
		}
	}
	if s.settings.StrictSMTPUTF8 && !s.mail.UTF8 && nonASCII(address) {
		s.refuse("553 5.6.7 Must declare SMTPUTF8 to send unicode address")
		return
	}
	if limit := s.settings.MessageSizeLimit; limit > 0 && s.size > limit {
		s.inMail = true
		s.notice(false, s.rejectLine("reject", "552 5.3.4 Message size exceeds fixed limit"))
		s.inMail = false
		s.refuse("552 5.3.4 Message size exceeds fixed limit")
		return
	}
	s.put(CheckMail, address)
}

// mailParameter reads one parameter of MAIL and returns the refusal, "" when it is fine.
func (s *Server) mailParameter(arg []byte) string {
	const noDSN = "501 5.7.1 DSN support is disabled"
	dsn := s.peer.Discard&KeywordDSN == 0
	switch {
	case s.settings.LMTP && !foldedBytes(arg, "BODY=7BIT") && !foldedBytes(arg, "BODY=8BITMIME"):
		return "555 5.5.4 Unsupported parameters"
	case foldedBytes(arg, "BODY=8BITMIME"):
		s.mail.Body = envelope.EightBitMIME
	case foldedBytes(arg, "BODY=7BIT"):
		s.mail.Body = envelope.SevenBit
	case s.settings.BinaryMIME && foldedBytes(arg, "BODY=BINARYMIME"):
		s.mail.Body, s.binary = envelope.BinaryMIME, true
	case s.settings.SMTPUTF8 && s.peer.Discard&KeywordSMTPUTF8 == 0 && foldedBytes(arg, "SMTPUTF8"):
		s.mail.UTF8 = true
	default:
		if value, ok := prefixFold(arg, "SIZE="); ok {
			if !allDigits(value) {
				return "501 5.5.4 Bad message size syntax"
			}
			if s.size, ok = decimal(value); !ok {
				return "552 5.3.4 Message size exceeds file system imposed limit"
			}
		} else if value, ok = prefixFold(arg, "RET="); ok {
			if !dsn {
				return noDSN
			}
			word := strings.ToUpper(string(value))
			if s.mail.Return != "" || word != "FULL" && word != "HDRS" {
				return "501 5.5.4 Bad RET parameter syntax"
			}
			s.mail.Return = word
		} else if value, ok = prefixFold(arg, "ENVID="); ok {
			if !dsn {
				return noDSN
			}
			id, valid := DecodeXtext(value)
			if s.mail.ID != "" || !valid || len(id) == 0 || printable(id) != string(id) {
				return "501 5.5.4 Bad ENVID parameter syntax"
			}
			s.mail.ID = string(id)
		} else if value, ok = prefixFold(arg, "AUTH="); ok && s.peer.Auth {
			if _, valid := DecodeXtext(value); !valid {
				return "501 5.5.4 Bad AUTH parameter syntax"
			}
		} else {
			return "555 5.5.4 Unsupported option: " + printable(arg)
		}
	}
	return ""
}

func (s *Server) rcptCommand() {
	if !s.inMail {
		s.badOrder("503 5.5.1 Error: need MAIL command")
		return
	}
	if s.body.begun {
		s.badOrder("503 5.5.1 Error: RCPT after BDAT")
		return
	}
	path, ok := s.pathArgument("to:")
	if !ok {
		s.refuse("501 5.5.4 Syntax: RCPT TO:<address>")
		return
	}
	if path.broken {
		s.badSyntax("501 5.1.3 Bad recipient address syntax")
		return
	}
	address, ok := parsePath(path.text, s.rules(s.settings.StrictEnvelopes))
	if !ok || address == "" {
		s.illegalAddress(path.text)
		s.badSyntax("501 5.1.3 Bad recipient address syntax")
		return
	}
	if s.settings.StrictSMTPUTF8 && !s.mail.UTF8 && nonASCII(address) {
		s.refuse("553 5.6.7 Must declare SMTPUTF8 to send unicode address")
		return
	}
	s.recipient = envelope.Recipient{Address: address}
	for _, t := range s.tokens[3:] {
		if reply := s.rcptParameter(t.text); reply != "" {
			s.refuse(reply)
			return
		}
	}
	if s.accepted >= s.settings.recipientLimit() {
		s.reply("452 4.5.3 Error: too many recipients")
		s.finish(s.overshoot < s.settings.overshootLimit())
		s.overshoot++
		return
	}
	s.put(CheckRcpt, address)
}

func (s *Server) rcptParameter(arg []byte) string {
	const noDSN = "501 5.7.1 DSN support is disabled"
	dsn := s.peer.Discard&KeywordDSN == 0
	if s.settings.LMTP {
		return "555 5.5.4 Unsupported parameters"
	}
	if value, ok := prefixFold(arg, "NOTIFY="); ok {
		if !dsn {
			return noDSN
		}
		notify, valid := parseNotify(string(value))
		if s.recipient.Notify != 0 || !valid {
			return "501 5.5.4 Error: Bad NOTIFY parameter syntax"
		}
		s.recipient.Notify = notify
		return ""
	}
	if value, ok := prefixFold(arg, "ORCPT="); ok {
		if !dsn {
			return noDSN
		}
		kind, coded, found := bytes.Cut(value, []byte{';'})
		original, valid := coded, true
		if !foldedBytes(kind, "utf-8") {
			original, valid = DecodeXtext(coded)
		}
		if s.recipient.Original != "" || !found || len(kind) == 0 || !valid {
			return "501 5.5.4 Error: Bad ORCPT parameter syntax"
		}
		s.recipient.Original = string(kind) + ";" + string(original)
		return ""
	}
	return "555 5.5.4 Unsupported option: " + printable(arg)
}

// parseNotify reads the value of NOTIFY (RFC 3461 section 4.1).
func parseNotify(value string) (set envelope.Notify, ok bool) {
	for word := range words(value) {
		switch strings.ToUpper(word) {
		case "NEVER":
			set |= envelope.NotifyNever
		case "SUCCESS":
			set |= envelope.NotifySuccess
		case "FAILURE":
			set |= envelope.NotifyFailure
		case "DELAY":
			set |= envelope.NotifyDelay
		default:
			return 0, false
		}
	}
	return set, set != 0 && (set&envelope.NotifyNever == 0 || set == envelope.NotifyNever)
}

// noRecipients refuses DATA and BDAT before there is a recipient; "" means that there is one.
func (s *Server) noRecipients() string {
	switch {
	case s.accepted > 0:
		return ""
	case s.settings.LMTP:
		return "503 5.5.0 No valid recipients"
	case !s.inMail:
		return "503 5.5.1 Error: need RCPT command"
	}
	return "554 5.5.1 Error: no valid recipients"
}

func (s *Server) dataCommand() {
	if s.body.begun {
		s.badOrder("503 5.5.1 Error: DATA after BDAT")
		return
	}
	if reply := s.noRecipients(); reply != "" {
		s.refuse(reply)
		return
	}
	if len(s.tokens) != 1 {
		s.refuse("501 5.5.4 Syntax: DATA")
		return
	}
	if s.binary {
		s.refuse("503 5.5.1 Error: BODY=BINARYMIME needs BDAT")
		return
	}
	s.put(CheckData, "")
}

func (s *Server) bdatCommand() {
	if s.peer.Discard&KeywordChunking != 0 {
		s.refuse("521 5.5.1 Error: command not implemented")
		return
	}
	n := len(s.tokens)
	last := n == 3 && foldedBytes(s.tokens[n-1].text, "LAST")
	var size int64
	valid := n == 2 || last
	if valid {
		valid = allDigits(s.tokens[1].text)
	}
	if valid {
		size, valid = decimal(s.tokens[1].text)
	}
	if !valid {
		s.notice(true, "NOQUEUE: malformed BDAT command syntax from "+s.peer.Client+": "+printable(s.joined(0)))
		s.refuse("521 5.5.4 Syntax: BDAT count [LAST]")
		return
	}
	s.body.left, s.body.last = size, last
	none := s.noRecipients()
	limit := s.settings.MessageSizeLimit
	switch {
	case s.body.failed:
		s.skipChunk("551 5.0.0 Discarded ", string(s.tokens[1].text), " bytes after earlier error")
	case size == 0 && !last:
		s.notice(true, "NOQUEUE: null BDAT request from "+s.peer.Client)
		s.skipChunk("551 5.7.1 Null BDAT request")
	case none != "":
		s.skipChunk(none)
	case limit > 0 && size > limit-s.body.size:
		s.notice(true, "NOQUEUE: BDAT request from "+s.peer.Client+" exceeds message size limit")
		s.skipChunk("552 5.3.4 Chunk exceeds message size limit")
	case !s.body.begun:
		s.put(CheckData, "")
	default:
		s.mode = modeChunk
	}
}
