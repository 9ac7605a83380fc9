package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/blob"
)

// verifyWatch says from time to time how far verify is.
type verifyWatch struct {
	app   *app
	every time.Duration
	now   func() time.Time

	mu    sync.Mutex
	blobs int
	bytes int64
	last  time.Time
}

// jsonChecked is the line of --progress json for a blob or manifest that was looked at.
type jsonChecked struct {
	Time   time.Time     `json:"time"`
	Event  string        `json:"event"` // checked
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

func (a *app) watchVerify() *verifyWatch {
	w := &verifyWatch{app: a, every: summaryInterval, now: time.Now}
	if a.progress.value == "tty" || a.progress.value == "auto" && a.terminal {
		w.every = time.Second
	}
	w.last = w.now()
	return w
}

// checked takes one blob. The library calls it for one at a time.
func (w *verifyWatch) checked(in blob.Info) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blobs++
	w.bytes += in.Size
	now := w.now()
	switch {
	case w.app.progress.value == "json":
		w.app.console.json(jsonChecked{Time: now.UTC(), Event: "checked", Digest: in.Digest, Size: in.Size})
	case w.app.progress.value == "none", w.app.progress.value == "auto" && w.app.quiet, now.Sub(w.last) < w.every:
	case w.every < summaryInterval && w.app.terminal:
		w.last = now
		w.app.console.printf("\r\x1b[K%s", w.line())
	default:
		w.last = now
		w.app.console.printf("%s\n", w.line())
	}
}

func (w *verifyWatch) line() string {
	return fmt.Sprintf("checked %s of %s", count(w.blobs, "blob"), size(w.bytes))
}

// close clears the line that was drawn over.
func (w *verifyWatch) close() {
	if w.every < summaryInterval && w.app.terminal {
		w.app.console.printf("\r\x1b[K")
	}
}
