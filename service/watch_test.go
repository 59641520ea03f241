package service_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// watcher is what a session has been told of a mailbox: UIDs by sequence number, 0 for those it has not asked for yet.
type watcher struct {
	*wire
	messages int
}

// follow applies an untagged answer as RFC 9051 section 7 says, and refuses what no server may send.
func (v *watcher) follow(text string) error {
	var number int
	var what string
	if n, _ := fmt.Sscanf(text, "* %d %s", &number, &what); n != 2 {
		return nil
	}
	switch what {
	case "EXISTS":
		if number < v.messages {
			return fmt.Errorf("EXISTS went from %d to %d without EXPUNGE", v.messages, number)
		}
		v.messages = number
	case "EXPUNGE":
		if number < 1 || number > v.messages {
			return fmt.Errorf("EXPUNGE %d of %d messages", number, v.messages)
		}
		v.messages--
	case "FETCH":
		if number > v.messages {
			return fmt.Errorf("FETCH %d of %d messages", number, v.messages)
		}
	}
	return nil
}

// idle watches until as many messages are there as wanted, once nothing more than the last message is to come. How many it hears of on the way is open:
// a message that came and went between two looks is never told.
func (v *watcher) idle(messages int, lastIsSent *atomic.Bool) error {
	if err := v.send("i IDLE\r\n"); err != nil {
		return err
	}
	for idling := false; !idling || !lastIsSent.Load() || v.messages != messages; {
		text, err := v.line()
		if err != nil {
			return fmt.Errorf("sees %d messages, want %d: %w", v.messages, messages, err)
		}
		idling = idling || strings.HasPrefix(text, "+")
		if err := v.follow(text); err != nil {
			return err
		}
	}
	if err := v.send("DONE\r\n"); err != nil {
		return err
	}
	_, err := v.until("i", "IDLE")
	return err
}

// TestWatchersConverge has sessions watch mailboxes by IDLE while others deliver, remove and move: all see the same in the end.
func TestWatchersConverge(t *testing.T) {
	for _, driver := range []string{"vault", "maildir"} {
		t.Run(driver, func(t *testing.T) {
			watchers, senders, each := 50, 50, 6
			if testing.Short() || driver == "maildir" {
				watchers, senders, each = 10, 10, 6
			}
			const accounts = 5
			s := start(t, setting{driver: driver, accounts: accounts})
			perAccount := senders / accounts * each
			removed := perAccount / 2
			views := make([]*watcher, watchers)
			var lastIsSent atomic.Bool
			var watching errgroup.Group
			for i := range views {
				w, err := s.login("imap", user(i%accounts))
				if err != nil {
					t.Fatal(err)
				}
				defer w.close()
				if _, err := w.imap("SELECT INBOX"); err != nil {
					t.Fatal(err)
				}
				if err := w.conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
					t.Fatal(err)
				}
				views[i] = &watcher{wire: w}
				watching.Go(func() error { return views[i].idle(perAccount-removed+1, &lastIsSent) })
			}
			var working errgroup.Group
			for n := range senders {
				working.Go(func() error {
					for range each {
						if err := s.postOne(n%accounts, []byte("Subject: watched\r\n\r\nbody\r\n")); err != nil {
							return err
						}
					}
					return nil
				})
			}
			for n := range accounts {
				working.Go(func() error { return s.removeSome(n, removed) })
			}
			err := working.Wait()
			lastIsSent.Store(true)
			for n := range accounts {
				err = errors.Join(err, s.postOne(n, []byte("Subject: the last\r\n\r\nbody\r\n")))
			}
			if err = errors.Join(err, watching.Wait()); err != nil {
				t.Fatal(err)
			}
			for n := range accounts {
				if err := sameUIDs(views, n, accounts); err != nil {
					t.Errorf("%s: %v", user(n), err)
				}
			}
		})
	}
}

// removeSome takes messages out of the INBOX as they come: by turns moved to the Trash, and marked and expunged.
func (s *system) removeSome(n, count int) error {
	w, err := s.login("imap", user(n))
	if err != nil {
		return err
	}
	defer w.close()
	if _, err := w.imap("SELECT INBOX"); err != nil {
		return err
	}
	for done, deadline := 0, time.Now().Add(patience); done < count; {
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d messages came to be removed, want %d", done, count)
		}
		uids, err := w.uids()
		if err != nil {
			return err
		}
		for _, uid := range uids[:min(len(uids), count-done)] {
			commands := []string{"UID MOVE %d Trash"}
			if done%2 == 0 {
				commands = []string{"UID STORE %d +FLAGS.SILENT (\\Deleted)", "UID EXPUNGE %d"}
			}
			for _, command := range commands {
				if _, err := w.imap(command, uid); err != nil {
					return err
				}
			}
			done++
		}
	}
	return nil
}

// uids asks for all UIDs of the selected mailbox.
func (w *wire) uids() ([]int, error) {
	answers, err := w.imap("UID SEARCH ALL")
	if err != nil {
		return nil, err
	}
	var uids []int
	for _, a := range answers {
		list, found := strings.CutPrefix(a.text, "* SEARCH")
		if !found {
			continue
		}
		for _, word := range strings.Fields(list) {
			uid, err := strconv.Atoi(word)
			if err != nil {
				return nil, err
			}
			uids = append(uids, uid)
		}
	}
	return uids, nil
}

// sameUIDs wants all watchers of an account to have the same messages, as many as they were told of.
func sameUIDs(views []*watcher, account, accounts int) error {
	var first []int
	for i := account; i < len(views); i += accounts {
		uids, err := views[i].uids()
		if err != nil {
			return err
		}
		if len(uids) != views[i].messages {
			return fmt.Errorf("watcher %d was told of %d messages, SEARCH finds %d", i, views[i].messages, len(uids))
		}
		if first == nil {
			first = uids
		}
		if !slices.Equal(first, uids) {
			return fmt.Errorf("watcher %d has %v, another %v", i, uids, first)
		}
	}
	return nil
}
