package service

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// currentLog is the log of what outlives reloads: each record goes to the logger that was set last.
type currentLog struct{ now atomic.Pointer[slog.Logger] }

func (c *currentLog) set(log *slog.Logger) { c.now.Store(log) }

// logger returns a logger that follows c.
func (c *currentLog) logger() *slog.Logger { return slog.New(following{current: c}) }

// following is a slog.Handler; as says what With and WithGroup made of it.
type following struct {
	current *currentLog
	as      []func(slog.Handler) slog.Handler
}

func (f following) target() slog.Handler {
	h := f.current.now.Load().Handler()
	for _, as := range f.as {
		h = as(h)
	}
	return h
}

// Enabled implements slog.Handler.
func (f following) Enabled(ctx context.Context, level slog.Level) bool {
	return f.current.now.Load().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (f following) Handle(ctx context.Context, r slog.Record) error { return f.target().Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (f following) WithAttrs(attrs []slog.Attr) slog.Handler {
	return f.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (f following) WithGroup(name string) slog.Handler {
	return f.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (f following) with(as func(slog.Handler) slog.Handler) following {
	return following{f.current, append(f.as[:len(f.as):len(f.as)], as)}
}
