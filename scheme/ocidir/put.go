package ocidir

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// put is one ManifestPut.
type put struct {
	l    *layout
	m    *manifest.Manifest
	view *manifest.View
	tags []string
	need []types.Descriptor  // what must be there
	may  []types.Descriptor  // what else it lists
	tag  string              // that of the reference
	at   scheme.Precondition // on tag
}

// ManifestPut implements scheme.API. A manifest without a tag gets an untagged entry in index.json, unless it is put
// WithChild. What a tag pointed to before stays listed, untagged.
func (o *OCIDir) ManifestPut(ctx context.Context, r ref.Ref, m *manifest.Manifest, opts ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	const op = "manifest put"
	opt := scheme.Collect(opts)
	p, err := newPut(r, m, opt)
	if err != nil {
		return manifest.PutResult{}, fail(op, r, m.Digest(), err)
	}
	if err := o.complete(ctx, op, r, p); err != nil {
		return manifest.PutResult{}, err
	}
	l, end, err := o.beginWrite(ctx, op, r)
	if err != nil {
		return manifest.PutResult{}, err
	}
	defer end()
	p.l = l
	if opt.Child {
		err = p.child(ctx)
	} else {
		err = p.commit(ctx)
	}
	if err != nil {
		return manifest.PutResult{}, failWrite(op, r, m.Digest(), err)
	}
	return manifest.PutResult{Descriptor: m.Descriptor(), Tags: p.tags, SubjectDone: p.view.Subject != nil}, nil
}

// newPut checks what can be checked without the layout.
func newPut(r ref.Ref, m *manifest.Manifest, opt scheme.ManifestPutOptions) (*put, error) {
	d := m.Descriptor()
	if opt.Child && (r.Tag != "" || len(opt.Tags) > 0) {
		return nil, fmt.Errorf("%w: a child manifest cannot have a tag", errs.ErrInvalid)
	}
	if !opt.Child {
		r = r.OrLatest()
	}
	switch {
	case d.Size > types.MaxManifestSize:
		return nil, fmt.Errorf("%w: a manifest of %d bytes, more than %d", errs.ErrSizeInvalid, d.Size, types.MaxManifestSize)
	case d.MediaType == "":
		return nil, fmt.Errorf("%w: it has no media type", errs.ErrManifestInvalid)
	case r.Digest != "" && r.Digest != d.Digest:
		return nil, fmt.Errorf("%w: it is %s", errs.ErrDigestMismatch, d.Digest)
	}
	p := &put{m: m, tag: r.Tag, at: opt.Precondition}
	if err := p.at.Valid(r); err != nil {
		return nil, err
	}
	for i, t := range append([]string{r.Tag}, opt.Tags...) {
		if i == 0 && t == "" || slices.Contains(p.tags, t) {
			continue
		}
		if err := ref.ValidTag(t); err != nil {
			return nil, err
		}
		p.tags = append(p.tags, t)
	}
	var err error
	if p.view, err = m.View(); err != nil {
		return nil, err
	}
	for _, c := range p.view.Children() {
		if !types.IsForeignLayer(c.MediaType) && !(opt.Sparse && m.IsIndex()) && !opt.SparseImages {
			p.need = append(p.need, c)
		} else {
			p.may = append(p.may, c)
		}
	}
	return p, nil
}

// complete reports what is missing, and a tag that is not where it must be, before anything is written: what is refused
// makes no layout.
func (o *OCIDir) complete(ctx context.Context, op string, r ref.Ref, p *put) error {
	if len(p.need) == 0 && len(p.may) == 0 && !p.at.Set {
		return nil
	}
	l, end, err := o.begin(ctx, op, r)
	switch {
	case errors.Is(err, errs.ErrNotFound) && len(p.need) == 0:
		err = p.at.Check("")
	case errors.Is(err, errs.ErrNotFound):
		var all []digest.Digest
		for _, d := range p.need {
			if !slices.Contains(all, d.Digest) {
				all = append(all, d.Digest)
			}
		}
		err = errMissing(all)
	case err == nil:
		defer end()
		err = p.fits(ctx, l)
	default:
		return err
	}
	if err != nil {
		return failRead(op, r, p.m.Digest(), err)
	}
	return nil
}

// fits is what complete asks of a layout that is there.
func (p *put) fits(ctx context.Context, l *layout) error {
	if p.at.Set {
		ix, err := l.index(ctx)
		if err != nil {
			return err
		}
		if err := ix.at(p.tag, p.at); err != nil {
			return err
		}
	}
	if _, err := l.present(ctx, p.need); err != nil {
		return err
	}
	for _, d := range p.may {
		_, err := l.present(ctx, []types.Descriptor{d})
		if err != nil && !errors.Is(err, errs.ErrManifestBlobUnknown) {
			return err
		}
	}
	return nil
}

func errMissing(all []digest.Digest) error {
	return &errs.Error{Missing: all, Err: errs.ErrManifestBlobUnknown}
}

