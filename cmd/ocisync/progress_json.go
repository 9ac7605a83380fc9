package main

import (
	"encoding/json"
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
	line := jsonEvent{
		Time: e.Time, Event: e.Kind, Source: e.Source, Target: e.Target, MediaType: e.Descriptor.MediaType,
		Digest: e.Descriptor.Digest, Size: e.Descriptor.Size, Bytes: e.Bytes, Outcome: e.Outcome, Error: errorText(e.Err),
	}
	b, err := json.Marshal(line)
	if err != nil {
		panic(err) // strings, numbers and a time: a time out of range would be a defect of the event's maker
	}
	v.out.printf("%s\n", b)
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
