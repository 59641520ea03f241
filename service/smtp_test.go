package service

import (
	"crypto/tls"
	"testing"

	"postilion/mta/policy"
	"postilion/server/smtpd"
)

// TestEventsCorrespond holds the two lists of events to one order.
func TestEventsCorrespond(t *testing.T) {
	for ours, theirs := range map[smtpd.Event]policy.Event{
		smtpd.ConnectionCount: policy.ConnectionCount, smtpd.ConnectionRate: policy.ConnectionRate, smtpd.MessageRate: policy.MessageRate,
		smtpd.RecipientRate: policy.RecipientRate, smtpd.AuthRate: policy.AuthRate, smtpd.NewTLSRate: policy.NewTLSRate,
	} {
		if policy.Event(ours) != theirs {
			t.Errorf("event %d is %d there", ours, theirs)
		}
	}
}

func TestTLSRange(t *testing.T) {
	for list, want := range map[string][2]uint16{
		"":                              {tls.VersionTLS10, tls.VersionTLS13},
		"!SSLv2, !SSLv3":                {tls.VersionTLS10, tls.VersionTLS13},
		"!SSLv2 !SSLv3 !TLSv1 !TLSv1.1": {tls.VersionTLS12, tls.VersionTLS13},
		">=TLSv1.2":                     {tls.VersionTLS12, tls.VersionTLS13},
		">=TLSv1.1, <=TLSv1.2":          {tls.VersionTLS11, tls.VersionTLS12},
		"TLSv1.2 TLSv1.3":               {tls.VersionTLS12, tls.VersionTLS13},
		"tlsv1.2":                       {tls.VersionTLS12, tls.VersionTLS12},
		"!TLSv1.3:>=TLSv1.2":            {tls.VersionTLS12, tls.VersionTLS12},
	} {
		if oldest, newest, err := tlsRange(list); err != nil || oldest != want[0] || newest != want[1] {
			t.Errorf("%q: %x to %x, %v", list, oldest, newest, err)
		}
	}
	for _, list := range []string{"TLSv9", ">TLSv1.2", "!TLSv1 !TLSv1.1 !TLSv1.2 !TLSv1.3", "SSLv3"} {
		if oldest, newest, err := tlsRange(list); err == nil {
			t.Errorf("%q: %x to %x", list, oldest, newest)
		}
	}
}
