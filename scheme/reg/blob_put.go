package reg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// maxSmall is how much of a stream of unknown size is read ahead: what ends within it costs one request less, and can
// be sent again.
const maxSmall = 64 << 10

// BlobPut implements scheme.API. A blob of known digest and size costs a POST and a PUT; one that is mounted the POST
// only. A stream of which one is unknown is sent as it comes, and named at the end: POST, PATCH, PUT.
//
// What is a blob.Source, or fits in 64 KiB, is sent again when it fails on its way; any other stream only as long as
// nothing of it was read. A stream that hangs in a Read when the context ends is left behind there.
func (r *Reg) BlobPut(ctx context.Context, rf ref.Ref, d types.Descriptor, rdr io.Reader, opts ...scheme.BlobPutOption) (types.Descriptor, error) {
	const op = "blob put"
	rf = rf.Place()
	h, err := r.beginRepo(ctx, op, rf, d.Digest)
	if err != nil {
		return types.Descriptor{}, err
	}
	p := &blobPut{h: h, ref: rf, desc: d, rq: request{op: op, ref: rf, digest: d.Digest, scope: scopePush(rf.Repo)}}
	p.rq.Repo = rf.Repo
	if err := p.source(ctx, rdr); err != nil {
		return types.Descriptor{}, p.atFault(ctx, err)
	}
	return p.run(ctx, scheme.Collect(opts).MountFrom)
}

// blobPut is one put of one blob.
type blobPut struct {
	h    *host
	ref  ref.Ref
	desc types.Descriptor
	rq   request // what all its requests have in common

	first  io.Reader                                        // what the first attempt sends
	again  func(ctx context.Context) (io.ReadCloser, error) // what later ones send; nil when there can be none
	direct bool                                             // digest and size are known before anything is sent
}

// source decides how rdr is sent.
func (p *blobPut) source(ctx context.Context, rdr io.Reader) error {
	p.first = rdr
	if src, ok := rdr.(blob.Source); ok {
		p.again = func(ctx context.Context) (io.ReadCloser, error) { return src.OpenAt(ctx, 0) }
	}
	if !types.SizeKnown(p.desc) {
		switch v := rdr.(type) {
		case *blob.VerifyReader:
			if blob.Verifies(v, p.desc) {
				p.desc.Size = v.Descriptor().Size
			}
		case *bytes.Reader:
			p.desc.Size = int64(v.Len())
		case *bytes.Buffer:
			p.desc.Size = int64(v.Len())
		case *strings.Reader:
			p.desc.Size = int64(v.Len())
		}
	}
	p.direct = p.desc.Digest != "" && types.SizeKnown(p.desc)
	if p.direct || p.again != nil {
		return ctx.Err()
	}
	data, rest, err := readAhead(ctx, rdr, maxSmall)
	if err != nil {
		return err
	}
	if rest != nil {
		p.first = rest
		return nil
	}
	u := newUpload(ctx, bytes.NewReader(data), p.desc)
	if err := u.check(); err != nil {
		return err
	}
	p.desc.Digest, p.desc.Size = u.digest(), int64(len(data))
	p.rq.digest = p.desc.Digest
	p.direct = true
	p.first = bytes.NewReader(data)
	p.again = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return nil
}

// run tries until the blob is there, fails for good, or the attempts are used up.
func (p *blobPut) run(ctx context.Context, mounts []ref.Ref) (types.Descriptor, error) {
	for attempt := 1; ; attempt++ {
		location, mounted, err := p.start(ctx, mounts)
		if err != nil {
			return types.Descriptor{}, err // retried already
		}
		if mounted {
			return p.mounted(ctx)
		}
		mounts = nil
		got, spent, err := p.send(ctx, location, attempt)
		if err == nil {
			return got, nil
		}
		p.h.cancelUpload(ctx, p.rq, location)
		if spent && p.again == nil || !p.mayGoBetter(err) {
			return types.Descriptor{}, err
		}
		if werr := p.h.wait(ctx, err, attempt); werr != nil {
			return types.Descriptor{}, err
		}
	}
}

// mayGoBetter reports whether a new session may succeed where this one failed: besides what is transient, a session
// that was lost, and a token that expired meanwhile.
func (p *blobPut) mayGoBetter(err error) bool {
	var e *errs.Error
	if errors.As(err, &e) && e.Status == http.StatusUnauthorized {
		return true
	}
	return transient(err) || errors.Is(err, errs.ErrUploadUnknown)
}

// start opens an upload session, or mounts the blob from the first of mounts that the registry lets us name.
func (p *blobPut) start(ctx context.Context, mounts []ref.Ref) (location *url.URL, mounted bool, err error) {
	for _, from := range mounts {
		if p.desc.Digest == "" || !p.mountable(from) {
			continue
		}
		resp, err := p.h.startMount(ctx, p.rq, from.Repo, p.desc)
		if errors.Is(err, errs.ErrUnauthorized) || errors.Is(err, errs.ErrDenied) {
			p.h.features.refuseMount(from.Repo, p.ref.Repo)
			continue
		}
		if err != nil && !transient(err) && ctx.Err() == nil {
			continue // whatever it dislikes about mounts, an upload may do
		}
		if err != nil {
			return nil, false, err
		}
		return p.session(ctx, resp)
	}
	rq := p.rq
	rq.Kind = ocihttp.UploadStart
	if p.desc.Digest != "" && p.desc.Digest.Algorithm() != "sha256" {
		rq.DigestAlgorithm = p.desc.Digest.Algorithm()
	}
	rq.want = []int{http.StatusAccepted}
	resp, err := p.h.do(ctx, rq)
	if err != nil {
		return nil, false, err
	}
	return p.session(ctx, resp)
}

