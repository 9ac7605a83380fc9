package ocidir

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// untagged are the entries without a tag that may go: those that are old and not leased, until something keeps them.
type untagged struct {
	c         *collector
	entries   map[digest.Digest]types.Descriptor
	seen      map[visit]bool
	parents   map[digest.Digest][]digest.Digest // below the entries: which manifests name one
	referrers map[digest.Digest][]digest.Digest // below the entries: which manifests have a subject
	kept      map[digest.Digest]bool            // manifests below the entries from which it was gone up
}

// isUntagged reports whether an entry has no name of any kind.
func (e *entry) isUntagged() bool { return e.name == "" && e.image == "" }

// untag marks what is needed when untagged entries go, and removes them from the index.
func (c *collector) untag(ctx context.Context, now *cached) error {
	u := &untagged{
		c: c, entries: map[digest.Digest]types.Descriptor{}, seen: map[visit]bool{},
		parents: map[digest.Digest][]digest.Digest{}, referrers: map[digest.Digest][]digest.Digest{}, kept: map[digest.Digest]bool{},
	}
	if err := u.find(ctx, now.ix); err != nil {
		return err
	}
	if err := u.settle(ctx, now.ix); err != nil {
		return err
	}
	if c.opt.DryRun || len(u.entries) == 0 {
		return u.report(now.ix)
	}
	if err := c.l.vol.step(stepSweep, indexName); err != nil {
		return err
	}
	err := c.l.commits.do(ctx, &change{frees: true, apply: func(ctx context.Context, d *draft) ([]namedFile, error) {
		if err := u.settle(ctx, d.now()); err != nil { // others may have tagged or leased one meanwhile
			return nil, err
		}
		if err := u.report(d.now()); err != nil {
			return nil, err
		}
		d.removeUntagged(u.entries)
		return nil, nil
	}})
	if err != nil {
		return err
	}
	after, err := c.l.current(ctx)
	if err != nil {
		return err
	}
	return c.mark.entries(ctx, after.ix, nil)
}

// find lists the entries that may go, and what hangs below them.
func (u *untagged) find(ctx context.Context, ix *index) error {
	for _, e := range ix.entries {
		if !e.isUntagged() || e.digest == "" {
			continue
		}
		name, err := blobPath(e.digest)
		if err != nil {
			return err
		}
		id, err := u.c.l.vol.stat(name)
		if err != nil && !absent(err) {
			return u.c.l.undecided(u.c.l.lost(e.digest, err))
		}
		if err == nil && !u.c.young(id) {
			u.entries[e.digest] = types.Descriptor{MediaType: e.mediaType, Digest: e.digest, Size: e.size, ArtifactType: e.artifactType}
		}
	}
	for d, desc := range u.entries {
		if err := u.explore(ctx, target{digest: d, mediaType: desc.MediaType}); err != nil {
			return err
		}
	}
	return nil
}

// explore notes how the manifests below an entry hang together.
func (u *untagged) explore(ctx context.Context, t target) error {
	for todo := []target{t}; len(todo) > 0; {
		t := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		v := visit{keyOf(t.digest), t.nature()}
		if v.as == natureBytes || u.seen[v] {
			continue
		}
		u.seen[v] = true
		out, subject, err := u.c.l.expand(ctx, t)
		if errors.Is(err, errs.ErrNotFound) {
			continue
		}
		if err != nil {
			return u.c.l.undecided(err)
		}
		if subject != "" {
			u.referrers[subject] = append(u.referrers[subject], t.digest)
		}
		for _, below := range out {
			if below.digest == subject || below.nature() == natureBytes {
				continue
			}
			u.parents[below.digest] = append(u.parents[below.digest], t.digest)
			todo = append(todo, below)
		}
	}
	return nil
}

// settle marks what is needed besides the entries that may go, and takes those from them that this keeps. What it has
// kept once it keeps.
func (u *untagged) settle(ctx context.Context, ix *index) error {
	c := u.c
	if err := c.leases.refresh(ctx); err != nil {
		return err
	}
	var found []digest.Digest
	c.mark.onNeed = func(d digest.Digest) { found = append(found, d) }
	defer func() { c.mark.onNeed = nil }()
	c.mark.last = nil
	if err := c.mark.entries(ctx, ix, u.mayGo); err != nil {
		return err
	}
	for d := range u.entries {
		if c.leases.has(d) || c.mark.has(d) {
			found = append(found, d)
		}
	}
	for subject, all := range u.referrers {
		there, err := c.l.isThere(subject)
		if err != nil {
			return err
		}
		if !there || c.mark.has(subject) {
			found = append(found, u.above(all)...)
		}
	}
	for len(found) > 0 {
		d := found[len(found)-1]
		found = found[:len(found)-1]
		found = append(found, u.above(u.referrers[d])...)
		desc, ours := u.entries[d]
		if !ours {
			continue
		}
		delete(u.entries, d)
		if err := c.mark.walk(ctx, target{digest: d, mediaType: desc.MediaType}); err != nil { // which adds to found
			return err
		}
	}
	c.mark.last = nil
	return nil
}

// mayGo reports whether an entry is one of those that may go.
func (u *untagged) mayGo(e *entry) bool {
	_, ok := u.entries[e.digest]
	return ok && e.isUntagged()
}

// above returns the entries through which manifests are reached, for those that it was not asked about before.
func (u *untagged) above(all []digest.Digest) (found []digest.Digest) {
	for todo := append([]digest.Digest(nil), all...); len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if u.kept[d] {
			continue
		}
		u.kept[d] = true
		if _, ours := u.entries[d]; ours {
			found = append(found, d)
		}
		todo = append(todo, u.parents[d]...)
	}
	return found
}

// report notes the entries that go, in the order of the index.
func (u *untagged) report(ix *index) error {
	u.c.rep.Untagged = nil
	noted := map[digest.Digest]bool{}
	for _, e := range ix.entries {
		if u.mayGo(e) && !noted[e.digest] {
			noted[e.digest] = true
			u.c.rep.Untagged = append(u.c.rep.Untagged, u.entries[e.digest])
		}
	}
	return nil
}

// isThere reports whether a blob's name leads to something.
func (l *layout) isThere(d digest.Digest) (bool, error) {
	name, err := blobPath(d)
	if err != nil {
		return false, err
	}
	_, err = l.vol.root.Lstat(name)
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}
