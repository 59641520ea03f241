package smtp

import (
	"bytes"
	"strconv"
)

// bodyState is where in the message the engine stands.
type bodyState struct {
	// begun: DATA or BDAT was accepted. failed: an error was answered already, further chunks are thrown away.
	begun, failed bool
	// left counts the octets missing from a chunk; last: it is the last one.
	left int64
	last bool
	// size counts the octets handed out, chunk what BDAT sent.
	size, chunk int64
	tooBig      bool
	bare        bool
	// reply waits for a chunk to be thrown away.
	reply []string

	lines lineState
}

// lineState is the position inside a line of the message.
type lineState struct {
	// inLine: some of the line was seen. dot: all that was seen is its first dot.
	inLine, dot bool
	// returns counts the CRs that were seen last and are not handed out yet.
	returns int
	// unclean: the line before ended in a bare LF.
	unclean bool
}

// What is handed out where the input does not hold it; nobody changes it.
var (
	lineEnd     = []byte("\r\n")
	straySpaces = bytes.Repeat([]byte{' '}, 4096)
	strayCRs    = bytes.Repeat([]byte{'\r'}, 4096)
)

// beginBody goes on after CheckData was permitted.
func (s *Server) beginBody() {
	s.body.begun = true
	if s.command == verbBdat {
		s.mode = modeChunk
		return
	}
	if s.settings.LMTP {
		s.reply("354 OK")
	} else {
		s.reply("354 End data with <CR><LF>.<CR><LF>")
	}
	s.mode = modeData
}

// refuseBody goes on after CheckData was refused.
func (s *Server) refuseBody(reply string) {
	if s.command == verbBdat {
		s.skipChunk(reply)
		return
	}
	s.refuse(reply)
}

// skipChunk throws away the chunk that follows and then answers.
func (s *Server) skipChunk(reply ...string) {
	s.body.failed = true
	s.body.reply = reply
	s.mode = modeSkip
}

func (s *Server) nextSkipped(in []byte) (int, Event) {
	n := int(min(int64(len(in)), s.body.left))
	if s.body.left -= int64(n); s.body.left > 0 {
		return n, Event{Kind: More}
	}
	s.mode = modeCommand
	reply := s.body.reply
	if s.body.last {
		s.resetMail()
	}
	s.refuse(reply...)
	return n, Event{Kind: again}
}

// nextData takes input of DATA or of one chunk.
func (s *Server) nextData(in []byte) (int, Event) {
	b := &s.body
	if s.mode == modeChunk {
		if b.left == 0 {
			return 0, s.endChunk()
		}
		in = in[:min(int64(len(in)), b.left)]
	}
	if len(in) == 0 {
		return 0, Event{Kind: More}
	}
	var n int
	var data []byte
	var end bool
	if s.binary {
		n, data = len(in), in
	} else {
		n, data, end = s.scan(in)
	}
	if s.mode == modeChunk {
		b.left -= int64(n)
		b.chunk += int64(n)
	}
	if end {
		s.endBody()
		return n, Event{Kind: again}
	}
	return n, s.handOut(data)
}

// handOut passes octets on unless the message is refused already.
func (s *Server) handOut(data []byte) Event {
	b := &s.body
	if len(data) == 0 || b.tooBig {
		return Event{Kind: again}
	}
	if limit := s.settings.MessageSizeLimit; limit > 0 && int64(len(data)) > limit-b.size {
		b.tooBig = true
		s.notice(true, "NOQUEUE: queue file size limit exceeded")
		return Event{Kind: again}
	}
	b.size += int64(len(data))
	return Event{Kind: MessageData, Data: data}
}

// endChunk goes on when the octets of a chunk are complete.
func (s *Server) endChunk() Event {
	b := &s.body
	if !b.last {
		s.mode = modeCommand
		s.done("250 2.0.0 Ok: ", strconv.FormatInt(b.chunk, 10), " bytes")
		b.chunk = 0
		return Event{Kind: again}
	}
	if b.lines.returns > 0 {
		return s.handOut(s.strayReturns(0))
	}
	if b.lines.inLine {
		b.lines = lineState{}
		return s.handOut(lineEnd)
	}
	s.endBody()
	return Event{Kind: again}
}

