package mem

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// ManifestGet implements scheme.API.
func (m *Mem) ManifestGet(ctx context.Context, r ref.Ref, opts ...scheme.ManifestGetOption) (*manifest.Manifest, error) {
	const op = "manifest get"
	mf, err := m.manifest(ctx, op, r)
	if err != nil {
		return nil, err
	}
	have, want := mf.Descriptor(), scheme.Collect(opts).Expect
	if want.Digest != "" && want.Digest != have.Digest {
		return nil, fail(op, r, want.Digest, fmt.Errorf("%w: it is %s", errs.ErrDigestMismatch, have.Digest))
	}
	if want.Size > 0 && want.Size != have.Size {
		return nil, fail(op, r, have.Digest, fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, have.Size, want.Size))
	}
	return mf, nil
}

// ManifestHead implements scheme.API.
func (m *Mem) ManifestHead(ctx context.Context, r ref.Ref, _ ...scheme.ManifestHeadOption) (types.Descriptor, error) {
	mf, err := m.manifest(ctx, "manifest head", r)
	if err != nil {
		return types.Descriptor{}, err
	}
	return mf.Descriptor(), nil
}

// ManifestPut implements scheme.API. WithChild changes nothing but that a reference without tag and digest is no
// tag, and that Collect takes it for garbage while no index lists it: memory lists every manifest by its digest.
func (m *Mem) ManifestPut(ctx context.Context, r ref.Ref, mf *manifest.Manifest, opts ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	const op = "manifest put"
	o := scheme.Collect(opts)
	if !o.Child {
		r = r.OrLatest()
	}
	if err := begin(ctx, op, r, ""); err != nil {
		return manifest.PutResult{}, err
	}
	tags, err := tagsOf(r, o.Tags)
	if err == nil {
		err = acceptable(r, mf)
	}
	if err == nil {
		err = o.Precondition.Valid(r)
	}
	if err != nil {
		return manifest.PutResult{}, fail(op, r, mf.Digest(), err)
	}
	view, err := mf.View()
	if err != nil {
		return manifest.PutResult{}, fail(op, r, mf.Digest(), err)
	}
	self, subject, refers, err := referrer.Describe(mf)
	if err != nil {
		return manifest.PutResult{}, fail(op, r, mf.Digest(), err)
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.at(r, o.Precondition); err != nil {
		return manifest.PutResult{}, fail(op, r, mf.Digest(), err)
	}
	missing, err := m.missing(m.find(r), view, o)
	if err != nil {
		return manifest.PutResult{}, fail(op, r, mf.Digest(), err)
	}
	if len(missing) > 0 {
		return manifest.PutResult{}, &errs.Error{Op: op, Ref: r.String(), Digest: mf.Digest(), Missing: missing, Err: errs.ErrManifestBlobUnknown}
	}
	if err := m.addManifest(r, stored{Manifest: mf, subject: subject.Digest, child: o.Child}); err != nil {
		return manifest.PutResult{}, fail(op, r, mf.Digest(), err)
	}
	p := m.make(r)
	for _, t := range tags {
		p.tags[t] = mf.Digest()
	}
	if refers {
		if p.referrers[subject.Digest] == nil {
			p.referrers[subject.Digest] = map[digest.Digest]types.Descriptor{}
		}
		p.referrers[subject.Digest][mf.Digest()] = self
	}
	return manifest.PutResult{Descriptor: mf.Descriptor(), Tags: tags, SubjectDone: refers}, nil
}

// ManifestDelete implements scheme.API. Referrers of the manifest stay: they may be wanted when it is put again.
func (m *Mem) ManifestDelete(ctx context.Context, r ref.Ref, _ ...scheme.ManifestDeleteOption) error {
	const op = "manifest delete"
	if err := begin(ctx, op, r, ""); err != nil {
		return err
	}
	if r.Digest == "" {
		return fail(op, r, "", fmt.Errorf("%w: a manifest is deleted by its digest", errs.ErrInvalid))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.find(r)
	if p == nil {
		return fail(op, r, "", errs.ErrNameUnknown)
	}
	if _, ok := p.manifests[r.Digest]; !ok {
		return fail(op, r, "", errs.ErrManifestUnknown)
	}
	m.unlist(p, r.Digest)
	m.forgetLeases(r, r.Digest)
	return nil
}

// unlist takes the manifest gone, which is there, and its tags from p. The caller holds mu for writing.
func (m *Mem) unlist(p *repo, gone digest.Digest) {
	mf := p.manifests[gone]
	delete(p.manifests, gone)
	m.used -= mf.Descriptor().Size
	for t, d := range p.tags {
		if d == gone {
			delete(p.tags, t)
		}
	}
	if delete(p.referrers[mf.subject], gone); len(p.referrers[mf.subject]) == 0 {
		delete(p.referrers, mf.subject)
	}
}

// manifest finds what r names.
func (m *Mem) manifest(ctx context.Context, op string, r ref.Ref) (*manifest.Manifest, error) {
	if err := begin(ctx, op, r, ""); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.find(r)
	if p == nil {
		return nil, fail(op, r, "", errs.ErrNameUnknown)
	}
	d, ok := p.resolve(r)
	if mf, there := p.manifests[d]; ok && there {
		m.lease(r, d)
		return mf.Manifest, nil
	}
	return nil, fail(op, r, "", errs.ErrManifestUnknown)
}

// resolve returns the digest that r names. ok is false when it names a tag that is not there.
func (p *repo) resolve(r ref.Ref) (d digest.Digest, ok bool) {
	if r.Digest != "" {
		return r.Digest, true
	}
	d, ok = p.tags[r.OrLatest().Tag]
	return d, ok
}

// tagsOf returns r's tag and the further ones, each once.
func tagsOf(r ref.Ref, more []string) ([]string, error) {
	var tags []string
	for i, t := range append([]string{r.Tag}, more...) {
		if i == 0 && t == "" || slices.Contains(tags, t) {
			continue
		}
		if err := ref.ValidTag(t); err != nil {
			return nil, err
		}
		tags = append(tags, t)
	}
	return tags, nil
}

// acceptable reports what is wrong with mf, or with its being put as r, whatever else is stored.
func acceptable(r ref.Ref, mf *manifest.Manifest) error {
	d := mf.Descriptor()
	switch {
	case d.Size > types.MaxManifestSize:
		return fmt.Errorf("%w: a manifest of %d bytes, more than %d", errs.ErrSizeInvalid, d.Size, types.MaxManifestSize)
	case d.MediaType == "":
		return fmt.Errorf("%w: it has no media type", errs.ErrManifestInvalid)
	case r.Digest != "" && r.Digest != d.Digest:
		return fmt.Errorf("%w: it is %s", errs.ErrDigestMismatch, d.Digest)
	}
	return nil
}

// at checks where r's tag points. The caller holds mu.
func (m *Mem) at(r ref.Ref, want scheme.Precondition) error {
	if p := m.find(r); p != nil {
		return want.Check(p.tags[r.Tag])
	}
	return want.Check("")
}

// missing returns everything that view needs and p lacks, each digest once. Its error is that of a wrong size. p may be
// nil. The caller holds mu.
func (m *Mem) missing(p *repo, view *manifest.View, o scheme.ManifestPutOptions) (all []digest.Digest, err error) {
	if p == nil {
		p = &repo{}
	}
	need := func(d types.Descriptor, size int64, there, sparse bool) {
		switch {
		case there && err == nil:
			err = manifest.CheckSize(d, size)
		case !there && !sparse && !slices.Contains(all, d.Digest):
			all = append(all, d.Digest)
		}
	}
	if view.Config != nil {
		info, ok := p.blobs[view.Config.Digest]
		need(*view.Config, info.Size, ok, o.SparseImages)
	}
	for _, d := range view.Layers {
		info, ok := p.blobs[d.Digest]
		need(d, info.Size, ok, o.SparseImages || types.IsForeignLayer(d.MediaType))
	}
	for _, d := range view.Manifests {
		mf, ok := p.manifests[d.Digest]
		switch {
		case ok:
			need(d, mf.Descriptor().Size, true, o.Sparse)
		case types.IsManifest(d.MediaType):
			need(d, 0, false, o.Sparse)
		default: // an index may list any content; what it is decides where it is put
			info, ok := p.blobs[d.Digest]
			need(d, info.Size, ok, o.Sparse)
		}
	}
	return all, err
}

// addManifest adds mf to r's repository. The caller holds mu for writing.
func (m *Mem) addManifest(r ref.Ref, mf stored) error {
	size := mf.Descriptor().Size
	mf.created = time.Now()
	mf.updated = mf.created
	if p := m.find(r); p != nil {
		if old, twice := p.manifests[mf.Digest()]; twice {
			mf.created, mf.updated, mf.labels, size = old.created, old.updated, old.labels, 0
			mf.child = mf.child && old.child
		}
	}
	if m.limit > 0 && size > m.limit-m.used {
		return fmt.Errorf("%w: the limit is %d bytes", errs.ErrNoSpace, m.limit)
	}
	m.used += size
	m.make(r).manifests[mf.Digest()] = mf
	m.lease(r, mf.Digest())
	return nil
}
