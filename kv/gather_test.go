package kv

import (
	"testing"
	"time"
)

func TestPauseGrowsWithTheCrowd(t *testing.T) {
	var g gather
	for _, step := range []struct {
		commits int64
		want    time.Duration
	}{{0, 0}, {1, 0}, {2, 0}, {3, 300 * time.Microsecond}, {10, time.Millisecond}, {1000, 2 * time.Millisecond}, {1, 0}} {
		g.started.Add(step.commits)
		if got := g.pause(); got != step.want {
			t.Errorf("after %d commits: %v, want %v", step.commits, got, step.want)
		}
	}
}
