package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	// getentTimeout bounds one question to the name service; SSSD and LDAP may be slow.
	getentTimeout = 10 * time.Second
	// systemCacheTime is how long an answer is used again.
	systemCacheTime = 30 * time.Second
	// maxSystemCache is how many answers are kept.
	maxSystemCache = 10_000
	// maxGetentOutput is the limit in octets of one answer.
	maxGetentOutput = 16 << 20
)

// system asks the name service for users (passwd) or their password hashes (shadow) through getent(1), so that SSSD and LDAP users are
// found like local ones. Reading shadow needs root.
type system struct {
	database string
	// ask looks one name up; nil: getent.
	ask func(ctx context.Context, name string) (line string, found bool, err error)

	mu      sync.Mutex
	answers map[string]systemAnswer
}

type systemAnswer struct {
	fields fields
	found  bool
	until  time.Time
}

func newSystem(database string) *system {
	return &system{database: database, answers: map[string]systemAnswer{}}
}

func (s *system) lookup(ctx context.Context, variables map[string]string) (fields, bool, error) {
	name := variables["u"]
	if !isSystemName(name) {
		return nil, false, nil
	}
	s.mu.Lock()
	answer, ok := s.answers[name]
	s.mu.Unlock()
	if ok && time.Now().Before(answer.until) {
		return answer.fields, answer.found, nil
	}
	ask := s.ask
	if ask == nil {
		ask = func(ctx context.Context, name string) (string, bool, error) { return getent(ctx, s.database, name) }
	}
	line, found, err := ask(ctx, name)
	if err != nil {
		return nil, false, err
	}
	answer = systemAnswer{found: found, until: time.Now().Add(systemCacheTime)}
	if found {
		answer.fields = s.parse(line)
	}
	s.mu.Lock()
	if len(s.answers) >= maxSystemCache {
		clear(s.answers)
	}
	s.answers[name] = answer
	s.mu.Unlock()
	return answer.fields, found, nil
}

func (s *system) parse(line string) fields {
	parts := strings.Split(line, ":")
	if s.database == "shadow" {
		if len(parts) > 1 {
			return fields{{"password", "{CRYPT}" + parts[1]}}
		}
		return nil
	}
	if len(parts) < 6 {
		return nil
	}
	return fields{{"password", "{CRYPT}" + parts[1]}, {"uid", parts[2]}, {"gid", parts[3]}, {"home", parts[5]}}
}

func (s *system) each(ctx context.Context, fn func(name string) bool) error {
	out, _, err := getent(ctx, s.database, "")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, ":")
		if name != "" && !fn(name) {
			return nil
		}
	}
	return nil
}

// isSystemName keeps options and lists out of getent's arguments.
func isSystemName(name string) bool {
	return name != "" && len(name) <= 256 && name[0] != '-' && !strings.ContainsAny(name, ": \t\r\n\x00") && strings.Trim(name, "0123456789") != ""
}

// getent asks for one name, or for the list with "".
func getent(ctx context.Context, database, name string) (text string, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, getentTimeout)
	defer cancel()
	args := []string{database}
	if name != "" {
		args = append(args, "--", name)
	}
	command := exec.CommandContext(ctx, "getent", args...)
	var out, problem limitedBuffer
	command.Stdout, command.Stderr = &out, &problem
	err = command.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 2:
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("getent %s %s: %w %s", database, name, err, strings.TrimSpace(problem.String()))
	}
	return strings.TrimRight(out.String(), "\n"), true, nil
}

// limitedBuffer keeps the first maxGetentOutput octets.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := maxGetentOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
