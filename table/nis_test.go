package table

import "testing"

func TestNISWithoutADomainFindsNothing(t *testing.T) {
	warned := ""
	opened, err := Open("nis:mail.aliases", Options{Warn: func(text string) { warned = text }})
	if err != nil || warned == "" {
		t.Fatal(err, warned)
	}
	if _, found, err := opened.Lookup(t.Context(), "root"); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}
