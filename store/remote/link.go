package remote

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// kind of a frame, in the low half of its octet.
type kind uint8

const (
	kindData kind = iota + 1
	// kindCredit grants more octets of a stream; the payload is how many, in four octets.
	kindCredit
	// kindDrop tells that the sender wants no more of the id. From a server: the answer ends here and is void.
	kindDrop
	// kindEvent tells that the mailbox of this id changed.
	kindEvent
	kindPing
	kindPong
)

// Marks of a data frame.
const (
	markFirst = 1 << 6
	markLast  = 1 << 7
)

const headerSize = 13

// link is one end of a connection: it reads frames and hands them on, and writes what is queued. Its mutex guards the exchanges too.
type link struct {
	conn         net.Conn
	writeTimeout time.Duration
	// server tells which end it is: a server forgets an exchange when it sent its last frame, a client when it received it.
	server bool
	small  sync.Pool
	large  sync.Pool

	mu sync.Mutex
	// pending is what the writer takes next; generation counts its takings, and drained is closed at the next one when somebody waits for it.
	pending    []byte
	generation uint64
	drained    chan struct{}
	ponged     uint64
	err        error
	exchanges  map[uint64]*exchange
	// lastID is the highest id of a call so far.
	lastID uint64

	wake chan struct{}
	// done is closed when the connection cannot be used any more; err says why.
	done chan struct{}
}

func newLink(conn net.Conn, server bool, writeTimeout time.Duration) *link {
	return &link{
		conn: conn, server: server, writeTimeout: writeTimeout, pending: []byte{version}, generation: 1, exchanges: map[uint64]*exchange{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// fail ends the connection. The first reason is kept.
func (l *link) fail(err error) {
	l.mu.Lock()
	first := l.err == nil
	if first {
		l.err = err
	}
	l.mu.Unlock()
	if first {
		close(l.done)
		// What was under way is lost either way.
		_ = l.conn.Close()
	}
}

// reason says why the connection ended; nil while it has not.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// write sends what is queued until the connection ends.
func (l *link) write() {
	var buffer []byte
	for {
		l.mu.Lock()
		buffer, l.pending = l.pending, buffer[:0]
		l.generation++
		if l.drained != nil {
			close(l.drained)
			l.drained = nil
		}
		l.mu.Unlock()
		if len(buffer) > 0 {
			err := l.conn.SetWriteDeadline(time.Now().Add(l.writeTimeout))
			if err == nil {
				_, err = l.conn.Write(buffer)
			}
			if err != nil {
				l.fail(err)
				return
			}
			if cap(buffer) > 4*maxPending {
				buffer = nil
			}
			continue
		}
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
	}
}

// queue appends a frame without waiting; l.mu is held.
func (l *link) queue(mark kind, id uint64, payload []byte) {
	if l.err != nil {
		return
	}
	l.pending = binary.LittleEndian.AppendUint32(l.pending, uint32(len(payload)))
	l.pending = append(l.pending, byte(mark))
	l.pending = binary.LittleEndian.AppendUint64(l.pending, id)
	l.pending = append(l.pending, payload...)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// tell queues a frame that must not wait: there are never many of them.
func (l *link) tell(mark kind, id uint64) {
	l.mu.Lock()
	l.queue(mark, id, nil)
	l.mu.Unlock()
}

// room waits until more may be queued. It returns with l.mu held.
func (l *link) room(ctx context.Context) error {
	l.mu.Lock()
	for len(l.pending) > maxPending && l.err == nil {
		if l.drained == nil {
			l.drained = make(chan struct{})
		}
		drained := l.drained
		l.mu.Unlock()
		select {
		case <-drained:
		case <-ctx.Done():
			l.mu.Lock()
			return ctx.Err()
		case <-l.done:
		}
		l.mu.Lock()
	}
	return l.err
}

// buffer holds the payload of one frame.
type buffer struct{ octets []byte }

const smallBuffer = 4 << 10

func (l *link) take(n int) *buffer {
	pool, size := &l.small, smallBuffer
	if n > smallBuffer {
		pool, size = &l.large, maxPayload
	}
	b, ok := pool.Get().(*buffer)
	if !ok {
		b = &buffer{make([]byte, size)}
	}
	b.octets = b.octets[:n]
	return b
}

func (l *link) give(b *buffer) {
	switch {
	case b == nil:
	case cap(b.octets) >= maxPayload:
		l.large.Put(b)
	default:
		l.small.Put(b)
	}
}

// frame is what dispatch gets. It owns the payload.
type frame struct {
	kind        kind
	first, last bool
	id          uint64
	payload     *buffer
}

// read shakes hands and hands the frames to dispatch until the connection ends or dispatch refuses one. It ends the link.
func (l *link) read(handshake time.Duration, dispatch func(f frame) error) {
	l.fail(l.readFrames(handshake, dispatch))
}

func (l *link) readFrames(handshake time.Duration, dispatch func(f frame) error) error {
	in := bufio.NewReaderSize(l.conn, chunk)
	if err := l.conn.SetReadDeadline(time.Now().Add(handshake)); err != nil {
		return err
	}
	theirs, err := in.ReadByte()
	if err == io.EOF {
		return err
	}
	if err != nil {
		return fmt.Errorf("waiting for the version: %w", err)
	}
	if theirs != version {
		return fmt.Errorf("%w: it speaks version %d, this program %d", ErrProtocol, theirs, version)
	}
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	for {
		f, err := l.readFrame(in)
		if err != nil {
			return err
		}
		if err := dispatch(f); err != nil {
			return err
		}
	}
}

func (l *link) readFrame(in *bufio.Reader) (f frame, err error) {
	header, err := in.Peek(headerSize)
	if err != nil {
		if len(header) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return f, err
	}
	length, mark := binary.LittleEndian.Uint32(header), header[4]
	f = frame{kind: kind(mark &^ (markFirst | markLast)), first: mark&markFirst != 0, last: mark&markLast != 0, id: binary.LittleEndian.Uint64(header[5:])}
	if length > maxPayload {
		return f, fmt.Errorf("%w: a frame of %d octets, the limit is %d", ErrProtocol, length, maxPayload)
	}
	if _, err := in.Discard(headerSize); err != nil {
		return f, err
	}
	f.payload = l.take(int(length))
	if _, err := io.ReadFull(in, f.payload.octets); err != nil {
		return f, fmt.Errorf("within a frame: %w", err)
	}
	return f, nil
}
