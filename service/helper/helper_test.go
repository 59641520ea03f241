package helper

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"postilion/service/child"
	"postilion/service/packet"
)

// pair returns a client and a helper whose agents are pipes, and tells who the agents would have been.
func pair(t *testing.T, bounds Bounds) (*Client, func() []child.Identity) {
	t.Helper()
	ours, theirs, err := packet.Pair()
	if err != nil {
		t.Fatal(err)
	}
	asking, err := packet.New(ours)
	if err != nil {
		t.Fatal(err)
	}
	answering, err := packet.New(theirs)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var started []child.Identity
	s := &server{bounds: bounds, start: func(id *child.Identity) (*exec.Cmd, *os.File, error) {
		mu.Lock()
		started = append(started, *id)
		mu.Unlock()
		command := exec.Command("true")
		if err := command.Start(); err != nil {
			return nil, nil, err
		}
		end, other, err := packet.Stream()
		if err == nil {
			err = other.Close()
		}
		return command, end, err
	}}
	done := make(chan error, 1)
	go func() { done <- s.serve(answering) }()
	client := NewClient()
	client.Use(asking)
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return client, func() []child.Identity {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(started)
	}
}

// TestBounds: root and ids outside the limits are refused, with the setting that says so, and nothing is started.
func TestBounds(t *testing.T) {
	client, started := pair(t, Bounds{FirstUID: 500, LastUID: 60000, FirstGID: 100, LastGID: 60000})
	for _, c := range []struct {
		id   child.Identity
		want string
	}{
		{child.Identity{UID: 0, GID: 1000}, "never root"},
		{child.Identity{UID: 1000, GID: 0}, "never in root's group"},
		{child.Identity{UID: 1000, GID: 1000, Groups: []int{1000, 0}}, "never in root's group"},
		{child.Identity{UID: 499, GID: 1000}, "first_valid_uid"},
		{child.Identity{UID: 60001, GID: 1000}, "last_valid_uid"},
		{child.Identity{UID: 1000, GID: 99}, "first_valid_gid"},
		{child.Identity{UID: 1000, GID: 60001}, "last_valid_gid"},
		{child.Identity{UID: 1000, GID: 1000, Groups: []int{99}}, "first_valid_gid"},
		{child.Identity{UID: -1, GID: 1000}, "no id"},
		{child.Identity{UID: 1000, GID: -1}, "no id"},
		{child.Identity{UID: 1000, GID: 1000, Groups: make([]int, maxGroups+1)}, "groups are more"},
	} {
		conn, err := client.Agent(t.Context(), &c.id)
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.id, err, c.want)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
	if len(started()) > 0 {
		t.Fatalf("started %v", started())
	}
	conn, err := client.Agent(t.Context(), &child.Identity{UID: 500, GID: 60000, Groups: []int{100, 101}})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if got := started(); len(got) != 1 || got[0].UID != 500 || len(got[0].Groups) != 2 {
		t.Errorf("started %v", got)
	}
}

func TestArguments(t *testing.T) {
	want := Bounds{1, 2, 3, 4}
	got, rest, err := ParseBounds(append(want.Args(), "more"))
	if err != nil || got != want || len(rest) != 1 {
		t.Errorf("%+v, %v, %v", got, rest, err)
	}
	for _, args := range [][]string{{}, {"1", "2", "3"}, {"1", "2", "3", "-4"}, {"1", "2", "3", "x"}, {"1", "2", "3", "99999999999"}} {
		if _, _, err := ParseBounds(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

// TestAbsentHelper: a request waits for the next helper, and no longer than its context.
func TestAbsentHelper(t *testing.T) {
	client := NewClient()
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.Agent(t.Context(), &child.Identity{UID: 1, GID: 1}); err == nil {
		t.Error("a closed client answers")
	}
}

// FuzzRequest: whatever is taken is a request that says the same when it is written again, and root is never in it once the bounds have been asked.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{"agent 1000 1000 -", "agent 1000 1000 5,6", "agent 0 0 0", "agent -1 1 -", "agent 01 1 -", "agent", "", "agent 1 1 ,", "agent 4294967296 1 -"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseRequest(text)
		if err != nil {
			return
		}
		if again := request(id); again != text {
			t.Errorf("%q is read as %q", text, again)
		}
		if (Bounds{}).allow(id) == nil && (id.UID <= 0 || id.GID <= 0) {
			t.Errorf("%q would be root", text)
		}
	})
}
