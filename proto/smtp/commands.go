package smtp

import (
	"bytes"
	"strconv"

	"postilion/mail/envelope"
)

// Permit answers a Check event: the command goes on.
func (s *Server) Permit() {
	if s.mode != modeAnswer {
		return
	}
	s.mode = modeCommand
	switch s.ask.Kind {
	case CheckConnect:
		s.denied = false
		s.reply("220 ", s.settings.Banner)
	case CheckHelo:
		s.greet()
	case CheckMail:
		s.inMail = true
		s.body = bodyState{}
		s.done("250 2.1.0 Ok")
	case CheckRcpt:
		s.mail.Recipients = append(s.mail.Recipients, s.recipient)
		s.accepted++
		s.done("250 2.1.5 Ok")
	case CheckData:
		s.beginBody()
	case CheckEndOfData:
		s.put(EndOfMessage, "")
	case CheckEtrn:
		s.put(FlushQueue, s.ask.Text)
	case CheckVerify:
		s.done("252 2.0.0 ", printable(s.joined(1)))
	case CheckTLS:
		s.reply("220 2.0.0 Ready to start TLS")
		s.put(Handshake, "")
	}
}

// Refuse answers a Check event with a refusal; a reply with 421 or 521 ends the session as well.
func (s *Server) Refuse(reply string) {
	if s.mode != modeAnswer {
		return
	}
	switch s.ask.Kind {
	case CheckConnect:
		s.mode = modeCommand
		s.denied = true
		s.reply(reply)
	case CheckData:
		s.mode = modeCommand
		s.refuseBody(reply)
	case CheckEndOfData, EndOfMessage:
		s.endMessage(reply, false)
	case CheckMail:
		s.resetMail()
		s.refuse(reply)
	default:
		s.refuse(reply)
	}
}

// Reply answers FlushQueue and EndOfMessage with a whole reply.
func (s *Server) Reply(reply string) {
	if s.mode != modeAnswer {
		return
	}
	good := len(reply) > 0 && reply[0] == '2'
	if s.ask.Kind == EndOfMessage {
		s.endMessage(reply, good)
		return
	}
	s.reply(reply)
	s.finish(good)
}

// ReplyEach answers EndOfMessage in LMTP: a reply for each recipient of the envelope, in its order.
func (s *Server) ReplyEach(replies []string) {
	if s.mode != modeAnswer || s.ask.Kind != EndOfMessage {
		return
	}
	good := false
	for _, reply := range replies {
		good = good || len(reply) > 0 && reply[0] == '2'
		s.reply(reply)
	}
	s.finishMessage(good)
}

func (s *Server) heloCommand() {
	if len(s.tokens) < 2 {
		if s.settings.LMTP {
			s.refuse("501 5.5.4 Invalid parameters")
			return
		}
		s.refuse("501 Syntax: ", s.where, " hostname")
		return
	}
	s.put(CheckHelo, string(s.joined(1)))
}

// joined returns the tokens from the i-th on as one, separated by single blanks.
func (s *Server) joined(i int) []byte {
	if i == len(s.tokens)-1 {
		return s.tokens[i].text
	}
	parts := make([][]byte, 0, len(s.tokens)-i)
	for _, t := range s.tokens[i:] {
		parts = append(parts, t.text)
	}
	return bytes.Join(parts, []byte{' '})
}

// greet answers HELO, EHLO and LHLO once the name is accepted.
func (s *Server) greet() {
	s.resetMail()
	s.helo = neuter(printable([]byte(s.ask.Text)))
	if s.command == verbHelo {
		s.done("250 ", s.settings.Hostname)
		return
	}
	s.esmtp = true
	text := "250 " + s.settings.Hostname
	add := func(keyword Keywords, line string) {
		if s.peer.Discard&keyword == 0 {
			text += "\n250 " + line
		}
	}
	if s.peer.Discard != 0 && s.peer.Discard&SilentDiscard == 0 {
		s.notice(false, "discarding EHLO keywords: "+s.peer.Discard.String())
	}
	if s.settings.LMTP {
		s.lhloKeywords(add)
	} else {
		s.ehloKeywords(add)
	}
	s.done(text)
}

func (s *Server) ehloKeywords(add func(Keywords, string)) {
	set := s.settings
	add(KeywordPipelining, "PIPELINING")
	if set.MessageSizeLimit > 0 {
		add(KeywordSize, "SIZE "+strconv.FormatInt(set.MessageSizeLimit, 10))
	} else {
		add(KeywordSize, "SIZE")
	}
	if !set.DisableVRFY {
		add(KeywordVRFY, "VRFY")
	}
	add(KeywordETRN, "ETRN")
	if s.peer.TLSOffered && !s.peer.TLSActive {
		add(KeywordSTARTTLS, "STARTTLS")
	}
	if s.peer.Auth && s.peer.Mechanisms != "" {
		add(KeywordAuth, "AUTH "+s.peer.Mechanisms)
		if set.BrokenSASLClients {
			add(KeywordAuth, "AUTH="+s.peer.Mechanisms)
		}
	}
	if s.peer.XClient {
		add(0, "XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT")
	}
	if s.peer.XForward {
		add(0, "XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT")
	}
	add(KeywordEnhancedStatusCodes, "ENHANCEDSTATUSCODES")
	add(Keyword8BitMIME, "8BITMIME")
	add(KeywordDSN, "DSN")
	if set.SMTPUTF8 {
		add(KeywordSMTPUTF8, "SMTPUTF8")
	}
	add(KeywordChunking, "CHUNKING")
	if set.BinaryMIME {
		add(KeywordChunking, "BINARYMIME")
	}
	if set.Limits {
		add(0, "LIMITS RCPTMAX="+strconv.Itoa(set.recipientLimit()))
	}
}

