package maildir

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postilion/store"
)

// realDovecot runs the installed Dovecot's IMAP on a Maildir, without a server: "doveadm exec imap" speaks on its standard streams.
type realDovecot struct {
	t    *testing.T
	dir  string
	conf string
	uid  int
}

const dovecotConf = `log_path = /dev/stderr
ssl = no
base_dir = DIR/run
state_dir = DIR/run
stats_writer_socket_path =
mail_location = maildir:DIR/LOCATION
namespace inbox {
  inbox = yes
  separator = /
}
`

func newRealDovecot(t *testing.T, location string) *realDovecot {
	t.Helper()
	if _, err := exec.LookPath("doveadm"); err != nil {
		t.Skip("doveadm is not installed")
	}
	if _, err := os.Stat("/usr/lib/dovecot/imap"); err != nil {
		t.Skip("Dovecot's imap is not installed")
	}
	d := &realDovecot{t: t, dir: t.TempDir(), uid: -1}
	for at := d.dir; strings.HasPrefix(at, os.TempDir()+"/"); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.conf = filepath.Join(d.dir, "dovecot.conf")
	conf := strings.ReplaceAll(strings.ReplaceAll(dovecotConf, "LOCATION", location), "DIR", d.dir)
	if err := os.WriteFile(d.conf, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d.dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		d.uid = 20000
		for _, dir := range []string{d.dir, filepath.Join(d.dir, "run")} {
			if err := os.Chown(dir, d.uid, d.uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	return d
}

// imap gives Dovecot the commands, each with a tag, and returns what it says.
func (d *realDovecot) imap(commands ...string) string {
	d.t.Helper()
	var script strings.Builder
	for i, command := range commands {
		fmt.Fprintf(&script, "t%d %s\r\n", i, command)
	}
	script.WriteString("bye LOGOUT\r\n")
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "doveadm", "-c", d.conf, "exec", "imap")
	cmd.Env = append(os.Environ(), "USER=alice", "HOME="+d.dir)
	cmd.Dir = d.dir
	if d.uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(d.uid), Gid: uint32(d.uid)}}
	}
	cmd.Stdin = strings.NewReader(script.String())
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil || strings.Contains(log.String(), "Error:") || strings.Contains(log.String(), "Warning:") {
		d.t.Errorf("Dovecot after %q: %v\n%s%s", commands, err, log.String(), out)
	}
	for i := range commands {
		if !strings.Contains(string(out), fmt.Sprintf("\r\nt%d OK", i)) {
			d.t.Errorf("Dovecot did not like %q: %s", commands[i], out)
		}
	}
	return string(out)
}

func (d *realDovecot) open() (*Store, store.Account) {
	d.t.Helper()
	s, err := Open(Options{})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = s.Close() })
	text, err := os.ReadFile(d.conf)
	if err != nil {
		d.t.Fatal(err)
	}
	at := regexp.MustCompile(`mail_location = maildir:(.*)`).FindSubmatch(text)
	account, err := s.Open(d.t.Context(), store.Owner{User: "alice", Home: d.dir, Location: string(at[1]), UID: d.uid, GID: d.uid})
	if err != nil {
		d.t.Fatal(err)
	}
	return s, account
}

// state is what Dovecot shows of a mailbox: a line a message, and UIDVALIDITY and UIDNEXT.
func (d *realDovecot) state(mailbox string) []string {
	d.t.Helper()
	return stateIn(d.t, d.imap(`EXAMINE "`+mailbox+`"`, "UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)"))
}

