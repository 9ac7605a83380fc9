package reg

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// maxTagParams is how many tags one request names; registries take at least ten (distribution-spec, end-7b).
const maxTagParams = 10

// ManifestPut implements scheme.API, with one PUT for a tag or a digest. Several tags cost one PUT where the registry
// takes them as parameters, else one each. Where it does not process the subject (OCI-Subject), the subject's
// fallback tag is read, written and read again.
//
// When only that last part fails, the result is what was put, and the error says that the referrer is not listed.
func (r *Reg) ManifestPut(ctx context.Context, rf ref.Ref, m *manifest.Manifest, opts ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	const op = "manifest put"
	o := scheme.Collect(opts)
	if !o.Child {
		rf = rf.OrLatest()
	}
	h, err := r.beginRepo(ctx, op, rf, m.Digest())
	if err != nil {
		return manifest.PutResult{}, err
	}
	tags, err := putTags(rf, o.Tags)
	if err == nil && rf.Digest != "" && rf.Digest.Algorithm().FromBytes(m.Raw()) != rf.Digest {
		err = fmt.Errorf("%w: the manifest is %s", errs.ErrDigestMismatch, m.Digest())
	}
	if err == nil && len(m.Raw()) > types.MaxManifestSize {
		err = fmt.Errorf("%w: a manifest of %d bytes, more than %d", errs.ErrSizeInvalid, len(m.Raw()), types.MaxManifestSize)
	}
	if err == nil {
		err = o.Precondition.Valid(rf)
	}
	if err != nil {
		return manifest.PutResult{}, failure(op, rf, m.Digest(), err)
	}
	p := &manifestPut{h: h, op: op, ref: rf, m: m, digest: pick(rf.Digest, m.Digest()), at: o.Precondition}
	if err := p.run(ctx, tags); err != nil {
		return manifest.PutResult{}, err
	}
	result := manifest.PutResult{Descriptor: m.Descriptor(), Tags: tags, SubjectDone: p.subjectDone}
	result.Descriptor.Digest = p.digest
	if p.subjectDone {
		h.features.setReferrers(rf.Repo, true)
		return result, nil
	}
	return result, r.list(ctx, h, rf, m)
}

