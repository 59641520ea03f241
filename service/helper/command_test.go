package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postilion/service/child"
	"postilion/service/packet"
)

// testUID runs commands; nobody has this number.
const testUID = 41235

// helperWith returns a client of a helper that may run the commands.
func helperWith(t *testing.T, commands ...Command) *Client {
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
	done := make(chan error, 1)
	go func() { done <- Serve(answering, Bounds{}, commands, nil) }()
	client := NewClient()
	client.Use(asking)
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return client
}

// shell is the service "box" that runs a script with one word for each recipient, as a user without a name.
func shell(script string) Command {
	return Command{
		Service: "box", As: child.Identity{UID: testUID, GID: testUID}, Directory: "/", Environment: []string{"PATH=/usr/bin:/bin", "A=b"}, Limit: time.Minute,
		Words: []Word{{Text: "/bin/sh"}, {Text: "-c"}, {Text: script}, {Text: "sh"}, {Text: "to=", Macro: true, Each: true}},
	}
}

// run runs a command with a message and returns its output too.
func run(t *testing.T, ctx context.Context, c *Client, service, message string, argv ...string) (Ended, string, error) {
	t.Helper()
	theirInput, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	output, theirOutput, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		_, _ = io.WriteString(input, message)
		_ = input.Close()
		text, _ := io.ReadAll(output)
		_ = output.Close()
		said <- string(text)
	}()
	ended, err := c.Run(ctx, service, argv, theirInput, theirOutput)
	return ended, <-said, err
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root can start processes as other users")
	}
}

// TestRun: a command has the user, the environment, the message and nothing else, and how it ends is told.
func TestRun(t *testing.T) {
	needRoot(t)
	// Three descriptors, and the shell's own for the output of ls.
	script := `read line; [ $(wc -c) = 400000 ] || exit 1; echo "$line $* $A $(id -u):$(id -g):$(id -G) $(grep -c NoNewPrivs:.1 /proc/self/status) $(ls /proc/$$/fd | wc -l) ${HOME-none}"; eval "exit=$line"; [ $exit = kill ] && kill -TERM $$; exit $exit`
	c := helperWith(t, shell(script))
	for _, row := range []struct {
		message string
		want    Ended
	}{{"0", Ended{}}, {"67", Ended{Code: 67}}, {"kill", Ended{Signal: syscall.SIGTERM}}} {
		ended, said, err := run(t, t.Context(), c, "box", row.message+"\n"+strings.Repeat("x", 400_000), "/bin/sh", "-c", script, "sh", "to=a", "to=b")
		if err != nil || ended != row.want {
			t.Errorf("%s: %+v, %v; output %q", row.message, ended, err, said)
		}
		if want := fmt.Sprintf("%s to=a to=b b %d:%[2]d:%[2]d 1 4 none\n", row.message, testUID); said != want {
			t.Errorf("output %q, want %q", said, want)
		}
	}
	missing := shell("")
	missing.Words = []Word{{Text: "/nowhere/at/all"}}
	if _, _, err := run(t, t.Context(), helperWith(t, missing), "box", "", "/nowhere/at/all"); !errors.Is(err, ErrStart) {
		t.Errorf("a missing program: %v", err)
	}
}

// TestRunKills: the time limit, and a caller who does not wait, end the command and what it started in its group.
func TestRunKills(t *testing.T) {
	needRoot(t)
	script := `sleep 300 & echo $! $$; sleep 300`
	gone := func(said string) {
		t.Helper()
		pids := strings.Fields(said)
		if len(pids) != 2 {
			t.Fatalf("output %q", said)
		}
		for _, text := range pids {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				if err != nil || strings.Contains(string(status), "\nState:\tZ") {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("process %d lives on", pid)
				}
			}
		}
	}
	limited := shell(script)
	limited.Limit = 300 * time.Millisecond
	ended, said, err := run(t, t.Context(), helperWith(t, limited), "box", "", "/bin/sh", "-c", script, "sh", "to=a")
	if err != nil || !ended.Late {
		t.Errorf("%+v, %v", ended, err)
	}
	gone(said)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, said, err = run(t, ctx, helperWith(t, shell(script)), "box", "", "/bin/sh", "-c", script, "sh", "to=a")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	gone(said)
}

