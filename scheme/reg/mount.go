package reg

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// BlobMount implements scheme.API, with one POST when the registry mounts. When it opens an upload instead, two HEADs
// at most find out what that means: the blob is there already, or the source lacks it, or the registry does not mount.
func (r *Reg) BlobMount(ctx context.Context, src, tgt ref.Ref, d types.Descriptor, _ ...scheme.BlobMountOption) error {
	const op = "blob mount"
	src, tgt = src.Place(), tgt.Place()
	h, err := r.beginBlob(ctx, op, tgt, d.Digest)
	if err != nil {
		return err
	}
	if src.Scheme != tgt.Scheme || canonical(src.Root) != h.name {
		return failure(op, tgt, d.Digest, fmt.Errorf("%w: %s is another registry", errs.ErrUnsupported, src))
	}
	if err := ref.ValidRepo(src.Repo); err != nil {
		return failure(op, src, d.Digest, err)
	}
	rq := request{op: op, ref: tgt, digest: d.Digest, scope: scopePush(tgt.Repo)}
	rq.Repo = tgt.Repo
	resp, err := h.startMount(ctx, rq, src.Repo, d)
	switch {
	case err == nil:
		discard(resp)
		if resp.StatusCode == http.StatusCreated {
			return nil
		}
		if location, err := h.resolve(resp.Request.URL, resp.Header.Get("Location")); err == nil {
			h.cancelUpload(ctx, rq, location)
		}
	case !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrUnsupported):
		return err
	}
	if _, err := r.blobHead(ctx, op, tgt, d); err == nil || !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	if _, err := r.blobHead(ctx, op, src, d); err != nil {
		return err
	}
	return failure(op, tgt, d.Digest, fmt.Errorf("%w: the registry does not mount from %s", errs.ErrUnsupported, src))
}
