package vault

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/mail/message"
	"postilion/store"
)

// benchMail is a message of about size octets whose body does not compress to nothing.
func benchMail(size int) []byte {
	random := rand.New(rand.NewPCG(1, uint64(size)))
	var b bytes.Buffer
	b.WriteString("Received: from a.example (a.example [192.0.2.1]) by mx.example with ESMTPS id 1; Mon, 1 Jan 2024 00:00:00 +0000\r\n" +
		"From: Sender <sender@example.com>\r\nTo: Recipient <recipient@example.org>\r\nSubject: a message for the benchmark\r\n" +
		"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n")
	for b.Len() < size {
		for range 72 {
			b.WriteByte(byte('!' + random.IntN(90)))
		}
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

func cpu(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchDeliver(b *testing.B, workers, targets, size int, user func(n int64) string) {
	s := open(b, vfs.Default, b.TempDir(), Options{})
	defer s.Close()
	mail := benchMail(size)
	structure := benchStructure(b, mail)
	before, flushes := cpu(b), s.db.Metrics().Flushes
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				d := &store.Delivery{ID: fmt.Sprintf("4bQ1%010x", n), Content: bytes.NewReader(mail), Structure: structure, InternalDate: time.Unix(1700000000, 0)}
				for i := range targets {
					d.Targets = append(d.Targets, store.Target{Owner: store.Owner{User: user(n + int64(i))}, Mailbox: store.Inbox, Prefix: []byte("Return-Path: <sender@example.com>\r\nDelivered-To: recipient@example.org\r\n")})
				}
				outcomes, err := s.Deliver(context.Background(), d)
				if err != nil || outcomes[0].Err != nil {
					b.Error(err, outcomes)
					return
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(s.db.Metrics().Flushes-flushes)/float64(b.N), "flushes/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "mails/s")
}

func BenchmarkDeliver(b *testing.B) {
	for _, workers := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("one mailbox/%d", workers), func(b *testing.B) {
			benchDeliver(b, workers, 1, 4096, func(int64) string { return "user" })
		})
	}
	b.Run("50 mailboxes/50", func(b *testing.B) {
		benchDeliver(b, 50, 1, 4096, func(n int64) string { return fmt.Sprint("user", n%50) })
	})
	b.Run("three targets/50", func(b *testing.B) {
		benchDeliver(b, 50, 3, 4096, func(n int64) string { return fmt.Sprint("user", n%50) })
	})
	b.Run("64 KiB/50", func(b *testing.B) {
		benchDeliver(b, 50, 1, 64<<10, func(n int64) string { return fmt.Sprint("user", n%50) })
	})
}

// benchMailbox returns an INBOX of n messages.
func benchMailbox(b *testing.B, n int) (*opened, store.Mailbox) {
	s := open(b, vfs.Default, b.TempDir(), Options{})
	b.Cleanup(func() { _ = s.Close() })
	account, err := s.Open(context.Background(), store.Owner{User: "user"})
	if err != nil {
		b.Fatal(err)
	}
	inbox, err := account.Mailbox(context.Background(), store.Inbox)
	if err != nil {
		b.Fatal(err)
	}
	mail := benchMail(4096)
	if n > 1000 {
		mail = mail[:600]
	}
	structure := benchStructure(b, mail)
	for done := 0; done < n; {
		var drafts []store.Draft
		for range min(500, n-done) {
			drafts = append(drafts, store.Draft{Content: bytes.NewReader(mail), Structure: structure, InternalDate: time.Unix(1700000000, 0)})
		}
		if _, err := inbox.Append(context.Background(), drafts); err != nil {
			b.Fatal(err)
		}
		done += len(drafts)
	}
	return s, inbox
}

func BenchmarkView100000(b *testing.B) {
	s, inbox := benchMailbox(b, 100000)
	box := inbox.(*handle).box
	b.ReportAllocs()
	for b.Loop() {
		v, _, err := s.readView(box.working)
		if err != nil || v.Len() != 100000 {
			b.Fatal(err)
		}
	}
}

func BenchmarkEntries100000(b *testing.B) {
	_, inbox := benchMailbox(b, 100000)
	view, err := inbox.View(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range view.Len() {
			if view.Entry(i).UID == 0 {
				b.Fatal(i)
			}
		}
	}
}

func BenchmarkOpenRead(b *testing.B) {
	_, inbox := benchMailbox(b, 1000)
	buffer := make([]byte, 8192)
	uid := store.UID(1)
	b.ReportAllocs()
	for b.Loop() {
		body, err := inbox.Open(context.Background(), uid)
		if err != nil {
			b.Fatal(err)
		}
		if n, _ := body.ReadAt(buffer, 0); n < 4096 {
			b.Fatal(n)
		}
		_ = body.Close()
		uid = uid%1000 + 1
	}
}

func BenchmarkStructure(b *testing.B) {
	_, inbox := benchMailbox(b, 1000)
	uid := store.UID(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := inbox.Structure(context.Background(), uid); err != nil {
			b.Fatal(err)
		}
		uid = uid%1000 + 1
	}
}

func BenchmarkSetFlags(b *testing.B) {
	for _, n := range []store.UID{1, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, inbox := benchMailbox(b, 20000)
			if _, err := inbox.View(context.Background()); err != nil {
				b.Fatal(err)
			}
			operation := store.AddFlags
			b.ReportAllocs()
			for b.Loop() {
				changed, err := inbox.SetFlags(context.Background(), store.UIDSetRange(5000, 5000+n-1), store.FlagChange{Operation: operation, Flags: store.FlagSeen})
				if err != nil || changed.Changed.Count() != uint64(n) {
					b.Fatal(err, changed)
				}
				operation = store.AddFlags + store.RemoveFlags - operation
			}
		})
	}
}

func benchStructure(_ *testing.B, mail []byte) *message.Message { return message.Parse(mail) }
