package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// load is mail for one server: smtp-source with connections that are kept and numbered recipients, until the last message is in its mailbox.
type load struct {
	sessions, size, messages int
	lmtp                     bool
}

func (d load) String() string {
	word := "sessions"
	if d.sessions == 1 {
		word = "session"
	}
	return fmt.Sprintf("%d KiB, %d %s", d.size>>10, d.sessions, word)
}

// taken is what one load took.
type taken struct {
	PerSecond float64 `json:"per_s"`
	// CPU is milliseconds a message, of all processes of the server.
	CPU float64 `json:"cpu_ms_per_msg"`
	// Others is the share of the machine's CPU that neither the server nor the load used.
	Others float64 `json:"others_busy"`
	Error  string  `json:"error"`
	Test   string  `json:"test"`
}

// deliver puts the load on a server.
func (l *lab) deliver(ctx context.Context, s *server, d load) (taken, error) {
	words := []string{
		"--sessions", strconv.Itoa(d.sessions), "--sizes", strconv.Itoa(d.size), "--messages", strconv.Itoa(d.messages),
		"--pid", strconv.Itoa(s.pid), "--keep", "--repeat", "1", "--label", s.name,
	}
	switch {
	case d.lmtp:
		words = append(words, "--lmtp", "--port", s.facts["LMTP_PORT"])
	case s.facts["SERVER"] == "postfix":
		words = append(words, "--port", s.facts["SMTP_PORT"], "--count", "maildir:"+s.facts["MAILROOT"])
	default:
		// The vault and the floor answer 250 when the message is where it belongs.
		words = append(words, "--port", s.facts["SMTP_PORT"])
	}
	text, err := l.tool(ctx, "delivery_timing.py", words...)
	if err != nil {
		return taken{}, err
	}
	for line := range bytes.Lines(text) {
		var t taken
		if err := json.Unmarshal(line, &t); err != nil || t.Test != "delivery" {
			continue
		}
		if t.Error != "" {
			return taken{}, fmt.Errorf("%s, %v: %s", s.name, d, t.Error)
		}
		return t, nil
	}
	return taken{}, fmt.Errorf("%s, %v: no result in %q", s.name, d, text)
}

// series is what the rounds of one load on one server took.
type series struct {
	rates, cpu, others []float64
}

func (s *series) add(t taken) {
	s.rates, s.cpu, s.others = append(s.rates, t.PerSecond), append(s.cpu, t.CPU), append(s.others, t.Others)
}

// entrant is a server in a comparison, with the share of the messages that it gets: a slow one gets fewer, so that a round stays short.
type entrant struct {
	server *server
	share  float64
}

// interleave puts each load on each entrant, in turn, round after round, so that all see the same noise of the machine. The result is by load and entrant.
func (l *lab) interleave(ctx context.Context, loads []load, entrants []entrant) ([][]series, error) {
	all := make([][]series, len(loads))
	for i := range all {
		all[i] = make([]series, len(entrants))
	}
	for range max(l.options.rounds, 1) {
		for i, d := range loads {
			for k, e := range entrants {
				one := d
				one.messages = max(int(float64(d.messages)*e.share), 4*d.sessions)
				if l.options.quick {
					one.messages = max(one.messages/10, 4*d.sessions)
				}
				t, err := l.deliver(ctx, e.server, one)
				if err != nil {
					return nil, err
				}
				all[i][k].add(t)
			}
		}
	}
	return all, nil
}

// warm gives each entrant some mail before anything is timed: processes are started, tables are open, heaps have grown, and the mailboxes of all
// recipients are there.
func (l *lab) warm(ctx context.Context, entrants []entrant, lmtp bool) error {
	var errs []error
	for _, e := range entrants {
		messages := int(smallMessages * e.share)
		if l.options.quick {
			messages = min(messages, 1000)
		}
		_, err := l.deliver(ctx, e.server, load{sessions: 10, size: 4096, messages: messages, lmtp: lmtp})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
