// Package roles is a server that was started by root, as processes: Serve is the master; Run is what the same program does when the master starts it
// again as worker, helper or agent. Worker and master keep to service/master, the helper to service/helper; here they are put together.
package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postilion/service"
	"postilion/service/child"
	"postilion/service/helper"
	"postilion/service/listen"
	"postilion/service/master"
	"postilion/service/packet"
)

// stopPatience is how long sessions may take to end, fatalPatience how long after an error that the process cannot go on after.
const (
	stopPatience  = 20 * time.Second
	fatalPatience = 2 * time.Second
)

// detachVariable tells a worker to let go of its standard output and error when it is ready.
const detachVariable = "POSTILION_DETACH"

// Options say what a master serves.
type Options struct {
	Service service.Options
	// Authority has read the configuration once, as Grants.
	Authority *service.Authority
	Grants    *master.Grants
	// Name begins the lines of a worker that cannot start.
	Name string
	// Detach has worker and helper let go of standard output and error when the server is ready.
	Detach bool
	// Ready is called when every listener accepts.
	Ready func(line string, pidFiles []string)
	// Reloading is called before and after a reload.
	Reloading func(done bool)
}

// Serve is the master. It ends when ctx does, or with an error; master.ErrWorker has been explained already.
func Serve(ctx context.Context, o Options, reload <-chan os.Signal) error {
	inherited, err := listen.Inherited(o.Service.Getenv)
	if err != nil {
		return err
	}
	first := o.Grants
	options := master.Options{
		Read: func() (*master.Grants, error) {
			if g := first; g != nil {
				first = nil
				return g, nil
			}
			return o.Authority.Read()
		},
		WorkerArgs: []string{o.Name, o.Service.PostfixDir, o.Service.DovecotFile},
		Stdout:     os.Stdout, Stderr: o.Service.Stderr, Inherited: inherited, Patience: stopPatience + 5*time.Second,
		Ready: func(line string, g *master.Grants) {
			g.Log.Info(fmt.Sprintf("master process %d is root, worker and mail are user %s (%d)", os.Getpid(), g.Worker.Name, g.Worker.UID))
			o.Ready(line, g.PidFiles)
		},
		Reloading: o.Reloading,
	}
	if o.Detach {
		options.WorkerEnv, options.HelperQuiet = []string{detachVariable + "=1"}, true
	}
	return master.Run(ctx, options, reload)
}

// Run does what the role of a command line is; ok is false when it names none.
func Run(args []string, stderr io.Writer) (code int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	var err error
	switch args[0] {
	case "worker":
		err = worker(args[1:], stderr)
	case "helper":
		err = runHelper(args[1:])
	case "agent":
		err = agent(args[1:])
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintf(stderr, "postilion %s: %v\n", args[0], err)
		return 1, true
	}
	return 0, true
}

// errNotAlone tells somebody who tries a role by hand.
var errNotAlone = errors.New("this is a part of `postilion serve`, which starts it")

// runHelper is the process that may become a user. Signals of a terminal or a service manager are the master's business: it ends with its worker.
func runHelper(args []string) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM)
	bounds, agentArgs, err := helper.ParseBounds(args)
	if err != nil {
		return errors.Join(errNotAlone, err)
	}
	conn, err := packet.Inherited(child.FirstFile)
	if err != nil {
		return errors.Join(errNotAlone, err)
	}
	list := os.NewFile(child.FirstFile+1, "list of commands")
	commands, err := helper.DecodeCommands(list)
	if err := errors.Join(err, list.Close()); err != nil {
		return errors.Join(errNotAlone, err)
	}
	return helper.Serve(conn, bounds, commands, agentArgs)
}

// agent serves the Maildirs of the user whom it runs as. It ends with its connection.
func agent(args []string) error {
	if len(args) != 1 || os.Geteuid() == 0 {
		return errNotAlone
	}
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return errors.Join(errNotAlone, err)
	}
	file := os.NewFile(child.FirstFile, "connection")
	conn, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(errNotAlone, err)
	}
	return service.ServeAgent(context.Background(), conn, os.TempDir(), time.Duration(seconds)*time.Second)
}

// worker does the server's work.
func worker(args []string, stderr io.Writer) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if len(args) != 3 || os.Geteuid() == 0 {
		return errNotAlone
	}
	root, err := master.Attach(child.FirstFile)
	if err != nil {
		return errors.Join(errNotAlone, err)
	}
	server, err := service.Start(ctx, service.Options{PostfixDir: args[1], DovecotFile: args[2], Getenv: os.Getenv, Stderr: stderr, Root: root})
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "%s: fatal: %s\n", args[0], strings.TrimRight(line, "\n"))
		}
		os.Exit(1)
	}
	server.Log().Info(server.Ready())
	if err := root.Say("ready", server.Ready()); err != nil {
		server.Log().Error(err.Error())
	}
	if os.Getenv(detachVariable) != "" {
		if err := Detach(); err != nil {
			server.Log().Warn(err.Error())
		}
	}
	patience := stopPatience
	failed := work(ctx, server, root)
	if failed != nil {
		patience = fatalPatience
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return errors.Join(failed, server.Stop(last))
}

// work serves until the master, a signal or an error ends it.
func work(ctx context.Context, server *service.Server, root *master.Client) error {
	tidy := time.NewTicker(service.TidyEvery)
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-server.Fatal():
			server.Log().Error("fatal: " + err.Error())
			return err
		case event, ok := <-root.Events:
			switch {
			case !ok:
				server.Log().Error("the master process has ended: so does this one")
				return nil
			case event == "stop":
				return nil
			case event == "reload":
				if err := reload(ctx, server, root); err != nil {
					server.Log().Error(err.Error())
				}
			}
		case <-tidy.C:
			server.Tidy()
		}
	}
}

func reload(ctx context.Context, server *service.Server, root *master.Client) error {
	if err := server.Reload(ctx); err != nil {
		return errors.Join(err, root.Say("kept", "see the log"))
	}
	server.Log().Info("reloaded; " + server.Ready())
	return root.Say("reloaded", server.Ready())
}

// Detach points standard output and error to /dev/null, so that whoever started the server sees the end of them.
func Detach() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(duplicate(int(null.Fd()), 1), duplicate(int(null.Fd()), 2), null.Close())
}
