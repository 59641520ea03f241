package matchlist

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var errDown = errors.New("table is down")

type words map[string]string

func (w words) Lookup(_ context.Context, key string) (string, bool, error) {
	if w == nil {
		return "", false, errDown
	}
	value, ok := w[key]
	return value, ok, nil
}

func open(spec string) (Table, error) {
	switch spec {
	case "test:t":
		return words{"table.example": "x", ".parent.example": "x", "192.0.2.9": "x"}, nil
	case "test:down":
		return words(nil), nil
	}
	return nil, errors.New("unsupported dictionary type: " + spec)
}

func TestMatches(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "list")
	if err := os.WriteFile(file, []byte("# c\nin.file, !not.in.file\n  /"+strings.TrimPrefix(dir, "/")+"/more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), []byte("in.more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		list    string
		parents bool
		how     string
		text    string
		want    bool
	}{
		{"example.com", false, "domain", "Example.COM", true},
		{"example.com", false, "domain", "a.example.com", false},
		{"example.com", true, "domain", "a.example.com", true},
		{"example.com", true, "domain", "notexample.com", false},
		{".example.com", false, "domain", "a.example.com", true},
		{".example.com", false, "domain", "example.com", false},
		{"!a.example.com .example.com", false, "domain", "a.example.com", false},
		{".example.com !a.example.com", false, "domain", "a.example.com", true},
		{"test:t", false, "domain", "table.example", true},
		{"test:t", false, "domain", "a.b.parent.example", true},
		{"test:t", true, "domain", "a.b.parent.example", false},
		{"test:t", true, "domain", "a.table.example", true},
		{file, false, "domain", "in.file", true},
		{file, false, "domain", "in.more", true},
		{file, false, "domain", "not.in.file", false},
		{"!" + file, false, "domain", "not.in.file", true},
		{"a b", false, "string", "B", true},
		{"10.0.0.0/8", false, "host", "10.1.2.3", true},
		{"10.0.0.0/8", false, "host", "11.1.2.3", false},
		{"10.0.0.0/8", false, "host", "::ffff:10.1.2.3", true},
		{"!10.1.0.0/16 10.0.0.0/8", false, "host", "10.1.2.3", false},
		{"[2001:db8::]/32", false, "host", "2001:db8::5", true},
		{"2001:db8::/32", false, "host", "2001:db8::5", true},
		{"[::1]", false, "host", "::1", true},
		{"[::ffff:127.0.0.0]/104", false, "host", "127.0.0.1", true},
		{"[::ffff:127.0.0.0]/104", false, "host", "128.0.0.1", false},
		{"::/0", false, "host", "2001:db8::1", true},
		{"test:t", false, "host", "192.0.2.9", true},
	} {
		list, err := New("mynetworks", strings.Fields(row.list), Options{Open: open, ParentDomains: row.parents, Where: "main.cf:3"})
		if err != nil {
			t.Errorf("%s: %v", row.list, err)
			continue
		}
		var match Match
		switch row.how {
		case "domain":
			match, err = list.Domain(t.Context(), row.text)
		case "string":
			match, err = list.String(t.Context(), row.text)
		default:
			match, err = list.Host(t.Context(), "", netip.MustParseAddr(row.text))
		}
		if err != nil || match.Found != row.want {
			t.Errorf("%s has %s: %+v, %v", row.list, row.text, match, err)
		}
	}
}

func TestBadLists(t *testing.T) {
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.WriteFile(loop, []byte(loop+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	many := strings.Repeat("a ", maxPatterns+1)
	for text, want := range map[string]string{
		"10.1.2.3/8": "10.0.0.0/8", "10.0.0.0/99": "mask", "nosuch:t": "unsupported dictionary type", "/no/such": "no such file", "!": "without a pattern", "[::1": "]", loop: "deep", many: "use a table",
	} {
		_, err := New("mynetworks", strings.Fields(text), Options{Open: open, Where: "main.cf:3"})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "mynetworks") {
			t.Errorf("%.40s: %v", text, err)
		}
	}
	list, err := New("relay_domains", []string{"test:down"}, Options{Open: open, Where: "main.cf:3"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := list.Domain(t.Context(), "a.example"); !errors.Is(err, errDown) || !strings.Contains(err.Error(), "main.cf:3") {
		t.Errorf("a table that is down: %v", err)
	}
}
