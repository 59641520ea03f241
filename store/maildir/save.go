package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postilion/store"
)

// draftFile is a message in tmp/, written and flushed.
type draftFile struct {
	path string
	// base is its base name, with sizes.
	base string
	size int64 // in network form
	date time.Time
}

// write puts prefix and content into a file in dir/tmp with LF line ends. Of "\r\n" the CR goes unless another CR stands before it, so that what is
// read back is what was given, but for bare LFs.
func (f *folder) write(prefix []byte, content store.Content, date time.Time, mark deliveryMark) (*draftFile, error) {
	if date.IsZero() {
		date = time.Now()
	}
	name := f.store.names.next(mark)
	path := filepath.Join(f.paths.mail, "tmp", name)
	d := &f.store.disk
	if err := d.step("create", path); err != nil {
		return nil, err
	}
	file, err := d.files.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.root.ownership().file())
	if errors.Is(err, os.ErrNotExist) {
		if !d.isDir(f.paths.mail) {
			return nil, store.ErrNotFound
		}
		if err = d.mkdirAll(filepath.Dir(path), f.root.ownership()); err == nil {
			file, err = d.files.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.root.ownership().file())
		}
	}
	if err != nil {
		return nil, kind(err)
	}
	w := &lineEnds{file: file}
	err = w.copy(prefix, content)
	if err == nil {
		err = d.give(path, f.root.ownership())
	}
	if err == nil {
		err = d.files.Chtimes(path, date)
	}
	if err == nil {
		if err = d.step("sync", path); err == nil {
			err = d.flush(file)
		}
	}
	if err := errors.Join(err, file.Close()); err != nil {
		_ = d.files.Remove(path)
		return nil, kind(err)
	}
	return &draftFile{path: path, base: fmt.Sprintf("%s,S=%d,W=%d", name, w.physical, w.virtual), size: w.virtual, date: date}, nil
}

// lineEnds writes network form as the file has it and counts both sizes.
type lineEnds struct {
	file              openFile
	physical, virtual int64
	// before are the last two octets of what came, 0 for none.
	before  [2]byte
	pending bool // a CR is held back
	out     []byte
}

const writeBuffer = 64 << 10

func (w *lineEnds) copy(prefix []byte, content store.Content) error {
	w.out = make([]byte, 0, min(writeBuffer, content.Size()+int64(len(prefix)))+2)
	w.convert(prefix)
	chunk := make([]byte, min(writeBuffer, content.Size()+1))
	for at := int64(0); at < content.Size(); {
		n, err := content.ReadAt(chunk[:min(int64(len(chunk)), content.Size()-at)], at)
		if n == 0 && err != nil {
			return fmt.Errorf("reading the message at octet %d of %d: %w", at, content.Size(), err)
		}
		at += int64(n)
		w.convert(chunk[:n])
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.pending {
		w.out = append(w.out, '\r')
		w.virtual++
	}
	return w.flush()
}

// convert takes the next octets in.
func (w *lineEnds) convert(chunk []byte) {
	for len(chunk) > 0 {
		i := bytes.IndexAny(chunk, "\r\n")
		if i != 0 {
			if i < 0 {
				i = len(chunk)
			}
			if w.pending {
				w.out, w.pending = append(w.out, '\r'), false
				w.virtual++
			}
			w.out = append(w.out, chunk[:i]...)
			w.virtual += int64(i)
			w.before = [2]byte{0, 'x'}
			chunk = chunk[i:]
			continue
		}
		c := chunk[0]
		chunk = chunk[1:]
		switch {
		case c == '\r':
			if w.pending {
				w.out = append(w.out, '\r')
				w.virtual++
			}
			w.pending = true
		case w.pending && w.before[0] == '\r':
			// CR CR LF: all of it stays, or the first CR would be taken for the line's own.
			w.out = append(w.out, '\r', '\n')
			w.virtual += 2
			w.pending = false
		default:
			w.out = append(w.out, '\n')
			w.virtual += 2
			w.pending = false
		}
		w.before = [2]byte{w.before[1], c}
	}
}

func (w *lineEnds) flush() error {
	n, err := w.file.Write(w.out)
	w.physical += int64(n)
	w.out = w.out[:0]
	return err
}

// networkSizeOf returns the size that content will have in network form.
func networkSizeOf(content store.Content) (int64, error) {
	w := &lineEnds{}
	chunk := make([]byte, min(writeBuffer, content.Size()+1))
	for at := int64(0); at < content.Size(); {
		n, err := content.ReadAt(chunk[:min(int64(len(chunk)), content.Size()-at)], at)
		if n == 0 && err != nil {
			return 0, fmt.Errorf("reading the message at octet %d of %d: %w", at, content.Size(), err)
		}
		at += int64(n)
		w.convert(chunk[:n])
		w.out = w.out[:0]
	}
	if w.pending {
		w.virtual++
	}
	return w.virtual, nil
}

// linkFrom gives the file that another target of the same delivery got a name in this folder's tmp/.
func (f *folder) linkFrom(other *plan, mark deliveryMark) (*draftFile, error) {
	name := f.store.names.next(mark)
	path := filepath.Join(f.paths.mail, "tmp", name)
	if err := f.store.disk.link(other.file.path, path); err != nil {
		return nil, err
	}
	_, sizes, _ := strings.Cut(other.file.base, ",")
	return &draftFile{path: path, base: name + "," + sizes, size: other.file.size, date: other.file.date}, nil
}
