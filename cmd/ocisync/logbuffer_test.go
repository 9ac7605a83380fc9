package main

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// counted counts what is written.
type counted struct {
	mu            sync.Mutex
	writes, lines int
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	c.lines += bytes.Count(p, []byte("\n"))
	return len(p), nil
}

// take returns what was counted since it was called last.
func (c *counted) take() (writes, lines int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	writes, lines = c.writes, c.lines
	c.writes, c.lines = 0, 0
	return writes, lines
}

func TestLogLinesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w counted
		b := &lineBuffer{w: &w}
		log := slog.New(promptly{slog.NewTextHandler(b, nil), b})
		wrote := func(what string, writes, lines int) {
			t.Helper()
			synctest.Wait()
			if n, got := w.take(); n != writes || got != lines {
				t.Errorf("%s: %d writes of %d lines, want %d of %d", what, n, got, writes, lines)
			}
		}
		log.Info("a")
		log.Info("b")
		time.Sleep(logDelay - time.Nanosecond)
		wrote("too soon", 0, 0)
		time.Sleep(time.Nanosecond)
		wrote("in time", 1, 2)
		time.Sleep(time.Hour)
		wrote("nothing", 0, 0)
		log.Info("a")
		log.With("x", 1).WithGroup("g").Warn("b", "y", 2)
		wrote("at once", 1, 2)
		log.Info("a")
		b.flush()
		wrote("at the end", 1, 1)
		for range 100 {
			log.Info(strings.Repeat("x", logBuffer/50))
		}
		if n, lines := w.take(); n != 2 || lines < 90 {
			t.Errorf("of 100 long lines %d are written, %d times", lines, n)
		}
		b.flush()
	})
}
