package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
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
	"postilion/store/maildir"
)

// agentVariable makes this test program the side that has the store, over file descriptor 3.
const agentVariable = "POSTILION_REMOTE_TEST_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(agentVariable) != "" {
		if err := agent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func agent() error {
	file := os.NewFile(3, "socketpair")
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	s, err := maildir.Open(maildir.Options{})
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), Serve(context.Background(), conn, s), s.Close())
}

// startAgent starts the other process.
func startAgent(t *testing.T) (*Client, *exec.Cmd) {
	t.Helper()
	ours, theirs := pair(t)
	file, err := theirs.(*net.UnixConn).File()
	must(t, err)
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), agentVariable+"=1")
	command.ExtraFiles = []*os.File{file}
	command.Stderr = os.Stderr
	must(t, command.Start())
	must(t, errors.Join(file.Close(), theirs.Close()))
	return NewClient(ours, Options{}), command
}

// TestTheProcessIsKilled kills the process that has the Maildir while deliveries are under way, and offers them again until they are taken: each
// message must be there once.
func TestTheProcessIsKilled(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	owner := store.Owner{User: "alice", Home: filepath.Join(memoryDir(t), "alice"), Location: "~/Maildir", UID: -1, GID: -1}
	var ids []string
	var lost atomic.Int64
	for round := range 6 {
		for n := range 8 {
			ids = append(ids, fmt.Sprintf("%d-%d", round, n))
		}
		client, command := startAgent(t)
		_, err := client.Open(t.Context(), owner)
		must(t, err)
		kill := time.AfterFunc(time.Duration(random.IntN(60))*time.Millisecond, func() { _ = command.Process.Kill() })
		var group sync.WaitGroup
		for _, id := range ids {
			group.Go(func() {
				outcomes, err := client.Deliver(t.Context(), &store.Delivery{
					ID: id, Content: strings.NewReader("Subject: " + id + "\r\n\r\n" + string(fourKiB)), Targets: []store.Target{{Owner: owner, Mailbox: store.Inbox}},
				})
				if err == nil {
					err = outcomes[0].Err
				}
				if errors.Is(err, ErrLost) {
					lost.Add(1)
				} else if err != nil {
					t.Errorf("round %d, delivery %s: %v", round, id, err)
				}
			})
		}
		group.Wait()
		kill.Stop()
		must(t, client.Close())
		_ = command.Wait()
	}
	t.Logf("%d deliveries were cut off", lost.Load())
	client, command := startAgent(t)
	var got []string
	for _, id := range ids {
		outcomes, err := client.Deliver(t.Context(), &store.Delivery{
			ID: id, Content: strings.NewReader("Subject: " + id + "\r\n\r\n" + string(fourKiB)), Targets: []store.Target{{Owner: owner, Mailbox: store.Inbox}},
		})
		must(t, err)
		must(t, outcomes[0].Err)
	}
	inbox := openInbox(t, client, owner)
	view, err := inbox.View(t.Context())
	must(t, err)
	for i := range view.Len() {
		got = append(got, subjectOf(t, inbox, view.UID(i)))
	}
	slices.Sort(got)
	if slices.Sort(ids); !slices.Equal(got, ids) {
		t.Errorf("delivered %q, want %q", got, ids)
	}
	must(t, client.Close())
	must(t, command.Wait())
}
