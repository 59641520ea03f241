package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// maxLine bounds one line of an answer in octets.
const maxLine = 4 << 20

// ErrNobody: no process answers on the socket.
var ErrNobody = errors.New("control: nobody answers")

// Failure is an error that the server answered with.
type Failure struct{ Text string }

func (f *Failure) Error() string { return f.Text }

// Call asks the server at path for a command and hands each of its events on as it comes. The result is read into result, which may be nil. It answers ErrNobody
// when no process serves, and a *Failure when the command failed; result is filled then too, as far as the command had one.
func Call(ctx context.Context, path, name string, arguments any, event func(json.RawMessage), result any) error {
	body, err := json.Marshal(arguments)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://postilion/"+name, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	response, err := transport.RoundTrip(request)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w on %s", ErrNobody, path)
	}
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var l struct {
			Event, Result json.RawMessage
			Error         string
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("control: answer of %s: %w", path, err)
		}
		if l.Event != nil {
			event(l.Event)
			continue
		}
		if l.Result != nil && result != nil {
			if err := json.Unmarshal(l.Result, result); err != nil {
				return fmt.Errorf("control: answer of %s: %w", path, err)
			}
		}
		if l.Error != "" {
			return &Failure{l.Error}
		}
		return nil
	}
	return errors.Join(fmt.Errorf("control: the server at %s ended before its answer", path), lines.Err(), ctx.Err())
}
