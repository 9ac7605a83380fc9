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

// Unimplemented answers every method with errs.ErrUnsupported. Implementations embed it.
type Unimplemented struct{}

var _ API = Unimplemented{}

func unsupported(op string, r ref.Ref) error {
	return &errs.Error{Op: op, Ref: r.String(), Err: errs.ErrUnsupported}
}

// BlobGet answers errs.ErrUnsupported.
func (Unimplemented) BlobGet(_ context.Context, r ref.Ref, _ types.Descriptor, _ ...BlobGetOption) (blob.Reader, error) {
	return nil, unsupported("blob get", r)
}

// BlobHead answers errs.ErrUnsupported.
func (Unimplemented) BlobHead(_ context.Context, r ref.Ref, _ types.Descriptor, _ ...BlobHeadOption) (types.Descriptor, error) {
	return types.Descriptor{}, unsupported("blob head", r)
}

// BlobPut answers errs.ErrUnsupported.
func (Unimplemented) BlobPut(_ context.Context, r ref.Ref, _ types.Descriptor, _ io.Reader, _ ...BlobPutOption) (types.Descriptor, error) {
	return types.Descriptor{}, unsupported("blob put", r)
}

// BlobDelete answers errs.ErrUnsupported.
func (Unimplemented) BlobDelete(_ context.Context, r ref.Ref, _ types.Descriptor, _ ...BlobDeleteOption) error {
	return unsupported("blob delete", r)
}

// BlobMount answers errs.ErrUnsupported.
func (Unimplemented) BlobMount(_ context.Context, _, tgt ref.Ref, _ types.Descriptor, _ ...BlobMountOption) error {
	return unsupported("blob mount", tgt)
}

// ManifestGet answers errs.ErrUnsupported.
func (Unimplemented) ManifestGet(_ context.Context, r ref.Ref, _ ...ManifestGetOption) (*manifest.Manifest, error) {
	return nil, unsupported("manifest get", r)
}

// ManifestHead answers errs.ErrUnsupported.
func (Unimplemented) ManifestHead(_ context.Context, r ref.Ref, _ ...ManifestHeadOption) (types.Descriptor, error) {
	return types.Descriptor{}, unsupported("manifest head", r)
}

// ManifestPut answers errs.ErrUnsupported.
func (Unimplemented) ManifestPut(_ context.Context, r ref.Ref, _ *manifest.Manifest, _ ...ManifestPutOption) (manifest.PutResult, error) {
	return manifest.PutResult{}, unsupported("manifest put", r)
}

// ManifestDelete answers errs.ErrUnsupported.
func (Unimplemented) ManifestDelete(_ context.Context, r ref.Ref, _ ...ManifestDeleteOption) error {
	return unsupported("manifest delete", r)
}

// TagDelete answers errs.ErrUnsupported.
func (Unimplemented) TagDelete(_ context.Context, r ref.Ref, _ ...TagDeleteOption) error {
	return unsupported("tag delete", r)
}

// TagList answers errs.ErrUnsupported.
func (Unimplemented) TagList(_ context.Context, r ref.Ref, _ ...TagListOption) (tag.List, error) {
	return tag.List{}, unsupported("tag list", r)
}

// ReferrerList answers errs.ErrUnsupported.
func (Unimplemented) ReferrerList(_ context.Context, r ref.Ref, _ ...ReferrerListOption) (referrer.List, error) {
	return referrer.List{}, unsupported("referrer list", r)
}

// Ping answers errs.ErrUnsupported.
func (Unimplemented) Ping(_ context.Context, r ref.Ref, _ ...PingOption) (ping.Result, error) {
	return ping.Result{}, unsupported("ping", r)
}
