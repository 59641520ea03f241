package storetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"postilion/mail/message"
	"postilion/store"
)

func messageChecks() []check {
	return []check{
		{"append gives rising UIDs", func(f *fixture) {
			inbox := f.inbox("alice")
			uids := append(f.add(inbox, "a", "b"), f.add(inbox, "c")...)
			if !slices.IsSorted(uids) || uids[0] == uids[1] || uids[1] == uids[2] {
				f.Fatalf("UIDs %v", uids)
			}
			f.wantSubjects(inbox, "a", "b", "c")
			_, err := inbox.Expunge(f.ctx(), store.AllUIDs(), false)
			f.noError(err)
			if uid := f.add(inbox, "d")[0]; uid <= uids[2] {
				f.Errorf("UID %d given after %d", uid, uids[2])
			}
			got, err := inbox.Append(f.ctx(), nil)
			if err != nil || len(got) != 0 {
				f.Errorf("Append of nothing: %v, %v", got, err)
			}
		}},
		{"bytes are kept", checkBytes},
		{"structures are those of the bytes", checkStructure},
		{"a large message is kept", func(f *fixture) {
			random := rand.New(rand.NewPCG(1, 2))
			var large bytes.Buffer
			large.WriteString("Subject: large\r\n\r\n")
			line := make([]byte, 700)
			for large.Len() < 3<<20 {
				for i := range line {
					line[i] = byte(random.IntN(94) + 33)
				}
				large.Write(line[:random.IntN(len(line))])
				large.WriteString("\r\n")
			}
			inbox := f.inbox("alice")
			uids, err := inbox.Append(f.ctx(), []store.Draft{draft(large.Bytes())})
			f.noError(err)
			if !bytes.Equal(f.read(inbox, uids[0]), large.Bytes()) {
				f.Errorf("a message of %d octets changed", large.Len())
			}
		}},
		{"bodies are read at random", checkRandomAccess},
		{"an opened body outlives its message", func(f *fixture) {
			inbox := f.inbox("alice")
			uids := f.add(inbox, "a", "b")
			body, err := inbox.Open(f.ctx(), uids[0])
			f.noError(err)
			_, err = inbox.Expunge(f.ctx(), store.UIDSetOf(uids[0]), false)
			f.noError(err)
			content, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
			if err != nil || !bytes.Equal(content, text("a")) {
				f.Errorf("opened body after expunge: %q, %v", content, err)
			}
			f.noError(body.Close())
		}},
		{"what is gone is told as expunged", func(f *fixture) {
			inbox := f.inbox("alice")
			uids := f.add(inbox, "a", "b")
			_, err := inbox.Expunge(f.ctx(), store.UIDSetOf(uids[0]), false)
			f.noError(err)
			for _, uid := range []store.UID{uids[0], uids[1] + 1, 1<<32 - 1} {
				_, err = inbox.Open(f.ctx(), uid)
				f.wantError(err, store.ErrExpunged)
				_, err = inbox.Structure(f.ctx(), uid)
				f.wantError(err, store.ErrExpunged)
			}
		}},
		{"drafts bring flags, keywords and date", checkDraft},
		{"status counts", checkStatus},
		{"expunge removes what it is told", checkExpunge},
		{"recent is taken once", checkRecent},
		{"object identifiers tell messages apart", func(f *fixture) {
			inbox := f.inbox("alice")
			uids := f.add(inbox, "a", "b")
			if a, b := f.entry(inbox, uids[0]), f.entry(inbox, uids[1]); a.EmailID == b.EmailID {
				f.Errorf("two messages share the identifier %s", a.EmailID)
			}
		}},
	}
}

// shown is what a store with these capabilities shows of content.
func (f *fixture) shown(content []byte) []byte {
	if f.bed.Can.ExactBytes {
		return content
	}
	content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(content, []byte("\n"), []byte("\r\n"))
}

// awkward are messages that a careless store changes.
func awkward() map[string]string {
	every := make([]byte, 0, 300)
	for i := range 256 {
		if i != '\r' && i != '\n' {
			every = append(every, byte(i))
		}
	}
	return map[string]string{
		"empty":            "",
		"one octet":        "x",
		"no empty line":    "Subject: x\r\n",
		"no final newline": "Subject: x\r\n\r\nbody",
		"only empty line":  "\r\n",
		"NUL":              "Subject: n\x00l\r\n\r\na\x00\x00b\r\n",
		"every octet":      "Subject: x\r\n\r\n" + string(every) + "\r\n",
		"From and dots":    "Subject: x\r\n\r\nFrom me\r\n.\r\n..\r\n>From\r\n",
		"From first":       "From x@example.com Mon Jan  1 00:00:00 2024\r\nSubject: x\r\n\r\nb\r\n",
		"long line":        "Subject: x\r\n\r\n" + strings.Repeat("0123456789", 20000) + "\r\n",
		"many lines":       "Subject: x\r\n\r\n" + strings.Repeat("\r\n", 20000),
		"bare LF":          "Subject: x\n\na\nb\r\nc\n",
		"bare CR":          "Subject: x\r\n\r\na\rb\r\nc\r",
		"broken MIME":      "Content-Type: multipart/mixed; boundary=\"\r\n\r\n--\r\n--x\r\n",
		"UTF-8":            "Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n\xe2\x82\xac\r\n",
	}
}

