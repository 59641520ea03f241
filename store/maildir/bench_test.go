package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"postilion/store"
)

func benchmarkStore(b *testing.B) (*Store, store.Owner) {
	b.Helper()
	s, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s, store.Owner{User: "alice", Home: b.TempDir(), Location: "~/Maildir", UID: -1, GID: -1}
}

// BenchmarkDeliver measures one durable delivery of 4 KiB to one mailbox.
func BenchmarkDeliver(b *testing.B) {
	s, owner := benchmarkStore(b)
	content := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 64))
	b.ReportAllocs()
	b.SetBytes(int64(len(content)))
	for n := 0; b.Loop(); n++ {
		outcomes, err := s.Deliver(b.Context(), &store.Delivery{
			ID: fmt.Sprint(n), Content: bytes.NewReader(content), InternalDate: time.Now(), Targets: []store.Target{{Owner: owner, Mailbox: store.Inbox}},
		})
		if err != nil || outcomes[0].Err != nil {
			b.Fatal(err, outcomes)
		}
	}
}

func filledInbox(b *testing.B, messages int) store.Mailbox {
	b.Helper()
	s, owner := benchmarkStore(b)
	s.disk.unsynced = true
	account, err := s.Open(b.Context(), owner)
	if err != nil {
		b.Fatal(err)
	}
	inbox, err := account.Mailbox(b.Context(), store.Inbox)
	if err != nil {
		b.Fatal(err)
	}
	drafts := make([]store.Draft, messages)
	for i := range drafts {
		drafts[i] = store.Draft{Content: strings.NewReader("Subject: x\r\n\r\nbody\r\n"), InternalDate: time.Unix(1700000000, 0)}
	}
	if _, err := inbox.Append(b.Context(), drafts); err != nil {
		b.Fatal(err)
	}
	if _, err := inbox.TakeRecent(b.Context()); err != nil {
		b.Fatal(err)
	}
	time.Sleep(2 * settle)
	return inbox
}

// openAgain measures opening a mailbox of so many messages by a store that knows nothing of it; cold without the journal, as Dovecot leaves it.
func openAgain(b *testing.B, messages int, cold bool) {
	s, owner := benchmarkStore(b)
	s.disk.unsynced = true
	account, err := s.Open(b.Context(), owner)
	if err != nil {
		b.Fatal(err)
	}
	list := uidList{validity: 5, next: store.UID(messages + 1), guid: "a"}
	cur := filepath.Join(owner.Home, "Maildir", "cur")
	for i := range messages {
		base := fmt.Sprintf("17000%05d.M%dP1Q%d.host,S=7,W=8", i, i, i)
		list.entries = append(list.entries, uidEntry{uid: store.UID(i + 1), base: base})
		if err := os.WriteFile(filepath.Join(cur, base+":2,S"), []byte("a: b\n\nc\n"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(owner.Home, "Maildir", uidListName), list.format(), 0o600); err != nil {
		b.Fatal(err)
	}
	_, err = account.Status(b.Context(), store.Inbox)
	if err := errors.Join(err, s.Close()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		if cold {
			if err := os.Remove(filepath.Join(owner.Home, "Maildir", journalName)); err != nil {
				b.Fatal(err)
			}
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s, err := Open(Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.disk.unsynced = true
		b.StartTimer()
		account, err := s.Open(b.Context(), owner)
		if err != nil {
			b.Fatal(err)
		}
		inbox, err := account.Mailbox(b.Context(), store.Inbox)
		if err != nil {
			b.Fatal(err)
		}
		v, err := inbox.View(b.Context())
		if err != nil || v.Len() != messages {
			b.Fatal(err)
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(messages), "B/message")
		if err := errors.Join(inbox.Close(), s.Close()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkOpen20000(b *testing.B)      { openAgain(b, 20_000, false) }
func BenchmarkOpen20000Cold(b *testing.B)  { openAgain(b, 20_000, true) }
func BenchmarkOpen100000(b *testing.B)     { openAgain(b, 100_000, false) }
func BenchmarkOpen100000Cold(b *testing.B) { openAgain(b, 100_000, true) }

// BenchmarkViewUnchanged measures a look at a mailbox of 2,000 messages in which nothing happened.
func BenchmarkViewUnchanged(b *testing.B) {
	inbox := filledInbox(b, 2000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := inbox.View(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSetFlags measures a flag change in a mailbox of 2,000 messages, the reading of the directory after it included.
func BenchmarkSetFlags(b *testing.B) {
	inbox := filledInbox(b, 2000)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		_, err := inbox.SetFlags(b.Context(), store.UIDSetOf(store.UID(n%2000+1)), store.FlagChange{Operation: store.FlagOperation(n/2000%2 + 1), Flags: store.FlagSeen})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadLF measures reading a large message whose lines end in LF on disk.
func BenchmarkReadLF(b *testing.B) {
	s, owner := benchmarkStore(b)
	content := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 16<<10))
	account, err := s.Open(b.Context(), owner)
	if err != nil {
		b.Fatal(err)
	}
	inbox, err := account.Mailbox(b.Context(), store.Inbox)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := inbox.Append(b.Context(), []store.Draft{{Content: bytes.NewReader(content)}}); err != nil {
		b.Fatal(err)
	}
	buffer := make([]byte, 64<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		body, err := inbox.Open(b.Context(), 1)
		if err != nil {
			b.Fatal(err)
		}
		for at := int64(0); at < body.Size(); at += int64(len(buffer)) {
			if _, err := body.ReadAt(buffer[:min(int64(len(buffer)), body.Size()-at)], at); err != nil {
				b.Fatal(err)
			}
		}
		if err := body.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
