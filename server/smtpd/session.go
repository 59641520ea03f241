package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"postilion/account"
	"postilion/mta/policy"
	"postilion/proto/smtp"
)

const (
	// bufferSize is how much is read at once while a message comes in.
	bufferSize = 64 << 10
	// idleBuffer is what an idle session keeps for the next command.
	idleBuffer = 512
	// outputLimit is how many octets of replies are gathered before they are written.
	outputLimit = 64 << 10
)

// errEnded ends a session in order.
var errEnded = errors.New("session ended")

// session is one connection. Its goroutine alone uses it, except where noted.
type session struct {
	server  *Server
	options *Options
	lines   *sessionLines
	conn    net.Conn
	tls     *tls.ConnectionState
	engine  *smtp.Server
	peer    peer
	facts   policy.Session
	began   bool

	small [idleBuffer]byte
	large *[bufferSize]byte
	// input is what was read and not used yet; it lies in small or large. filled: the last read left no room in its buffer.
	input  []byte
	filled bool

	sasl account.Exchange
	// finalSent: the last challenge carried what goes with success.
	finalSent bool
	// claimed is whose login is tried.
	claimed      string
	forwarded    map[string]string
	connEffects  []policy.Effect
	discardAll   bool
	message      transaction
	number       int64
	sequence     int
	requestEnd   time.Time
	messageBegan time.Time
	counted      netip.Addr
	rated        bool

	// owes is the moment, in nanoseconds, since which the client keeps us waiting; 0 while we work for it. Others read it. See wait.
	owes atomic.Int64
	// askedAt is when the client's present command or message became due.
	askedAt time.Time
	// receiving tells that it is a message.
	receiving bool
	// dismissed asks the session to end. Others set it.
	dismissed atomic.Bool
	// deadline guards the connection's deadlines against wake. waiting: the session waits for a command; stuck: it waits for the client in some
	// other way. gone is closed when the session is dismissed.
	deadline       sync.Mutex
	waiting, stuck bool
	gone           chan struct{}
}

func newSession(server *Server, conn net.Conn) *session {
	x := &session{number: server.started.Add(1), server: server, options: &server.options, lines: &server.lines, conn: conn, gone: make(chan struct{})}
	x.engine = smtp.NewServer(&x.options.Settings)
	return x
}

// past is a deadline that ends every wait.
var past = time.Unix(1, 0)

// dismiss ends the session's wait for its client, whatever it waits for, from another goroutine.
func (x *session) dismiss() {
	x.deadline.Lock()
	defer x.deadline.Unlock()
	if x.dismissed.Swap(true) {
		return
	}
	close(x.gone)
	if x.waiting || x.stuck {
		// A connection that cannot take a deadline is broken, and its wait ends by itself.
		_ = x.conn.SetDeadline(past)
	}
}

// wake interrupts the wait for a command, from another goroutine.
func (x *session) wake() {
	x.deadline.Lock()
	defer x.deadline.Unlock()
	if x.waiting {
		// A connection that cannot take a deadline is broken, and its read ends by itself.
		_ = x.conn.SetReadDeadline(past)
	}
}

// farewellTime is how long a client has to take the last reply, dismissedTime how long one that was dismissed for keeping us waiting.
const (
	farewellTime  = time.Second
	dismissedTime = 50 * time.Millisecond
)

// wait begins a wait for the client: set gives the connection its deadline. idle waits may be ended by wake too.
func (x *session) wait(idle bool, set func() error) error {
	x.deadline.Lock()
	defer x.deadline.Unlock()
	x.waiting, x.stuck = idle, !idle
	return set()
}

// waited ends a wait.
func (x *session) waited() {
	x.owes.Store(0)
	x.deadline.Lock()
	x.waiting, x.stuck = false, false
	x.deadline.Unlock()
}

// debt is since when the client keeps us waiting. One that sends a message gains time by what it sends, smtpd_min_data_rate octets a second; one
// that sends a command octet by octet gains none.
func (x *session) debt(now time.Time) int64 {
	if receiving := x.engine.ReceivingMessage(); x.engine.AwaitsCommand() || receiving != x.receiving || x.askedAt.IsZero() {
		x.askedAt, x.receiving = now, receiving
	}
	since := x.askedAt
	if x.engine.ReceivingMessage() {
		since = since.Add(time.Duration(x.engine.Size()/int64(x.options.MinDataRate)) * time.Second)
	}
	return min(since.UnixNano(), now.UnixNano())
}

func (x *session) leaving() bool { return x.dismissed.Load() || x.server.closing.Load() }

