package scheme

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/tag"
)

// Mux is one API over several: each ref's scheme decides who serves it. The schemes are fixed when it is made.
type Mux struct {
	Unimplemented
	apis map[string]API
}

var (
	_ API    = (*Mux)(nil)
	_ Asser  = (*Mux)(nil)
	_ Closer = (*Mux)(nil)
)

// NewMux returns a Mux over apis, keyed by scheme. It keeps a copy of the map.
func NewMux(apis map[string]API) *Mux { return &Mux{apis: maps.Clone(apis)} }

// Schemes lists the schemes that are served, in byte order.
func (m *Mux) Schemes() []string { return slices.Sorted(maps.Keys(m.apis)) }

// For returns who serves r's scheme. Its error is errs.ErrUnknownScheme and lists the schemes there are.
func (m *Mux) For(r ref.Ref) (API, error) {
	if api, ok := m.apis[r.Scheme]; ok {
		return api, nil
	}
	return nil, &errs.Error{
		Op: "open", Ref: r.String(), Err: errs.ErrUnknownScheme,
		Message: fmt.Sprintf("%q is none of %s", r.Scheme, strings.Join(m.Schemes(), ", ")),
		Hint:    "use one of these schemes: " + strings.Join(m.Schemes(), ", ") + " (a reference without a scheme is a registry's)",
	}
}

// As finds a capability of the API that serves r.
func (m *Mux) As(r ref.Ref, target any) bool {
	api, err := m.For(r)
	return err == nil && AsAny(api, r, target)
}

// Close closes all APIs and reports every failure.
func (m *Mux) Close() error {
	var all []error
	for _, name := range m.Schemes() {
		all = append(all, Close(m.apis[name]))
	}
	return errors.Join(all...)
}

// BlobGet implements API.
func (m *Mux) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...BlobGetOption) (blob.Reader, error) {
	api, err := m.For(r)
	if err != nil {
		return nil, err
	}
	return api.BlobGet(ctx, r, d, opts...)
}

// BlobHead implements API.
func (m *Mux) BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...BlobHeadOption) (types.Descriptor, error) {
	api, err := m.For(r)
	if err != nil {
		return types.Descriptor{}, err
	}
	return api.BlobHead(ctx, r, d, opts...)
}

// BlobPut implements API.
func (m *Mux) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...BlobPutOption) (types.Descriptor, error) {
	api, err := m.For(r)
	if err != nil {
		return types.Descriptor{}, err
	}
	return api.BlobPut(ctx, r, d, rdr, opts...)
}

// BlobDelete implements API.
func (m *Mux) BlobDelete(ctx context.Context, r ref.Ref, d types.Descriptor, opts ...BlobDeleteOption) error {
	api, err := m.For(r)
	if err != nil {
		return err
	}
	return api.BlobDelete(ctx, r, d, opts...)
}

// BlobMount implements API. Places of different schemes share no blobs.
func (m *Mux) BlobMount(ctx context.Context, src, tgt ref.Ref, d types.Descriptor, opts ...BlobMountOption) error {
	if src.Scheme != tgt.Scheme {
		return &errs.Error{Op: "blob mount", Ref: tgt.String(), Digest: d.Digest, Err: errs.ErrUnsupported, Message: "the source " + src.String() + " is of another scheme"}
	}
	api, err := m.For(tgt)
	if err != nil {
		return err
	}
	return api.BlobMount(ctx, src, tgt, d, opts...)
}

// ManifestGet implements API.
func (m *Mux) ManifestGet(ctx context.Context, r ref.Ref, opts ...ManifestGetOption) (*manifest.Manifest, error) {
	api, err := m.For(r)
	if err != nil {
		return nil, err
	}
	return api.ManifestGet(ctx, r, opts...)
}

// ManifestHead implements API.
func (m *Mux) ManifestHead(ctx context.Context, r ref.Ref, opts ...ManifestHeadOption) (types.Descriptor, error) {
	api, err := m.For(r)
	if err != nil {
		return types.Descriptor{}, err
	}
	return api.ManifestHead(ctx, r, opts...)
}

// ManifestPut implements API.
func (m *Mux) ManifestPut(ctx context.Context, r ref.Ref, mf *manifest.Manifest, opts ...ManifestPutOption) (manifest.PutResult, error) {
	api, err := m.For(r)
	if err != nil {
		return manifest.PutResult{}, err
	}
	return api.ManifestPut(ctx, r, mf, opts...)
}

// ManifestDelete implements API.
func (m *Mux) ManifestDelete(ctx context.Context, r ref.Ref, opts ...ManifestDeleteOption) error {
	api, err := m.For(r)
	if err != nil {
		return err
	}
	return api.ManifestDelete(ctx, r, opts...)
}

// TagDelete implements API.
func (m *Mux) TagDelete(ctx context.Context, r ref.Ref, opts ...TagDeleteOption) error {
	api, err := m.For(r)
	if err != nil {
		return err
	}
	return api.TagDelete(ctx, r, opts...)
}

// TagList implements API.
func (m *Mux) TagList(ctx context.Context, r ref.Ref, opts ...TagListOption) (tag.List, error) {
	api, err := m.For(r)
	if err != nil {
		return tag.List{}, err
	}
	return api.TagList(ctx, r, opts...)
}

// ReferrerList implements API.
func (m *Mux) ReferrerList(ctx context.Context, r ref.Ref, opts ...ReferrerListOption) (referrer.List, error) {
	api, err := m.For(r)
	if err != nil {
		return referrer.List{}, err
	}
	return api.ReferrerList(ctx, r, opts...)
}

// Ping implements API.
func (m *Mux) Ping(ctx context.Context, r ref.Ref, opts ...PingOption) (ping.Result, error) {
	api, err := m.For(r)
	if err != nil {
		return ping.Result{}, err
	}
	return api.Ping(ctx, r, opts...)
}
