package schemetest_test

import (
	"context"
	"errors"
	"regexp"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// knownDefects are in what is known of blobs, and those that containerd's suite does not find.
var knownDefects = []defect{
	{name: "fields of labels ignored", group: "Label", rule: "with labels.KEY one is set", make: func(m *mem.Mem) scheme.API { return noFields{m} }},
	{name: "labels are not set", group: "Label", rule: "all labels are replaced", make: func(m *mem.Mem) scheme.API { return noLabels{m} }},
	{name: "labels are read and written by several at once", group: "Label", rule: "all take effect", make: func(m *mem.Mem) scheme.API { return racyLabels{m} }},
	{name: "labels outlive the blob", group: "Label", rule: "labels go with the blob", make: func(m *mem.Mem) scheme.API { return stickyLabels{m} }},
	{name: "labels of any length", group: "Label", rule: "labels above MaxLabel", make: func(m *mem.Mem) scheme.API { return longLabels{m} }},
	{name: "stat of what is absent is another error", group: "Stat", rule: "ErrNotFound when it", make: func(m *mem.Mem) scheme.API { return oddStat{m} }},
	{name: "stat without times", group: "Stat", rule: "when it was stored", make: func(m *mem.Mem) scheme.API { return timeless{m} }},
	{name: "list of blobs fails", group: "Capability", rule: "BlobList names every blob", make: func(m *mem.Mem) scheme.API { return noWalk{m} }},
	{name: "delete of a blob fails", group: "Delete", rule: "BlobDelete removes the blob", make: func(m *mem.Mem) scheme.API { return noDelete{m} }},
	{name: "stat of a path", group: "Capability", rule: "every capability answers a repository name outside", make: func(m *mem.Mem) scheme.API { return pathStat{m} }},
	{name: "stat without a context", group: "Capability", rule: "every capability's error", make: func(m *mem.Mem) scheme.API { return deafStat{m} }},
	{name: "ranges only from the beginning", group: "Capability", rule: "reads any range", make: func(m *mem.Mem) scheme.API { return noOffsets{m} }},
}

type noFields struct{ *mem.Mem }

func (m noFields) BlobLabel(ctx context.Context, r ref.Ref, info blob.Info, _ ...string) (blob.Info, error) {
	return m.Mem.BlobLabel(ctx, r, info)
}

type noLabels struct{ *mem.Mem }

func (m noLabels) BlobLabel(ctx context.Context, r ref.Ref, info blob.Info, _ ...string) (blob.Info, error) {
	return m.Mem.BlobLabel(ctx, r, info, "labels.none")
}

// racyLabels reads all labels, changes some, and writes all; of those who set a label of their own two always read
// before either writes.
type racyLabels struct{ *mem.Mem }

var pairs = make(chan struct{}) // see meet

func (m racyLabels) BlobLabel(ctx context.Context, r ref.Ref, info blob.Info, fields ...string) (blob.Info, error) {
	have, err := m.Mem.BlobStat(ctx, r, info.Digest)
	if err == nil {
		if len(fields) == 1 && regexp.MustCompile(`^labels\.k\d`).MatchString(fields[0]) {
			meet()
		}
		info.Labels, err = scheme.Relabel(have.Labels, info.Labels, fields...)
	}
	if err != nil {
		return have, &errs.Error{Op: "blob label", Ref: r.String(), Err: err}
	}
	return m.Mem.BlobLabel(ctx, r, info)
}

type stickyLabels struct{ *mem.Mem }

var stuck sync.Map // labels by digest

func (m stickyLabels) BlobDelete(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...scheme.BlobDeleteOption) error {
	if info, err := m.Mem.BlobStat(ctx, r, d.Digest); err == nil {
		stuck.Store(d.Digest, info.Labels)
	}
	return m.Mem.BlobDelete(ctx, r, d, opts...)
}

func (m stickyLabels) BlobStat(ctx context.Context, r ref.Ref, d digest.Digest) (blob.Info, error) {
	info, err := m.Mem.BlobStat(ctx, r, d)
	if labels, ok := stuck.Load(d); ok && len(info.Labels) == 0 {
		info.Labels = labels.(map[string]string)
	}
	return info, err
}

type longLabels struct{ *mem.Mem }

func (m longLabels) BlobLabel(ctx context.Context, r ref.Ref, info blob.Info, fields ...string) (blob.Info, error) {
	if scheme.ValidLabels(info.Labels) != nil {
		return m.Mem.BlobLabel(ctx, r, info, "labels.none")
	}
	return m.Mem.BlobLabel(ctx, r, info, fields...)
}

type oddStat struct{ *mem.Mem }

func (m oddStat) BlobStat(ctx context.Context, r ref.Ref, d digest.Digest) (blob.Info, error) {
	info, err := m.Mem.BlobStat(ctx, r, d)
	if errors.Is(err, errs.ErrNotFound) {
		err = errBroken
	}
	return info, err
}

type pathStat struct{ *mem.Mem }

func (m pathStat) BlobStat(ctx context.Context, r ref.Ref, d digest.Digest) (blob.Info, error) {
	return m.Mem.BlobStat(ctx, ref.Ref{Scheme: r.Scheme, Root: r.Path()}, d)
}

type deafStat struct{ *mem.Mem }

func (m deafStat) BlobStat(ctx context.Context, r ref.Ref, d digest.Digest) (blob.Info, error) {
	return m.Mem.BlobStat(context.WithoutCancel(ctx), r, d)
}

type timeless struct{ *mem.Mem }

func (m timeless) BlobStat(ctx context.Context, r ref.Ref, d digest.Digest) (blob.Info, error) {
	info, err := m.Mem.BlobStat(ctx, r, d)
	return blob.Info{Digest: info.Digest, Size: info.Size, Labels: info.Labels}, err
}

type noWalk struct{ *mem.Mem }

func (noWalk) BlobList(context.Context, ref.Ref, func(blob.Info) error) error { return errBroken }

type noDelete struct{ *mem.Mem }

func (noDelete) BlobDelete(context.Context, ref.Ref, types.Descriptor, ...scheme.BlobDeleteOption) error {
	return errBroken
}

type noOffsets struct{ *mem.Mem }

func (m noOffsets) BlobOpen(ctx context.Context, r ref.Ref, d types.Descriptor) (blob.ReaderAt, error) {
	ra, err := m.Mem.BlobOpen(ctx, r, d)
	if err != nil {
		return nil, err
	}
	return fromBeginning{ra}, nil
}

type fromBeginning struct{ blob.ReaderAt }

func (ra fromBeginning) ReadAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, errBroken
	}
	return ra.ReaderAt.ReadAt(p, off)
}
