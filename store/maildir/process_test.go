package maildir

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postilion/store"
)

// TestMain lets the test program be a second process that delivers: POSTILION_DELIVER names its home and prefix of ids.
func TestMain(m *testing.M) {
	if home, prefix, ok := strings.Cut(os.Getenv("POSTILION_DELIVER"), "|"); ok {
		if err := deliverForever(home, prefix); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// deliverForever delivers, flags and moves until its standard input ends, and prints each id when its delivery was acknowledged.
func deliverForever(home, prefix string) error {
	s, err := Open(Options{})
	if err != nil {
		return err
	}
	owner := store.Owner{User: "alice", Home: home, Location: "~/Maildir", UID: -1, GID: -1}
	stop := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(stop)
	}()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return s.Close()
		default:
		}
		id := fmt.Sprint(prefix, i)
		outcomes, err := s.Deliver(testContext(), &store.Delivery{
			ID: id, Content: strings.NewReader("Subject: " + id + "\r\n\r\nbody\r\n"), InternalDate: time.Now(),
			Targets: []store.Target{{Owner: owner, Mailbox: store.Inbox}, {Owner: owner, Mailbox: "Work", Create: true}},
		})
		if err == nil {
			err = errors.Join(outcomes[0].Err, outcomes[1].Err)
		}
		if err != nil {
			return err
		}
		fmt.Println(id)
		// A server that delivers has pauses; without any, three programs that look and write would not end in a test's time.
		time.Sleep(10 * time.Millisecond)
		if i%3 != 0 {
			continue
		}
		account, err := s.Open(testContext(), owner)
		if err != nil {
			return err
		}
		work, err := account.Mailbox(testContext(), "Work")
		if err != nil {
			return err
		}
		_, err = work.SetFlags(testContext(), store.UIDSetOf(outcomes[1].UID), store.FlagChange{Operation: store.AddFlags, Flags: store.FlagSeen, Keywords: []string{"kw" + prefix}})
		if err := errors.Join(err, work.Close()); err != nil {
			return err
		}
	}
}

// deliverer is such a process.
type deliverer struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	acked []string
	log   bytes.Buffer
	read  sync.WaitGroup
	// silent tells that the process ended, or closed its output.
	silent atomic.Bool
	stdin  *os.File
}

func startDeliverer(t *testing.T, home, prefix string) *deliverer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &deliverer{cmd: exec.CommandContext(t.Context(), self)}
	d.cmd.Env = append(os.Environ(), "POSTILION_DELIVER="+home+"|"+prefix)
	d.cmd.Stderr = &d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stdin, d.stdin = reader, writer
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	d.read.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.mu.Lock()
			d.acked = append(d.acked, lines.Text())
			d.mu.Unlock()
		}
		d.silent.Store(true)
	})
	return d
}

func (d *deliverer) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.acked)
}

// waitFor waits until n deliveries were acknowledged, a minute at most.
func (d *deliverer) waitFor(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); d.count() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d deliveries within a minute: %s", d.count(), n, d.log.String())
		}
	}
}

// end stops the process in order, or kills it.
func (d *deliverer) end(t *testing.T, kill bool) {
	t.Helper()
	if kill {
		_ = d.cmd.Process.Kill()
	}
	_ = d.stdin.Close()
	d.read.Wait()
	if err := d.cmd.Wait(); err != nil && !kill {
		t.Errorf("process: %v: %s", err, d.log.String())
	}
}

func openHome(t *testing.T, home string) (*Store, store.Account) {
	t.Helper()
	s, err := Open(Options{LockTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	account, err := s.Open(t.Context(), store.Owner{User: "alice", Home: home, Location: "~/Maildir", UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	return s, account
}

// TestTwoProcesses has two processes deliver into the same mailboxes while this one looks on.
func TestTwoProcesses(t *testing.T) {
	home := t.TempDir()
	_, account := openHome(t, home)
	site := &crashSite{t: t}
	one, two := startDeliverer(t, home, "a"), startDeliverer(t, home, "b")
	uids := map[store.UID]string{}
	for one.count() < 15 || two.count() < 15 {
		time.Sleep(20 * time.Millisecond)
		for _, line := range site.content(account, store.Inbox) {
			var uid store.UID
			var subject string
			if _, err := fmt.Sscan(line, &uid, &subject); err != nil {
				t.Fatal(err)
			}
			if known := uids[uid]; known != "" && known != subject {
				t.Fatalf("UID %d was %s and is %s", uid, known, subject)
			}
			uids[uid] = subject
		}
		if one.silent.Load() || two.silent.Load() {
			t.Fatalf("a process ended early: %s%s", one.log.String(), two.log.String())
		}
	}
	one.end(t, false)
	two.end(t, false)
	_, again := openHome(t, home)
	for _, name := range []string{store.Inbox, "Work"} {
		seen, fresh := site.content(account, name), site.content(again, name)
		if !slices.Equal(seen, fresh) {
			t.Errorf("%s: seen all along %q, opened again %q", name, seen, fresh)
		}
		for _, id := range append(slices.Clone(one.acked), two.acked...) {
			if count(fresh, id) != 1 {
				t.Errorf("%s is %d times in %s", id, count(fresh, id), name)
			}
		}
	}
}

// TestKilled kills a delivering process again and again: what it acknowledged is there once, also when it is offered again, and its locks
// hold nobody up.
func TestKilled(t *testing.T) {
	home := t.TempDir()
	var acked []string
	for round := range 8 {
		d := startDeliverer(t, home, fmt.Sprint("r", round, "-"))
		d.waitFor(t, 3+round)
		d.end(t, true)
		acked = append(acked, d.acked...)
		s, account := openHome(t, home)
		site := &crashSite{t: t, home: home, store: s}
		last := fmt.Sprint("r", round, "-", len(d.acked))
		for _, id := range []string{d.acked[0], d.acked[len(d.acked)-1], last} {
			if err := site.deliver(id, store.Inbox, "Work"); err != nil {
				t.Fatal(err)
			}
		}
		acked = append(acked, last)
		for _, name := range []string{store.Inbox, "Work"} {
			lines := site.content(account, name)
			for _, id := range acked {
				if count(lines, id) != 1 {
					t.Fatalf("round %d: %s is %d times in %s", round, id, count(lines, id), name)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(home, "Maildir", "*.lock")); err != nil || len(left) > 0 {
		t.Errorf("locks left: %q, %v", left, err)
	}
}
