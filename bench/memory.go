package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postilion/service"
)

// settle is how long a server is left alone before its memory is read: until it has noticed twice that there is nothing to do.
const settle = 2*service.TidyEvery + 2*time.Second

// memory is that of a process tree, in KiB.
type memory struct {
	rss, pss float64
}

// memoryOf adds up the processes below and with pid, from /proc/PID/smaps_rollup.
func memoryOf(pid int) (memory, error) {
	pids, err := processTree(pid)
	if err != nil {
		return memory{}, err
	}
	var m memory
	for _, p := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			// It ended meanwhile.
			continue
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) < 2 {
				continue
			}
			n, _ := strconv.ParseFloat(words[1], 64)
			switch words[0] {
			case "Rss:":
				m.rss += n
			case "Pss:":
				m.pss += n
			}
		}
	}
	if m.pss == 0 {
		return m, fmt.Errorf("the memory of process %d cannot be read", pid)
	}
	return m, nil
}

// processTree lists pid and what descends from it.
func processTree(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		words := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(words) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(string(words[1])); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// idleKind is a way of being idle.
type idleKind struct {
	name string
	port string
	tls  bool
	most float64
}

func idleKinds() []idleKind {
	return []idleKind{
		{name: "plain, selected", port: "IMAP_PORT", most: 30},
		{name: "TLS, selected", port: "IMAPS_PORT", tls: true, most: 50},
	}
}

// idle measures what an idle IMAP session costs, in servers whose mailboxes hold ten messages each. Each kind has servers that were just started,
// so that no memory of earlier sessions lies ready; one session has come and gone, so that what is read at the first login counts as the server's.
func (l *lab) idle(ctx context.Context, r *report) error {
	sessions := 1000
	if l.options.quick {
		sessions = 200
	}
	type start func() (*server, error)
	starts := []start{
		func() (*server, error) { return l.startPostilion(ctx, "Postilion idle", postilionPort) },
		func() (*server, error) { return l.startDovecot(ctx, "maildir", maildirPort) },
	}
	for _, begin := range starts {
		s, err := begin()
		if err != nil {
			return err
		}
		for range 10 {
			if _, err := l.deliver(ctx, s, load{sessions: 10, size: 4 << 10, messages: sessions, lmtp: true}); err != nil {
				return err
			}
		}
		if err := l.end(s); err != nil {
			return err
		}
	}
	for _, kind := range idleKinds() {
		var each [2]float64
		for i, begin := range starts {
			s, err := begin()
			if err != nil {
				return err
			}
			if each[i], err = l.idleSessions(ctx, s, kind, sessions, nil); err != nil {
				return err
			}
			if err := l.end(s); err != nil {
				return err
			}
		}
		r.state(fmt.Sprintf("%d sessions, %s", sessions, kind.name), "KiB/session (PSS)", []float64{each[0]}, "Dovecot", []float64{each[1]}, atMost(kind.most))
	}
	return nil
}

// idleSessions logs sessions in and returns what each added to the server, in KiB of PSS. meanwhile, when not nil, is called while they are open.
func (l *lab) idleSessions(ctx context.Context, s *server, kind idleKind, sessions int, meanwhile func() error) (each float64, err error) {
	if err := visit(ctx, s, kind, sessions); err != nil {
		return 0, err
	}
	time.Sleep(settle)
	before, err := memoryOf(s.pid)
	if err != nil {
		return 0, err
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			err = errors.Join(err, c.Close())
		}
	}()
	for i := range sessions {
		c, err := login(ctx, s, kind, i)
		if err != nil {
			return 0, fmt.Errorf("%s, session %d: %w", s.name, i, err)
		}
		open = append(open, c)
	}
	time.Sleep(settle)
	after, err := memoryOf(s.pid)
	if err == nil && meanwhile != nil {
		err = meanwhile()
	}
	return (after.pss - before.pss) / float64(sessions), err
}

// visit logs in and out once.
func visit(ctx context.Context, s *server, kind idleKind, user int) error {
	c, err := login(ctx, s, kind, user)
	if err != nil {
		return fmt.Errorf("%s, first session: %w", s.name, err)
	}
	return c.Close()
}

