package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"postilion/store"
)

// outputLimit is how much of a command's output is kept for the log.
const outputLimit = 4096

// sysexits are the exit codes that programs for mail agree on, with what they mean: sysexits.h.
var sysexits = [...]struct {
	code      int
	dsn, text string
}{
	{64, "5.3.0", "command line usage error"},
	{65, "5.6.0", "data format error"},
	{66, "5.3.0", "cannot open input"},
	{67, "5.1.1", "user unknown"},
	{68, "5.1.2", "host name unknown"},
	{69, "5.3.0", "service unavailable"},
	{70, "5.3.0", "internal software error"},
	{71, "5.3.0", "system resource problem"},
	{72, "5.3.0", "critical OS file missing"},
	{73, "5.2.0", "can't create user output file"},
	{74, "5.3.0", "input/output error"},
	{75, "4.3.0", "temporary failure"},
	{76, "5.5.0", "remote error in protocol"},
	{77, "5.7.0", "permission denied"},
	{78, "5.3.5", "local configuration error"},
}

// command is one run of a program.
type command struct {
	argv        []string
	directory   string
	environment []string
	credential  *syscall.Credential
	limit       time.Duration
	input       *programInput
	// elsewhere runs it where that is not this process's business.
	elsewhere Run
}

// Run runs a command line to its end, with the two files as its input and output, which it closes. When ctx ends, the program and all that it started
// are killed. The error says why it could not be run.
type Run func(ctx context.Context, argv []string, input, output *os.File) (Ended, error)

// Ended is how a program ended.
type Ended struct {
	Code int
	// Signal is not 0 when one ended it.
	Signal syscall.Signal
	// Late tells that its time was over.
	Late bool
}

// run runs the program to its end. The program and all that it started are killed when the time is over.
func (c *command) run(ctx context.Context, service string) Outcome {
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	output := &boundedOutput{}
	run := c.execute
	if c.elsewhere != nil {
		run = c.pass
	}
	ended, err := run(limited, output)
	said := printable(string(bytes.TrimSpace(output.kept.Bytes())))
	switch {
	case c.input.failed != nil:
		return failure(Deferred, "4.3.0", "cannot read the message: %v", c.input.failed)
	case ctx.Err() != nil:
		return failure(Deferred, "4.3.0", "command %s was stopped: the client would not wait any longer%s", c.argv[0], behind(said))
	case limited.Err() != nil || ended.Late:
		return failure(Bounced, "5.3.0", "Command time limit exceeded: %q%s", c.argv[0], behind(said))
	case err != nil:
		return failure(Deferred, "4.3.0", "unable to run command %s: %v", c.argv[0], err)
	case ended.Signal != 0:
		return failure(Bounced, "5.3.0", "Command died with signal %d: %q%s", int(ended.Signal), c.argv[0], behind(said))
	case ended.Code != 0:
		return exitOutcome(ended.Code, c.argv[0], said)
	}
	o := failure(Sent, "2.0.0", "delivered via %s service", service)
	if said != "" {
		o.Text += " (" + said + ")"
	}
	return o
}

// leftBehind is how long a program that has ended may keep its input and output open through what it left behind.
const leftBehind = time.Second

// execute runs the program as a child of this process.
func (c *command) execute(ctx context.Context, output io.Writer) (Ended, error) {
	program := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	program.Dir, program.Env = c.directory, c.environment
	program.Stdin, program.Stdout, program.Stderr = c.input, output, output
	program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.credential}
	program.Cancel = func() error { return syscall.Kill(-program.Process.Pid, syscall.SIGKILL) }
	program.WaitDelay = leftBehind
	if err := program.Start(); err != nil {
		return Ended{}, err
	}
	err := program.Wait()
	status, ok := program.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		return Ended{Signal: status.Signal()}, nil
	case program.ProcessState.ExitCode() < 0:
		return Ended{}, err
	}
	return Ended{Code: program.ProcessState.ExitCode()}, nil
}

// pass has the program run elsewhere.
func (c *command) pass(ctx context.Context, output io.Writer) (Ended, error) {
	theirInput, input, err := os.Pipe()
	if err != nil {
		return Ended{}, err
	}
	ours, theirOutput, err := os.Pipe()
	if err != nil {
		return Ended{}, errors.Join(err, theirInput.Close(), input.Close())
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		// A program need not read all; the message's own errors are the input's to keep.
		_, _ = io.Copy(input, c.input)
		_ = input.Close()
	})
	copying.Go(func() { _, _ = io.Copy(output, ours) })
	ended, err := c.elsewhere(ctx, c.argv, theirInput, theirOutput)
	late := time.Now().Add(leftBehind)
	// The input may be closed already.
	_ = input.SetWriteDeadline(late)
	err = errors.Join(err, ours.SetReadDeadline(late))
	copying.Wait()
	return ended, errors.Join(err, ours.Close())
}

