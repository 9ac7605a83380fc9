package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/transfer"
)

// jsonEvent is one line of --progress json: a transfer.Event. Its fields are documented in docs/cli.md; they may grow,
// and never change.
type jsonEvent struct {
	Time      time.Time        `json:"time"`
	Event     transfer.Kind    `json:"event"`
	Source    string           `json:"source,omitempty"`
	Target    string           `json:"target,omitempty"`
	MediaType string           `json:"mediaType,omitempty"`
	Digest    digest.Digest    `json:"digest,omitempty"`
	Size      int64            `json:"size,omitempty"`
	Bytes     int64            `json:"bytes,omitempty"`
	Outcome   transfer.Outcome `json:"outcome,omitempty"`
	Error     string           `json:"error,omitempty"`
}

// jsonError is the line that tells with --progress json what failed: the command as a whole, or one image of it.
type jsonError struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"` // error
	Error string    `json:"error"`
	Hint  string    `json:"hint,omitempty"`
}

// jsonNote is the line that tells with --progress json what is told to people otherwise, and is no failure.
type jsonNote struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"` // note
	Note  string    `json:"note"`
}

// json prints v on a line of its own.
func (c *console) json(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and a time: a time out of range would be a defect of the event's maker
	}
	c.printf("%s\n", b)
}

// note tells what is no failure, in the form that the rest of stderr has.
func (c *console) note(format string, args ...any) {
	text := printable(fmt.Sprintf(format, args...))
	if c.lines.Load() {
		c.json(jsonNote{Time: time.Now().UTC(), Event: "note", Note: strings.TrimPrefix(text, "note: ")})
		return
	}
	c.printf("%s\n", text)
}

// bytesInterval is how often the bytes of one blob make a line.
const bytesInterval = 250 * time.Millisecond

// jsonView prints one line of JSON for every event. Bytes of one blob are added up and told a few times a second, and
// before whatever else is told about it, so that their sum is right at any line.
type jsonView struct {
	out     *console
	pending map[digest.Digest]*transfer.Event // bytes that were not told yet
	told    map[digest.Digest]time.Time       // when bytes were told last
}

func newJSONView(out *console) *jsonView {
	return &jsonView{out: out, pending: map[digest.Digest]*transfer.Event{}, told: map[digest.Digest]time.Time{}}
}

func (v *jsonView) event(e transfer.Event) {
	id := e.Descriptor.Digest
	if e.Kind != transfer.Bytes {
		v.flush(id)
		if e.Kind != transfer.Retried {
			delete(v.told, id)
		}
		v.print(e)
		return
	}
	if p := v.pending[id]; p != nil {
		e.Bytes += p.Bytes
	}
	v.pending[id] = &e
	if e.Time.Sub(v.told[id]) >= bytesInterval {
		v.flush(id)
		v.told[id] = e.Time
	}
}

func (v *jsonView) flush(id digest.Digest) {
	if p := v.pending[id]; p != nil {
		delete(v.pending, id)
		v.print(*p)
	}
}

func (v *jsonView) print(e transfer.Event) {
	v.out.json(jsonEvent{
		Time: e.Time, Event: e.Kind, Source: e.Source, Target: e.Target, MediaType: e.Descriptor.MediaType,
		Digest: e.Descriptor.Digest, Size: e.Descriptor.Size, Bytes: e.Bytes, Outcome: e.Outcome, Error: errorText(e.Err),
	})
}

func (v *jsonView) close() {
	for id := range v.pending {
		v.flush(id)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
