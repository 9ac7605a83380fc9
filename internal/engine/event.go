package engine

import (
	"sync"
	"time"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/transfer"
)

// bytesPerEvent is how many bytes of a blob are told at once.
const bytesPerEvent = 256 << 10

// recorder is told everything that happens. It makes the report of it, and passes it on, one event at a time.
type recorder struct {
	mu     sync.Mutex // guards report, and is held while call runs: that is what makes events come one by one
	call   func(transfer.Event)
	report *transfer.Report
	start  time.Time
	over   bool // guarded by mu: the report is the caller's, and whoever reads on (a put may leave a read behind) is not heard
}

func newRecorder(call func(transfer.Event), dry bool) *recorder {
	return &recorder{call: call, report: &transfer.Report{DryRun: dry}, start: time.Now()}
}

// image tells about an image as a whole.
func (rec *recorder) image(im *image, ev transfer.Event) {
	ev.Source, ev.Target = im.src.String(), im.dst.String()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.over {
		return
	}
	if ev.Kind == transfer.ImageDone {
		rec.report.Images[im.index] = transfer.Image{
			Source: ev.Source, Target: ev.Target, Descriptor: ev.Descriptor, Outcome: ev.Outcome,
			Referrers: im.referrers, Err: ev.Err,
		}
		switch ev.Outcome {
		case transfer.Copied, transfer.WouldCopy:
			rec.report.Copied++
		case transfer.Unchanged:
			rec.report.Unchanged++
		case transfer.Error:
			rec.report.Failed++
		}
	}
	rec.tell(ev)
}

// item is a blob or manifest that events are about.
type item struct {
	im       *image
	desc     types.Descriptor
	manifest bool
}

// content tells about a blob or manifest.
func (rec *recorder) content(it item, kind transfer.Kind, n int64, err error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.over {
		return
	}
	rep := rec.report
	switch kind {
	case transfer.Planned:
		if rep.DryRun {
			rep.Bytes += it.desc.Size
			rec.count(it, 1)
		}
	case transfer.Bytes:
		rep.Bytes += n
	case transfer.Moved:
		rec.count(it, 1)
	case transfer.Retried:
		rep.Retries++
	case transfer.Mounted:
		rep.Mounted++
	case transfer.Present:
		if !it.manifest {
			rep.Present++
		}
	}
	rec.tell(transfer.Event{
		Kind: kind, Source: it.im.src.String(), Target: it.im.dst.String(), Descriptor: it.desc, Bytes: n, Err: err,
	})
}

// count adds to the blobs or manifests that moved. The caller holds mu.
func (rec *recorder) count(it item, n int) {
	if it.manifest {
		rec.report.Manifests += n
	} else {
		rec.report.Blobs += n
	}
}

// tell calls the caller. The caller of this holds mu.
func (rec *recorder) tell(ev transfer.Event) {
	if rec.call != nil {
		ev.Time = time.Now()
		rec.call(ev)
	}
}

// done returns the report. What is told afterwards is dropped.
func (rec *recorder) done() *transfer.Report {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.over = true
	rec.report.Elapsed = time.Since(rec.start)
	return rec.report
}

// meter tells how far a blob has come. Bytes that are read again, after a stream broke, are not told again.
type meter struct {
	rec *recorder
	it  item

	mu     sync.Mutex // guards what follows: a place may read the next stream before it has left the last one
	high   int64      // the farthest byte read
	untold int64
}

// reached says that the first n bytes have been read.
func (m *meter) reached(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= m.high {
		return
	}
	m.untold += n - m.high
	m.high = n
	if m.untold >= bytesPerEvent {
		m.tell()
	}
}

// skip says that the first n bytes need not be read: they were, by this run or an earlier one.
func (m *meter) skip(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.high = max(m.high, n)
}

// flush tells the rest.
func (m *meter) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell()
}

// tell says what was not said yet. The caller holds mu.
func (m *meter) tell() {
	if m.untold > 0 {
		m.rec.content(m.it, transfer.Bytes, m.untold, nil)
		m.untold = 0
	}
}
