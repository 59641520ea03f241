package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"postilion/service/care"
)

// reportEvery is how often progress is a line where there is no terminal.
const reportEvery = 5 * time.Second

// vaultReport prints what a vault command tells: results and problems to standard output, progress to standard error.
type vaultReport struct {
	out, progress io.Writer
	json          bool
	terminal      bool
	last          time.Time
	shown         bool
	problems      int64
}

func newVaultReport(e *environment, asJSON bool) *vaultReport {
	return &vaultReport{out: e.stdout, progress: e.stderr, json: asJSON, terminal: !asJSON && isTerminal(e.stderr), last: time.Now()}
}

func (r *vaultReport) event(e care.Event) {
	if e.Problem != nil {
		r.problems++
	}
	now := time.Now()
	switch {
	case r.json && (e.Problem != nil || now.Sub(r.last) >= time.Second):
		r.line(map[string]any{"event": e})
	case r.json:
		return
	case e.Problem != nil:
		r.clear()
		fmt.Fprintln(r.out, e.Problem)
		return
	case r.terminal:
		fmt.Fprintf(r.progress, "\r\x1b[K%s", progressText(e))
		r.shown = true
		return
	case now.Sub(r.last) >= reportEvery:
		fmt.Fprintln(r.progress, progressText(e))
	default:
		return
	}
	r.last = now
}

func (r *vaultReport) line(value any) {
	_ = json.NewEncoder(r.out).Encode(value)
}

// clear takes the line of progress off the terminal.
func (r *vaultReport) clear() {
	if r.shown {
		fmt.Fprint(r.progress, "\r\x1b[K")
		r.shown = false
	}
}

func progressText(e care.Event) string {
	amount := func(n int64) string {
		if e.Unit == "octets" {
			return size(n)
		}
		return fmt.Sprintf("%d %s", n, e.Unit)
	}
	if e.Of > 0 {
		return fmt.Sprintf("%s: %s of %s (%d %%)", e.Step, amount(e.Done), amount(e.Of), min(e.Done*100/e.Of, 100))
	}
	return fmt.Sprintf("%s: %s", e.Step, amount(e.Done))
}

// size is an amount of octets for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d octets", n)
	}
	value, names := float64(n), []string{"KiB", "MiB", "GiB", "TiB"}
	i := -1
	for value >= unit && i < len(names)-1 {
		value /= unit
		i++
	}
	return fmt.Sprintf("%.1f %s", value, names[i])
}

// end prints the result and returns the exit code.
func (r *vaultReport) end(result care.Result, err error) int {
	r.clear()
	code := exitOK
	switch {
	case err != nil:
		code = exitUndone
	case wrong(result):
		code = exitFailure
	}
	if r.json {
		last := map[string]any{"result": result}
		if err != nil {
			last["error"] = err.Error()
		}
		r.line(last)
		return code
	}
	r.text(result)
	if err != nil {
		fmt.Fprintf(r.progress, "postilion vault: %v\n", err)
	}
	return code
}

// wrong tells whether something is wrong with the mail.
func wrong(r care.Result) bool {
	return r.Checked != nil && (r.Checked.Problems > r.Checked.Repaired || r.Checked.Lost > 0) || r.Files != nil && r.Files.Damaged > 0 || r.Carried != nil && r.Carried.Problems > 0
}

func (r *vaultReport) text(result care.Result) {
	say := func(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }
	if f := result.Files; f != nil && f.Read > 0 {
		say("%d files, %s: %d damaged", f.Read, size(f.Octets), f.Damaged)
	}
	if c := result.Checked; c != nil {
		say("%d accounts, %d mailboxes, %d messages, %d bodies of %s: %d problems, %d repaired, %d messages lost",
			c.Accounts, c.Mailboxes, c.Messages, c.Bodies, size(c.Octets), c.Problems, c.Repaired, c.Lost)
	}
	if c := result.Compact; c != nil {
		say("compacted: %s before, %s after", size(c.Before), size(c.After))
	}
	if b := result.Backup; b != nil {
		say("backup %s of %s: %d files, %s, of which %s shared; every digest is right", b.Dir, b.Made.Format(time.RFC3339), b.Files, size(b.Octets), size(b.Shared))
	}
	if c := result.Carried; c != nil {
		say("%d accounts, %d mailboxes, %d messages of %s: %d problems", c.Accounts, c.Mailboxes, c.Messages, size(c.Octets), c.Problems)
	}
	if result.Into != "" {
		say("restored below %q", result.Into)
	}
}
