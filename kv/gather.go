package kv

import (
	"sync/atomic"
	"time"
)

const (
	// fewCommits is how many commits since the last flush make no crowd: they are flushed at once.
	fewCommits = 2
	// pausePerCommit is what a flush waits after the one before, for each commit that came meanwhile, and longestPause the most that it waits.
	pausePerCommit = 100 * time.Microsecond
	longestPause   = 2 * time.Millisecond
)

// gather makes the flushes of a busy log fewer and fuller: the more commits came since the last flush, the longer the next one waits for company.
// A lone writer never waits. The pause is shorter than what a flush costs on a spinning disk and saves, on a fast one, most of the
// flushes' system calls and wake-ups.
type gather struct {
	started atomic.Int64
	// seen belongs to the goroutine that flushes.
	seen int64
}

// pause is called after each flush.
func (g *gather) pause() time.Duration {
	started := g.started.Load()
	since := started - g.seen
	g.seen = started
	if since <= fewCommits {
		return 0
	}
	return min(time.Duration(since)*pausePerCommit, longestPause)
}