func checkBytes(f *fixture) {
	inbox := f.inbox("alice")
	uids := map[string]store.UID{}
	for name, content := range awkward() {
		got, err := inbox.Append(f.ctx(), []store.Draft{draft([]byte(content))})
		if err != nil {
			f.Fatalf("%s: %v", name, err)
		}
		uids[name] = got[0]
	}
	check := func(inbox store.Mailbox) {
		f.Helper()
		for name, content := range awkward() {
			want := f.shown([]byte(content))
			if got := f.read(inbox, uids[name]); !bytes.Equal(got, want) {
				f.Errorf("%s: got %.200q, want %.200q", name, got, want)
			}
			if entry := f.entry(inbox, uids[name]); entry.Size != int64(len(want)) {
				f.Errorf("%s: size %d, want %d", name, entry.Size, len(want))
			}
		}
	}
	check(inbox)
	f.reopen()
	check(f.inbox("alice"))
}

func checkRandomAccess(f *fixture) {
	inbox := f.inbox("alice")
	content := text(strings.Repeat("0123456789\r\n\tabc", 3000))
	uids, err := inbox.Append(f.ctx(), []store.Draft{draft(content)})
	f.noError(err)
	body, err := inbox.Open(f.ctx(), uids[0])
	f.noError(err)
	defer func() { f.noError(body.Close()) }()
	size := int64(len(content))
	buffer := make([]byte, 10)
	if n, err := body.ReadAt(buffer, size-4); n != 4 || !errors.Is(err, io.EOF) {
		f.Errorf("read over the end: %d, %v", n, err)
	}
	if n, err := body.ReadAt(buffer, size); n != 0 || !errors.Is(err, io.EOF) {
		f.Errorf("read at the end: %d, %v", n, err)
	}
	if n, err := body.ReadAt(buffer, size+100); n != 0 || !errors.Is(err, io.EOF) {
		f.Errorf("read past the end: %d, %v", n, err)
	}
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(worker)))
			for range 200 {
				from := random.Int64N(size)
				part := make([]byte, random.Int64N(min(size-from, 9000))+1)
				if n, err := body.ReadAt(part[:min(int64(len(part)), size-from)], from); err != nil && !errors.Is(err, io.EOF) {
					f.Errorf("ReadAt(%d): %d, %v", from, n, err)
					return
				} else if !bytes.Equal(part[:n], content[from:from+int64(n)]) || n < min(len(part), int(size-from)) {
					f.Errorf("ReadAt(%d octets at %d) gave other bytes", len(part), from)
					return
				}
			}
		})
	}
	group.Wait()
}

func checkDraft(f *fixture) {
	inbox := f.inbox("alice")
	started := time.Now().Add(-2 * time.Second)
	d := draft(text("a"))
	d.Flags = store.FlagSeen | store.FlagDraft
	d.Keywords = []string{"$Forwarded", "NonJunk"}
	d.InternalDate = time.Date(2011, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600))
	uids, err := inbox.Append(f.ctx(), []store.Draft{d, draft(text("b"))})
	f.noError(err)
	check := func(inbox store.Mailbox) {
		f.Helper()
		view := f.view(inbox)
		entry := view.Entry(0)
		if entry.UID != uids[0] || entry.Flags != d.Flags || !slices.Equal(keywords(view, entry), d.Keywords) || !entry.InternalDate.Equal(d.InternalDate) {
			f.Errorf("entry %+v with keywords %v of draft %+v", entry, keywords(view, entry), d)
		}
		if other := view.Entry(1); other.Flags != 0 || len(other.Keywords) != 0 {
			f.Errorf("flags spread to another draft: %+v", other)
		}
		if entry.SaveDate.Before(started) || entry.SaveDate.After(time.Now().Add(2*time.Second)) {
			f.Errorf("save date %v", entry.SaveDate)
		}
	}
	check(inbox)
	f.reopen()
	check(f.inbox("alice"))
}

func checkStatus(f *fixture) {
	account := f.account("alice")
	inbox := f.mailbox(account, store.Inbox)
	uids := f.add(inbox, "a", "bb", "ccc")
	_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[0]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen | store.FlagDeleted})
	f.noError(err)
	check := func(account store.Account, recent uint32) {
		f.Helper()
		view := f.view(f.mailbox(account, store.Inbox))
		got, err := account.Status(f.ctx(), store.Inbox)
		f.noError(err)
		want := store.Status{
			Messages: 3, Recent: recent, Unseen: 2, Deleted: 1, UIDNext: view.UIDNext(), UIDValidity: view.UIDValidity(),
			HighestModSeq: view.HighestModSeq(), Size: int64(len(text("a")) + len(text("bb")) + len(text("ccc"))), ID: view.ID(),
		}
		if got != want {
			f.Errorf("Status %+v, want %+v", got, want)
		}
	}
	check(account, 3)
	_, err = inbox.TakeRecent(f.ctx())
	f.noError(err)
	check(account, 0)
	f.reopen()
	check(f.account("alice"), 0)
}

