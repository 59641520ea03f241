package table_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postilion/table"
)

func FuzzOpen(f *testing.F) {
	for _, spec := range []string{
		"inline:{a=1, {b = c d}}", "static:{x}", "unionmap:{static:a,inline:{b=c}}", "pipemap:{inline:{a=b},inline:{b=c}}",
		"randmap:{a,b}", "pcre:{{/a(b)/ $1}}", "cidr:{{::/0 x}}", "regexp:{ {if !/a/i} {/b/m ${1}} {endif} }", "proxy:fail:x",
		"environ:x", "inline:{{{}}}", "unionmap:{{{}", "static:}", "socketmap:inet:h:1:m", "tcp:h:1",
	} {
		f.Add(spec, "a")
	}
	f.Fuzz(func(t *testing.T, spec, key string) {
		if strings.Contains(spec, "tcp:") || strings.Contains(spec, "socketmap:") || strings.Contains(spec, "unix:") {
			return
		}
		opened, err := table.Open(spec, table.Options{Directory: "/nonexistent", Warn: func(string) {}})
		if err != nil {
			return
		}
		_, _, _ = opened.Lookup(context.Background(), key)
		_ = table.Changed(opened)
	})
}

func FuzzFiles(f *testing.F) {
	for _, text := range []string{
		virtual, "a: b, c\n\"d e\": |x\n", "/a/ b\nif /c/\n!/d(e)/i $1\nendif\n", "10.0.0.0/8 x\nif !::/0\nendif\n", "postilion index 1\n",
		"postilion index 1\n\x01a\x01b\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00", " lead\n\n#c\n\tx\n\"open\n",
	} {
		f.Add(text, "a")
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text, key string) {
		for _, name := range []string{"t", "i.db"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, spec := range []string{"texthash:t", "hash:i", "pcre:t", "regexp:t", "cidr:t"} {
			for _, aliases := range []bool{false, true} {
				opened, err := table.Open(spec, table.Options{Directory: dir, Aliases: aliases, Warn: func(string) {}, Lint: func(string) {}})
				if err != nil {
					continue
				}
				_, _, _ = opened.Lookup(context.Background(), key)
				_ = table.Each(opened, func(key, value string) bool { return true })
			}
		}
	})
}

// FuzzAlias also checks that what is written for an alias reads back as the same.
func FuzzAlias(f *testing.F) {
	for _, line := range []string{`a: b`, `"a b": "|x \"y\"", c (d) <e@f>, :include:/g`, `a: [b]c;d`, `a\,b: c`, `a: "`, `(x: y`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		_, value, err := table.SplitAlias(line)
		if err != nil {
			return
		}
		_, again, err := table.SplitAlias("x: " + value)
		if err == nil && strings.TrimSpace(again) != strings.TrimSpace(value) && !strings.ContainsAny(line, "([\\") {
			t.Fatalf("%q: %q, then %q", line, value, again)
		}
	})
}
