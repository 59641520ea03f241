package imapd

import "testing"

func TestBaseSubject(t *testing.T) {
	for subject, want := range map[string]string{
		"":                              "",
		"Re: hello":                     "hello",
		"RE: re: Fw: hello (fwd) (FWD)": "hello",
		"[list] Re[2]: [x] hello":       "hello",
		"[only]":                        "[only]",
		"[Fwd: [list] hello]":           "hello",
		"Re : a\t b":                    "a b",
		"Regarding: x":                  "Regarding: x",
		"Re:":                           "",
		"[a][b] c":                      "c",
		"fwd [x]: y":                    "y",
	} {
		if got := string(baseSubject([]byte(subject))); got != want {
			t.Errorf("%q: %q, want %q", subject, got, want)
		}
	}
}
