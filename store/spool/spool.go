// Package spool holds a message while it comes in: in memory up to 256 KiB, beyond that in an unlinked temporary file. What it holds is not
// durable and not meant to be: nothing may be acknowledged because it is here. It knows nothing of SMTP or of mailboxes.
package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// InMemory is the size in octets up to which content stays in memory.
const InMemory = 256 << 10

// errReleased is what a Content answers after Release.
var errReleased = errors.New("spool: content was released")

// Spool makes Contents that share a directory and buffers. Its zero value is not usable; use New.
type Spool struct {
	dir     string
	buffers sync.Pool
}

// New returns a Spool whose large contents go to files in dir, which must exist; "" means the system's temporary directory.
func New(dir string) *Spool {
	return &Spool{dir: dir}
}

// Content is one message: written once from front to back, then read in any order. Writing is for one goroutine, reading for many.
type Content struct {
	spool  *Spool
	memory []byte
	file   *os.File
	size   int64
	closed bool
}

// Create returns an empty Content. Release must be called when it is no longer needed.
func (s *Spool) Create() *Content {
	c := &Content{spool: s}
	if b, ok := s.buffers.Get().(*[]byte); ok {
		c.memory = (*b)[:0]
	}
	return c
}

// Write appends p. It fails only when the temporary file does, and then nothing more can be written.
func (c *Content) Write(p []byte) (int, error) {
	if c.closed {
		return 0, errReleased
	}
	if c.file == nil && len(c.memory)+len(p) > InMemory {
		if err := c.spill(); err != nil {
			return 0, err
		}
	}
	if c.file == nil {
		c.memory = append(c.memory, p...)
		c.size += int64(len(p))
		return len(p), nil
	}
	n, err := c.file.Write(p)
	c.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("spool: %w", err)
	}
	return n, nil
}

func (c *Content) spill() error {
	file, err := os.CreateTemp(c.spool.dir, "postilion-spool-")
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err = os.Remove(file.Name()); err == nil {
		_, err = file.Write(c.memory)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("spool: %w", err), file.Close())
	}
	c.giveBack()
	c.file = file
	return nil
}

// ReadAt implements io.ReaderAt over what was written so far.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
	if c.closed {
		return 0, errReleased
	}
	if off < 0 {
		return 0, fmt.Errorf("spool: negative offset %d", off)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	if c.file != nil {
		return c.file.ReadAt(p, off)
	}
	n := copy(p, c.memory[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size returns the octets written.
func (c *Content) Size() int64 { return c.size }

// Bytes returns the whole content when it is in memory. The slice is valid until Release and must not be changed.
func (c *Content) Bytes() ([]byte, bool) {
	if c.file != nil || c.closed {
		return nil, false
	}
	return c.memory, true
}

// Release frees memory and file. It may be called more than once.
func (c *Content) Release() {
	if c.closed {
		return
	}
	c.closed = true
	c.giveBack()
	if c.file != nil {
		// The file has no name and its content is no longer wanted: an error of close changes nothing.
		_ = c.file.Close()
		c.file = nil
	}
}

func (c *Content) giveBack() {
	if cap(c.memory) > 0 && cap(c.memory) <= InMemory {
		memory := c.memory[:0]
		c.spool.buffers.Put(&memory)
	}
	c.memory = nil
}
