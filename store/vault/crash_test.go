package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/store"
)

// crashClone is what a disk may hold after the power went at this moment: all that was synced and some of the rest.
func crashClone(fs *vfs.MemFS, random *rand.Rand) *vfs.MemFS {
	config := vfs.CrashCloneCfg{}
	if random.IntN(2) == 0 {
		config = vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random}
	}
	return fs.CrashClone(config)
}

// consistent fails the test when the rows of the store do not fit together.
func consistent(t *testing.T, s *Store) {
	t.Helper()
	checked, err := s.Check(context.Background(), CheckOptions{Problem: func(p Problem) { t.Error(p) }})
	if err != nil || checked.Problems > 0 {
		t.Fatalf("check: %+v, %v", checked, err)
	}
}

// dump writes down all that readers can see of an account, mod-sequences included.
func dump(t *testing.T, s store.Store, user string) string {
	t.Helper()
	ctx := context.Background()
	account, err := s.Open(ctx, store.Owner{User: user})
	if err != nil {
		t.Fatal(err)
	}
	defer account.Close()
	var out strings.Builder
	subscribed, err := account.Subscriptions(ctx)
	usage, usageErr := account.QuotaUsage(ctx)
	listed, listErr := account.List(ctx)
	if err = errors.Join(err, usageErr, listErr); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&out, user, subscribed, usage.Bytes, usage.Messages)
	slices.SortFunc(listed, func(a, b store.Listed) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range listed {
		fmt.Fprintf(&out, "%+v\n", l)
		if l.Selectable {
			dumpMailbox(t, &out, account, l.Name)
		}
	}
	return out.String()
}

