package table_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postilion/table"
	"postilion/table/tabletest"
)

// write makes files in a fresh directory.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const virtual = `# comment
alice@example.com   Alice.Smith@example.com
bob@example.com	bob1,
# between
   bob2
UPPER@Example.COM   Mixed
"quoted key" quoted value
ÄRGER  umlaut
`

func TestConformance(t *testing.T) {
	dir := write(t, map[string]string{
		"virtual": virtual,
		"aliases": "Postmaster: root\nlist: alice,bob ,\"|cmd x\"\n\"semi;colon\": :include:/l\n",
		"re":      "/^exact@example\\.com$/ hit\n/^user([0-9]+)@(.*)$/ mailbox$1 at ${2}\nif !/@/\n/^b(a*)d$/ $1$$\nendif\n/\\s\\{6,\\}/ braces\n",
		"pcre":    "/^(?!owner-)(\\w+)-outgoing@/ 550 Use $(1)\n/^caf\\xc3\\xa9$/ coffee\n!/^[a-z@-]*$/s not plain\n",
		"cidr":    "192.0.2.1 host\n!192.0.2.0/24 other4\nif 2001:db8::/32\n2001:db8:1::/48 six1\n::/0 six\nendif\n",
		"value":   "one line\n",
	})
	in := func(o table.Options) table.Options {
		o.Directory = dir
		return o
	}
	text := map[string]string{
		"alice@example.com": "Alice.Smith@example.com", "bob@example.com": "bob1,   bob2", "upper@example.com": "Mixed",
		`"quoted key"`: "quoted value", "ärger": "umlaut",
	}
	textHits := map[string]string{"ALICE@example.com": "Alice.Smith@example.com", "Ärger": "umlaut"}
	for key, value := range text {
		textHits[key] = value
	}
	var cases []tabletest.Case
	for _, kind := range []string{"texthash", "hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "proxy:texthash"} {
		c := tabletest.Case{Spec: kind + ":virtual", Options: in(table.Options{}), Hits: textHits, Misses: []string{"quoted key", "alice", "# comment"}, Entries: text}
		if strings.HasPrefix(kind, "proxy") {
			c.Entries = nil
		}
		cases = append(cases, c)
	}
	cases = append(
		cases,
		tabletest.Case{Spec: "hash:aliases", Options: in(table.Options{Aliases: true}), Hits: map[string]string{"postmaster": "root", "LIST": `alice, bob, "|cmd x"`, "semi;colon": ":include:/l"}, Misses: []string{"root"}, Entries: map[string]string{"postmaster": "root", "list": `alice, bob, "|cmd x"`, "semi;colon": ":include:/l"}},
		tabletest.Case{Spec: "texthash:virtual", Options: in(table.Options{NoFold: true, NoUTF8: true}), Hits: map[string]string{"UPPER@Example.COM": "Mixed", "ÄRGER": "umlaut"}, Misses: []string{"upper@example.com", "ärger"}, Entries: map[string]string{"alice@example.com": "Alice.Smith@example.com", "bob@example.com": "bob1,   bob2", "UPPER@Example.COM": "Mixed", `"quoted key"`: "quoted value", "ÄRGER": "umlaut"}},
		tabletest.Case{Spec: "regexp:re", Options: in(table.Options{}), Pattern: true, Hits: map[string]string{"EXACT@example.com": "hit", "user42@x": "mailbox42 at x", "baad": "aa$", "\t{6,}": "braces"}, Misses: []string{"exact@example.comx", "@bad"}},
		tabletest.Case{Spec: "pcre:pcre", Options: in(table.Options{}), Pattern: true, AnyKey: true, Hits: map[string]string{"staff-outgoing@x": "550 Use staff", "Café": "coffee", "a1": "not plain"}, Misses: []string{"plain", "owner-staff-outgoing@x"}},
		tabletest.Case{Spec: "cidr:cidr", Options: in(table.Options{}), Pattern: true, Hits: map[string]string{"192.0.2.1": "host", "10.0.0.1": "other4", "2001:db8:1::5": "six1", "2001:DB8:2:0::5": "six"}, Misses: []string{"192.0.2.2", "2001:db9::1", "name", "::ffff:10.0.0.1", "fe80::1%lo", "[10.0.0.1]"}},
		tabletest.Case{Spec: "regexp:{ {/^(.*)@x$/ $1}, {if /w/} {/y$/ why} {endif} }", Pattern: true, Hits: map[string]string{"joe@X": "joe", "why": "why"}, Misses: []string{"no", "wyx"}},
		tabletest.Case{Spec: "inline:{ a=1 {b = {x}, y} A=3 }", Hits: map[string]string{"A": "3", "b": "{x}, y"}, Misses: []string{"c"}, Entries: map[string]string{"a": "3", "b": "{x}, y"}},
		tabletest.Case{Spec: "static:{two words}", Pattern: true, AnyKey: true, Hits: map[string]string{"": "two words", "x": "two words"}},
		tabletest.Case{Spec: "static:value", Options: in(table.Options{ValuesAreFiles: true}), Pattern: true, AnyKey: true, Hits: map[string]string{"x": "one line\n"}},
		tabletest.Case{Spec: "fail:down", Pattern: true, Fails: []string{"a", ""}},
		tabletest.Case{Spec: "unionmap:{texthash:virtual, static:all}", Options: in(table.Options{}), Pattern: true, AnyKey: true, Hits: map[string]string{"upper@example.com": "Mixed,all", "x": "all"}},
		tabletest.Case{Spec: "pipemap:{inline:{a=Alice@example.com},hash:virtual}", Options: in(table.Options{}), Pattern: true, Hits: map[string]string{"A": "Alice.Smith@example.com"}, Misses: []string{"alice@example.com"}},
		tabletest.Case{Spec: "pipemap:{inline:{a=1},fail:down}", Pattern: true, Fails: []string{"a"}},
		tabletest.Case{Spec: "randmap:{only}", Pattern: true, AnyKey: true, Hits: map[string]string{"x": "only"}},
		tabletest.Case{Spec: "environ:x", Options: table.Options{NoFold: true, Getenv: func(name string) string { return map[string]string{"HOME": "/root"}[name] }}, Hits: map[string]string{"HOME": "/root"}, Misses: []string{"home"}},
		tabletest.Case{Spec: "tcp:" + tcpServer(t), Pattern: true, Hits: map[string]string{"two words": "a%b", "Mixed": "kept"}, Misses: []string{"mixed"}, AnyKey: true},
		tabletest.Case{Spec: "tcp:" + tcpServer(t), Pattern: true, Fails: []string{"soft", "garbage"}},
		tabletest.Case{Spec: "socketmap:unix:" + socketmapServer(t) + ":m1", Pattern: true, Hits: map[string]string{"a b": "space", "Mixed": "kept"}, Misses: []string{"mixed"}},
		tabletest.Case{Spec: "socketmap:unix:" + socketmapServer(t) + ":m1", Pattern: true, Fails: []string{"temp", "perm", "nonsense", "netstring"}},
	)
	for _, c := range cases {
		t.Run(c.Spec, func(t *testing.T) { tabletest.Run(t, c) })
	}
}

func serve(t *testing.T, network, address string, session func(r *bufio.Reader, w io.Writer) error) string {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("cannot listen on the loopback: %v", err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				reader := bufio.NewReader(conn)
				for session(reader, conn) == nil {
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func tcpServer(t *testing.T) string {
	return serve(t, "tcp", "127.0.0.1:0", func(r *bufio.Reader, w io.Writer) error {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		reply, ok := map[string]string{"get two%20words": "200 a%25b", "get Mixed": "200 kept", "get soft": "400 later", "get garbage": "hello"}[strings.TrimSpace(line)]
		if !ok {
			reply = "500 unknown"
		}
		_, err = io.WriteString(w, reply+"\n")
		return err
	})
}

func socketmapServer(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, "unix", path, func(r *bufio.Reader, w io.Writer) error {
		length := 0
		if _, err := fmt.Fscanf(r, "%d:", &length); err != nil {
			return err
		}
		text := make([]byte, length+1)
		if _, err := io.ReadFull(r, text); err != nil {
			return err
		}
		reply, ok := map[string]string{"m1 a b": "OK space", "m1 Mixed": "OK kept", "m1 temp": "TEMP later", "m1 perm": "PERM never", "m1 nonsense": "WHAT"}[string(text[:length])]
		if !ok {
			reply = "NOTFOUND "
		}
		if string(text[:length]) == "m1 netstring" {
			_, err := io.WriteString(w, "99999999999:")
			return err
		}
		_, err := fmt.Fprintf(w, "%d:%s,", len(reply), reply)
		return err
	})
	return path
}

func TestBadSpecifications(t *testing.T) {
	dir := write(t, map[string]string{"foreign.db": "\x00\x06\x15\x61 Berkeley", "damaged.db": "postilion index 1\nxx"})
	for spec, want := range map[string]string{
		"nothing":                    `open dictionary: expecting "type:name" form instead of "nothing"`,
		"texthash:":                  `open dictionary: expecting "type:name" form instead of "texthash:"`,
		"bogus:x":                    "unsupported dictionary type: bogus",
		"texthash:/nonexistent/file": "open database /nonexistent/file: No such file or directory",
		"hash:/nonexistent/file":     "open database /nonexistent/file.db: No such file or directory",
		"pcre:/nonexistent/file":     "open /nonexistent/file: No such file or directory",
		"inline:a=1":                 `bad syntax: "inline:a=1"; need "inline:{name=value...}"`,
		"inline:{ {a} }":             `missing '=' after attribute name: "inline:{ {a} }"; need "inline:{name=value...}"`,
		"unionmap:{static}":          `bad syntax: "unionmap:{static}"; need "unionmap:{type:name...}"`,
		"pipemap:{bogus:x}":          "unsupported dictionary type: bogus",
		"static:{a}b":                `bad static:name syntax: syntax error after '}' in "{a}b"`,
		"randmap:{}":                 `bad syntax: "randmap:{}"; need "randmap:{value...}"`,
		"unix:bogus":                 "unknown table: unix:bogus",
		"pcre:{ if /a/ }":            `pcre map: no '{' at start of text in "if"`,
		"socketmap:x":                "socketmap requires server:socketmap argument",
		"hash:damaged":               "index is damaged",
		"hash:foreign":               "index was written by another program",
		strings.Repeat("proxy:", 20) + "static:x": "nested deeper",
	} {
		options := table.Options{Directory: dir}
		_, err := table.Open(spec, options)
		var open *table.OpenError
		if !errors.As(err, &open) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", spec, err, want)
			continue
		}
		broken := table.OpenLazily(spec, options)
		if _, found, err := broken.Lookup(context.Background(), "a"); found || !errors.As(err, &open) {
			t.Errorf("%s: lookup in what did not open: %v, %v", spec, found, err)
		}
		if !table.Changed(broken) {
			t.Errorf("%s: what did not open is worth another try", spec)
		}
	}
}

func TestNestedUnionsEnd(t *testing.T) {
	spec := "static:x"
	for range 20 {
		spec = "unionmap:{" + spec + "}"
	}
	if _, err := table.Open(spec, table.Options{}); err == nil {
		t.Error("a union nested 20 deep was opened")
	}
}

func TestSourceNamesLine(t *testing.T) {
	dir := write(t, map[string]string{"t": "a 1\n\n# c\nb 2\n 3\nc 4\n", "r": "if /x/\n/a/ 1\nendif\n/b/ 2\n"})
	for spec, want := range map[string]string{"texthash:t": "t:4", "hash:t": "t:4", "regexp:r": "r:4", "pipemap:{inline:{b=b},pcre:r}": "r:4"} {
		entry, found, err := table.OpenLazily(spec, table.Options{Directory: dir}).Find(t.Context(), "b")
		if err != nil || !found || !strings.HasSuffix(entry.Source, want) {
			t.Errorf("%s: %+v, %v, %v; want ...%s", spec, entry, found, err, want)
		}
	}
}

func TestChanged(t *testing.T) {
	dir := write(t, map[string]string{"t": "a 1\n"})
	path := filepath.Join(dir, "t")
	for _, spec := range []string{"texthash:t", "hash:t", "unionmap:{static:x,proxy:hash:t}"} {
		opened := table.OpenLazily(spec, table.Options{Directory: dir})
		if table.Changed(opened) {
			t.Errorf("%s: changed at once", spec)
		}
		if err := os.WriteFile(path, []byte("a 22\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !table.Changed(opened) {
			t.Errorf("%s: a rewrite went unnoticed", spec)
		}
		if err := os.WriteFile(path, []byte("a 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opened := table.OpenLazily("hash:t", table.Options{Directory: dir})
	index := table.NewIndex()
	index.Put("a", "from index", 1)
	if err := index.Save(path+".db", nil); err != nil {
		t.Fatal(err)
	}
	if !table.Changed(opened) {
		t.Error("a new index went unnoticed")
	}
	if value, _, _ := table.OpenLazily("hash:t", table.Options{Directory: dir}).Lookup(t.Context(), "a"); value != "from index" {
		t.Errorf("with an index the value is %q", value)
	}
}

func TestOldIndexIsUsedWithAWarning(t *testing.T) {
	dir := write(t, map[string]string{"t": "a 1\n"})
	path := filepath.Join(dir, "t")
	index := table.NewIndex()
	index.Put("a", "old", 1)
	if err := index.Save(path+".db", nil); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	var warnings []string
	opened := table.OpenLazily("hash:t", table.Options{Directory: dir, Warn: func(text string) { warnings = append(warnings, text) }})
	if value, _, err := opened.Lookup(t.Context(), "a"); value != "old" || err != nil {
		t.Errorf("%q, %v", value, err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "is older than source file") {
		t.Errorf("warnings: %q", warnings)
	}
}

func TestLimits(t *testing.T) {
	dir := write(t, map[string]string{
		"line": "a " + strings.Repeat("x", table.MaxLine+10) + "\n",
		"fold": "a 1\n" + strings.Repeat(" continued"+strings.Repeat("y", 1000)+"\n", 1100),
	})
	big, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Truncate(table.MaxFileSize + 1); err != nil {
		t.Skipf("no sparse files: %v", err)
	}
	_ = big.Close()
	for _, spec := range []string{"texthash:line", "texthash:fold", "regexp:line", "texthash:big", "pcre:big", "hash:line"} {
		if _, err := table.Open(spec, table.Options{Directory: dir}); err == nil || !strings.Contains(err.Error(), "than") {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

func TestSpentBudgetIsATemporaryError(t *testing.T) {
	dir := write(t, map[string]string{"r": `/^(a*)*(a*)*\2x(b|\1)*$/ never` + "\n"})
	_, found, err := table.OpenLazily("pcre:r", table.Options{Directory: dir}).Lookup(t.Context(), strings.Repeat("a", 4000)+"x!")
	var query *table.QueryError
	if found || !errors.As(err, &query) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("%v, %v", found, err)
	}
}

func TestLint(t *testing.T) {
	dir := write(t, map[string]string{"r": "/a\\{6,\\}/ x\n/[^\\n]/ y\n/fine/ z\n"})
	var lints []string
	table.OpenLazily("regexp:r", table.Options{Directory: dir, Lint: func(text string) { lints = append(lints, text) }})
	if len(lints) != 2 || !strings.Contains(lints[0], "line 1") || !strings.Contains(lints[1], "line 2") {
		t.Errorf("%q", lints)
	}
}
