package service

import (
	"context"
	"io/fs"
	"net"
	"os"

	"postilion/service/child"
	"postilion/service/helper"
	"postilion/service/listen"
)

// Root does what only root can for a server that runs as somebody else: master.Client, in a worker.
type Root interface {
	listen.Opener
	// Open opens a file for reading, Append a log file.
	Open(name string) (*os.File, error)
	Append(name string, mode fs.FileMode) (*os.File, error)
	// Shadow returns a system user's line of shadow(5), "" when there is none.
	Shadow(name string) (string, error)
	// Agent starts a process of that identity that serves its Maildirs (ServeAgent) on the connection.
	Agent(ctx context.Context, id *child.Identity) (net.Conn, error)
	// Run runs the command of a pipe service as the user of that; see helper.Client.
	Run(ctx context.Context, service string, argv []string, input, output *os.File) (helper.Ended, error)
}

// opener opens the sockets.
func (o *Options) opener() (listen.Opener, error) {
	if o.Root != nil {
		return o.Root, nil
	}
	inherited, err := listen.Inherited(o.Getenv)
	return listen.NewHost(inherited), err
}

// open opens a file for reading by the process's own rights, or with Root's help.
func (o *Options) open(name string) (*os.File, error) {
	if o.Root != nil {
		return o.Root.Open(name)
	}
	return os.Open(name)
}

func (o *Options) append(name string) (*os.File, error) {
	const mode = 0o640
	if o.Root != nil {
		return o.Root.Append(name, mode)
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, mode)
}

// shadow is account.Options.Shadow; nil asks the name service.
func (o *Options) shadow() func(ctx context.Context, name string) (string, error) {
	if o.Root == nil {
		return nil
	}
	return func(_ context.Context, name string) (string, error) { return o.Root.Shadow(name) }
}