// present returns the files of need. Its error names every digest that is missing, or is a *manifest.SizeError. A file that
// is not what its name says, as after a power loss, counts as missing, so that it is put again.
func (l *layout) present(ctx context.Context, need []types.Descriptor) ([]namedFile, error) {
	var files []namedFile
	var lost []digest.Digest
	for _, d := range need {
		name, err := blobPath(d.Digest)
		if err != nil {
			return nil, err
		}
		id, err := l.statBlob(d.Digest, name)
		there := err == nil
		if err != nil && !absent(err) && !errors.Is(err, errs.ErrCorrupt) {
			return nil, err
		}
		if there && (l.mem.isSuspect(id) || types.SizeKnown(d) && d.Size != id.size || id.size == 0 || l.isBad(id, d.Digest)) {
			var file namedFile
			if file, there, err = l.have(ctx, types.Descriptor{Digest: d.Digest}); err != nil {
				return nil, err
			}
			if id = file.id; there {
				if err := manifest.CheckSize(d, id.size); err != nil {
					return nil, err
				}
			}
		}
		switch {
		case there:
			files = append(files, namedFile{name, id})
		case !slices.Contains(lost, d.Digest):
			lost = append(lost, d.Digest)
		}
	}
	if len(lost) > 0 {
		return nil, errMissing(lost)
	}
	return files, nil
}

// child stores a manifest that an index will list. This process knows it from now on, others once the index is there.
func (p *put) child(ctx context.Context) error {
	if err := p.l.settle(ctx); err != nil {
		return err
	}
	for _, d := range p.need { // a collector may be at work that does not know this manifest: nobody looks again under the lock
		if _, err := p.l.leases.take(d.Digest); err != nil {
			return err
		}
	}
	if _, err := p.l.present(ctx, p.need); err != nil {
		return err
	}
	if _, err := p.l.putBytes(ctx, p.m.Descriptor(), p.m.Raw()); err != nil {
		return err
	}
	if err := p.l.noteChildren(p.m.Digest(), p.view); err != nil {
		return err
	}
	p.l.graph.addOrphan(p.m.Descriptor())
	p.l.graph.add(p.m)
	return nil
}

// commit stores a manifest and enters it into the index, after everything that it reaches became durable.
func (p *put) commit(ctx context.Context) error {
	l := p.l
	if err := l.settle(ctx); err != nil {
		return err
	}
	file, err := l.putBytes(ctx, p.m.Descriptor(), p.m.Raw())
	if err != nil {
		return err
	}
	if l.o.durability.commits() {
		reached, err := l.closure(ctx, p.view)
		if err != nil {
			return err
		}
		if err := l.durable(ctx, p.early(append(reached, file))...); err != nil {
			return err
		}
	}
	if err := l.noteChildren(p.m.Digest(), p.view); err != nil {
		return err
	}
	err = l.commits.do(ctx, &change{apply: p.apply})
	if err != nil {
		return err
	}
	l.graph.add(p.m)
	l.graph.adopt(p.view)
	return nil
}

// early returns what of all is made durable before the lock is there: what is not looked at again under it, and everything
// if it is much, as others would wait. The rest becomes durable with the index, and with what the others of its group put.
func (p *put) early(all []namedFile) []namedFile {
	late := map[string]bool{}
	for _, d := range append(p.need, p.m.Descriptor()) {
		if name, err := blobPath(d.Digest); err == nil {
			late[name] = true
		}
	}
	var early []namedFile
	size := int64(0)
	for _, f := range all {
		if p.l.mem.isDurable(f.id) {
			continue
		}
		if size += f.id.size; !late[f.name] {
			early = append(early, f)
		}
	}
	if size >= largeFile {
		return all
	}
	return early
}

// apply is what happens under the lock: whatever was deleted since it was looked for is noticed here.
func (p *put) apply(ctx context.Context, d *draft) ([]namedFile, error) {
	if err := d.now().at(p.tag, p.at); err != nil {
		return nil, err
	}
	files, err := p.l.present(ctx, p.need)
	if err != nil {
		return nil, err
	}
	file, err := p.l.putBytes(ctx, p.m.Descriptor(), p.m.Raw())
	if err != nil {
		return nil, err
	}
	desc := p.m.Descriptor()
	desc.ArtifactType = p.artifactType()
	for _, t := range p.tags {
		if err := d.setTag(t, desc); err != nil {
			return nil, err
		}
	}
	if len(p.tags) == 0 {
		if err := d.addUntagged(desc); err != nil {
			return nil, err
		}
	}
	return append(files, file), nil
}

// artifactType is what the entry says of it: that of an artifact, and not the config type that every image has.
func (p *put) artifactType() string {
	if p.view.Subject == nil && p.view.Config != nil && p.view.ArtifactType == p.view.Config.MediaType {
		return ""
	}
	return p.view.ArtifactType
}

// closure returns the files of everything that a manifest reaches, those of its manifests' blobs included. What is
// absent on purpose is left out.
func (l *layout) closure(ctx context.Context, v *manifest.View) ([]namedFile, error) {
	var files []namedFile
	seen := map[digest.Digest]bool{}
	var visit func(v *manifest.View) error
	visit = func(v *manifest.View) error {
		for _, d := range v.Children() {
			if seen[d.Digest] {
				continue
			}
			seen[d.Digest] = true
			name, err := blobPath(d.Digest)
			if err != nil {
				return err
			}
			id, err := l.statBlob(d.Digest, name)
			if absent(err) {
				continue
			}
			if err != nil {
				return err
			}
			files = append(files, namedFile{name, id})
			if !types.IsIndex(d.MediaType) && !types.IsImage(d.MediaType) {
				continue
			}
			m, err := l.readManifest(ctx, d.Digest, d.MediaType)
			if err != nil {
				return err
			}
			if sub, err := m.View(); err == nil {
				if err := visit(sub); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return files, visit(v)
}
