package policy

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postilion/config/postfix"
	"postilion/table"
)

func testView(t testing.TB, text string) *postfix.View {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := postfix.LoadWith(postfix.Options{Dir: dir, AllowMissing: true, Hostname: func() (string, error) { return "mail.example.com", nil }})
	if err != nil {
		t.Fatal(err)
	}
	return config.View()
}

func testLimits(t testing.TB, text string, now *time.Time) *Limits {
	return NewLimits(LimitOptions{
		View: testView(t, text), Now: func() time.Time { return *now },
		Open: func(spec string) table.Table { return table.OpenLazily(spec, table.Options{}) },
	})
}

func TestLimits(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := testLimits(t, `
smtpd_client_event_limit_exceptions = 192.0.2.128/25, .friend.example
smtpd_client_connection_count_limit = 2
smtpd_client_message_rate_limit = 3
anvil_rate_time_unit = 60s
`, &now)
	a := netip.MustParseAddr("192.0.2.1")
	check := func(event Event, name string, address netip.Addr, count int, exceeded bool) {
		t.Helper()
		if c, e := l.Count(event, name, address); c != count || e != exceeded {
			t.Errorf("event %d: %d %v, want %d %v", event, c, e, count, exceeded)
		}
	}
	for i := 1; i <= 3; i++ {
		check(MessageRate, "unknown", a, i, false)
	}
	check(MessageRate, "unknown", netip.MustParseAddr("::ffff:192.0.2.1"), 4, true)
	check(MessageRate, "unknown", netip.MustParseAddr("192.0.2.2"), 1, false)
	check(RecipientRate, "unknown", a, 1, false)
	check(MessageRate, "unknown", netip.MustParseAddr("192.0.2.200"), 0, false)
	check(MessageRate, "mx.friend.example", netip.MustParseAddr("198.51.100.1"), 0, false)

	check(ConnectionCount, "unknown", a, 1, false)
	check(ConnectionCount, "unknown", a, 2, false)
	check(ConnectionCount, "unknown", a, 3, true)
	l.Disconnect("unknown", a)
	now = now.Add(time.Minute)
	check(ConnectionCount, "unknown", a, 3, true)
	check(MessageRate, "unknown", a, 1, false)
	for range 5 {
		l.Disconnect("unknown", a)
	}
	check(ConnectionCount, "unknown", a, 1, false)
}

func TestLimitsAreBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := testLimits(t, "smtpd_client_event_limit_exceptions =\n", &now)
	busy := netip.MustParseAddr("198.51.100.1")
	l.Count(ConnectionCount, "unknown", busy)
	for i := range maxClients + 10_000 {
		l.Count(MessageRate, "unknown", netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		now = now.Add(time.Millisecond)
	}
	if n := len(l.clients); n > maxClients {
		t.Errorf("%d clients are remembered", n)
	}
	if n, _ := l.Count(ConnectionCount, "unknown", busy); n != 2 {
		t.Errorf("the open connection was forgotten: %d", n)
	}
}
