// Package export carries mail out of a store: into Maildir folders that Dovecot opens with the same UIDs, flags and keywords, into mbox files with the fields that
// Dovecot keeps there, and from one store into another beside what lies there.
//
// It reads views and changes nothing in the store it reads from, so it works while mail is served. It is not a backup of a store: mod-sequences, delivery ids and
// object identifiers stay behind. Followed: Dovecot's documentation of the Maildir and mbox formats, RFC 4155.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postilion/store"
)

// Formats that are written.
const (
	Maildir = "maildir"
	Mbox    = "mbox"
)

// Options say what goes where.
type Options struct {
	// Format is Maildir or Mbox.
	Format string
	// Dir gets a directory for each account, which must not be there yet.
	Dir string
	// Account and Mailbox restrict the export; "" means all.
	Account, Mailbox string
	// Progress is told now and then what was done, Problem which message could not be carried over whole and why; both may be nil.
	Progress func(Counts)
	Problem  func(text string)
}

// Counts are what was carried over.
type Counts struct {
	Accounts  int64 `json:"accounts"`
	Mailboxes int64 `json:"mailboxes"`
	Messages  int64 `json:"messages"`
	Octets    int64 `json:"octets"`
	// Problems counts messages that could not be read, and names and keywords that the format cannot hold.
	Problems int64 `json:"problems"`
}

// folders takes the messages of one account.
type folders interface {
	// begin is called for each mailbox, add for each of its messages in the order of UIDs, end after the last.
	begin(name string, view store.View) error
	add(entry *store.Entry, body store.Body) error
	end() error
	// finish is called with the subscriptions in the end.
	finish(subscriptions []string) error
}

// Export writes accounts as files.
func Export(ctx context.Context, s store.Store, o Options) (Counts, error) {
	e := &exporter{store: s, options: o}
	if o.Format != Maildir && o.Format != Mbox {
		return e.counts, fmt.Errorf("export: there is no format %q: maildir and mbox are known", o.Format)
	}
	users, err := accounts(ctx, s, o.Account)
	if err != nil {
		return e.counts, fmt.Errorf("export: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return e.counts, fmt.Errorf("export: %w", err)
	}
	for _, user := range users {
		if err := e.account(ctx, user); err != nil {
			return e.counts, fmt.Errorf("export of %s: %w", user, err)
		}
		e.counts.Accounts++
	}
	if err := flush(o.Dir); err != nil {
		return e.counts, fmt.Errorf("export: %w", err)
	}
	return e.counts, nil
}

// accounts lists the accounts that are meant.
func accounts(ctx context.Context, s store.Store, only string) ([]string, error) {
	var users []string
	err := s.Accounts(ctx, func(user string) bool {
		if only == "" || user == only {
			users = append(users, user)
		}
		return true
	})
	if err == nil && only != "" && len(users) == 0 {
		return nil, fmt.Errorf("there is no account %q", only)
	}
	slices.Sort(users)
	return users, err
}

type exporter struct {
	store   store.Store
	options Options
	counts  Counts
}

func (e *exporter) problem(format string, args ...any) {
	e.counts.Problems++
	if e.options.Problem != nil {
		e.options.Problem(fmt.Sprintf(format, args...))
	}
}

func (e *exporter) account(ctx context.Context, user string) error {
	dir := filepath.Join(e.options.Dir, fileName(user))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	account, err := e.store.Open(ctx, store.Owner{User: user, UID: -1, GID: -1})
	if err != nil {
		return err
	}
	defer account.Close()
	listed, err := account.List(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(listed, func(a, b store.Listed) int { return strings.Compare(a.Name, b.Name) })
	var to folders = newMaildirs(e, dir)
	if e.options.Format == Mbox {
		to = newMboxes(e, dir, listed)
	}
	found := false
	for _, l := range listed {
		if !l.Selectable || e.options.Mailbox != "" && e.options.Mailbox != l.Name {
			continue
		}
		found = true
		if err := e.mailbox(ctx, account, l.Name, to); err != nil {
			return fmt.Errorf("mailbox %q: %w", l.Name, err)
		}
		e.counts.Mailboxes++
	}
	if !found && e.options.Mailbox != "" {
		return fmt.Errorf("mailbox %q: %w", e.options.Mailbox, store.ErrNotFound)
	}
	subscriptions, err := account.Subscriptions(ctx)
	if err != nil {
		return err
	}
	return to.finish(subscriptions)
}

func (e *exporter) mailbox(ctx context.Context, account store.Account, name string, to folders) error {
	mailbox, err := account.Mailbox(ctx, name)
	if err != nil {
		return err
	}
	defer mailbox.Close()
	view, err := mailbox.View(ctx)
	if err != nil {
		return err
	}
	if err := to.begin(name, view); err != nil {
		return err
	}
	for i := range view.Len() {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, to.end())
		}
		entry := view.Entry(i)
		body, err := mailbox.Open(ctx, entry.UID)
		if errors.Is(err, store.ErrExpunged) {
			continue
		}
		if err == nil {
			err = errors.Join(to.add(&entry, body), body.Close())
		}
		var reading *readError
		switch {
		case errors.As(err, &reading) || errors.Is(err, store.ErrDamaged) || body == nil && err != nil:
			e.problem("%s, mailbox %q, UID %d: %v", account.User(), name, entry.UID, err)
		case err != nil:
			return errors.Join(err, to.end())
		default:
			e.counts.Messages++
			e.counts.Octets += entry.Size
		}
		if e.options.Progress != nil {
			e.options.Progress(e.counts)
		}
	}
	return to.end()
}

// readError is a message that cannot be read.
type readError struct{ err error }

func (r *readError) Error() string { return "it cannot be read: " + r.err.Error() }
func (r *readError) Unwrap() error { return r.err }

// text reads a message whole. Messages are bounded by what the server took.
func text(body store.Body) ([]byte, error) {
	data := make([]byte, body.Size())
	n, err := body.ReadAt(data, 0)
	if n == len(data) {
		return data, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, &readError{err}
}

// fileName is a name of one directory for any user name.
func fileName(user string) string {
	coded := strings.NewReplacer("%", "%25", "/", "%2F", "\x00", "%00").Replace(user)
	if strings.HasPrefix(coded, ".") {
		coded = "%2E" + coded[1:]
	}
	return coded
}

// writeFile writes a small file.
func writeFile(name string, data []byte) error { return os.WriteFile(name, data, 0o600) }
