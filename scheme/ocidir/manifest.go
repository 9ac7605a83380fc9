package ocidir

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// resolve returns digest and media type of the manifest that r names. The type is empty when no one wrote it down.
func (l *layout) resolve(ctx context.Context, r ref.Ref) (digest.Digest, string, error) {
	ix, err := l.index(ctx)
	if err != nil {
		return "", "", err
	}
	return l.resolveIn(ctx, ix, r)
}

// resolveIn is resolve for who has the index.
func (l *layout) resolveIn(ctx context.Context, ix *index, r ref.Ref) (digest.Digest, string, error) {
	if r.Digest != "" {
		mt, err := l.find(ctx, ix, r.Digest)
		return r.Digest, mt, err
	}
	if e := ix.lookup(r.OrLatest().Tag); e != nil {
		return e.digest, e.mediaType, nil
	}
	return "", "", errs.ErrManifestUnknown
}

// lookUp is resolveIn for who wants to rely on what is found: it was leased before.
func (l *layout) lookUp(ctx context.Context, ix *index, r ref.Ref) (digest.Digest, string, error) {
	for {
		d, mt, err := l.resolveIn(ctx, ix, r)
		if err != nil {
			return "", "", err
		}
		fresh, err := l.leases.look(d)
		if err != nil || !fresh {
			return d, mt, err
		}
		if ix, err = l.index(ctx); err != nil {
			return "", "", err
		}
	}
}

// ManifestGet implements scheme.API. What it finds is leased when this API has written to the repository.
func (o *OCIDir) ManifestGet(ctx context.Context, r ref.Ref, opts ...scheme.ManifestGetOption) (*manifest.Manifest, error) {
	const op = "manifest get"
	want := scheme.Collect(opts).Expect
	l, ix, err := o.beginIndex(ctx, op, r)
	if err != nil {
		return nil, err
	}
	defer o.release(l)
	find := l.resolveIn
	if l.leases.started() {
		find = l.lookUp
	}
	d, mt, err := find(ctx, ix, r)
	if err != nil {
		return nil, failRead(op, r, "", err)
	}
	if want.Digest != "" && want.Digest != d {
		return nil, fail(op, r, want.Digest, fmt.Errorf("%w: it is %s", errs.ErrDigestMismatch, d))
	}
	if mt == "" {
		mt = want.MediaType
	}
	m, err := l.readManifest(ctx, d, mt)
	if errors.Is(err, errs.ErrCorrupt) { // a directory has its name: what a copy may replace
		err = fmt.Errorf("%w: %w", errs.ErrDigestMismatch, err)
	}
	if err != nil {
		return nil, failRead(op, r, d, err)
	}
	if have := m.Descriptor().Size; want.Size > 0 && want.Size != have {
		return nil, fail(op, r, d, fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, have, want.Size))
	}
	return m, nil
}

// ManifestHead implements scheme.API. The file is verified once; a damaged one is errs.ErrNotFound as well as
// errs.ErrDigestMismatch, and a directory or pipe in its place as well as errs.ErrCorrupt, so that whoever wants the
// manifest here puts it again, which heals it.
func (o *OCIDir) ManifestHead(ctx context.Context, r ref.Ref, _ ...scheme.ManifestHeadOption) (types.Descriptor, error) {
	const op = "manifest head"
	l, ix, err := o.beginIndex(ctx, op, r)
	if err != nil {
		return types.Descriptor{}, err
	}
	defer o.release(l)
	d, mt, err := l.lookUp(ctx, ix, r)
	if err != nil {
		return types.Descriptor{}, failRead(op, r, "", err)
	}
	desc, err := l.headManifest(ctx, d, mt)
	if errors.Is(err, errs.ErrDigestMismatch) || errors.Is(err, errs.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", errs.ErrManifestUnknown, err)
	}
	if err != nil {
		return types.Descriptor{}, failRead(op, r, d, err)
	}
	return desc, nil
}

