package service_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postilion/service"
	"postilion/service/roles"
)

// serveVariable names the directory that a copy of this test program serves instead of running tests.
const serveVariable = "POSTILION_TEST_SERVE"

func TestMain(m *testing.M) {
	if code, ok := roles.Run(os.Args[1:], os.Stderr); ok {
		os.Exit(code)
	}
	if dir := os.Getenv(divideVariable); dir != "" {
		os.Exit(serveDivided(dir))
	}
	if dir := os.Getenv(serveVariable); dir != "" {
		os.Exit(serveAlone(dir))
	}
	os.Exit(m.Run())
}

// serveAlone is the serve command in little: one process that serves until SIGINT or until a database cannot go on.
func serveAlone(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server, err := service.Start(ctx, service.Options{
		PostfixDir: dir, DovecotFile: filepath.Join(dir, "dovecot.conf"), Getenv: os.Getenv, Stderr: os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, server.Ready())
	code := 0
	select {
	case <-ctx.Done():
	case <-server.Fatal():
		code = 1
	}
	patient, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := server.Stop(patient); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// serve runs a process of its own over the system's files and returns when it is ready.
func (s *system) serve() *exec.Cmd {
	s.t.Helper()
	return s.serveBy(serveVariable, "TMPDIR="+s.dir)
}

// serveBy is serve with the variable that says how, and the environment.
func (s *system) serveBy(variable string, env ...string) *exec.Cmd {
	s.t.Helper()
	process := exec.Command("/proc/self/exe")
	process.Env = append(append(os.Environ(), variable+"="+s.dir), env...)
	output, err := process.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		told := false
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if !told && strings.HasPrefix(lines.Text(), "ready:") {
				told = true
				ready <- true
			}
			fmt.Fprintln(s.log, lines.Text())
		}
		if !told {
			ready <- false
		}
	}()
	select {
	case ok := <-ready:
		if ok {
			return process
		}
	case <-time.After(patience):
	}
	_ = process.Process.Kill()
	_ = process.Wait()
	s.t.Fatalf("the program did not become ready:\n%s", s.log)
	return nil
}

// TestKilledProcess kills a serving process under load, several times; every acknowledged message is there once.
func TestKilledProcess(t *testing.T) {
	for _, driver := range []string{"vault", "maildir"} {
		t.Run(driver, func(t *testing.T) {
			const accounts, sessions = 4, 6
			rounds := 5
			if testing.Short() {
				rounds = 2
			}
			s := configure(t, setting{driver: driver, accounts: accounts})
			ledger := &ledger{acknowledged: map[string]bool{}}
			for round := range rounds {
				process := s.serve()
				var load sync.WaitGroup
				for c := range sessions {
					load.Go(func() { s.numbered(ledger, round, c, accounts) })
				}
				ledger.wait(40 + 20*round)
				if err := process.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = process.Wait()
				load.Wait()
				ledger.nextRound()
			}
			process := s.serve()
			defer func() {
				if err := process.Process.Signal(os.Interrupt); err != nil {
					t.Error(err)
				}
				if err := process.Wait(); err != nil {
					t.Errorf("the program did not end in order: %v", err)
				}
			}()
			s.audit(ledger, accounts)
		})
	}
}

// ledger knows which messages were acknowledged; the names are account/number.
type ledger struct {
	mu           sync.Mutex
	acknowledged map[string]bool
	thisRound    int
}

func (l *ledger) note(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acknowledged[name] = true
	l.thisRound++
}

func (l *ledger) nextRound() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.thisRound = 0
}

// wait returns when that many messages of this round were acknowledged, or patience is over.
func (l *ledger) wait(count int) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		l.mu.Lock()
		enough := l.thisRound >= count
		l.mu.Unlock()
		if enough {
			return
		}
	}
}

// numbered sends numbered messages until the server is gone.
func (s *system) numbered(l *ledger, round, session, accounts int) {
	s.numberedUntil(l, new(atomic.Bool), round, session, accounts)
}

// numberedUntil is numbered until over.
func (s *system) numberedUntil(l *ledger, over *atomic.Bool, round, session, accounts int) {
	w, err := s.greetSMTP("smtp")
	if err != nil {
		return
	}
	defer w.close()
	for i := 0; !over.Load(); i++ {
		number := fmt.Sprintf("%d.%d.%d", round, session, i)
		first, second := (session+i)%accounts, (session+i+1)%accounts
		text := "Subject: " + number + "\r\n\r\n" + strings.Repeat("line of "+number+"\r\n", 20)
		if err := w.mail("a@elsewhere.example", []string{user(first), user(second)}, []byte(text)); err != nil {
			return
		}
		l.note(fmt.Sprintf("%d/%s", first, number))
		l.note(fmt.Sprintf("%d/%s", second, number))
	}
}

// audit wants every acknowledged message once and no message twice.
func (s *system) audit(l *ledger, accounts int) {
	s.t.Helper()
	found := map[string]int{}
	for n := range accounts {
		texts, err := s.readIMAP(n)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, text := range texts {
			_, number, _ := strings.Cut(string(text), "\r\nSubject: ")
			number, _, _ = strings.Cut(number, "\r\n")
			if !strings.HasSuffix(string(text), strings.Repeat("line of "+number+"\r\n", 20)) {
				s.t.Errorf("%s: message %s is damaged", user(n), number)
			}
			found[fmt.Sprintf("%d/%s", n, number)]++
		}
	}
	for name, count := range found {
		if count > 1 {
			s.t.Errorf("%s is there %d times", name, count)
		}
	}
	for name := range l.acknowledged {
		if found[name] == 0 {
			s.t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	s.t.Logf("%d acknowledged, %d found", len(l.acknowledged), len(found))
}
