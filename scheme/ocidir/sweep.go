package ocidir

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
)

const (
	// sweepFiles and sweepBytes are how much is removed at most while the lock is held once; a file may be larger.
	sweepFiles = 32
	sweepBytes = 256 << 20
	// sweepPause is how long a collector leaves the lock alone between two steps.
	sweepPause = 2 * time.Millisecond
)

// sweep removes what nobody needs, a few files at a time, so that others can commit in between.
func (c *collector) sweep(ctx context.Context) error {
	for todo := c.order(); len(todo) > 0; {
		n, bytes := 0, int64(0)
		for n < len(todo) && n < sweepFiles && (n == 0 || bytes+todo[n].id.size <= sweepBytes) {
			bytes += todo[n].id.size
			n++
		}
		if err := c.l.vol.step(stepSweep, blobsDir); err != nil {
			return err
		}
		if err := c.see(ctx); err != nil { // most of what is new is walked without the lock
			return err
		}
		err := c.l.underLock(ctx, func(lock *fileLock, now *cached) error { return c.step(lock, now, todo[:n]) })
		if err = errors.Join(err, c.forget(ctx, todo[:n])); err != nil {
			return err
		}
		todo = todo[n:]
		select {
		case <-time.After(sweepPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// see learns what others listed and leased by now. Who put a manifest that was listed already leased what it names, before;
// if those leases have ended since, the manifest is there.
func (c *collector) see(ctx context.Context) error {
	now, err := c.l.current(ctx)
	if err != nil {
		return err
	}
	if now.ix != c.mark.last {
		if err := c.mark.entries(ctx, now.ix, nil); err != nil {
			return err
		}
		if err := c.markVanished(ctx, c.l.vanishedLocked, now); err != nil {
			return err
		}
	}
	if err := c.leases.refresh(ctx); err != nil || c.leases.still {
		return err
	}
	return c.mark.again(ctx)
}

// forget drops what is known of blobs that are gone.
func (c *collector) forget(ctx context.Context, some []*garbage) error {
	var gone []digest.Digest
	for _, g := range some {
		if g.gone {
			gone = append(gone, g.d)
			c.l.graph.dropOrphan(g.d)
			if err := c.l.vol.remove(childrenName(g.d)); err != nil {
				return err
			}
		}
	}
	return c.l.dropLabels(ctx, gone...)
}

// step removes some garbage, under the lock. The index that says so is durable before. What is taken away, and
// then found to be leased or listed, is given back.
func (c *collector) step(lock *fileLock, now *cached, some []*garbage) (err error) {
	ctx := context.Background() // it is short, and must not end half way
	if err := c.see(ctx); err != nil {
		return err
	}
	if err := c.l.syncIndex(now); err != nil {
		return err
	}
	taken := map[*garbage]buried{}
	defer func() {
		for g := range taken { // only after an error
			err = errors.Join(err, c.l.unbury(g.d))
		}
	}()
	for _, g := range some {
		if c.needed(g) {
			continue
		}
		if err := c.take(g, taken); err != nil {
			return err
		}
	}
	if err := c.undisturbed(lock); err != nil {
		return err
	}
	if err := c.see(ctx); err != nil {
		return err
	}
	for _, g := range some {
		b, ok := taken[g]
		if !ok {
			continue
		}
		if c.needed(g) {
			err = c.l.unbury(g.d)
		} else {
			err = c.destroy(g, b)
		}
		if err != nil {
			return err
		}
		delete(taken, g)
	}
	return nil
}

// take buries a blob. One that is another file by now, or in somebody's hands, stays, and so does what it names.
func (c *collector) take(g *garbage, taken map[*garbage]buried) error {
	b, ok, err := c.l.bury(g.d, func(id fileID) bool { return id == g.id })
	if err != nil {
		return err
	}
	if ok {
		taken[g] = b
		return nil
	}
	there, err := c.l.isThere(g.d)
	switch {
	case there:
		c.keep(g, keptYoung)
	case err == nil:
		g.gone = true // by somebody else's hand
	}
	return err
}

// needed reports whether somebody needs g by now. A manifest that somebody leased keeps what it names.
func (c *collector) needed(g *garbage) bool {
	if g.why == keptNot && c.leases.has(g.d) {
		c.keep(g, keptLeased)
	}
	return g.why != keptNot || c.mark.has(g.d)
}

// destroy removes a blob that was buried, unless somebody took it back meanwhile.
func (c *collector) destroy(g *garbage, b buried) error {
	if err := c.l.vol.remove(trashName(g.d)); err != nil {
		return err
	}
	name, err := blobPath(g.d)
	if err != nil {
		return err
	}
	if _, err := c.l.vol.root.Lstat(name); err == nil {
		g.why = keptLeased // somebody wants it, and put it, or took it back
		return nil
	}
	c.removed(g, b.shared)
	return nil
}

// removed notes in the report what became of a blob.
func (c *collector) removed(g *garbage, shared bool) {
	g.gone = true
	c.rep.Removed = append(c.rep.Removed, scheme.Garbage{Digest: g.d, Size: g.id.size, Shared: shared})
	if !shared {
		c.rep.Freed += g.id.size
	}
}

// tally counts what was kept, and why.
func (c *collector) tally() {
	for _, g := range c.garbage {
		switch {
		case g.gone:
		case c.mark.has(g.d):
			c.rep.Kept++
		case g.why == keptLeased:
			c.rep.Leased++
		default:
			c.rep.Young++
		}
	}
}
