package vault

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postilion/kv"
	"postilion/store"
)

// BenchmarkLarge compares deliveries into an empty store with those into one that holds many messages, turn by turn in the same run, and tells how long the large one
// takes to open and what it takes in memory. It takes minutes and gigabytes: it runs when POSTILION_LARGE names the number of messages.
func BenchmarkLarge(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("POSTILION_LARGE"))
	if err != nil {
		b.Skip("POSTILION_LARGE does not say how many messages to store")
	}
	const turns, turn = 9, 3000
	for b.Loop() {
		large := &filler{b: b, dir: b.TempDir()}
		large.open()
		began := time.Now()
		large.deliver(n)
		b.ReportMetric(float64(n)/time.Since(began).Seconds(), "fill-mails/s")
		small := &filler{b: b, dir: b.TempDir()}
		small.open()
		small.deliver(turn)
		var rates, costs [2][]float64
		for range turns {
			for i, f := range []*filler{small, large} {
				before, at := cpu(b), time.Now()
				f.deliver(turn)
				rates[i] = append(rates[i], turn/time.Since(at).Seconds())
				costs[i] = append(costs[i], float64((cpu(b)-before).Microseconds())/turn)
			}
		}
		for i, name := range []string{"small", "large"} {
			slices.Sort(rates[i])
			slices.Sort(costs[i])
			b.ReportMetric(rates[i][turns/2], name+"-mails/s")
			b.ReportMetric(costs[i][turns/2], name+"-cpu-us/mail")
		}
		b.ReportMetric(rates[1][turns/2]/rates[0][turns/2], "large/small")
		m := large.db.Metrics()
		b.ReportMetric(float64(m.CompactedBytes)/(4096*float64(n)), "compacted/body")
		b.ReportMetric(float64(m.DiskBytes)/(4096*float64(n)), "disk/body")
		small.close()
		large.close()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began = time.Now()
		large.open()
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "open-ms")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc)/(1<<20)-float64(before.HeapAlloc)/(1<<20), "open-heap-MiB")
		large.close()
	}
}

// filler delivers mail of 4 KiB to 200 mailboxes from 50 goroutines.
type filler struct {
	b    *testing.B
	dir  string
	db   *kv.DB
	s    *Store
	next atomic.Int64
}

func (f *filler) open() {
	var err error
	if f.db, err = kv.Open(f.dir, kv.Options{}); err != nil {
		f.b.Fatal(err)
	}
	if f.s, err = Open(f.db, Options{}); err != nil {
		f.b.Fatal(err)
	}
}

func (f *filler) close() {
	_ = f.s.Close()
	_ = f.db.Close()
}

func (f *filler) deliver(n int) {
	const size = 4096
	header := benchMail(0)
	structure := benchStructure(f.b, benchMail(size))
	pool := benchMail(8 << 20)[len(header):]
	end := f.next.Load() + int64(n)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			for i := f.next.Add(1); i <= end; i = f.next.Add(1) {
				at := int(uint64(i) * 0x9e3779b97f4a7c15 % uint64(len(pool)-size))
				mail := append(append(make([]byte, 0, size), header...), pool[at:at+size-len(header)]...)
				target := store.Target{Owner: store.Owner{User: fmt.Sprint("user", i%200)}, Mailbox: store.Inbox, Prefix: fmt.Appendf(nil, "Delivered-To: user%d@example.org\r\n", i)}
				d := &store.Delivery{ID: fmt.Sprintf("4bQ1%010x", i), Content: bytes.NewReader(mail), Structure: structure, Targets: []store.Target{target}, InternalDate: time.Unix(i, 0)}
				if outcomes, err := f.s.Deliver(context.Background(), d); err != nil || outcomes[0].Err != nil {
					f.b.Error(err, outcomes)
					return
				}
			}
		})
	}
	group.Wait()
	f.next.Store(end)
}
