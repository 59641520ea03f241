package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"postilion/cmd/postilion/manual"
	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/service"
	"postilion/service/check"
	"postilion/service/roles"
)

func postfixCommand() command {
	return command{
		unix: true,
		page: manual.Page{
			Name: "postfix", Section: 1, Summary: "start and stop the mail transport of a main.cf",
			Synopsis: []string{"postfix [-c DIR] [-v] start|start-fg|stop|reload|status|check|flush"},
			Description: "Serves main.cf and master.cf alone, as `postilion serve` does together with dovecot.conf; mail for mailboxes goes to the LMTP and auth sockets that main.cf names. " +
				"The number of the process is in pid/master.pid in queue_directory, which it keeps locked. Messages have the form of Postfix's postfix(1).",
			Options: []manual.Entry{
				{Term: "-c DIR", Text: "the configuration directory; without it $MAIL_CONFIG or " + defaultPostfixDir},
				{Term: "-v", Text: "taken and without effect"},
				{Term: "start", Text: "serve in the background; returns when every listener accepts"},
				{Term: "start-fg", Text: "serve in the foreground"},
				{Term: "stop", Text: "end in order and wait for it"},
				{Term: "reload", Text: "read the configuration again"},
				{Term: "status", Text: "tell whether a server runs, and its process number"},
				{Term: "check", Text: "name what is wrong with the configuration; see postilion-check(8)"},
				{Term: "flush", Text: "there is no queue in this version: mail is delivered at once or refused, so nothing is left to do"},
			},
			Exit: []manual.Entry{{Term: "0", Text: "done"}, {Term: "1", Text: "not done; the reason is on standard error"}},
			Files: []manual.Entry{
				{Term: "main.cf, master.cf", Text: "the configuration"}, {Term: "$queue_directory/pid/master.pid", Text: "the process number"},
			},
			Examples: []manual.Entry{{Term: "postfix -c /etc/postfix start-fg", Text: ""}, {Term: "postfix status && postfix reload", Text: ""}},
			SeeAlso:  []string{"postconf(1)", "dovecot(1)", "postilion-serve(8)", "main.cf(5)", "master.cf(5)"},
		},
		run: runPostfix,
	}
}

// postfixScript is a run of the postfix command.
type postfixScript struct {
	e      *environment
	dir    string
	config *postfix.Config
	pid    string
}

func (p *postfixScript) say(format string, arguments ...any) int {
	fmt.Fprintf(p.e.stderr, "postfix/postfix-script: "+format+"\n", arguments...)
	return exitOK
}

func (p *postfixScript) fatal(format string, arguments ...any) int {
	p.say("fatal: "+format, arguments...)
	return exitFailure
}

const postfixWords = "start (or stop, reload, abort, flush, check, status, set-permissions, upgrade-configuration, logrotate)"

func runPostfix(ctx context.Context, e *environment) int {
	p := &postfixScript{e: e, dir: e.getenv("MAIL_CONFIG")}
	if p.dir == "" {
		p.dir = defaultPostfixDir
	}
	args := e.args
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch {
		case args[0] == "-c" && len(args) > 1:
			p.dir, args = args[1], args[2:]
		case strings.Trim(args[0], "-vD") == "":
			args = args[1:]
		default:
			fmt.Fprintf(e.stderr, "postfix: fatal: usage: postfix [-c config_dir] [-Dv] command\n")
			return exitFailure
		}
	}
	if len(args) == 0 {
		fmt.Fprintf(e.stderr, "postfix: fatal: usage: postfix [-c config_dir] [-Dv] command\n")
		return exitFailure
	}
	if len(args) > 1 && args[0] != "check" {
		return p.fatal("usage postfix %s (no arguments)", args[0])
	}
	var err error
	if p.config, err = postfix.Load(p.dir); err != nil {
		fmt.Fprintf(e.stderr, "postfix: fatal: %v\n", err)
		return exitFailure
	}
	p.pid = service.PostfixPidFile(p.config.View())
	return p.command(ctx, args[0])
}

func (p *postfixScript) command(ctx context.Context, word string) int {
	running, err := runningProcess(p.pid)
	if err != nil {
		return p.fatal("%v", err)
	}
	switch word {
	case "start", "start-fg":
		if running != 0 {
			return p.fatal("the Postfix mail system is already running")
		}
		p.say("starting the Postfix mail system")
		if word == "start" {
			return p.start()
		}
		return p.foreground(ctx)
	case "status":
		if running == 0 {
			p.say("the Postfix mail system is not running")
			return exitFailure
		}
		return p.say("the Postfix mail system is running: PID: %d", running)
	case "check":
		return p.check(ctx)
	case "stop", "quick-stop", "abort", "reload", "flush":
		if running == 0 {
			return p.fatal("the Postfix mail system is not running")
		}
		return p.signal(word, running)
	}
	return p.fatal("unknown command: '%s'. Usage: postfix %s", word, postfixWords)
}