// serve runs the session from the first octet to the last.
func (x *session) serve(ctx context.Context) {
	if err := x.openPeer(ctx); err != nil {
		x.lines.warning(err.Error())
		return
	}
	x.began = true
	x.lines.info("connect from " + x.peer.client)
	if !x.admit() {
		return
	}
	if x.options.WrapperMode && !x.startTLS(ctx) {
		return
	}
	if x.earlyTalker() {
		x.lines.info("improper command pipelining after CONNECT from " + x.peer.client)
	}
	x.engine.Start(x.enginePeer())
	for {
		used, event := x.engine.Next(x.input)
		x.input = x.input[used:]
		if err := x.handle(ctx, event); err != nil {
			return
		}
	}
}

// handle does what one event asks for.
func (x *session) handle(ctx context.Context, event smtp.Event) error {
	switch event.Kind {
	case smtp.More:
		return x.read()
	case smtp.MessageData:
		x.message.write(ctx, event.Data)
	case smtp.Notice:
		x.notice(event)
	case smtp.Pause:
		return x.pause(ctx)
	case smtp.Abandon:
		x.message.release()
	case smtp.CheckConnect, smtp.CheckHelo, smtp.CheckMail, smtp.CheckRcpt, smtp.CheckData, smtp.CheckEndOfData, smtp.CheckEtrn, smtp.CheckVerify:
		x.check(ctx, event)
	case smtp.CheckTLS:
		x.checkTLS()
	case smtp.Handshake:
		return x.handshake(ctx)
	case smtp.AuthStart, smtp.AuthNext, smtp.AuthAborted:
		x.authenticate(ctx, event)
	case smtp.FlushQueue:
		x.flushQueue(ctx, event.Text)
	case smtp.XClient:
		x.xclient(event.Attributes)
	case smtp.XForward:
		x.xforward(event.Attributes)
	case smtp.EndOfMessage:
		x.deliver(ctx)
	case smtp.Close:
		return x.close(event.Text)
	}
	if len(x.engine.Output()) > outputLimit {
		return x.flush()
	}
	return nil
}

// notice logs a line of the engine, with the queue id it does not know.
func (x *session) notice(event smtp.Event) {
	text := event.Text
	if rest, ok := cutPrefix(text, "NOQUEUE: "); ok && x.message.id != "" {
		text = x.message.id + ": " + rest
	}
	if event.Warning {
		x.lines.warning(text)
		return
	}
	x.lines.info(text)
}

func cutPrefix(text, prefix string) (string, bool) {
	if len(text) >= len(prefix) && text[:len(prefix)] == prefix {
		return text[len(prefix):], true
	}
	return text, false
}

// flush writes the gathered replies.
func (x *session) flush() error {
	out := x.engine.Output()
	if len(out) == 0 {
		return nil
	}
	err := x.write(out)
	x.engine.Written()
	if err != nil {
		return x.lost(err)
	}
	return nil
}

// write writes within the time-out. A client that does not read is one that keeps us waiting.
func (x *session) write(out []byte) error {
	now := time.Now()
	x.owes.Store(now.UnixNano())
	err := x.wait(false, func() error {
		if x.dismissed.Load() {
			return x.conn.SetWriteDeadline(now.Add(dismissedTime))
		}
		return x.conn.SetWriteDeadline(now.Add(x.timeout()))
	})
	if err == nil {
		_, err = x.conn.Write(out)
	}
	x.waited()
	return err
}

func (x *session) timeout() time.Duration {
	if x.server.stressed() {
		return min(x.options.Timeout, x.options.StressTimeout)
	}
	return x.options.Timeout
}

