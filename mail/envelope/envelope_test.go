package envelope

import "testing"

// TestZeroValues: what a MAIL command without parameters means is the zero value, and NOTIFY conditions can stand together.
func TestZeroValues(t *testing.T) {
	var e Envelope
	if e.Body != SevenBit || e.UTF8 || e.Return != "" {
		t.Errorf("%+v", e)
	}
	seen := Notify(0)
	for _, n := range []Notify{NotifyNever, NotifySuccess, NotifyFailure, NotifyDelay} {
		if n == 0 || n&(n-1) != 0 || seen&n != 0 {
			t.Errorf("condition %b is no bit of its own", n)
		}
		seen |= n
	}
}
