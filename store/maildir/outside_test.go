package maildir

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postilion/store"
)

func testContext() context.Context { return context.Background() }

func put(t *testing.T, path, content string, at int64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(at, 0), time.Unix(at, 0)); err != nil {
		t.Fatal(err)
	}
}

// TestFound reads a Maildir without any control file, as another program left it.
func TestFound(t *testing.T) {
	home := t.TempDir()
	mail := filepath.Join(home, "Maildir")
	put(t, filepath.Join(mail, "new/1700000000.1.h"), "Subject: a\n\nx\n", 1700000000)
	put(t, filepath.Join(mail, "cur/1700000001.2.h:2,SFab"), "Subject: b\r\n\r\nx\r\n", 1700000001)
	put(t, filepath.Join(mail, "cur/1700000002.3.h:2,PS,xx"), "Subject: c\n\nx\n", 1700000002)
	put(t, filepath.Join(mail, "cur/1600000002.4.h"), "Subject: d\n\nx\n", 1600000002)
	put(t, filepath.Join(mail, "cur/.hidden"), "x", 1)
	put(t, filepath.Join(mail, ".Work.y/cur/1.x:2,"), "Subject: e\n\n", 5)
	put(t, filepath.Join(mail, ".Work.y/dovecot-uidlist"), "1 1600000001 42\n", 5)
	put(t, filepath.Join(mail, "subscriptions"), "Work.y\nGhost\n", 5)
	_, account := openHome(t, home)
	want := []string{"1 [] 1600000002 17", "2 [] 1700000000 17", `3 [\Flagged \Seen unknown-0 unknown-1] 1700000001 17`, `4 [\Seen] 1700000002 17`}
	got := ourState(t, account, store.Inbox)
	if !slices.Equal(got[:4], want) || !strings.HasSuffix(got[4], " next 5") {
		t.Errorf("INBOX %q, want %q", got, want)
	}
	status, err := account.Status(t.Context(), store.Inbox)
	if err != nil || status.Recent != 4 {
		t.Errorf("%+v, %v", status, err)
	}
	if got := ourState(t, account, "Work/y"); !slices.Equal(got, []string{"42 [] 5 14", "validity 1600000001 next 43"}) {
		t.Errorf("Work/y %q", got)
	}
	names, err := account.Subscriptions(t.Context())
	if err != nil || !slices.Equal(names, []string{"Work/y", "Ghost"}) {
		t.Errorf("subscriptions %q, %v", names, err)
	}
	if err := account.Subscribe(t.Context(), store.Inbox, true); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(mail, "subscriptions"))
	if err != nil || string(text) != "Work.y\nGhost\nINBOX\n" {
		t.Errorf("subscriptions file %q, %v", text, err)
	}
	inbox, err := account.Mailbox(t.Context(), store.Inbox)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inbox.SetFlags(t.Context(), store.UIDSetOf(4), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagAnswered}); err != nil {
		t.Fatal(err)
	}
	if _, err := inbox.TakeRecent(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(mail, "[cn]*", "1*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		files[i], _ = filepath.Rel(mail, file)
	}
	if want := []string{"cur/1600000002.4.h", "cur/1700000000.1.h:2,", "cur/1700000001.2.h:2,SFab", "cur/1700000002.3.h:2,PRS,xx"}; !slices.Equal(files, want) {
		t.Errorf("files %q, want %q", files, want)
	}
}

