package table

import "testing"

func TestNISWithoutADomainFindsNothing(t *testing.T) {
	opened, err := Open("nis:mail.aliases", Options{Warn: func(text string) { t.Error(text) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := opened.Lookup(t.Context(), "root"); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}
