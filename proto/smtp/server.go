package smtp

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"postilion/mail/envelope"
)

// mode says what the next input octets are.
type mode uint8

const (
	modeCommand mode = iota
	// modeAnswer: the session owes an answer; no input is taken.
	modeAnswer
	modeAuth
	modeData
	modeChunk
	modeSkip
	modeClosed
)

// Server is the server half of one connection. It is for one goroutine.
//
// The session calls Start, then Next again and again. Input may come in pieces of any size: the replies are the same.
type Server struct {
	settings *Settings
	peer     Peer
	mode     mode

	out []byte
	// line holds the beginning of a line that came in pieces, last its last octet so far.
	line    []byte
	last    byte
	tooLong bool
	tokens  []token

	// What Next hands out before it reads input, in this order.
	notices []Event
	abandon bool
	pauses  int
	// held is where in out the reply begins that a pause holds back.
	held    int
	ask     Event
	asking  bool
	closing bool
	reason  string

	command   verb
	where     string
	counts    [verbUnknown + 1]count
	errors    int
	junk      int
	denied    bool
	pipelined bool
	helo      string
	esmtp     bool

	mail          envelope.Envelope
	inMail        bool
	size          int64
	accepted      int
	overshoot     int
	binary        bool
	recipient     envelope.Recipient
	authenticated bool
	mechanism     string

	body bodyState
}

type count struct{ good, all int }

// NewServer returns an engine for one connection.
func NewServer(settings *Settings) *Server {
	return &Server{settings: settings, where: "CONNECT"}
}

// Start begins the session: the first event will be CheckConnect, and the greeting follows its answer.
func (s *Server) Start(peer Peer) {
	s.SetPeer(peer)
	s.put(CheckConnect, "")
}

// SetPeer renews what is known of the client.
func (s *Server) SetPeer(peer Peer) { s.peer = peer }

// Output returns the replies that wait to be written. They are valid until the next call of a method; Written forgets them.
func (s *Server) Output() []byte { return s.out }

// Written forgets the output that Output returned.
func (s *Server) Written() {
	if cap(s.out) > 16<<10 {
		s.out = nil
	}
	s.out, s.held = s.out[:0], 0
}

// Held returns how many octets of Output go out only after the Pause that was asked for: the reply to the error itself.
func (s *Server) Held() int { return len(s.out) - s.held }

// WrittenBefore forgets the output that goes out before a Pause.
func (s *Server) WrittenBefore() {
	if s.held > 0 {
		s.out = append(s.out[:0], s.out[s.held:]...)
		s.held = 0
	}
}

// Helo returns the name of HELO, EHLO or LHLO, made harmless, or "".
func (s *Server) Helo() string { return s.helo }

// Protocol returns SMTP, ESMTP or LMTP.
func (s *Server) Protocol() string {
	switch {
	case s.settings.LMTP:
		return "LMTP"
	case s.esmtp:
		return "ESMTP"
	}
	return "SMTP"
}

// Envelope returns the transaction so far. At EndOfMessage the session takes it over.
func (s *Server) Envelope() *envelope.Envelope { return &s.mail }

// InTransaction tells whether MAIL was accepted.
func (s *Server) InTransaction() bool { return s.inMail }

// Size returns the size that MAIL announced, and once the message comes in, the octets received.
func (s *Server) Size() int64 {
	if s.body.begun {
		return s.body.size
	}
	return s.size
}

// ImproperPipelining tells whether the client sent ahead where it may not.
func (s *Server) ImproperPipelining() bool { return s.pipelined }

// Errors returns the number of errors since the last message.
func (s *Server) Errors() int { return s.errors }

// Where names the last command, for the log: CONNECT before the first, DATA, END-OF-MESSAGE and so on.
func (s *Server) Where() string { return s.where }

// ReceivingMessage tells whether message octets are expected.
func (s *Server) ReceivingMessage() bool { return s.mode == modeData || s.mode == modeChunk }

// ReceivingChunk tells whether they are those of BDAT.
func (s *Server) ReceivingChunk() bool { return s.mode == modeChunk || s.mode == modeSkip }

