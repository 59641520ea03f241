package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// startProfiled starts this program as the server; further variables tell it what to note.
func (l *lab) startProfiled(ctx context.Context, variables ...string) (s *server, counted string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	counted = filepath.Join(l.dir, "counts")
	s, err = l.startPostilion(ctx, "Postilion profiled", postilionPort, append(variables, "POSTILION="+self, countsVariable+"="+counted)...)
	return s, counted, err
}

// allocations delivers messages to a server that counts what it allocates, and returns objects and octets a message. profile, when not empty, gets its CPU profile.
func (l *lab) allocations(ctx context.Context, d load, profile string) (objects, octets float64, err error) {
	s, file, err := l.startProfiled(ctx, profileVariable+"="+profile)
	if err != nil {
		return 0, 0, err
	}
	if err := l.warm(ctx, []entrant{{s, 1}}, d.lmtp); err != nil {
		return 0, 0, err
	}
	before, err := askCounts(ctx, s.pid, file)
	if err != nil {
		return 0, 0, err
	}
	rounds := 1
	if profile != "" {
		rounds = max(1, l.options.rounds)
	}
	for range rounds {
		if _, err := l.deliver(ctx, s, d); err != nil {
			return 0, 0, err
		}
	}
	after, err := askCounts(ctx, s.pid, file)
	if err != nil {
		return 0, 0, err
	}
	n := float64(d.messages * rounds)
	return float64(after.Objects-before.Objects) / n, float64(after.Octets-before.Octets) / n, l.end(s)
}

// askCounts makes serve note its counts and reads them.
func askCounts(ctx context.Context, pid int, file string) (counts, error) {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return counts{}, err
	}
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		return counts{}, err
	}
	for range 500 {
		if text, err := os.ReadFile(file); err == nil {
			var c counts
			err := json.Unmarshal(text, &c)
			return c, err
		}
		select {
		case <-ctx.Done():
			return counts{}, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return counts{}, errors.New("the profiled server does not tell its counts")
}

// profileInbound loads a server that profiles itself and prints where its time went.
func (l *lab) profileInbound(ctx context.Context, out io.Writer) error {
	profile, err := filepath.Abs(l.options.profile)
	if err != nil {
		return err
	}
	messages := smallMessages
	if l.options.quick {
		messages = 2000
	}
	objects, octets, err := l.allocations(ctx, load{sessions: l.options.sessions, size: 4 << 10, messages: messages, lmtp: l.options.lmtp}, profile)
	if err != nil {
		return err
	}
	text, err := topOf(ctx, profile, "-cum")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%.0f allocations and %.1f KiB a message\n%sgo tool pprof %s shows more\n", objects, octets/1024, text, profile)
	return err
}

// profileIdle prints where the memory of idle IMAP sessions is.
func (l *lab) profileIdle(ctx context.Context, out io.Writer) error {
	profile, err := filepath.Abs(l.options.profile)
	if err != nil {
		return err
	}
	const sessions = 500
	for _, kind := range idleKinds() {
		s, file, err := l.startProfiled(ctx, heapVariable+"="+profile)
		if err != nil {
			return err
		}
		before, err := askCounts(ctx, s.pid, file)
		if err != nil {
			return err
		}
		var after counts
		pss, err := l.idleSessions(ctx, s, kind, sessions, func() (err error) {
			after, err = askCounts(ctx, s.pid, file)
			return err
		})
		if err != nil {
			return err
		}
		each := func(a, b uint64) float64 { return (float64(a) - float64(b)) / sessions / 1024 }
		text, err := topOf(ctx, profile, "-inuse_space")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s: KiB a session: PSS %.1f, live heap %.1f, heap spans %.1f, stacks %.1f\n%s\n", kind.name,
			pss, each(after.HeapLive, before.HeapLive), each(after.HeapInUse, before.HeapInUse), each(after.Stacks, before.Stacks), text)
		if err := errors.Join(err, l.end(s)); err != nil {
			return err
		}
	}
	return nil
}
