package dovecot

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func FuzzRead(f *testing.F) {
	for _, s := range []string{
		filtered, modern, "plugin {\n a = $b\n}\n", "auth x {\nsocket listen {\nclient {\npath=/a\n}\n}\n}\n", "a = \\\n b # c\n", "protocols = imaps\nlisten = *:1\n",
		"namespace x {\n mailbox \"a b\" {\n auto = no\n }\n}\n}", "remote 10.0.0.0/99 {\n", "ssl_cert = <x\nmail_debug = <y\n", "service {\n}\n", "a = \"b\\\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "!include") {
			t.Skip("files are not for the fuzzer")
		}
		r := newReader(Options{
			ReadFile:   func(string) (string, error) { return "yes", nil },
			LookupHost: func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no network") },
		}, theRegistry())
		r.input = &input{path: "fuzz"}
		r.readText(text)
		r.finish()
		c := &Config{file: "fuzz", registry: r.registry, layers: r.layers, errors: r.errors, warnings: r.warnings}
		c.global = c.For(Filter{})
		c.checkValues()
		for _, l := range c.layers {
			for name, v := range l.root.values {
				s := c.registry.lookup("", name)
				if again, err := s.normal(v.text); v.path == "" && (err != nil || again != v.text) {
					t.Errorf("%s = %q is not normal: %q, %v", name, v.text, again, err)
				}
			}
			c.Conflict(probe(l.filter))
			c.Export(ExportOptions{Filter: probe(l.filter), Scope: ScopeChanged})
		}
		c.ExportBlocks(ExportOptions{})
		c.Check()
	})
}

func BenchmarkLoad(b *testing.B) {
	file := write(b, filtered+"passdb {\n driver = pam\n}\nnamespace inbox {\n mailbox Sent {\n  special_use = \\Sent\n }\n}\n", "cert.pem", "CERT")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(file); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFor(b *testing.B) {
	c := load(b, filtered, "cert.pem", "CERT")
	f := Filter{Protocol: "imap", RemoteNet: netip.MustParsePrefix("10.1.2.3/32")}
	b.ReportAllocs()
	for b.Loop() {
		c.For(f)
	}
}

func BenchmarkExpand(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Expand("maildir:/mail/%Ld/%Ln", someone); err != nil {
			b.Fatal(err)
		}
	}
}
