package main

import (
	"bytes"
	"context"
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
)

// Offsets of the servers' ports from the port base; each script uses up to ten ports.
const (
	postilionPort = 0
	filledPort    = 20
	postfixPort   = 100
	maildirPort   = 140
	mdboxPort     = 160
	floorPort     = 200
)

// patience bounds the start and the end of a server, and a build.
const patience = 5 * time.Minute

// lab is where the servers of one run live.
type lab struct {
	options options
	// module is the root of the checkout, peers the folder of the scripts.
	module, peers string
	dir           string
	temporary     bool
	program       string
	running       []*server
}

// server is one program that is measured.
type server struct {
	name string
	// facts is what its script printed: ports, PID, paths.
	facts map[string]string
	pid   int
	stop  func(context.Context) error
}

// openLab finds the scripts and makes the folder of the run.
func openLab(ctx context.Context, o options) (*lab, error) {
	module, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	shared := os.Getenv("POSTILION_SHARED")
	if shared == "" {
		shared = filepath.Join(filepath.Dir(module), "shared")
	}
	l := &lab{options: o, module: module, peers: filepath.Join(shared, "peers"), dir: o.dir}
	if _, err := os.Stat(filepath.Join(l.peers, "delivery_timing.py")); err != nil {
		return nil, fmt.Errorf("the peer lab is not here, so there is nothing to compare with: %w (POSTILION_SHARED names the folder that holds peers/)", err)
	}
	for _, program := range []string{"bash", "python3", "smtp-source"} {
		if err := l.want(program); err != nil {
			return nil, err
		}
	}
	if l.dir == "" {
		if l.dir, err = os.MkdirTemp("", "bench"); err != nil {
			return nil, err
		}
		l.temporary = true
	}
	// Other users' processes pass through it.
	if err := errors.Join(os.MkdirAll(l.dir, 0o755), os.Chmod(l.dir, 0o755)); err != nil {
		return nil, err
	}
	if l.program = o.program; l.program == "" {
		l.program = filepath.Join(l.dir, "postilion")
		err = l.build(ctx, module, l.program, "./cmd/postilion")
	}
	return l, err
}

// want finds a program that the scripts need. They install what they miss themselves, but only the peers' packages, and only as root.
func (l *lab) want(program string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join("/usr/sbin", program)); err == nil {
		return os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	}
	return fmt.Errorf("%s is not installed (on Debian: apt-get install postfix python3 strace; smtp-source comes with postfix)", program)
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("run bench from within the checkout")
		}
		dir = parent
	}
}

// build compiles a program the way that .ci/run and README.md do.
func (l *lab) build(ctx context.Context, dir, output, target string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", output, target)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s in %s: %w\n%s", target, dir, err, text)
	}
	return nil
}

// close stops what was started, last first, and removes the folder of the run when it was made for it.
func (l *lab) close() error {
	var errs []error
	for len(l.running) > 0 {
		errs = append(errs, l.end(l.running[len(l.running)-1]))
	}
	if l.temporary {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// end stops one server.
func (l *lab) end(s *server) error {
	for i := range l.running {
		if l.running[i] == s {
			l.running = append(l.running[:i], l.running[i+1:]...)
			break
		}
	}
	// A run that was interrupted still has to stop what it started.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.stop(ctx); err != nil {
		return fmt.Errorf("stopping %s: %w", s.name, err)
	}
	return nil
}

// startPeer runs a script of the peer lab. environment is added to the process's.
func (l *lab) startPeer(ctx context.Context, name, script string, port int, mode string, environment ...string) (*server, error) {
	dir := filepath.Join(l.dir, strings.ReplaceAll(name, " ", "-"))
	command := func(ctx context.Context, words ...string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		c := exec.CommandContext(ctx, filepath.Join(l.peers, script), words...)
		// What they start outlives the script and holds its standard error open.
		c.WaitDelay = time.Second
		var problem bytes.Buffer
		c.Stderr = &problem
		c.Env = append(os.Environ(), environment...)
		text, err := c.Output()
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			return nil, fmt.Errorf("%s %s: %w\n%s", script, strings.Join(words, " "), err, problem.Bytes())
		}
		return text, nil
	}
	text, err := command(ctx, "start", dir, strconv.Itoa(l.options.portBase+port), mode)
	if err != nil {
		return nil, err
	}
	s := &server{name: name, facts: facts(string(text)), stop: func(ctx context.Context) error {
		_, err := command(ctx, "stop", dir)
		return err
	}}
	l.running = append(l.running, s)
	if s.pid, err = strconv.Atoi(s.facts["PID"]); err != nil {
		return nil, fmt.Errorf("%s start printed no PID: %q", script, text)
	}
	return s, nil
}

// facts reads KEY=VALUE words.
func facts(text string) map[string]string {
	m := map[string]string{}
	for _, word := range strings.Fields(text) {
		if key, value, ok := strings.Cut(word, "="); ok {
			m[key] = value
		}
	}
	return m
}

// startPostilion starts the server under test with a vault in its own folder.
func (l *lab) startPostilion(ctx context.Context, name string, port int, environment ...string) (*server, error) {
	location := "DOVECOT_EXTRA=mail_location = vault:" + filepath.Join(l.dir, strings.ReplaceAll(name, " ", "-"), "vault")
	return l.startPeer(ctx, name, "postilion.sh", port, "vault", append([]string{"POSTILION=" + l.program, location}, environment...)...)
}

func (l *lab) startPostfix(ctx context.Context) (*server, error) {
	return l.startPeer(ctx, "Postfix", "postfix.sh", postfixPort, "virtual")
}

// startDovecot starts the lean Dovecot, without plugins, that the baseline was taken with.
func (l *lab) startDovecot(ctx context.Context, format string, port int) (*server, error) {
	return l.startPeer(ctx, "Dovecot "+format, "dovecot.sh", port, format, "EXT=0")
}

// startFloor builds and starts limit, the loop that answers blindly and commits durably.
func (l *lab) startFloor(ctx context.Context) (*server, error) {
	program := filepath.Join(l.dir, "limit")
	if err := l.build(ctx, filepath.Join(l.peers, "limit"), program, "."); err != nil {
		return nil, err
	}
	port := l.options.portBase + floorPort
	// Not CommandContext: close stops it.
	c := exec.Command(program, "-listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "-dir", filepath.Join(l.dir, "floor"))
	if err := c.Start(); err != nil {
		return nil, err
	}
	s := &server{name: "floor", pid: c.Process.Pid, facts: map[string]string{"SMTP_PORT": strconv.Itoa(port)}, stop: func(context.Context) error {
		return errors.Join(c.Process.Signal(syscall.SIGTERM), c.Wait())
	}}
	l.running = append(l.running, s)
	return s, awaitPort(ctx, port)
}

// awaitPort returns when somebody accepts connections on the port.
func awaitPort(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var dialer net.Dialer
	for {
		c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody listens on port %d: %w", port, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// tool runs a measuring tool of the peer lab and returns what it printed.
func (l *lab) tool(ctx context.Context, name string, words ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := exec.CommandContext(ctx, "python3", append([]string{filepath.Join(l.peers, name)}, words...)...)
	var problem bytes.Buffer
	c.Stderr = &problem
	text, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(words, " "), err, problem.Bytes())
	}
	return text, nil
}
