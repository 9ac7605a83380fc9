package mem

import (
	"cmp"
	"context"
	"slices"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// ReferrerList implements scheme.API. The list is ordered by digest.
func (m *Mem) ReferrerList(ctx context.Context, r ref.Ref, opts ...scheme.ReferrerListOption) (referrer.List, error) {
	if err := begin(ctx, "referrer list", r, ""); err != nil {
		return referrer.List{}, err
	}
	l, err := m.refer(r)
	if err != nil {
		return referrer.List{}, err
	}
	slices.SortFunc(l.Descriptors, func(a, b types.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	l.Descriptors = scheme.Collect(opts).Filter.Apply(l.Descriptors)
	return l, nil
}

// refer returns what refers to r's manifest, in no order.
func (m *Mem) refer(r ref.Ref) (l referrer.List, err error) {
	const op = "referrer list"
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.find(r)
	if p == nil {
		return l, fail(op, r, "", errs.ErrNameUnknown)
	}
	d, ok := p.resolve(r)
	if !ok {
		return l, fail(op, r, "", errs.ErrManifestUnknown)
	}
	l.Subject = types.Descriptor{Digest: d}
	if mf, ok := p.manifests[d]; ok {
		l.Subject = mf.Descriptor()
	}
	for _, desc := range p.referrers[d] {
		l.Descriptors = append(l.Descriptors, desc)
	}
	return l, nil
}