// read writes what is to be written and waits for input.
func (x *session) read() error {
	idle := x.engine.Idle()
	if idle && x.leaving() {
		x.input = nil
		x.engine.Shutdown("421 4.3.2 " + x.options.Hostname + " Service shutting down")
		return nil
	}
	if err := x.flush(); err != nil {
		return err
	}
	buffer := x.buffer()
	if idle {
		x.engine.Release()
	}
	now := time.Now()
	x.owes.Store(x.debt(now))
	err := x.wait(idle, func() error { return x.conn.SetReadDeadline(x.readDeadline(now, idle)) })
	n := 0
	if err == nil {
		n, err = x.conn.Read(buffer)
	}
	x.waited()
	if n > 0 {
		x.input, x.filled = buffer[:n], n == len(buffer)
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && idle && x.leaving() {
		return nil
	}
	if err == nil {
		return nil
	}
	return x.lost(err)
}

// buffer returns where the next input goes: the small buffer while commands come one by one, a large one from the pool for messages and
// for clients that send much at once.
func (x *session) buffer() []byte {
	if x.engine.ReceivingMessage() || x.filled {
		if x.large == nil {
			x.large, _ = x.server.buffers.Get().(*[bufferSize]byte)
		}
		return x.large[:]
	}
	if x.large != nil {
		x.server.buffers.Put(x.large)
		x.large = nil
	}
	return x.small[:]
}

// readDeadline bounds the next read. With smtpd_per_request_deadline, and under stress, a command or a message has one deadline in all.
func (x *session) readDeadline(now time.Time, idle bool) time.Time {
	timeout := x.options.Timeout
	perRequest := x.options.PerRequestDeadline
	if x.server.stressed() || x.leaving() {
		timeout, perRequest = min(timeout, x.options.StressTimeout), true
	}
	end := now.Add(timeout)
	if perRequest {
		if x.engine.AwaitsCommand() || x.requestEnd.IsZero() {
			x.requestEnd = end
		}
		if x.engine.ReceivingMessage() {
			if x.messageBegan.IsZero() {
				x.messageBegan = now
			}
			earned := time.Duration(x.engine.Size()/int64(x.options.MinDataRate)) * time.Second
			x.requestEnd = x.messageBegan.Add(timeout + earned)
		} else {
			x.messageBegan = time.Time{}
		}
		if x.requestEnd.Before(end) {
			end = x.requestEnd
		}
	}
	if x.dismissed.Load() || idle && x.leaving() {
		return past
	}
	return end
}

// lost logs how the connection ended when the client did not end it in order.
func (x *session) lost(err error) error {
	reason := "lost connection"
	if errors.Is(err, os.ErrDeadlineExceeded) {
		reason = "timeout"
		x.farewell("421 4.4.2 " + x.options.Hostname + " Error: timeout exceeded\r\n")
	} else if !errors.Is(err, io.EOF) && x.options.TLSLogLevel > 0 {
		x.lines.info("connection from " + x.peer.client + ": " + err.Error())
	}
	x.lines.info(x.ending(reason))
	return errEnded
}

// ending is the line that says how a session broke off, with how much of a message had come.
func (x *session) ending(reason string) string {
	where := x.engine.Where()
	if x.engine.ReceivingMessage() {
		where = fmt.Sprintf("%s (%d bytes)", where, x.engine.Size())
	}
	return reason + " after " + where + " from " + x.peer.client
}

// farewell writes a last reply to somebody who may not listen any more.
func (x *session) farewell(reply string) {
	patience := farewellTime
	if x.dismissed.Load() {
		patience = dismissedTime
	}
	if err := x.conn.SetWriteDeadline(time.Now().Add(patience)); err == nil {
		// Nobody can be told when this fails: the session is over.
		_, _ = x.conn.Write([]byte(reply))
	}
}

func (x *session) close(reason string) error {
	if err := x.flush(); err != nil {
		return err
	}
	if reason != "" {
		x.lines.info(x.ending(reason))
	}
	return errEnded
}

// pause has a client that made too many errors wait for its next reply; those before it go out now.
func (x *session) pause(ctx context.Context) error {
	if x.options.ErrorSleepTime <= 0 {
		return nil
	}
	if out := x.engine.Output(); len(out) > x.engine.Held() {
		err := x.write(out[:len(out)-x.engine.Held()])
		x.engine.WrittenBefore()
		if err != nil {
			return x.lost(err)
		}
	}
	x.owes.Store(x.askedAt.UnixNano())
	defer x.owes.Store(0)
	timer := time.NewTimer(x.options.ErrorSleepTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return errEnded
	case <-x.gone:
		return nil
	case <-timer.C:
		return nil
	}
}

// crashed logs a fault of ours; it costs this session alone.
func (x *session) crashed(fault any) {
	x.lines.failure(fmt.Sprintf("session with %s ended by a fault: %v", x.peer.client, fault), string(debug.Stack()))
	x.farewell("421 4.3.0 " + x.options.Hostname + " Error: internal error\r\n")
}

// end gives everything back.
func (x *session) end() {
	x.message.release()
	if x.large != nil {
		x.server.buffers.Put(x.large)
		x.large = nil
	}
	x.closeConn()
	if x.rated {
		x.options.Limits.Disconnect(x.peer.name, x.peer.address)
	}
	if x.began {
		x.lines.info(x.disconnectLine())
	}
}

func (x *session) closeConn() {
	if secure, ok := x.conn.(*tls.Conn); ok {
		if x.dismissed.Load() {
			// No time for a farewell in TLS either.
			_ = secure.NetConn().Close()
			return
		}
		if err := secure.SetWriteDeadline(time.Now().Add(time.Second)); err == nil {
			// The client may be gone already.
			_ = secure.CloseWrite()
		}
	}
	// All that was to be written is written; an error of close changes nothing.
	_ = x.conn.Close()
}
