package maildir

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postilion/store"
)

// survey is all that Dovecot shows of an account.
type survey struct {
	listed, subscribed []string
	// states and contents are those of each mailbox, as state tells them, and by UID.
	states   map[string][]string
	contents map[string]map[store.UID]string
}

// survey asks for everything in one session.
func (d *realDovecot) survey(names []string) survey {
	d.t.Helper()
	commands := []string{`LIST "" *`, `LSUB "" *`}
	for _, name := range names {
		commands = append(commands, `EXAMINE "`+name+`"`, "UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)", "UID FETCH 1:* (UID BODY.PEEK[])")
	}
	answers := regexp.MustCompile(`(?:^|\r\n)t\d+ OK [^\r]*`).Split(d.imap(commands...), -1)
	if len(answers) != len(commands)+1 {
		d.t.Fatalf("%d answers to %d commands", len(answers)-1, len(commands))
	}
	found := survey{listed: listedIn(answers[0]), subscribed: listedIn(answers[1]), states: map[string][]string{}, contents: map[string]map[store.UID]string{}}
	for i, name := range names {
		// Dovecot answers the two FETCH commands side by side.
		at := strings.Join(answers[2+3*i:][:3], "")
		found.states[name], found.contents[name] = stateIn(d.t, at), contentsIn(at)
	}
	return found
}

// contentsIn reads answers to FETCH BODY[].
func contentsIn(out string) map[store.UID]string {
	found := map[store.UID]string{}
	head := regexp.MustCompile(`^\* \d+ FETCH \(UID (\d+) BODY\[\] \{(\d+)\}\r\n`)
	for at := strings.Index(out, "* "); at >= 0 && at < len(out); {
		m := head.FindStringSubmatch(out[at:])
		if m == nil {
			next := strings.Index(out[at:], "\r\n")
			if next < 0 {
				break
			}
			at += next + 2
			continue
		}
		uid, _ := strconv.ParseUint(m[1], 10, 32)
		size, _ := strconv.Atoi(m[2])
		at += len(m[0])
		found[store.UID(uid)] = out[at : at+size]
		at += size
	}
	return found
}

func ourContents(t *testing.T, account store.Account, name string) map[store.UID]string {
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
	found := map[store.UID]string{}
	for i := range v.Len() {
		b, err := mailbox.Open(t.Context(), v.UID(i))
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, b.Size())
		if _, err := b.ReadAt(text, 0); err != nil && b.Size() > 0 {
			t.Fatal(err)
		}
		found[v.UID(i)] = string(text)
		_ = b.Close()
	}
	return found
}

// listedIn reads answers to LIST and LSUB.
func listedIn(out string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`\* (?:LIST|LSUB) \(([^)]*)\) "/" "?([^"\r]*)"?`).FindAllStringSubmatch(out, -1) {
		if !strings.Contains(strings.ToLower(m[1]), `\noselect`) {
			names = append(names, m[2])
		}
	}
	slices.Sort(names)
	return names
}

// TestHandOver gives a Maildir to Dovecot and back ten times. Each does a handful of random changes in its turn, opens it afresh, and must find
// what the other left: mailboxes, subscriptions, UIDs, flags, keywords, dates, sizes and every octet.
func TestHandOver(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; not with -short")
	}
	d := newRealDovecot(t, "Maildir")
	random := rand.New(rand.NewPCG(3, 9))
	names := []string{store.Inbox}
	for turn := range 10 {
		commands := []string{"SELECT INBOX"}
		for range 6 {
			name, other := names[random.IntN(len(names))], names[random.IntN(len(names))]
			uids := fmt.Sprintf("%d:%d", 1+random.IntN(4), 3+random.IntN(9))
			keyword := fmt.Sprint("kw", random.IntN(30))
			switch random.IntN(8) {
			case 0, 1, 2:
				text := fmt.Sprintf("Subject: Dovecot %d\r\n\r\n%s", turn, strings.Repeat("body\r\n", random.IntN(9)))
				commands = append(commands, fmt.Sprintf("APPEND %q (\\Flagged %s) \"%02d-Feb-2019 10:00:00 +0100\" {%d+}\r\n%s", name, keyword, 1+random.IntN(28), len(text), text))
			case 3:
				commands = append(commands, fmt.Sprintf("SELECT %q", name), fmt.Sprintf("UID STORE %s +FLAGS (\\Seen %s)", uids, keyword))
			case 4:
				commands = append(commands, fmt.Sprintf("SELECT %q", name), fmt.Sprintf("UID COPY %s %q", uids, other))
			case 5:
				commands = append(commands, fmt.Sprintf("SELECT %q", name), fmt.Sprintf("UID STORE %d +FLAGS (\\Deleted)", 1+random.IntN(9)), "EXPUNGE")
			case 6:
				made := fmt.Sprintf("d%d/x", len(names))
				names = append(names, made)
				commands = append(commands, fmt.Sprintf("CREATE %q", made), fmt.Sprintf("SUBSCRIBE %q", made))
			case 7:
				commands = append(commands, fmt.Sprintf("UNSUBSCRIBE %q", name))
			}
		}
		d.imap(commands...)
		s, account := d.open()
		d.compare(account, fmt.Sprint("turn ", turn, ", after Dovecot's part"), names)
		names = ourPart(t, s, account, d, random, names, turn)
		d.compare(account, fmt.Sprint("turn ", turn, ", after ours"), names)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
}

