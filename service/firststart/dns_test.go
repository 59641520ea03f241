package firststart

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestDomainNames(t *testing.T) {
	for domain, good := range map[string]bool{
		"example.org": true, "EXAMPLE.Org.": true, "a-b.co.uk": true, "xn--bcher-kva.example": true,
		"example": false, "": false, "-a.example": false, "a..example": false, "bücher.example": false, "a_b.example": false, "192.0.2.1": false,
		"a b.example": false, strings.Repeat("a", 64) + ".example": false, strings.Repeat("a.", 130) + "example": false, "x\n.example": false,
	} {
		_, err := Host(domain, "/etc/mail", "/var/lib/mail", "", "")
		if (err == nil) != good {
			t.Errorf("Host(%q): %v", domain, err)
		}
	}
}

func TestRecords(t *testing.T) {
	s, err := Host("example.org", "/etc/mail", "/var/lib/mail", "", "")
	if err != nil {
		t.Fatal(err)
	}
	records := s.Records([]netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")})
	for _, want := range []string{
		"example.org. IN MX 10 mail.example.org.", "mail.example.org. IN A 198.51.100.7", "mail.example.org. IN AAAA 2001:db8::7",
		`example.org. IN TXT "v=spf1 mx -all"`, "_imaps._tcp.example.org. IN SRV 0 1 993 mail.example.org.",
		"_submissions._tcp.example.org. IN SRV 0 1 465 mail.example.org.",
	} {
		if !slices.Contains(records, want) {
			t.Errorf("no record %s in %v", want, records)
		}
	}
}
