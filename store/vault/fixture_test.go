package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv"
	"postilion/store"
)

// fixtureNow is the clock of whoever makes a fixture.
func fixtureNow() time.Time { return time.Unix(1760000000, 0) }

func fixtureMail(n int) string {
	return fmt.Sprintf("From: a%d@example.com\r\nTo: alice@example.com\r\nSubject: number %d\r\nDate: Thu, 09 Oct 2025 08:53:20 +0000\r\n\r\n%s\r\n", n, n, strings.Repeat(fmt.Sprintf("line %d\r\n", n), 10+n))
}

// fixtureLarge is a body of several rows.
func fixtureLarge() string {
	return "Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 600<<10/72)
}

// fillFixture puts one of everything that has rows into a new store.
func fillFixture(t testing.TB, s *Store) {
	t.Helper()
	ctx := context.Background()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 20 {
		d := &store.Delivery{ID: fmt.Sprintf("fixture-%d", n), Content: strings.NewReader(fixtureMail(n)), InternalDate: fixtureNow().Add(time.Duration(n) * time.Minute)}
		d.Targets = append(d.Targets, store.Target{Owner: store.Owner{User: "alice@example.com"}, Mailbox: store.Inbox, Prefix: []byte("Delivered-To: alice@example.com\r\n")})
		if n%3 == 0 {
			d.Targets = append(d.Targets, store.Target{Owner: store.Owner{User: "bob@example.com"}, Mailbox: "Lists/Users", Create: true, SubscribeCreated: true, Prefix: []byte("Delivered-To: bob@example.com\r\n"), Flags: store.FlagFlagged})
		}
		outcomes, err := s.Deliver(ctx, d)
		for _, o := range outcomes {
			err = errors.Join(err, o.Err)
		}
		check(err)
	}
	alice, err := s.Open(ctx, store.Owner{User: "alice@example.com"})
	check(err)
	defer alice.Close()
	check(alice.Create(ctx, "Sent", `\Sent`))
	inbox, err := alice.Mailbox(ctx, store.Inbox)
	check(err)
	defer inbox.Close()
	sent, err := alice.Mailbox(ctx, "Sent")
	check(err)
	defer sent.Close()
	_, err = sent.Append(ctx, []store.Draft{{Content: strings.NewReader(fixtureLarge()), Flags: store.FlagSeen, InternalDate: fixtureNow().In(time.FixedZone("", 2*3600))}})
	check(err)
	_, err = inbox.SetFlags(ctx, store.UIDSet{{First: 2, Last: 5}}, store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen, Keywords: []string{"$Forwarded", "work"}})
	check(err)
	_, err = inbox.Copy(ctx, store.UIDSet{{First: 3, Last: 6}}, sent)
	check(err)
	_, err = inbox.Expunge(ctx, store.UIDSet{{First: 10, Last: 12}}, false)
	check(err)
	_, err = inbox.TakeRecent(ctx)
	check(err)
	check(alice.Subscribe(ctx, "Sent", true))
}

