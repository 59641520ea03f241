package maildir

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"postilion/store"
)

func TestParseUIDList(t *testing.T) {
	for _, test := range []struct {
		name, text string
		validity   uint32
		next       store.UID
		guid       string
		entries    []uidEntry
		bad        bool
	}{
		{
			name: "version 3", text: "3 V1795621026 N1 Gf45c8d09a200076b8207000083ecc375\n1 :1795621026.M1P2.vm,S=27,W=31\n3 W17 Gx,y Pab :b\n", validity: 1795621026, next: 4,
			guid: "f45c8d09a200076b8207000083ecc375", entries: []uidEntry{{1, "", "1795621026.M1P2.vm,S=27,W=31"}, {3, "W17 Gx,y Pab", "b"}},
		},
		{name: "next above the records", text: "3 V5 N900 Ga\n7 :x\n", validity: 5, next: 900, guid: "a", entries: []uidEntry{{7, "", "x"}}},
		{name: "version 1", text: "1 1600000001 42\n5 name:2,S\n", validity: 1600000001, next: 42, entries: []uidEntry{{5, "", "name"}}},
		{name: "without identifier", text: "3 V5 N1\n", validity: 5, next: 1, entries: []uidEntry{}},
		{name: "a line not yet complete", text: "3 V5 N1 Ga\n1 :x\n2 :y", validity: 5, next: 2, guid: "a", entries: []uidEntry{{1, "", "x"}}},
		{
			name: "records that make no sense", text: "3 V5 N1 Ga\n0 :z\nx\n2 :a\n1 :b\n2 :c\n3 d\n4 :\n5 :../e\n99999999999 :f\n6 :g\n", validity: 5, next: 7, guid: "a",
			entries: []uidEntry{{2, "", "a"}, {6, "", "g"}},
		},
		{name: "empty", bad: true},
		{name: "no version", text: "x\n", bad: true},
		{name: "version 2", text: "2 V1 N1\n", bad: true},
		{name: "no validity", text: "3 N1 Ga\n", bad: true},
		{name: "used up", text: "3 V1 N1 Ga\n4294967295 :x\n", bad: true},
	} {
		list, err := parseUIDList([]byte(test.text))
		if (err != nil) != test.bad {
			t.Errorf("%s: %v", test.name, err)
		}
		if err != nil {
			continue
		}
		if list.validity != test.validity || list.next != test.next || list.guid != test.guid || !slices.Equal(list.entries, test.entries) {
			t.Errorf("%s: %+v", test.name, list)
		}
	}
}

func FuzzUIDList(f *testing.F) {
	f.Add([]byte("3 V1795621026 N1 Gf45c\n1 :a,S=27,W=31\n3 W17 Gx :b\n"))
	f.Add([]byte("1 1600000001 42\n5 name:2,S\n"))
	f.Add([]byte("3 V1 N1 G\n4294967295 :x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseUIDList(text)
		if err != nil {
			return
		}
		again, err := parseUIDList(list.format())
		if err != nil {
			t.Fatalf("written as %q: %v", list.format(), err)
		}
		if again.version, again.torn = list.version, list.torn; list.guid == again.guid && !reflect.DeepEqual(list, again) {
			t.Fatalf("%+v was read back as %+v", list, again)
		}
		for i, entry := range list.entries {
			if entry.uid >= list.next || (i > 0 && entry.uid <= list.entries[i-1].uid) {
				t.Fatalf("entries out of order: %+v", list)
			}
		}
	})
}

func FuzzKeywords(f *testing.F) {
	f.Add([]byte("0 Work\n1 $Forwarded\n25 z\n26 x\n"))
	f.Add([]byte("9 Late\n0 a b\n0 twice\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		names := parseKeywords(text)
		if again := parseKeywords(formatKeywords(names)); again != names {
			t.Fatalf("%q was read back as %q", names, again)
		}
	})
}

func TestSubscriptionsForms(t *testing.T) {
	plus, fs := location{}, location{fs: true}
	for _, test := range []struct {
		location location
		text     string
		names    []string
	}{
		{plus, "V\t2\n\nWork\ty\nEntw&APw-rfe\n", []string{"Work/y", "Entwürfe"}},
		{plus, "Work\nArchive.2023\nGhost\n", []string{"Work", "Archive/2023", "Ghost"}},
		{fs, "Work\nArchive/2023\na.b\n", []string{"Work", "Archive/2023", "a.b"}},
		{fs, "V\t2\n\na\x01tb\tc\n", nil},
	} {
		got := parseSubscriptions([]byte(test.text), test.location)
		if !slices.Equal(got.names, test.names) {
			t.Errorf("%q: %q, want %q", test.text, got.names, test.names)
		}
		if test.names != nil && string(got.format(test.location)) != test.text {
			t.Errorf("%q was written as %q", test.text, got.format(test.location))
		}
	}
}