// TestChangedOutside has another program add, flag, move away and damage files while a session looks on.
func TestChangedOutside(t *testing.T) {
	home := t.TempDir()
	mail := filepath.Join(home, "Maildir")
	s, err := Open(Options{PollInterval: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	account, err := s.Open(t.Context(), store.Owner{User: "alice", Home: home, Location: "~/Maildir", UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	inbox, err := account.Mailbox(t.Context(), store.Inbox)
	if err != nil {
		t.Fatal(err)
	}
	var told atomic.Int64
	defer inbox.Subscribe(func() { told.Add(1) })()
	step := func(what string, change func() error, want ...string) {
		t.Helper()
		before := told.Load()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); told.Load() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: nobody was told", what)
			}
		}
		got := ourState(t, account, store.Inbox)
		if !slices.Equal(got[:len(got)-1], want) {
			t.Fatalf("%s: %q, want %q", what, got, want)
		}
	}
	step("a new file", func() error { put(t, filepath.Join(mail, "new/1.a"), "Subject: a\n\n", 7); return nil }, "1 [] 7 14")
	step("flags", func() error { return os.Rename(filepath.Join(mail, "new/1.a"), filepath.Join(mail, "cur/1.a:2,FS")) }, `1 [\Flagged \Seen] 7 14`)
	step("keyword letters", func() error {
		put(t, filepath.Join(mail, keywordsName), "0 Work\n2 Late\n", 9)
		return os.Rename(filepath.Join(mail, "cur/1.a:2,FS"), filepath.Join(mail, "cur/1.a:2,ac"))
	}, `1 [Late Work] 7 14`)
	step("a second file", func() error { put(t, filepath.Join(mail, "cur/2.b:2,S"), "x", 8); return nil }, `1 [Late Work] 7 14`, `2 [\Seen] 8 1`)
	step("a file is removed", func() error { return os.Remove(filepath.Join(mail, "cur/1.a:2,ac")) }, `2 [\Seen] 8 1`)
	step("it comes back as new", func() error { put(t, filepath.Join(mail, "cur/1.a:2,ac"), "x", 9); return nil }, `2 [\Seen] 8 1`, `3 [Late Work] 9 1`)
	if err := os.Remove(filepath.Join(mail, uidListName)); err != nil {
		t.Fatal(err)
	}
	step("list and journal are lost and a file comes", func() error {
		put(t, filepath.Join(mail, "new/4.d"), "x", 9)
		return os.Remove(filepath.Join(mail, journalName))
	}, `2 [\Seen] 8 1`, `3 [Late Work] 9 1`, "4 [] 9 1")
	if _, again := openHome(t, home); true {
		if got, want := ourState(t, again, store.Inbox), ourState(t, account, store.Inbox); !slices.Equal(got, want) {
			t.Errorf("opened again %q, want %q", got, want)
		}
	}
	if err := os.RemoveAll(filepath.Join(mail, "cur")); err != nil {
		t.Fatal(err)
	}
	if _, err := inbox.View(t.Context()); err == nil {
		t.Errorf("a mailbox without cur is shown")
	}
}

// TestDamaged opens mailboxes whose control files are damaged: the mail is there all the same.
func TestDamaged(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"UID list":      {uidListName: "garbage\x00\n"},
		"empty list":    {uidListName: ""},
		"keywords":      {keywordsName: strings.Repeat("\x00", 5000)},
		"journal":       {journalName: "00000000 m 1\n"},
		"subscriptions": {subscriptionsName: "\xff\xfe\n\n\t\n"},
		"validity":      {validityName: "zz"},
	} {
		home := t.TempDir()
		put(t, filepath.Join(home, "Maildir/cur/1.a:2,S"), "Subject: a\n\n", 7)
		for file, content := range files {
			put(t, filepath.Join(home, "Maildir", file), content, 7)
		}
		_, account := openHome(t, home)
		if got := ourState(t, account, store.Inbox); got[0] != `1 [\Seen] 7 14` {
			t.Errorf("%s: %q", name, got)
		}
		if _, err := account.Subscriptions(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	home := t.TempDir()
	s, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	owner := store.Owner{User: "alice", Home: home, Location: "~/Maildir", UID: 20000, GID: 20001}
	account, err := s.Open(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	site := &crashSite{t: t}
	if err := account.Create(t.Context(), "a/b", `\Sent`); err != nil {
		t.Fatal(err)
	}
	d := site.delivery("x", store.Inbox, "a/b")
	for i := range d.Targets {
		d.Targets[i].Owner, d.Targets[i].Keywords = owner, []string{"kw"}
	}
	if _, err := s.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := account.Subscribe(t.Context(), "a/b", true); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = filepath.WalkDir(filepath.Join(home, "Maildir"), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		n++
		if system := info.Sys().(*syscall.Stat_t); system.Uid != 20000 || system.Gid != 20001 {
			t.Errorf("%s belongs to %d:%d", path, system.Uid, system.Gid)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || n < 18 {
		t.Errorf("%d files, %v", n, err)
	}
	paths, err := filepath.Glob(filepath.Join(home, "Maildir", "cur", "*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%q, %v", paths, err)
	}
	if info, err := os.Stat(paths[0]); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("the two targets are not one file")
	}
}

// TestWrongSize reads a message whose name tells wrong sizes.
func TestWrongSize(t *testing.T) {
	home := t.TempDir()
	put(t, filepath.Join(home, "Maildir/cur/1.a,S=11,W=14:2,S"), "Subject: s\n\nxy\n", 7)
	_, account := openHome(t, home)
	if got := ourState(t, account, store.Inbox); got[0] != `1 [\Seen] 7 14` {
		t.Errorf("before reading: %q", got)
	}
	inbox, err := account.Mailbox(t.Context(), store.Inbox)
	if err != nil {
		t.Fatal(err)
	}
	b, err := inbox.Open(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if b.Size() != 18 || b.Close() != nil {
		t.Errorf("size of the body: %d", b.Size())
	}
	_, again := openHome(t, home)
	for _, a := range []store.Account{account, again} {
		if got := ourState(t, a, store.Inbox); got[0] != `1 [\Seen] 7 18` {
			t.Errorf("after reading: %q", got)
		}
	}
}
