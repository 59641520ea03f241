package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"postilion/cmd/postilion/manual"
	"postilion/service"
	"postilion/service/listen"
	"postilion/service/master"
	"postilion/service/roles"
)

// stopPatience is how long sessions may take to end after SIGTERM.
const stopPatience = 20 * time.Second

func serveCommand() command {
	return command{
		page: manual.Page{
			Name: "serve", Section: 8, Summary: "serve what a directory of configuration files says",
			Synopsis: []string{"postilion serve [-c DIR]"},
			Description: "Reads main.cf and master.cf (mail transport) and dovecot.conf (mailboxes) in DIR and serves both in the foreground. " +
				"A half whose file is missing is off. Without -c, /etc/postfix and /etc/dovecot/dovecot.conf are read.\n\n" +
				"One line that begins with `ready:` on standard error, and READY=1 to systemd, say that every listener accepts. " +
				"SIGHUP reads the configuration again: it takes effect as a whole, or, when something in it cannot be used, not at all. SIGTERM and SIGINT end in order.",
			Options:  []manual.Entry{{Term: "-c DIR", Text: "the directory of the configuration files"}},
			Exit:     []manual.Entry{{Term: "0", Text: "ended in order"}, {Term: "1", Text: "could not start, or a fatal error"}, {Term: "64", Text: "wrong usage"}},
			Files:    []manual.Entry{{Term: "main.cf, master.cf", Text: "as postconf(5) and master(5) say"}, {Term: "dovecot.conf", Text: "as doveconf(1) shows"}},
			Examples: []manual.Entry{{Term: "postilion serve -c /etc/postilion", Text: ""}, {Term: "Type=notify", Text: "in the unit file, with ExecReload=kill -HUP $MAINPID"}},
			SeeAlso:  []string{"postilion-check(8)", "postilion-init(8)", "main.cf(5)", "dovecot.conf(5)"},
		},
		run: func(ctx context.Context, e *environment) int {
			options := service.Options{Getenv: e.getenv, Stderr: e.stderr}
			switch {
			case len(e.args) == 0:
				options.PostfixDir = presentDir("/etc/postfix", "main.cf")
				options.DovecotFile = presentFile("/etc/dovecot/dovecot.conf")
			case len(e.args) == 2 && e.args[0] == "-c":
				options.PostfixDir = presentDir(e.args[1], "main.cf")
				options.DovecotFile = presentFile(filepath.Join(e.args[1], "dovecot.conf"))
			default:
				return usage(e, "serve")
			}
			if options.PostfixDir == "" && options.DovecotFile == "" {
				fmt.Fprintf(e.stderr, "postilion serve: neither main.cf nor dovecot.conf is there: name their directory with -c, or make them with `postilion init DOMAIN`\n")
				return exitFailure
			}
			return serveUntilSignal(ctx, e, "postilion serve", options)
		},
	}
}

// presentDir returns dir when the file is in it, else "".
func presentDir(dir, file string) string {
	if presentFile(filepath.Join(dir, file)) == "" {
		return ""
	}
	return dir
}

// presentFile returns path when there is something, even something unreadable, which is an error to be told later.
func presentFile(path string) string {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// serveUntilSignal runs a server in the foreground.
func serveUntilSignal(ctx context.Context, e *environment, name string, options service.Options) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)

	if os.Geteuid() == 0 {
		options.PostfixDir, options.DovecotFile = absolute(options.PostfixDir), absolute(options.DovecotFile)
		authority := service.NewAuthority(options)
		grants, err := authority.Read()
		if !errors.Is(err, service.ErrSingleProcess) {
			if err == nil {
				err = serveAsRoot(ctx, e, roles.Options{Service: options, Authority: authority, Grants: grants, Name: name, Detach: e.detach != nil}, reload)
			}
			return fatal(e, name, err)
		}
	}
	server, err := service.Start(ctx, options)
	if err != nil {
		return fatal(e, name, err)
	}
	pids, err := holdPidFiles(server.PidFiles())
	if err != nil {
		server.Log().Warn(err.Error())
	}
	defer pids.release()
	fmt.Fprintln(e.stderr, server.Ready())
	server.Log().Info(server.Ready())
	notify(ctx, e, "READY=1")
	if e.detach != nil {
		if err := e.detach(); err != nil {
			server.Log().Warn(err.Error())
		}
	}
	code := watch(ctx, e, server, reload)
	notify(context.WithoutCancel(ctx), e, "STOPPING=1")
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	if err := server.Stop(patience); err != nil {
		fmt.Fprintf(e.stderr, "%s: %v\n", name, err)
		return exitFailure
	}
	return code
}

// fatal tells why a server ended; nil is an end in order, and a worker has told by itself.
func fatal(e *environment, name string, err error) int {
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, master.ErrWorker) {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(e.stderr, "%s: fatal: %s\n", name, strings.TrimRight(line, "\n"))
		}
	}
	return exitFailure
}

// absolute is a path that means the same in another directory; "" stays.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil && path != "" {
		return full
	}
	return path
}

// serveAsRoot divides the server into processes and stays as their master.
func serveAsRoot(ctx context.Context, e *environment, options roles.Options, reload <-chan os.Signal) error {
	var pids pidFiles
	defer func() { pids.release() }()
	// Children get the end of the terminal that this process has, which is a file and no copy of what passes through it.
	options.Service.Stderr = e.stderr
	options.Ready = func(line string, paths []string) {
		var err error
		if pids, err = holdPidFiles(paths); err != nil {
			options.Grants.Log.Warn(err.Error())
		}
		fmt.Fprintln(e.stderr, line)
		notify(ctx, e, "READY=1")
		if e.detach != nil {
			if err := e.detach(); err != nil {
				options.Grants.Log.Warn(err.Error())
			}
		}
	}
	options.Reloading = func(done bool) {
		state := "RELOADING=1"
		if done {
			state = "READY=1"
		}
		notify(ctx, e, state)
	}
	stopping := context.AfterFunc(ctx, func() { notify(context.WithoutCancel(ctx), e, "STOPPING=1") })
	defer stopping()
	return roles.Serve(ctx, options, reload)
}

// watch waits for a signal to end, and reloads meanwhile.
func watch(ctx context.Context, e *environment, server *service.Server, reload <-chan os.Signal) int {
	tidy := time.NewTicker(service.TidyEvery)
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			return exitOK
		case err := <-server.Fatal():
			server.Log().Error("fatal: " + err.Error())
			fmt.Fprintf(e.stderr, "postilion: fatal: %v\n", err)
			return exitFailure
		case <-reload:
			notify(ctx, e, "RELOADING=1")
			if err := server.Reload(ctx); err != nil {
				server.Log().Error(err.Error())
			} else {
				server.Log().Info("reloaded; " + server.Ready())
			}
			notify(ctx, e, "READY=1")
		case <-tidy.C:
			server.Tidy()
		}
	}
}

// notify tells systemd; that it cannot be told is no reason to stop serving mail.
func notify(ctx context.Context, e *environment, state string) {
	if err := listen.Notify(ctx, e.getenv, state); err != nil {
		fmt.Fprintf(e.stderr, "postilion: %v\n", err)
	}
}
