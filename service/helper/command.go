package helper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postilion/service/child"
	"postilion/service/packet"
)

// Command is one that the helper may run: a pipe(8) service of master.cf. All of it is the configuration's; who asks gives what its macros stand for.
//
// A run is asked for with the text "run SERVICE" and one end of a pair. Through that pair come, each in a text of its own, "argument TEXT" for each
// word of the command line, "input" and "output" with the descriptors that the command gets, and "start". The answer is "exit CODE", "signal NUMBER",
// "late" when the time was over, "failed REASON" when it could not be started, or "refused REASON". Any further text, or the end of the pair, kills
// the command and all of its process group. The message goes through the descriptors and never through the helper.
type Command struct {
	Service   string
	As        child.Identity
	Directory string
	// Environment is all of it: NAME=value.
	Environment []string
	// Limit is how long the command may take.
	Limit time.Duration
	Words []Word
}

// Word is one of a command line.
type Word struct {
	// Text is the whole word, or when it has macros, what stands before the first.
	Text string
	// Macro tells that more may follow, Each that the word stands there once for each recipient.
	Macro, Each bool
}

// Limits of what is taken from outside.
const (
	// maxGrants is the greatest size of the list of commands in octets.
	maxGrants = 4 << 20
	// maxArguments and maxArgumentOctets bound a command line.
	maxArguments      = 4096
	maxArgumentOctets = 512 << 10
	// maxCommands is the greatest number of commands that run at once.
	maxCommands = 1000
)

// EncodeCommands is what DecodeCommands reads.
func EncodeCommands(commands []Command) ([]byte, error) {
	text, err := json.Marshal(commands)
	if err == nil && len(text) > maxGrants {
		err = fmt.Errorf("the pipe services of master.cf take %d octets, more than %d", len(text), maxGrants)
	}
	return text, err
}

// DecodeCommands reads the list of commands. One that would run as root makes the whole unusable.
func DecodeCommands(r io.Reader) ([]Command, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxGrants+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxGrants {
		return nil, errors.New("the list of commands is too long")
	}
	var commands []Command
	if err := json.Unmarshal(text, &commands); err != nil {
		return nil, fmt.Errorf("list of commands: %w", err)
	}
	for i := range commands {
		if err := commands[i].check(); err != nil {
			return nil, err
		}
	}
	return commands, nil
}

func (c *Command) check() error {
	switch {
	case c.As.UID <= 0 || c.As.GID <= 0:
		return fmt.Errorf("service %s: a command is never root", c.Service)
	case len(c.Words) == 0 || c.Words[0].Macro || c.Words[0].Text == "":
		return fmt.Errorf("service %s: the command's name is not fixed", c.Service)
	}
	for _, g := range c.As.Groups {
		if g <= 0 {
			return fmt.Errorf("service %s: a command is never in root's group", c.Service)
		}
	}
	return nil
}

// allow tells why a command line is not the configuration's.
func (c *Command) allow(argv []string) error {
	each := 0
	for _, w := range c.Words {
		if w.Each {
			each++
		}
	}
	times, rest := 0, len(argv)-(len(c.Words)-each)
	if each > 0 {
		times, rest = rest/each, rest%each
	}
	if rest != 0 || each > 0 && times < 1 {
		return fmt.Errorf("service %s: a command line of %d words is not the configuration's", c.Service, len(argv))
	}
	at := 0
	for _, w := range c.Words {
		repeat := 1
		if w.Each {
			repeat = times
		}
		for range repeat {
			if argv[at] != w.Text && !(w.Macro && strings.HasPrefix(argv[at], w.Text)) {
				return fmt.Errorf("service %s: word %d of the command line is not the configuration's", c.Service, at+1)
			}
			at++
		}
	}
	return nil
}

