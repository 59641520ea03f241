// Package mbox reads and writes the format of mailbox files: messages one after the other, each after a line that begins with "From ".
//
// It knows text only: no files, no locks, no Status fields. It follows RFC 4155, mbox(5) and, in which From lines it takes for real, what
// Dovecot and Procmail write and read.
package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"time"
)

// Quoting tells how lines of a message that look like the beginning of another are written.
type Quoting int

// RD puts ">" before every line of ">"s and "From ", which can be taken off again. O puts it only before "From ". None writes lines as they
// are.
const (
	RD Quoting = iota
	O
	None
)

// fromLineMax is the longest From line that is taken for one.
const fromLineMax = 2048

// From is what a From line says.
type From struct {
	// Sender is the envelope sender, MAILER-DAEMON or whatever stands there.
	Sender string
	Time   time.Time
}

// ParseFromLine reads "From sender Mon Jan  2 15:04:05 2006", with or without its line end, seconds, a time zone before or behind the year,
// and a remark behind that. A line without such a date is no From line.
func ParseFromLine(line []byte) (From, bool) {
	if len(line) > fromLineMax || !bytes.HasPrefix(line, []byte(fromWord)) {
		return From{}, false
	}
	words := strings.Fields(string(line[5:]))
	for i := 0; i+4 < len(words); i++ {
		if !isName(words[i], "SunMonTueWedThuFriSat") || !isName(words[i+1], "JanFebMarAprMayJunJulAugSepOctNovDec") {
			continue
		}
		if t, ok := parseTime(words[i+1:]); ok {
			return From{Sender: strings.Join(words[:i], " "), Time: t}, true
		}
	}
	return From{}, false
}

func isName(word, names string) bool {
	if len(word) == 4 && word[3] == ',' {
		word = word[:3]
	}
	i := strings.Index(names, word)
	return len(word) == 3 && i >= 0 && i%3 == 0
}

// parseTime reads month, day, time and year.
func parseTime(words []string) (time.Time, bool) {
	clock := words[2]
	if strings.Count(clock, ":") == 1 {
		clock += ":00"
	}
	zone, year := time.UTC, words[3]
	if len(year) != 4 || strings.Trim(year, "0123456789") != "" {
		if len(words) < 5 {
			return time.Time{}, false
		}
		zone, year = parseZone(year), words[4]
	} else if len(words) > 4 {
		zone = parseZone(words[4])
	}
	t, err := time.ParseInLocation("Jan 2 15:04:05 2006", words[0]+" "+words[1]+" "+clock+" "+year, zone)
	return t, err == nil
}

func parseZone(word string) *time.Location {
	if t, err := time.Parse("-0700", word); err == nil {
		return t.Location()
	}
	return time.UTC
}

// AppendFromLine appends a From line with its line end, the time in UTC as asctime(3) writes it. White space in the sender becomes "-", an
// empty sender MAILER-DAEMON.
func AppendFromLine(dst []byte, sender string, t time.Time) []byte {
	sender = strings.Join(strings.Fields(sender), "-")
	if sender == "" {
		sender = "MAILER-DAEMON"
	}
	dst = append(dst, "From "...)
	dst = append(dst, sender...)
	dst = append(dst, ' ')
	dst = t.UTC().AppendFormat(dst, time.ANSIC)
	return append(dst, '\n')
}

// looksLikeFrom tells whether a line, of which start is the beginning, is quoted.
func looksLikeFrom(start []byte, q Quoting) bool {
	if q == RD {
		start = bytes.TrimLeft(start, ">")
	}
	return q != None && bytes.HasPrefix(start, []byte(fromWord))
}

// Writer writes one message after the other. Only NewWriter makes a usable one.
type Writer struct {
	w       *bufio.Writer
	quoting Quoting
	started bool
	// place is where in a line the next byte stands. matched bytes of "From " stood at its beginning and are not yet written.
	place   place
	matched int
	// heldCR tells that the last byte was a CR, which is written unless LF follows.
	heldCR bool
}

type place uint8

const (
	lineStart place = iota
	afterQuotes
	midLine
)

const fromWord = "From "

// NewWriter returns a writer to w. Flush it in the end.
func NewWriter(w io.Writer, q Quoting) *Writer {
	return &Writer{w: bufio.NewWriter(w), quoting: q}
}

// Begin ends the message before and begins the next.
func (w *Writer) Begin(sender string, t time.Time) error {
	w.end()
	w.started = true
	_, err := w.w.Write(AppendFromLine(nil, sender, t))
	return err
}

// Write writes the next piece of the message. CRLF becomes LF.
func (w *Writer) Write(text []byte) (int, error) {
	if !w.started {
		return 0, errors.New("mbox: Write before Begin")
	}
	for rest := text; len(rest) > 0; {
		if w.place == midLine && !w.heldCR {
			n := bytes.IndexAny(rest, "\r\n")
			if n < 0 {
				n = len(rest)
			}
			_, _ = w.w.Write(rest[:n])
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		w.step(rest[0])
		rest = rest[1:]
	}
	_, err := w.w.Write(nil) // the error of any write before
	return len(text), err
}

// step takes one byte. Errors stay in the buffered writer.
func (w *Writer) step(c byte) {
	if c == '\n' {
		w.heldCR = false
		w.leaveStart()
		_ = w.w.WriteByte('\n')
		w.place = lineStart
		return
	}
	if w.heldCR {
		w.heldCR = false
		w.leaveStart()
		_ = w.w.WriteByte('\r')
	}
	switch {
	case c == '\r':
		w.heldCR = true
	case w.place == midLine:
		_ = w.w.WriteByte(c)
	case c == '>' && w.matched == 0 && w.quoting == RD:
		w.place = afterQuotes
		_ = w.w.WriteByte(c)
	case c == fromWord[w.matched] && w.quoting != None:
		if w.matched++; w.matched == len(fromWord) {
			_ = w.w.WriteByte('>')
			w.leaveStart()
		}
	default:
		w.leaveStart()
		_ = w.w.WriteByte(c)
	}
}

// leaveStart writes what was held of the beginning of a line.
func (w *Writer) leaveStart() {
	_, _ = w.w.WriteString(fromWord[:w.matched])
	w.matched = 0
	w.place = midLine
}

// end writes what the message before still lacks: its last line end and the empty line behind it.
func (w *Writer) end() {
	if !w.started {
		return
	}
	w.started = false
	if w.heldCR {
		w.heldCR = false
		w.leaveStart()
		_ = w.w.WriteByte('\r')
	}
	if w.place != lineStart || w.matched > 0 {
		w.leaveStart()
		_ = w.w.WriteByte('\n')
	}
	w.place = lineStart
	_ = w.w.WriteByte('\n')
}

// Flush ends the last message and writes out everything.
func (w *Writer) Flush() error {
	w.end()
	return w.w.Flush()
}
