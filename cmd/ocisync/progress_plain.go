package main

import (
	"sync"
	"time"

	"github.com/ocisync/ocisync/types/transfer"
)

// summaryInterval is how often the plain view says how far it is: often enough for a CI system that ends what is
// silent, rarely enough for a log that is read later.
const summaryInterval = 30 * time.Second

// plainView prints a line for every finished image, and from time to time how far the whole is.
type plainView struct {
	out  *console
	now  func() time.Time
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	tally *tally
}

func newPlainView(out *console, now func() time.Time, every time.Duration) *plainView {
	v := &plainView{out: out, now: now, stop: make(chan struct{}), tally: newTally(now())}
	v.done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				out.printf("%s\n", v.total())
			case <-v.stop:
				return
			}
		}
	})
	return v
}

func (v *plainView) total() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tally.total(v.now())
}

func (v *plainView) event(e transfer.Event) {
	v.mu.Lock()
	v.tally.add(e)
	v.mu.Unlock()
	if e.Kind == transfer.ImageDone {
		v.out.printf("%s\n", imageLine(e))
	}
}

func (v *plainView) close() {
	close(v.stop)
	v.done.Wait()
}
