package regclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	rcscheme "github.com/regclient/regclient/scheme"
	rcdescriptor "github.com/regclient/regclient/types/descriptor"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
)

// API is a scheme of regclient's as scheme.API. What is asked is checked before regclient sees it, what it answers is
// verified and has our errors; what it does not do it does not do here either (see the package's documentation). It is
// as safe for concurrent use as the scheme is.
type API struct {
	scheme.Unimplemented
	rc rcscheme.API
}

var _ scheme.API = (*API)(nil)

// NewAPI returns rc as ours. Its garbage collection (Closer) is never run. A reg.Reg needs a logger (reg.WithSlog): it
// panics without one.
func NewAPI(rc rcscheme.API) *API { return &API{rc: rc} }

// begin checks what every method is given.
func begin(ctx context.Context, op string, r ref.Ref, d digest.Digest) error {
	err := ctx.Err()
	if err == nil {
		err = r.Validate()
	}
	if err == nil && d != "" {
		err = types.ValidDigest(d)
	}
	if err != nil {
		return &errs.Error{Op: op, Ref: r.String(), Digest: d, Err: err}
	}
	return nil
}

// beginBlob is begin for methods that need a blob's digest.
func beginBlob(ctx context.Context, op string, r ref.Ref, d digest.Digest) error {
	if d == "" {
		return &errs.Error{Op: op, Ref: r.String(), Err: fmt.Errorf("%w: it is empty", errs.ErrDigestInvalid)}
	}
	return begin(ctx, op, r, d)
}

// BlobGet implements scheme.API.
func (a *API) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobGetOption) (blob.Reader, error) {
	const op = "blob get"
	r = r.Place()
	if err := beginBlob(ctx, op, r, d.Digest); err != nil {
		return nil, err
	}
	// regclient takes a size that it is given for the blob's own; without one it looks.
	rdr, err := a.rc.BlobGet(ctx, ToRef(r), rcdescriptor.Descriptor{Digest: d.Digest})
	if err != nil {
		return nil, fromTheirs(ctx, op, r, d.Digest, err)
	}
	size := rdr.GetDescriptor().Size
	if types.SizeKnown(d) && size > 0 && size != d.Size {
		err := fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, size, d.Size)
		return nil, &errs.Error{Op: op, Ref: r.String(), Digest: d.Digest, Err: errors.Join(err, rdr.Close())}
	}
	if !types.SizeKnown(d) {
		d.Size = max(size, 0)
	}
	return blob.NewReader(&stream{ctx: ctx, r: r, d: d.Digest, rc: rdr}, described(d, d.Size))
}

// stream reads what regclient gives until the context ends. regclient's verdict of a wrong digest claims to be io.EOF;
// here it is only the end, and the verdict is left to who reads.
type stream struct {
	ctx context.Context // of BlobGet: it stays in force for the stream
	r   ref.Ref
	d   digest.Digest
	rc  io.ReadCloser
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.rc.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		err = io.EOF
	default:
		err = fromTheirs(s.ctx, "blob get", s.r, s.d, err)
	}
	return n, err
}

func (s *stream) Close() error { return s.rc.Close() }

// BlobHead implements scheme.API.
func (a *API) BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobHeadOption) (types.Descriptor, error) {
	const op = "blob head"
	r = r.Place()
	if err := beginBlob(ctx, op, r, d.Digest); err != nil {
		return types.Descriptor{}, err
	}
	rdr, err := a.rc.BlobHead(ctx, ToRef(r), rcdescriptor.Descriptor{Digest: d.Digest})
	if err != nil {
		return types.Descriptor{}, fromTheirs(ctx, op, r, d.Digest, err)
	}
	defer rdr.Close()
	return described(d, max(rdr.GetDescriptor().Size, 0)), nil
}

// BlobPut implements scheme.API. The content is checked here while regclient reads it.
func (a *API) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	const op = "blob put"
	r = r.Place()
	if err := begin(ctx, op, r, d.Digest); err != nil {
		return types.Descriptor{}, err
	}
	if d.Digest != "" {
		for _, src := range scheme.Collect(opts).MountFrom {
			if a.BlobMount(ctx, src, r, d) == nil {
				return a.BlobHead(ctx, r, d)
			}
		}
	}
	in := newChecked(ctx, d, rdr)
	if types.EmptyDigest(d.Digest) { // regclient's registry client does not read what must be empty
		if _, err := io.Copy(io.Discard, in); err != nil {
			return types.Descriptor{}, &errs.Error{Op: op, Ref: r.String(), Digest: d.Digest, Err: err}
		}
		in = newChecked(ctx, d, strings.NewReader(""))
	}
	got, err := a.rc.BlobPut(ctx, ToRef(r), rcdescriptor.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, in)
	if err == nil && in.err == io.EOF && got.Digest != in.digest() {
		err = fmt.Errorf("%w: regclient stored it as %s", errs.ErrDigestMismatch, got.Digest)
	}
	switch {
	case in.err != nil && in.err != io.EOF: // what regclient says about it is less
		return types.Descriptor{}, &errs.Error{Op: op, Ref: r.String(), Digest: d.Digest, Err: in.err}
	case err != nil:
		return types.Descriptor{}, fromTheirs(ctx, op, r, d.Digest, err)
	}
	d.Digest = got.Digest
	return described(d, max(got.Size, 0)), nil
}

// BlobDelete implements scheme.API.
func (a *API) BlobDelete(ctx context.Context, r ref.Ref, d types.Descriptor, _ ...scheme.BlobDeleteOption) error {
	const op = "blob delete"
	r = r.Place()
	if err := beginBlob(ctx, op, r, d.Digest); err != nil {
		return err
	}
	if err := a.rc.BlobDelete(ctx, ToRef(r), rcdescriptor.Descriptor{Digest: d.Digest}); err != nil {
		return fromTheirs(ctx, op, r, d.Digest, err)
	}
	return nil
}

// BlobMount implements scheme.API.
func (a *API) BlobMount(ctx context.Context, src, tgt ref.Ref, d types.Descriptor, _ ...scheme.BlobMountOption) error {
	const op = "blob mount"
	src, tgt = src.Place(), tgt.Place()
	if err := beginBlob(ctx, op, tgt, d.Digest); err != nil {
		return err
	}
	if err := begin(ctx, op, src, ""); err != nil {
		return err
	}
	if err := a.rc.BlobMount(ctx, ToRef(src), ToRef(tgt), theirs(d)); err != nil {
		return fromTheirs(ctx, op, tgt, d.Digest, err)
	}
	return nil
}

// Ping implements scheme.API.
func (a *API) Ping(ctx context.Context, r ref.Ref, _ ...scheme.PingOption) (ping.Result, error) {
	const op = "ping"
	if err := begin(ctx, op, r, ""); err != nil {
		return ping.Result{}, err
	}
	if _, err := a.rc.Ping(ctx, ToRef(r)); err != nil {
		err = fromTheirs(ctx, op, r, "", err)
		if errors.Is(err, errs.ErrNotFound) && r.Scheme != ref.SchemeReg { // what is not there yet can be made
			return ping.Result{Writable: true}, nil
		}
		return ping.Result{}, err
	}
	return ping.Result{Exists: true, Writable: true}, nil
}

// described is what a method returns about a blob of that size that was asked for with d.
func described(d types.Descriptor, size int64) types.Descriptor {
	if d.MediaType == "" {
		d.MediaType = types.MediaTypeOctetStream
	}
	return types.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: size}
}
