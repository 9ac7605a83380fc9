package ocidir

import (
	"context"
	"slices"
	"sync"
)

// group does at once what several callers ask for: one goroutine works for all, and exists only while there is work.
//
//	idle --do--> running --take--> working --done, others wait--> running
//	  ^                                |
//	  +---------- nobody waits --------+
//
// A caller whose context ends leaves the queue. Once its call was taken it waits for the outcome, unless the group is
// detached: then the work goes on without it.
type group[T any] struct {
	// run does the work. It calls take once it is ready to work, and must finish every call that it took.
	run      func(take func() []*call[T])
	detached bool

	mu      sync.Mutex
	waiting []*call[T]
	running bool
}

// call is what one caller asked for.
type call[T any] struct {
	arg  T
	err  error
	done chan struct{}
}

func (c *call[T]) finish(err error) {
	c.err = err
	close(c.done)
}

// do has arg worked on, and returns how that ended.
func (g *group[T]) do(ctx context.Context, arg T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call[T]{arg: arg, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	if !g.running {
		g.running = true
		go g.work()
	}
	g.mu.Unlock()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if g.withdraw(c) || g.detached {
		return ctx.Err()
	}
	<-c.done
	return c.err
}

func (g *group[T]) work() {
	for {
		g.run(g.take)
		g.mu.Lock()
		if len(g.waiting) == 0 {
			g.running = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
	}
}

func (g *group[T]) take() []*call[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.waiting
	g.waiting = nil
	return all
}

func (g *group[T]) withdraw(c *call[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, c)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}