func (d *realDovecot) compare(account store.Account, when string, names []string) {
	t := d.t
	t.Helper()
	listed, err := account.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, l := range listed {
		if l.Selectable {
			ours = append(ours, l.Name)
		}
	}
	slices.Sort(ours)
	theirs := d.survey(names)
	if !slices.Equal(ours, theirs.listed) {
		t.Errorf("%s: mailboxes\nours    %q\nDovecot %q", when, ours, theirs.listed)
	}
	subscribed, err := account.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(subscribed)
	if !slices.Equal(subscribed, theirs.subscribed) {
		t.Errorf("%s: subscriptions\nours    %q\nDovecot %q", when, subscribed, theirs.subscribed)
	}
	for _, name := range names {
		if ours := ourState(t, account, name); !slices.Equal(ours, theirs.states[name]) {
			t.Errorf("%s: %s\nours    %q\nDovecot %q", when, name, ours, theirs.states[name])
		}
		ours, theirs := ourContents(t, account, name), theirs.contents[name]
		if len(ours) != len(theirs) {
			t.Errorf("%s: %s: we read %d messages, Dovecot %d", when, name, len(ours), len(theirs))
		}
		for uid, text := range ours {
			if theirs[uid] != text {
				t.Errorf("%s: UID %d of %s is\n%q for us and\n%q for Dovecot", when, uid, name, text, theirs[uid])
			}
		}
	}
}

// ourPart does random changes as a server of ours would, and returns the mailboxes that are there then.
func ourPart(t *testing.T, s *Store, account store.Account, d *realDovecot, random *rand.Rand, names []string, turn int) []string {
	t.Helper()
	ctx := t.Context()
	for step := range 6 {
		name, other := names[random.IntN(len(names))], names[random.IntN(len(names))]
		mailbox, err := account.Mailbox(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		target, err := account.Mailbox(ctx, other)
		if err != nil {
			t.Fatal(err)
		}
		first := store.UID(1 + random.IntN(6))
		uids := store.UIDSetRange(first, first+3)
		switch random.IntN(8) {
		case 0, 1:
			outcomes, deliverErr := s.Deliver(ctx, &store.Delivery{
				ID: fmt.Sprint(turn, "-", step), Content: bytes.NewReader(fmt.Appendf(nil, "Subject: we %d\r\n\r\n%s", turn, strings.Repeat("b\r\n", random.IntN(9)))),
				InternalDate: time.Unix(1500000000+int64(turn), 0),
				Targets:      []store.Target{{Owner: store.Owner{User: "alice", Home: d.dir, Location: d.dir + "/Maildir", UID: d.uid, GID: d.uid}, Mailbox: name}},
			})
			if err = deliverErr; err == nil {
				err = outcomes[0].Err
			}
		case 2:
			_, err = mailbox.Append(ctx, []store.Draft{{Content: strings.NewReader("Subject: draft\r\n\r\n"), Flags: store.FlagDraft, Keywords: []string{"own" + strconv.Itoa(step)}}})
		case 3:
			_, err = mailbox.SetFlags(ctx, uids, store.FlagChange{Operation: store.FlagOperation(random.IntN(3)), Flags: store.FlagAnswered, Keywords: []string{"kw1"}})
		case 4:
			_, err = mailbox.Expunge(ctx, store.UIDSetOf(first), false)
		case 5:
			if name != other {
				_, err = mailbox.Move(ctx, uids, target)
			}
		case 6:
			made := fmt.Sprintf("we%d", len(names))
			names = append(names, made)
			err = account.Create(ctx, made, "")
		case 7:
			err = account.Subscribe(ctx, name, random.IntN(2) == 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, _ = mailbox.Close(), target.Close()
	}
	return names
}

// TestDeadLocks leaves locks as killed programs leave them, ours for Dovecot and Dovecot's for us: neither waits.
func TestDeadLocks(t *testing.T) {
	d := newRealDovecot(t, "Maildir")
	s, account := d.open()
	site := &crashSite{t: t, store: s}
	inbox := site.mailbox(account, store.Inbox)
	if _, err := inbox.Append(t.Context(), []store.Draft{site.draft("one")}); err != nil {
		t.Fatal(err)
	}
	d.imap("SELECT INBOX")
	path := filepath.Join(d.dir, "Maildir", uidListName+".lock")
	leave := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if d.uid >= 0 {
			if err := os.Chown(path, d.uid, d.uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	dead := fmt.Sprintf("4190000:%s", lockHost())
	began := time.Now()
	leave(dead + "\x00" + processToken + ":0123")
	d.imap("APPEND INBOX {20+}\r\nSubject: dovecot\r\n\r\n")
	leave(dead)
	if _, err := inbox.Append(t.Context(), []store.Draft{site.draft("two")}); err != nil {
		t.Fatal(err)
	}
	leave("")
	if _, err := inbox.Append(t.Context(), []store.Draft{site.draft("three")}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > staleLock/2 {
		t.Errorf("took %v", took)
	}
	if ours, theirs := ourState(t, account, store.Inbox), d.state(store.Inbox); !slices.Equal(ours, theirs) || len(ours) != 5 {
		t.Errorf("ours    %q\nDovecot %q", ours, theirs)
	}
}
