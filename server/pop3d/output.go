package pop3d

import (
	"strconv"
	"sync"
	"time"
)

// buffers holds buffers of sessions that have nothing to send.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// portions holds what messages are read with.
var portions = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// release gives memory back while the client says nothing.
func (s *session) release() {
	s.dec.Idle()
	if cap(s.out) > 0 && len(s.out) == 0 {
		b := s.out
		s.out = nil
		buffers.Put(&b)
	}
}

// room makes sure that there is an output buffer.
func (s *session) room() {
	if s.out == nil {
		s.out = (*buffers.Get().(*[]byte))[:0]
	}
}

// send appends to the output.
func (s *session) send(text string) {
	s.room()
	s.out = append(s.out, text...)
}

func (s *session) flush() {
	if len(s.out) == 0 {
		return
	}
	if !s.broken {
		_ = s.raw.SetWriteDeadline(time.Now().Add(s.opt.WriteTimeout))
		n, err := s.conn.Write(s.out)
		s.count.out += int64(n)
		if err != nil {
			s.ended, s.broken, s.reason = true, true, reasonClosed
		}
	}
	if cap(s.out) > 2*outputSize {
		s.out = nil
		return
	}
	s.out = s.out[:0]
}

// ok sends a positive response; a row of mistakes ends with it.
func (s *session) ok(text string) {
	s.room()
	s.out = append(s.out, "+OK"...)
	if text != "" {
		s.out = append(append(s.out, ' '), text...)
	}
	s.out = append(s.out, "\r\n"...)
	s.bad = 0
}

// fail sends a negative response.
func (s *session) fail(text string) {
	s.send("-ERR ")
	s.send(text)
	s.send("\r\n")
}

// stop sends a negative response and ends the session.
func (s *session) stop(text, reason string) {
	s.fail(text)
	s.ended = true
	if s.reason == "" {
		s.reason = reason
	}
}

// number appends a number to the output.
func (s *session) number(n int64) { s.out = strconv.AppendInt(s.out, n, 10) }
