package scheme

import (
	"context"
	"io"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/tag"
)

// ReadOnly returns a view of api that reads everything and writes nothing: writing methods answer errs.ErrReadOnly
// before they look at anything. Of the capabilities, those that only read are api's own, IndexStore refuses to put, and no
// other is reachable.
func ReadOnly(api API) API { return &readOnly{base: api} }

type readOnly struct{ base API }

var (
	_ API   = (*readOnly)(nil)
	_ Asser = (*readOnly)(nil)
)

// As hands on what cannot write, in a value that has no other method, so that no assertion leads back to the base. A
// capability that is not listed here does not exist behind the view, also one that was invented after it.
func (v *readOnly) As(r ref.Ref, target any) bool {
	switch t := target.(type) {
	case *BlobOpener:
		return only(v.base, r, t, func(c BlobOpener) BlobOpener { return struct{ BlobOpener }{c} })
	case *BlobProver:
		return only(v.base, r, t, func(c BlobProver) BlobProver { return struct{ BlobProver }{c} })
	case *BlobLister:
		return only(v.base, r, t, func(c BlobLister) BlobLister { return struct{ BlobLister }{c} })
	case *BlobStater:
		return only(v.base, r, t, func(c BlobStater) BlobStater { return struct{ BlobStater }{c} })
	case *Checker:
		return only(v.base, r, t, func(c Checker) Checker { return struct{ Checker }{c} })
	case *IndexStore:
		return only(v.base, r, t, func(c IndexStore) IndexStore { return indexReader{c} })
	case *BlobFinder:
		return only(v.base, r, t, func(c BlobFinder) BlobFinder { return struct{ BlobFinder }{c} })
	case *RepoLister:
		return only(v.base, r, t, func(c RepoLister) RepoLister { return struct{ RepoLister }{c} })
	case *Throttler:
		return only(v.base, r, t, func(c Throttler) Throttler { return struct{ Throttler }{c} })
	}
	return false
}

// only finds a capability of base and sets *target to what narrow makes of it.
func only[T any](base API, r ref.Ref, target *T, narrow func(T) T) bool {
	var c T
	if !As(base, r, &c) {
		return false
	}
	*target = narrow(c)
	return true
}

// indexReader is an IndexStore that replaces nothing.
type indexReader struct{ base IndexStore }

func (i indexReader) IndexGet(ctx context.Context, r ref.Ref) ([]byte, error) {
	return i.base.IndexGet(ctx, r)
}

func (i indexReader) IndexPut(_ context.Context, r ref.Ref, _, _ []byte) error {
	return refuse("index put", r)
}

// Close closes what the view stands before.
func (v *readOnly) Close() error { return Close(v.base) }

func refuse(op string, r ref.Ref) error {
	return &errs.Error{Op: op, Ref: r.String(), Err: errs.ErrReadOnly}
}

func (v *readOnly) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...BlobGetOption) (blob.Reader, error) {
	return v.base.BlobGet(ctx, r, d, opts...)
}

func (v *readOnly) BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...BlobHeadOption) (types.Descriptor, error) {
	return v.base.BlobHead(ctx, r, d, opts...)
}

func (v *readOnly) BlobPut(_ context.Context, r ref.Ref, _ types.Descriptor, _ io.Reader, _ ...BlobPutOption) (types.Descriptor, error) {
	return types.Descriptor{}, refuse("blob put", r)
}

func (v *readOnly) BlobDelete(_ context.Context, r ref.Ref, _ types.Descriptor, _ ...BlobDeleteOption) error {
	return refuse("blob delete", r)
}

func (v *readOnly) BlobMount(_ context.Context, _, tgt ref.Ref, _ types.Descriptor, _ ...BlobMountOption) error {
	return refuse("blob mount", tgt)
}

func (v *readOnly) ManifestGet(ctx context.Context, r ref.Ref, opts ...ManifestGetOption) (*manifest.Manifest, error) {
	return v.base.ManifestGet(ctx, r, opts...)
}

func (v *readOnly) ManifestHead(ctx context.Context, r ref.Ref, opts ...ManifestHeadOption) (types.Descriptor, error) {
	return v.base.ManifestHead(ctx, r, opts...)
}

func (v *readOnly) ManifestPut(_ context.Context, r ref.Ref, _ *manifest.Manifest, _ ...ManifestPutOption) (manifest.PutResult, error) {
	return manifest.PutResult{}, refuse("manifest put", r)
}

func (v *readOnly) ManifestDelete(_ context.Context, r ref.Ref, _ ...ManifestDeleteOption) error {
	return refuse("manifest delete", r)
}

func (v *readOnly) TagDelete(_ context.Context, r ref.Ref, _ ...TagDeleteOption) error {
	return refuse("tag delete", r)
}

func (v *readOnly) TagList(ctx context.Context, r ref.Ref, opts ...TagListOption) (tag.List, error) {
	return v.base.TagList(ctx, r, opts...)
}

func (v *readOnly) ReferrerList(ctx context.Context, r ref.Ref, opts ...ReferrerListOption) (referrer.List, error) {
	return v.base.ReferrerList(ctx, r, opts...)
}

func (v *readOnly) Ping(ctx context.Context, r ref.Ref, opts ...PingOption) (ping.Result, error) {
	res, err := v.base.Ping(ctx, r, opts...)
	res.Writable = false
	return res, err
}
