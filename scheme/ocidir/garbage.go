package ocidir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
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
// wrongly is kept without need, and what cannot be read names nothing to anybody.
func (l *layout) sniff(d digest.Digest, id fileID) ([]digest.Digest, error) {
	if id.size > types.MaxManifestSize {
		return nil, nil
	}
	ok, err := l.isDocument(d)
	if err != nil || !ok {
		return nil, ignoreUnread(err)
	}
	name, err := blobPath(d)
	if err != nil {
		return nil, err
	}
	raw, err := fs.ReadFile(l.vol.root.FS(), name)
	if err != nil {
		return nil, ignoreUnread(err)
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
		g.refs = slices.DeleteFunc(g.refs, func(d digest.Digest) bool { return c.garbage[d] == nil })
	}
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

// ignoreUnread is ignoreGone also for what a new file would have to replace before it is of use.
func ignoreUnread(err error) error {
	if replaceable(err) {
		return nil
	}
	return ignoreGone(err)
}

// ignoreGone takes a file that is not there any more for one that says nothing.
func ignoreGone(err error) error {
	if absent(err) || errors.Is(err, errs.ErrNotFound) {
		return nil
	}
	return err
}