// replyRun answers a request for a run, which goes on by itself when it is taken.
func (s *server) replyRun(conn *packet.Conn, service string, file *os.File) error {
	run, err := packet.New(file)
	var command *Command
	for i := range s.commands {
		if s.commands[i].Service == service {
			command = &s.commands[i]
		}
	}
	s.mu.Lock()
	switch {
	case err != nil:
	case command == nil:
		err = fmt.Errorf("%.80q is no pipe service of master.cf that may be run", service)
	case s.serving >= maxCommands:
		err = fmt.Errorf("%d commands run already", maxCommands)
	default:
		s.serving++
	}
	s.mu.Unlock()
	if err != nil {
		if run != nil {
			_ = run.Close()
		}
		return conn.Send("refused "+err.Error(), nil)
	}
	s.sessions.Go(func() {
		answer := command.session(run)
		s.mu.Lock()
		s.serving--
		s.mu.Unlock()
		// Who does not hear it any more does not want to know.
		_ = run.SetDeadline(time.Now().Add(patience))
		_ = run.Send(answer[:min(len(answer), packet.MaxText)], nil)
		_ = run.Close()
	})
	return conn.Send("ok", nil)
}

// order is what a run is asked for with.
type order struct {
	argv          []string
	input, output *os.File
}

func (o *order) close() {
	for _, f := range []*os.File{o.input, o.output} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// read takes the texts up to "start".
func (o *order) read(conn *packet.Conn) error {
	octets := 0
	for {
		text, file, err := conn.Receive()
		if err != nil {
			return err
		}
		verb, rest, _ := strings.Cut(text, " ")
		switch {
		case text == "input" && file != nil && o.input == nil:
			o.input = file
			continue
		case text == "output" && file != nil && o.output == nil:
			o.output = file
			continue
		case file != nil:
			return errors.Join(errors.New("a descriptor that is not asked for"), file.Close())
		case text == "start" && o.input != nil && o.output != nil:
			return nil
		case verb != "argument":
			return fmt.Errorf("%.40q is not expected here", text)
		}
		octets += len(rest) + 1
		if len(o.argv) == maxArguments || octets > maxArgumentOctets {
			return fmt.Errorf("a command line has at most %d words of %d octets together", maxArguments, maxArgumentOctets)
		}
		o.argv = append(o.argv, rest)
	}
}

// session runs the command once and returns the answer.
func (c *Command) session(conn *packet.Conn) string {
	var o order
	defer o.close()
	err := conn.SetDeadline(time.Now().Add(patience))
	if err == nil {
		err = o.read(conn)
	}
	if err == nil {
		err = c.allow(o.argv)
	}
	if err == nil {
		err = errors.Join(makeBlocking(o.input), makeBlocking(o.output))
	}
	if err != nil {
		return "refused " + err.Error()
	}
	process := exec.Command(o.argv[0], o.argv[1:]...)
	process.Dir, process.Env = c.Directory, c.Environment
	process.Stdin, process.Stdout, process.Stderr = o.input, o.output, o.output
	if err := child.Become(process, &c.As, true); err != nil {
		return "failed " + err.Error()
	}
	// Only the command holds them from now on, so that each side sees the other's end.
	o.close()
	return c.watch(conn, process)
}

// makeBlocking makes a descriptor what programs expect: one whose reads wait. Those of a Go program do not.
func makeBlocking(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = syscall.SetNonblock(int(fd), false) })
	return errors.Join(err, set)
}

// watch waits for the command, the time limit or who asked, whichever is first.
func (c *Command) watch(conn *packet.Conn, process *exec.Cmd) string {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL)
		_ = process.Wait()
		return "failed " + err.Error()
	}
	ended, unwanted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		// The process is left to be waited for, so that its number is nobody else's when its group is killed.
		for unix.Waitid(unix.P_PID, process.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	go func() {
		defer close(unwanted)
		if _, file, err := conn.Receive(); err == nil && file != nil {
			_ = file.Close()
		}
	}()
	limit := time.NewTimer(c.Limit)
	defer limit.Stop()
	late := false
	select {
	case <-ended:
	case <-limit.C:
		late = true
		_ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL)
	case <-unwanted:
		_ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL)
	}
	<-ended
	// How it ended stands in ProcessState; an error of Wait says the same in other words.
	_ = process.Wait()
	// The other goroutine ends when it does not receive any more.
	_ = conn.StopReceiving()
	<-unwanted
	status, ok := process.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case late:
		return "late"
	case ok && status.Signaled():
		return fmt.Sprintf("signal %d", int(status.Signal()))
	}
	return fmt.Sprintf("exit %d", process.ProcessState.ExitCode())
}