// signal does what needs a running server.
func (p *postfixScript) signal(word string, pid int) int {
	switch word {
	case "reload":
		p.say("refreshing the Postfix mail system")
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			return p.fatal("process %d: %v", pid, err)
		}
	case "stop", "quick-stop", "abort":
		doing := "stopping"
		if word == "abort" {
			doing = "aborting"
		}
		p.say("%s the Postfix mail system", doing)
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return p.fatal("process %d: %v", pid, err)
		}
		if !awaitEnd(p.pid, stopPatience+5*time.Second, func() { p.say("waiting for the Postfix mail system to terminate") }) {
			return p.fatal("process %d does not end", pid)
		}
	}
	return exitOK
}

// check tells mistakes in Postfix's way: nothing when there are none.
func (p *postfixScript) check(ctx context.Context) int {
	found := check.Run(ctx, check.Options{PostfixDir: p.dir, Getenv: p.e.getenv, Now: time.Now()})
	code := exitOK
	for _, f := range found.Findings {
		switch f.Severity {
		case check.Error:
			p.fatal("%s", f)
			code = exitFailure
		case check.Warning:
			p.say("%s", f)
		}
	}
	return code
}

// detachVariable tells a server in the background to let go of its standard output and error when it is ready.
const detachVariable = "POSTILION_DETACH"

func (p *postfixScript) foreground(ctx context.Context) int {
	if p.e.getenv(detachVariable) != "" {
		p.e.detach = roles.Detach
	}
	return serveUntilSignal(ctx, p.e, "postfix/master", service.Options{PostfixDir: p.dir, Getenv: p.e.getenv, Stderr: p.e.stderr})
}

// maxStartOutput bounds what a server may say before it is ready.
const maxStartOutput = 1 << 20

// start runs this program again in a session of its own and waits until it is ready or has failed.
func (p *postfixScript) start() int {
	program, err := os.Executable()
	if err != nil {
		return p.fatal("mail system startup failed: %v", err)
	}
	child := exec.Command(program)
	child.Args = []string{"postilion", "postfix", "-c", p.dir, "start-fg"}
	child.Env = append(os.Environ(), detachVariable+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	read, write, err := os.Pipe()
	if err != nil {
		return p.fatal("mail system startup failed: %v", err)
	}
	child.Stdout, child.Stderr = write, write
	err = child.Start()
	if err = errors.Join(err, write.Close()); err != nil {
		return p.fatal("mail system startup failed: %v", errors.Join(err, read.Close()))
	}
	said, err := io.ReadAll(io.LimitReader(read, maxStartOutput))
	err = errors.Join(err, read.Close())
	if err == nil && (bytes.HasPrefix(said, []byte("ready: ")) || bytes.Contains(said, []byte("\nready: "))) {
		return exitOK
	}
	err = errors.Join(err, child.Wait())
	for line := range strings.Lines(string(said)) {
		if !strings.Contains(line, "starting the Postfix mail system") {
			fmt.Fprintln(p.e.stderr, strings.TrimRight(line, "\n"))
		}
	}
	return p.fatal("mail system startup failed: %v", err)
}

// controlDovecot is `dovecot stop` and `dovecot reload`.
func controlDovecot(e *environment, file, word string) int {
	config, err := dovecot.Load(file)
	if err != nil {
		fmt.Fprintf(e.stderr, "dovecot: %v\n", err)
		return exitFailure
	}
	path := service.DovecotPidFile(config.For(dovecot.Filter{}))
	pid, err := runningProcess(path)
	if err == nil && pid == 0 {
		err = dovecot.Refuse("Dovecot is not running (read from %s)", path)
	}
	if err != nil {
		fmt.Fprintf(e.stderr, "dovecot: Fatal: %v\n", err)
		return exitFailure
	}
	sig := syscall.SIGHUP
	if word == "stop" {
		sig = syscall.SIGTERM
	}
	if err := syscall.Kill(pid, sig); err != nil {
		fmt.Fprintf(e.stderr, "dovecot: Fatal: process %d: %v\n", pid, err)
		return exitFailure
	}
	if word == "stop" && !awaitEnd(path, stopPatience+5*time.Second, func() {}) {
		fmt.Fprintf(e.stderr, "dovecot: Fatal: process %d does not end\n", pid)
		return exitFailure
	}
	return exitOK
}
