package reg

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// maxReferrers is how many referrers of one manifest are read.
const maxReferrers = 200_000

// ReferrerList implements scheme.API, with one request for each page; a reference with a tag costs a HEAD before.
//
// When, and only when, the referrers API answers 404, the fallback tag is read, and for that repository only it from
// then on. Any other failure is an error: an empty list would say that there are no signatures.
func (r *Reg) ReferrerList(ctx context.Context, rf ref.Ref, opts ...scheme.ReferrerListOption) (referrer.List, error) {
	const op = "referrer list"
	rf = rf.OrLatest()
	h, err := r.beginRepo(ctx, op, rf, "")
	if err != nil {
		return referrer.List{}, err
	}
	filter := scheme.Collect(opts).Filter
	subject := types.Descriptor{Digest: rf.Digest}
	if rf.Digest == "" {
		if subject, err = r.manifestHead(ctx, op, rf); err != nil {
			return referrer.List{}, err
		}
	}
	list, err := h.referrers(ctx, op, rf, subject.Digest, filter.ArtifactType)
	if err != nil {
		return referrer.List{}, err
	}
	return referrer.List{Subject: subject, Descriptors: filter.Apply(list)}, nil
}

// referrers lists what refers to subject, each once, from the API or the fallback tag. artifactType is a hint.
func (h *host) referrers(ctx context.Context, op string, rf ref.Ref, subject digest.Digest, artifactType string) ([]types.Descriptor, error) {
	if h.features.referrers(rf.Repo) {
		list, err := h.referrersAPI(ctx, op, rf, subject, artifactType)
		if !errors.Is(err, errs.ErrNotFound) || !is404(err) {
			return list, err
		}
		if !namesContent(err) {
			h.features.setReferrers(rf.Repo, false)
		}
	}
	list, err := h.fallbackList(ctx, op, rf, subject)
	if errors.Is(err, errs.ErrNameUnknown) { // here the registry can tell, and an empty list would be wrong
		return nil, err
	}
	if is404(err) {
		return nil, nil
	}
	return list, err
}

// is404 reports whether err is a registry's 404. That of its token server is none: it says nothing about content.
func is404(err error) bool {
	var e *errs.Error
	return errors.Is(err, errs.ErrNotFound) && errors.As(err, &e) && e.Status == http.StatusNotFound
}

// namesContent reports whether a 404 speaks of the repository or manifest, which says nothing about the API: it may
// be there when they are.
func namesContent(err error) bool {
	return errors.Is(err, errs.ErrNameUnknown) || errors.Is(err, errs.ErrManifestUnknown)
}

func (h *host) referrersAPI(ctx context.Context, op string, rf ref.Ref, subject digest.Digest, artifactType string) ([]types.Descriptor, error) {
	rq := request{
		op: op, ref: rf, digest: subject, scope: scopePull(rf.Repo), want: []int{http.StatusOK},
		header: http.Header{"Accept": {types.MediaTypeImageIndex}},
	}
	rq.Request = ocihttp.Request{Kind: ocihttp.Referrers, Repo: rf.Repo, Digest: subject, ArtifactType: artifactType}
	var all []types.Descriptor
	err := h.pages(ctx, rq, types.MaxManifestSize, func(_ *http.Response, raw []byte) (bool, error) {
		page, err := referrer.ParseIndex(raw, subject)
		if err != nil {
			return false, err
		}
		all = append(all, page...)
		if len(all) > maxReferrers {
			return false, errs.ErrSizeInvalid
		}
		return false, nil
	})
	return unique(all), err
}

// unique keeps the first of descriptors with one digest.
func unique(list []types.Descriptor) []types.Descriptor {
	seen := make(map[digest.Digest]bool, len(list))
	return slices.DeleteFunc(list, func(d types.Descriptor) bool {
		twice := seen[d.Digest]
		seen[d.Digest] = true
		return twice
	})
}
