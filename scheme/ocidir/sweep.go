package ocidir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

const (
	// sweepFiles and sweepBytes are how much is removed at most while the lock is held once; a file may be larger.
	sweepFiles = 32
	sweepBytes = 256 << 20
	// sweepPause is how long a collector leaves the lock alone between two steps.
	sweepPause = 2 * time.Millisecond
)

// garbage is a blob that no index reached when it was listed.
type garbage struct {
	d    digest.Digest
	id   fileID
	refs []digest.Digest // what it names, if it is a manifest; of which only garbage matters
	why  keeping
	gone bool // it was removed
}

// keeping is why a blob that no index reaches is kept.
type keeping uint8

const (
	keptNot    keeping = iota
	keptYoung          // it, or a manifest that names it, is younger than the grace period
	keptLeased         // it, or a manifest that names it, is leased
)

// list goes through all blobs and separates those that are needed from garbage. What has no blob's name, or is no file, is
// none of ours.
func (c *collector) list(ctx context.Context) error {
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		dir, err := c.l.vol.root.Open(join(blobsDir, alg.String()))
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = c.listDir(ctx, alg, dir.Readdirnames)
		if err = errors.Join(err, dir.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) listDir(ctx context.Context, alg digest.Algorithm, next func(n int) ([]string, error)) error {
	for {
		names, err := next(1024)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			d := digest.NewDigestFromEncoded(alg, n)
			if types.ValidDigest(d) != nil {
				continue
			}
			if err := c.classify(join(blobsDir, alg.String(), n), d); err != nil {
				return err
			}
		}
	}
}

func (c *collector) classify(name string, d digest.Digest) error {
	fi, err := c.l.vol.root.Lstat(name)
	if absent(err) || err == nil && !fi.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	if c.mark.has(d) {
		c.rep.Kept++
		return nil
	}
	id, err := c.l.vol.stat(name)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	g := &garbage{d: d, id: id}
	if g.refs, err = c.l.sniff(d, id); err != nil {
		return err
	}
	c.garbage[d] = g
	return nil
}

// sniff reads what a blob that nothing lists would need if it were a manifest. It need not be whole: what it names
// wrongly is kept without need.
func (l *layout) sniff(d digest.Digest, id fileID) ([]digest.Digest, error) {
	if id.size > types.MaxManifestSize {
		return nil, nil
	}
	ok, err := l.isDocument(d)
	if err != nil || !ok {
		return nil, ignoreGone(err)
	}
	name, err := blobPath(d)
	if err != nil {
		return nil, err
	}
	raw, err := fs.ReadFile(l.vol.root.FS(), name)
	if err != nil {
		return nil, ignoreGone(err)
	}
	m, err := manifest.New(raw)
	if err != nil {
		return nil, err
	}
	all := mentioned(raw)
	if v, err := m.View(); err == nil && v.Known {
		all = contents(d, v)
	}
	refs := make([]digest.Digest, 0, len(all))
	for _, t := range all {
		refs = append(refs, t.digest)
	}
	return refs, nil
}

// keep spares a blob and everything below it.
func (c *collector) keep(g *garbage, why keeping) {
	todo := []*garbage{g}
	for len(todo) > 0 {
		g := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if g.why >= why {
			continue
		}
		g.why = why
		for _, d := range g.refs {
			if below := c.garbage[d]; below != nil {
				todo = append(todo, below)
			}
		}
	}
}

// spare keeps what is leased or young, and everything below it: a manifest that is kept loses nothing.
func (c *collector) spare() {
	for _, g := range c.garbage {
		switch {
		case c.leases.has(g.d):
			c.keep(g, keptLeased)
		case c.young(g.id):
			c.keep(g, keptYoung)
		}
	}
}

// order returns what is to be removed, manifests before what they name. So whatever of a manifest is removed, the manifest
// was before, whenever the collector ends: what is found to be there can be relied on.
func (c *collector) order() []*garbage {
	all := make([]*garbage, 0, len(c.garbage))
	done := make(map[*garbage]bool, len(c.garbage))
	type step struct {
		g    *garbage
		next int
	}
	for _, d := range slices.Sorted(maps.Keys(c.garbage)) {
		for stack := []step{{g: c.garbage[d]}}; len(stack) > 0; {
			s := &stack[len(stack)-1]
			if s.next == 0 && done[s.g] {
				stack = stack[:len(stack)-1]
				continue
			}
			done[s.g] = true
			if s.next < len(s.g.refs) {
				below := c.garbage[s.g.refs[s.next]]
				s.next++
				if below != nil && !done[below] {
					stack = append(stack, step{g: below})
				}
				continue
			}
			all = append(all, s.g) // everything below it is in all
			stack = stack[:len(stack)-1]
		}
	}
	slices.Reverse(all)
	return slices.DeleteFunc(all, func(g *garbage) bool { return g.why != keptNot })
}

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

// see learns what others listed and leased by now.
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
	return c.leases.refresh(ctx)
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
		b, ok, err := c.l.bury(g.d, func(id fileID) bool { return id == g.id })
		if err != nil {
			return err
		}
		if ok {
			taken[g] = b
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
			c.rep.Young++ // as somebody was at work on it, or changed it since it was listed
		}
	}
}

// ignoreGone takes a file that is not there any more for one that says nothing.
func ignoreGone(err error) error {
	if absent(err) || errors.Is(err, errs.ErrNotFound) {
		return nil
	}
	return err
}
