package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv"
	"postilion/store"
)

// harmedStore fills a store of several files: tables with many blocks, blob files, and a log.
func harmedStore(t *testing.T, fs vfs.FS) (messages map[string]bool) {
	t.Helper()
	s := open(t, fs, "db", Options{})
	messages = map[string]bool{}
	deliver := func(n int) {
		text := fmt.Sprintf("Delivered-To: u%d@example.com\r\nSubject: number %d\r\n\r\n%s\r\n", n%3, n, strings.Repeat(fmt.Sprintf("line %d\r\n", n), 20+n%400))
		d := &store.Delivery{ID: fmt.Sprintf("id%06d", n), Content: strings.NewReader(text), Targets: []store.Target{{Owner: store.Owner{User: fmt.Sprintf("u%d@example.com", n%3)}, Mailbox: store.Inbox}}}
		if outcomes, err := s.Deliver(t.Context(), d); err != nil || outcomes[0].Err != nil {
			t.Fatal(outcomes, err)
		}
		messages[text] = true
	}
	for n := range 1200 {
		deliver(n)
		if n%400 == 399 {
			if err := s.db.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What is deleted stays deleted.
	for text := range messages {
		if strings.Contains(text, "\r\nSubject: number 3\r\n") || strings.Contains(text, "\r\nSubject: number 6\r\n") {
			delete(messages, text)
		}
	}
	inbox := inboxOf(t, s, "u0@example.com")
	if _, err := inbox.Expunge(t.Context(), store.UIDSet{{First: 2, Last: 3}}, false); err != nil {
		t.Fatal(err)
	}
	_ = inbox.Close()
	for n := 1200; n < 1300; n++ {
		deliver(n)
	}
	// The power goes: the last hundred are in the log only.
	return messages
}

// flip changes octets of a file.
func flip(t *testing.T, fs vfs.FS, name string, at int64, n int) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, n)
	if _, err := f.ReadAt(piece, at); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for i := range piece {
		piece[i] ^= 0x55
	}
	_, err = f.WriteAt(piece, at)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func filesOf(t *testing.T, fs vfs.FS, suffix string) (names []string) {
	t.Helper()
	all, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if info, err := fs.Stat("db/" + name); err == nil && info.Size() > 0 && (strings.HasSuffix(name, suffix) || strings.HasPrefix(name, suffix)) {
			names = append(names, name)
		}
	}
	return names
}

