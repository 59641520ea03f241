// Package packet carries short texts, each with at most one file descriptor, between two processes of this program over a socket pair. A text is one
// datagram of a SOCK_SEQPACKET pair: it arrives whole or not at all, and the end of the other process is the end of the connection.
//
// It gives the texts no meaning; service/master and service/helper do.
package packet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxText is the greatest length of a text in octets.
const MaxText = 8192

// Conn is one end. One goroutine may send while another receives.
type Conn struct{ unix *net.UnixConn }

// Pair returns the two ends of a new connection as files; one of them is usually given to another process.
func Pair() (ours, theirs *os.File, err error) { return pair(unix.SOCK_SEQPACKET) }

// Stream returns the two ends of a stream of octets.
func Stream() (ours, theirs *os.File, err error) { return pair(unix.SOCK_STREAM) }

func pair(kind int) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair"), nil
}

// New makes a connection of an end and closes the file.
func New(file *os.File) (*Conn, error) {
	conn, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok || u.LocalAddr().Network() != "unixpacket" {
		return nil, errors.Join(errors.New("the descriptor is no end of a pair"), conn.Close())
	}
	return &Conn{u}, nil
}

// Inherited makes a connection of a descriptor that this process was started with.
func Inherited(fd int) (*Conn, error) {
	return New(os.NewFile(uintptr(fd), "fd "+strconv.Itoa(fd)))
}

// Send sends a text, with a file unless that is nil. The file stays open here.
func (c *Conn) Send(text string, file *os.File) error {
	if len(text) == 0 || len(text) > MaxText {
		return fmt.Errorf("a text of %d octets cannot be sent: 1 to %d are possible", len(text), MaxText)
	}
	if file == nil {
		_, err := c.unix.Write([]byte(text))
		return err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = c.unix.WriteMsgUnix([]byte(text), unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sent)
}

// Receive waits for the next text; file is nil when none came with it. io.EOF tells that the other side has ended.
func (c *Conn) Receive() (text string, file *os.File, err error) {
	buffer := make([]byte, MaxText)
	rights := make([]byte, unix.CmsgSpace(4))
	n, r, flags, _, err := c.unix.ReadMsgUnix(buffer, rights)
	if err != nil {
		if errors.Is(err, syscall.ECONNRESET) {
			err = io.EOF
		}
		return "", nil, err
	}
	if file, err = received(rights[:r]); err != nil {
		return "", nil, err
	}
	switch {
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("a text is too long, or more than one file came with it")
	case n == 0:
		err = io.EOF
	default:
		return string(buffer[:n]), file, nil
	}
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	return "", nil, err
}

// received is the file of a control message.
func received(rights []byte) (*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	if len(files) == 1 {
		return files[0], nil
	}
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return nil, err
}

// SetDeadline ends waiting sends and receives at that time; the zero time removes it.
func (c *Conn) SetDeadline(t time.Time) error { return c.unix.SetDeadline(t) }

// StopReceiving ends a waiting Receive and those to come; what is sent still arrives.
func (c *Conn) StopReceiving() error { return c.unix.CloseRead() }

// Close ends the connection.
func (c *Conn) Close() error { return c.unix.Close() }
