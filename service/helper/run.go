package helper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postilion/service/packet"
)

// Ended is how a command ended.
type Ended struct {
	// Code is the exit code. It means nothing when Signal is not 0.
	Code int
	// Signal ended the command.
	Signal syscall.Signal
	// Late tells that the command was killed because its time was over.
	Late bool
}

// ErrStart is in the error of a command that may be run and cannot be started.
var ErrStart = errors.New("cannot be started")

// killPatience is how long a helper may take to end a command.
const killPatience = 5 * time.Second

// Run has the helper run the command of a service, and waits until it has ended. When ctx ends, the command and its process group are killed. Input and
// output are closed here as soon as the command has them. The error is a *RefusedError when the helper does not want to.
func (c *Client) Run(ctx context.Context, service string, argv []string, input, output *os.File) (Ended, error) {
	conn, err := c.order(ctx, service, argv, input, output)
	if err := errors.Join(err, input.Close(), output.Close()); err != nil {
		if conn != nil {
			err = errors.Join(err, conn.Close())
		}
		return Ended{}, err
	}
	stop := context.AfterFunc(ctx, func() {
		// The answer comes when all is killed; a helper that is gone gives none.
		_ = conn.SetDeadline(time.Now().Add(killPatience))
		_ = conn.Send("stop", nil)
	})
	text, file, err := conn.Receive()
	stop()
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		return Ended{}, fmt.Errorf("the helper ended before the command did: %w", err)
	}
	if ctx.Err() != nil {
		return Ended{}, ctx.Err()
	}
	return ending(text)
}

// order sends what a run is asked for with.
func (c *Client) order(ctx context.Context, service string, argv []string, input, output *os.File) (*packet.Conn, error) {
	ours, theirs, err := packet.Pair()
	if err != nil {
		return nil, err
	}
	conn, err := packet.New(ours)
	if err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	_, err = c.request(ctx, "run "+service, theirs)
	if err := errors.Join(err, theirs.Close()); err != nil {
		return conn, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return conn, err
	}
	for _, word := range argv {
		if err := conn.Send("argument "+word, nil); err != nil {
			return conn, answered(conn, err)
		}
	}
	for _, send := range []struct {
		text string
		file *os.File
	}{{"input", input}, {"output", output}, {"start", nil}} {
		if err := conn.Send(send.text, send.file); err != nil {
			return conn, answered(conn, err)
		}
	}
	return conn, conn.SetDeadline(time.Time{})
}

// answered is the helper's refusal when there is one, else why it could not be sent to.
func answered(conn *packet.Conn, failed error) error {
	if !errors.Is(failed, syscall.EPIPE) {
		return failed
	}
	text, file, err := conn.Receive()
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return failed
	}
	_, err = ending(text)
	return errors.Join(err, failed)
}

// ending reads the answer to an order.
func ending(text string) (Ended, error) {
	verb, rest, _ := strings.Cut(text, " ")
	number, err := strconv.Atoi(rest)
	switch {
	case verb == "refused":
		return Ended{}, &RefusedError{rest}
	case verb == "failed":
		return Ended{}, fmt.Errorf("%w: %s", ErrStart, rest)
	case text == "late":
		return Ended{Late: true}, nil
	case verb == "exit" && err == nil:
		return Ended{Code: number}, nil
	case verb == "signal" && err == nil:
		return Ended{Signal: syscall.Signal(number)}, nil
	}
	return Ended{}, fmt.Errorf("the helper answers %.80q", text)
}
