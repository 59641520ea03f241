package maillog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// Sink takes finished lines, which end in a line feed. text is where the part without time and host begins.
type Sink interface {
	Write(level slog.Level, program string, line []byte, text int) error
	// Reopen opens files anew, after they were rotated.
	Reopen() error
	Close() error
}

// Writer returns a Sink over w, which is not closed.
func Writer(w io.Writer) Sink { return &writerSink{w: w} }

type writerSink struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *writerSink) Write(_ slog.Level, _ string, line []byte, _ int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.w.Write(line)
	return err
}

func (s *writerSink) Reopen() error { return nil }
func (s *writerSink) Close() error  { return nil }

// rotationCheck is how often a file sink looks whether its name still leads to the open file.
const rotationCheck = time.Second

// File returns a Sink that appends to the file, made with the mode when it is missing. A file that was renamed or removed by log rotation is
// opened anew within a second, without a signal.
func File(path string, mode os.FileMode) (Sink, error) {
	return FileBy(path, func() (*os.File, error) { return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, mode) })
}

// FileBy is File for a file that open opens for appending.
func FileBy(path string, open func() (*os.File, error)) (Sink, error) {
	s := &fileSink{path: path, opener: open}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// Lines come in bursts, a few a message. The first line after a quiet moment is written at once; those that follow within flushAfter are
// written together when it has passed or pendingMost octets have gathered, so that a busy server does not pay a system call a line. Warnings and
// errors are never held back.
const (
	flushAfter  = 10 * time.Millisecond
	pendingMost = 32 << 10
)

type fileSink struct {
	path   string
	opener func() (*os.File, error)

	mu      sync.Mutex
	file    *os.File
	checked time.Time
	// wrote is when the file was written last; pending are the lines since, timer the promise to write them.
	wrote   time.Time
	pending []byte
	timer   *time.Timer
	armed   bool
	// failed is the error of a write that nobody waited for; the next Write returns it.
	failed error
}

func (s *fileSink) open() error {
	file, err := s.opener()
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	if s.file != nil {
		// Nothing is pending that close could lose.
		_ = s.file.Close()
	}
	s.file, s.checked = file, time.Now()
	return nil
}

func (s *fileSink) Write(level slog.Level, _ string, line []byte, _ int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return os.ErrClosed
	}
	s.pending = append(s.pending, line...)
	now := time.Now()
	if level < slog.LevelWarn && len(s.pending) < pendingMost && now.Sub(s.wrote) < flushAfter {
		if !s.armed {
			s.armed = true
			if s.timer == nil {
				s.timer = time.AfterFunc(flushAfter, s.flushLate)
			} else {
				s.timer.Reset(flushAfter)
			}
		}
		err := s.failed
		s.failed = nil
		return err
	}
	err := errors.Join(s.failed, s.flush(now))
	s.failed = nil
	return err
}

// flushLate writes what the timer was set for.
func (s *fileSink) flushLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	if s.file != nil && len(s.pending) > 0 {
		s.failed = s.flush(time.Now())
	}
}

// flush writes the pending lines, whole ones in one call.
func (s *fileSink) flush(now time.Time) error {
	if now.Sub(s.checked) >= rotationCheck {
		s.checked = now
		if s.rotated() {
			if err := s.open(); err != nil {
				return err
			}
		}
	}
	s.wrote = now
	if len(s.pending) == 0 {
		return nil
	}
	_, err := s.file.Write(s.pending)
	s.pending = s.pending[:0]
	return err
}

func (s *fileSink) rotated() bool {
	named, err := os.Stat(s.path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	open, err := s.file.Stat()
	return err == nil && !os.SameFile(named, open)
}

func (s *fileSink) Reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return os.ErrClosed
	}
	return errors.Join(s.flush(time.Now()), s.open())
}

func (s *fileSink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.failed, s.flush(time.Now()), s.file.Close())
	s.file, s.failed = nil, nil
	return err
}

// facilities are syslog's numbers by name (RFC 5424 section 6.2.1).
func facility(name string) (int, bool) {
	for i, known := range strings.Fields("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp - - - - local0 local1 local2 local3 local4 local5 local6 local7") {
		if known == strings.ToLower(name) {
			return i, true
		}
	}
	return 0, false
}

// Syslog returns a Sink that sends datagrams to the socket (usually /dev/log) in the form of RFC 3164. tag, when not empty, comes before the
// program ("dovecot: "). The connection is made again when the daemon restarted; a line that cannot be sent is an error of that Write.
func Syslog(socket, facilityName, tag string) (Sink, error) {
	number, known := facility(facilityName)
	if !known {
		return nil, fmt.Errorf("syslog facility %q is not known: use mail, daemon or local0 to local7", facilityName)
	}
	s := &syslogSink{socket: socket, facility: number, tag: tag}
	if err := s.dial(); err != nil {
		return nil, err
	}
	return s, nil
}

type syslogSink struct {
	socket   string
	facility int
	tag      string

	mu   sync.Mutex
	conn net.Conn
}

func (s *syslogSink) dial() error {
	conn, err := net.DialTimeout("unixgram", s.socket, time.Second)
	if err != nil {
		return fmt.Errorf("syslog: %w", err)
	}
	s.conn = conn
	return nil
}

func (s *syslogSink) Write(level slog.Level, _ string, line []byte, text int) error {
	severity := 6
	switch {
	case level >= slog.LevelError:
		severity = 3
	case level >= slog.LevelWarn:
		severity = 4
	case level < slog.LevelInfo:
		severity = 7
	}
	message := fmt.Appendf(nil, "<%d>%s %s%s", s.facility<<3|severity, time.Now().Format("Jan _2 15:04:05"), s.tag, line[text:len(line)-1])
	s.mu.Lock()
	defer s.mu.Unlock()
	for try := 0; ; try++ {
		if s.conn == nil {
			if err := s.dial(); err != nil {
				return err
			}
		}
		if err := s.conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			return fmt.Errorf("syslog: %w", err)
		}
		_, err := s.conn.Write(message)
		if err == nil {
			return nil
		}
		// The daemon went away with its socket: a datagram that was not taken is sent again once.
		_ = s.conn.Close()
		s.conn = nil
		if try > 0 {
			return fmt.Errorf("syslog: %w", err)
		}
	}
}

func (s *syslogSink) Reopen() error { return nil }

func (s *syslogSink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
