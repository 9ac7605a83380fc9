package mem

import (
	"context"
	"fmt"
	"slices"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/tag"
)

// TagDelete implements scheme.API.
func (m *Mem) TagDelete(ctx context.Context, r ref.Ref, opts ...scheme.TagDeleteOption) error {
	const op = "tag delete"
	if err := begin(ctx, op, r, ""); err != nil {
		return err
	}
	if r.Tag == "" {
		return fail(op, r, "", fmt.Errorf("%w: the tag is missing", errs.ErrInvalid))
	}
	want := scheme.Collect(opts).Precondition
	if err := want.Valid(r); err != nil {
		return fail(op, r, "", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.find(r)
	if p == nil {
		return fail(op, r, "", errs.ErrNameUnknown)
	}
	d, ok := p.tags[r.Tag]
	if !ok {
		return fail(op, r, "", errs.ErrManifestUnknown)
	}
	if err := want.Check(d); err != nil {
		return fail(op, r, "", err)
	}
	delete(p.tags, r.Tag)
	return nil
}

// TagList implements scheme.API.
func (m *Mem) TagList(ctx context.Context, r ref.Ref, opts ...scheme.TagListOption) (tag.List, error) {
	const op = "tag list"
	r = r.Place()
	if err := begin(ctx, op, r, ""); err != nil {
		return tag.List{}, err
	}
	tags, ok := m.tags(r)
	if !ok {
		return tag.List{}, fail(op, r, "", errs.ErrNameUnknown)
	}
	slices.Sort(tags)
	o := scheme.Collect(opts)
	return tag.Page(tags, o.Last, o.PageLimit()), nil
}

// tags returns the tags of r's repository in no order.
func (m *Mem) tags(r ref.Ref) ([]string, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.find(r)
	if p == nil {
		return nil, false
	}
	tags := make([]string, 0, len(p.tags))
	for t := range p.tags {
		tags = append(tags, t)
	}
	return tags, true
}
