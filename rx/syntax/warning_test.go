package syntax

import (
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		notation Notation
		pattern  string
		want     string // part of the only warning, "" for none
	}{
		{POSIXExtended, `^X-.{6,}\.\{6,\}`, `written {6,}`},
		{Perl, `a\{6,\}`, `written {6,}`},
		{POSIXBasic, `a\{6,\}`, ``},
		{POSIXExtended, `\{x\}`, ``},
		{POSIXExtended, `[^\n]+`, `holds a backslash`},
		{Perl, `[^\n]+\d`, ``},
		{POSIXExtended, `a\d+`, `[[:digit:]]`},
		{POSIXExtended, `\s\w\b\<x\>\.\/`, ``},
		{POSIXExtended, `.*?x`, `lazy`},
		{POSIXExtended, `\*?x`, ``},
		{POSIXExtended, `[:alpha:]+`, `[[:alpha:]]`},
		{POSIXExtended, `[[:alpha:]]+[]\.]`, ``},
		{POSIXExtended, `[`, ``},
		{POSIXExtended, `[[:`, ``},
	} {
		got := Warnings(c.notation, c.pattern)
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: %v", c.pattern, got)
		case c.want != "" && (len(got) != 1 || !strings.Contains(got[0].Text, c.want)):
			t.Errorf("%s: %v; want %q", c.pattern, got, c.want)
		}
	}
}

func FuzzWarnings(f *testing.F) {
	f.Add(uint8(1), `[^\n]\{6,\}[[:x`)
	f.Fuzz(func(t *testing.T, notation uint8, pattern string) {
		for _, w := range Warnings(Notation(notation%3), pattern) {
			if w.Offset < 0 || w.Offset >= len(pattern) {
				t.Fatalf("%q: %v", pattern, w)
			}
		}
	})
}
