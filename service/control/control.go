// Package control is the control socket of a serving process: HTTP/1.1 with JSON over a UNIX socket, by which the commands of the same program ask it to do what only
// the process that owns the vault can do.
//
// A request is POST /NAME with the arguments as one JSON object. The answer is a sequence of JSON lines: any number of {"event":...} while the command works, then one
// {"result":...} or {"error":"..."}. When the client goes away the command is told by its context.
//
// It is not a network service: the socket lies in a directory that only the server's user can enter, and the peer must be that user or root. It knows no command
// by itself: whoever serves gives it a list, so a further command is a file of its own that returns a Command.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// maxConnections bounds the clients at one time, maxRequest one request's arguments in octets.
	maxConnections = 16
	maxRequest     = 1 << 20
	maxHeader      = 16 << 10
	// readPatience is how long a request may take to arrive, writePatience how long a line may take to be taken.
	readPatience  = 10 * time.Second
	writePatience = 30 * time.Second
	idlePatience  = time.Minute
	// stopPatience is how long Close waits for commands to end.
	stopPatience = 5 * time.Second
)

// Command is one thing that can be asked for.
type Command struct {
	// Name is the path of the request without the slash before it, such as "vault/check".
	Name string
	// Run does it. arguments is the JSON object of the request; event sends one line, an error of which means that the client is gone. What Run returns is the result
	// or the error that the client is told. ctx ends when the client goes or the server stops.
	Run func(ctx context.Context, arguments json.RawMessage, event func(any) error) (any, error)
}

// line is one line of an answer.
type line struct {
	Event  any    `json:"event,omitempty"`
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Server answers on a control socket. Only Listen makes a usable one.
type Server struct {
	path   string
	log    *slog.Logger
	http   http.Server
	stop   context.CancelFunc
	served sync.WaitGroup
}

// ErrServed: another process answers on the socket.
var ErrServed = errors.New("control: another process answers there")

// Listen makes the socket at path and answers on it until Close. The directory of path is made when it is missing, and must be the user's own and closed to
// others.
func Listen(path string, log *slog.Logger, commands ...Command) (*Server, error) {
	if err := makeDirectory(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control: %w", err), listener.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{path: path, log: log, stop: stop}
	s.http = http.Server{
		Handler: s.routes(commands), ReadHeaderTimeout: readPatience, ReadTimeout: readPatience, IdleTimeout: idlePatience, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.served.Go(func() {
		err := s.http.Serve(netutil.LimitListener(&ownListener{Listener: listener, log: log}, maxConnections))
		if err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("control socket: " + err.Error())
		}
	})
	return s, nil
}

// Path is where the socket lies.
func (s *Server) Path() string { return s.path }

// Close ends commands that are at work and removes the socket.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.served.Wait()
	return err
}

func makeDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 || !ownedByUs(info) {
		return fmt.Errorf("control: the directory %s must belong to the server's user and be closed to others (mode 0700)", dir)
	}
	return nil
}

// removeStale removes the socket of a process that has ended.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control: %s is there and is no socket", path)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return errors.Join(fmt.Errorf("%w: %s", ErrServed, path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

// ownListener lets nobody in but the server's user and root.
type ownListener struct {
	net.Listener
	log *slog.Logger
}

func (l *ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err = checkPeer(conn); err == nil {
			return conn, nil
		}
		l.log.Warn("control socket: " + err.Error())
		_ = conn.Close()
	}
}

func (s *Server) routes(commands []Command) http.Handler {
	mux := http.NewServeMux()
	for _, c := range commands {
		mux.HandleFunc("POST /"+c.Name, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, c) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(line{Error: fmt.Sprintf("this server knows no command %s %s", r.Method, r.URL.Path)})
	})
	return mux
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, c Command) {
	arguments, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil || !json.Valid(arguments) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(line{Error: "the arguments are no JSON object, or too large"})
		return
	}
	control := http.NewResponseController(w)
	// The request has arrived: how long the command takes is its own business.
	_ = control.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/x-ndjson")
	var mu sync.Mutex
	send := func(l line) error {
		mu.Lock()
		defer mu.Unlock()
		_ = control.SetWriteDeadline(time.Now().Add(writePatience))
		return errors.Join(json.NewEncoder(w).Encode(l), control.Flush())
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	result, err := c.Run(ctx, arguments, func(event any) error {
		err := send(line{Event: event})
		if err != nil {
			cancel()
		}
		return err
	})
	last := line{Result: result}
	if err != nil {
		last = line{Error: err.Error(), Result: result}
	}
	if err := send(last); err != nil {
		s.log.Debug("control socket: "+err.Error(), "command", c.Name)
	}
}
