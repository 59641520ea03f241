package helper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"postilion/service/child"
	"postilion/service/packet"
)

// RefusedError is a helper's refusal: asking again does not help.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// ErrAbsent tells that there is no helper now. One that died comes back.
var ErrAbsent = errors.New("the process that can become a user is not there: try again later")

// patience is how long a request may take, the wait for a helper that died included.
const patience = 15 * time.Second

// Client asks a helper, and the next one when that has died. Make it with NewClient.
type Client struct {
	asking sync.Mutex

	mu      sync.Mutex
	conn    *packet.Conn
	arrived chan struct{}
	closed  bool
}

// NewClient returns a client without a helper; see Use.
func NewClient() *Client { return &Client{arrived: make(chan struct{})} }

// Use makes conn lead to the helper from now on.
func (c *Client) Use(conn *packet.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return
	}
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn = conn
	close(c.arrived)
	c.arrived = make(chan struct{})
}

// current waits for a helper.
func (c *Client) current(ctx context.Context) (*packet.Conn, error) {
	for {
		c.mu.Lock()
		conn, arrived, closed := c.conn, c.arrived, c.closed
		c.mu.Unlock()
		switch {
		case closed:
			return nil, net.ErrClosed
		case conn != nil:
			return conn, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w)", ErrAbsent, ctx.Err())
		}
	}
}

// drop forgets a helper that does not answer.
func (c *Client) drop(conn *packet.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = conn.Close()
	if c.conn == conn {
		c.conn = nil
	}
}

// Agent starts an agent of that identity and returns the connection to it. The error is a *RefusedError when the helper does not want to.
func (c *Client) Agent(ctx context.Context, id *child.Identity) (net.Conn, error) {
	file, err := c.request(ctx, request(id), nil)
	if err != nil {
		return nil, err
	}
	if file == nil {
		return nil, errors.New("the helper answers without a connection")
	}
	agent, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return agent, nil
}

// request asks the helper that is there, or the next one.
func (c *Client) request(ctx context.Context, text string, passed *os.File) (*os.File, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := c.current(ctx)
		if err != nil {
			return nil, err
		}
		answer, err := ask(conn, text, passed)
		var refused *RefusedError
		if err == nil || errors.As(err, &refused) {
			return answer, err
		}
		// It died while it was asked; whatever it had started ends with the connection that nobody holds.
		c.drop(conn)
	}
}

// request is what parseRequest reads.
func request(id *child.Identity) string {
	groups := "-"
	if len(id.Groups) > 0 {
		var words []string
		for _, g := range id.Groups {
			words = append(words, strconv.Itoa(g))
		}
		groups = strings.Join(words, ",")
	}
	return fmt.Sprintf("agent %d %d %s", id.UID, id.GID, groups)
}

func ask(conn *packet.Conn, request string, passed *os.File) (*os.File, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := conn.Send(request, passed); err != nil {
		return nil, err
	}
	text, file, err := conn.Receive()
	if err != nil || text == "ok" {
		return file, err
	}
	if file != nil {
		err = file.Close()
	}
	if reason, ok := strings.CutPrefix(text, "refused "); ok {
		return nil, errors.Join(&RefusedError{reason}, err)
	}
	return nil, errors.Join(fmt.Errorf("the helper answers %.80q", text), err)
}

// Close ends the connection; a helper ends with it.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.arrived)
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}
