package vault

import (
	"slices"
	"sort"

	"postilion/store"
)

// chunkLen is how many entries one chunk of an index holds at most.
const chunkLen = 256

// index holds the entries of a mailbox in the order of their UIDs. It is a value that never changes for those who hold it: a change returns a
// new index that shares all chunks that are the same. Only the newest index may be changed, for adding writes into spare room that all share.
type index struct {
	// full are the chunks before the tail. starts and tops give for each the position of its first entry and its highest mod-sequence.
	full   [][]entry
	starts []int32
	tops   []store.ModSeq
	tail   []entry
	// before is the number of entries in full.
	before int
}

func (x *index) len() int { return x.before + len(x.tail) }

// chunk returns chunk number c; the tail is the last one.
func (x *index) chunk(c int) []entry {
	if c < len(x.full) {
		return x.full[c]
	}
	return x.tail
}

func (x *index) at(i int) *entry {
	if i >= x.before {
		return &x.tail[i-x.before]
	}
	c := sort.Search(len(x.starts), func(c int) bool { return int(x.starts[c]) > i }) - 1
	return &x.full[c][i-int(x.starts[c])]
}

// chunkOf returns the first chunk that may hold uid or a later one.
func (x *index) chunkOf(uid store.UID) int {
	return sort.Search(len(x.full), func(c int) bool { return x.full[c][len(x.full[c])-1].uid >= uid })
}

func searchUID(entries []entry, uid store.UID) (int, bool) {
	return slices.BinarySearchFunc(entries, uid, func(e entry, uid store.UID) int {
		switch {
		case e.uid < uid:
			return -1
		case e.uid > uid:
			return 1
		}
		return 0
	})
}

func (x *index) find(uid store.UID) (int, bool) {
	c := x.chunkOf(uid)
	start := x.before
	if c < len(x.full) {
		start = int(x.starts[c])
	}
	i, ok := searchUID(x.chunk(c), uid)
	return start + i, ok
}

// each calls fn for the entries whose UIDs are in the set, in order.
func (x *index) each(set store.UIDSet, fn func(e *entry)) {
	for _, r := range set {
		c := x.chunkOf(r.First)
		i, _ := searchUID(x.chunk(c), r.First)
		for ; c <= len(x.full); c, i = c+1, 0 {
			entries := x.chunk(c)
			for ; i < len(entries) && entries[i].uid <= r.Last; i++ {
				fn(&entries[i])
			}
			if i < len(entries) {
				break
			}
		}
	}
}

func (x index) add(e entry) index {
	x.tail = append(x.tail, e)
	if len(x.tail) == chunkLen {
		x.full, x.starts, x.tops = append(x.full, x.tail), append(x.starts, int32(x.before)), append(x.tops, top(x.tail))
		x.before += chunkLen
		x.tail = nil
	}
	return x
}

func top(entries []entry) store.ModSeq {
	highest := store.ModSeq(0)
	for i := range entries {
		highest = max(highest, entries[i].modSeq)
	}
	return highest
}

// replace puts entries, in the order of their UIDs, in the place of those with the same UIDs.
func (x index) replace(entries []entry) index {
	copied, fullCopied := -1, false
	for _, e := range entries {
		c := x.chunkOf(e.uid)
		if c != copied {
			copied = c
			if c < len(x.full) {
				if !fullCopied {
					x.full, x.tops, fullCopied = slices.Clone(x.full), slices.Clone(x.tops), true
				}
				x.full[c] = slices.Clone(x.full[c])
			} else {
				x.tail = slices.Clone(x.tail)
			}
		}
		entriesOf := x.chunk(c)
		if i, ok := searchUID(entriesOf, e.uid); ok {
			entriesOf[i] = e
			if c < len(x.full) {
				x.tops[c] = max(x.tops[c], e.modSeq)
			}
		}
	}
	return x
}

// remove leaves out the entries of the set. Chunks that became small are joined to the one before.
func (x index) remove(set store.UIDSet) index {
	if len(set) == 0 {
		return x
	}
	keep := func(entries []entry) []entry {
		if len(entries) == 0 || !overlaps(set, entries[0].uid, entries[len(entries)-1].uid) {
			return entries
		}
		kept := make([]entry, 0, len(entries))
		for _, e := range entries {
			if !set.Contains(e.uid) {
				kept = append(kept, e)
			}
		}
		return kept
	}
	out := index{full: make([][]entry, 0, len(x.full)), starts: make([]int32, 0, len(x.full)), tops: make([]store.ModSeq, 0, len(x.full))}
	for _, entries := range x.full {
		kept := keep(entries)
		if len(kept) == 0 {
			continue
		}
		if last := len(out.full) - 1; last >= 0 && len(out.full[last])+len(kept) <= chunkLen/2 {
			out.full[last] = slices.Concat(out.full[last], kept)
			out.tops[last] = top(out.full[last])
		} else {
			out.full, out.starts, out.tops = append(out.full, kept), append(out.starts, int32(out.before)), append(out.tops, top(kept))
		}
		out.before += len(kept)
	}
	out.tail = keep(x.tail)
	return out
}

func overlaps(set store.UIDSet, first, last store.UID) bool {
	i := sort.Search(len(set), func(i int) bool { return set[i].Last >= first })
	return i < len(set) && set[i].First <= last
}

// changedSince returns the UIDs of entries whose mod-sequence is above since.
func (x *index) changedSince(since store.ModSeq) store.UIDSet {
	var set store.UIDSet
	for c := range len(x.full) + 1 {
		if c < len(x.full) && x.tops[c] <= since {
			continue
		}
		for _, e := range x.chunk(c) {
			if e.modSeq > since {
				set = set.Add(e.uid)
			}
		}
	}
	return set
}
