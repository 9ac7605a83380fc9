package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/ocisync/ocisync/types/transfer"
)

// maxActive is how many moving blobs have a line of their own.
const maxActive = 8

// ttyView draws one line for each moving blob and one for the whole, over and over at the bottom of a terminal;
// finished images scroll up above them. The terminal is mpb's business: to it, all our lines are one bar.
type ttyView struct {
	out      *console
	progress *mpb.Progress
	bar      *mpb.Bar

	mu    sync.Mutex
	tally *tally
}

func newTTYView(out *console) *ttyView {
	v := &ttyView{out: out, tally: newTally(time.Now())}
	v.progress = mpb.New(mpb.WithOutput(out.w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(120*time.Millisecond))
	v.bar = v.progress.MustAdd(0, mpb.BarFillerFunc(v.drawTotal),
		mpb.BarExtender(mpb.BarFillerFunc(v.drawActive), true), mpb.BarFillerTrim(), mpb.BarRemoveOnComplete())
	out.show(v.progress)
	return v
}

func (v *ttyView) event(e transfer.Event) {
	v.mu.Lock()
	v.tally.add(e)
	v.mu.Unlock()
	if e.Kind == transfer.ImageDone {
		v.out.printf("%s\n", imageLine(e))
	}
}

// close removes the moving lines; what was printed above them stays.
func (v *ttyView) close() {
	v.bar.Abort(true)
	v.progress.Wait()
	v.out.show(nil)
}

func (v *ttyView) drawTotal(w io.Writer, st decor.Statistics) error {
	v.mu.Lock()
	line := v.tally.total(time.Now())
	v.mu.Unlock()
	_, err := io.WriteString(w, fit(line, st.AvailableWidth))
	return err
}

// drawActive writes the lines above the total, the lowest first, as mpb turns them round.
func (v *ttyView) drawActive(w io.Writer, st decor.Statistics) error {
	v.mu.Lock()
	lines := activeLines(v.tally, st.AvailableWidth)
	v.mu.Unlock()
	for i := len(lines) - 1; i >= 0; i-- {
		if _, err := io.WriteString(w, lines[i]+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// activeLines returns a line for each of the oldest moving blobs, none wider than width.
func activeLines(t *tally, width int) []string {
	var lines []string
	for _, it := range t.active[:min(len(t.active), maxActive)] {
		lines = append(lines, fit(activeLine(it), width))
	}
	if more := len(t.active) - maxActive; more > 0 {
		lines = append(lines, fit(fmt.Sprintf("  and %d more", more), width))
	}
	return lines
}

func activeLine(it *item) string {
	state := fmt.Sprintf("%9s of %s", size(it.moved), size(it.desc.Size))
	if it.broken {
		state += ", retrying"
	}
	return fmt.Sprintf("  %s %s %s  %s", shortDigest(string(it.desc.Digest)), bar(it.moved, it.desc.Size), state, displayName(it.source))
}

// bar is twenty cells, as many of them full as done is of total.
func bar(done, total int64) string {
	const cells = 20
	full := 0
	if total > 0 {
		full = int(min(done, total) * cells / total)
	}
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", cells-full) + "]"
}

// fit cuts a line to a terminal's width, and leaves the last column free: some terminals wrap when it is written.
func fit(line string, width int) string {
	if width < 2 {
		return ""
	}
	return runewidth.Truncate(line, width-1, "…")
}
