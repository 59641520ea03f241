package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Bounds of ci. Each leaves room for a busy machine of two cores, and breaks when a cost doubles. They are not the targets, which README.md keeps.
const (
	mostOverFloor   = 3.5
	mostFlushes     = 0.2
	mostWrites      = 8.0
	mostAllocations = 300.0
	mostPlain       = 40.0
	mostTLS         = 60.0
)

// ciMessages keeps the short form short.
const ciMessages = 3000

// ci takes the figures that depend on the code and not on the noise of the machine, in little time.
func (l *lab) ci(ctx context.Context, out io.Writer) error {
	r := &report{name: "ci"}
	var err error
	for _, step := range []func(context.Context, *report) error{l.ciCPU, l.ciCalls, l.ciAllocations, l.ciSessions} {
		if err = step(ctx, r); err != nil {
			break
		}
	}
	if err := errors.Join(err, r.print(out, l.options.json)); err != nil {
		return err
	}
	for _, f := range r.figures {
		if !f.Met {
			return fmt.Errorf("%s, %s: %w", f.Case, f.Measure, errBeyond)
		}
	}
	return nil
}

func (l *lab) ciCPU(ctx context.Context, r *report) error {
	ours, err := l.startPostilion(ctx, "Postilion", postilionPort)
	if err != nil {
		return err
	}
	floor, err := l.startFloor(ctx)
	if err != nil {
		return err
	}
	entrants := []entrant{{ours, 1.0 / 3}, {floor, 1.0 / 3}}
	if err := l.warm(ctx, entrants, false); err != nil {
		return err
	}
	d := load{sessions: 50, size: 4 << 10, messages: ciMessages}
	l.options.rounds, l.options.quick = 3, false
	all, err := l.interleave(ctx, []load{d}, entrants)
	if err != nil {
		return err
	}
	r.others = append(append(r.others, all[0][0].others...), all[0][1].others...)
	r.compare(d.String(), "CPU ms/message", all[0][0].cpu, "floor", all[0][1].cpu, atMost(mostOverFloor))
	return l.endAll(floor, ours)
}

func (l *lab) ciCalls(ctx context.Context, r *report) error {
	if err := l.want("strace"); err != nil {
		r.note("Flushes are not counted: %v", err)
		return nil
	}
	ours, err := l.startPostilion(ctx, "Postilion strace", postilionPort)
	if err != nil {
		return err
	}
	if err := l.warm(ctx, []entrant{{ours, 1.0 / 3}}, false); err != nil {
		return err
	}
	c, err := l.countCalls(ctx, ours, ciMessages)
	if err != nil {
		r.note("Flushes are not counted: %v", err)
		return l.end(ours)
	}
	const name = "4 KiB, 50 sessions"
	r.state(name, "disk flushes/message", []float64{c.Flushes}, "", nil, atMost(mostFlushes))
	r.state(name, "write calls/message", []float64{c.Each["write"]}, "", nil, atMost(mostWrites))
	return l.end(ours)
}

func (l *lab) ciAllocations(ctx context.Context, r *report) error {
	objects, octets, err := l.allocations(ctx, load{sessions: 10, size: 4 << 10, messages: ciMessages}, "")
	if err != nil {
		return err
	}
	r.state("4 KiB, 10 sessions", "allocations/message", []float64{objects}, "", nil, atMost(mostAllocations))
	r.note("%.1f KiB are allocated a message.", octets/1024)
	return nil
}

// ciSessions opens plain sessions and then, beside them, sessions with TLS.
func (l *lab) ciSessions(ctx context.Context, r *report) error {
	s, err := l.startPostilion(ctx, "Postilion idle", postilionPort)
	if err != nil {
		return err
	}
	const sessions = 400
	plain, encrypted := idleKinds()[0], idleKinds()[1]
	if err := errors.Join(visit(ctx, s, plain, sessions), visit(ctx, s, encrypted, sessions)); err != nil {
		return err
	}
	time.Sleep(settle)
	before, err := memoryOf(s.pid)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		kind idleKind
		most float64
	}{{plain, mostPlain}, {encrypted, mostTLS}} {
		for i := range sessions {
			c, err := login(ctx, s, step.kind, i)
			if err != nil {
				return fmt.Errorf("session %d: %w", i, err)
			}
			// They stay open to the end of the measurement, which ends with the server.
			defer c.Close()
		}
		time.Sleep(settle)
		after, err := memoryOf(s.pid)
		if err != nil {
			return err
		}
		r.state(fmt.Sprintf("%d idle IMAP sessions, %s", sessions, step.kind.name), "KiB/session (PSS)", []float64{(after.pss - before.pss) / sessions}, "", nil, atMost(step.most))
		before = after
	}
	return l.end(s)
}
