package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Message counts of one round at full speed. The lab's servers know 10,000 recipients, 0u to 9999u, so that no load may have more.
const (
	smallMessages  = 9000
	singleMessages = 3000
	largeMessages  = 3000
)

func smallLoads(lmtp bool) []load {
	return []load{
		{sessions: 1, size: 4 << 10, messages: singleMessages, lmtp: lmtp},
		{sessions: 10, size: 4 << 10, messages: smallMessages, lmtp: lmtp},
		{sessions: 50, size: 4 << 10, messages: smallMessages, lmtp: lmtp},
	}
}

// inbound compares with Postfix and the floor. Rates of Postfix are until virtual(8) has put the last message into its Maildir.
func (l *lab) inbound(ctx context.Context, r *report) error {
	ours, err := l.startPostilion(ctx, "Postilion", postilionPort)
	if err != nil {
		return err
	}
	floor, err := l.startFloor(ctx)
	if err != nil {
		return err
	}
	postfix, err := l.startPostfix(ctx)
	if err != nil {
		return err
	}
	entrants := []entrant{{ours, 1}, {floor, 1}, {postfix, 0.15}}
	if err := l.warm(ctx, entrants, false); err != nil {
		return err
	}
	loads := append(smallLoads(false), load{sessions: 10, size: 64 << 10, messages: largeMessages}, load{sessions: 50, size: 64 << 10, messages: largeMessages})
	all, err := l.interleave(ctx, loads, entrants)
	if err != nil {
		return err
	}
	rates := []bound{atLeast(4), atLeast(6), atLeast(10), atLeast(5), atLeast(5)}
	for i, d := range loads {
		mine, blind, theirs := all[i][0], all[i][1], all[i][2]
		cpu, overFloor := atMostOf(0.1), atMost(2.5)
		if d.size > 4<<10 {
			cpu, overFloor = atMostOf(1.0/6), bound{}
		}
		r.compare(d.String(), "messages/s", mine.rates, "Postfix", theirs.rates, rates[i])
		r.compare(d.String(), "messages/s", mine.rates, "floor", blind.rates, bound{})
		r.compare(d.String(), "CPU ms/message", mine.cpu, "Postfix", theirs.cpu, cpu)
		r.compare(d.String(), "CPU ms/message", mine.cpu, "floor", blind.cpu, overFloor)
		for _, s := range all[i] {
			r.others = append(r.others, s.others...)
		}
	}
	return l.endAll(floor, postfix, ours)
}

// lmtpAlone compares our LMTP server with Dovecot's, which writes Maildirs and mdbox files.
func (l *lab) lmtpAlone(ctx context.Context, r *report) error {
	ours, err := l.startPostilion(ctx, "Postilion lmtp", postilionPort)
	if err != nil {
		return err
	}
	folders, err := l.startDovecot(ctx, "maildir", maildirPort)
	if err != nil {
		return err
	}
	mdbox, err := l.startDovecot(ctx, "mdbox", mdboxPort)
	if err != nil {
		return err
	}
	entrants := []entrant{{ours, 1}, {folders, 0.2}, {mdbox, 0.2}}
	if err := l.warm(ctx, entrants, true); err != nil {
		return err
	}
	loads := smallLoads(true)
	all, err := l.interleave(ctx, loads, entrants)
	if err != nil {
		return err
	}
	for i, d := range loads {
		for k, peer := range []string{"Dovecot maildir", "Dovecot mdbox"} {
			r.compare(d.String(), "messages/s", all[i][0].rates, peer, all[i][k+1].rates, atLeast(6))
			r.compare(d.String(), "CPU ms/message", all[i][0].cpu, peer, all[i][k+1].cpu, atMostOf(1.0/8))
		}
		for _, s := range all[i] {
			r.others = append(r.others, s.others...)
		}
	}
	return l.endAll(mdbox, folders, ours)
}

