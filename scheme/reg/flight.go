package reg

import (
	"context"
	"sync"
)

// flights lets those who want the same thing at the same time wait for one who fetches it. Nobody's context ends it
// for the others: it is given up when the last of them has left.
type flights[T any] struct {
	background *sync.WaitGroup // counts what is under way

	mu sync.Mutex // guards m and the waiters of each flight; not held while anything is fetched
	m  map[string]*flight[T]
}

type flight[T any] struct {
	done    chan struct{} // closed when value and err are set
	value   T
	err     error
	waiters int
	cancel  context.CancelFunc
}

// do returns what fetch does, which runs once for all that wait under the same key.
func (g *flights[T]) do(ctx context.Context, key string, fetch func(context.Context) (T, error)) (T, error) {
	g.mu.Lock()
	f := g.m[key]
	if f == nil {
		fctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight[T]{done: make(chan struct{}), cancel: cancel}
		if g.m == nil {
			g.m = map[string]*flight[T]{}
		}
		g.m[key] = f
		g.background.Add(1)
		go func() {
			defer g.background.Done()
			defer cancel()
			f.value, f.err = fetch(fctx)
			g.forget(key, f)
			close(f.done)
		}()
	}
	f.waiters++
	g.mu.Unlock()

	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		if f.waiters--; f.waiters == 0 {
			f.cancel()
			if g.m[key] == f {
				delete(g.m, key)
			}
		}
		var zero T
		return zero, ctx.Err()
	}
}

func (g *flights[T]) forget(key string, f *flight[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m[key] == f {
		delete(g.m, key)
	}
}
