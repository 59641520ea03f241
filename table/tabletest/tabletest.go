// Package tabletest holds every type of lookup table to the same promises. It is no test itself: tests of package table,
// and of packages that bring types of their own, call Run.
package tabletest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"postilion/table"
)

// Case is a table and what must be seen in it.
type Case struct {
	Spec    string
	Options table.Options
	// Hits gives the values of keys that are found.
	Hits map[string]string
	// Misses are keys that are not found.
	Misses []string
	// Fails are keys whose lookup is a temporary error.
	Fails []string
	// Pattern is what the table's Pattern must say.
	Pattern bool
	// Entries is what Each must list, nil when the type cannot list.
	Entries map[string]string
	// AnyKey marks types that answer every key, and types whose answer is not determined by the key.
	AnyKey bool
}

// Run checks a table against all promises.
func Run(t *testing.T, c Case) {
	t.Helper()
	opened, err := table.Open(c.Spec, c.Options)
	if err != nil {
		t.Fatalf("%s: %v", c.Spec, err)
	}
	ctx := t.Context()
	if opened.Spec() != c.Spec || opened.Pattern() != c.Pattern {
		t.Errorf("%s: Spec %q, Pattern %v", c.Spec, opened.Spec(), opened.Pattern())
	}
	if table.Changed(opened) {
		t.Errorf("%s: changed although nothing was", c.Spec)
	}
	answers(t, ctx, c, opened)
	strangeKeys(t, ctx, c, opened)
	listing(t, c, opened)
	concurrent(ctx, c, opened, func(format string, args ...any) { t.Errorf(format, args...) })
	answers(t, ctx, c, table.OpenLazily(c.Spec, c.Options))
}

func answers(t *testing.T, ctx context.Context, c Case, opened table.Table) {
	t.Helper()
	for key, want := range c.Hits {
		entry, found, err := opened.Find(ctx, key)
		if err != nil || !found || entry.Value != want {
			t.Errorf("%s: Find(%q) = %q, %v, %v; want %q", c.Spec, key, entry.Value, found, err, want)
		}
		if entry.Source == "" {
			t.Errorf("%s: Find(%q) does not say where the entry stands", c.Spec, key)
		}
		value, found, err := opened.Lookup(ctx, key)
		if err != nil || !found || value != want {
			t.Errorf("%s: Lookup(%q) = %q, %v, %v; want %q", c.Spec, key, value, found, err, want)
		}
	}
	for _, key := range c.Misses {
		if entry, found, err := opened.Find(ctx, key); err != nil || found || entry.Value != "" {
			t.Errorf("%s: Find(%q) = %q, %v, %v; want nothing", c.Spec, key, entry.Value, found, err)
		}
	}
	for _, key := range c.Fails {
		_, found, err := opened.Lookup(ctx, key)
		if err == nil || found || !strings.Contains(err.Error(), c.Spec) {
			t.Errorf("%s: Lookup(%q): %v, error %v; want an error that names the table", c.Spec, key, found, err)
		}
		var query *table.QueryError
		if !errors.As(err, &query) {
			t.Errorf("%s: Lookup(%q): %T is no QueryError", c.Spec, key, err)
		}
	}
}

// strangeKeys tries keys that no table may stumble over.
func strangeKeys(t *testing.T, ctx context.Context, c Case, opened table.Table) {
	t.Helper()
	if _, found, err := opened.Lookup(ctx, strings.Repeat("k", table.MaxKey+1)); found || err != nil {
		t.Errorf("%s: a key beyond the limit: %v, %v", c.Spec, found, err)
	}
	if _, found, err := opened.Lookup(ctx, "\xff\xfe"); !c.Options.NoUTF8 && (found || err != nil) {
		t.Errorf("%s: a key that is not UTF-8: %v, %v", c.Spec, found, err)
	}
	if c.AnyKey || len(c.Fails) > 0 {
		return
	}
	for _, key := range []string{"", " ", "\n", "\x00", "$1", "%s%s", "no such key", strings.Repeat("long", 1000)} {
		if _, listed := c.Hits[key]; listed {
			continue
		}
		if value, found, err := opened.Lookup(ctx, key); found || err != nil {
			t.Errorf("%s: Lookup(%q) = %q, %v, %v", c.Spec, key, value, found, err)
		}
	}
}

func listing(t *testing.T, c Case, opened table.Table) {
	t.Helper()
	got := map[string]string{}
	err := table.Each(opened, func(key, value string) bool {
		got[key] = value
		return true
	})
	if c.Entries == nil {
		if err == nil {
			t.Errorf("%s: lists %v", c.Spec, got)
		}
		return
	}
	if err != nil || len(got) != len(c.Entries) {
		t.Errorf("%s: lists %v, %v; want %v", c.Spec, got, err, c.Entries)
	}
	for key, value := range c.Entries {
		if got[key] != value {
			t.Errorf("%s: lists %q as %q; want %q", c.Spec, key, got[key], value)
		}
	}
	seen := 0
	_ = table.Each(opened, func(string, string) bool { seen++; return false })
	if seen != min(1, len(got)) {
		t.Errorf("%s: Each went on after false", c.Spec)
	}
}

func concurrent(ctx context.Context, c Case, opened table.Table, fail func(format string, args ...any)) {
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 5 {
				for key, want := range c.Hits {
					if value, found, err := opened.Lookup(ctx, key); err != nil || !found || value != want {
						fail("%s: at once: Lookup(%q) = %q, %v, %v", c.Spec, key, value, found, err)
					}
				}
			}
		})
	}
	group.Wait()
}
