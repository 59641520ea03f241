package dovecot

import (
	"testing"
	"time"
)

func TestNormalValues(t *testing.T) {
	for _, c := range []struct {
		kind       Type
		text, want string
		message    string
	}{
		{Bool, "yes", "yes", ""},
		{Bool, "YES", "yes", ""},
		{Bool, "y", "yes", ""},
		{Bool, "1", "yes", ""},
		{Bool, "No", "no", ""},
		{Bool, "true", "", "Invalid boolean value: true (use yes or no)"},
		{Bool, "n", "", "Invalid boolean value: n (use yes or no)"},
		{Uint, "007", "7", ""},
		{Uint, "+1", "", "Invalid number +1: Not a valid number"},
		{Uint, "4294967296", "", "Invalid number 4294967296: Number too large"},
		{Octal, "0600", "0600", ""},
		{Octal, "438", "0666", ""},
		{Octal, "0789", "", "Invalid number: 0789"},
		{Port, "65535", "65535", ""},
		{Port, "imap", "", "Invalid port number imap"},
		{Port, "65536", "", "Invalid port number 65536"},
		{Size, "0", "0", ""},
		{Size, "5", "5 B", ""},
		{Size, "1024k", "1 M", ""},
		{Size, "3 MB", "3 M", ""},
		{Size, "1KiB", "1 k", ""},
		{Size, "5kilos", "", "Invalid size: 5kilos"},
		{Size, "-1", "", "Invalid size: -1"},
		{Size, "16777216T", "", "Size is too large: 16777216T"},
		{Time, "0", "0", ""},
		{Time, "60 secs", "1 mins", ""},
		{Time, "1 day", "1 days", ""},
		{Time, "14 days", "2 weeks", ""},
		{Time, "1000ms", "1 secs", ""},
		{Time, "5M", "5 mins", ""},
		{Time, "4294967295 secs", "4294967295 secs", ""},
		{Time, "120", "", "Time interval '120' is missing units (add e.g. 's' for seconds)"},
		{Time, "5 hrs", "", "Invalid time interval: 5 hrs"},
		{Time, "500 ms", "", "Milliseconds not supported for this setting: 500 ms"},
		{Time, "1000000 weeks", "", "Time interval is too large: 1000000 weeks"},
		{Msecs, "250 ms", "250 ms", ""},
		{Msecs, "30 s", "30 secs", ""},
	} {
		s := Setting{Type: c.kind}
		got, err := s.normal(c.text)
		if message := messageOf(err); got != c.want || message != c.message {
			t.Errorf("type %d, %q: %q, %q; want %q, %q", c.kind, c.text, got, message, c.want, c.message)
			continue
		}
		if err == nil {
			if again, err := s.normal(got); err != nil || again != got {
				t.Errorf("type %d: %q becomes %q, %v", c.kind, got, again, err)
			}
		}
	}
}

func messageOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "2 mins": 2 * time.Minute, "250 ms": 250 * time.Millisecond, "x": 0, "4294967295 secs": 4294967295 * time.Second} {
		if got := duration(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