// stateIn reads the answers to these two commands.
func stateIn(t *testing.T, out string) []string {
	t.Helper()
	var lines []string
	for _, m := range regexp.MustCompile(`\* \d+ FETCH \(UID (\d+) FLAGS \(([^)]*)\) INTERNALDATE "([^"]*)" RFC822.SIZE (\d+)\)`).FindAllStringSubmatch(out, -1) {
		flags := slices.DeleteFunc(strings.Fields(m[2]), func(flag string) bool { return flag == `\Recent` })
		slices.Sort(flags)
		date, err := time.Parse("02-Jan-2006 15:04:05 -0700", m[3])
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %v %d %s", m[1], flags, date.Unix(), m[4]))
	}
	numbers := regexp.MustCompile(`UIDVALIDITY (\d+)[\s\S]*UIDNEXT (\d+)`).FindStringSubmatch(out)
	return append(lines, fmt.Sprint("validity ", numbers[1], " next ", numbers[2]))
}

// ourState is the same as we see it.
func ourState(t *testing.T, account store.Account, name string) []string {
	t.Helper()
	mailbox, err := account.Mailbox(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mailbox.Close() }()
	v, err := mailbox.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i := range v.Len() {
		entry := v.Entry(i)
		flags := []string{}
		for j, flag := range []string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`} {
			if entry.Flags&(1<<j) != 0 {
				flags = append(flags, flag)
			}
		}
		for _, k := range entry.Keywords {
			flags = append(flags, v.Keywords()[k])
		}
		slices.Sort(flags)
		lines = append(lines, fmt.Sprintf("%d %v %d %d", entry.UID, flags, entry.InternalDate.Unix(), entry.Size))
	}
	return append(lines, fmt.Sprint("validity ", v.UIDValidity(), " next ", v.UIDNext()))
}

// TestBesideDovecot has both change the same mailboxes in turn; after each step both must see the same.
func TestBesideDovecot(t *testing.T) {
	for _, location := range []string{"Maildir", "Maildir:LAYOUT=fs", "Maildir:CONTROL=DIR/control:INDEX=DIR/index"} {
		t.Run(location, func(t *testing.T) { besideDovecot(t, location, 25) })
	}
}

func besideDovecot(t *testing.T, location string, steps int) {
	d := newRealDovecot(t, location)
	_, account := d.open()
	random := rand.New(rand.NewPCG(5, 8))
	ctx := t.Context()
	names := []string{store.Inbox, "Work", "Lists/go"}
	for _, name := range names[1:] {
		if err := account.Create(ctx, name, ""); err != nil {
			t.Fatal(err)
		}
	}
	handles := map[string]store.Mailbox{}
	for _, name := range names {
		mailbox, err := account.Mailbox(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		handles[name] = mailbox
	}
	for step := range steps {
		name, other := names[random.IntN(3)], names[random.IntN(3)]
		view, err := handles[name].View(ctx)
		if err != nil {
			t.Fatal(err)
		}
		uid := store.UID(1)
		if view.Len() > 0 {
			uid = view.UID(random.IntN(view.Len()))
		}
		what := random.IntN(10)
		if step < 6 {
			what = []int{0, 5}[step%2]
		}
		keyword := fmt.Sprintf("kw%d", random.IntN(4))
		var did string
		switch what {
		case 0:
			did = "we append"
			content := fmt.Appendf(nil, "Subject: %d\r\n\r\nbody\r\n%s", step, strings.Repeat("line\r\n", random.IntN(5)))
			_, err = handles[name].Append(ctx, []store.Draft{{
				Content: bytes.NewReader(content), InternalDate: time.Unix(1600000000+int64(step), 0), Flags: store.Flags(random.IntN(32)), Keywords: []string{keyword},
			}})
		case 1:
			did = "we set flags"
			_, err = handles[name].SetFlags(ctx, store.UIDSetOf(uid), store.FlagChange{Operation: store.FlagOperation(random.IntN(3)), Flags: store.FlagSeen | store.FlagFlagged, Keywords: []string{keyword}})
		case 2:
			did = "we expunge"
			_, err = handles[name].Expunge(ctx, store.UIDSetOf(uid), false)
		case 3:
			did = "we copy"
			_, err = handles[name].Copy(ctx, store.UIDSetOf(uid), handles[other])
		case 4:
			did = "we move"
			if name != other {
				_, err = handles[name].Move(ctx, store.UIDSetOf(uid), handles[other])
			}
		case 5:
			did = "Dovecot appends"
			d.imap(fmt.Sprintf("APPEND %q (\\Seen %s) \"01-Feb-2019 10:00:00 +0100\" {20+}\r\nSubject: dovecot\r\n\r\n", name, keyword))
		case 6:
			did = "Dovecot stores"
			d.imap("SELECT "+name, fmt.Sprintf("UID STORE %d %sFLAGS (\\Answered %s)", uid, []string{"+", "-", ""}[random.IntN(3)], keyword))
		case 7:
			did = "Dovecot expunges"
			d.imap("SELECT "+name, fmt.Sprintf("UID STORE %d +FLAGS (\\Deleted)", uid), "EXPUNGE")
		case 8:
			did = "Dovecot copies"
			d.imap("SELECT "+name, fmt.Sprintf("UID COPY %d %s", uid, other))
		case 9:
			did = "Dovecot moves"
			if name != other {
				d.imap("SELECT "+name, fmt.Sprintf("UID MOVE %d %s", uid, other))
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", did, err)
		}
		for _, name := range names {
			if ours, theirs := ourState(t, account, name), d.state(name); !slices.Equal(ours, theirs) {
				t.Fatalf("step %d, %s (UID %d of %s to %s): %s differs\nours    %q\nDovecot %q", step, did, uid, handles[name].Name(), other, name, ours, theirs)
			}
		}
	}
	_, again := d.open()
	for _, name := range names {
		if ours, before := ourState(t, again, name), ourState(t, account, name); !slices.Equal(ours, before) {
			t.Errorf("%s opened again\n%q\n%q", name, ours, before)
		}
	}
}

// TestNamesBesideDovecot has each make, rename and subscribe mailboxes that the other must list.
func TestNamesBesideDovecot(t *testing.T) {
	d := newRealDovecot(t, "Maildir")
	_, account := d.open()
	ctx := t.Context()
	for _, name := range []string{"Entwürfe/2024", "R&D", "INBOX/sub", "plain", "sp ace"} {
		if err := account.Create(ctx, name, ""); err != nil {
			t.Fatal(err)
		}
		if err := account.Subscribe(ctx, name, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := account.Rename(ctx, "plain", "Deep/er"); err != nil {
		t.Fatal(err)
	}
	out := d.imap(`LIST "" *`, `LSUB "" *`, `CREATE "From dovecot/&AOQ-"`, `SUBSCRIBE "From dovecot/&AOQ-"`, `UNSUBSCRIBE "sp ace"`, `DELETE "R&-D"`, `RENAME "INBOX/sub" "INBOX/under"`)
	for _, want := range []string{
		`* LIST (\HasNoChildren) "/" Entw&APw-rfe/2024`, `* LIST (\HasNoChildren) "/" R&-D`, `"/" INBOX/sub`, `"/" Deep/er`, `"/" "sp ace"`,
		`* LSUB () "/" Entw&APw-rfe/2024`, `* LSUB () "/" R&-D`, `* LSUB () "/" "sp ace"`, `* LSUB () "/" plain`,
	} {
		if !strings.Contains(out, want+"\r\n") {
			t.Errorf("Dovecot does not say %q: %s", want, out)
		}
	}
	listed, err := account.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range listed {
		if l.Selectable {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	if want := []string{"Deep/er", "Entwürfe/2024", "From dovecot/ä", "INBOX", "INBOX/under", "sp ace"}; !slices.Equal(names, want) {
		t.Errorf("we list %q, want %q", names, want)
	}
	subscribed, err := account.Subscriptions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(subscribed)
	if want := []string{"Entwürfe/2024", "From dovecot/ä", "INBOX/sub", "R&D", "plain"}; !slices.Equal(subscribed, want) {
		t.Errorf("subscribed %q, want %q", subscribed, want)
	}
}
