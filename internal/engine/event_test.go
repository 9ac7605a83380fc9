package engine_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/types/transfer"
)

func TestEventsComeOneByOneAndInOrder(t *testing.T) {
	w := newWorld(t)
	big := strings.Repeat("0123456789abcdef", 64<<10)
	for i := range 20 {
		w.atSource().image([]string{big, fmt.Sprint("layer ", i)}, fmt.Sprint("t", i))
	}
	var inside atomic.Int32
	state := map[digest.Digest]transfer.Kind{}
	images := map[string]transfer.Kind{}
	bytes, moved, events := int64(0), 0, 0
	rep := w.copy(engine.Options{AllTags: true, NoReferrers: true, Events: func(ev transfer.Event) {
		if inside.Add(1) != 1 {
			t.Error("two events at once")
		}
		defer inside.Add(-1)
		events++
		if ev.Time.IsZero() || ev.Source == "" || ev.Target == "" {
			t.Errorf("an event that does not say when or of what: %+v", ev)
		}
		before := state[ev.Descriptor.Digest]
		switch ev.Kind {
		case transfer.ImageStarted, transfer.ImageDone:
			want := map[transfer.Kind]transfer.Kind{transfer.ImageStarted: "", transfer.ImageDone: transfer.ImageStarted}[ev.Kind]
			if images[ev.Source] != want {
				t.Errorf("%s of %s after %q", ev.Kind, ev.Source, images[ev.Source])
			}
			images[ev.Source] = ev.Kind
			return
		case transfer.Planned:
			if before != "" {
				t.Errorf("planned after %q", before)
			}
		case transfer.Started:
			if before != transfer.Planned {
				t.Errorf("started after %q", before)
			}
		case transfer.Bytes:
			if before != transfer.Started && before != transfer.Bytes || ev.Bytes <= 0 {
				t.Errorf("%d bytes after %q", ev.Bytes, before)
			}
			bytes += ev.Bytes
		case transfer.Moved:
			if before != transfer.Bytes {
				t.Errorf("moved after %q", before)
			}
			moved++
		}
		state[ev.Descriptor.Digest] = ev.Kind
	}})
	if bytes != rep.Bytes || moved != rep.Blobs+rep.Manifests || len(images) != 20 {
		t.Errorf("the events tell of %d bytes, %d moved, %d images; the report is %+v", bytes, moved, len(images), rep)
	}
	if events > 2000 {
		t.Errorf("%d events for a megabyte and some", events)
	}
}

func TestGoroutinesAreBounded(t *testing.T) {
	w := newWorld(t)
	var layers []string
	for i := range 200 {
		layers = append(layers, fmt.Sprint("layer ", i))
	}
	for i := range 40 {
		w.atSource().image(append([]string{fmt.Sprint("own ", i)}, layers...), fmt.Sprint("t", i))
	}
	var once sync.Once
	worst := 0
	gate := make(chan struct{})
	before := runtime.NumGoroutine()
	w.dst.incident = func(call string) error {
		if strings.HasPrefix(call, "ManifestPut") { // by now everything has been under way that could be
			once.Do(func() { worst = runtime.NumGoroutine() - before; close(gate) })
		}
		return nil
	}
	w.copy(plainAll)
	select {
	case <-gate:
	default:
		t.Fatal("no manifest was put")
	}
	if limit := 2*4 + 2*16 + 10; worst > limit { // the engine of the test moves two at once
		t.Errorf("%d goroutines, more than %d", worst, limit)
	}
}
