package schemetest_test

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

var collectDefects = []defect{
	{name: "lease ignored", group: "Lease", rule: "what is leased is not collected", make: func(m *mem.Mem) scheme.API { return noLease{m} }},
	{name: "a release ends all leases", group: "Lease", rule: "one lease does not end another", make: func(m *mem.Mem) scheme.API {
		return &oneLease{Mem: m, all: map[digest.Digest][]func(){}}
	}},
	{name: "a put leases nothing", group: "Lease", rule: "what an API puts, finds present", make: func(m *mem.Mem) scheme.API { return careless{m} }},
	{name: "dry run removes", group: "Collect", rule: "nothing changes", make: collects(func(o *scheme.CollectOptions) { o.DryRun = false })},
	{name: "nothing is removed", group: "Collect", rule: "removes exactly the blobs", make: collects(func(o *scheme.CollectOptions) { o.DryRun = true })},
	{name: "the grace period ignored", group: "Collect", rule: "younger than the grace period", make: collects(func(o *scheme.CollectOptions) { o.Grace = 0 })},
	{name: "untagged ones always go", group: "Collect", rule: "removes exactly the blobs", make: collects(func(o *scheme.CollectOptions) { o.Untagged = true })},
	{name: "untagged ones never go", group: "Collect", rule: "WithUntagged also removes", make: collects(func(o *scheme.CollectOptions) { o.Untagged = false })},
	{name: "collect removes a referrer's blob", group: "Collect", rule: "removes exactly the blobs", make: takes(schemetest.Image("signature of a child").Blobs[1])},
	{name: "collect removes a Docker image's blobs", group: "Collect", rule: "removes exactly the blobs", make: takes(schemetest.Image("docker").Blobs[2])},
	{name: "collect removes what a child of an index needs", group: "Collect", rule: "removes exactly the blobs", make: takes(schemetest.Image("deep").Blobs[0])},
	{name: "collect looks at other repositories", group: "Collect", rule: "takes nothing from another repository", make: func(m *mem.Mem) scheme.API { return farReaching{m} }},
	{name: "collect of nothing succeeds", group: "Collect", rule: "is no repository is ErrNotFound", make: func(m *mem.Mem) scheme.API { return lenientCollect{m} }},
}

type noLease struct{ *mem.Mem }

func (m noLease) Lease(ctx context.Context, r ref.Ref, blobs ...digest.Digest) (func(), error) {
	release, err := m.Mem.Lease(ctx, r, blobs...)
	if err == nil {
		release()
	}
	return release, err
}

// oneLease counts no leases: the first release is everybody's.
type oneLease struct {
	*mem.Mem
	all map[digest.Digest][]func()
}

func (m *oneLease) Lease(ctx context.Context, r ref.Ref, blobs ...digest.Digest) (func(), error) {
	release, err := m.Mem.Lease(ctx, r, blobs...)
	if err != nil {
		return nil, err
	}
	for _, d := range blobs {
		m.all[d] = append(m.all[d], release)
	}
	return func() {
		for _, d := range blobs {
			for _, release := range m.all[d] {
				release()
			}
		}
	}, nil
}

// careless puts by way of somebody who ends at once.
type careless struct{ *mem.Mem }

func (m careless) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	other := m.Mem.Share()
	got, err := other.BlobPut(ctx, r, d, rdr, opts...)
	if err != nil {
		return got, err
	}
	return got, other.Close()
}

// collector collects with other options.
type collector struct {
	*mem.Mem
	change func(o *scheme.CollectOptions)
}

func collects(change func(o *scheme.CollectOptions)) func(*mem.Mem) scheme.API {
	return func(m *mem.Mem) scheme.API { return collector{m, change} }
}

func (m collector) Collect(ctx context.Context, r ref.Ref, opts ...scheme.CollectOption) (scheme.CollectReport, error) {
	return m.Mem.Collect(ctx, r, append(opts[:len(opts):len(opts)], m.change)...)
}

// taker also removes what is needed.
type taker struct {
	*mem.Mem
	data []byte
}

func takes(data []byte) func(*mem.Mem) scheme.API {
	return func(m *mem.Mem) scheme.API { return taker{m, data} }
}

func (m taker) Collect(ctx context.Context, r ref.Ref, opts ...scheme.CollectOption) (scheme.CollectReport, error) {
	report, err := m.Mem.Collect(ctx, r, opts...)
	if err == nil {
		err = m.Mem.BlobDelete(ctx, r, types.Descriptor{Digest: digest.FromBytes(m.data)})
	}
	return report, err
}

// farReaching removes content, not a repository's part of it.
type farReaching struct{ *mem.Mem }

func (m farReaching) Collect(ctx context.Context, r ref.Ref, opts ...scheme.CollectOption) (scheme.CollectReport, error) {
	report, err := m.Mem.Collect(ctx, r, opts...)
	for _, g := range report.Removed {
		if g.Shared {
			if err := m.Mem.BlobDelete(ctx, r.WithRepo(r.Repo+"-other"), types.Descriptor{Digest: g.Digest}); err != nil {
				return report, err
			}
		}
	}
	return report, err
}

type lenientCollect struct{ *mem.Mem }

func (m lenientCollect) Collect(ctx context.Context, r ref.Ref, opts ...scheme.CollectOption) (scheme.CollectReport, error) {
	if _, err := m.Mem.TagList(ctx, r); err != nil && ctx.Err() == nil {
		return scheme.CollectReport{}, nil
	}
	return m.Mem.Collect(ctx, r, opts...)
}