// Chunked tells whether the message came by BDAT.
func (s *Server) Chunked() bool { return s.command == verbBdat }

// Idle tells whether the client is waited for and no message is under way: the session may be ended with Shutdown.
func (s *Server) Idle() bool {
	return (s.mode == modeCommand || s.mode == modeAuth) && !s.body.begun
}

// AwaitsCommand tells whether the next octet will begin a command.
func (s *Server) AwaitsCommand() bool { return s.mode == modeCommand && len(s.line) == 0 && !s.tooLong }

// Release gives up buffers that are empty, while the connection idles.
func (s *Server) Release() {
	if s.AwaitsCommand() && len(s.out) == 0 {
		s.line, s.tokens, s.out = nil, nil, nil
	}
}

// put queues one event that wants an answer.
func (s *Server) put(kind EventKind, text string) {
	s.ask = Event{Kind: kind, Text: text}
	s.asking = true
	s.mode = modeAnswer
}

func (s *Server) notice(warning bool, text string) {
	s.notices = append(s.notices, Event{Kind: Notice, Text: text, Warning: warning})
}

// Next takes input and returns how much of it was used, with what to do. The unused rest must be given again.
func (s *Server) Next(in []byte) (int, Event) {
	used := 0
	for {
		if event, ok := s.pending(); ok {
			return used, event
		}
		n, event := 0, Event{Kind: More}
		switch s.mode {
		case modeCommand, modeAuth:
			n, event = s.nextLine(in[used:])
		case modeData, modeChunk:
			n, event = s.nextData(in[used:])
		case modeSkip:
			n, event = s.nextSkipped(in[used:])
		case modeClosed:
			return len(in), Event{Kind: Close}
		}
		if used += n; event.Kind != again {
			return used, event
		}
	}
}

func (s *Server) pending() (Event, bool) {
	switch {
	case len(s.notices) > 0:
		event := s.notices[0]
		if s.notices = s.notices[1:]; len(s.notices) == 0 {
			s.notices = nil
		}
		return event, true
	case s.abandon:
		s.abandon = false
		return Event{Kind: Abandon}, true
	case s.asking:
		s.asking = false
		return s.ask, true
	case s.pauses > 0:
		s.pauses--
		return Event{Kind: Pause}, true
	case s.closing:
		s.closing, s.mode = false, modeClosed
		return Event{Kind: Close, Text: s.reason}, true
	}
	return Event{}, false
}

// nextLine takes one line of a command or of a SASL exchange.
func (s *Server) nextLine(in []byte) (int, Event) {
	if s.mode == modeCommand && s.errors >= s.settings.hardErrorLimit() {
		s.reply("421 4.7.0 ", s.settings.Hostname, " Error: too many errors")
		s.reason = "too many errors"
		return 0, Event{Kind: again}
	}
	limit := s.settings.lineLimit()
	if s.mode == modeAuth {
		limit = s.settings.saslLimit()
	}
	end := bytes.IndexByte(in, '\n')
	if end < 0 {
		s.hold(in, limit)
		return len(in), Event{Kind: More}
	}
	line := in[:end]
	last := s.last
	if len(line) > 0 {
		last = line[len(line)-1]
	}
	if len(s.line) > 0 || s.tooLong {
		s.hold(line, limit)
		line = s.line
	}
	line = bytes.TrimRight(line, "\r")
	tooLong := s.tooLong || len(line) > limit
	line = bytes.TrimRight(line[:min(len(line), limit)], "\r")
	s.line, s.tooLong, s.last = s.line[:0], false, 0
	if tooLong {
		s.notice(true, s.peer.Client+": request longer than "+strconv.Itoa(limit)+": "+printable(line[:min(len(line), 30)])+"...")
	}
	if s.mode == modeAuth {
		s.authLine(line, tooLong)
	} else if last == '\r' || !s.bareCommand() {
		s.commandLine(line, in[end+1:])
	}
	return end + 1, Event{Kind: again}
}