func dumpMailbox(t *testing.T, out io.Writer, account store.Account, name string) {
	t.Helper()
	ctx := context.Background()
	mailbox, err := account.Mailbox(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	defer mailbox.Close()
	view, err := mailbox.View(ctx)
	status, statusErr := account.Status(ctx, name)
	if err = errors.Join(err, statusErr); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(out, "  %+v recent from %d expunged %v\n", status, view.FirstRecent(), view.ExpungedSince(0))
	for i := range view.Len() {
		e := view.Entry(i)
		fmt.Fprintf(out, "  %d %d %v %s %d %s %q\n", e.UID, e.ModSeq, e.Flags, namesFor(view, e), e.Size, e.EmailID, readAll(t, mailbox, e.UID))
	}
}

func namesFor(view store.View, e store.Entry) string {
	var names []string
	for _, number := range e.Keywords {
		names = append(names, view.Keywords()[number])
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

func readAll(t *testing.T, mailbox store.Mailbox, uid store.UID) []byte {
	t.Helper()
	body, err := mailbox.Open(context.Background(), uid)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	content, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if len(content) > 5000 {
		content = fmt.Appendf(nil, "%d octets, %x", len(content), crc32.ChecksumIEEE(content))
	}
	return content
}

var crashUsers = []string{"alice", "bob"}

// randomOperation does one change and returns its error; what it does depends on random alone.
func randomOperation(s store.Store, random *rand.Rand, number int) error {
	ctx := context.Background()
	account, err := s.Open(ctx, store.Owner{User: crashUsers[random.IntN(2)]})
	if err != nil {
		return err
	}
	defer account.Close()
	names := []string{store.Inbox, store.Inbox, "a", "new/one"}
	name, other := names[random.IntN(4)], names[random.IntN(4)]
	switch random.IntN(14) {
	case 0:
		return account.Create(ctx, name, "")
	case 1:
		if random.IntN(3) > 0 {
			return nil
		}
		return account.Delete(ctx, name)
	case 2:
		return account.Rename(ctx, name, other)
	case 3:
		return account.Subscribe(ctx, name, random.IntN(2) == 0)
	case 4, 5, 6:
		return randomDelivery(s, random, number)
	}
	mailbox, err := account.Mailbox(ctx, name)
	if err != nil {
		return err
	}
	defer mailbox.Close()
	target, err := account.Mailbox(ctx, other)
	if err != nil {
		return err
	}
	defer target.Close()
	return randomMessageOperation(mailbox, target, random, number)
}

func randomContent(random *rand.Rand, number int) []byte {
	size := random.IntN(3000)
	switch random.IntN(10) {
	case 0:
		size = chunkSize + random.IntN(3*chunkSize)
	case 1:
		size = 0
	}
	return append(fmt.Appendf(nil, "Subject: %d\r\n\r\n", number), bytes.Repeat([]byte{byte('a' + number%26)}, size)...)
}

func randomDelivery(s store.Store, random *rand.Rand, number int) error {
	d := &store.Delivery{ID: fmt.Sprintf("id%d", number-random.IntN(2)), Content: bytes.NewReader(randomContent(random, number)), AllOrNothing: random.IntN(2) == 0}
	for range 1 + random.IntN(3) {
		d.Targets = append(d.Targets, store.Target{
			Owner: store.Owner{User: crashUsers[random.IntN(2)]}, Mailbox: []string{store.Inbox, "a", "new/one"}[random.IntN(3)],
			Create: random.IntN(2) == 0, SubscribeCreated: true, Prefix: fmt.Appendf(nil, "X-Number: %d\r\n", number), Keywords: []string{"k1"},
		})
	}
	outcomes, err := s.Deliver(context.Background(), d)
	for _, outcome := range outcomes {
		err = errors.Join(err, outcome.Err)
	}
	return err
}

func randomMessageOperation(mailbox, target store.Mailbox, random *rand.Rand, number int) error {
	ctx := context.Background()
	first := store.UID(1 + random.IntN(20))
	uids := store.UIDSetRange(first, first+store.UID(random.IntN(6)))
	var err error
	switch random.IntN(7) {
	case 0, 1:
		drafts := make([]store.Draft, 1+random.IntN(3))
		for i := range drafts {
			drafts[i] = store.Draft{Content: bytes.NewReader(randomContent(random, number)), Flags: store.Flags(random.IntN(32)), InternalDate: time.Unix(int64(number), 0)}
		}
		_, err = mailbox.Append(ctx, drafts)
	case 2:
		_, err = mailbox.Copy(ctx, uids, target)
	case 3:
		_, err = mailbox.Move(ctx, uids, target)
	case 4:
		_, err = mailbox.SetFlags(ctx, uids, store.FlagChange{
			Operation: store.FlagOperation(random.IntN(3)), Flags: store.Flags(random.IntN(32)), Keywords: []string{"k1", "k2", "k3"}[:random.IntN(4)],
		})
	case 5:
		_, err = mailbox.Expunge(ctx, uids, random.IntN(2) == 0)
	case 6:
		_, err = mailbox.TakeRecent(ctx)
	}
	return err
}

// expected tells whether an operation may answer so.
func expected(err error) bool {
	for _, kind := range []error{store.ErrNotFound, store.ErrExists, store.ErrName, store.ErrNotDelivered} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return err == nil
}

func crashOptions(clock *atomic.Int64) Options {
	return Options{Now: func() time.Time { return time.Unix(clock.Load(), 0) }, ExpungesKept: 4}
}

// TestCrashes does random changes and cuts the power in the middle of some: what is found then is what was before the change or after it,
// and after it when it was acknowledged.
func TestCrashes(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for seed := range rounds {
		random := rand.New(rand.NewPCG(uint64(seed), 4))
		var clock atomic.Int64
		clock.Store(1700000000)
		fs := vfs.NewCrashableMem()
		s := open(t, fs, "db", crashOptions(&clock))
		state := func(s store.Store) string { return dump(t, s, "alice") + dump(t, s, "bob") }
		before := state(s)
		for number := 1; number <= 100; number++ {
			clock.Add(1)
			if random.IntN(6) > 0 {
				if err := randomOperation(s, random, number); !expected(err) {
					t.Fatalf("seed %d, operation %d: %v", seed, number, err)
				}
				before = state(s)
				continue
			}
			result := make(chan error, 1)
			var acknowledged atomic.Bool
			operation := rand.New(rand.NewPCG(random.Uint64(), 5))
			go func() {
				err := randomOperation(s, operation, number)
				acknowledged.Store(true)
				result <- err
			}()
			time.Sleep(time.Duration(random.IntN(400)) * time.Microsecond)
			must := acknowledged.Load()
			after := crashClone(fs, random)
			if err := <-result; !expected(err) {
				t.Fatalf("seed %d, operation %d: %v", seed, number, err)
			}
			done := state(s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			fs = after
			s = open(t, fs, "db", crashOptions(&clock))
			found := state(s)
			if found != done && (must || found != before) {
				t.Fatalf("seed %d, operation %d, acknowledged %v: found\n%s\nbefore\n%s\nafter\n%s", seed, number, must, found, before, done)
			}
			consistent(t, s.Store)
			before = found
		}
		consistent(t, s.Store)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCrashUnderLoad cuts the power while many deliver to several mailboxes each, offers everything again and wants each message once in each.
func TestCrashUnderLoad(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 4
	}
	for seed := range rounds {
		random := rand.New(rand.NewPCG(uint64(seed), 6))
		fs := vfs.NewCrashableMem()
		s := open(t, fs, "db", Options{})
		const workers, each = 12, 10
		var acknowledged [workers * each]atomic.Bool
		deliver := func(s store.Store, n int) error {
			d := &store.Delivery{ID: fmt.Sprintf("id%04d", n), Content: bytes.NewReader(fmt.Appendf(nil, "Subject: %d\r\n\r\n", n))}
			for i := range 3 {
				d.Targets = append(d.Targets, store.Target{Owner: store.Owner{User: fmt.Sprint("user", (n+i)%4)}, Mailbox: store.Inbox})
			}
			outcomes, err := s.Deliver(context.Background(), d)
			for _, outcome := range outcomes {
				err = errors.Join(err, outcome.Err)
			}
			return err
		}
		var group sync.WaitGroup
		for worker := range workers {
			group.Go(func() {
				for i := range each {
					if err := deliver(s, worker*each+i); err != nil {
						t.Error(err)
					}
					acknowledged[worker*each+i].Store(true)
				}
			})
		}
		time.Sleep(time.Duration(random.IntN(6000)) * time.Microsecond)
		var must []int
		for n := range acknowledged {
			if acknowledged[n].Load() {
				must = append(must, n)
			}
		}
		after := crashClone(fs, random)
		group.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, after, "db", Options{})
		consistent(t, s.Store)
		copies := countCopies(t, s)
		for _, n := range must {
			if copies[n] != 3 {
				t.Errorf("seed %d: delivery %d was acknowledged and is there %d times", seed, n, copies[n])
			}
		}
		for n, count := range copies {
			if count != 3 {
				t.Errorf("seed %d: delivery %d is in %d of 3 mailboxes", seed, n, count)
			}
		}
		for n := range workers * each {
			if err := deliver(s, n); err != nil {
				t.Fatal(err)
			}
		}
		copies = countCopies(t, s)
		for n := range workers * each {
			if copies[n] != 3 {
				t.Errorf("seed %d: offered again, delivery %d is there %d times", seed, n, copies[n])
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// countCopies tells in how many mailboxes each delivery is.
func countCopies(t *testing.T, s store.Store) map[int]int {
	t.Helper()
	copies := map[int]int{}
	for i := range 4 {
		account, err := s.Open(context.Background(), store.Owner{User: fmt.Sprint("user", i)})
		if err != nil {
			t.Fatal(err)
		}
		inbox, err := account.Mailbox(context.Background(), store.Inbox)
		if err != nil {
			t.Fatal(err)
		}
		view, err := inbox.View(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for i := range view.Len() {
			if view.UID(i) != store.UID(i+1) {
				t.Errorf("UID %d at %d: a gap", view.UID(i), i)
			}
			var n int
			if _, err := fmt.Sscanf(string(readAll(t, inbox, view.UID(i))), "Subject: %d", &n); err != nil {
				t.Fatal(err)
			}
			copies[n]++
		}
		_ = inbox.Close()
		_ = account.Close()
	}
	return copies
}
