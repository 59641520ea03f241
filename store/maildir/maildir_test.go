package maildir

import (
	"path/filepath"
	"strings"
	"testing"

	"postilion/store"
	"postilion/store/storetest"
)

// bed returns a fresh place with the location options given.
func bed(t *testing.T, options string, unsynced bool) *storetest.Bed {
	home := t.TempDir()
	l, err := parseLocation("/mail"+strings.ReplaceAll(options, "@", "/home"), "")
	if err != nil {
		t.Fatal(err)
	}
	return &storetest.Bed{
		Open: func(tb testing.TB) store.Store {
			s, err := Open(Options{Hostname: "host.example.org"})
			if err != nil {
				tb.Fatal(err)
			}
			s.disk.unsynced = unsynced
			return s
		},
		Owner: func(user string) store.Owner {
			dir := filepath.Join(home, user)
			return store.Owner{User: user, Home: dir, Location: "~/Maildir" + strings.ReplaceAll(options, "@", dir), UID: -1, GID: -1}
		},
		Can: storetest.Capabilities{AllowsName: func(name string) bool { return l.checkName(name) == nil }},
	}
}

func TestStore(t *testing.T) {
	for name, options := range map[string]string{
		"maildir++":   "",
		"fs":          ":LAYOUT=fs",
		"directories": ":CONTROL=@/control:INDEX=@/index:INBOX=@/inbox",
		"fs+":         ":LAYOUT=fs:CONTROL=@/control:INDEX=@/index:DIRNAME=mBoX-MeSsAgEs:UTF-8",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) *storetest.Bed { return bed(t, options, name != "maildir++") })
		})
	}
}

func TestCompare(t *testing.T) {
	storetest.Compare(t, map[string]func(t *testing.T) *storetest.Bed{
		"maildir++": func(t *testing.T) *storetest.Bed { return bed(t, "", true) },
		"fs":        func(t *testing.T) *storetest.Bed { return bed(t, ":LAYOUT=fs", true) },
	})
}