// TestHostileRuns: whatever the configuration does not say is refused, and nothing is started; the helper goes on.
func TestHostileRuns(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "started")
	script := "touch " + marker
	c := helperWith(t, shell(script))
	good := []string{"/bin/sh", "-c", script, "sh", "to=a"}
	for _, row := range []struct {
		service string
		argv    []string
		want    string
	}{
		{"other", good, "no pipe service"},
		{"", good, "no pipe service"},
		{"box x", good, "no pipe service"},
		{"box", []string{"/bin/bash", "-c", script, "sh", "to=a"}, "word 1"},
		{"box", []string{"/bin/sh", "-c", script + "; id", "sh", "to=a"}, "word 3"},
		{"box", []string{"/bin/sh", "-c", script, "sh", "-a"}, "word 5"},
		{"box", []string{"/bin/sh", "-c", script, "sh"}, "4 words"},
		{"box", nil, "0 words"},
		{"box", append(good, make([]string, 100)...), "word 6"},
	} {
		_, _, err := run(t, t.Context(), c, row.service, "", row.argv...)
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s %q: %v, want %q", row.service, row.argv, err, row.want)
		}
	}
	for _, argv := range [][]string{
		append(good, strings.Split(strings.Repeat("to=b ", maxArguments), " ")...),
		append(good, strings.Split(strings.Repeat("to="+strings.Repeat("b", 4000)+" ", 200), " ")...),
		append(good, "to="+strings.Repeat("b", packet.MaxText)),
	} {
		if _, _, err := run(t, t.Context(), c, "box", "", argv...); err == nil {
			t.Errorf("%d words are taken", len(argv))
		}
	}
	for _, texts := range [][]string{{"start"}, {"environment A=c"}, {"input", "input"}, {"output", "more"}, {"argument x", "start"}} {
		hostile(t, c, texts)
	}
	if _, err := os.Stat(marker); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was started: %v", err)
	}
}

// hostile sends texts, each but the arguments and the start with a descriptor, which must be refused.
func hostile(t *testing.T, c *Client, texts []string) {
	t.Helper()
	ours, theirs, err := packet.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := packet.New(ours)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.request(t.Context(), "run box", theirs); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		file := null
		if strings.HasPrefix(text, "argument") || text == "start" {
			file = nil
		}
		if err := conn.Send(text, file); err != nil {
			break
		}
	}
	text, _, err := conn.Receive()
	if err == nil && !strings.HasPrefix(text, "refused ") {
		t.Errorf("%q: %q", texts, text)
	}
	if err := errors.Join(theirs.Close(), null.Close(), conn.Close()); err != nil {
		t.Error(err)
	}
}

// TestCommandList: what is written is read again, and nothing that would be root.
func TestCommandList(t *testing.T) {
	text, err := EncodeCommands([]Command{shell("x")})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeCommands(strings.NewReader(string(text))); err != nil || len(got) != 1 || got[0].Words[4] != shell("x").Words[4] || got[0].As.UID != testUID {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := EncodeCommands([]Command{shell(strings.Repeat("x", maxGrants))}); err == nil {
		t.Error("an endless list is taken")
	}
	for _, change := range []func(c *Command){
		func(c *Command) { c.As.UID = 0 },
		func(c *Command) { c.As.GID = 0 },
		func(c *Command) { c.As.Groups = []int{5, 0} },
		func(c *Command) { c.As.UID = -1 },
		func(c *Command) { c.Words = nil },
		func(c *Command) { c.Words[0].Macro = true },
	} {
		c := shell("x")
		change(&c)
		text, err := EncodeCommands([]Command{c})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeCommands(strings.NewReader(string(text))); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	if _, err := DecodeCommands(strings.NewReader("{")); err == nil {
		t.Error("half a list is taken")
	}
}

// FuzzArguments: a command line that is taken begins with the configuration's words and has all of them.
func FuzzArguments(f *testing.F) {
	f.Add("/bin/sh\x00-c\x00x\x00sh\x00to=a\x00to=b")
	f.Add("/bin/sh\x00-c\x00x\x00sh")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c := shell("x")
		argv := strings.Split(text, "\x00")
		if c.allow(argv) != nil {
			return
		}
		if len(argv) < 5 || strings.Join(argv[:4], "\x00") != "/bin/sh\x00-c\x00x\x00sh" {
			t.Errorf("%q is taken", argv)
		}
		for _, word := range argv[4:] {
			if !strings.HasPrefix(word, "to=") {
				t.Errorf("%q is taken", argv)
			}
		}
	})
}