// endBody goes on at the end of the message.
func (s *Server) endBody() {
	s.mode = modeCommand
	s.where = "END-OF-MESSAGE"
	switch {
	case s.body.tooBig:
		s.failMessage("552 5.3.4 Error: message file too big")
	case s.body.bare && s.peer.BareNewline == BareNewlineReject:
		s.notice(false, s.rejectLine("reject", "bare <LF> received"))
		s.failMessage(s.bareReply())
	default:
		if s.body.bare && s.peer.BareNewline == BareNewlineNote {
			s.notice(false, "bare <LF> received after "+s.where+" from "+s.peer.Client)
		}
		s.put(CheckEndOfData, "")
	}
}

// failMessage refuses a message that the session did not see the end of.
func (s *Server) failMessage(reply string) {
	s.repeat(reply)
	s.resetMail()
	s.finish(false)
}

// endMessage answers the message after the session decided.
func (s *Server) endMessage(reply string, good bool) {
	s.repeat(reply)
	s.finishMessage(good)
}

func (s *Server) finishMessage(good bool) {
	s.body.begun, s.accepted = false, 0
	s.resetMail()
	s.finish(good)
	if good {
		s.errors, s.junk, s.pauses = 0, 0, 0
	}
}

// repeat gives the same reply for every recipient in LMTP, and once in SMTP.
func (s *Server) repeat(reply string) {
	s.reply(reply)
	if s.settings.LMTP {
		for range s.accepted - 1 {
			s.reply(reply)
		}
	}
}

// scan takes message octets. It returns how many it used and what they mean: octets to hand out, or the end of the message. Clean lines
// are handed out where they lie, as many as there are at once.
func (s *Server) scan(in []byte) (n int, data []byte, end bool) {
	l := &s.body.lines
	for n < len(in) {
		if !l.inLine && !l.dot && l.returns == 0 {
			if clean := cleanLines(in[n:], s.mode == modeData); clean > 0 {
				l.unclean = false
				return n + clean, in[n : n+clean], false
			}
			if in[n] == '.' && s.mode == modeData {
				l.dot = true
				n++
				continue
			}
		}
		switch c := in[n]; {
		case c == '\r':
			l.inLine = true
			for n < len(in) && in[n] == '\r' {
				l.returns++
				n++
			}
		case c == '\n' && l.returns > 1 && s.peer.BareNewline != BareNewlineAllow:
			return n, s.strayReturns(1), false
		case c == '\n':
			n++
			if dot := l.dot; !s.lineFeed() {
				return n, nil, true
			} else if !dot {
				return n, lineEnd, false
			}
		case l.returns > 0:
			return n, s.strayReturns(0), false
		default:
			l.inLine, l.dot = true, false
			rest := untilLineEnd(in[n:])
			return n + rest, in[n : n+rest], false
		}
	}
	return n, nil, false
}

// lineFeed ends a line; false means that it ended the message. Of a line that is nothing but a dot without being the end of the message
// nothing remains.
func (s *Server) lineFeed() bool {
	l := &s.body.lines
	bare := l.returns == 0
	end := l.dot && (s.peer.BareNewline == BareNewlineAllow || !bare && !l.unclean)
	s.body.bare = s.body.bare || bare
	*l = lineState{unclean: bare}
	return !end
}

// cleanLines returns the length of the complete lines at the start of in that can be handed out as they are.
func cleanLines(in []byte, dots bool) int {
	p := 0
	for p < len(in) && (!dots || in[p] != '.') {
		i := bytes.IndexByte(in[p:], '\n')
		if i <= 0 || in[p+i-1] != '\r' || bytes.IndexByte(in[p:p+i-1], '\r') >= 0 {
			break
		}
		p += i + 1
	}
	return p
}

// untilLineEnd returns the number of octets before the first CR or LF.
func untilLineEnd(in []byte) int {
	if i := bytes.IndexByte(in, '\n'); i >= 0 {
		in = in[:i]
	}
	if i := bytes.IndexByte(in, '\r'); i >= 0 {
		in = in[:i]
	}
	return len(in)
}

// strayReturns hands out the CRs that turned out to stand inside a line, but for some.
func (s *Server) strayReturns(keep int) []byte {
	l := &s.body.lines
	l.inLine, l.dot = true, false
	n := min(l.returns-keep, len(straySpaces))
	l.returns -= n
	if s.settings.ReplaceStrayCR {
		return straySpaces[:n]
	}
	return strayCRs[:n]
}