// hold keeps a piece of a line until its end comes. What goes beyond the limit is forgotten; CRs there may belong to the line end.
func (s *Server) hold(piece []byte, limit int) {
	if len(piece) == 0 {
		return
	}
	s.last = piece[len(piece)-1]
	room := min(limit-len(s.line), len(piece))
	s.line = append(s.line, piece[:room]...)
	if len(bytes.Trim(piece[room:], "\r")) > 0 {
		s.tooLong = true
	}
}

// bareCommand deals with a command line that ended in LF alone; true means that it is done with.
func (s *Server) bareCommand() bool {
	switch s.peer.BareNewline {
	case BareNewlineNote:
		s.notice(false, "bare <LF> received after "+s.where+" from "+s.peer.Client)
	case BareNewlineReject:
		s.notice(false, s.rejectLine("reject", "bare <LF> received"))
		s.errors++
		s.reply(s.bareReply())
		s.closing = true
		return true
	}
	return false
}

func (s *Server) bareReply() string {
	return strconv.Itoa(s.settings.bareNewlineCode()) + " 5.5.2 " + s.settings.Hostname + " Error: bare <LF> received"
}

// rejectLine is the log line of a refusal that the engine itself decides.
func (s *Server) rejectLine(verb, text string) string {
	line := "NOQUEUE: " + verb + ": " + s.where + " from " + s.peer.Client + ": " + text + ";"
	if s.inMail {
		line += " from=<" + QuoteLocal(s.mail.Sender) + ">"
	}
	if len(s.mail.Recipients) > 0 {
		line += " to=<" + QuoteLocal(s.mail.Recipients[0].Address) + ">"
	}
	line += " proto=" + s.Protocol()
	if s.helo != "" {
		line += " helo=<" + s.helo + ">"
	}
	return line
}

// commandLine runs one command. rest is what the client sent beyond it.
func (s *Server) commandLine(line, rest []byte) {
	if s.settings.SMTPUTF8 && !utf8.Valid(line) {
		s.fail("500 5.5.2 Error: bad UTF-8 syntax")
		return
	}
	if s.settings.CommandFilter != nil {
		line = []byte(s.settings.CommandFilter(string(line)))
	}
	s.tokens = tokenize(line, s.tokens[:0])
	if len(s.tokens) == 0 {
		s.fail("500 5.5.2 Error: bad syntax")
		return
	}
	word := s.tokens[0].text
	for _, name := range s.settings.NoopCommands {
		if foldedBytes(word, name) {
			s.reply("250 2.0.0 Ok")
			s.junkCommand()
			return
		}
	}
	s.command = s.find(word)
	switch {
	case s.command == verbUnknown && !s.unknownCommand(word, line):
		return
	case s.denied && s.command != verbQuit:
		s.count(false)
		s.fail("503 5.7.0 Error: access denied for ", s.peer.Client)
		return
	case s.command == verbUnknown:
		s.count(false)
		s.fail("500 5.5.2 Error: command not recognized")
		return
	case s.settings.EnforceTLS && !s.peer.TLSActive && s.command.flags()&beforeTLS == 0:
		s.count(false)
		s.fail("530 5.7.0 Must issue a STARTTLS command first")
		return
	}
	s.where = s.command.String()
	if len(rest) > 0 && !s.pipelined && (!s.esmtp && !s.settings.LMTP || s.command.flags()&lastOfGroup != 0) {
		s.pipelined = true
		s.notice(false, "improper command pipelining after "+s.where+" from "+s.peer.Client+": "+escape(rest[:min(len(rest), 100)]))
		if s.settings.ForbidUnauthPipelining {
			s.reply("554 5.5.0 Error: SMTP protocol synchronization")
			s.closing = true
			return
		}
	}
	s.run()
}

// unknownCommand ends the session when the word shows that the client is no mail client.
func (s *Server) unknownCommand(word, line []byte) bool {
	s.where = "UNKNOWN"
	if !looksLikeHeader(word) && !s.forbidden(string(word)) {
		return true
	}
	s.count(false)
	s.notice(true, "non-"+s.protocolFamily()+" command from "+s.peer.Client+": "+printable(line[:min(len(line), 100)]))
	s.reply("221 2.7.0 Error: I can break rules, too. Goodbye.")
	s.closing = true
	return false
}

