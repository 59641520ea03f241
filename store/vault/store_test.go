package vault

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"postilion/kv"
	"postilion/mail/message"
	"postilion/store"
)

// inboxOf opens the INBOX of a user for the time of the test.
func inboxOf(t testing.TB, s store.Store, user string) store.Mailbox {
	t.Helper()
	return mailboxOf(t, s, user, store.Inbox)
}

func mailboxOf(t testing.TB, s store.Store, user, name string) store.Mailbox {
	t.Helper()
	account, err := s.Open(context.Background(), store.Owner{User: user})
	if err != nil {
		t.Fatal(err)
	}
	defer account.Close()
	mailbox, err := account.Mailbox(context.Background(), name)
	if errors.Is(err, store.ErrNotFound) {
		if err = account.Create(context.Background(), name, ""); err == nil {
			mailbox, err = account.Mailbox(context.Background(), name)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return mailbox
}

func fillMailbox(t testing.TB, mailbox store.Mailbox, n int) {
	t.Helper()
	mail := []byte("Subject: x\r\n\r\nx\r\n")
	structure := message.Parse(mail)
	for n > 0 {
		drafts := make([]store.Draft, min(n, 1000))
		for i := range drafts {
			drafts[i] = store.Draft{Content: bytes.NewReader(mail), Structure: structure, InternalDate: time.Unix(1700000000, 0)}
		}
		if _, err := mailbox.Append(context.Background(), drafts); err != nil {
			t.Fatal(err)
		}
		n -= len(drafts)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs, "db", Options{})
	batch := s.db.Batch(0)
	batch.Set(s.space, []byte{rowFormat}, binary.AppendUvarint(nil, formatVersion+1))
	if err := batch.Commit(); err != nil {
		t.Fatal(err)
	}
	batch.Close()
	if err := s.Store.Close(); err != nil {
		t.Fatal(err)
	}
	defer s.db.Close()
	_, err := Open(s.db, Options{})
	if !errors.Is(err, kv.ErrFormat) || !strings.Contains(err.Error(), "version 3, written by another program; this program, postilion (development build), reads up to 2") {
		t.Errorf("a newer store: %v", err)
	}
	if _, err := Open(s.db, Options{}); !errors.Is(err, kv.ErrFormat) {
		t.Errorf("refused once, then: %v", err)
	}
}

// zeros is a large message that takes no memory.
type zeros int64

func (z zeros) Size() int64 { return int64(z) }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), int64(z)-off)))
	for i := range p[:n] {
		p[i] = 'x'
		if (off+int64(i))%70 == 69 {
			p[i] = '\n'
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestLargeMessageTakesLittleMemory(t *testing.T) {
	db, err := kv.Open(t.TempDir(), kv.Options{MemTableSize: 1 << 20, CacheSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := Open(db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	inbox := inboxOf(t, s, "alice")
	defer inbox.Close()
	var highest atomic.Uint64
	stop := make(chan struct{})
	var group sync.WaitGroup
	// What is held is measured, not what a busy machine has not collected yet.
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				highest.Store(max(highest.Load(), now.HeapAlloc))
			}
		}
	})
	const size = 100 << 20
	uids, err := inbox.Append(context.Background(), []store.Draft{{Content: zeros(size)}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := inbox.Open(context.Background(), uids[0])
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, io.NewSectionReader(body, 0, 1<<40))
	if err != nil || n != size {
		t.Errorf("read %d octets: %v", n, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	close(stop)
	group.Wait()
	if grown := int64(highest.Load()) - int64(before.HeapAlloc); grown > 40<<20 {
		t.Errorf("a message of 100 MiB took %d MiB of memory", grown>>20)
	}
	consistent(t, s)
}

// failing ends in the middle.
type failing struct{ zeros }

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off > int64(f.zeros)/2 {
		return 0, syscall.EIO
	}
	return f.zeros.ReadAt(p, off)
}

func TestUnreadableContentLeavesNothing(t *testing.T) {
	s := open(t, vfs.NewMem(), "db", Options{})
	defer s.Close()
	inbox := inboxOf(t, s, "alice")
	defer inbox.Close()
	_, err := inbox.Append(context.Background(), []store.Draft{{Content: zeros(10)}, {Content: failing{5 * chunkSize}}})
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("append: %v", err)
	}
	outcomes, err := s.Deliver(context.Background(), &store.Delivery{Content: failing{3 * chunkSize}, Targets: []store.Target{{Owner: store.Owner{User: "alice"}, Mailbox: store.Inbox}}})
	if !errors.Is(err, syscall.EIO) || outcomes != nil {
		t.Errorf("deliver: %v, %v", outcomes, err)
	}
	consistent(t, s.Store)
	if n := countRows(t, s.Store, rowBody) + countRows(t, s.Store, rowUnfinished); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func countRows(t *testing.T, s *Store, kind byte) (n int) {
	t.Helper()
	if err := s.scan([]byte{kind}, []byte{kind + 1}, func(_, _ []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCrashInLargeMessage cuts the power when some rows of a large message are written ahead: Open removes them.
func TestCrashInLargeMessage(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs, "db", Options{})
	c := s.change()
	if _, err := c.putBody(nil, zeros(5*chunkSize), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Sync(); err != nil {
		t.Fatal(err)
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	c.close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, after, "db", Options{})
	defer s.Close()
	if n := countRows(t, s.Store, rowBody) + countRows(t, s.Store, rowUnfinished) + countRows(t, s.Store, rowStructure); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// TestDeletedMailboxIsCollected deletes a large mailbox whose bodies are partly shared, crashes, and waits for the rest to go.
func TestDeletedMailboxIsCollected(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs, "db", Options{})
	large, inbox := mailboxOf(t, s, "alice", "large"), inboxOf(t, s, "alice")
	fillMailbox(t, large, 3*collectBatch)
	if _, err := large.Copy(context.Background(), store.UIDSetRange(10, 19), inbox); err != nil {
		t.Fatal(err)
	}
	account, err := s.Open(context.Background(), store.Owner{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	// With the collector stopped nothing but the mark is written.
	s.stop()
	s.background.Wait()
	if err := account.Delete(context.Background(), "large"); err != nil {
		t.Fatal(err)
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	if done, err := s.collectMailbox(large.(*handle).box.row.id); done || err != nil {
		t.Errorf("collected in one batch: %v, %v", done, err)
	}
	consistent(t, s.Store)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, after, "db", Options{})
	defer s.Close()
	for deadline := time.Now().Add(10 * time.Second); countRows(t, s.Store, rowDeleted) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the deleted mailbox is not collected")
		}
	}
	consistent(t, s.Store)
	if n := countRows(t, s.Store, rowEntry); n != 10 {
		t.Errorf("%d entries are left", n)
	}
	if n := countRows(t, s.Store, rowBody); n != 10 {
		t.Errorf("%d bodies are left", n)
	}
}

func TestDeliveriesAreForgottenInTime(t *testing.T) {
	fs := vfs.NewMem()
	var clock atomic.Int64
	clock.Store(1700000000)
	const remember = 100 * time.Second
	options := Options{Now: func() time.Time { return time.Unix(clock.Load(), 0) }, RememberDeliveries: remember}
	s := open(t, fs, "db", options)
	send := func(id string) bool {
		t.Helper()
		outcomes, err := s.Deliver(context.Background(), &store.Delivery{ID: id, Content: zeros(5), Targets: []store.Target{{Owner: store.Owner{User: "alice"}, Mailbox: store.Inbox}}})
		if err = errors.Join(err, outcomes[0].Err); err != nil {
			t.Fatal(err)
		}
		return outcomes[0].Duplicate
	}
	long := strings.Repeat("x", 1000)
	for i := range 40 {
		clock.Add(10)
		if send(fmt.Sprintf("id%03d", i)) || send(long+fmt.Sprint(i)) {
			t.Fatalf("new delivery %d is told as known", i)
		}
		if i%7 == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, fs, "db", options)
		}
		if err := s.delivered.forget(s.Store); err != nil {
			t.Fatal(err)
		}
		for back := range min(i+1, 10) {
			if !send(fmt.Sprintf("id%03d", i-back)) || !send(long+fmt.Sprint(i-back)) {
				t.Fatalf("delivery %d is not known %d seconds later", i-back, 10*back)
			}
		}
	}
	if n := countRows(t, s.Store, rowDelivered); n > 2*26 {
		t.Errorf("%d marks are kept", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestManyDeliveriesOutOfOrder gives ids that neither rise nor stand in memory any more.
func TestManyDeliveriesOutOfOrder(t *testing.T) {
	s := open(t, vfs.NewMem(), "db", Options{})
	defer s.Close()
	ids := make([]string, recentIDs+500)
	for i := range ids {
		ids[i] = fmt.Sprintf("%x", uint64(i)*0x9e3779b97f4a7c15)
		s.delivered.note(ids[i])
	}
	for i, id := range ids {
		if s.delivered.surelyNew(id) {
			t.Fatalf("id %d is told as new", i)
		}
	}
	if s.delivered.surelyNew(ids[0]) || len(s.delivered.recent) != recentIDs {
		t.Errorf("%d ids in memory", len(s.delivered.recent))
	}
	if !s.delivered.surelyNew("~") {
		t.Error("an id above all others is not new")
	}
}

func TestFullDiskRefusesMail(t *testing.T) {
	fs := vfs.NewMem()
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	s := open(t, fs, "db", Options{})
	defer s.Close()
	inbox := inboxOf(t, s, "alice")
	defer inbox.Close()
	fillMailbox(t, inbox, 1)
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 20})
	time.Sleep(300 * time.Millisecond)
	_, err := inbox.Append(context.Background(), []store.Draft{{Content: zeros(5)}})
	_, deliverErr := s.Deliver(context.Background(), &store.Delivery{Content: zeros(5), Targets: []store.Target{{Owner: store.Owner{User: "alice"}, Mailbox: store.Inbox}}})
	for _, err := range []error{err, deliverErr} {
		var place *store.Error
		if !errors.Is(err, store.ErrNoSpace) || !errors.As(err, &place) {
			t.Errorf("with a full disk: %v", err)
		}
	}
	if _, err := inbox.Expunge(context.Background(), store.AllUIDs(), false); err != nil {
		t.Errorf("giving space back: %v", err)
	}
}

// TestFailedLog has the disk refuse the log under load: the owner is told, deliveries fail as a whole, and no acknowledged one is lost.
func TestFailedLog(t *testing.T) {
	memory := vfs.NewCrashableMem()
	var broken atomic.Bool
	fs := errorfs.Wrap(memory, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.HasSuffix(op.Path, ".log") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return syscall.EIO
		}
		return nil
	}))
	told := make(chan error, 1)
	db, err := kv.Open("db", kv.Options{FS: fs, OnFatal: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var acknowledged atomic.Int64
	var group sync.WaitGroup
	for worker := range 6 {
		group.Go(func() {
			for i := 0; ; i++ {
				broken.CompareAndSwap(false, worker == 0 && i == 20)
				outcomes, err := s.Deliver(context.Background(), &store.Delivery{ID: fmt.Sprint(worker, i), Content: zeros(100), Targets: []store.Target{
					{Owner: store.Owner{User: "alice"}, Mailbox: store.Inbox}, {Owner: store.Owner{User: "bob"}, Mailbox: store.Inbox},
				}})
				if err != nil {
					if !errors.Is(err, kv.ErrFailed) || outcomes != nil {
						t.Errorf("deliver: %v, %v", outcomes, err)
					}
					return
				}
				acknowledged.Add(1)
			}
		})
	}
	group.Wait()
	if err := <-told; !errors.Is(err, syscall.EIO) {
		t.Errorf("told %v", err)
	}
	if err := errors.Join(s.Close(), db.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	found := open(t, memory.CrashClone(vfs.CrashCloneCfg{}), "db", Options{})
	defer found.Close()
	consistent(t, found.Store)
	for _, user := range []string{"alice", "bob"} {
		view, err := inboxOf(t, found, user).View(context.Background())
		if err != nil || int64(view.Len()) < acknowledged.Load() {
			t.Errorf("%s has %d messages of %d that were acknowledged: %v", user, view.Len(), acknowledged.Load(), err)
		}
	}
}

func TestDeliverWithRowsOfAnotherRoom(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs, "db", Options{})
	queue, err := s.db.Space("queue")
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	send := func(id, mailbox string, also error) ([]store.Outcome, error) {
		return s.DeliverWith(context.Background(), &store.Delivery{ID: id, Content: zeros(9), Targets: []store.Target{{Owner: store.Owner{User: "alice"}, Mailbox: mailbox}}},
			func(batch *kv.Batch, outcomes []store.Outcome) error {
				batch.Set(queue, []byte(id), fmt.Append(nil, outcomes[0].UID, outcomes[0].Duplicate, outcomes[0].Err != nil))
				return also
			})
	}
	for _, step := range []struct {
		id, mailbox string
		also        error
	}{{"1", store.Inbox, nil}, {"2", "none", nil}, {"3", store.Inbox, refused}, {"1", store.Inbox, nil}, {"4", strings.Repeat("x", maxNameLen+1), nil}} {
		if _, err := send(step.id, step.mailbox, step.also); !errors.Is(err, step.also) {
			t.Errorf("%+v: %v", step, err)
		}
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, after, "db", Options{})
	defer s.Close()
	consistent(t, s.Store)
	if queue, err = s.db.Space("queue"); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"1": "1 true false", "2": "0 false true", "3": "", "4": "0 false true"} {
		if got, err := s.db.Get(queue, nil, []byte(id)); string(got) != want || (want == "") != errors.Is(err, kv.ErrNotFound) {
			t.Errorf("row %s of the queue: %q, %v; want %q", id, got, err, want)
		}
	}
	if view, err := inboxOf(t, s, "alice").View(context.Background()); err != nil || view.Len() != 1 {
		t.Errorf("%d messages, %v", view.Len(), err)
	}
}
