package pop3d

import (
	"strconv"
	"sync"
)

// portions holds what messages are read with.
var portions = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// ok sends a positive response; a row of mistakes ends with it.
func (s *session) ok(text string) {
	s.Room()
	s.Out = append(s.Out, "+OK"...)
	if text != "" {
		s.Out = append(append(s.Out, ' '), text...)
	}
	s.Out = append(s.Out, "\r\n"...)
	s.bad = 0
}

// fail sends a negative response.
func (s *session) fail(text string) {
	s.Send("-ERR ")
	s.Send(text)
	s.Send("\r\n")
}

// stop sends a negative response and ends the session.
func (s *session) stop(text, reason string) {
	s.fail(text)
	s.Ended = true
	if s.Reason == "" {
		s.Reason = reason
	}
}

// number appends a number to the output.
func (s *session) number(n int64) { s.Out = strconv.AppendInt(s.Out, n, 10) }
