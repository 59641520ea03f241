package dovecotauth

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEscapes(t *testing.T) {
	hard := "a\x00b\x01c\td\re\nf"
	line := AppendLine(nil, "X", hard, "")
	if string(line) != "X\ta\x010b\x011c\x01td\x01re\x01nf\t\n" {
		t.Errorf("line %q", line)
	}
	if got := Split(bytes.TrimSuffix(line, []byte("\n"))); !reflect.DeepEqual(got, []string{"X", hard, ""}) {
		t.Errorf("words %q", got)
	}
	if got := Unescape("a\x01xb\x01"); got != "axb" {
		t.Errorf("unknown escape and one at the end: %q", got)
	}
}

func TestHandshake(t *testing.T) {
	sent := Handshake{Mechanisms: []Mechanism{{"PLAIN", []string{"plaintext"}}, {"CRAM-MD5", []string{"dictionary", "active"}}}, SPID: 7, CUID: 1, Cookie: "00ff"}
	text := string(sent.Append(nil))
	want := "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tCRAM-MD5\tdictionary\tactive\nSPID\t7\nCUID\t1\nCOOKIE\t00ff\nDONE\n"
	if text != want {
		t.Errorf("handshake %q", text)
	}
	var got Handshake
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		done, err := got.Take([]byte(line))
		if err != nil || done != (i == 6) {
			t.Fatalf("%s: %v, %v", line, done, err)
		}
	}
	if !got.Mechanisms[1].Has("active") || got.Mechanisms[0].Has("active") || got.SPID != 7 || got.CUID != 1 || got.Cookie != "00ff" {
		t.Errorf("handshake %+v", got)
	}
	for _, bad := range []string{"VERSION\t2\t0", "VERSION\t1", "MECH\tPLAIN", ""} {
		if _, err := new(Handshake).Take([]byte(bad)); !errors.Is(err, ErrProtocol) {
			t.Errorf("first line %q: %v", bad, err)
		}
	}
	var many Handshake
	_, err := many.Take([]byte("VERSION\t1\t1"))
	for range MaxMechanisms + 1 {
		if err == nil {
			_, err = many.Take([]byte("MECH\tX"))
		}
	}
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("endless mechanisms: %v", err)
	}
	for _, bad := range []string{"MECH", "SPID", "SPID\tx", "CUID\t99999999999"} {
		h := Handshake{version: true}
		if _, err := h.Take([]byte(bad)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestRequests(t *testing.T) {
	for _, r := range []Request{
		{Verb: Auth, ID: 1, Mechanism: "PLAIN", Params: Params{{"service", "smtp"}, {"secured", ""}, {"rip", "192.0.2.1"}}, Response: []byte("\x00a\x00b")},
		{Verb: Auth, ID: 4294967295, Mechanism: "LOGIN", Params: Params{{"service", "smtp"}}},
		{Verb: Auth, ID: 2, Mechanism: "EXTERNAL", Params: Params{{"service", "smtp"}}, Response: []byte{}},
		{Verb: Continue, ID: 3, Response: []byte("x")},
		{Verb: Cancel, ID: 3},
	} {
		l := Listener{version: true}
		line := bytes.TrimSuffix(r.Append(nil), []byte("\n"))
		if got, err := l.Take(line); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	for _, bad := range []string{
		"AUTH", "AUTH\t1", "AUTH\t0\tPLAIN\tservice=x", "AUTH\t-1\tPLAIN\tservice=x", "AUTH\t4294967296\tPLAIN\tservice=x", "AUTH\t1\tPLAIN", "AUTH\t1\t\tservice=x",
		"CONT", "CONT\tx\t", "CANCEL", "CANCEL\t", "FOO\tbar", "", "VERSION\t9\t1",
	} {
		l := Listener{version: true}
		if got, err := l.Take([]byte(bad)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
	var l Listener
	if _, err := l.Take([]byte("CPID\t1")); !errors.Is(err, ErrProtocol) || l.Greeted() {
		t.Errorf("CPID before VERSION: %v", err)
	}
	l = Listener{version: true}
	for _, line := range []string{"AUTH\t1\tPLAIN\tservice=smtp\tresp=???", "CONT\t1\t???"} {
		if got, err := l.Take([]byte(line)); err != nil || !got.Malformed {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
}

func TestReplies(t *testing.T) {
	for _, r := range []Reply{
		{Outcome: OK, ID: 1, Params: Params{{"user", "a"}}},
		{Outcome: OK, ID: 1, Params: Params{{"user", "a"}}, Data: []byte("v=x")},
		{Outcome: Fail, ID: 2, Params: Params{{"user", "a"}, {"temp", ""}, {"reason", "closed\tfor now"}}},
		{Outcome: Challenge, ID: 3, Data: []byte{}},
		{Outcome: Challenge, ID: 3, Data: []byte("Password:")},
	} {
		line := bytes.TrimSuffix(r.Append(nil), []byte("\n"))
		if got, ok, err := ParseReply(line); !ok || err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%q: %+v, %v, %v", line, got, ok, err)
		}
	}
	for _, bad := range []string{"OK", "OK\tx", "FAIL\t0", "CONT\t1\t???", "OK\t1\tresp=?"} {
		if _, _, err := ParseReply([]byte(bad)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, ok, err := ParseReply([]byte("MECH\tX")); ok || err != nil {
		t.Errorf("a late MECH: %v, %v", ok, err)
	}
}

func TestLookups(t *testing.T) {
	for _, l := range []Lookup{
		{User, 1, "al\tice", Params{{"service", "lmtp"}}},
		{Pass, 2, "bob", Params{{"service", "imap"}, {"rip", "::1"}}},
		{List, 3, "", Params{{"service", "imap"}, {"user", "a*"}}},
		{FlushCache, 4, "", nil},
	} {
		m := MasterListener{version: true}
		line := bytes.TrimSuffix(l.Append(nil), []byte("\n"))
		if got, err := m.Take(line); err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	for _, bad := range []string{"", "USER", "USER\t1", "USER\t1\ta", "USER\tx\ta\tservice=x", "LIST", "CPID\t9", "LIST\t1"} {
		m := MasterListener{version: true}
		if _, err := m.Take([]byte(bad)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, a := range []Answer{
		{Found, 1, false, "alice", Params{{"uid", "7"}, {"home", "/a b"}}},
		{Found, 1, true, "", Params{{"user", "a"}}},
		{NotFound, 1, false, "", nil},
		{Failed, 1, false, "", Params{{"reason", "x"}}},
		{Listed, 1, false, "bob", nil},
		{Done, 1, false, "", nil},
	} {
		line := bytes.TrimSuffix(a.Append(nil), []byte("\n"))
		if got, ok, err := ParseAnswer(line); !ok || err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%q: %+v, %v, %v", line, got, ok, err)
		}
	}
	for _, bad := range []string{"USER\t1", "LIST\t1", "DONE", "VERSION\t2\t0", "FAIL\tx"} {
		if _, _, err := ParseAnswer([]byte(bad)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzLines(f *testing.F) {
	for _, seed := range []string{
		"VERSION\t1\t2", "AUTH\t1\tPLAIN\tservice=smtp\tresp=AGEAYg==", "CONT\t1\tAA==", "OK\t1\tuser=a", "FAIL\t1\ttemp", "USER\t1\ta\tservice=x\tb\x01tc", "LIST\t1\ta", "DONE\t1\t",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		words := Split(line)
		if back := Split(bytes.TrimSuffix(AppendLine(nil, words...), []byte("\n"))); !slices.Equal(words, back) {
			t.Errorf("%q is read back as %q", words, back)
		}
		l, m, h := Listener{version: true}, MasterListener{version: true}, Handshake{version: true}
		_, _ = h.Take(line)
		if r, err := l.Take(line); err == nil && r.Verb != Hello && !r.Malformed {
			if again, err := l.Take(bytes.TrimSuffix(r.Append(nil), []byte("\n"))); err != nil || again.ID != r.ID || !bytes.Equal(again.Response, r.Response) {
				t.Errorf("%+v is read back as %+v, %v", r, again, err)
			}
		}
		if k, err := m.Take(line); err == nil && k.Question != Nothing {
			if again, err := m.Take(bytes.TrimSuffix(k.Append(nil), []byte("\n"))); err != nil || again.Name != k.Name {
				t.Errorf("%+v is read back as %+v, %v", k, again, err)
			}
		}
		if r, ok, err := ParseReply(line); ok && err == nil {
			if again, ok, err := ParseReply(bytes.TrimSuffix(r.Append(nil), []byte("\n"))); !ok || err != nil || again.ID != r.ID {
				t.Errorf("%+v is read back as %+v, %v", r, again, err)
			}
		}
		_, _, _ = ParseAnswer(line)
	})
}
