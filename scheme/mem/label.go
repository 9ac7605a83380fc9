package mem

import (
	"context"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// BlobStat implements scheme.BlobStater. Manifests are blobs, too.
func (m *Mem) BlobStat(ctx context.Context, r ref.Ref, d digest.Digest) (blob.Info, error) {
	const op = "blob stat"
	r = r.Place()
	if err := beginBlob(ctx, op, r, d); err != nil {
		return blob.Info{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.find(r)
	if p == nil {
		return blob.Info{}, fail(op, r, d, errs.ErrNameUnknown)
	}
	info, ok := p.info(d)
	if !ok {
		return blob.Info{}, fail(op, r, d, errs.ErrBlobUnknown)
	}
	m.lease(r, d)
	return info, nil
}

// BlobLabel implements scheme.Labeler.
func (m *Mem) BlobLabel(ctx context.Context, r ref.Ref, info blob.Info, fields ...string) (blob.Info, error) {
	const op = "blob label"
	r = r.Place()
	if err := beginBlob(ctx, op, r, info.Digest); err != nil {
		return blob.Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.find(r)
	if p == nil {
		return blob.Info{}, fail(op, r, info.Digest, errs.ErrNameUnknown)
	}
	have, ok := p.info(info.Digest)
	if !ok {
		return blob.Info{}, fail(op, r, info.Digest, errs.ErrBlobUnknown)
	}
	labels, err := scheme.Relabel(have.Labels, info.Labels, fields...)
	if err != nil {
		return blob.Info{}, fail(op, r, info.Digest, err)
	}
	p.label(info.Digest, labels, time.Now())
	now, _ := p.info(info.Digest)
	return now, nil
}

// info describes a blob or manifest. The caller holds mu.
func (p *repo) info(d digest.Digest) (blob.Info, bool) {
	info, ok := p.blobs[d]
	if mf, manifest := p.manifests[d]; manifest && !ok {
		info, ok = blob.Info{Digest: d, Size: mf.Descriptor().Size, Created: mf.created, Updated: mf.updated, Labels: mf.labels}, true
	}
	info.Labels = maps.Clone(info.Labels)
	return info, ok
}

// label gives the labels to the blob or manifest d, or both. The caller holds mu for writing.
func (p *repo) label(d digest.Digest, labels map[string]string, now time.Time) {
	if info, ok := p.blobs[d]; ok {
		info.Labels, info.Updated = labels, now
		p.blobs[d] = info
	}
	if mf, ok := p.manifests[d]; ok {
		mf.labels, mf.updated = labels, now
		p.manifests[d] = mf
	}
}