// login opens a session as the user of that number, counted from 0 in the order in which smtp-source numbers its recipients, and leaves it idle.
func login(ctx context.Context, s *server, kind idleKind, user int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 30 * time.Second}
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", s.facts[kind.port]))
	if err != nil {
		return nil, err
	}
	if kind.tls {
		// The certificate is the lab's own, and what is measured is memory.
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	}
	steps := []struct{ send, want string }{
		{"", "* OK"},
		{fmt.Sprintf("a LOGIN %du@example.com pw\r\n", user+1), "a OK"},
		{"b SELECT INBOX\r\n", "b OK"},
	}
	err = c.SetDeadline(time.Now().Add(60 * time.Second))
	in := bufio.NewReader(c)
	for _, step := range steps {
		if err == nil {
			_, err = c.Write([]byte(step.send))
		}
		if err == nil {
			err = await(in, step.want)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// await reads lines until one begins with want; a refusal is an error.
func await(in *bufio.Reader, want string) error {
	for {
		line, err := in.ReadString('\n')
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(line, want):
			return nil
		case !strings.HasPrefix(line, "* "):
			return fmt.Errorf("wanted %q, got %q", want, line)
		}
	}
}

// start measures the time from exec until every listener accepts, and the memory of the server that has done nothing yet.
func (l *lab) start(ctx context.Context, r *report) error {
	s, err := l.startPostilion(ctx, "Postilion start", postilionPort)
	if err != nil {
		return err
	}
	if err := l.end(s); err != nil {
		return err
	}
	var ready, rss, pss []float64
	for i := range 20 {
		took, m, err := l.startOnce(ctx, s.facts["CONFIG"], i%10 == 9)
		if err != nil {
			return err
		}
		ready = append(ready, took.Seconds()*1000)
		if m.rss > 0 {
			rss, pss = append(rss, m.rss/1024), append(pss, m.pss/1024)
		}
	}
	dovecot, err := l.startDovecot(ctx, "maildir", maildirPort)
	if err != nil {
		return err
	}
	postfix, err := l.startPostfix(ctx)
	if err != nil {
		return err
	}
	time.Sleep(settle)
	theirs, err := memoryOf(dovecot.pid)
	if err != nil {
		return err
	}
	also, err := memoryOf(postfix.pid)
	if err != nil {
		return err
	}
	const peers = "Dovecot + Postfix"
	r.state("exec until ready, 20 starts", "ms", ready, "", nil, atMost(100).in(" ms"))
	r.state("idle server", "MiB (RSS, shared pages counted in each process)", rss, peers, []float64{(theirs.rss + also.rss) / 1024}, bound{})
	r.state("idle server", "MiB (PSS)", pss, peers, []float64{(theirs.pss + also.pss) / 1024}, atMost(50).in(" MiB"))
	return l.endAll(postfix, dovecot)
}

// startOnce runs the server until it says that it is ready, and ends it. Its memory is read when weigh is set.
func (l *lab) startOnce(ctx context.Context, config string, weigh bool) (took time.Duration, m memory, err error) {
	c := exec.Command(l.program, "serve", "-c", config)
	stderr, err := c.StderrPipe()
	if err != nil {
		return 0, m, err
	}
	began := time.Now()
	if err := c.Start(); err != nil {
		return 0, m, err
	}
	// A server that says nothing is ended, which ends the reading of its words.
	alarm := time.AfterFunc(time.Minute, func() { _ = c.Process.Kill() })
	defer alarm.Stop()
	in := bufio.NewReader(stderr)
	said := ""
	for {
		line, err := in.ReadString('\n')
		said += line
		if strings.HasPrefix(line, "ready:") {
			took = time.Since(began)
			break
		}
		if err != nil {
			return 0, m, errors.Join(fmt.Errorf("the server did not become ready; it said:\n%s", said), c.Wait())
		}
	}
	if weigh {
		time.Sleep(settle)
		m, err = memoryOf(c.Process.Pid)
	}
	err = errors.Join(err, c.Process.Signal(syscall.SIGTERM))
	for err == nil {
		if _, readErr := in.ReadString('\n'); readErr != nil {
			break
		}
	}
	return took, m, errors.Join(err, c.Wait(), ctx.Err())
}
