package engine

import (
	"context"
	"sync"
)

// flights does everything once: the first who asks for a key does the work, all others wait for it and share the
// outcome, also long afterwards.
//
//	absent → under way (done is open) → landed (done is closed; val and err are fixed)
type flights[K comparable, V any] struct {
	mu  sync.Mutex // guards all; not held while work is done
	all map[K]*flight[V]
}

type flight[V any] struct {
	done chan struct{}
	val  V
	err  error
}

// do returns the outcome of key's work, and whether it was this call that did it with fn. A call that waits ends with
// its context.
func (f *flights[K, V]) do(ctx context.Context, key K, fn func() (V, error)) (val V, led bool, err error) {
	f.mu.Lock()
	fl := f.all[key]
	if fl == nil {
		fl = f.add(key)
		f.mu.Unlock()
		fl.val, fl.err = fn()
		close(fl.done)
		return fl.val, true, fl.err
	}
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.val, false, fl.err
	case <-ctx.Done():
		return val, false, context.Cause(ctx)
	}
}

// settle records the outcome of a key that nobody has asked for yet.
func (f *flights[K, V]) settle(key K, val V) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[key] == nil {
		fl := f.add(key)
		fl.val = val
		close(fl.done)
	}
}

// add makes key's flight. The caller holds mu.
func (f *flights[K, V]) add(key K) *flight[V] {
	if f.all == nil {
		f.all = map[K]*flight[V]{}
	}
	fl := &flight[V]{done: make(chan struct{})}
	f.all[key] = fl
	return fl
}
