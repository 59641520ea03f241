package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postilion/store"
	"postilion/store/storetest"
)

// bothWays runs a benchmark over a Maildir that this process has itself and over one behind a socketpair.
func bothWays(b *testing.B, run func(b *testing.B, s store.Store, owner store.Owner)) {
	for _, way := range []struct {
		name string
		open func(b *testing.B) store.Store
	}{
		{"direct", func(b *testing.B) store.Store { return openMaildir(b) }},
		{"remote", func(b *testing.B) store.Store { return serve(b, openMaildir(b), Options{}) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			s := way.open(b)
			b.Cleanup(func() {
				if err := s.Close(); err != nil {
					b.Error(err)
				}
			})
			b.ReportAllocs()
			run(b, s, store.Owner{User: "alice", Home: filepath.Join(memoryDir(b), "alice"), Location: "~/Maildir", UID: -1, GID: -1})
		})
	}
}

func openInbox(tb testing.TB, s store.Store, owner store.Owner) store.Mailbox {
	tb.Helper()
	account, err := s.Open(tb.Context(), owner)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = account.Close() })
	inbox, err := account.Mailbox(tb.Context(), store.Inbox)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = inbox.Close() })
	return inbox
}

// fill appends n messages and waits until the Maildir is taken for settled.
func fill(tb testing.TB, inbox store.Mailbox, n int) {
	tb.Helper()
	drafts := make([]store.Draft, n)
	for i := range drafts {
		drafts[i] = store.Draft{Content: bytes.NewReader(fourKiB[:100]), InternalDate: time.Unix(1700000000, 0)}
	}
	if _, err := inbox.Append(tb.Context(), drafts); err != nil {
		tb.Fatal(err)
	}
	if _, err := inbox.TakeRecent(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	time.Sleep(2 * time.Second)
}

var fourKiB = []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 64))[:4096]

func lookAt(b *testing.B, inbox store.Mailbox) store.View {
	view, err := inbox.View(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return view
}

// BenchmarkFirstView measures the first look of a connection at a mailbox of 20,000 messages; the Maildir itself is read already.
func BenchmarkFirstView(b *testing.B) {
	bothWays(b, func(b *testing.B, s store.Store, owner store.Owner) {
		inbox := openInbox(b, s, owner)
		fill(b, inbox, 20000)
		m, remote := inbox.(*mailbox)
		for b.Loop() {
			if remote {
				m.client.recent = recentViews{limit: m.client.recent.limit}
				m.current = nil
			}
			lookAt(b, inbox)
		}
	})
}

// BenchmarkViewUnchanged measures a look at a mailbox of 20,000 messages in which nothing happened.
func BenchmarkViewUnchanged(b *testing.B) {
	bothWays(b, func(b *testing.B, s store.Store, owner store.Owner) {
		inbox := openInbox(b, s, owner)
		fill(b, inbox, 20000)
		lookAt(b, inbox)
		for b.Loop() {
			lookAt(b, inbox)
		}
	})
}

// BenchmarkSetFlags measures a flag change in a mailbox of 2,000 messages and the look at it.
func BenchmarkSetFlags(b *testing.B) {
	bothWays(b, func(b *testing.B, s store.Store, owner store.Owner) {
		inbox := openInbox(b, s, owner)
		fill(b, inbox, 2000)
		lookAt(b, inbox)
		for n := 0; b.Loop(); n++ {
			_, err := inbox.SetFlags(b.Context(), store.UIDSetOf(store.UID(n%2000+1)), store.FlagChange{Operation: store.FlagOperation(n/2000%2 + 1), Flags: store.FlagSeen})
			if err != nil {
				b.Fatal(err)
			}
			lookAt(b, inbox)
		}
	})
}

// BenchmarkDeliver measures one delivery of 4 KiB.
func BenchmarkDeliver(b *testing.B) {
	bothWays(b, func(b *testing.B, s store.Store, owner store.Owner) {
		b.SetBytes(int64(len(fourKiB)))
		for n := 0; b.Loop(); n++ {
			outcomes, err := s.Deliver(b.Context(), &store.Delivery{
				ID: fmt.Sprint(n), Content: bytes.NewReader(fourKiB), InternalDate: time.Unix(1700000000, 0), Targets: []store.Target{{Owner: owner, Mailbox: store.Inbox}},
			})
			if err != nil || outcomes[0].Err != nil {
				b.Fatal(err, outcomes)
			}
		}
	})
}

// BenchmarkRead measures opening and reading a message.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{4 << 10, 4 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			bothWays(b, func(b *testing.B, s store.Store, owner store.Owner) {
				inbox := openInbox(b, s, owner)
				content := bytes.Repeat(fourKiB, size/len(fourKiB))
				if _, err := inbox.Append(b.Context(), []store.Draft{{Content: bytes.NewReader(content)}}); err != nil {
					b.Fatal(err)
				}
				buffer := make([]byte, 32<<10)
				b.SetBytes(int64(size))
				for b.Loop() {
					body, err := inbox.Open(b.Context(), 1)
					if err != nil {
						b.Fatal(err)
					}
					for at := int64(0); at < body.Size(); at += int64(len(buffer)) {
						if _, err = body.ReadAt(buffer[:min(int64(len(buffer)), body.Size()-at)], at); err != nil {
							b.Fatal(err)
						}
					}
					if err := errors.Join(err, body.Close()); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkRoundTrip measures the least that a call takes: a store that does nothing is asked.
func BenchmarkRoundTrip(b *testing.B) {
	s := serve(b, odd{Store: storetest.NewMemory().Open(), deliver: func(context.Context, *store.Delivery) ([]store.Outcome, error) {
		return []store.Outcome{{UID: 1}}, nil
	}}, Options{})
	delivery := &store.Delivery{Content: bytes.NewReader(nil), Targets: make([]store.Target, 1)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Deliver(b.Context(), delivery); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
