package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"postilion/service/child"
	"postilion/service/helper"
	"postilion/service/listen"
	"postilion/service/packet"
)

// answerPatience is how long the master may take to answer.
const answerPatience = 30 * time.Second

// Client is a worker's connection to its master. Its methods may be used by several goroutines.
type Client struct {
	// Users starts agents.
	Users *helper.Client
	// Events yields "reload" and "stop". It is closed when the master has ended.
	Events <-chan string

	asking   sync.Mutex
	requests *packet.Conn
	events   *packet.Conn
}

// Attach finds the connections that a worker was started with.
func Attach(firstFile int) (*Client, error) {
	requests, err := packet.Inherited(firstFile)
	if err != nil {
		return nil, err
	}
	events, err := packet.Inherited(firstFile + 1)
	if err != nil {
		return nil, errors.Join(err, requests.Close())
	}
	heard := make(chan string, 16)
	c := &Client{Users: helper.NewClient(), Events: heard, requests: requests, events: events}
	go c.hear(heard)
	return c, nil
}

func (c *Client) hear(heard chan<- string) {
	defer close(heard)
	for {
		text, file, err := c.events.Receive()
		switch {
		case err != nil:
			return
		case text == "helper" && file != nil:
			if conn, err := packet.New(file); err == nil {
				c.Users.Use(conn)
			}
		case file != nil:
			_ = file.Close()
		default:
			heard <- text
		}
	}
}

// Say tells the master: "ready LINE", "reloaded LINE" or "kept REASON".
func (c *Client) Say(verb, rest string) error {
	text := verb + " " + rest
	return c.events.Send(text[:min(len(text), packet.MaxText)], nil)
}

func (c *Client) ask(request string) (string, *os.File, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	if err := c.requests.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return "", nil, err
	}
	if err := c.requests.Send(request, nil); err != nil {
		return "", nil, fmt.Errorf("ask the master: %w", err)
	}
	text, file, err := c.requests.Receive()
	if err != nil {
		// An answer that comes late would be taken for that to the next request.
		_ = c.requests.Close()
		return "", nil, fmt.Errorf("the master's answer: %w", err)
	}
	verb, rest, _ := strings.Cut(text, " ")
	if verb == "ok" {
		return rest, file, nil
	}
	if file != nil {
		_ = file.Close()
	}
	number, reason, _ := strings.Cut(rest, " ")
	errno, err := strconv.Atoi(number)
	if err != nil {
		return "", nil, fmt.Errorf("the master answers %.80q", text)
	}
	return "", nil, &Refusal{reason, syscall.Errno(errno)}
}

// Refusal is what the master answers when it does not, or cannot, do something.
type Refusal struct {
	Reason string
	Number syscall.Errno
}

func (r *Refusal) Error() string { return r.Reason }

// Unwrap makes errors.Is work for fs.ErrPermission and the like.
func (r *Refusal) Unwrap() error { return r.Number }

func (c *Client) file(request string) (*os.File, error) {
	_, file, err := c.ask(request)
	if err == nil && file == nil {
		err = io.ErrUnexpectedEOF
	}
	return file, err
}

// Open opens a file for reading: by this process's own rights, else by the master's.
func (c *Client) Open(name string) (*os.File, error) {
	file, err := os.Open(name)
	if !errors.Is(err, fs.ErrPermission) {
		return file, err
	}
	if file, err = c.file("open " + name); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

// Append opens a log file, made when it is missing, likewise.
func (c *Client) Append(name string, mode fs.FileMode) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, mode)
	if !errors.Is(err, fs.ErrPermission) {
		return file, err
	}
	if file, err = c.file("append " + name); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

// Listen implements listen.Opener.
func (c *Client) Listen(address listen.Address) (net.Listener, error) {
	file, err := c.file("listen " + address.Key())
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// Agent starts an agent.
func (c *Client) Agent(ctx context.Context, id *child.Identity) (net.Conn, error) {
	return c.Users.Agent(ctx, id)
}

// Run runs the command of a pipe service.
func (c *Client) Run(ctx context.Context, service string, argv []string, input, output *os.File) (helper.Ended, error) {
	return c.Users.Run(ctx, service, argv, input, output)
}

// Shadow returns a user's line of shadow(5), "" when there is none.
func (c *Client) Shadow(name string) (string, error) {
	line, _, err := c.ask("shadow " + name)
	return line, err
}

// Close ends the connections.
func (c *Client) Close() error {
	return errors.Join(c.Users.Close(), c.requests.Close(), c.events.Close())
}
