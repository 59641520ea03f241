package maildir

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"postilion/store"
)

// interrupted is a message during whose reading something happens.
type interrupted struct {
	store.Content
	do   func()
	done bool
}

func (c *interrupted) ReadAt(p []byte, at int64) (int, error) {
	if !c.done {
		c.done = true
		c.do()
	}
	n, err := c.Content.ReadAt(p, at)
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	return n, err
}

// TestVanishes deletes or renames the mailbox while a message for it comes in: the mailbox is missing then, which is no fault of the server.
func TestVanishes(t *testing.T) {
	for name, act := range map[string]func(account store.Account) error{
		"deleted": func(account store.Account) error { return account.Delete(t.Context(), "Work") },
		"renamed": func(account store.Account) error { return account.Rename(t.Context(), "Work", "Job") },
	} {
		for how, other := range map[string]bool{"by this process": false, "by another": true} {
			home := t.TempDir()
			s, account := openHome(t, home)
			_, second := openHome(t, home)
			actor := account
			if other {
				actor = second
			}
			site := &crashSite{t: t, home: home, store: s}
			content := func() *interrupted {
				return &interrupted{Content: site.draft("x").Content, do: func() {
					if err := act(actor); err != nil {
						t.Fatal(err)
					}
				}}
			}
			if err := account.Create(t.Context(), "Work", ""); err != nil {
				t.Fatal(err)
			}
			if _, err := site.mailbox(account, "Work").Append(t.Context(), []store.Draft{{Content: content()}}); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s %s during APPEND: %v", name, how, err)
			}
			if name == "renamed" {
				if err := account.Delete(t.Context(), "Job"); err != nil {
					t.Fatal(err)
				}
			}
			if err := account.Create(t.Context(), "Work", ""); err != nil {
				t.Fatal(err)
			}
			d := site.delivery("id", "Work", store.Inbox)
			d.Content = content()
			outcomes, err := s.Deliver(t.Context(), d)
			if err != nil || !errors.Is(outcomes[0].Err, store.ErrNotFound) || outcomes[1].Err != nil {
				t.Errorf("%s %s during a delivery: %v %+v", name, how, err, outcomes)
			}
		}
	}
}

// TestRenameOverHalfMade renames to a name under which a crash left a mailbox half made.
func TestRenameOverHalfMade(t *testing.T) {
	home := t.TempDir()
	_, account := openHome(t, home)
	if err := account.Create(t.Context(), "Work", ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tmp", "new"} {
		if err := os.MkdirAll(filepath.Join(home, "Maildir", ".Job", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(home, "Maildir", ".Job", uidListName), []byte("3 V5 N1 Ga\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := account.Rename(t.Context(), "Work", "Job"); err != nil {
		t.Fatal(err)
	}
	if _, err := account.Status(t.Context(), "Job"); err != nil {
		t.Error(err)
	}
}
