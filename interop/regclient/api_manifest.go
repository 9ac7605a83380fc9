package regclient

import (
	"context"
	"errors"
	"fmt"
	"slices"

	rcscheme "github.com/regclient/regclient/scheme"
	rcmanifest "github.com/regclient/regclient/types/manifest"
	rcref "github.com/regclient/regclient/types/ref"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/tag"
)

// ManifestGet implements scheme.API.
func (a *API) ManifestGet(ctx context.Context, r ref.Ref, opts ...scheme.ManifestGetOption) (*manifest.Manifest, error) {
	const op = "manifest get"
	r = r.OrLatest()
	if err := begin(ctx, op, r, ""); err != nil {
		return nil, err
	}
	m, err := a.get(ctx, r)
	if err != nil {
		return nil, fromTheirs(ctx, op, r, "", err)
	}
	have, want := m.Descriptor(), scheme.Collect(opts).Expect
	if want.Digest != "" && want.Digest != have.Digest {
		err = fmt.Errorf("%w: it is %s", errs.ErrDigestMismatch, have.Digest)
	} else if want.Size > 0 && want.Size != have.Size {
		err = fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, have.Size, want.Size)
	}
	if err != nil {
		return nil, &errs.Error{Op: op, Ref: r.String(), Digest: have.Digest, Err: err}
	}
	return m, nil
}

// get reads what r names.
func (a *API) get(ctx context.Context, r ref.Ref) (*manifest.Manifest, error) {
	m, err := a.rc.ManifestGet(ctx, named(r))
	if err != nil {
		return nil, err
	}
	raw, err := m.RawBody()
	if err != nil {
		return nil, err
	}
	d := m.GetDescriptor()
	return manifest.New(raw, manifest.WithMediaType(d.MediaType), manifest.WithDigest(d.Digest))
}

// named is r as regclient should look it up: of tag and digest the digest counts.
func named(r ref.Ref) rcref.Ref {
	if r.Digest != "" {
		r.Tag = ""
	}
	return ToRef(r)
}

// ManifestHead implements scheme.API. Where regclient's answer lacks size or type the manifest is read.
func (a *API) ManifestHead(ctx context.Context, r ref.Ref, _ ...scheme.ManifestHeadOption) (types.Descriptor, error) {
	const op = "manifest head"
	r = r.OrLatest()
	if err := begin(ctx, op, r, ""); err != nil {
		return types.Descriptor{}, err
	}
	m, err := a.rc.ManifestHead(ctx, named(r))
	if err != nil {
		return types.Descriptor{}, fromTheirs(ctx, op, r, "", err)
	}
	if d := m.GetDescriptor(); d.MediaType != "" && d.Size > 0 && d.Digest != "" {
		return types.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
	}
	whole, err := a.get(ctx, r)
	if err != nil {
		return types.Descriptor{}, fromTheirs(ctx, op, r, "", err)
	}
	return whole.Descriptor(), nil
}