func (s *Server) protocolFamily() string {
	if s.settings.LMTP {
		return "LMTP"
	}
	return "SMTP"
}

func looksLikeHeader(word []byte) bool {
	colon := bytes.IndexByte(word, ':')
	if colon <= 0 {
		return false
	}
	for _, c := range word[:colon] {
		if c <= ' ' || c >= 127 {
			return false
		}
	}
	return true
}

func (s *Server) forbidden(word string) bool {
	if s.settings.ForbiddenCommand != nil {
		return s.settings.ForbiddenCommand(word)
	}
	c := toLower(word[0])
	return c < 'a' || c > 'z' || equalFold(word, "CONNECT") || equalFold(word, "GET") || equalFold(word, "POST")
}

// escape shows control characters and octets beyond ASCII the way C writes them.
func escape(b []byte) string {
	var out strings.Builder
	for _, c := range b {
		switch {
		case c == '\r':
			out.WriteString(`\r`)
		case c == '\n':
			out.WriteString(`\n`)
		case c == '\t':
			out.WriteString(`\t`)
		case c == '\\':
			out.WriteString(`\\`)
		case c < ' ' || c >= 127:
			out.WriteByte('\\')
			out.WriteByte('0' + c>>6)
			out.WriteByte('0' + c>>3&7)
			out.WriteByte('0' + c&7)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// count books the command that just ran.
func (s *Server) count(good bool) {
	c := &s.counts[s.command]
	c.all++
	if good {
		c.good++
	}
}

// done ends a command that succeeded.
func (s *Server) done(reply ...string) {
	s.reply(reply...)
	s.finish(true)
}

// refuse ends a command that failed.
func (s *Server) refuse(reply ...string) {
	s.reply(reply...)
	s.finish(false)
}

func (s *Server) finish(good bool) {
	if s.mode == modeAnswer || s.mode == modeAuth {
		s.mode = modeCommand
	}
	s.count(good)
	if !good {
		s.errors++
	}
	if s.command.flags()&junkFlag != 0 {
		s.junkCommand()
	}
}

func (s *Server) junkCommand() {
	if s.junk > s.settings.junkLimit() {
		s.errors++
	}
	s.junk++
}

// fail replies to a line that is no command.
func (s *Server) fail(reply ...string) {
	s.reply(reply...)
	s.errors++
}

// reply queues one reply; lines after the first are separated by LF.
func (s *Server) reply(parts ...string) {
	text := parts[0]
	if len(parts) > 1 {
		text = strings.Join(parts, "")
	}
	if len(text) > 0 && (text[0] == '4' || text[0] == '5') && s.peer.Footer != nil {
		text = s.peer.Footer(text)
	}
	if strings.HasPrefix(text, "421") || strings.HasPrefix(text, "521") {
		s.closing = true
	}
	if s.errors >= s.settings.softErrorLimit() {
		if s.pauses == 0 {
			s.held = len(s.out)
		}
		s.pauses++
	}
	for {
		line, rest, more := strings.Cut(text, "\n")
		start := len(s.out)
		s.out = append(s.out, strings.TrimRight(line, "\r")...)
		if out := s.out[start:]; len(out) > 3 {
			if more {
				out[3] = '-'
			}
			if s.settings.SoftBounce && out[0] == '5' {
				out[0] = '4'
				if len(out) > 4 && out[4] == '5' {
					out[4] = '4'
				}
			}
		}
		s.out = append(s.out, '\r', '\n')
		if !more {
			return
		}
		text = rest
	}
}

// Count is how often a command was given.
type Count struct {
	// Command is its name in small letters; "unknown" stands for all others.
	Command   string
	Good, All int
}

// Counts lists the commands of the session in the order of Postfix's disconnect line.
func (s *Server) Counts() []Count {
	var list []Count
	for i, c := range s.counts {
		if c.all > 0 {
			list = append(list, Count{strings.ToLower(verb(i).String()), c.good, c.all})
		}
	}
	return list
}

// Shutdown ends the session before its next command with a reply such as "421 4.3.2 host Service shutting down".
func (s *Server) Shutdown(reply string) {
	s.reply(reply)
	s.closing = true
	s.asking = false
}
