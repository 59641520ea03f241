package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// ErrNoFromLine is what Next returns for text that does not begin with a From line.
var ErrNoFromLine = errors.New("mbox: the text does not begin with a From line")

// Reader reads one message after the other. Only NewReader makes a usable one.
type Reader struct {
	r       *bufio.Reader
	quoting Quoting
	// offset counts the bytes taken from r.
	offset int64
	// next is the From line that ended the message before.
	next     From
	nextAt   int64
	haveNext bool
	begun    bool

	// pending is what the message still gives before more is read. blank is an empty line that may belong to the next From line.
	pending   []byte
	blank     []byte
	midLine   bool
	afterLine bool
	ended     error
}

// NewReader returns a reader of the messages in r, from which the quoting is taken off.
func NewReader(r io.Reader, q Quoting) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), quoting: q, afterLine: true}
}

// Next goes to the next message, skipping what is left of this one. It returns what its From line says and the offset of that line in the
// text, or io.EOF when there are no more.
func (r *Reader) Next() (From, int64, error) {
	if !r.begun {
		r.begun = true
		if err := r.first(); err != nil {
			return From{}, 0, err
		}
	} else if _, err := io.Copy(io.Discard, r); err != nil {
		return From{}, 0, err
	}
	if !r.haveNext {
		return From{}, r.offset, io.EOF
	}
	r.haveNext, r.ended = false, nil
	r.pending, r.blank = nil, r.blank[:0]
	r.afterLine = false
	return r.next, r.nextAt, nil
}

func (r *Reader) first() error {
	line, err := r.line()
	if len(line) == 0 {
		return err
	}
	from, ok := ParseFromLine(line)
	if !ok {
		return ErrNoFromLine
	}
	r.next, r.nextAt, r.haveNext = from, 0, true
	return nil
}

// line returns the next line with its end, or a piece of one that is too long. The error is of the underlying reader, nil while there is text.
func (r *Reader) line() ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	r.offset += int64(len(line))
	if len(line) > 0 || errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return line, err
}

// Read reads the current message. It returns io.EOF at its end. The empty line before the next From line is not part of it.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.pending) == 0 {
		if r.ended != nil {
			return 0, r.ended
		}
		r.advance()
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

func (r *Reader) advance() {
	start := r.offset
	line, err := r.line()
	if err != nil {
		r.ended = err
		return
	}
	if !r.midLine && r.afterLine {
		if from, ok := ParseFromLine(line); ok {
			r.next, r.nextAt, r.haveNext = from, start, true
			r.ended = io.EOF
			return
		}
	}
	empty := !r.midLine && len(bytes.TrimRight(line, "\r\n")) == 0
	r.pending = append(r.pending[:0:0], r.blank...)
	r.blank = r.blank[:0]
	if empty {
		r.blank = append(r.blank, line...)
	} else {
		if !r.midLine && line[0] == '>' && looksLikeFrom(line[1:], r.quoting) {
			line = line[1:]
		}
		r.pending = append(r.pending, line...)
	}
	r.midLine = line[len(line)-1] != '\n'
	r.afterLine = empty
}
