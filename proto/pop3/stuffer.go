package pop3

import "bytes"

// Stuffer writes a message as the body of a multi-line response: a dot is put before lines that begin with one, and TOP's limit of lines is kept.
// The message comes in portions of any size, with CRLF at line ends; a bare LF counts as an end of line too.
type Stuffer struct {
	// Top ends the message after its header and Lines lines of the body.
	Top   bool
	Lines uint64
	// NoNULs writes 0x80 for octets that are 0 (workaround outlook-no-nuls).
	NoNULs bool
	// EndHeader adds the empty line after a header that lacks it (workaround oe-ns-eoh).
	EndHeader bool

	middle bool // the last octet was not LF
	blank  bool // the present line has at most a CR so far
	begun  bool
	inBody bool
	done   bool
	cr     bool // the last octet was CR
}

// Done tells that TOP's limit is reached; more input would be ignored.
func (s *Stuffer) Done() bool { return s.done }

// Append appends what portion becomes.
func (s *Stuffer) Append(dst, portion []byte) []byte {
	for len(portion) > 0 && !s.done {
		if !s.middle {
			if s.Top && s.inBody && s.Lines == 0 {
				s.done = true
				break
			}
			if portion[0] == '.' {
				dst = append(dst, '.')
			}
			s.blank = true
		}
		s.begun = true
		line, ended := portion, false
		if end := bytes.IndexByte(portion, '\n'); end >= 0 {
			line, ended = portion[:end+1], true
		}
		portion = portion[len(line):]
		dst = s.octets(dst, line)
		s.finishLine(line, ended)
	}
	return dst
}

// finishLine notes what the line, or the portion of it, was.
func (s *Stuffer) finishLine(line []byte, ended bool) {
	s.blank = s.blank && len(bytes.Trim(line, "\r\n")) == 0
	s.cr, s.middle = line[len(line)-1] == '\r', !ended
	switch {
	case !ended:
	case s.inBody && s.Lines > 0:
		s.Lines--
	case s.blank:
		s.inBody = true
	}
}

func (s *Stuffer) octets(dst, line []byte) []byte {
	start := len(dst)
	dst = append(dst, line...)
	if s.NoNULs {
		for i := start; i < len(dst); i++ {
			if dst[i] == 0 {
				dst[i] = 0x80
			}
		}
	}
	return dst
}

// Finish appends what the message lacks: the end of its last line (an empty message is a line), and with EndHeader the end of its header. The dot that ends the response
// does not belong to it.
func (s *Stuffer) Finish(dst []byte) []byte {
	switch {
	case s.middle && s.cr:
		dst = append(dst, '\n')
	case s.middle || !s.begun:
		dst = append(dst, "\r\n"...)
	}
	s.middle, s.cr, s.begun = false, false, true
	if s.EndHeader && !s.inBody {
		s.inBody = true
		dst = append(dst, "\r\n"...)
	}
	return dst
}