// storedRate compares the rate of a store that holds many messages with that of one that began empty.
func (l *lab) storedRate(ctx context.Context, r *report) error {
	stored := l.options.stored
	if stored == 0 {
		stored = 1_000_000
	}
	if l.options.quick {
		stored = min(stored, 20_000)
	}
	filled, err := l.startPostilion(ctx, "Postilion filled", filledPort)
	if err != nil {
		return err
	}
	for done := 0; done < stored; done += smallMessages {
		if _, err := l.deliver(ctx, filled, load{sessions: 50, size: 4 << 10, messages: min(smallMessages, stored-done)}); err != nil {
			return fmt.Errorf("filling, after %d messages: %w", done, err)
		}
	}
	empty, err := l.startPostilion(ctx, "Postilion empty", postilionPort)
	if err != nil {
		return err
	}
	entrants := []entrant{{filled, 1}, {empty, 1}}
	if err := l.warm(ctx, entrants, false); err != nil {
		return err
	}
	loads := smallLoads(false)[1:]
	all, err := l.interleave(ctx, loads, entrants)
	if err != nil {
		return err
	}
	for i, d := range loads {
		name := fmt.Sprintf("%v, %d stored", d, stored)
		r.compare(name, "messages/s", all[i][0].rates, "empty store", all[i][1].rates, atLeast(0.8))
		r.compare(name, "CPU ms/message", all[i][0].cpu, "empty store", all[i][1].cpu, bound{})
		r.others = append(append(r.others, all[i][0].others...), all[i][1].others...)
	}
	return l.endAll(empty, filled)
}

// calls are system calls a message, by name, and disk flushes of all kinds together.
type calls struct {
	Flushes float64            `json:"syncs_per_msg"`
	Each    map[string]float64 `json:"per_msg"`
}

// countCalls counts the system calls of a server under 50 sessions, by strace.
func (l *lab) countCalls(ctx context.Context, s *server, messages int) (calls, error) {
	text, err := l.tool(ctx, "fsync_count.py", "--pid", strconv.Itoa(s.pid), "--port", s.facts["SMTP_PORT"], "--keep", "--sessions", "50", "--messages", strconv.Itoa(messages))
	if err != nil {
		return calls{}, err
	}
	var c calls
	if err := json.Unmarshal(bytes.TrimSpace(text), &c); err != nil {
		return calls{}, fmt.Errorf("fsync_count.py printed %q: %w", text, err)
	}
	if c.Each["write"] == 0 {
		return calls{}, fmt.Errorf("strace saw no write of process %d: may this user trace it?", s.pid)
	}
	return c, nil
}

// flushes counts disk flushes a message at 50 sessions, where one flush is shared.
func (l *lab) flushes(ctx context.Context, r *report) error {
	if err := l.want("strace"); err != nil {
		return err
	}
	ours, err := l.startPostilion(ctx, "Postilion strace", postilionPort)
	if err != nil {
		return err
	}
	postfix, err := l.startPostfix(ctx)
	if err != nil {
		return err
	}
	if err := l.warm(ctx, []entrant{{ours, 0.4}, {postfix, 0.05}}, false); err != nil {
		return err
	}
	var flushes, writes [2][]float64
	for range max(1, min(l.options.rounds, 3)) {
		for i, s := range []*server{ours, postfix} {
			messages := 4000
			if s == postfix || l.options.quick {
				messages = 500
			}
			c, err := l.countCalls(ctx, s, messages)
			if err != nil {
				return err
			}
			flushes[i], writes[i] = append(flushes[i], c.Flushes), append(writes[i], c.Each["write"])
		}
	}
	r.state("4 KiB, 50 sessions", "disk flushes/message", flushes[0], "Postfix", flushes[1], atMost(0.2))
	r.state("4 KiB, 50 sessions", "write calls/message", writes[0], "Postfix", writes[1], bound{})
	return l.endAll(postfix, ours)
}

func (l *lab) endAll(servers ...*server) error {
	for _, s := range servers {
		if err := l.end(s); err != nil {
			return err
		}
	}
	return nil
}

// topOf prints the functions that a profile names most; sorted is pprof's option.
func topOf(ctx context.Context, profile, sorted string) ([]byte, error) {
	c := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", sorted, "-nodecount=60", profile)
	text, err := c.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("pprof %s: %w\n%s", filepath.Base(profile), err, text)
	}
	return text, nil
}
