package vault

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"testing"

	"postilion/store"
)

func TestRowsComeBack(t *testing.T) {
	for _, want := range []entry{
		{uid: 1},
		{uid: 7, flags: allFlags, zone: -12 * 60, prefix: 300, modSeq: math.MaxInt64, internal: -62135596800, saved: 1700000000, size: 1 << 40, body: 1<<63 + 5, email: 9},
		{uid: 1<<32 - 1, zone: 14 * 60, internal: math.MaxInt32, saved: 1, body: 4, email: math.MaxUint64},
	} {
		for _, keywords := range [][]uint16{nil, {0}, {1, 200, 65535}} {
			got, numbers, err := decodeEntry(want.uid, appendEntry(nil, &want, keywords), nil)
			if err != nil || got != want || !slices.Equal(numbers, keywords) {
				t.Errorf("%+v %v came back as %+v %v, %v", want, keywords, got, numbers, err)
			}
		}
	}
	wantState := state{1 << 32, 1 << 62, 3, 4, 5, 6, 1 << 50, 7, 8}
	if got, err := decodeState(wantState.append(nil)); err != nil || got != wantState {
		t.Errorf("%+v came back as %+v, %v", wantState, got, err)
	}
	wantName := nameRow{id: 1 << 63, uidValidity: 1<<32 - 1, use: `\Sent`}
	if got, err := decodeName(wantName.append(nil)); err != nil || got != wantName {
		t.Errorf("%+v came back as %+v, %v", wantName, got, err)
	}
	wantUIDs := store.UIDSet{{First: 1, Last: 1}, {First: 5, Last: 900}, {First: 1<<32 - 1, Last: 1<<32 - 1}}
	if got, err := decodeUIDs(appendUIDs(nil, wantUIDs)); err != nil || !reflect.DeepEqual(got, wantUIDs) {
		t.Errorf("%v came back as %v, %v", wantUIDs, got, err)
	}
	wantTexts := []string{"", "a", "ü"}
	if got, err := decodeTexts(appendTexts(nil, wantTexts)); err != nil || !slices.Equal(got, wantTexts) {
		t.Errorf("%q came back as %q, %v", wantTexts, got, err)
	}
}

// FuzzRows gives any bytes to the readers of rows: they answer with an error or with what, written again, reads the same.
func FuzzRows(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendEntry(nil, &entry{uid: 7, flags: 3, size: 4096, body: 1 << 41, email: 1 << 41, internal: 1700000000, saved: 1700000001}, []uint16{1, 2}))
	f.Add(newState().append(nil))
	f.Add(nameRow{id: 5, uidValidity: 6, use: "x"}.append(nil))
	f.Add(appendUIDs(nil, store.UIDSet{{First: 1, Last: 3}, {First: 9, Last: 9}}))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, row []byte) {
		if e, numbers, err := decodeEntry(1, row, nil); err == nil {
			again, more, err := decodeEntry(1, appendEntry(nil, &e, numbers), nil)
			if err != nil || again != e || !slices.Equal(more, numbers) {
				t.Errorf("entry %+v %v became %+v %v, %v", e, numbers, again, more, err)
			}
		}
		if set, err := decodeUIDs(row); err == nil {
			if again, err := decodeUIDs(appendUIDs(nil, set)); err != nil || again.String() != set.String() {
				t.Errorf("set %v became %v, %v", set, again, err)
			}
		}
		if s, err := decodeState(row); err == nil {
			if again, err := decodeState(s.append(nil)); err != nil || again != s {
				t.Errorf("state %+v became %+v, %v", s, again, err)
			}
		}
		if n, err := decodeName(row); err == nil {
			if again, err := decodeName(n.append(nil)); err != nil || again != n {
				t.Errorf("name %+v became %+v, %v", n, again, err)
			}
		}
		_, _ = decodeTexts(row)
		_, _ = decodeAccount(row)
		_, _ = decodeUsage(row)
	})
}
