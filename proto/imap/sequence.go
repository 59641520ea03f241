package imap

import "strconv"

// SeqRange is one range of a sequence set as written; 0 stands for "*". First and Last may come in either order.
type SeqRange struct {
	First, Last uint32
}

// SeqSet is a sequence set of RFC 9051 section 9, in the order written. Saved is true for "$" (RFC 5182).
type SeqSet struct {
	Ranges []SeqRange
	Saved  bool
}

// ParseSeqSet reads a sequence set.
func ParseSeqSet(text []byte) (SeqSet, bool) {
	if len(text) == 1 && text[0] == '$' {
		return SeqSet{Saved: true}, true
	}
	var set SeqSet
	for i := 0; ; {
		first, n := seqNumber(text[i:])
		if n == 0 {
			return SeqSet{}, false
		}
		i += n
		r := SeqRange{first, first}
		if i < len(text) && text[i] == ':' {
			last, n := seqNumber(text[i+1:])
			if n == 0 {
				return SeqSet{}, false
			}
			r.Last = last
			i += 1 + n
		}
		set.Ranges = append(set.Ranges, r)
		if i == len(text) {
			return set, true
		}
		if text[i] != ',' {
			return SeqSet{}, false
		}
		i++
	}
}

func seqNumber(text []byte) (value uint32, n int) {
	if len(text) > 0 && text[0] == '*' {
		return 0, 1
	}
	for n < len(text) && '0' <= text[n] && text[n] <= '9' {
		n++
	}
	if n == 0 || n > 10 {
		return 0, 0
	}
	v, err := strconv.ParseUint(string(text[:n]), 10, 32)
	if err != nil || v == 0 {
		return 0, 0
	}
	return uint32(v), n
}

// Resolve gives the range with "*" replaced by last and its ends in order.
func (r SeqRange) Resolve(last uint32) (low, high uint32) {
	low, high = r.First, r.Last
	if low == 0 {
		low = last
	}
	if high == 0 {
		high = last
	}
	if low > high {
		low, high = high, low
	}
	return low, high
}