// TestMakeFixture writes a database of the present format to a new directory, testdata/vault-N for a new format N:
// POSTILION_FIXTURE=testdata/vault-N go test -run TestMakeFixture ./store/vault
func TestMakeFixture(t *testing.T) {
	dir := os.Getenv("POSTILION_FIXTURE")
	if dir == "" {
		t.Skip("POSTILION_FIXTURE names no directory to write a database of the present format to")
	}
	db, err := kv.Open(dir, kv.Options{Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(db, Options{Now: fixtureNow})
	if err != nil {
		t.Fatal(err)
	}
	fillFixture(t, s)
	err = errors.Join(s.Close(), db.Compact(context.Background()), db.Close())
	// Opened once more, it lets the logs go that are in the tables now.
	if again, openErr := kv.Open(dir, kv.Options{Ballast: -1}); openErr == nil {
		err = errors.Join(err, again.Close())
	}
	for _, name := range []string{"LOCK", "LOCK.postilion", "OWNER"} {
		_ = os.Remove(filepath.Join(dir, name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// loadFixture copies a database of testdata into a file system.
func loadFixture(t testing.TB, fs vfs.FS, name, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join("testdata", name, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		f, err := fs.Create(fs.PathJoin(dir, entry.Name()), vfs.WriteCategoryUnspecified)
		if err == nil {
			_, err = f.Write(data)
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, synced := range []string{dir, fs.PathDir(dir)} {
		d, err := fs.OpenDir(synced)
		if err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// wantFixture compares a store with what fillFixture put there.
func wantFixture(t testing.TB, s *Store) {
	t.Helper()
	ctx := context.Background()
	inbox := inboxOf(t, s, "alice@example.com")
	defer inbox.Close()
	v, err := inbox.View(ctx)
	if err != nil || v.Len() != 17 || v.UIDNext() != 21 || v.FirstRecent() != 21 {
		t.Fatalf("INBOX: %v", err)
	}
	for i := range v.Len() {
		e := v.Entry(i)
		want := "Delivered-To: alice@example.com\r\n" + fixtureMail(int(e.UID)-1)
		if got := bodyText(t, inbox, e.UID); got != want {
			t.Errorf("UID %d reads %q", e.UID, got)
		}
		if m, err := inbox.Structure(ctx, e.UID); err != nil || m.Size != int64(len(want)) {
			t.Errorf("structure of UID %d: %v", e.UID, err)
		}
		if marked := e.UID >= 2 && e.UID <= 5; marked != (e.Flags == store.FlagSeen) || marked != (len(e.Keywords) == 2) {
			t.Errorf("UID %d has flags %v and keywords %v", e.UID, e.Flags, e.Keywords)
		}
	}
	sent := mailboxOf(t, s, "alice@example.com", "Sent")
	defer sent.Close()
	if got := bodyText(t, sent, 1); got != fixtureLarge() {
		t.Errorf("the large message has %d octets", len(got))
	}
	lists := mailboxOf(t, s, "bob@example.com", "Lists/Users")
	defer lists.Close()
	if got := bodyText(t, lists, 2); got != "Delivered-To: bob@example.com\r\n"+fixtureMail(3) {
		t.Errorf("Lists/Users, UID 2 reads %q", got)
	}
	// A delivery of then is a repeat now, as far as its time has not passed.
	d := &store.Delivery{ID: "fixture-0", Content: strings.NewReader("x"), Targets: []store.Target{{Owner: store.Owner{User: "alice@example.com"}, Mailbox: store.Inbox}}}
	if outcomes, err := s.Deliver(ctx, d); err != nil || !outcomes[0].Duplicate {
		t.Errorf("delivery id of the fixture: %+v, %v", outcomes, err)
	}
	done, err := s.Check(ctx, CheckOptions{Problem: func(p Problem) { t.Error(p) }})
	if err != nil || done.Messages != 29 || done.Problems != 0 {
		t.Errorf("check: %+v, %v", done, err)
	}
}

func bodyText(t testing.TB, mailbox store.Mailbox, uid store.UID) string {
	t.Helper()
	body, err := mailbox.Open(context.Background(), uid)
	if err != nil {
		t.Fatalf("UID %d: %v", uid, err)
	}
	defer body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.NewSectionReader(body, 0, body.Size())); err != nil {
		t.Fatalf("UID %d: %v", uid, err)
	}
	return b.String()
}

// TestFixturesOpen opens the databases that earlier formats left and finds everything in them.
func TestFixturesOpen(t *testing.T) {
	names, err := filepath.Glob("testdata/vault-*")
	if err != nil || len(names) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			fs := vfs.NewMem()
			loadFixture(t, fs, filepath.Base(name), "db")
			s := open(t, fs, "db", Options{Now: fixtureNow})
			wantFixture(t, s.Store)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
