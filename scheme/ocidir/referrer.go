package ocidir

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// ReferrerList implements scheme.API. The list is ordered by digest. It has every manifest of the layout whose subject
// is the one asked for, wherever it is listed: with or without a tag, in an index, or under the tag that regclient
// keeps referrers under.
func (o *OCIDir) ReferrerList(ctx context.Context, r ref.Ref, opts ...scheme.ReferrerListOption) (referrer.List, error) {
	const op = "referrer list"
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return referrer.List{}, err
	}
	defer end()
	list, err := l.refer(ctx, r)
	if err != nil {
		return referrer.List{}, failRead(op, r, "", err)
	}
	list.Descriptors = scheme.Collect(opts).Filter.Apply(list.Descriptors)
	return list, nil
}

func (l *layout) refer(ctx context.Context, r ref.Ref) (referrer.List, error) {
	ix, err := l.index(ctx)
	if err != nil {
		return referrer.List{}, err
	}
	subject := types.Descriptor{Digest: r.Digest}
	if r.Digest == "" {
		e := ix.lookup(r.OrLatest().Tag)
		if e == nil {
			return referrer.List{}, errs.ErrManifestUnknown
		}
		subject = types.Descriptor{MediaType: e.mediaType, Digest: e.digest, Size: e.size}
	}
	if err := l.explore(ctx, ix, true); err != nil {
		return referrer.List{}, err
	}
	found := map[digest.Digest]string{}
	for _, d := range l.graph.referring(subject.Digest) {
		if h, ok := ix.digests[d]; ok {
			found[d] = h.e.mediaType
		} else if mt, ok := l.graph.reached(ix, d); ok {
			found[d] = mt
		}
	}
	if err := l.fallback(ctx, ix, subject.Digest, found); err != nil {
		return referrer.List{}, err
	}
	list := referrer.List{Subject: subject}
	for d, mt := range found {
		desc, ok, err := l.describe(ctx, d, mt, subject.Digest)
		if err != nil {
			return referrer.List{}, err
		}
		if ok {
			list.Descriptors = append(list.Descriptors, desc)
		}
	}
	slices.SortFunc(list.Descriptors, func(a, b types.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return list, nil
}

// fallback adds what the tag for places without a referrers API lists. It is another tool's word, and describe checks
// it; a tag that holds no list of referrers says nothing.
func (l *layout) fallback(ctx context.Context, ix *index, subject digest.Digest, found map[digest.Digest]string) error {
	e := ix.lookup(referrer.FallbackTag(subject))
	if e == nil {
		return nil
	}
	m, err := l.readManifest(ctx, e.digest, e.mediaType)
	if errors.Is(err, errs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := referrer.ParseIndex(m.Raw(), subject)
	if err != nil {
		return nil
	}
	for _, d := range all {
		if _, there := found[d.Digest]; !there {
			found[d.Digest] = d.MediaType
		}
	}
	return nil
}

// describe reads what a referrer is. ok is false when it is gone, or refers to something else.
func (l *layout) describe(ctx context.Context, d digest.Digest, mediaType string, subject digest.Digest) (types.Descriptor, bool, error) {
	m, err := l.readManifest(ctx, d, mediaType)
	if errors.Is(err, errs.ErrNotFound) {
		return types.Descriptor{}, false, nil
	}
	if err != nil {
		return types.Descriptor{}, false, err
	}
	desc, of, ok, err := referrer.Describe(m)
	if err != nil || !ok || of.Digest != subject { // a manifest that does not parse refers to nothing
		return types.Descriptor{}, false, nil
	}
	return desc, true, nil
}
