package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/transfer"
)

// tally adds up the events of a copy: it is what the views for people show. It is not safe for concurrent use.
type tally struct {
	images, failed int // finished ones, and how many of them failed
	running        int
	planned, moved int64 // bytes; planned grows while images are resolved
	blobs          int   // blobs and manifests that have moved
	retries        int
	started        time.Time
	speed          speed

	active []*item // what is moving now, in the order of their start
	byID   map[digest.Digest]*item
}

// item is a blob or manifest that is moving.
type item struct {
	desc    types.Descriptor
	source  string
	moved   int64
	started time.Time
	broken  bool // being retried
}

func newTally(now time.Time) *tally {
	return &tally{started: now, byID: map[digest.Digest]*item{}}
}

// add takes one event.
func (t *tally) add(e transfer.Event) {
	id := e.Descriptor.Digest
	switch e.Kind {
	case transfer.ImageStarted:
		t.running++
	case transfer.ImageDone:
		t.running--
		t.images++
		if e.Outcome == transfer.Error {
			t.failed++
		}
	case transfer.Planned:
		t.planned += e.Descriptor.Size
	case transfer.Started:
		it := &item{desc: e.Descriptor, source: e.Source, started: e.Time}
		t.remove(id)
		t.byID[id] = it
		t.active = append(t.active, it)
	case transfer.Bytes:
		t.moved += e.Bytes
		t.speed.add(e.Time, e.Bytes)
		if it := t.byID[id]; it != nil {
			it.moved += e.Bytes
			it.broken = false
		}
	case transfer.Retried:
		t.retries++
		if it := t.byID[id]; it != nil {
			it.broken = true
		}
	case transfer.Moved:
		t.blobs++
		t.remove(id)
	case transfer.Mounted, transfer.Present, transfer.Failed:
		t.remove(id)
	}
}

func (t *tally) remove(id digest.Digest) {
	it := t.byID[id]
	if it == nil {
		return
	}
	delete(t.byID, id)
	for i, other := range t.active {
		if other == it {
			t.active = append(t.active[:i], t.active[i+1:]...)
			return
		}
	}
}

// total is the line that sums up everything: images, bytes, speed and the time that the rest will take.
func (t *tally) total(now time.Time) string {
	parts := []string{fmt.Sprintf("%s done", count(t.images, "image"))}
	if t.failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", t.failed))
	}
	if t.running > 0 {
		parts = append(parts, fmt.Sprintf("%d running", t.running))
	}
	bytes := size(t.moved)
	if t.planned > t.moved {
		bytes += " of " + size(t.planned)
	}
	parts = append(parts, bytes)
	if t.retries > 0 {
		parts = append(parts, count(t.retries, "retry"))
	}
	if rate := t.speed.rate(now); rate > 0 {
		parts = append(parts, size(int64(rate))+"/s")
		if left := t.planned - t.moved; left > 0 {
			parts = append(parts, elapsed(time.Duration(float64(left)/rate*float64(time.Second)))+" left")
		}
	}
	return strings.Join(append(parts, elapsed(now.Sub(t.started))), " · ")
}

// speed is the mean of the last seconds.
type speed struct {
	buckets [speedWindow]int64
	seconds [speedWindow]int64 // the second that each bucket counts
	first   time.Time
}

const speedWindow = 8

func (s *speed) add(now time.Time, n int64) {
	if s.first.IsZero() {
		s.first = now
	}
	sec := now.Unix()
	i := sec % speedWindow
	if s.seconds[i] != sec {
		s.seconds[i], s.buckets[i] = sec, 0
	}
	s.buckets[i] += n
}

// rate returns bytes per second, or 0 while too little is known.
func (s *speed) rate(now time.Time) float64 {
	span := min(now.Sub(s.first).Seconds(), speedWindow-1)
	if s.first.IsZero() || span < 0.5 {
		return 0
	}
	var sum int64
	for i, sec := range s.seconds {
		if sec > now.Unix()-speedWindow && sec <= now.Unix() {
			sum += s.buckets[i]
		}
	}
	return float64(sum) / span
}
