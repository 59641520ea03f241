package rx

import (
	"bytes"

	"postilion/rx/syntax"
)

// prefilter rules texts and starts out without running the pattern.
type prefilter struct {
	startOnly bool // a match begins at the start of the text
	least     int  // bytes of the shortest match
	literal   []byte
	fold      bool
	rare      int         // where in literal its rarest byte stands
	first     *syntax.Set // bytes with which a match begins, nil: any
	firstByte int         // the only such byte, or -1
}

func (f *prefilter) derive(parsed *syntax.Pattern) {
	f.startOnly = parsed.Anchored || parsed.Root.BeginsAtStart()
	f.least, _ = parsed.Root.Width()
	f.literal, f.fold = parsed.Root.Required()
	for i, b := range f.literal {
		if rarity(b) > rarity(f.literal[f.rare]) {
			f.rare = i
		}
	}
	f.firstByte = -1
	set := &syntax.Set{}
	if nullable := parsed.Root.First(set); nullable || f.startOnly {
		return
	}
	f.first = set
	for b := range 256 {
		if set.Has(byte(b)) {
			if f.firstByte >= 0 {
				f.firstByte = -1
				return
			}
			f.firstByte = b
		}
	}
}

// rarity ranks bytes by how seldom they stand in mail headers and addresses; only the order matters.
func rarity(b byte) int {
	const common = " etaoinsrhldcumfpgwybvkETAOINSRHLDCUMFPGWYBVK.-:0123456789/@_=<>,;\"()+xjqzXJQZ"
	if i := bytes.IndexByte([]byte(common), b); i >= 0 {
		return i
	}
	return len(common)
}

// possible says whether text can hold a match at all.
func (f *prefilter) possible(text []byte) bool {
	if len(text) < f.least {
		return false
	}
	if len(f.literal) == 0 {
		return true
	}
	if !f.fold {
		return bytes.Contains(text, f.literal)
	}
	return containsFold(text, f.literal, f.rare)
}

// next gives the first start at or after from that is worth trying, -1 when there is none.
func (f *prefilter) next(text []byte, from int) int {
	switch {
	case f.startOnly:
		if from > 0 {
			return -1
		}
		return from
	case f.first == nil:
		return from
	case f.firstByte >= 0:
		n := bytes.IndexByte(text[from:], byte(f.firstByte))
		if n < 0 {
			return -1
		}
		return from + n
	}
	for ; from < len(text); from++ {
		if f.first.Has(text[from]) {
			return from
		}
	}
	return -1
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b | 0x20
	}
	return b
}

// hasFoldPrefix compares with a lower-case prefix.
func hasFoldPrefix(text, prefix []byte) bool {
	if len(text) < len(prefix) {
		return false
	}
	for i, b := range prefix {
		if text[i] != b && lower(text[i]) != b {
			return false
		}
	}
	return true
}

// containsFold looks for a lower-case literal in either case, led by its rarest byte.
func containsFold(text, literal []byte, rare int) bool {
	end := len(text) - (len(literal) - rare - 1)
	if end <= rare {
		return false
	}
	low := literal[rare]
	high := low
	if 'a' <= low && low <= 'z' {
		high = low - 0x20
	}
	nextLow, nextHigh := -1, -1
	for at := rare; at < end; at++ {
		if nextLow < at {
			nextLow = indexFrom(text[:end], at, low)
		}
		if nextHigh < at {
			nextHigh = indexFrom(text[:end], at, high)
		}
		at = min(nextLow, nextHigh)
		if at >= end {
			return false
		}
		if hasFoldPrefix(text[at-rare:], literal) {
			return true
		}
	}
	return false
}

// indexFrom is the offset of b at or after from, or the length of text.
func indexFrom(text []byte, from int, b byte) int {
	if n := bytes.IndexByte(text[from:], b); n >= 0 {
		return from + n
	}
	return len(text)
}
