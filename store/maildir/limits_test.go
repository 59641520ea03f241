package maildir

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"postilion/store"
)

// TestLimits gives the readers of control files what others might write into them: nothing may take long, nor be taken for what it is not.
func TestLimits(t *testing.T) {
	t.Parallel()
	endless := bytes.Repeat([]byte("x"), 8<<20)
	digits := "99999999999999999999"
	if _, err := parseUIDList(append([]byte("3 V5 N1 G"), append(endless, '\n')...)); err == nil {
		t.Error("a UID list with an endless first line was taken")
	}
	for name, text := range map[string]string{
		"an endless record": "3 V5 N7 Ga\n1 :" + string(endless) + "\n2 :b\n",
		"20 digits":         "3 V5 N7 Ga\n" + digits + " :a\n2 :b\n",
		"NULs":              "3 V5 N7 Ga\n\x00\x00\x00\x00\n1 :a\x00\n2 :b\n",
		"a slash":           "3 V5 N7 Ga\n1 :../../x\n2 :b\n",
	} {
		list, err := parseUIDList([]byte(text))
		if err != nil || len(list.entries) != 1 || list.entries[0] != (uidEntry{uid: 2, base: "b"}) || list.next != 7 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, header := range []string{"3 V" + digits + " N1 Ga\n", "3 V1 N" + digits + " Ga\n", "3 V1 N-1 Ga\n", "\x00\n", "3 V0 N1 Ga\n"} {
		if _, err := parseUIDList([]byte(header)); err == nil {
			t.Errorf("%q was taken for a UID list", header)
		}
	}
	keywords := parseKeywords([]byte(digits + " a\n0 " + string(endless) + "\n1 a\x00b\n2 ok\n-1 x\n26 y\n"))
	if keywords != [letterKeywords]string{2: "ok"} {
		t.Errorf("keywords %q", keywords)
	}
	if s := parseSubscriptions([]byte("V\t2\n\n"+string(endless)+"\nWork\n\n"), location{}); len(s.names) != 1 || s.names[0] != "Work" {
		t.Errorf("%d subscriptions", len(s.names))
	}
	if j := parseJournal(append([]byte("00000000 "), endless...)); j != nil {
		t.Error("an endless journal line was taken")
	}
}

// TestMillionLines reads control files of a million lines. It would not end if the work grew with the square of that.
func TestMillionLines(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; not with -short")
	}
	t.Parallel()
	const lines = 1_000_000
	var list, subscribed, keywords bytes.Buffer
	list.WriteString("3 V5 N1 Ga\n")
	subscribed.WriteString("V\t2\n\n")
	for i := range lines {
		fmt.Fprintf(&list, "%d :m%d\n", i+1, i)
		fmt.Fprintf(&subscribed, "m%d\n", i)
		fmt.Fprintf(&keywords, "%d k%d\n", i, i)
	}
	parsed, err := parseUIDList(list.Bytes())
	if err != nil || len(parsed.entries) != lines || parsed.next != store.UID(lines+1) {
		t.Errorf("UID list: %v", err)
	}
	if s := parseSubscriptions(subscribed.Bytes(), location{}); len(s.names) != lines {
		t.Errorf("%d subscriptions", len(s.names))
	}
	if names := parseKeywords(keywords.Bytes()); names[letterKeywords-1] != "k25" {
		t.Errorf("keywords %q", names)
	}
	text := []byte(strings.Repeat("1 :x\n", lines))
	if list, err := parseUIDList(append([]byte("3 V5 N9 Ga\n"), text...)); err != nil || len(list.entries) != 1 {
		t.Errorf("one record a million times: %v", err)
	}
}
