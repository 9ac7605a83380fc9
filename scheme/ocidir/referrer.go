package ocidir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
// keeps referrers under. While index.json has an entry that may be a referrer and cannot be read, there is no list: it is
// errs.ErrCorrupt or errs.ErrDigestMismatch. What an index lists may be absent, as a sparse copy leaves it out.
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

// refer looks again when the index has changed meanwhile: what was deleted is not lost.
func (l *layout) refer(ctx context.Context, r ref.Ref) (referrer.List, error) {
	ix, err := l.index(ctx)
	for err == nil {
		list, rerr := l.referIn(ctx, ix, r)
		if !errors.Is(rerr, errs.ErrCorrupt) && !errors.Is(rerr, errs.ErrDigestMismatch) {
			return list, rerr
		}
		before := ix
		if ix, err = l.index(ctx); ix == before {
			return list, rerr
		}
	}
	return referrer.List{}, err
}

func (l *layout) referIn(ctx context.Context, ix *index, r ref.Ref) (referrer.List, error) {
	subject := types.Descriptor{Digest: r.Digest}
	if r.Digest == "" {
		e := ix.lookup(r.OrLatest().Tag)
		if e == nil {
			return referrer.List{}, errs.ErrManifestUnknown
		}
		subject = types.Descriptor{MediaType: e.mediaType, Digest: e.digest, Size: e.size}
	}
	unread, err := l.explore(ctx, ix, true)
	if err != nil {
		return referrer.List{}, err
	}
	for _, e := range ix.entries {
		if why := unread[e.digest]; why != nil && e.mayRefer() {
			return referrer.List{}, l.lost(e.digest, why)
		}
	}
	found := map[digest.Digest]string{}
	for _, d := range l.graph.referring(subject.Digest) {
		if h, ok := ix.digests.get(d); ok {
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
		if errors.Is(err, errs.ErrNotFound) {
			if _, listed := ix.digests.get(d); !listed {
				continue // an index lists it, or another tool's list does
			}
		}
		if err != nil {
			return referrer.List{}, l.lost(d, err)
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
	if err != nil {
		return l.lost(e.digest, err)
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

// mayRefer reports whether e is of the kind that referrers are listed as: by digest, or as an artifact. Images of other
// tags may be damaged without a word here.
func (e *entry) mayRefer() bool {
	tag, _ := e.tag()
	return tag == "" || e.artifactType != ""
}

// lost is the error for an entry of index.json whose manifest could not be read. It is not ErrNotFound, which would
// say that there are no referrers.
func (l *layout) lost(d digest.Digest, why error) error {
	switch {
	case errors.Is(why, errs.ErrDigestMismatch) || !unreadable(why):
		return why
	case errors.Is(why, errs.ErrNotFound):
		why = fmt.Errorf("%w: index.json lists this file, and it is not there", errs.ErrCorrupt)
	case !errors.Is(why, errs.ErrCorrupt):
		why = fmt.Errorf("%w: %w", errs.ErrCorrupt, why)
	}
	name, err := blobPath(d)
	if err != nil {
		return err
	}
	return &errs.Error{Op: "verify", Ref: l.file(name), Err: why, Hint: healHint}
}

// unreadable reports whether err says that a file is not there or is not what it should be. Any other error may pass.
func unreadable(err error) bool {
	return errors.Is(err, errs.ErrNotFound) || errors.Is(err, errs.ErrDigestMismatch) || errors.Is(err, errs.ErrSizeInvalid) || errors.Is(err, errs.ErrCorrupt)
}

// describe reads what a referrer is. ok is false when it refers to something else.
func (l *layout) describe(ctx context.Context, d digest.Digest, mediaType string, subject digest.Digest) (types.Descriptor, bool, error) {
	m, err := l.readManifest(ctx, d, mediaType)
	if err != nil {
		return types.Descriptor{}, false, err
	}
	desc, of, ok, err := referrer.Describe(m)
	if err != nil || !ok || of.Digest != subject { // a manifest that does not parse refers to nothing
		return types.Descriptor{}, false, nil
	}
	return desc, true, nil
}
