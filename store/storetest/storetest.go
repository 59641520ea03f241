// Package storetest holds every mail store to the contract of package store: Run checks each promise by itself, Compare gives the same random
// operations to several stores and wants the same answers.
//
// It is for the tests of stores only; it starts no server and knows no store by name. What a store cannot keep for a reason of its
// format is declared in Capabilities and nowhere else.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"postilion/store"
)

// Bed is where one store lies for the time of a test.
type Bed struct {
	// Open opens the store that lies here. It is called again after the store it returned was closed, and must then find the same mail.
	Open func(tb testing.TB) store.Store
	// Owner names the owner of an account here; nil stands for an Owner with nothing but the user's name.
	Owner func(user string) store.Owner
	Can   Capabilities
	// Power, when not nil, switches the disk off. Compare then has power cuts between the operations.
	Power Power
}

// Capabilities declares what the format of a store allows. The zero value is the least.
type Capabilities struct {
	// ExactBytes: bare CR and LF come back as they were put in. Else a bare LF comes back as CRLF.
	ExactBytes bool
	// Atomic: a delivery to several mailboxes is seen in all of them at once.
	Atomic bool
	// RemembersAccounts: Accounts tells the accounts of earlier openings too.
	RemembersAccounts bool
	// AllowsName tells whether the format can keep a mailbox of this well-formed name; nil allows all.
	AllowsName func(name string) bool
}

// Run checks every promise of the contract, each in a bed of its own.
func Run(t *testing.T, bed func(t *testing.T) *Bed) {
	for _, group := range []struct {
		name   string
		checks []check
	}{
		{"mailboxes", mailboxChecks()},
		{"names", nameChecks()},
		{"messages", messageChecks()},
		{"views", viewChecks()},
		{"flags", flagChecks()},
		{"copies", copyChecks()},
		{"deliveries", deliveryChecks()},
		{"quota", quotaChecks()},
		{"durability", durabilityChecks()},
		{"concurrency", concurrencyChecks()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.checks {
				t.Run(c.name, func(t *testing.T) {
					f := newFixture(t, bed(t))
					c.run(f)
				})
			}
		})
	}
}

// check is one promise.
type check struct {
	name string
	run  func(f *fixture)
}

// fixture is an opened store with short words for what most checks do.
type fixture struct {
	testing.TB
	bed   *Bed
	store store.Store
}

func newFixture(tb testing.TB, bed *Bed) *fixture {
	if bed.Owner == nil {
		bed.Owner = func(user string) store.Owner { return store.Owner{User: user, UID: -1, GID: -1} }
	}
	f := &fixture{TB: tb, bed: bed, store: bed.Open(tb)}
	tb.Cleanup(func() {
		if f.store != nil {
			f.noError(f.store.Close())
		}
	})
	return f
}

func (f *fixture) ctx() context.Context { return f.Context() }

// reopen closes the store and opens it again.
func (f *fixture) reopen() {
	f.Helper()
	f.noError(f.store.Close())
	f.store = nil
	f.store = f.bed.Open(f.TB)
}

func (f *fixture) noError(err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("unexpected error: %v", err)
	}
}

func (f *fixture) wantError(err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Fatalf("error %v, want %v", err, want)
	}
}

// account opens the account of user; rules are its quota.
func (f *fixture) account(user string, rules ...store.QuotaRule) store.Account {
	f.Helper()
	owner := f.bed.Owner(user)
	owner.Quota.Rules = rules
	account, err := f.store.Open(f.ctx(), owner)
	f.noError(err)
	f.Cleanup(func() { _ = account.Close() })
	return account
}

// mailbox opens a mailbox and makes it when it is missing.
func (f *fixture) mailbox(account store.Account, name string) store.Mailbox {
	f.Helper()
	mailbox, err := account.Mailbox(f.ctx(), name)
	if errors.Is(err, store.ErrNotFound) {
		f.noError(account.Create(f.ctx(), name, ""))
		mailbox, err = account.Mailbox(f.ctx(), name)
	}
	f.noError(err)
	f.Cleanup(func() { _ = mailbox.Close() })
	return mailbox
}

func (f *fixture) inbox(user string) store.Mailbox {
	f.Helper()
	return f.mailbox(f.account(user), store.Inbox)
}

func (f *fixture) view(mailbox store.Mailbox) store.View {
	f.Helper()
	view, err := mailbox.View(f.ctx())
	f.noError(err)
	f.checkView(view)
	return view
}