func (p *blobPut) mountable(from ref.Ref) bool {
	return from.Scheme == p.ref.Scheme && canonical(from.Root) == p.h.name && from.Repo != p.ref.Repo &&
		ref.ValidRepo(from.Repo) == nil && p.h.features.mount(from.Repo, p.ref.Repo)
}

// startMount asks for a mount. The answer is a 201, or the 202 of an upload session in its place.
func (h *host) startMount(ctx context.Context, rq request, from string, d types.Descriptor) (*http.Response, error) {
	rq.Kind, rq.Mount, rq.From = ocihttp.UploadStart, d.Digest, from
	rq.scope = rq.scope.union(scopePull(from))
	rq.want = []int{http.StatusCreated, http.StatusAccepted}
	return h.do(ctx, rq)
}

// session reads the answer to a POST.
func (p *blobPut) session(ctx context.Context, resp *http.Response) (*url.URL, bool, error) {
	discard(resp)
	if resp.StatusCode == http.StatusCreated {
		return nil, true, nil
	}
	location, err := p.h.resolve(resp.Request.URL, resp.Header.Get("Location"))
	if err != nil {
		return nil, false, p.h.fail(ctx, p.rq, err)
	}
	return location, false, nil
}

// mounted is the descriptor of a blob whose bytes we did not send: the size is asked for if it is not known.
func (p *blobPut) mounted(ctx context.Context) (types.Descriptor, error) {
	if types.SizeKnown(p.desc) {
		return describe(p.desc, p.desc.Size), nil
	}
	return p.h.reg.blobHead(ctx, p.rq.op, p.ref, p.desc)
}

// send moves the bytes of one attempt into the session at location. spent says that its source cannot be read again.
func (p *blobPut) send(ctx context.Context, location *url.URL, attempt int) (got types.Descriptor, spent bool, err error) {
	src := p.first
	if attempt > 1 && p.again != nil {
		rc, err := p.again(ctx)
		if err != nil {
			return got, true, p.h.fail(ctx, p.rq, err)
		}
		defer rc.Close() // read to its end or abandoned: what counts was verified
		src = rc
	}
	u := newUpload(ctx, src, p.desc)
	if p.direct {
		err = p.put(ctx, location, u)
	} else {
		err = p.stream(ctx, location, u)
	}
	fault := u.settle()
	switch {
	case fault != nil: // also when the registry noticed first
		return got, true, p.atFault(ctx, fault)
	case err != nil:
		return got, !u.replayable(), err
	case p.direct: // it may have been taken before all of it was sent
		return describe(p.desc, p.desc.Size), true, nil
	}
	d := p.desc
	d.Digest = u.digest()
	return describe(d, u.n), true, nil
}

// atFault wraps what is wrong with the content or its source, and not with the registry.
func (p *blobPut) atFault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return p.h.fail(ctx, p.rq, err)
	}
	return failure(p.rq.op, p.ref, p.rq.digest, err)
}

// put sends everything in one request.
func (p *blobPut) put(ctx context.Context, location *url.URL, u *upload) error {
	if p.desc.Size == 0 { // no body is read when there is none
		if err := u.check(); err != nil {
			return err
		}
		return p.finish(ctx, location, p.desc, bytesBody(nil))
	}
	return p.finish(ctx, location, p.desc, u)
}

// stream sends what has no known end, and names it afterwards.
func (p *blobPut) stream(ctx context.Context, location *url.URL, u *upload) error {
	rq := p.rq
	rq.Kind, rq.url, rq.body = ocihttp.UploadChunk, location, u
	rq.header = http.Header{"Content-Type": {types.MediaTypeOctetStream}}
	resp, err := p.h.do(ctx, rq)
	if err != nil {
		return err
	}
	discard(resp)
	if fault := u.settle(); fault != nil {
		return fault
	}
	if u.err != io.EOF {
		return p.h.fail(ctx, rq, fmt.Errorf("%w: the registry answered %s before the stream had ended", errs.ErrUnavailable, resp.Status))
	}
	if l := resp.Header.Get("Location"); l != "" {
		if location, err = p.h.resolve(resp.Request.URL, l); err != nil {
			return p.h.fail(ctx, rq, err)
		}
	}
	d := p.desc
	d.Digest, d.Size = u.digest(), u.n
	return p.finish(ctx, location, d, bytesBody(nil))
}

// finish closes the upload: with body, or with what the registry has.
func (p *blobPut) finish(ctx context.Context, location *url.URL, d types.Descriptor, body payload) error {
	rq := p.rq
	rq.Kind, rq.url, rq.body, rq.commit = ocihttp.UploadFinish, ocihttp.FinishURL(location, d.Digest), body, true
	rq.digest = d.Digest
	rq.header = http.Header{"Content-Type": {types.MediaTypeOctetStream}}
	rq.want = []int{http.StatusCreated, http.StatusOK, http.StatusNoContent}
	resp, err := p.h.do(ctx, rq)
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}

// cancelUpload tells the registry that a session is not needed any more. It is a courtesy, which must not keep
// anybody waiting nor fail anything: sessions expire. Close waits for it.
func (h *host) cancelUpload(ctx context.Context, rq request, location *url.URL) {
	rq.Kind, rq.url, rq.body = ocihttp.UploadCancel, location, nil
	h.reg.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.reg.limits.cleanup)
		defer cancel()
		resp, err := h.try(ctx, rq)
		if err != nil {
			h.reg.log.DebugContext(ctx, "upload not cancelled", "error", err.Error())
			return
		}
		discard(resp)
	})
}
