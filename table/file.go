package table

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// stamp tells one state of a file from another.
type stamp struct {
	path     string
	exists   bool
	device   uint64
	inode    uint64
	size     int64
	modified time.Time
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{path: path}
	}
	return stampFrom(path, info)
}

func stampFrom(path string, info fs.FileInfo) stamp {
	s := stamp{path: path, exists: true, size: info.Size(), modified: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = uint64(sys.Dev), sys.Ino
	}
	return s
}

// Changed says whether a file behind the table, or behind a table inside it, is another one than when it was opened.
func Changed(t Table) bool {
	o, ok := t.(*opened)
	if !ok {
		return false
	}
	if _, failed := o.finder.(broken); failed && o.spec[:min(5, len(o.spec))] != "fail:" {
		return true
	}
	for _, s := range o.files {
		if stampOf(s.path) != s {
			return true
		}
	}
	if c, ok := o.finder.(interface{ inner() []*opened }); ok {
		for _, inner := range c.inner() {
			if Changed(inner) {
				return true
			}
		}
	}
	return false
}

// systemText words an error of the system as strerror(3) does: "No such file or directory".
func systemText(err error) string {
	var number syscall.Errno
	if !errors.As(err, &number) {
		return err.Error()
	}
	if number == 0 {
		return "Success"
	}
	text := []byte(number.Error())
	if text[0] >= 'a' && text[0] <= 'z' {
		text[0] -= 'a' - 'A'
	}
	return string(text)
}

// openSource opens a table file for reading and notes its state.
func (t *opened) openSource(path, message string) (*os.File, error) {
	file, err := t.file(path)
	if err != nil {
		return nil, &causedError{fmt.Sprintf("%s %s: %s", message, path, systemText(err)), err}
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = syscall.EISDIR
	}
	if err == nil && info.Size() > MaxFileSize {
		err = fmt.Errorf("file is larger than %d bytes", MaxFileSize)
	}
	if err != nil {
		_ = file.Close()
		return nil, &causedError{fmt.Sprintf("%s %s: %s", message, path, systemText(err)), err}
	}
	t.files = append(t.files, stampFrom(path, info))
	return file, nil
}

// causedError has a text of its own and a cause.
type causedError struct {
	text  string
	cause error
}

func (e *causedError) Error() string { return e.text }
func (e *causedError) Unwrap() error { return e.cause }

// LogicalLine is a line with its continuations, without comments and line ends.
type LogicalLine struct {
	Text string
	// Number counts from 1 and names the first line.
	Number int
}

// ReadLines calls each for every logical line, as Postfix's readlline does: lines that are empty or begin with # after
// white space are left out, even between continuations; a line that begins with white space continues the one before.
// A first line that begins with white space goes to misplaced instead.
func ReadLines(r io.Reader, each func(LogicalLine) error, misplaced func(text string)) error {
	reader := bufio.NewReaderSize(io.LimitReader(r, MaxFileSize), 64<<10)
	var line []byte
	first, number := 0, 0
	flush := func() error {
		if line == nil {
			return nil
		}
		text := string(line)
		line = nil
		if isBlank(text[0]) {
			misplaced(text)
			return nil
		}
		return each(LogicalLine{text, first})
	}
	for {
		physical, err := readPhysical(reader)
		if err != nil && err != io.EOF {
			return err
		}
		number++
		trimmed := bytes.TrimLeft(physical, " \t\n\v\f\r")
		switch {
		case len(trimmed) == 0 || trimmed[0] == '#':
		case line != nil && isBlank(physical[0]):
			line = append(line, bytes.TrimSuffix(physical, []byte("\n"))...)
			if len(line) > MaxLine {
				return fmt.Errorf("line %d is longer than %d bytes", first, MaxLine)
			}
		default:
			if err := flush(); err != nil {
				return err
			}
			line = append([]byte{}, bytes.TrimSuffix(physical, []byte("\n"))...)
			first = number
		}
		if err == io.EOF {
			return flush()
		}
	}
}

func readPhysical(r *bufio.Reader) ([]byte, error) {
	part, err := r.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return part, err
	}
	whole := append([]byte{}, part...)
	for err == bufio.ErrBufferFull {
		part, err = r.ReadSlice('\n')
		whole = append(whole, part...)
		if len(whole) > MaxLine {
			return nil, fmt.Errorf("a line is longer than %d bytes", MaxLine)
		}
	}
	return whole, err
}

func isBlank(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// blanks are the bytes that C's isspace takes for white space.
const blanks = " \t\n\v\f\r"

// SystemError words an error of the system as strerror(3) does, without the operation and the path.
func SystemError(err error) error { return &causedError{systemText(err), err} }
