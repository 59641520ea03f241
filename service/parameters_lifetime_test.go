package service

import (
	"testing"
	"time"

	"postilion/config/postfix"
)

// TestQueueLifetimeIsRemembered: delivery ids are known for maximal_queue_lifetime and a day, so that a message that was tried for that long is
// still delivered once.
func TestQueueLifetimeIsRemembered(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 6 * 24 * time.Hour, "maximal_queue_lifetime = 2h\n": 26 * time.Hour} {
		dir := t.TempDir()
		writeFile(t, dir+"/main.cf", "compatibility_level = 3.6\n"+value)
		writeFile(t, dir+"/master.cf", "")
		config, err := postfix.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		inspector := newInspector(InspectOptions{Postfix: config, PostfixDir: dir, Getenv: func(string) string { return "" }})
		if inspector.stores.remember != want {
			t.Errorf("with %q the stores remember deliveries for %v, not %v", value, inspector.stores.remember, want)
		}
	}
}
