package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postilion/store"
)

var errCrash = errors.New("the power is off")

// crashSite is an account on which an operation is stopped before each of its steps in turn.
type crashSite struct {
	t     *testing.T
	home  string
	store *Store
}

func (c *crashSite) owner() store.Owner {
	return store.Owner{User: "alice", Home: c.home, Location: "~/Maildir", UID: -1, GID: -1}
}

// start opens a store whose disk fails from the given step on; 0 never.
func (c *crashSite) start(failAt int64) store.Account {
	c.t.Helper()
	// What a killed process leaves of its locks is found abandoned by its process number; here the process lives on.
	if err := filepath.WalkDir(c.home, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".lock") {
			err = os.Remove(path)
		}
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	s, err := Open(Options{LockTimeout: 3 * time.Second})
	if err != nil {
		c.t.Fatal(err)
	}
	c.store = s
	account, err := s.Open(c.t.Context(), c.owner())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, name := range []string{store.Inbox, "Work"} {
		if _, err := account.Status(c.t.Context(), name); err != nil && !errors.Is(err, store.ErrNotFound) {
			c.t.Fatal(err)
		}
	}
	if failAt > 0 {
		var steps atomic.Int64
		s.disk.before = func(string, string) error {
			if steps.Add(1) >= failAt {
				return errCrash
			}
			return nil
		}
	}
	return account
}

