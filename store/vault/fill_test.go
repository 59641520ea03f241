package vault

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postilion/kv"
	"postilion/store"
)

// BenchmarkFill measures what compaction costs with bodies in the tree and beside it. It takes minutes and gigabytes: it runs when
// POSTILION_FILL names the number of messages.
func BenchmarkFill(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("POSTILION_FILL"))
	if err != nil {
		b.Skip("POSTILION_FILL does not say how many messages to store")
	}
	for name, from := range map[string]int{"in the tree": -1, "beside the tree": 0} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				fill(b, n, from)
			}
		})
	}
}

func fill(b *testing.B, n, separateFrom int) {
	dir := b.TempDir()
	db, err := kv.Open(dir, kv.Options{SeparateFrom: separateFrom})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	s, err := Open(db, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const size = 4096
	header := benchMail(0)
	structure := benchStructure(b, benchMail(size))
	// Bodies are pieces of a long random text, so that compression finds no more than in one mail by itself.
	pool := benchMail(8 << 20)[len(header):]
	before := cpu(b)
	var next atomic.Int64
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				at := int(uint64(i) * 0x9e3779b97f4a7c15 % uint64(len(pool)-size))
				mail := append(append(make([]byte, 0, size), header...), pool[at:at+size-len(header)]...)
				target := store.Target{Owner: store.Owner{User: fmt.Sprint("user", i%200)}, Mailbox: store.Inbox, Prefix: fmt.Appendf(nil, "Delivered-To: user%d@example.org\r\n", i)}
				d := &store.Delivery{ID: fmt.Sprintf("4bQ1%010x", i), Content: bytes.NewReader(mail), Structure: structure, Targets: []store.Target{target}, InternalDate: time.Unix(i, 0)}
				if outcomes, err := s.Deliver(context.Background(), d); err != nil || outcomes[0].Err != nil {
					b.Error(err, outcomes)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "mails/s")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(n), "cpu-us/mail")
	for wait := 0; db.Metrics().CompactionDebt > 0 && wait < 20; wait++ {
		time.Sleep(time.Second)
	}
	m := db.Metrics()
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(n), "cpu-us/mail-settled")
	in := float64(n) * size
	b.ReportMetric(float64(m.FlushedBytes+m.CompactedBytes+m.SeparatedBytes)/in, "written/body")
	b.ReportMetric(float64(m.CompactedBytes)/in, "compacted/body")
	b.ReportMetric(float64(m.DiskBytes)/in, "disk/body")
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	b.ReportMetric(float64(len(files)), "files")
}
