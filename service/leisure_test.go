package service

import "testing"

func TestLeisureComesOnceAfterABurst(t *testing.T) {
	const mib = 1 << 20
	var l leisure
	for i, look := range []struct {
		allocated uint64
		due       bool
	}{
		{20 * mib, false},
		{20*mib + 1000, true},
		{20*mib + 2000, false},
		{23 * mib, false},
		{23*mib + 5, false},
		{200 * mib, false},
		{400 * mib, false},
		{400*mib + mib/2, true},
		{401 * mib, false},
	} {
		if due := l.due(look.allocated); due != look.due {
			t.Errorf("look %d, %d octets: %v", i, look.allocated, due)
		}
	}
}
