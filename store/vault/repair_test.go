package vault

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/store"
)

// harm changes rows behind the store's back.
func harm(t *testing.T, s *Store, fn func(set func(key, value []byte), remove func(key []byte), first func(kind byte) []byte)) {
	t.Helper()
	batch := s.db.Batch(64)
	defer batch.Close()
	fn(func(key, value []byte) { batch.Set(s.space, key, value) }, func(key []byte) { batch.Delete(s.space, key) }, func(kind byte) (found []byte) {
		_ = s.scan([]byte{kind}, []byte{kind + 1}, func(key, _ []byte) error {
			if found == nil {
				found = slices.Clone(key)
			}
			return nil
		})
		return found
	})
	if err := batch.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestRepair harms a store in every way that Check knows, one at a time: the damage is told, repaired, and nothing is found afterwards.
func TestRepair(t *testing.T) {
	type rows = func(set func(key, value []byte), remove func(key []byte), first func(kind byte) []byte)
	for _, test := range []struct {
		name, says string
		// lost is how many messages can be gone afterwards, more how many the store has beyond those.
		lost int64
		harm rows
	}{
		{"counters", "it counts", 0, func(set func(key, value []byte), _ func([]byte), first func(byte) []byte) {
			set(first(rowState), state{uidNext: 100, highestModSeq: 100, messages: 3, firstRecent: 1}.append(nil))
		}},
		{"low UIDNEXT", "below what its messages have", 0, func(set func(key, value []byte), _ func([]byte), first func(byte) []byte) {
			set(first(rowState), state{uidNext: 2, highestModSeq: 1, firstRecent: 1}.append(nil))
		}},
		{"no counters", "with a new UIDVALIDITY", 0, func(_ func(key, value []byte), remove func([]byte), first func(byte) []byte) { remove(first(rowState)) }},
		{"no quota", "quota says nothing", 0, func(_ func(key, value []byte), remove func([]byte), first func(byte) []byte) { remove(first(rowUsage)) }},
		{"no name of a mailbox", "which has no name", 0, func(_ func(key, value []byte), remove func([]byte), first func(byte) []byte) { remove(first(rowName)) }},
		{"no references", "one message is said to have it", 0, func(_ func(key, value []byte), remove func([]byte), first func(byte) []byte) {
			remove(first(rowReferences))
		}},
		{"no parsed form", "parsed form is missing", 0, func(_ func(key, value []byte), remove func([]byte), first func(byte) []byte) {
			remove(first(rowStructure))
		}},
		{"no prefix", "header lines before its body", 0, func(_ func(key, value []byte), remove func([]byte), first func(byte) []byte) {
			remove(first(rowPrefix))
		}},
		{"no keywords", "keyword without a name", 0, func(_ func(key, value []byte), remove func([]byte), first func(byte) []byte) {
			remove(first(rowKeywords))
		}},
		{"entry", "stored data is damaged: entry of UID 1", 0, func(set func(key, value []byte), _ func([]byte), first func(byte) []byte) {
			set(first(rowEntry), []byte{0})
		}},
		{"changed body", "not those that came in", 0, nil},
		{"no body", "its body is missing", 1, nil},
		{"mark", "mark of a delivery cannot be read", 0, func(set func(key, value []byte), _ func([]byte), first func(byte) []byte) {
			set(first(rowDelivered), nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t, vfs.NewMem(), "db", Options{Now: fixtureNow})
			defer s.Close()
			fillFixture(t, s.Store)
			before, err := s.Check(t.Context(), CheckOptions{Problem: func(p Problem) { t.Error(p) }})
			if err != nil {
				t.Fatal(err)
			}
			id := firstBody(t, s.Store)
			switch {
			case test.harm != nil:
				harm(t, s.Store, test.harm)
			case test.lost > 0:
				harm(t, s.Store, func(_ func(key, value []byte), remove func([]byte), _ func(byte) []byte) { remove(keyChunk(id, 0)) })
			default:
				harm(t, s.Store, func(set func(key, value []byte), _ func([]byte), _ func(byte) []byte) {
					row, _ := s.db.Get(s.space, nil, keyChunk(id, 0))
					row[len(row)-4] ^= 1
					set(keyChunk(id, 0), row)
				})
			}
			var said []string
			found, err := s.Check(t.Context(), CheckOptions{Problem: func(p Problem) { said = append(said, p.String()) }})
			if err != nil || found.Problems == 0 || !strings.Contains(strings.Join(said, "\n")+" with a new UIDVALIDITY", test.says) {
				t.Errorf("check: %+v, %v, %s", found, err, strings.Join(said, "\n"))
			}
			said = nil
			repaired, err := s.Check(t.Context(), CheckOptions{Repair: true, Problem: func(p Problem) { said = append(said, p.String()) }})
			if err != nil || repaired.Repaired != repaired.Problems {
				t.Fatalf("repair: %+v, %v, %s", repaired, err, strings.Join(said, "\n"))
			}
			after, err := s.Check(t.Context(), CheckOptions{Problem: func(p Problem) { t.Errorf("still: %s", p) }})
			if err != nil || after.Messages != before.Messages-test.lost {
				t.Errorf("after the repair: %+v, before the damage %+v, %v; %s", after, before, err, strings.Join(said, "\n"))
			}
			// What is served afterwards is what the rows say.
			inbox := inboxOf(t, s, "alice@example.com")
			if _, err := inbox.View(t.Context()); err != nil {
				t.Error(err)
			}
			_ = inbox.Close()
		})
	}
}

// firstBody is a body that one message of the first mailbox has, of one row.
func firstBody(t *testing.T, s *Store) (id uint64) {
	t.Helper()
	err := s.scan([]byte{rowStructure}, []byte{rowStructure + 1}, func(key, _ []byte) error {
		body := binary.BigEndian.Uint64(key[1:])
		if _, err := s.db.Get(s.space, nil, key1(rowReferences, body)); id == 0 && err != nil {
			id = body
		}
		return nil
	})
	if err != nil || id == 0 {
		t.Fatalf("no body: %v", err)
	}
	return id
}

// TestRepairWhileOpen: a mailbox that is open while the store is repaired must be opened again, and then shows what is there.
func TestRepairWhileOpen(t *testing.T) {
	s := open(t, vfs.NewMem(), "db", Options{})
	defer s.Close()
	inbox := inboxOf(t, s, "alice")
	fillMailbox(t, inbox, 10)
	if _, err := inbox.View(t.Context()); err != nil {
		t.Fatal(err)
	}
	harm(t, s.Store, func(set func(key, value []byte), _ func([]byte), first func(byte) []byte) {
		set(first(rowState), state{uidNext: 11, highestModSeq: 11, messages: 3, firstRecent: 1}.append(nil))
	})
	if done, err := s.Check(context.Background(), CheckOptions{Repair: true}); err != nil || done.Repaired != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := inbox.View(t.Context()); err == nil {
		t.Error("a mailbox of before the repair is still served")
	}
	_ = inbox.Close()
	again := inboxOf(t, s, "alice")
	defer again.Close()
	if v, err := again.View(t.Context()); err != nil || v.Len() != 10 {
		t.Errorf("opened again: %v", err)
	}
	for n := range 5 {
		fillMailbox(t, again, 1)
		if v, err := again.View(t.Context()); err != nil || v.Len() != 11+n || v.UIDNext() != store.UID(12+n) {
			t.Fatal(fmt.Errorf("append after the repair: %w", err))
		}
	}
}
