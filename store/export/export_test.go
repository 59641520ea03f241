package export

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv"
	"postilion/store"
	"postilion/store/maildir"
	"postilion/store/vault"
)

const owner = "alice@example.com"

func newVault(t *testing.T) *vault.Store {
	t.Helper()
	db, err := kv.Open("db", kv.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := vault.Open(db, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(s.Close(), db.Close()) })
	return s
}

func mail(n int) string {
	return fmt.Sprintf("Return-Path: <bob@example.com>\r\nSubject: number %d\r\nStatus: O\r\n\r\nFrom the beginning,\r\nline %d\r\n", n, n)
}

// filled is a vault with an account of two mailboxes.
func filled(t *testing.T) *vault.Store {
	t.Helper()
	s := newVault(t)
	account, err := s.Open(t.Context(), store.Owner{User: owner})
	if err != nil {
		t.Fatal(err)
	}
	defer account.Close()
	for _, name := range []string{"Lists/Gärten", "A.B"} {
		if err := errors.Join(account.Create(t.Context(), name, ""), account.Subscribe(t.Context(), name, true)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{store.Inbox, "Lists/Gärten"} {
		mailbox, err := account.Mailbox(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 6; n++ {
			draft := store.Draft{Content: strings.NewReader(mail(n)), InternalDate: time.Unix(1700000000+int64(n)*3600, 0)}
			if n%2 == 0 {
				draft.Flags, draft.Keywords = store.FlagSeen|store.FlagFlagged, []string{"$Forwarded", "work"}
			}
			if n == 5 {
				draft.Flags = store.FlagAnswered | store.FlagDeleted | store.FlagDraft
			}
			if _, err := mailbox.Append(t.Context(), []store.Draft{draft}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := mailbox.Expunge(t.Context(), store.UIDSet{{First: 3, Last: 3}}, false); err != nil {
			t.Fatal(err)
		}
		_ = mailbox.Close()
	}
	return s
}

// contents lists what a mailbox shows, UID by UID.
func contents(t *testing.T, account store.Account, name string) string {
	t.Helper()
	mailbox, err := account.Mailbox(t.Context(), name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer mailbox.Close()
	v, err := mailbox.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "validity %d next %d\n", v.UIDValidity(), v.UIDNext())
	for i := range v.Len() {
		e := v.Entry(i)
		var keywords []string
		for _, k := range e.Keywords {
			keywords = append(keywords, v.Keywords()[k])
		}
		body, err := mailbox.Open(t.Context(), e.UID)
		if err != nil {
			t.Fatal(err)
		}
		data, err := text(body)
		if err = errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%d %d %v %d %q\n", e.UID, e.Flags, keywords, e.InternalDate.Unix(), data)
	}
	return out.String()
}

// TestMaildirComesBack exports to Maildir and reads it as the Maildir store does.
func TestMaildirComesBack(t *testing.T) {
	s := filled(t)
	dir := filepath.Join(t.TempDir(), "out")
	var said []string
	counts, err := Export(t.Context(), s, Options{Format: Maildir, Dir: dir, Problem: func(text string) { said = append(said, text) }})
	if err != nil || counts.Messages != 10 || counts.Mailboxes != 3 || len(said) != 1 || !strings.Contains(said[0], `"A.B" is written as ".A_B"`) {
		t.Fatalf("%+v, %v, %q", counts, err, said)
	}
	m, err := maildir.Open(maildir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	from, err := s.Open(t.Context(), store.Owner{User: owner})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := m.Open(t.Context(), store.Owner{User: owner, Location: filepath.Join(dir, owner), UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	for _, name := range []string{store.Inbox, "Lists/Gärten"} {
		if want, got := contents(t, from, name), contents(t, to, name); got != want {
			t.Errorf("%s shows\n%swant\n%s", name, got, want)
		}
	}
	if names, err := to.Subscriptions(t.Context()); err != nil || !strings.Contains(strings.Join(names, " "), "Lists/Gärten") {
		t.Errorf("subscriptions: %q, %v", names, err)
	}
	if _, err := Export(t.Context(), s, Options{Format: Maildir, Dir: dir}); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another export: %v", err)
	}
	if _, err := Export(t.Context(), s, Options{Format: Maildir, Dir: dir, Account: "nobody"}); err == nil {
		t.Error("exported an account that is not there")
	}
}

func TestMbox(t *testing.T) {
	s := filled(t)
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := Export(t.Context(), s, Options{Format: Mbox, Dir: dir, Account: owner, Mailbox: store.Inbox}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, owner, "inbox"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(got), "From bob@example.com ")
	if len(parts) != 6 {
		t.Fatalf("%d messages: %s", len(parts)-1, got)
	}
	want := "Tue Nov 14 23:13:20 2023\nReturn-Path: <bob@example.com>\nSubject: number 1\nX-IMAPbase: "
	if !strings.HasPrefix(parts[1], want) || !strings.Contains(parts[1], " 0000000006 $Forwarded work\nX-UID: 1\nStatus: O\n\n>From the beginning,\n") {
		t.Errorf("the first: %q", parts[1])
	}
	if !strings.Contains(parts[2], "X-UID: 2\nStatus: RO\nX-Status: F\nX-Keywords: $Forwarded work\n\n") {
		t.Errorf("the second: %q", parts[2])
	}
	if !strings.Contains(parts[4], "X-UID: 5\nStatus: O\nX-Status: ATD\n\n") {
		t.Errorf("the fifth: %q", parts[4])
	}
}

func TestCopy(t *testing.T) {
	from, to := filled(t), filled(t)
	counts, err := Copy(t.Context(), from, to, CopyOptions{Account: owner, Into: "Back"})
	if err != nil || counts.Messages != 10 || counts.Mailboxes != 3 {
		t.Fatalf("%+v, %v", counts, err)
	}
	a, err := from.Open(t.Context(), store.Owner{User: owner})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := to.Open(t.Context(), store.Owner{User: owner})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	strip := func(text string) (out []string) {
		for _, line := range strings.Split(text, "\n")[1:] {
			_, rest, _ := strings.Cut(line, " ")
			out = append(out, rest)
		}
		return out
	}
	if want, got := strip(contents(t, a, store.Inbox)), strip(contents(t, b, "Back/INBOX")); strings.Join(want, "\n") != strings.Join(got, "\n") {
		t.Errorf("restored %q, want %q", got, want)
	}
	if _, err := Copy(t.Context(), from, to, CopyOptions{Account: owner, Into: "Back", Mailbox: store.Inbox}); !errors.Is(err, store.ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if _, err := Copy(t.Context(), from, to, CopyOptions{Account: owner, Into: "Back", Mailbox: "none"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such mailbox: %v", err)
	}
}

// TestDovecotOpensIt has the real Dovecot show what was exported, for both formats.
func TestDovecotOpensIt(t *testing.T) {
	doveadm, err := exec.LookPath("doveadm")
	if err != nil {
		t.Skip("doveadm is not installed")
	}
	s := filled(t)
	me, err := user.Current()
	if err == nil && me.Uid == "0" {
		// Dovecot gives root no mail.
		me, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Skip(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	for format, location := range map[string]string{Maildir: "maildir:%s", Mbox: "mbox:%s:INBOX=%[1]s/inbox"} {
		t.Run(format, func(t *testing.T) {
			work, err := os.MkdirTemp("", "x")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(work) })
			if _, err := Export(t.Context(), s, Options{Format: format, Dir: work + "/out"}); err != nil {
				t.Fatal(err)
			}
			config := fmt.Sprintf("base_dir = %s/base\nstate_dir = %[1]s/base\nlog_path = %[1]s/log\nssl = no\nmail_location = %s\nmail_uid = %s\nmail_gid = %s\nfirst_valid_uid = 0\nfirst_valid_gid = 0\n"+
				"mbox_write_locks = fcntl\ndefault_internal_user = %[3]s\ndefault_login_user = %[3]s\ndefault_internal_group = %[4]s\n",
				work, fmt.Sprintf(location, work+"/out/"+owner), me.Username, group.Name)
			if err := os.WriteFile(work+"/dovecot.conf", []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 {
				if out, err := exec.Command("chown", "-R", me.Username, work).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			command := exec.CommandContext(ctx, doveadm, "-c", work+"/dovecot.conf", "-f", "tab", "fetch", "uid flags date.received hdr.subject", "mailbox", "INBOX")
			command.Env = append(os.Environ(), "USER="+me.Username, "HOME="+work, "TZ=UTC")
			out, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("doveadm: %v: %s", err, out)
			}
			for _, want := range []string{"\n1\t", "\n2\t\\Flagged \\Seen $Forwarded work\t", "\n4\t", "\n5\t\\Answered \\Deleted \\Draft\t", "\n6\t", "number 6", "2023-11-14 23:13:20"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("doveadm shows no %q:\n%s", want, out)
				}
			}
			if strings.Contains(string(out), "\n3\t") {
				t.Errorf("UID 3 is there:\n%s", out)
			}
		})
	}
}
