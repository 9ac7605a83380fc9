package reg

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// fallbackWrites is how often an update of a fallback tag is repeated that another writer has overwritten.
const fallbackWrites = 4

// fallbackList reads the referrers that a subject's fallback tag lists (distribution-spec, "Referrers Tag Schema").
// Its error is ErrNotFound when there is no such tag.
func (h *host) fallbackList(ctx context.Context, op string, rf ref.Ref, subject digest.Digest) ([]types.Descriptor, error) {
	at := rf.WithTag(referrer.FallbackTag(subject))
	rq := manifestRequest(op, at, 0)
	m, err := h.manifest(ctx, op, at, types.Descriptor{})
	if err != nil {
		return nil, h.fail(ctx, rq, err)
	}
	list, err := referrer.ParseIndex(m.Raw(), subject)
	if err != nil {
		return nil, h.fail(ctx, rq, err)
	}
	return unique(list), nil
}

// list makes m known as a referrer of its subject on a registry that has not processed it.
func (r *Reg) list(ctx context.Context, h *host, rf ref.Ref, m *manifest.Manifest) error {
	d, subject, ok, err := referrer.Describe(m)
	if err != nil || !ok {
		return nil // the registry took a manifest that nothing here can read: then it refers to nothing
	}
	return r.updateFallback(ctx, h, rf, subject.Digest, func(list []types.Descriptor) []types.Descriptor {
		i := slices.IndexFunc(list, func(have types.Descriptor) bool { return have.Digest == d.Digest })
		if i < 0 {
			return append(list, d)
		}
		list[i] = d
		return list
	})
}

// unlist is the opposite of list, after m was deleted. Where there is a referrers API there is nothing to do.
func (r *Reg) unlist(ctx context.Context, h *host, rf ref.Ref, m *manifest.Manifest) error {
	d, subject, ok, err := referrer.Describe(m)
	if err != nil || !ok {
		return nil // what nobody can read was never listed
	}
	if h.features.referrers(rf.Repo) {
		_, err := h.referrersAPI(ctx, "manifest delete", rf, subject.Digest, "")
		if !is404(err) {
			return err
		}
	}
	return r.updateFallback(ctx, h, rf, subject.Digest, func(list []types.Descriptor) []types.Descriptor {
		return slices.DeleteFunc(list, func(have types.Descriptor) bool { return have.Digest == d.Digest })
	})
}

// updateFallback changes a subject's fallback tag. Updates of this process follow one another; as the specification
// has no conditional put, what another process overwrites is noticed by reading again, and repeated. The index that
// was replaced is never deleted: registries resolve tags in their own ways, and one of them takes this one for the
// subject. Anything at the tag that is no list of referrers stays untouched, and is an error.
func (r *Reg) updateFallback(ctx context.Context, h *host, rf ref.Ref, subject digest.Digest, change func([]types.Descriptor) []types.Descriptor) error {
	const op = "referrer update"
	at := rf.WithTag(referrer.FallbackTag(subject))
	fail := func(err error) error { return h.fail(ctx, request{op: op, ref: at, digest: subject}, err) }
	unlock, err := r.fallback.lock(ctx, at.String())
	if err != nil {
		return fail(err)
	}
	defer unlock()
	for attempt := 1; ; attempt++ {
		list, err := h.fallbackList(ctx, op, rf, subject)
		if err != nil && !is404(err) {
			return err
		}
		want := change(slices.Clone(list))
		if sameList(list, want) {
			return nil
		}
		if attempt > fallbackWrites {
			return fail(fmt.Errorf("%w: other writers keep replacing the list", errs.ErrUnavailable))
		}
		raw, err := referrer.Index(want)
		if err != nil {
			return fail(err)
		}
		m, err := manifest.New(raw)
		if err != nil {
			return fail(err)
		}
		if err := (&manifestPut{h: h, op: op, ref: at, m: m, digest: m.Digest()}).run(ctx, []string{at.Tag}); err != nil {
			return err
		}
	}
}

// sameList reports whether the list needs no change: whether both are written alike.
func sameList(a, b []types.Descriptor) bool {
	x, xerr := referrer.Index(a)
	y, yerr := referrer.Index(b)
	return xerr == nil && yerr == nil && bytes.Equal(x, y)
}
