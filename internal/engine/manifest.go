package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/transfer"
)

// headManifest asks for a manifest's descriptor.
func (r *run) headManifest(ctx context.Context, at ref.Ref, slots *scheme.Slots) (types.Descriptor, error) {
	release, err := r.sched.acquire(ctx, 0, slots)
	if err != nil {
		return types.Descriptor{}, err
	}
	defer release()
	return r.api.ManifestHead(ctx, at)
}

// readManifest reads a manifest, which must be want as far as want says.
func (r *run) readManifest(ctx context.Context, at ref.Ref, want types.Descriptor, slots *scheme.Slots) (*manifest.Manifest, error) {
	release, err := r.sched.acquire(ctx, 0, slots)
	if err != nil {
		return nil, err
	}
	defer release()
	m, err := r.api.ManifestGet(ctx, at, scheme.WithExpected(types.Descriptor{MediaType: want.MediaType, Digest: want.Digest, Size: want.Size}))
	if err != nil {
		return nil, err
	}
	r.manifests.put(m)
	return m, nil
}

// lacks reports whether err is the target's way to say that it does not have what it was asked for. What it has in its
// place, but damaged, is as good as absent: a put replaces it.
func lacks(err error) bool {
	return errors.Is(err, errs.ErrNotFound) || errors.Is(err, errs.ErrDigestMismatch) || errors.Is(err, errs.ErrSizeMismatch)
}

// fetch returns the manifest d: what is in memory, or what the source has.
func (r *run) fetch(ctx context.Context, d types.Descriptor) (*manifest.Manifest, error) {
	if m := r.kept(d); m != nil {
		return m, nil
	}
	return r.readManifest(ctx, r.src.WithDigest(d.Digest), d, r.srcSlots)
}

// kept returns the manifest d if it is in memory.
func (r *run) kept(d types.Descriptor) *manifest.Manifest {
	if m := r.rewritten.get(d.Digest); m != nil {
		return m
	}
	return r.manifests.get(d.Digest)
}

// remote reports whether questions to r's place cost requests.
func remote(r ref.Ref) bool { return r.Scheme == ref.SchemeReg }

// put puts n's manifest, everything it needs being there. If the target finds that something is missing after all,
// which can happen to those who were told to trust, everything is looked for once more and the manifest put again.
func (r *run) put(ctx context.Context, n node) error {
	_, sparse, err := r.wanted(ctx, n)
	if err != nil {
		return err
	}
	if r.retag() { // what the place has of an index, it has under any tag
		sparse = n.m.IsIndex()
	}
	it := n.item()
	r.rec.content(it, transfer.Planned, 0, nil)
	n.im.changed.Store(true)
	if r.dry {
		return nil
	}
	r.rec.content(it, transfer.Started, 0, nil)
	err = r.putManifest(ctx, n, sparse)
	if errors.Is(err, errs.ErrManifestBlobUnknown) && n.mode != heal {
		err = r.heal(ctx, n, sparse, err)
	}
	if err != nil {
		r.rec.content(it, transfer.Failed, 0, err)
		return err
	}
	r.rec.content(it, transfer.Bytes, n.m.Descriptor().Size, nil)
	r.rec.content(it, transfer.Moved, 0, nil)
	return nil
}

// heal walks below n without trust, after the target answered why, and puts its manifest again.
func (r *run) heal(ctx context.Context, n node, sparse bool, why error) error {
	if sparse && r.refusesSparse(ctx, n, why) {
		return &errs.Error{
			Op: "copy", Ref: r.dst.String(), Digest: n.desc.Digest, Err: why,
			Message: "the target takes no index unless all its images are there",
			Hint:    "use --rewrite-index to put an index that lists the wanted platforms only",
		}
	}
	n.mode = heal
	if _, err := r.children(ctx, n); err != nil {
		return join(ctx, []error{why, err})
	}
	r.rec.content(n.item(), transfer.Retried, 0, why)
	return r.putManifest(ctx, n, sparse)
}

// refusesSparse reports whether why complains of images that were left out on purpose.
func (r *run) refusesSparse(ctx context.Context, n node, why error) bool {
	var e *errs.Error
	if !errors.As(why, &e) || len(e.Missing) == 0 {
		return true // it does not say what it misses, and what was wanted is there
	}
	kept, _, err := r.wanted(ctx, n)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(e.Missing, func(d digest.Digest) bool {
		return !slices.ContainsFunc(kept, func(k types.Descriptor) bool { return k.Digest == d })
	})
}

// putManifest is one put, under n's tag or by digest.
func (r *run) putManifest(ctx context.Context, n node, sparse bool) error {
	at := r.dst.WithDigest(n.m.Digest())
	if n.tag != "" {
		at = r.dst.WithTag(n.tag)
	}
	var opts []scheme.ManifestPutOption
	if n.child && n.tag == "" {
		opts = append(opts, scheme.WithChild())
	}
	if sparse {
		opts = append(opts, scheme.WithSparse())
	}
	release, err := r.sched.acquire(ctx, 0, r.dstSlots)
	if err != nil {
		return err
	}
	defer release()
	_, err = r.api.ManifestPut(ctx, at, n.m, opts...)
	return err
}
