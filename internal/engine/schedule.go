package engine

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/ref"
)

const (
	// smallBlob is the size, in bytes, below which a blob costs a round trip rather than a line.
	smallBlob = 64 << 10
	// largeWeight is how many requests, or small blobs, go in place of one blob of size.
	largeWeight = 4
	// imagesPerTransfer is how many images are worked on for each blob that may move at once. Most of their time is
	// spent waiting for answers: a mirror without news is nothing but that.
	imagesPerTransfer = 4
	// extraPerTransfer bounds the goroutines of a run, for each blob that may move at once.
	extraPerTransfer = 16
)

// scheduler bounds what a run does at once: requests and bytes in flight, and goroutines.
//
// Work that waits for other work (a manifest for its blobs) holds nothing but its goroutine; only requests hold units
// and slots, and they wait for no one. So nothing can wait in a circle, however the images share content.
type scheduler struct {
	images int
	units  *semaphore.Weighted
	extra  chan struct{} // a token for each goroutine that each started
}

func newScheduler(concurrency int) *scheduler {
	return &scheduler{
		images: concurrency * imagesPerTransfer,
		units:  semaphore.NewWeighted(int64(concurrency) * largeWeight),
		extra:  make(chan struct{}, concurrency*extraPerTransfer),
	}
}

// each calls fn for 0 to n-1, several at once, and returns when all have returned. When no more goroutines may be
// started it does the work itself: a manifest with ten thousand layers needs no more than one with ten, and nobody
// waits for a goroutine that waits for him.
func (s *scheduler) each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range n {
		if i == n-1 {
			fn(i)
			return
		}
		select {
		case s.extra <- struct{}{}:
			wg.Go(func() {
				defer func() { <-s.extra }()
				fn(i)
			})
		default:
			fn(i)
		}
	}
}

// first calls fn for 0 to n-1 in that order, as many at once as images may be worked on.
func (s *scheduler) first(n int, fn func(i int)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(n, s.images) {
		wg.Go(func() {
			for i := range next {
				fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// acquire waits until a request that moves size bytes may be sent to the hosts of slots. A negative size is unknown;
// 0 is a request without content. release must be called.
func (s *scheduler) acquire(ctx context.Context, size int64, slots ...*scheme.Slots) (release func(), err error) {
	weight := int64(largeWeight)
	if size >= 0 && size < smallBlob {
		weight = 1
	}
	if err := s.units.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	free, err := scheme.AcquireSlots(ctx, slots...)
	if err != nil {
		s.units.Release(weight)
		return nil, err
	}
	return func() {
		free()
		s.units.Release(weight)
	}, nil
}

// slotsOf returns the slots of r's host, or nil.
func slotsOf(api scheme.API, r ref.Ref) *scheme.Slots {
	var t scheme.Throttler
	if scheme.As(api, r, &t) {
		return t.Slots(r)
	}
	return nil
}