// ManifestPut implements scheme.API. Several tags are put one after another.
func (a *API) ManifestPut(ctx context.Context, r ref.Ref, m *manifest.Manifest, opts ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	const op = "manifest put"
	o := scheme.Collect(opts)
	if !o.Child {
		r = r.OrLatest()
	}
	if err := begin(ctx, op, r, ""); err != nil {
		return manifest.PutResult{}, err
	}
	refuse := func(err error) (manifest.PutResult, error) {
		return manifest.PutResult{}, &errs.Error{Op: op, Ref: r.String(), Digest: m.Digest(), Err: err}
	}
	tags, err := tagsOf(r, o.Tags)
	if err == nil {
		err = acceptable(r, m)
	}
	if err == nil {
		err = unconditional(o.Precondition)
	}
	if err != nil {
		return refuse(err)
	}
	view, err := m.View()
	if err != nil {
		return refuse(err)
	}
	rm, err := rcmanifest.New(rcmanifest.WithDesc(theirs(m.Descriptor())), rcmanifest.WithRaw(m.Raw()))
	if err != nil {
		return manifest.PutResult{}, fromTheirs(ctx, op, r, m.Digest(), err)
	}
	targets := []ref.Ref{r.WithDigest(m.Digest())}
	if len(tags) > 0 {
		targets = nil
		for _, t := range tags {
			targets = append(targets, r.WithTag(t))
		}
	}
	var ro []rcscheme.ManifestOpts
	if o.Child {
		ro = append(ro, rcscheme.WithManifestChild())
	}
	for _, tgt := range targets {
		if err := a.rc.ManifestPut(ctx, ToRef(tgt), rm, ro...); err != nil {
			return manifest.PutResult{}, fromTheirs(ctx, op, r, m.Digest(), err)
		}
	}
	return manifest.PutResult{Descriptor: m.Descriptor(), Tags: tags, SubjectDone: view.Subject != nil}, nil
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

// acceptable reports what is wrong with m, or with its being put as r.
func acceptable(r ref.Ref, m *manifest.Manifest) error {
	d := m.Descriptor()
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

// ManifestDelete implements scheme.API.
func (a *API) ManifestDelete(ctx context.Context, r ref.Ref, opts ...scheme.ManifestDeleteOption) error {
	const op = "manifest delete"
	if err := begin(ctx, op, r, ""); err != nil {
		return err
	}
	if r.Digest == "" {
		return &errs.Error{Op: op, Ref: r.String(), Err: fmt.Errorf("%w: a manifest is deleted by its digest", errs.ErrInvalid)}
	}
	var o []rcscheme.ManifestOpts
	if scheme.Collect(opts).Fallback {
		o = append(o, rcscheme.WithManifestCheckReferrers())
	}
	if err := a.rc.ManifestDelete(ctx, named(r), o...); err != nil {
		return fromTheirs(ctx, op, r, "", err)
	}
	return nil
}

// unconditional refuses what regclient has no words for.
func unconditional(p scheme.Precondition) error {
	if p.Set {
		return fmt.Errorf("%w: regclient writes no tag on a condition", errs.ErrUnsupported)
	}
	return nil
}

// TagDelete implements scheme.API.
func (a *API) TagDelete(ctx context.Context, r ref.Ref, opts ...scheme.TagDeleteOption) error {
	const op = "tag delete"
	if err := begin(ctx, op, r, ""); err != nil {
		return err
	}
	if r.Tag == "" {
		return &errs.Error{Op: op, Ref: r.String(), Err: fmt.Errorf("%w: the tag is missing", errs.ErrInvalid)}
	}
	if err := unconditional(scheme.Collect(opts).Precondition); err != nil {
		return &errs.Error{Op: op, Ref: r.String(), Err: err}
	}
	if err := a.rc.TagDelete(ctx, ToRef(r.WithTag(r.Tag))); err != nil {
		return fromTheirs(ctx, op, r, "", err)
	}
	return nil
}

// TagList implements scheme.API. All tags are read, whatever the limit. The fallback tags that regclient's ocidir
// keeps referrers under are no tags of anybody's.
func (a *API) TagList(ctx context.Context, r ref.Ref, opts ...scheme.TagListOption) (tag.List, error) {
	const op = "tag list"
	r = r.Place()
	if err := begin(ctx, op, r, ""); err != nil {
		return tag.List{}, err
	}
	l, err := a.rc.TagList(ctx, ToRef(r))
	if err != nil {
		return tag.List{}, fromTheirs(ctx, op, r, "", err)
	}
	all := slices.Clone(l.Tags)
	if r.Scheme != ref.SchemeReg {
		all = slices.DeleteFunc(all, referrer.IsFallbackTag)
	}
	slices.Sort(all)
	o := scheme.Collect(opts)
	return tag.Page(slices.Compact(all), o.Last, o.PageLimit()), nil
}

// ReferrerList implements scheme.API. Referrers that have an entry of their own in a layout, as oras-go and ours write
// them, are found as well (WithReferrerSlowSearch).
func (a *API) ReferrerList(ctx context.Context, r ref.Ref, opts ...scheme.ReferrerListOption) (referrer.List, error) {
	const op = "referrer list"
	r = r.OrLatest()
	if err := begin(ctx, op, r, ""); err != nil {
		return referrer.List{}, err
	}
	subject := types.Descriptor{Digest: r.Digest}
	head, err := a.ManifestHead(ctx, r)
	switch {
	case err == nil:
		subject = head
	case r.Digest == "" || !errors.Is(err, errs.ErrNotFound): // a subject need not be there
		return referrer.List{}, err
	}
	l, err := a.rc.ReferrerList(ctx, ToRef(r.WithDigest(subject.Digest)), rcscheme.WithReferrerSlowSearch())
	if err != nil {
		return referrer.List{}, fromTheirs(ctx, op, r, "", err)
	}
	out := referrer.List{Subject: subject}
	seen := map[string]bool{}
	for _, d := range l.Descriptors {
		if !seen[string(d.Digest)] {
			seen[string(d.Digest)] = true
			out.Descriptors = append(out.Descriptors, ours(d))
		}
	}
	out.Descriptors = scheme.Collect(opts).Filter.Apply(out.Descriptors)
	return out, nil
}