// readEverything reads all mail of a store.
func readEverything(t *testing.T, fs vfs.FS, dir string, twice bool) map[string]bool {
	t.Helper()
	s := open(t, fs, dir, Options{})
	defer s.Close()
	var users []string
	if err := s.Accounts(t.Context(), func(user string) bool { users = append(users, user); return true }); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, user := range users {
		account, err := s.Open(t.Context(), store.Owner{User: user})
		if err != nil {
			t.Fatal(err)
		}
		listed, err := account.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range listed {
			if !l.Selectable {
				continue
			}
			mailbox, err := account.Mailbox(t.Context(), l.Name)
			if err != nil {
				t.Fatal(err)
			}
			v, err := mailbox.View(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range v.Len() {
				text := bodyText(t, mailbox, v.UID(i))
				if found[text] && !twice {
					t.Errorf("%s %s UID %d is there twice", user, l.Name, v.UID(i))
				}
				found[text] = true
			}
			_ = mailbox.Close()
		}
		_ = account.Close()
	}
	return found
}

// TestSalvage damages each kind of file and counts what is saved.
func TestSalvage(t *testing.T) {
	whole := vfs.NewCrashableMem()
	messages := harmedStore(t, whole)
	for _, test := range []struct {
		name, suffix string
		harm         func(t *testing.T, fs vfs.FS, names []string)
		// atLeast is how many of the 1,298 messages must be there afterwards, damaged whether the damage is seen.
		atLeast int
	}{
		{"nothing", ".sst", func(*testing.T, vfs.FS, []string) {}, 1298},
		{"block of every table", ".sst", func(t *testing.T, fs vfs.FS, names []string) {
			for _, name := range names {
				flip(t, fs, "db/"+name, 9000, 2)
			}
		}, 800},
		{"block of a blob file", ".blob", func(t *testing.T, fs vfs.FS, names []string) { flip(t, fs, "db/"+names[0], 3000, 1) }, 1200},
		{"footer of every blob file", ".blob", func(t *testing.T, fs vfs.FS, names []string) {
			for _, name := range names {
				info, _ := fs.Stat("db/" + name)
				flip(t, fs, "db/"+name, info.Size()-20, 4)
			}
		}, 1298},
		{"middle of every log", ".log", func(t *testing.T, fs vfs.FS, names []string) {
			for _, name := range names {
				info, _ := fs.Stat("db/" + name)
				flip(t, fs, "db/"+name, info.Size()/8, 1)
			}
		}, 1200},
		{"MANIFEST", "MANIFEST-", func(t *testing.T, fs vfs.FS, names []string) {
			for _, name := range names {
				flip(t, fs, "db/"+name, 8, 4)
			}
		}, 1298},
		{"no MANIFEST", "MANIFEST-", func(t *testing.T, fs vfs.FS, names []string) {
			for _, name := range names {
				if err := fs.Remove("db/" + name); err != nil {
					t.Fatal(err)
				}
			}
		}, 1298},
	} {
		t.Run(test.name, func(t *testing.T) {
			fs := whole.CrashClone(vfs.CrashCloneCfg{})
			test.harm(t, fs, filesOf(t, fs, test.suffix))
			var said []string
			checked, err := Salvage(t.Context(), "db", "saved", SalvageOptions{FS: fs, Damage: func(text string) { said = append(said, text) }, Problem: func(p Problem) { said = append(said, p.String()) }})
			if err != nil || checked.Problems != 0 {
				t.Fatalf("%+v, %v; %s", checked, err, strings.Join(said[:min(len(said), 20)], "\n"))
			}
			if silent := len(said) == 0; silent != (test.name == "nothing") {
				t.Errorf("said: %s", strings.Join(said, "\n"))
			}
			found := readEverything(t, fs, "saved", false)
			good := 0
			for text := range found {
				if messages[text] {
					good++
				}
			}
			t.Logf("%d of %d messages saved, %d others; %+v; %s", good, len(messages), len(found)-good, checked, strings.Join(said[:min(len(said), 4)], "\n"))
			if good < test.atLeast {
				t.Errorf("%d of %d messages saved; %s", good, len(messages), strings.Join(said[:min(len(said), 10)], "\n"))
			}
		})
	}
}

// TestSalvageAnything flips octets anywhere: salvage ends, with or without mail, and never invents any. With a damaged MANIFEST a message may come back that was moved or deleted.
func TestSalvageAnything(t *testing.T) {
	whole := vfs.NewCrashableMem()
	messages := harmedStore(t, whole)
	random := rand.New(rand.NewPCG(4, 4))
	for range 4 {
		fs := whole.CrashClone(vfs.CrashCloneCfg{})
		for _, suffix := range []string{".sst", ".blob", ".log", "MANIFEST-"} {
			for _, name := range filesOf(t, fs, suffix) {
				if info, err := fs.Stat("db/" + name); err == nil && random.IntN(2) == 0 {
					flip(t, fs, "db/"+name, random.Int64N(info.Size()), 1+random.IntN(40))
				}
			}
		}
		changed := 0
		_, err := Salvage(context.Background(), "db", "saved", SalvageOptions{FS: fs, Problem: func(p Problem) {
			if strings.Contains(p.Text, "not those that came in") || strings.Contains(p.Text, "octets instead of") {
				changed++
			}
		}})
		if err != nil {
			t.Errorf("salvage: %v", err)
			continue
		}
		for text := range readEverything(t, fs, "saved", true) {
			if !messages[text] && !strings.Contains(text, "\r\nSubject: number 3\r\n") && !strings.Contains(text, "\r\nSubject: number 6\r\n") {
				if changed--; changed < 0 {
					t.Errorf("a message that was never there, and that nothing was said of: %.80q", text)
				}
			}
		}
	}
}

// TestDamagedDatabaseSaysSo: what cannot be opened says what it is.
func TestDamagedDatabaseSaysSo(t *testing.T) {
	whole := vfs.NewCrashableMem()
	harmedStore(t, whole)
	fs := whole.CrashClone(vfs.CrashCloneCfg{})
	for _, name := range filesOf(t, fs, "MANIFEST-") {
		flip(t, fs, "db/"+name, 8, 4)
	}
	if _, err := kv.Open("db", kv.Options{FS: fs}); !errors.Is(err, kv.ErrDamaged) {
		t.Errorf("opened: %v", err)
	}
}

// TestCheckSeesDamage: a damaged block shows in what Check says of the messages.
func TestCheckSeesDamage(t *testing.T) {
	whole := vfs.NewCrashableMem()
	messages := harmedStore(t, whole)
	fs := whole.CrashClone(vfs.CrashCloneCfg{})
	flip(t, fs, "db/"+filesOf(t, fs, ".blob")[0], 3000, 1)
	s := open(t, fs, "db", Options{})
	defer s.Close()
	var said bytes.Buffer
	checked, err := s.Check(t.Context(), CheckOptions{Problem: func(p Problem) { fmt.Fprintln(&said, p) }})
	if err != nil || checked.Lost == 0 || checked.Lost > 100 || int(checked.Messages) != len(messages) || !strings.Contains(said.String(), `@example.com, mailbox "INBOX", UID`) {
		t.Errorf("%+v, %v: %s", checked, err, said.String())
	}
	repaired, err := s.Check(t.Context(), CheckOptions{Repair: true})
	if err != nil || repaired.Lost != checked.Lost || repaired.Messages != checked.Messages {
		t.Errorf("repair: %+v, %v", repaired, err)
	}
}
