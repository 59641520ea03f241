package logintest

import (
	"bufio"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Bound is how much memory an abuser may take, in octets.
const Bound = 10 << 20

// Memory is what the heap holds that is still used, and the stacks, in octets.
func Memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// Abuse runs abuse against the server at the address, which has let the test in before, and fails when it takes more memory than Bound, or when
// another client is not answered meanwhile. noop is that client's command; the last line of its answer begins with done.
func Abuse(t *testing.T, other net.Conn, noop, done string, abuse func()) {
	t.Helper()
	before := Memory()
	end := make(chan struct{})
	var watching sync.WaitGroup
	var most int64
	watching.Go(func() {
		for {
			most = max(most, Memory()-before)
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	watching.Go(func() {
		lines := bufio.NewReader(other)
		for {
			_ = other.SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := other.Write([]byte(noop + "\r\n")); err != nil {
				t.Errorf("another client: %v", err)
				return
			}
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Errorf("another client is not answered: %v", err)
					return
				}
				if strings.HasPrefix(line, done) {
					break
				}
			}
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	abuse()
	close(end)
	watching.Wait()
	t.Logf("%d KiB at most", most>>10)
	if most > Bound {
		t.Errorf("the abuser took %d octets, more than %d", most, Bound)
	}
}