func FuzzSubscriptions(f *testing.F) {
	f.Add([]byte("V\t2\n\nWork\ty\n"), false, false)
	f.Add([]byte("Work\nArchive.2023\n"), false, true)
	f.Fuzz(func(t *testing.T, text []byte, fs, utf bool) {
		l := location{fs: fs, utf8: utf}
		s := parseSubscriptions(text, l)
		for _, name := range s.names {
			if l.checkName(name) != nil {
				return
			}
		}
		if again := parseSubscriptions(s.format(l), l); !slices.Equal(again.names, s.names) {
			t.Fatalf("%q was read back as %q", s.names, again.names)
		}
	})
}

func TestUTF7(t *testing.T) {
	for name, coded := range map[string]string{
		"INBOX": "INBOX", "R&D": "R&-D", "Entwürfe": "Entw&APw-rfe", "送信済み": "&kAFP4W4IMH8-", "😀": "&2D3eAA-", "~peter/mail/台北/日本語": "~peter/mail/&U,BTFw-/&ZeVnLIqe-", "&&": "&-&-",
	} {
		if got := encodeUTF7(name); got != coded {
			t.Errorf("%q is coded %q, want %q", name, got, coded)
		}
		if got, ok := decodeUTF7(coded); !ok || got != name {
			t.Errorf("%q is read %q, %v", coded, got, ok)
		}
	}
	for _, bad := range []string{"&", "&AA", "&A-", "&AGE-", "a\x80", "ü", "&APw-&APw-", "&2D0-", "a\tb", "&APw=-"} {
		if got, ok := decodeUTF7(bad); ok {
			t.Errorf("%q is read %q", bad, got)
		}
	}
}

func FuzzUTF7(f *testing.F) {
	f.Add("Entw&APw-rfe")
	f.Add("台北&")
	f.Fuzz(func(t *testing.T, text string) {
		if name, ok := decodeUTF7(text); ok && encodeUTF7(name) != text {
			t.Fatalf("%q is read %q and coded %q", text, name, encodeUTF7(name))
		}
		if utf8.ValidString(text) {
			if name, ok := decodeUTF7(encodeUTF7(text)); !ok || name != text {
				t.Fatalf("%q is coded %q and read %q, %v", text, encodeUTF7(text), name, ok)
			}
		}
	})
}

func TestFileNames(t *testing.T) {
	for _, test := range []struct {
		name     string
		base     string
		flags    store.Flags
		reworked string // with \Seen and \Draft and letter b alone
	}{
		{"1700000000.1.h", "1700000000.1.h", 0, "1700000000.1.h:2,DSb"},
		{"1.h,S=2,W=3:2,", "1.h,S=2,W=3", 0, "1.h,S=2,W=3:2,DSb"},
		{"1.h:2,FRSTDac", "1.h", store.FlagFlagged | store.FlagAnswered | store.FlagSeen | store.FlagDeleted | store.FlagDraft, "1.h:2,DSb"},
		{"1.h:2,PS,xx", "1.h", store.FlagSeen, "1.h:2,DPSb,xx"},
		{"1.h:1,S", "1.h", 0, "1.h:2,DSb"},
	} {
		name := parseFileName(test.name)
		if name.base != test.base || name.flags() != test.flags {
			t.Errorf("%s: %+v %v", test.name, name, name.flags())
		}
		if got := name.withFlags(store.FlagSeen|store.FlagDraft, []byte("b")).String(); got != test.reworked {
			t.Errorf("%s became %s, want %s", test.name, got, test.reworked)
		}
	}
}

func FuzzFileName(f *testing.F) {
	f.Add("1700000000.M1P2Q3D0123456789abcdef01234567.h,S=2,W=3:2,FSa", uint8(5), "ab")
	f.Add("1.h:2,PS,xx", uint8(0), "")
	f.Fuzz(func(t *testing.T, text string, flags uint8, letters string) {
		name := parseFileName(text)
		if name.info && name.String() != text {
			t.Fatalf("%q was written as %q", text, name)
		}
		var keywords []byte
		for _, l := range []byte(letters) {
			if l >= 'a' && l <= 'z' {
				keywords = append(keywords, l)
			}
		}
		changed := parseFileName(name.withFlags(store.Flags(flags&31), keywords).String())
		if changed.base != name.base || changed.flags() != store.Flags(flags&31) || changed.rest != name.rest {
			t.Fatalf("%q became %+v", text, changed)
		}
		_ = markIn(text)
		_, _ = sizeIn(text, 'S')
	})
}

func TestDeliveryMark(t *testing.T) {
	mark := markOf("id", "mailbox")
	if len(mark) != markLength || mark == markOf("id", "other") || markOf("", "mailbox") != "" {
		t.Errorf("mark %q", mark)
	}
	source := newNameSource("h/o:s,t.example.org")
	base := source.next(mark)
	if markIn(base) != mark || markIn(base+",S=1,W=2") != mark || strings.ContainsAny(base, "/:,") {
		t.Errorf("base name %q", base)
	}
	for _, other := range []string{source.next(""), "1700000000.M1P2.vm,S=2", "x", "1.D0123456789abcdef0123456.h", "1.E0123456789abcdef01234567.h"} {
		if markIn(other) != "" {
			t.Errorf("%q has the mark %q", other, markIn(other))
		}
	}
}

