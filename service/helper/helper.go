// Package helper is the one process of the server that may become a system user, and does nothing else. It runs as root, has no network socket and
// reads no configuration: the limits it keeps stand in its command line. On request it starts an agent, this same program as the user asked for
// and without a way back, and passes one end of a connection to the agent on to who asked.
//
// A request is one text: "agent UID GID GROUPS", the groups being numbers with commas between them or "-". The answer is "ok" with the connection, or
// "refused" and why. User 0, group 0 and whatever is outside the limits is refused.
//
// It also runs commands that mail is piped to, each as a user of its own: those that the configuration names and no others. See Command.
//
// Client is the asking side.
package helper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"postilion/service/child"
	"postilion/service/packet"
)

// maxGroups is the greatest number of supplementary groups of an agent.
const maxGroups = 64

// maxAgents is the greatest number of agents that run at once.
const maxAgents = 4096

// Bounds are who an agent may be: first_valid_uid, last_valid_uid, first_valid_gid and last_valid_gid. A last one of 0 is none.
type Bounds struct {
	FirstUID, LastUID, FirstGID, LastGID int
}

// Args are the bounds as arguments of a command line.
func (b Bounds) Args() []string {
	var args []string
	for _, n := range []int{b.FirstUID, b.LastUID, b.FirstGID, b.LastGID} {
		args = append(args, strconv.Itoa(n))
	}
	return args
}

// ParseBounds reads what Args made, and returns the arguments behind that, which are for agents.
func ParseBounds(args []string) (b Bounds, rest []string, err error) {
	numbers := []*int{&b.FirstUID, &b.LastUID, &b.FirstGID, &b.LastGID}
	if len(args) < len(numbers) {
		return b, nil, fmt.Errorf("%d limits are given, not %d", len(args), len(numbers))
	}
	for i, n := range numbers {
		if *n, err = parseID(args[i]); err != nil {
			return b, nil, err
		}
	}
	return b, args[len(numbers):], nil
}

func parseID(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || text != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("%.20q is no id", text)
	}
	return int(n), nil
}

// allow tells why an agent may not be id.
func (b Bounds) allow(id *child.Identity) error {
	switch {
	case id.UID == 0:
		return errors.New("an agent is never root")
	case id.UID < b.FirstUID:
		return fmt.Errorf("user id %d is below first_valid_uid (%d)", id.UID, b.FirstUID)
	case b.LastUID != 0 && id.UID > b.LastUID:
		return fmt.Errorf("user id %d is above last_valid_uid (%d)", id.UID, b.LastUID)
	}
	for _, g := range append([]int{id.GID}, id.Groups...) {
		switch {
		case g == 0:
			return errors.New("an agent is never in root's group")
		case g < b.FirstGID:
			return fmt.Errorf("group id %d is below first_valid_gid (%d)", g, b.FirstGID)
		case b.LastGID != 0 && g > b.LastGID:
			return fmt.Errorf("group id %d is above last_valid_gid (%d)", g, b.LastGID)
		}
	}
	return nil
}

// parseRequest reads a request.
func parseRequest(text string) (*child.Identity, error) {
	words := strings.Split(text, " ")
	if len(words) != 4 || words[0] != "agent" {
		return nil, errors.New("a request is: agent UID GID GROUPS")
	}
	id := &child.Identity{}
	var err error
	if id.UID, err = parseID(words[1]); err != nil {
		return nil, err
	}
	if id.GID, err = parseID(words[2]); err != nil {
		return nil, err
	}
	if words[3] == "-" {
		return id, nil
	}
	groups := strings.Split(words[3], ",")
	if len(groups) > maxGroups {
		return nil, fmt.Errorf("%d groups are more than %d", len(groups), maxGroups)
	}
	for _, text := range groups {
		g, err := parseID(text)
		if err != nil {
			return nil, err
		}
		id.Groups = append(id.Groups, g)
	}
	return id, nil
}

// server is a helper at work.
type server struct {
	bounds Bounds
	// start makes an agent and returns the far end of its connection.
	start func(id *child.Identity) (*exec.Cmd, *os.File, error)
	// commands may be run.
	commands []Command
	// sessions are the runs of commands under way.
	sessions sync.WaitGroup

	mu               sync.Mutex
	running, serving int
}

// Serve answers requests until the other side has ended and so have the commands. agentArgs is the command line of agents behind their role.
func Serve(conn *packet.Conn, bounds Bounds, commands []Command, agentArgs []string) error {
	s := &server{bounds: bounds, commands: commands, start: func(id *child.Identity) (*exec.Cmd, *os.File, error) { return startAgent(id, agentArgs) }}
	return s.serve(conn)
}

func (s *server) serve(conn *packet.Conn) error {
	defer s.sessions.Wait()
	for {
		text, file, err := conn.Receive()
		switch service, run := strings.CutPrefix(text, "run "); {
		case err == nil && run && file != nil:
			if err := s.replyRun(conn, service, file); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("request: %w", err)
		case file != nil:
			return errors.Join(errors.New("a file came with a request"), file.Close())
		}
		if err := s.reply(conn, text); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func (s *server) reply(conn *packet.Conn, text string) error {
	end, err := s.agent(text)
	if err != nil {
		return conn.Send("refused "+err.Error(), nil)
	}
	return errors.Join(conn.Send("ok", end), end.Close())
}

func (s *server) agent(text string) (*os.File, error) {
	id, err := parseRequest(text)
	if err != nil {
		return nil, err
	}
	if err := s.bounds.allow(id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	full := s.running >= maxAgents
	s.mu.Unlock()
	if full {
		return nil, fmt.Errorf("%d agents run already", maxAgents)
	}
	process, end, err := s.start(id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.running++
	s.mu.Unlock()
	// An agent ends with its connection, which is not the helper's; when the helper ends first, init waits for it.
	go func() {
		_ = process.Wait()
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
	}()
	return end, nil
}

func startAgent(id *child.Identity, args []string) (*exec.Cmd, *os.File, error) {
	ours, theirs, err := packet.Stream()
	if err != nil {
		return nil, nil, err
	}
	process, err := child.Start(child.Options{
		Role: "agent", Dir: "/", Args: args, As: id, Env: child.Environment(), Files: []*os.File{theirs}, Stderr: os.Stderr, OwnSession: true,
	})
	if err := errors.Join(err, theirs.Close()); err != nil {
		return nil, nil, errors.Join(err, ours.Close())
	}
	return process, ours, nil
}
