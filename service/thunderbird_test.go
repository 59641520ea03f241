package service_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestThunderbirdHabits does over IMAP what Thunderbird does with a new account: look around, list, fetch in chunks, wait for mail, move to
// the Trash and file a copy of what was sent.
func TestThunderbirdHabits(t *testing.T) {
	for _, driver := range []string{"vault", "maildir"} {
		t.Run(driver, func(t *testing.T) {
			s := start(t, setting{driver: driver, accounts: 1})
			text := []byte("Subject: first\r\n\r\n" + strings.Repeat("a line of a message that is read in chunks\r\n", 2000))
			if err := s.postOne(0, text); err != nil {
				t.Fatal(err)
			}
			w, err := s.login("imaps", user(0))
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			talk := func(want, command string) []answer {
				t.Helper()
				answers, err := w.imap("%s", command)
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range answers {
					if strings.Contains(a.text, want) {
						return answers
					}
				}
				t.Errorf("%s: no %q in %v", command, want, answers)
				return answers
			}
			talk("IDLE", "CAPABILITY")
			talk("* ID ", `ID ("name" "Thunderbird" "version" "128.0")`)
			talk("* ENABLED", "ENABLE CONDSTORE")
			talk(`* NAMESPACE (("" "/"))`, "NAMESPACE")
			talk(`\Trash`, `LIST (SUBSCRIBED) "" "*" RETURN (SPECIAL-USE)`)
			talk("Sent", `LSUB "" "*"`)
			talk("HIGHESTMODSEQ", "SELECT INBOX (CONDSTORE)")
			talk("FLAGS", "UID FETCH 1:* (FLAGS)")
			talk("BODY[HEADER.FIELDS", "UID FETCH 1 (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID)])")
			w.chunks(t, text)
			if err := w.send("idle IDLE\r\n"); err != nil {
				t.Fatal(err)
			}
			if err := s.postOne(0, []byte("Subject: second\r\n\r\nx\r\n")); err != nil {
				t.Fatal(err)
			}
			for {
				told, err := w.line()
				if err != nil {
					t.Fatal(err)
				}
				if told == "* 2 EXISTS" {
					break
				}
			}
			if err := w.send("DONE\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.until("idle", "IDLE"); err != nil {
				t.Fatal(err)
			}
			talk(`\Seen`, `UID STORE 1 +FLAGS (\Seen)`)
			talk("EXPUNGE", "UID MOVE 1 Trash")
			talk(`\Deleted`, `UID STORE 2 +FLAGS (\Deleted)`)
			talk("* 1 EXPUNGE", "EXPUNGE")
			sent := "Subject: sent\r\n\r\nx\r\n"
			if err := w.send(fmt.Sprintf("app APPEND \"Sent\" (\\Seen) {%d}\r\n", len(sent))); err != nil {
				t.Fatal(err)
			}
			if told, err := w.line(); err != nil || !strings.HasPrefix(told, "+") {
				t.Fatalf("APPEND: %q, %v", told, err)
			}
			if err := w.send(sent + "\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.until("app", "APPEND"); err != nil {
				t.Fatal(err)
			}
			talk("MESSAGES 1", "STATUS Sent (MESSAGES UNSEEN)")
			talk("MESSAGES 1", "STATUS Trash (MESSAGES UNSEEN)")
			talk("MESSAGES 0", "STATUS INBOX (MESSAGES)")
			talk("OK", "LOGOUT")
		})
	}
}

// chunks reads message 1 in pieces of 20,000 octets and compares the whole.
func (w *wire) chunks(t *testing.T, text []byte) {
	t.Helper()
	const size = 20000
	var whole []byte
	for {
		answers, err := w.imap("UID FETCH 1 (UID BODY.PEEK[]<%d.%d>)", len(whole), size)
		if err != nil {
			t.Fatal(err)
		}
		a, ok := fetched(answers)[1]
		if !ok || len(a.literals) != 1 {
			t.Fatalf("chunk at %d: %v", len(whole), answers)
		}
		whole = append(whole, a.literals[0]...)
		if len(a.literals[0]) < size {
			break
		}
	}
	if !bytes.HasSuffix(whole, text) {
		t.Errorf("the chunks make %d octets that do not end with the message", len(whole))
	}
}
