package reg

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// BlobGet implements scheme.API, with one request if nothing goes wrong. The urls of a descriptor are not followed.
func (r *Reg) BlobGet(ctx context.Context, rf ref.Ref, d types.Descriptor, _ ...scheme.BlobGetOption) (blob.Reader, error) {
	const op = "blob get"
	rf = rf.Place()
	h, err := r.beginBlob(ctx, op, rf, d.Digest)
	if err != nil {
		return nil, err
	}
	dl := h.download(ctx, op, rf, d)
	if types.SizeKnown(d) {
		dl.size = d.Size
	}
	if err := dl.reopen(); err != nil {
		return nil, err
	}
	desc := describe(d, max(dl.size, 0))
	rdr, err := blob.NewReader(dl, desc)
	if err != nil {
		return nil, h.fail(ctx, dl.rq, fmt.Errorf("%w", joinClose(err, dl)))
	}
	return rdr, nil
}

// download prepares the reading of a whole blob.
func (h *host) download(ctx context.Context, op string, rf ref.Ref, d types.Descriptor) *download {
	return &download{
		ctx: ctx, h: h, size: -1, end: -1,
		rq: request{
			op: op, ref: rf, digest: d.Digest, scope: scopePull(rf.Repo),
			Request: ocihttp.Request{Kind: ocihttp.BlobGet, Repo: rf.Repo, Digest: d.Digest},
		},
	}
}

// BlobHead implements scheme.API.
func (r *Reg) BlobHead(ctx context.Context, rf ref.Ref, d types.Descriptor, _ ...scheme.BlobHeadOption) (types.Descriptor, error) {
	return r.blobHead(ctx, "blob head", rf.Place(), d)
}

func (r *Reg) blobHead(ctx context.Context, op string, rf ref.Ref, d types.Descriptor) (types.Descriptor, error) {
	h, err := r.beginBlob(ctx, op, rf, d.Digest)
	if err != nil {
		return types.Descriptor{}, err
	}
	rq := request{
		op: op, ref: rf, digest: d.Digest, scope: scopePull(rf.Repo), want: []int{http.StatusOK},
		Request: ocihttp.Request{Kind: ocihttp.BlobHead, Repo: rf.Repo, Digest: d.Digest},
		header:  http.Header{"Accept-Encoding": {"identity"}},
	}
	resp, err := h.do(ctx, rq)
	if err != nil {
		return types.Descriptor{}, err
	}
	discard(resp)
	if resp.ContentLength < 0 {
		return types.Descriptor{}, h.fail(ctx, rq, fmt.Errorf("%w: the registry does not say the size", errs.ErrUnsupported))
	}
	return describe(d, resp.ContentLength), nil
}

// BlobDelete implements scheme.API.
func (r *Reg) BlobDelete(ctx context.Context, rf ref.Ref, d types.Descriptor, _ ...scheme.BlobDeleteOption) error {
	const op = "blob delete"
	rf = rf.Place()
	h, err := r.beginBlob(ctx, op, rf, d.Digest)
	if err != nil {
		return err
	}
	resp, err := h.do(ctx, request{
		op: op, ref: rf, digest: d.Digest, scope: scopeDelete(rf.Repo),
		Request: ocihttp.Request{Kind: ocihttp.BlobDelete, Repo: rf.Repo, Digest: d.Digest},
	})
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}

// describe is what a method returns about a blob of that size that was asked for with d.
func describe(d types.Descriptor, size int64) types.Descriptor {
	if d.MediaType == "" {
		d.MediaType = types.MediaTypeOctetStream
	}
	return types.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: size}
}