// checkView checks what is true of every view.
func (f *fixture) checkView(view store.View) {
	f.Helper()
	var last store.UID
	for i := range view.Len() {
		entry := view.Entry(i)
		if entry.UID != view.UID(i) || entry.UID <= last || entry.UID >= view.UIDNext() {
			f.Fatalf("entry %d has UID %d, the one before %d, next is %d", i, entry.UID, last, view.UIDNext())
		}
		if entry.ModSeq == 0 || entry.ModSeq > view.HighestModSeq() {
			f.Fatalf("UID %d has mod-sequence %d, highest is %d", entry.UID, entry.ModSeq, view.HighestModSeq())
		}
		if index, ok := view.Index(entry.UID); !ok || index != i {
			f.Fatalf("Index(%d) = %d, %v; want %d", entry.UID, index, ok, i)
		}
		for k, number := range entry.Keywords {
			if int(number) >= len(view.Keywords()) || (k > 0 && entry.Keywords[k-1] >= number) {
				f.Fatalf("UID %d: keyword numbers %v of %q", entry.UID, entry.Keywords, view.Keywords())
			}
		}
		if entry.EmailID == "" {
			f.Fatalf("UID %d has no object identifier", entry.UID)
		}
		last = entry.UID
	}
	if index, ok := view.Index(last + 1); ok || index != view.Len() {
		f.Fatalf("Index past the end = %d, %v", index, ok)
	}
	if view.UIDValidity() == 0 || view.UIDNext() == 0 || view.HighestModSeq() == 0 || view.HighestModSeq() >= 1<<63 || view.ID() == "" {
		f.Fatalf("view with UIDVALIDITY %d, UIDNEXT %d, HIGHESTMODSEQ %d, id %q", view.UIDValidity(), view.UIDNext(), view.HighestModSeq(), view.ID())
	}
}

// text makes a small message that names itself.
func text(name string) []byte {
	return fmt.Appendf(nil, "From: sender@example.com\r\nTo: recipient@example.org\r\nSubject: %s\r\n\r\nThis is %s.\r\n", name, name)
}

func draft(content []byte) store.Draft {
	return store.Draft{Content: bytes.NewReader(content), InternalDate: time.Unix(1700000000, 0)}
}

// add appends one message for each name.
func (f *fixture) add(mailbox store.Mailbox, names ...string) []store.UID {
	f.Helper()
	drafts := make([]store.Draft, len(names))
	for i, name := range names {
		drafts[i] = draft(text(name))
	}
	uids, err := mailbox.Append(f.ctx(), drafts)
	f.noError(err)
	if len(uids) != len(names) {
		f.Fatalf("Append returned %d UIDs for %d drafts", len(uids), len(names))
	}
	return uids
}

func (f *fixture) read(mailbox store.Mailbox, uid store.UID) []byte {
	f.Helper()
	body, err := mailbox.Open(f.ctx(), uid)
	f.noError(err)
	defer func() { f.noError(body.Close()) }()
	content, err := io.ReadAll(io.NewSectionReader(body, 0, 1<<40))
	f.noError(err)
	if int64(len(content)) != body.Size() {
		f.Fatalf("UID %d: read %d octets, Size says %d", uid, len(content), body.Size())
	}
	return content
}

// subjects returns the names of the messages that text made.
func (f *fixture) subjects(mailbox store.Mailbox) []string {
	f.Helper()
	view := f.view(mailbox)
	names := []string{}
	for i := range view.Len() {
		_, after, _ := strings.Cut(string(f.read(mailbox, view.UID(i))), "Subject: ")
		name, _, _ := strings.Cut(after, "\r\n")
		names = append(names, name)
	}
	return names
}

func (f *fixture) wantSubjects(mailbox store.Mailbox, want ...string) {
	f.Helper()
	if got := f.subjects(mailbox); !slices.Equal(got, want) {
		f.Fatalf("mailbox %s holds %q, want %q", mailbox.Name(), got, want)
	}
}

// entry returns what the mailbox keeps about uid.
func (f *fixture) entry(mailbox store.Mailbox, uid store.UID) store.Entry {
	f.Helper()
	view := f.view(mailbox)
	index, ok := view.Index(uid)
	if !ok {
		f.Fatalf("UID %d is not there", uid)
	}
	return view.Entry(index)
}

// keywords returns the names of an entry's keywords, sorted.
func keywords(view store.View, entry store.Entry) []string {
	names := []string{}
	for _, number := range entry.Keywords {
		names = append(names, view.Keywords()[number])
	}
	slices.Sort(names)
	return names
}

// list returns the names of the account, those that are not selectable in parentheses, sorted.
func (f *fixture) list(account store.Account) []string {
	f.Helper()
	listed, err := account.List(f.ctx())
	f.noError(err)
	names := []string{}
	for _, l := range listed {
		if l.Selectable != (l.ID != "") {
			f.Fatalf("%q: selectable %v with id %q", l.Name, l.Selectable, l.ID)
		}
		if l.Selectable {
			names = append(names, l.Name)
		} else {
			names = append(names, "("+l.Name+")")
		}
	}
	slices.Sort(names)
	return names
}

func (f *fixture) wantList(account store.Account, want ...string) {
	f.Helper()
	slices.Sort(want)
	if got := f.list(account); !slices.Equal(got, want) {
		f.Fatalf("List: %q, want %q", got, want)
	}
}

// eventually waits until condition holds, ten seconds at most.
func (f *fixture) eventually(what string, condition func() bool) {
	f.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("%s did not happen within 10 seconds", what)
		}
	}
}
