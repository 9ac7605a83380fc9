package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// counted is a log whose writes are counted.
type counted struct {
	bytes.Buffer
	writes int
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(p)
}

func TestLogLinesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w counted
		b := &lineBuffer{w: &w}
		log := slog.New(promptly{slog.NewTextHandler(b, nil), b})
		wrote := func(what string, writes, lines int) {
			t.Helper()
			synctest.Wait()
			if got := strings.Count(w.String(), "\n"); w.writes != writes || got != lines {
				t.Errorf("%s: %d writes of %d lines, want %d of %d", what, w.writes, got, writes, lines)
			}
			w.writes = 0
			w.Reset()
		}
		log.Info("a")
		log.Info("b")
		time.Sleep(logDelay - 1)
		wrote("too soon", 0, 0)
		time.Sleep(1)
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
		if w.writes < 2 || len(b.lines) >= logBuffer {
			t.Errorf("%d bytes wait after %d writes", len(b.lines), w.writes)
		}
		b.flush()
	})
}
