package service

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"postilion/config/dovecot"
	"postilion/mta/deliver"
)

// memory is the budget of the process (postilion_memory_limit): the garbage collector keeps to it, and when what is in use comes near it, new work is
// refused while work under way goes on.
type memory struct {
	mu    sync.Mutex
	limit int64
	asked time.Time
	busy  bool
	// inUse measures; it is replaced in tests.
	inUse func() int64
}

// memoryLook is how long a measurement holds.
const memoryLook = 100 * time.Millisecond

// set makes limit the budget in octets; 0 is none, and leaves GOMEMLIMIT as it is unless a budget was set before.
func (m *memory) set(limit int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case limit > 0:
		debug.SetMemoryLimit(limit)
	case m.limit > 0:
		debug.SetMemoryLimit(math.MaxInt64)
	}
	m.limit, m.asked = limit, time.Time{}
}

// short tells that nine tenths of the budget are in use.
func (m *memory) short() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit == 0 {
		return false
	}
	if now := time.Now(); now.Sub(m.asked) >= memoryLook {
		m.asked = now
		measure := m.inUse
		if measure == nil {
			measure = memoryInUse
		}
		m.busy = measure() > m.limit/10*9
	}
	return m.busy
}

// memoryInUse is what the last garbage collection found alive, and what is no heap.
func memoryInUse() int64 {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/metadata/other:bytes"},
		{Name: "/memory/classes/metadata/mspan/inuse:bytes"},
		{Name: "/memory/classes/os-stacks:bytes"},
		{Name: "/memory/classes/other:bytes"},
	}
	metrics.Read(samples)
	var sum uint64
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			sum += s.Value.Uint64()
		}
	}
	return int64(min(sum, math.MaxInt64))
}

// memoryLimit is the smaller of both halves' postilion_memory_limit, 0 for none.
func (b *builder) memoryLimit() (int64, error) {
	var limit int64
	if b.postfix != nil {
		view := b.postfix.View()
		if text := view.String("postilion_memory_limit"); text != "" {
			var err error
			if limit, err = parseQuotaSize(text, 1); err == nil && limit < 0 {
				err = errors.New("it is negative")
			}
			if err != nil {
				return 0, fmt.Errorf("%s: postilion_memory_limit: %w", view.Where("postilion_memory_limit"), err)
			}
		}
	}
	if b.dovecot != nil {
		if size := b.dovecot.For(dovecot.Filter{}).Size("postilion_memory_limit"); size > 0 && (limit == 0 || size < limit) {
			limit = size
		}
	}
	return limit, nil
}

// hostname is what a configuration calls the server.
func (b *builder) hostname() string {
	if b.postfix != nil {
		return b.postfix.View().String("myhostname")
	}
	return first(b.dovecot.For(dovecot.Filter{}).String("hostname"), deliver.Hostname())
}

// turnAwayPatience bounds the write of a refusal.
const turnAwayPatience = 100 * time.Millisecond

// turnAway tells a new client that the server is short of memory, in its protocol's words where it can read them, and ends the connection.
func (e *Endpoint) turnAway(conn net.Conn, hostname string, log *slog.Logger) {
	text := ""
	switch {
	case e.TLS == "TLS":
	case e.Protocol == "imap":
		text = "* BYE [UNAVAILABLE] The server is short of memory, try again later.\r\n"
	case e.Protocol == "pop3":
		text = "-ERR [SYS/TEMP] The server is short of memory, try again later.\r\n"
	case e.Protocol == "smtp" || e.Protocol == "submission" || e.Protocol == "lmtp":
		text = "421 4.3.2 " + hostname + " The server is short of memory, try again later\r\n"
	}
	// A client that does not take it is turned away without.
	if conn.SetWriteDeadline(time.Now().Add(turnAwayPatience)) == nil && text != "" {
		_, _ = conn.Write([]byte(text))
	}
	_ = conn.Close()
	log.Warn(fmt.Sprintf("%s: %v is turned away: postilion_memory_limit is nearly used up", e.String(), conn.RemoteAddr()))
}