func (c *crashSite) mailbox(account store.Account, name string) store.Mailbox {
	c.t.Helper()
	m, err := account.Mailbox(c.t.Context(), name)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// content returns "uid subject flags keywords" of each message; what names no subject is damaged.
func (c *crashSite) content(account store.Account, name string) []string {
	c.t.Helper()
	m := c.mailbox(account, name)
	v, err := m.View(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	lines := []string{}
	for i := range v.Len() {
		entry := v.Entry(i)
		b, err := m.Open(c.t.Context(), entry.UID)
		if err != nil {
			c.t.Fatal(err)
		}
		text := make([]byte, b.Size())
		_, err = b.ReadAt(text, 0)
		if err := errors.Join(err, b.Close()); err != nil {
			c.t.Fatal(err)
		}
		subject, rest, _ := strings.Cut(strings.TrimPrefix(string(text), "Subject: "), "\r\n")
		if rest != "\r\nbody\r\n" || entry.Size != int64(len(text)) {
			c.t.Fatalf("UID %d of %s is damaged: %q", entry.UID, name, text)
		}
		words := []string{}
		for _, k := range entry.Keywords {
			words = append(words, v.Keywords()[k])
		}
		lines = append(lines, fmt.Sprintf("%d %s %d %v", entry.UID, subject, entry.Flags, words))
	}
	return lines
}

func (c *crashSite) draft(subject string) store.Draft {
	return store.Draft{Content: bytes.NewReader([]byte("Subject: " + subject + "\r\n\r\nbody\r\n")), InternalDate: time.Unix(1700000000, 0)}
}

func (c *crashSite) delivery(id string, targets ...string) *store.Delivery {
	d := &store.Delivery{ID: id, Content: c.draft(id).Content, InternalDate: time.Unix(1700000000, 0)}
	for _, name := range targets {
		d.Targets = append(d.Targets, store.Target{Owner: c.owner(), Mailbox: name})
	}
	return d
}

// count tells how many lines have the subject.
func count(lines []string, subject string) int {
	n := 0
	for _, line := range lines {
		if strings.Fields(line)[1] == subject {
			n++
		}
	}
	return n
}

// TestCrash stops each operation before each of its steps. What was acknowledged before must be there unchanged under its UID, and what the
// operation did must be all or nothing for each message.
func TestCrash(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(c *crashSite, account store.Account) error
		// after checks what is found, and may go on from there.
		after func(c *crashSite, account store.Account, inbox, work []string, acknowledged bool)
	}{
		{
			"deliver", func(c *crashSite, _ store.Account) error { return c.deliver("new", store.Inbox, "Work") },
			func(c *crashSite, account store.Account, inbox, work []string, acknowledged bool) {
				c.want(slices.Equal(inbox[:2], c.before(store.Inbox)) && slices.Equal(work[:1], c.before("Work")), "other messages changed: %q %q", inbox, work)
				c.want(!acknowledged || (count(inbox, "new") == 1 && count(work, "new") == 1), "acknowledged and not there: %q %q", inbox, work)
				for range 2 {
					if err := c.deliver("new", store.Inbox, "Work"); err != nil {
						c.t.Fatal(err)
					}
				}
				inbox, work = c.content(account, store.Inbox), c.content(account, "Work")
				c.want(count(inbox, "new") == 1 && count(work, "new") == 1, "offered again: %q %q", inbox, work)
			},
		},
		{
			"append", func(c *crashSite, account store.Account) error {
				one, two := c.draft("new"), c.draft("newer")
				one.Flags, one.Keywords = store.FlagSeen, []string{"fresh"}
				_, err := c.mailbox(account, store.Inbox).Append(c.t.Context(), []store.Draft{one, two})
				return err
			},
			func(c *crashSite, _ store.Account, inbox, work []string, acknowledged bool) {
				c.want(slices.Equal(inbox[:2], c.before(store.Inbox)) && slices.Equal(work, c.before("Work")), "other messages changed: %q %q", inbox, work)
				c.want(!acknowledged || len(inbox) == 4, "acknowledged and not there: %q", inbox)
			},
		},
		{
			"flags", func(c *crashSite, account store.Account) error {
				_, err := c.mailbox(account, store.Inbox).SetFlags(c.t.Context(), store.AllUIDs(), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagFlagged, Keywords: []string{"fresh"}})
				return err
			},
			func(c *crashSite, _ store.Account, inbox, _ []string, acknowledged bool) {
				want := []string{"1 one 4 [fresh]", "2 two 5 [kw fresh]"}
				for i, line := range inbox {
					c.want(line == want[i] || (!acknowledged && line == c.before(store.Inbox)[i]), "flags %q", inbox)
				}
			},
		},
		{
			"move", func(c *crashSite, account store.Account) error {
				_, err := c.mailbox(account, store.Inbox).Move(c.t.Context(), store.AllUIDs(), c.mailbox(account, "Work"))
				return err
			},
			func(c *crashSite, _ store.Account, inbox, work []string, acknowledged bool) {
				for _, subject := range []string{"one", "two"} {
					c.want(count(inbox, subject)+count(work, subject) == 1, "%s: %q %q", subject, inbox, work)
				}
				c.want(!acknowledged || len(inbox) == 0, "moved and still there: %q", inbox)
				c.want(work[0] == c.before("Work")[0], "another message changed: %q", work)
			},
		},
		{
			"copy", func(c *crashSite, account store.Account) error {
				_, err := c.mailbox(account, store.Inbox).Copy(c.t.Context(), store.AllUIDs(), c.mailbox(account, "Work"))
				return err
			},
			func(c *crashSite, _ store.Account, inbox, work []string, acknowledged bool) {
				c.want(slices.Equal(inbox, c.before(store.Inbox)) && work[0] == c.before("Work")[0], "other messages changed: %q %q", inbox, work)
				c.want(!acknowledged || slices.Equal(work, []string{"1 three 0 []", "2 one 0 []", "3 two 1 [kw]"}), "copied: %q", work)
			},
		},
		{
			"expunge", func(c *crashSite, account store.Account) error {
				_, err := c.mailbox(account, store.Inbox).Expunge(c.t.Context(), store.UIDSetOf(1), false)
				return err
			},
			func(c *crashSite, account store.Account, inbox, _ []string, acknowledged bool) {
				c.want(slices.Equal(inbox, c.before(store.Inbox)[1:]) || (!acknowledged && slices.Equal(inbox, c.before(store.Inbox))), "left: %q", inbox)
				if len(inbox) == 1 {
					v, err := c.mailbox(account, store.Inbox).View(c.t.Context())
					c.want(err == nil && v.ExpungedSince(1).Contains(1), "the expunge is not told")
					c.want(c.deliver("one", store.Inbox) == nil && len(c.content(account, store.Inbox)) == 1, "a repeat of the expunged was taken")
				}
			},
		},
		{
			"rename", func(c *crashSite, account store.Account) error {
				return account.Rename(c.t.Context(), "Work", "Job/one")
			},
			func(c *crashSite, account store.Account, _, work []string, acknowledged bool) {
				if work == nil {
					work = c.content(account, "Job/one")
				} else {
					c.want(!acknowledged, "renamed and still there")
				}
				c.want(slices.Equal(work, c.before("Work")), "changed: %q", work)
			},
		},
		{
			"delete", func(c *crashSite, account store.Account) error { return account.Delete(c.t.Context(), "Work") },
			func(c *crashSite, _ store.Account, inbox, work []string, acknowledged bool) {
				c.want(slices.Equal(inbox, c.before(store.Inbox)), "other messages changed: %q", inbox)
				c.want(work == nil || (!acknowledged && slices.Equal(work, c.before("Work"))), "left: %q", work)
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			for failAt := int64(1); ; failAt++ {
				c := &crashSite{t: t, home: t.TempDir()}
				c.fill()
				account := c.start(failAt)
				err := test.run(c, account)
				if err != nil && !errors.Is(err, errCrash) {
					t.Fatalf("step %d: %v", failAt, err)
				}
				account = c.start(0)
				inbox := c.content(account, store.Inbox)
				var work []string
				if _, err := account.Status(t.Context(), "Work"); err == nil {
					work = c.content(account, "Work")
				}
				t.Logf("stopped at step %d: %v", failAt, err)
				test.after(c, account, inbox, work, err == nil)
				if t.Failed() || (err == nil && failAt > 1) {
					return
				}
			}
		})
	}
}

func (c *crashSite) want(ok bool, format string, arguments ...any) {
	c.t.Helper()
	if !ok {
		c.t.Errorf(format, arguments...)
	}
}

// before is what fill makes.
func (c *crashSite) before(name string) []string {
	if name == "Work" {
		return []string{"1 three 0 []"}
	}
	return []string{"1 one 0 []", "2 two 1 [kw]"}
}

func (c *crashSite) fill() {
	account := c.start(0)
	if err := account.Create(c.t.Context(), "Work", ""); err != nil {
		c.t.Fatal(err)
	}
	two := c.draft("two")
	two.Flags, two.Keywords = store.FlagSeen, []string{"kw"}
	if err := c.deliver("one", store.Inbox); err != nil {
		c.t.Fatal(err)
	}
	_, err := c.mailbox(account, store.Inbox).Append(c.t.Context(), []store.Draft{two})
	if err == nil {
		err = c.deliver("three", "Work")
	}
	if err == nil {
		err = c.store.Close()
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crashSite) deliver(id string, names ...string) error {
	outcomes, err := c.store.Deliver(c.t.Context(), c.delivery(id, names...))
	for _, outcome := range outcomes {
		err = errors.Join(err, outcome.Err)
	}
	return err
}
