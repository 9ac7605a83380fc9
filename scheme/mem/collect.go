package mem

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// Collect implements scheme.Collector. A manifest has an entry unless it was put with scheme.WithChild. Nothing is
// left over in memory, so that there is nothing to clean, and nothing can vanish.
func (m *Mem) Collect(ctx context.Context, r ref.Ref, opts ...scheme.CollectOption) (scheme.CollectReport, error) {
	const op = "collect"
	r = r.Place()
	if err := begin(ctx, op, r, ""); err != nil {
		return scheme.CollectReport{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.find(r)
	if p == nil {
		return scheme.CollectReport{}, fail(op, r, "", errs.ErrNameUnknown)
	}
	c := &collection{m: m, r: r, repo: p, o: scheme.NewCollectOptions(opts...), needed: map[digest.Digest]bool{}}
	if err := c.mark(); err != nil {
		return scheme.CollectReport{}, fail(op, r, "", err)
	}
	c.sweep()
	return c.report, nil
}

// collection is one Collect, which holds mu for writing throughout.
type collection struct {
	m *Mem
	r ref.Ref
	*repo
	o      scheme.CollectOptions
	needed map[digest.Digest]bool
	report scheme.CollectReport
}

// mark finds what is needed: what is tagged, what else has an entry that stays, and what manifests that somebody
// leased need, since who found one relies on all of it.
func (c *collection) mark() error {
	tagged := map[digest.Digest]bool{}
	for _, d := range c.tags {
		tagged[d] = true
	}
	for d, mf := range c.manifests {
		stays := !mf.child && (!c.o.Untagged || tagged[d] || c.young(mf.created))
		if stays || c.m.leases.of(c.r, d) {
			if err := c.reach(d); err != nil {
				return err
			}
		}
	}
	for more := true; more; { // a referrer that is kept has referrers of its own
		more = false
		for d, mf := range c.manifests {
			if !mf.child && !c.needed[d] && mf.subject != "" && (c.needed[mf.subject] || !c.there(mf.subject)) {
				more = true
				if err := c.reach(d); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// reach marks d and everything that it names.
func (c *collection) reach(d digest.Digest) error {
	if c.needed[d] || !c.there(d) {
		return nil
	}
	c.needed[d] = true
	mf, ok := c.manifests[d]
	if !ok {
		return nil
	}
	view, err := mf.View()
	if err != nil {
		return err
	}
	all := slices.Concat(view.Layers, view.Manifests)
	for _, one := range []*types.Descriptor{view.Config, view.Subject} {
		if one != nil {
			all = append(all, *one)
		}
	}
	for _, desc := range all {
		if err := c.reach(desc.Digest); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what is not needed, or only says so.
func (c *collection) sweep() {
	infos := c.infos()
	slices.SortFunc(infos, func(a, b blob.Info) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	for _, in := range infos {
		switch {
		case c.needed[in.Digest]:
			c.report.Kept++
		case c.m.leases.of(c.r, in.Digest):
			c.report.Leased++
		case c.young(in.Created):
			c.report.Young++
		default:
			c.remove(in)
		}
	}
}

func (c *collection) remove(in blob.Info) {
	garbage := scheme.Garbage{Digest: in.Digest, Size: in.Size}
	if mf, ok := c.manifests[in.Digest]; ok {
		if !mf.child {
			c.report.Untagged = append(c.report.Untagged, mf.Descriptor())
		}
		c.report.Freed += in.Size
		if !c.o.DryRun {
			c.m.unlist(c.repo, in.Digest)
		}
	}
	if _, ok := c.blobs[in.Digest]; ok {
		if garbage.Shared = c.m.blobs[in.Digest].repos > 1; !garbage.Shared {
			c.report.Freed += in.Size
		}
		if !c.o.DryRun {
			c.m.unlink(c.repo, in.Digest)
		}
	}
	c.report.Removed = append(c.report.Removed, garbage)
}

func (c *collection) young(t time.Time) bool { return time.Since(t) < c.o.Grace }

// there reports whether the repository has the blob or manifest d.
func (c *collection) there(d digest.Digest) bool {
	_, ok := c.info(d)
	return ok
}
