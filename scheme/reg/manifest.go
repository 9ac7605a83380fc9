package reg

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// acceptManifests names every type, as registries convert or refuse what is not named, and anything else after them.
var acceptManifests = strings.Join([]string{
	types.MediaTypeImageIndex, types.MediaTypeImageManifest,
	types.MediaTypeDockerManifestList, types.MediaTypeDockerManifest,
	types.MediaTypeArtifactManifest, types.MediaTypeDockerSchema1JWS, types.MediaTypeDockerSchema1, "*/*;q=0.1",
}, ", ")

// ManifestGet implements scheme.API, with one request.
func (r *Reg) ManifestGet(ctx context.Context, rf ref.Ref, opts ...scheme.ManifestGetOption) (*manifest.Manifest, error) {
	const op = "manifest get"
	rf = rf.OrLatest()
	h, err := r.beginRepo(ctx, op, rf, "")
	if err != nil {
		return nil, err
	}
	m, err := h.manifest(ctx, op, rf, scheme.Collect(opts).Expect)
	if err != nil {
		return nil, h.fail(ctx, manifestRequest(op, rf, ocihttp.ManifestGet), err)
	}
	return m, nil
}

func manifestRequest(op string, rf ref.Ref, kind ocihttp.Kind) request {
	rq := request{op: op, ref: rf, scope: scopePull(rf.Repo), header: http.Header{"Accept": {acceptManifests}}}
	rq.Kind, rq.Repo = kind, rf.Repo
	if rq.Request.Digest = rf.Digest; rf.Digest == "" {
		rq.Tag = rf.Reference()
	}
	if kind == ocihttp.ManifestGet || kind == ocihttp.ManifestHead {
		rq.want = []int{http.StatusOK}
	}
	return rq
}

// manifest reads r's manifest, which must be what r, the registry and want say.
func (h *host) manifest(ctx context.Context, op string, rf ref.Ref, want types.Descriptor) (*manifest.Manifest, error) {
	rq := manifestRequest(op, rf, ocihttp.ManifestGet)
	rq.header.Set("Accept-Encoding", "identity")
	resp, raw, err := h.fetch(ctx, rq, types.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	mt := types.CleanMediaType(resp.Header.Get("Content-Type"))
	if opaque(mt) && want.MediaType != "" {
		mt = want.MediaType
	}
	said, err := contentDigest(resp)
	if err != nil {
		return nil, err
	}
	m, err := manifest.New(raw, manifest.WithMediaType(mt), manifest.WithDigest(pick(rf.Digest, want.Digest, said)))
	if err != nil {
		return nil, err
	}
	for _, d := range []digest.Digest{rf.Digest, want.Digest, said} { // of several algorithms, all must agree
		if d == "" {
			continue
		}
		if err := types.ValidDigest(d); err != nil {
			return nil, err
		}
		if got := d.Algorithm().FromBytes(raw); got != d {
			return nil, fmt.Errorf("%w: the registry sent %s in place of %s", errs.ErrDigestMismatch, got, d)
		}
	}
	if want.Size > 0 && want.Size != int64(len(raw)) {
		return nil, fmt.Errorf("%w: it has %d bytes, not %d", errs.ErrSizeMismatch, len(raw), want.Size)
	}
	return m, nil
}

// opaque reports whether a Content-Type says nothing about a manifest.
func opaque(mt string) bool {
	return mt == "" || mt == types.MediaTypeOctetStream || mt == "application/json" || mt == "text/plain"
}

// contentDigest is what the registry says the digest is, "" if it does not say.
func contentDigest(resp *http.Response) (digest.Digest, error) {
	d := digest.Digest(resp.Header.Get(ocihttp.HeaderContentDigest))
	if d == "" {
		return "", nil
	}
	if err := types.ValidDigest(d); err != nil {
		return "", fmt.Errorf("the registry's %s: %w", ocihttp.HeaderContentDigest, err)
	}
	return d, nil
}

func pick(all ...digest.Digest) digest.Digest {
	for _, d := range all {
		if d != "" {
			return d
		}
	}
	return ""
}

// ManifestHead implements scheme.API, with one HEAD; with a GET besides where the answer does not say everything, or
// the registry has no HEAD.
func (r *Reg) ManifestHead(ctx context.Context, rf ref.Ref, _ ...scheme.ManifestHeadOption) (types.Descriptor, error) {
	rf = rf.OrLatest()
	return r.manifestHead(ctx, "manifest head", rf)
}

func (r *Reg) manifestHead(ctx context.Context, op string, rf ref.Ref) (types.Descriptor, error) {
	h, err := r.beginRepo(ctx, op, rf, "")
	if err != nil {
		return types.Descriptor{}, err
	}
	rq := manifestRequest(op, rf, ocihttp.ManifestHead)
	rq.header.Set("Accept-Encoding", "identity")
	resp, err := h.do(ctx, rq)
	if err == nil {
		discard(resp)
		if d, ok, err := headed(resp, rf.Digest); err != nil {
			return types.Descriptor{}, h.fail(ctx, rq, err)
		} else if ok {
			return d, nil
		}
	} else if !errors.Is(err, errs.ErrUnsupported) {
		return types.Descriptor{}, err
	}
	m, err := h.manifest(ctx, op, rf, types.Descriptor{})
	if err != nil {
		return types.Descriptor{}, h.fail(ctx, rq, err)
	}
	return m.Descriptor(), nil
}

// headed is the descriptor that the answer to a HEAD gives; ok is false when something of it is missing.
func headed(resp *http.Response, want digest.Digest) (d types.Descriptor, ok bool, err error) {
	d = types.Descriptor{MediaType: types.CleanMediaType(resp.Header.Get("Content-Type")), Digest: want, Size: resp.ContentLength}
	said, err := contentDigest(resp)
	if err != nil {
		return d, false, err
	}
	if want == "" {
		d.Digest = said
	} else if said != "" && said.Algorithm() == want.Algorithm() && said != want {
		return d, false, fmt.Errorf("%w: the registry answers with %s", errs.ErrDigestMismatch, said)
	}
	return d, d.Digest != "" && d.Size > 0 && !opaque(d.MediaType), nil
}

// ManifestDelete implements scheme.API, with one request. WithReferrerCleanup costs a GET before, and, where there is
// no referrers API, the update of the subject's fallback tag.
func (r *Reg) ManifestDelete(ctx context.Context, rf ref.Ref, opts ...scheme.ManifestDeleteOption) error {
	const op = "manifest delete"
	h, err := r.beginRepo(ctx, op, rf, "")
	if err != nil {
		return err
	}
	if rf.Digest == "" {
		return failure(op, rf, "", fmt.Errorf("%w: a manifest is deleted by its digest", errs.ErrInvalid))
	}
	var m *manifest.Manifest
	rq := manifestRequest(op, rf, ocihttp.ManifestDelete)
	rq.scope = scopeDelete(rf.Repo)
	if scheme.Collect(opts).Fallback {
		if m, err = h.manifest(ctx, op, rf.WithDigest(rf.Digest), types.Descriptor{}); err != nil {
			return h.fail(ctx, rq, err)
		}
	}
	resp, err := h.do(ctx, rq)
	if err != nil {
		return err
	}
	discard(resp)
	if m == nil {
		return nil
	}
	return r.unlist(ctx, h, rf, m)
}
