package store

import (
	"testing"

	"pgregory.net/rapid"
)

func TestUIDSetAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set UIDSet
		model := map[UID]bool{}
		for range rapid.IntRange(0, 40).Draw(t, "n") {
			first := UID(rapid.IntRange(1, 60).Draw(t, "first"))
			last := first + UID(rapid.IntRange(0, 8).Draw(t, "length"))
			set = set.AddRange(first, last)
			for uid := first; uid <= last; uid++ {
				model[uid] = true
			}
		}
		for uid := UID(1); uid <= 80; uid++ {
			if set.Contains(uid) != model[uid] {
				t.Fatalf("%v.Contains(%d) = %v", set, uid, set.Contains(uid))
			}
		}
		if set.Count() != uint64(len(model)) {
			t.Fatalf("%v: count %d, want %d", set, set.Count(), len(model))
		}
		for i := 1; i < len(set); i++ {
			if set[i].First-set[i-1].Last < 2 {
				t.Fatalf("%v: ranges touch", set)
			}
		}
		n := 0
		for uid := range set.All() {
			if !model[uid] {
				t.Fatalf("%v yields %d", set, uid)
			}
			n++
		}
		if n != len(model) {
			t.Fatalf("%v yields %d of %d", set, n, len(model))
		}
	})
}

func TestUIDSetEnds(t *testing.T) {
	all := AllUIDs()
	if !all.Contains(1) || !all.Contains(1<<32-1) || all.Contains(0) || all.Count() != 1<<32-1 {
		t.Errorf("AllUIDs = %v", all)
	}
	set := UIDSetRange(1<<32-1, 1<<32-3).Add(1<<32 - 4).Add(1)
	if got := set.String(); got != "1,4294967292:4294967295" {
		t.Error(got)
	}
	n := 0
	for range set.All() {
		n++
	}
	if n != 5 {
		t.Errorf("All yields %d of 5", n)
	}
	if got := UIDSetOf(5, 3, 4, 9, 3).String(); got != "3:5,9" {
		t.Error(got)
	}
}
