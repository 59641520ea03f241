package maildir

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"sort"
)

// body shows a file in network form: every LF without a CR before it gets one. Up to smallBody octets it is held in memory; a larger one keeps the
// file open and knows, every stride octets, how much was added before.
type body struct {
	memory []byte
	file   openFile
	size   int64
	// marks are places in the file; nil when nothing is added, so that file and body are the same.
	marks []mark
}

// mark says that the octet of the file at physical is the one of the body at virtual; afterCR tells that a CR stands before it.
type mark struct {
	physical, virtual int64
	afterCR           bool
}

const (
	smallBody = 128 << 10
	stride    = 64 << 10
)

// openBody opens the message file at path.
func (d *disk) openBody(path string) (*body, error) {
	file, err := d.open(path)
	if err != nil {
		return nil, err
	}
	b, err := newBody(file)
	if err != nil || b.file == nil {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func newBody(file openFile) (*body, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNoMessage
	}
	if info.Size() <= smallBody {
		content, err := io.ReadAll(file)
		if err != nil {
			return nil, err
		}
		content = toNetwork(make([]byte, 0, len(content)+bytes.Count(content, []byte("\n"))), content, false)
		return &body{memory: content, size: int64(len(content))}, nil
	}
	b := &body{file: file}
	chunk := make([]byte, stride)
	at := mark{}
	for {
		n, err := io.ReadFull(file, chunk)
		if n > 0 {
			b.marks = append(b.marks, at)
			at.virtual += int64(n) + int64(added(chunk[:n], at.afterCR))
			at.physical += int64(n)
			at.afterCR = chunk[n-1] == '\r'
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if b.size = at.virtual; at.virtual == at.physical {
		b.marks = nil
	}
	return b, nil
}

// added counts the CRs that network form adds to chunk.
func added(chunk []byte, afterCR bool) int {
	n := bytes.Count(chunk, []byte("\n")) - bytes.Count(chunk, []byte("\r\n"))
	if afterCR && len(chunk) > 0 && chunk[0] == '\n' {
		n--
	}
	return n
}

// toNetwork appends chunk in network form.
func toNetwork(dst, chunk []byte, afterCR bool) []byte {
	for len(chunk) > 0 {
		i := bytes.IndexByte(chunk, '\n')
		if i < 0 {
			return append(dst, chunk...)
		}
		if i > 0 {
			afterCR = chunk[i-1] == '\r'
		}
		dst = append(dst, chunk[:i]...)
		if !afterCR {
			dst = append(dst, '\r')
		}
		dst = append(dst, '\n')
		chunk, afterCR = chunk[i+1:], false
	}
	return dst
}

func (b *body) Size() int64 { return b.size }

func (b *body) ReadAt(p []byte, offset int64) (int, error) {
	switch {
	case offset < 0:
		return 0, fs.ErrInvalid
	case offset >= b.size:
		return 0, io.EOF
	case b.file == nil:
		n := copy(p, b.memory[offset:])
		return n, short(n, len(p))
	case b.marks == nil:
		return b.file.ReadAt(p, offset)
	}
	i := sort.Search(len(b.marks), func(i int) bool { return b.marks[i].virtual > offset }) - 1
	chunk := make([]byte, stride)
	converted := make([]byte, 0, 2*stride)
	done := 0
	for ; i < len(b.marks) && done < len(p); i++ {
		at := b.marks[i]
		n, err := b.file.ReadAt(chunk, at.physical)
		if err != nil && !errors.Is(err, io.EOF) {
			return done, err
		}
		converted = toNetwork(converted[:0], chunk[:n], at.afterCR)
		skip := min(offset+int64(done)-at.virtual, int64(len(converted)))
		done += copy(p[done:], converted[skip:])
	}
	return done, short(done, len(p))
}

func short(n, wanted int) error {
	if n < wanted {
		return io.EOF
	}
	return nil
}

func (b *body) Close() error {
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}

// networkSize returns the size of the file at path in network form.
func (d *disk) networkSize(path string) (int64, error) {
	b, err := d.openBody(path)
	if err != nil {
		return 0, err
	}
	return b.size, b.Close()
}