func FuzzJournal(f *testing.F) {
	text := appendLine(nil, "postilion-index 1 5 guid")
	for _, line := range []string{"m 1 10 -5 7 100 =FSab kw1 kw2", "x 2 11 1700000000 =0123456789abcdef01234567", "r 3", "h 20 4", "n 9"} {
		text = appendLine(text, line)
	}
	f.Add(text)
	f.Add(text[:len(text)-3])
	f.Fuzz(func(t *testing.T, text []byte) {
		j := parseJournal(text)
		if j == nil {
			return
		}
		if j.validity == 0 || j.lines > bytes.Count(text, []byte("\n")) {
			t.Fatalf("%+v", j)
		}
		for uid := range j.messages {
			if uid >= j.next && uid+1 != 0 {
				t.Fatalf("UID %d and next %d", uid, j.next)
			}
		}
	})
}

func TestJournalStopsAtWhatIsTorn(t *testing.T) {
	text := appendLine(nil, "postilion-index 1 5 guid")
	text = appendLine(text, "m 1 10 -5 7 100 =FSab kw1 kw2")
	whole := len(text)
	text = appendLine(text, "m 2 11 1 1 1 =")
	for cut := whole; cut < len(text); cut++ {
		j := parseJournal(text[:cut])
		want := remembered{modseq: 10, date: -5, saved: 7, size: 100, letters: "FSab", more: []string{"kw1", "kw2"}}
		if j == nil || len(j.messages) != 1 || !reflect.DeepEqual(j.messages[1], want) || j.highest != 10 || j.next != 2 {
			t.Fatalf("cut at %d: %+v", cut, j)
		}
	}
	text[whole+3] ^= 1
	if j := parseJournal(text); len(j.messages) != 1 {
		t.Errorf("a damaged line was believed: %+v", j)
	}
	if parseJournal(text[9:]) != nil || parseJournal(nil) != nil {
		t.Errorf("a journal without its first line was believed")
	}
}

func TestLocations(t *testing.T) {
	for text, want := range map[string]location{
		"~/Maildir":                   {path: "/h/Maildir", inbox: "/h/Maildir", control: "/h/Maildir", index: "/h/Maildir"},
		"/m:LAYOUT=fs:DIRNAME=x":      {path: "/m", inbox: "/m", control: "/m", index: "/m", fs: true, dirname: "x"},
		"/m:INBOX=~/i:CONTROL=/c/":    {path: "/m", inbox: "/h/i", control: "/c", index: "/m"},
		"/m:INDEX=MEMORY:UTF-8":       {path: "/m", inbox: "/m", control: "/m", index: "/m", noIndex: true, utf8: true},
		"/m:LAYOUT=Maildir++:INDEX=~": {path: "/m", inbox: "/m", control: "/m", index: "/h"},
	} {
		if got, err := parseLocation(text, "/h"); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"": "not absolute", "Maildir": "not absolute", "~bob/Maildir": "another user", "/m:LAYOUT=index": "LAYOUT=index", "/m:FOO=1": `unknown option "FOO"`,
		"/m:DIRNAME=x": "LAYOUT=fs", "/m:LAYOUT=fs:DIRNAME=a/b": "DIRNAME", "/m:INDEX=x": "not absolute",
	} {
		if _, err := parseLocation(text, "/h"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := parseLocation("~/Maildir", ""); err == nil || !strings.Contains(err.Error(), "no home") {
		t.Errorf("without a home: %v", err)
	}
}

// TestLineEnds wants what is written to be read back as it was, but for bare LFs, however it is cut into pieces.
func TestLineEnds(t *testing.T) {
	for _, content := range []string{"", "a", "\r", "\n", "\r\n", "\r\r\n", "\r\r\r\n", "\r\n\r\n", "a\rb\r\n\rc\r", "\n\r\n\n", "a\r\r\n\r\nb", strings.Repeat("x\r\n", 100000), strings.Repeat("\r\r\n\ny", 50000)} {
		path := filepath.Join(t.TempDir(), "m")
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		w := &lineEnds{file: file}
		if err := w.copy([]byte("P: 1\r\n"), bytes.NewReader([]byte(content))); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := (&disk{files: hostFiles{}}).openBody(path)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, b.Size())
		if _, err := b.ReadAt(got, 0); err != nil && b.Size() > 0 {
			t.Fatal(err)
		}
		want := toNetwork(nil, []byte("P: 1\r\n"+content), false)
		if !bytes.Equal(got, want) || w.virtual != b.Size() {
			t.Errorf("%.40q was read back as %.40q, %d and %d octets", content, got, w.virtual, b.Size())
		}
		if size, err := networkSizeOf(bytes.NewReader([]byte(content))); err != nil || size != int64(len(want)-6) {
			t.Errorf("%.40q: size %d, want %d", content, size, len(want)-6)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}
