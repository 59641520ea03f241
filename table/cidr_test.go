package table

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCIDRIndexAgreesWithOrder compares the index of a plain list with going through the list.
func TestCIDRIndexAgreesWithOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var text strings.Builder
	for i := range 300 {
		bits := []int{8, 12, 16, 24, 30, 32}[r.IntN(6)]
		host := uint32(r.IntN(4))<<24 | uint32(r.IntN(4))<<16 | uint32(r.IntN(4))<<8 | uint32(r.IntN(8))
		host &= ^uint32(0) << (32 - bits)
		fmt.Fprintf(&text, "%d.%d.%d.%d/%d rule%d\n", 10+host>>24, host>>16&255, host>>8&255, host&255, bits, i)
		if i%50 == 0 {
			fmt.Fprintf(&text, "2001:db8:%x::/%d six%d\n", r.IntN(3), 48+r.IntN(2)*16, i)
		}
	}
	path := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := open("cidr:"+path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	indexed, ok := o.finder.(cidrTable)
	if !ok || indexed.index == nil {
		t.Fatal("a plain list has no index")
	}
	ordered := cidrTable{rules: indexed.rules}
	for range 5000 {
		key := fmt.Sprintf("%d.%d.%d.%d", 10+r.IntN(5), r.IntN(5), r.IntN(5), r.IntN(9))
		if r.IntN(10) == 0 {
			key = fmt.Sprintf("2001:db8:%x::%x", r.IntN(4), r.IntN(3))
		}
		want, wantFound, _ := ordered.find(t.Context(), key)
		got, found, _ := indexed.find(t.Context(), key)
		if got.value != want.value || got.line != want.line || found != wantFound {
			t.Fatalf("%s: by index %v %v, in order %v %v", key, got, found, want, wantFound)
		}
	}
}
