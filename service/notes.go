package service

import (
	"context"
	"log/slog"
	"slices"
	"sync"
)

// Notes is a log that keeps its warnings and errors, each text once, and drops the rest.
type Notes struct {
	mu    sync.Mutex
	texts []string
}

// Logger returns the log.
func (n *Notes) Logger() *slog.Logger { return slog.New(notesHandler{n}) }

// Texts are the warnings and errors in the order they came.
func (n *Notes) Texts() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.texts)
}

type notesHandler struct{ notes *Notes }

// Enabled implements slog.Handler.
func (h notesHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h notesHandler) Handle(_ context.Context, r slog.Record) error {
	h.notes.mu.Lock()
	defer h.notes.mu.Unlock()
	if !slices.Contains(h.notes.texts, r.Message) {
		h.notes.texts = append(h.notes.texts, r.Message)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h notesHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h notesHandler) WithGroup(string) slog.Handler { return h }