func (l *layout) headManifest(ctx context.Context, d digest.Digest, mt string) (types.Descriptor, error) {
	if m := l.recall(d, mt); m != nil {
		return m.Descriptor(), ctx.Err()
	}
	name, err := blobPath(d)
	if err != nil {
		return types.Descriptor{}, err
	}
	id, err := l.vol.stat(name)
	if absent(err) {
		return types.Descriptor{}, errs.ErrManifestUnknown
	}
	if err != nil {
		return types.Descriptor{}, err
	}
	if mt != "" && l.mem.isVerified(id, d) {
		return types.Descriptor{MediaType: mt, Digest: d, Size: id.size}, nil
	}
	m, err := l.readManifest(ctx, d, mt)
	if err != nil {
		return types.Descriptor{}, err
	}
	return m.Descriptor(), nil
}

// ManifestDelete implements scheme.API. It removes the manifest's entries, its tags with them, and its file. The
// manifests of an index that is deleted get entries of their own: they were put, and not deleted. A manifest whose entry
// another tool dropped can be deleted, too; it is not missed then.
func (o *OCIDir) ManifestDelete(ctx context.Context, r ref.Ref, _ ...scheme.ManifestDeleteOption) error {
	const op = "manifest delete"
	if r.Digest == "" {
		return fail(op, r, "", fmt.Errorf("%w: a manifest is deleted by its digest", errs.ErrInvalid))
	}
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return err
	}
	defer end()
	d, mt, err := l.resolve(ctx, r)
	missed := errors.Is(err, errs.ErrManifestUnknown) && l.isVanished(ctx, r.Digest)
	if err != nil && !missed {
		return failRead(op, r, "", err)
	}
	if err := l.prepare(ctx); err != nil {
		return failWrite(op, r, "", err)
	}
	var kids []child
	m, err := l.readManifest(ctx, d, mt)
	switch {
	case err == nil:
		kids = l.graph.add(m).kids
	case ctx.Err() != nil:
		return fail(op, r, "", err)
	}
	name, err := blobPath(d)
	if err != nil {
		return fail(op, r, "", err)
	}
	err = l.commits.do(ctx, &change{
		frees: true,
		apply: func(_ context.Context, dr *draft) ([]namedFile, error) {
			_, serr := l.vol.stat(name)
			if _, listed := dr.now().digests.get(d); !listed && !missed && absent(serr) {
				return nil, errs.ErrManifestUnknown
			}
			kept, err := l.there(kids)
			if err != nil {
				return nil, err
			}
			dr.removeDigest(d)
			return nil, dr.keep(kept)
		},
		after: func() error {
			l.graph.dropOrphan(d)
			if err := l.forgetChild(context.Background(), d); err != nil {
				return err
			}
			if err := l.vol.remove(name); err != nil {
				return err
			}
			if err := l.dropLabels(context.Background(), d); err != nil || !l.o.durability.puts() {
				return err
			}
			return l.vol.syncDir(path.Dir(name))
		},
	})
	if err != nil {
		return failWrite(op, r, "", err)
	}
	return nil
}

// there describes those of kids whose files are there. A digest that no file can have, or something else under the name,
// is none, and must not keep an index from being deleted.
func (l *layout) there(kids []child) ([]types.Descriptor, error) {
	var all []types.Descriptor
	for _, k := range kids {
		name, err := blobPath(k.digest)
		if err != nil {
			continue
		}
		id, err := l.vol.stat(name)
		if absent(err) || errors.Is(err, errs.ErrCorrupt) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, types.Descriptor{MediaType: k.mediaType, Digest: k.digest, Size: id.size})
	}
	return all, nil
}

// keep gives entries to those of all that have none.
func (d *draft) keep(all []types.Descriptor) error {
	for _, desc := range all {
		if _, listed := d.now().digests.get(desc.Digest); listed {
			continue
		}
		if err := d.addUntagged(desc); err != nil {
			return err
		}
	}
	return nil
}
