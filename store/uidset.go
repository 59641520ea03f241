package store

import (
	"iter"
	"slices"
	"sort"
	"strconv"
)

// UIDRange is First to Last, both included; First is never above Last.
type UIDRange struct {
	First, Last UID
}

// UIDSet is a set of UIDs as rising ranges that neither overlap nor touch. Build it with UIDSetOf, UIDSetRange and Add; the zero value is empty.
// A set of all UIDs takes one range, so its size is not a measure of what it holds.
type UIDSet []UIDRange

// AllUIDs holds every possible UID.
func AllUIDs() UIDSet { return UIDSet{{1, 1<<32 - 1}} }

// UIDSetOf makes a set of single UIDs in any order.
func UIDSetOf(uids ...UID) UIDSet {
	if !slices.IsSorted(uids) {
		uids = slices.Sorted(slices.Values(uids))
	}
	var set UIDSet
	for _, uid := range uids {
		set = set.Add(uid)
	}
	return set
}

// UIDSetRange makes the set from first to last, in either order.
func UIDSetRange(first, last UID) UIDSet {
	if first > last {
		first, last = last, first
	}
	return UIDSet{{first, last}}
}

// Add returns the set with uid in it; the receiver must not be used any more. Adding in rising order costs constant time.
func (s UIDSet) Add(uid UID) UIDSet { return s.AddRange(uid, uid) }

// AddRange returns the set with first to last in it; the receiver must not be used any more.
func (s UIDSet) AddRange(first, last UID) UIDSet {
	if n := len(s); n == 0 || (first > s[n-1].Last && first-s[n-1].Last > 1) {
		return append(s, UIDRange{first, last})
	}
	from := sort.Search(len(s), func(i int) bool { return s[i].Last >= first || first-s[i].Last <= 1 })
	to := from
	for to < len(s) && (s[to].First <= last || s[to].First-last <= 1) {
		first, last = min(first, s[to].First), max(last, s[to].Last)
		to++
	}
	return slices.Replace(s, from, to, UIDRange{first, last})
}

// Contains tells whether uid is in the set.
func (s UIDSet) Contains(uid UID) bool {
	i := sort.Search(len(s), func(i int) bool { return s[i].Last >= uid })
	return i < len(s) && s[i].First <= uid
}

// Count returns how many UIDs the set holds.
func (s UIDSet) Count() uint64 {
	var n uint64
	for _, r := range s {
		n += uint64(r.Last-r.First) + 1
	}
	return n
}

// All yields the UIDs in rising order.
func (s UIDSet) All() iter.Seq[UID] {
	return func(yield func(UID) bool) {
		for _, r := range s {
			for uid := r.First; ; uid++ {
				if !yield(uid) {
					return
				}
				if uid == r.Last {
					break
				}
			}
		}
	}
}

// Append writes the set in IMAP's form, such as 1:3,7.
func (s UIDSet) Append(dst []byte) []byte {
	for i, r := range s {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(r.First), 10)
		if r.Last != r.First {
			dst = append(dst, ':')
			dst = strconv.AppendUint(dst, uint64(r.Last), 10)
		}
	}
	return dst
}

func (s UIDSet) String() string { return string(s.Append(nil)) }
