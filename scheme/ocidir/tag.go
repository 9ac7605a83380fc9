package ocidir

import (
	"context"
	"fmt"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/tag"
)

// TagList implements scheme.API. The tags under which other tools keep referrers are not listed.
func (o *OCIDir) TagList(ctx context.Context, r ref.Ref, opts ...scheme.TagListOption) (tag.List, error) {
	const op = "tag list"
	opt := scheme.Collect(opts)
	l, ix, err := o.beginIndex(ctx, op, r)
	if err != nil {
		return tag.List{}, err
	}
	defer o.release(l)
	return ix.page(opt.Last, opt.PageLimit()), nil
}

// TagDelete implements scheme.API. The manifest stays listed, untagged.
func (o *OCIDir) TagDelete(ctx context.Context, r ref.Ref, opts ...scheme.TagDeleteOption) error {
	const op = "tag delete"
	if r.Tag == "" {
		return fail(op, r, "", fmt.Errorf("%w: a tag is needed", errs.ErrInvalid))
	}
	want := scheme.Collect(opts).Precondition
	if err := want.Valid(r); err != nil {
		return fail(op, r, "", err)
	}
	l, end, err := o.begin(ctx, op, r)
	if err != nil {
		return err
	}
	defer end()
	ix, err := l.index(ctx)
	if err != nil {
		return failRead(op, r, "", err)
	}
	if ix.lookup(r.Tag) == nil {
		return fail(op, r, "", errs.ErrManifestUnknown)
	}
	if err := ix.at(r.Tag, want); err != nil {
		return fail(op, r, "", err)
	}
	if err := l.prepare(ctx); err != nil {
		return failWrite(op, r, "", err)
	}
	err = l.commits.do(ctx, &change{frees: true, apply: func(_ context.Context, d *draft) ([]namedFile, error) {
		if d.now().lookup(r.Tag) != nil {
			if err := d.now().at(r.Tag, want); err != nil {
				return nil, err
			}
		}
		found, err := d.removeTag(r.Tag)
		if err == nil && !found {
			err = errs.ErrManifestUnknown
		}
		return nil, err
	}})
	if err != nil {
		return failWrite(op, r, "", err)
	}
	return nil
}
