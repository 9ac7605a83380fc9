package main

import (
	"time"

	"github.com/ocisync/ocisync/types/transfer"
)

// view shows a copy while it runs. event is called for one event at a time; close is called once, after the last one.
type view interface {
	event(transfer.Event)
	close()
}

// view returns the view that --progress and --quiet ask for.
func (a *app) view() view {
	form := a.progress.value
	if form == "auto" {
		form = "plain"
		if a.terminal && !a.verbose { // log lines and moving lines together are hard to read
			form = "tty"
		}
		if a.quiet {
			form = "none"
		}
	}
	switch form {
	case "tty":
		return newTTYView(a.console)
	case "plain":
		return newPlainView(a.console, time.Now, summaryInterval)
	case "json":
		return newJSONView(a.console)
	default:
		return noView{}
	}
}

type noView struct{}

func (noView) event(transfer.Event) {}
func (noView) close()               {}

// imageLine tells how an image ended, in one line; the reason of a failure is told at the end, with what to do.
func imageLine(e transfer.Event) string {
	line := pad(string(e.Outcome), 10) + " " + displayName(e.Source)
	if e.Target != "" {
		line += " → " + displayName(e.Target)
	}
	if e.Descriptor.Digest != "" && e.Outcome != transfer.Error {
		line += "  " + shortDigest(string(e.Descriptor.Digest))
	}
	return line
}

func pad(s string, width int) string {
	for len(s) < width {
		s += " "
	}
	return s
}

// shortDigest is as much of a digest as people compare: the algorithm and twelve digits.
func shortDigest(d string) string {
	for i := range len(d) {
		if d[i] == ':' {
			return d[:min(len(d), i+13)]
		}
	}
	return d
}