// putTags are the tags to put, each once, r's own first.
func putTags(rf ref.Ref, more []string) ([]string, error) {
	var tags []string
	if rf.Tag != "" {
		more = append([]string{rf.Tag}, more...)
	}
	for _, t := range more {
		if err := ref.ValidTag(t); err != nil {
			return nil, err
		}
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	return tags, nil
}

// manifestPut is one put of one manifest.
type manifestPut struct {
	h           *host
	op          string
	ref         ref.Ref
	m           *manifest.Manifest
	digest      digest.Digest
	at          scheme.Precondition
	subjectDone bool
}

// run puts the manifest under all tags, or by its digest if there are none. A registry makes a sha256 digest of what
// is put by tag: with any other algorithm the digest has to be in the path, and the tags beside it.
func (p *manifestPut) run(ctx context.Context, tags []string) error {
	canonical := p.digest.Algorithm() == digest.SHA256
	rest := slices.Clone(tags)
	if len(tags) == 0 {
		_, err := p.put(ctx, "", nil)
		return err
	}
	if p.at.Set {
		if !canonical {
			return p.h.fail(ctx, p.request(tags[0], nil), fmt.Errorf("%w: a tag of %s cannot be put on a condition", errs.ErrUnsupported, p.digest.Algorithm()))
		}
		if _, err := p.put(ctx, tags[0], nil); err != nil { // r's own; the others follow if that could be done
			return err
		}
		p.at = scheme.Precondition{}
		if tags, rest = tags[1:], rest[1:]; len(tags) == 0 {
			return nil
		}
	}
	if !canonical || len(tags) > 1 && p.h.features.tagParam() {
		for page := range slices.Chunk(tags, maxTagParams) {
			accepted, err := p.put(ctx, "", page)
			if err != nil {
				return err
			}
			p.h.features.setTagParam(len(accepted) > 0)
			rest = slices.DeleteFunc(rest, func(t string) bool { return slices.Contains(accepted, t) })
			if len(accepted) == 0 {
				break
			}
		}
	}
	for _, t := range rest {
		if _, err := p.put(ctx, t, nil); err != nil {
			return err
		}
	}
	return nil
}

// put sends the manifest to one tag, or to its digest with tags as parameters, and returns which the registry says it
// has set.
func (p *manifestPut) put(ctx context.Context, tag string, params []string) (accepted []string, err error) {
	rq := p.request(tag, params)
	resp, err := p.h.do(ctx, rq)
	if err != nil {
		return nil, conflict(err, p.at)
	}
	discard(resp)
	if said, err := contentDigest(resp); err != nil {
		return nil, p.h.fail(ctx, rq, err)
	} else if said != "" && said.Algorithm().FromBytes(p.m.Raw()) != said {
		return nil, p.h.fail(ctx, rq, fmt.Errorf("%w: the registry stored %s", errs.ErrDigestMismatch, said))
	}
	if resp.Header.Get(ocihttp.HeaderSubject) != "" {
		p.subjectDone = true
	}
	return ocihttp.List(resp.Header.Values(ocihttp.HeaderTag)), nil
}

func (p *manifestPut) request(tag string, params []string) request {
	rq := request{
		op: p.op, ref: p.ref, digest: p.m.Digest(), scope: scopePush(p.ref.Repo), body: bytesBody(p.m.Raw()),
		header: http.Header{"Content-Type": {p.m.MediaType()}},
	}
	rq.Request = ocihttp.Request{Kind: ocihttp.ManifestPut, Repo: p.ref.Repo, Tag: tag, Tags: params}
	if tag == "" {
		rq.Request.Digest = p.digest
	} else if p.ref.Tag != tag {
		rq.ref = p.ref.WithTag(tag)
	}
	condition(rq.header, p.at)
	return rq
}

// condition adds the header that says on which condition to write.
func condition(h http.Header, at scheme.Precondition) {
	switch {
	case at.Set && at.At == "":
		h.Set("If-None-Match", "*")
	case at.Set:
		h.Set("If-Match", ocihttp.ETag(at.At))
	}
}

// conflict says what a 412 to such a request means, which has no code of its own.
func conflict(err error, at scheme.Precondition) error {
	var e *errs.Error
	if at.Set && errors.As(err, &e) && e.Status == http.StatusPreconditionFailed {
		e.Err = errs.ErrConflict
	}
	return err
}

// TagDelete implements scheme.API, with one request. Registries that cannot delete a tag alone answer 405 or 400;
// nothing else is tried, as all other ways touch the manifest.
func (r *Reg) TagDelete(ctx context.Context, rf ref.Ref, opts ...scheme.TagDeleteOption) error {
	const op = "tag delete"
	h, err := r.beginRepo(ctx, op, rf, "")
	if err != nil {
		return err
	}
	if rf.Tag == "" {
		return failure(op, rf, "", fmt.Errorf("%w: there is no tag", errs.ErrInvalid))
	}
	at := scheme.Collect(opts).Precondition
	if err := at.Valid(rf); err != nil {
		return failure(op, rf, "", err)
	}
	rq := manifestRequest(op, rf.WithTag(rf.Tag), ocihttp.ManifestDelete)
	rq.ref, rq.scope = rf, scopeDelete(rf.Repo)
	condition(rq.header, at)
	resp, err := h.do(ctx, rq)
	var e *errs.Error
	if errors.As(err, &e) && e.Status == http.StatusBadRequest {
		e.Err = fmt.Errorf("%w: the registry deletes by digest only", errs.ErrUnsupported)
	}
	if err != nil {
		return conflict(err, at)
	}
	discard(resp)
	return nil
}