// lhloKeywords are those of Dovecot's LMTP server.
func (s *Server) lhloKeywords(add func(Keywords, string)) {
	if s.peer.TLSOffered && !s.peer.TLSActive {
		add(KeywordSTARTTLS, "STARTTLS")
	}
	add(Keyword8BitMIME, "8BITMIME")
	add(KeywordChunking, "CHUNKING")
	if s.peer.XClient {
		add(0, "XCLIENT ADDR PORT NAME HELO PROTO LOGIN")
	}
	add(KeywordEnhancedStatusCodes, "ENHANCEDSTATUSCODES")
	add(KeywordPipelining, "PIPELINING")
}

func (s *Server) rsetCommand() {
	if len(s.tokens) != 1 {
		s.refuse("501 5.5.4 Syntax: RSET")
		return
	}
	s.resetMail()
	s.done("250 2.0.0 Ok")
}

// resetMail forgets the transaction.
func (s *Server) resetMail() {
	if s.inMail && (s.accepted > 0 || s.body.begun) {
		s.abandon = true
	}
	s.inMail, s.size, s.accepted, s.overshoot, s.binary = false, 0, 0, 0, false
	s.mail = envelope.Envelope{}
	s.body = bodyState{}
}

func (s *Server) vrfyCommand() {
	if s.settings.DisableVRFY {
		s.refuse("502 5.5.1 VRFY command is disabled")
		return
	}
	syntax := "501 5.5.4 Syntax: VRFY address"
	if s.settings.SMTPUTF8 {
		syntax += " [SMTPUTF8]"
	}
	if n := len(s.tokens); n > 2 && s.settings.SMTPUTF8 && foldedBytes(s.tokens[n-1].text, "SMTPUTF8") {
		s.tokens = s.tokens[:n-1]
	}
	if len(s.tokens) < 2 {
		s.refuse(syntax)
		return
	}
	if s.tokens[1].broken {
		s.refuse("501 5.1.3 Bad recipient address syntax")
		return
	}
	raw := s.joined(1)
	address, ok := parsePath(raw, s.rules(false))
	if !ok || address == "" {
		s.illegalAddress(raw)
		s.refuse("501 5.1.3 Bad recipient address syntax")
		return
	}
	s.put(CheckVerify, address)
}

func (s *Server) rules(strict bool) pathRules {
	return pathRules{strict: strict, nullDomain: s.settings.ResolveNullDomain, numericDomain: s.settings.ResolveNumericDomain, minUser: s.settings.AllowMinUser}
}

func (s *Server) illegalAddress(raw []byte) {
	s.notice(true, "Illegal address syntax from "+s.peer.Client+" in "+s.where+" command: "+printable(raw))
}

func (s *Server) etrnCommand() {
	if s.settings.HeloRequired && s.helo == "" {
		s.refuse("503 Error: send HELO/EHLO first")
		return
	}
	if s.inMail {
		s.refuse("503 Error: MAIL transaction in progress")
		return
	}
	if len(s.tokens) != 2 {
		s.refuse("500 Syntax: ETRN domain")
		return
	}
	domain := string(s.tokens[1].text)
	if domain[0] == '@' || domain[0] == '#' {
		domain = domain[1:]
	}
	if !validHostname(domain) {
		s.refuse("501 Error: invalid parameter syntax")
		return
	}
	s.put(CheckEtrn, domain)
}

func (s *Server) startTLSCommand() {
	switch {
	case len(s.tokens) != 1:
		s.refuse("501 5.5.4 Syntax: STARTTLS")
	case s.peer.TLSActive:
		s.refuse("554 5.5.1 Error: TLS already active")
	case !s.peer.TLSOffered || s.peer.Discard&KeywordSTARTTLS != 0:
		s.refuse("502 5.5.1 Error: command not implemented")
	default:
		s.put(CheckTLS, "")
	}
}

// TLSStarted answers Handshake: the connection is encrypted, and what the client said before is forgotten (RFC 3207 section 4.2).
func (s *Server) TLSStarted() {
	if s.mode != modeAnswer || s.ask.Kind != Handshake {
		return
	}
	s.resetMail()
	s.helo = ""
	s.peer.TLSActive = true
	s.authenticated = false
	s.line = s.line[:0]
	s.finish(true)
}
