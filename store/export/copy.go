package export

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postilion/store"
)

const (
	// copyMessages and copyOctets bound what is put into the other store in one step.
	copyMessages = 100
	copyOctets   = 8 << 20
)

// CopyOptions say what of one store is put where in another.
type CopyOptions struct {
	// Account names the account in both stores, Mailbox restricts to one mailbox; "" means all.
	Account, Mailbox string
	// Into is the name below which the mailboxes are made.
	Into     string
	Progress func(Counts)
	Problem  func(text string)
}

// Copy brings an account of one store beside what another store has under that name: below Into, with flags, keywords and dates, under new UIDs. Mailboxes that
// are there already are not touched: store.ErrExists.
func Copy(ctx context.Context, from, to store.Store, o CopyOptions) (Counts, error) {
	e := &exporter{store: from, options: Options{Progress: o.Progress, Problem: o.Problem, Mailbox: o.Mailbox}}
	if o.Account == "" || o.Into == "" {
		return e.counts, errors.New("restore: an account and a place must be named")
	}
	users, err := accounts(ctx, from, o.Account)
	if err != nil {
		return e.counts, fmt.Errorf("restore: %w", err)
	}
	source, err := from.Open(ctx, store.Owner{User: users[0], UID: -1, GID: -1})
	if err != nil {
		return e.counts, err
	}
	defer source.Close()
	target, err := to.Open(ctx, store.Owner{User: users[0], UID: -1, GID: -1})
	if err != nil {
		return e.counts, err
	}
	defer target.Close()
	listed, err := source.List(ctx)
	if err != nil {
		return e.counts, err
	}
	slices.SortFunc(listed, func(a, b store.Listed) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range listed {
		if !l.Selectable || o.Mailbox != "" && o.Mailbox != l.Name {
			continue
		}
		c := &copier{target: target, name: o.Into + "/" + l.Name}
		if err := errors.Join(e.mailbox(ctx, source, l.Name, c)); err != nil {
			return e.counts, fmt.Errorf("restore of mailbox %q of %s: %w", l.Name, users[0], err)
		}
		e.counts.Mailboxes++
	}
	if e.counts.Mailboxes == 0 {
		return e.counts, fmt.Errorf("restore: %s has no mailbox %q: %w", users[0], o.Mailbox, store.ErrNotFound)
	}
	e.counts.Accounts++
	return e.counts, nil
}

// copier puts the messages of one mailbox into another store.
type copier struct {
	target  store.Account
	name    string
	view    store.View
	mailbox store.Mailbox
	drafts  []store.Draft
	octets  int64
}

func (c *copier) begin(_ string, view store.View) error {
	ctx := context.Background()
	if err := c.target.Create(ctx, c.name, ""); err != nil {
		return err
	}
	mailbox, err := c.target.Mailbox(ctx, c.name)
	c.mailbox, c.view = mailbox, view
	return err
}

// kept is a message in memory.
type kept struct{ *strings.Reader }

func (k kept) Size() int64 { return k.Reader.Size() }

func (c *copier) add(entry *store.Entry, body store.Body) error {
	data, err := text(body)
	if err != nil {
		return err
	}
	draft := store.Draft{Content: kept{strings.NewReader(string(data))}, Flags: entry.Flags, InternalDate: entry.InternalDate}
	for _, k := range entry.Keywords {
		draft.Keywords = append(draft.Keywords, c.view.Keywords()[k])
	}
	c.drafts = append(c.drafts, draft)
	if c.octets += entry.Size; len(c.drafts) < copyMessages && c.octets < copyOctets {
		return nil
	}
	return c.flush()
}

func (c *copier) flush() error {
	if len(c.drafts) == 0 {
		return nil
	}
	_, err := c.mailbox.Append(context.Background(), c.drafts)
	c.drafts, c.octets = nil, 0
	return err
}

func (c *copier) end() error { return errors.Join(c.flush(), c.mailbox.Close()) }

func (c *copier) finish([]string) error { return nil }
