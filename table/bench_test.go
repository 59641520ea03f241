package table_test

import (
	"fmt"
	"strings"
	"testing"

	"postilion/table"
)

func BenchmarkLookup(b *testing.B) {
	var virtual, checks, ranges strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&virtual, "user%d@example.com mailbox%d\n", i, i)
	}
	for i := range 200 {
		fmt.Fprintf(&checks, "/^Subject:.*spam phrase number %d$/ REJECT %d\n", i, i)
	}
	for i := range 1000 {
		fmt.Fprintf(&ranges, "10.%d.%d.0/24 r%d\n", i/256, i%256, i)
	}
	dir := write(b, map[string]string{"virtual": virtual.String(), "checks": checks.String(), "ranges": ranges.String()})
	for _, c := range []struct {
		name, spec, key string
		found           bool
	}{
		{"hash-hit", "hash:virtual", "user77777@example.com", true},
		{"hash-hit-folded", "hash:virtual", "User77777@Example.com", true},
		{"hash-miss", "hash:virtual", "nobody@example.com", false},
		{"pcre-200-rules-miss", "pcre:checks", "Subject: Re: the minutes of our last meeting, and a few words on the next one", false},
		{"regexp-200-rules-hit", "regexp:checks", "Subject: a spam phrase number 150", true},
		{"cidr-1000-ranges", "cidr:ranges", "10.3.200.9", true},
		{"pipemap", "pipemap:{hash:virtual,inline:{mailbox5=home}}", "user5@example.com", true},
	} {
		b.Run(c.name, func(b *testing.B) {
			t, err := table.Open(c.spec, table.Options{Directory: dir})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, found, err := t.Lookup(b.Context(), c.key); err != nil || found != c.found {
					b.Fatal(found, err)
				}
			}
		})
	}
}