// behind is a command's output at the end of a text.
func behind(output string) string {
	if output == "" {
		return ""
	}
	return ". Command output: " + output
}

// exitOutcome is what an exit code other than 0 means, or what the command said of it: output that begins with an enhanced status code counts more.
func exitOutcome(code int, name, said string) Outcome {
	if dsn, text, ok := statusInFront(said); ok {
		status := Bounced
		if dsn[0] == '4' {
			status = Deferred
		}
		return failure(status, dsn, "%s", text)
	}
	for _, known := range sysexits {
		if known.code == code {
			status := Bounced
			if known.dsn[0] == '4' {
				status = Deferred
			}
			return failure(status, known.dsn, "%s%s", known.text, behind(said))
		}
	}
	return failure(Bounced, "5.3.0", "Command died with status %d: %q%s", code, name, behind(said))
}

// statusInFront takes an enhanced status code of class 4 or 5 off a text.
func statusInFront(text string) (dsn, rest string, ok bool) {
	var class, subject, detail int
	n, err := fmt.Sscanf(text, "%1d.%3d.%3d", &class, &subject, &detail)
	if err != nil || n != 3 || class != 4 && class != 5 {
		return "", "", false
	}
	dsn = fmt.Sprintf("%d.%d.%d", class, subject, detail)
	if len(text) <= len(dsn) || text[:len(dsn)] != dsn || text[len(dsn)] != ' ' {
		return "", "", false
	}
	return dsn, text[len(dsn)+1:], true
}

// boundedOutput keeps the beginning of what is written.
type boundedOutput struct{ kept bytes.Buffer }

func (o *boundedOutput) Write(p []byte) (int, error) {
	o.kept.Write(p[:min(len(p), outputLimit-o.kept.Len())])
	return len(p), nil
}

// programInput is a message on its way into a program: with the program's line ends, and what is special at the start of a line made harmless.
type programInput struct {
	content    store.Content
	eol        string
	dots, from bool
	blankAtEnd bool

	offset  int64
	pending bytes.Buffer
	// held is the beginning of a line that has not come whole.
	held []byte
	// midLine: the rest of an overlong line follows.
	midLine bool
	ended   bool
	failed  error
}

// heldLine is how much of a line is held to look at its start and end.
const heldLine = 16 << 10

func (in *programInput) Read(p []byte) (int, error) {
	for in.pending.Len() == 0 {
		if in.ended {
			return 0, io.EOF
		}
		if err := in.load(); err != nil {
			in.failed = err
			return 0, err
		}
	}
	return in.pending.Read(p)
}

// load takes in the next block of the message.
func (in *programInput) load() error {
	var block [heldLine]byte
	n, err := in.content.ReadAt(block[:min(int64(len(block)), in.content.Size()-in.offset)], in.offset)
	if n == 0 && in.offset < in.content.Size() {
		return orUnexpected(err)
	}
	in.offset += int64(n)
	data := append(in.held, block[:n]...)
	in.held = nil
	last := in.offset == in.content.Size()
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			if !last && len(data) < heldLine {
				in.held = bytes.Clone(data)
				break
			}
			if !last && data[len(data)-1] == '\r' {
				in.held = []byte("\r")
				data = data[:len(data)-1]
			}
			in.line(data, last)
			break
		}
		in.line(bytes.TrimSuffix(data[:end], []byte("\r")), true)
		data = data[end+1:]
	}
	if last {
		in.ended = true
		if in.blankAtEnd {
			in.pending.WriteString(in.eol)
		}
	}
	return nil
}

// line writes a line, or the beginning of an overlong one.
func (in *programInput) line(text []byte, complete bool) {
	switch {
	case in.midLine:
	case in.dots && bytes.HasPrefix(text, []byte(".")):
		in.pending.WriteByte('.')
	case in.from && bytes.HasPrefix(text, []byte("From ")):
		in.pending.WriteByte('>')
	}
	in.midLine = !complete
	in.pending.Write(text)
	if complete {
		in.pending.WriteString(in.eol)
	}
}
