package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// logDelay is how long a line of the access log waits for others to be written with: writing it by itself costs more
	// than a third of what answering a request costs.
	logDelay = 100 * time.Millisecond
	// logBuffer is how many bytes wait at most.
	logBuffer = 32 << 10
)

// lineBuffer writes lines together that come soon after each other. What is in it is lost when the process is killed.
type lineBuffer struct {
	w io.Writer

	mu    sync.Mutex // guards all below, and the order of writes
	lines []byte
	timer *time.Timer // runs while there are lines
}

// Write takes whole lines. Nobody could be told that a log cannot be written.
func (b *lineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, p...)
	switch {
	case len(b.lines) >= logBuffer:
		b.write()
	case b.timer == nil:
		b.timer = time.AfterFunc(logDelay, b.flush)
	}
	return len(p), nil
}

// flush writes what waits.
func (b *lineBuffer) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write()
}

// write is flush for who holds the lock.
func (b *lineBuffer) write() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	if len(b.lines) > 0 {
		_, _ = b.w.Write(b.lines)
		b.lines = b.lines[:0]
	}
}

// promptly is a handler over a lineBuffer: what somebody should look at is written at once, with all that came before.
type promptly struct {
	slog.Handler
	b *lineBuffer
}

func (h promptly) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.b.flush()
	}
	return err
}

func (h promptly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return promptly{h.Handler.WithAttrs(attrs), h.b}
}

func (h promptly) WithGroup(name string) slog.Handler {
	return promptly{h.Handler.WithGroup(name), h.b}
}