func checkExpunge(f *fixture) {
	inbox := f.inbox("alice")
	uids := f.add(inbox, "a", "b", "c", "d", "e")
	_, err := inbox.SetFlags(f.ctx(), store.UIDSetOf(uids[1], uids[3]), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagDeleted})
	f.noError(err)
	gone, err := inbox.Expunge(f.ctx(), store.UIDSetRange(uids[0], uids[2]), true)
	f.noError(err)
	if gone.String() != store.UIDSetOf(uids[1]).String() {
		f.Errorf("expunged %v", gone)
	}
	f.wantSubjects(inbox, "a", "c", "d", "e")
	gone, err = inbox.Expunge(f.ctx(), store.UIDSetOf(uids[0], uids[1], uids[4]), false)
	f.noError(err)
	if gone.String() != store.UIDSetOf(uids[0], uids[4]).String() {
		f.Errorf("expunged %v", gone)
	}
	before := f.view(inbox)
	gone, err = inbox.Expunge(f.ctx(), store.UIDSetOf(uids[0]), false)
	f.noError(err)
	if len(gone) != 0 || f.view(inbox) != before {
		f.Errorf("expunging nothing gave %v or another view", gone)
	}
	gone, err = inbox.Expunge(f.ctx(), store.AllUIDs(), true)
	f.noError(err)
	if gone.String() != store.UIDSetOf(uids[3]).String() {
		f.Errorf("expunged %v", gone)
	}
	f.wantSubjects(inbox, "c")
	f.reopen()
	f.wantSubjects(f.inbox("alice"), "c")
}

func checkRecent(f *fixture) {
	account := f.account("alice")
	inbox, other := f.mailbox(account, store.Inbox), f.mailbox(f.account("alice"), store.Inbox)
	uids := f.add(inbox, "a", "b")
	if got := f.view(inbox).FirstRecent(); got > uids[0] {
		f.Errorf("FirstRecent = %d before anybody looked", got)
	}
	first, err := inbox.TakeRecent(f.ctx())
	f.noError(err)
	if first > uids[0] {
		f.Errorf("TakeRecent = %d, want at most %d", first, uids[0])
	}
	second, err := other.TakeRecent(f.ctx())
	f.noError(err)
	if view := f.view(other); second != view.UIDNext() || view.FirstRecent() != view.UIDNext() {
		f.Errorf("taken again: %d, first recent %d, next %d", second, view.FirstRecent(), view.UIDNext())
	}
	f.reopen()
	inbox = f.inbox("alice")
	if view := f.view(inbox); view.FirstRecent() != view.UIDNext() {
		f.Errorf("recent again after reopening: %d, next %d", view.FirstRecent(), view.UIDNext())
	}
	uid := f.add(inbox, "c")[0]
	third, err := inbox.TakeRecent(f.ctx())
	f.noError(err)
	if third != uid {
		f.Errorf("TakeRecent = %d after UID %d came", third, uid)
	}
}

// checkStructure wants the kept structure of every kind of message to be the one that parsing what is read gives.
func checkStructure(f *fixture) {
	inbox := f.inbox("alice")
	contents := awkward()
	contents["multipart"] = "MIME-Version: 1.0\r\nSubject: m\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" +
		"Subject: inner\r\nFrom: a@example.com\r\n\r\ntwo\r\n--b--\r\n"
	prefix := []byte("Return-Path: <a@example.com>\r\nDelivered-To: b@example.org\r\n")
	for name, content := range contents {
		given := draft([]byte(content))
		given.Structure = message.Parse([]byte(content))
		_, err := inbox.Append(f.ctx(), []store.Draft{draft([]byte(content)), given})
		f.noError(err)
		target := f.target("alice", store.Inbox)
		target.Prefix = prefix
		d := delivery("structure of "+name, []byte(content), target)
		d.Structure = given.Structure
		f.noError(f.deliver(d)[0].Err)
	}
	for range 2 {
		view := f.view(inbox)
		for i := range view.Len() {
			content := f.read(inbox, view.UID(i))
			got, err := inbox.Structure(f.ctx(), view.UID(i))
			f.noError(err)
			if want := message.Parse(content); !bytes.Equal(got.AppendBinary(nil), want.AppendBinary(nil)) {
				f.Errorf("structure of %.100q: %+v, want %+v", content, got, want)
			}
		}
		f.reopen()
		inbox = f.inbox("alice")
	}
}
