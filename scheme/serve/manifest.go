package serve

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// at is the manifest that the request is about.
func (x *exchange) at() ref.Ref {
	if x.req.Digest != "" {
		return x.ref.WithDigest(x.req.Digest)
	}
	return x.ref.WithTag(x.req.Tag)
}

// manifestGet answers with the exact bytes of a manifest.
func (s *Server) manifestGet(x *exchange) error {
	m, err := s.api.ManifestGet(x.r.Context(), x.at())
	if err != nil {
		return err
	}
	d := m.Descriptor()
	x.content(d)
	if x.notModified(d) {
		return x.done(http.StatusNotModified)
	}
	return s.sendHeld(x, d.MediaType, m.Raw())
}

// manifestHead answers HEAD of a manifest, without reading it.
func (s *Server) manifestHead(x *exchange) error {
	d, err := s.api.ManifestHead(x.r.Context(), x.at())
	if err != nil {
		return err
	}
	x.content(d)
	if x.notModified(d) {
		return x.done(http.StatusNotModified)
	}
	x.start(http.StatusOK, d.Size)
	return nil
}

// manifestPut stores a manifest under its digest, and under the tags of path and query.
func (s *Server) manifestPut(x *exchange) error {
	if len(x.req.Tags) > s.maxTags {
		return &statusError{status: http.StatusRequestURITooLong, err: ocihttp.Public(fmt.Errorf("%w: %d tags, more than %d", errs.ErrInvalid, len(x.req.Tags), s.maxTags))}
	}
	raw, err := s.readManifest(x)
	if err != nil {
		return err
	}
	m, view, err := parseManifest(raw, x)
	if err != nil {
		return ocihttp.Public(err)
	}
	at, err := s.condition(x)
	if err != nil {
		return err
	}
	opts := s.putOptions
	opts = append(opts[:len(opts):len(opts)], scheme.WithTags(x.req.Tags...))
	if at.Set {
		opts = append(opts, scheme.WithTagAt(at.At))
	}
	res, err := s.api.ManifestPut(x.r.Context(), x.at(), m, opts...)
	if wrong := (*manifest.SizeError)(nil); errors.As(err, &wrong) {
		return ocihttp.Public(wrong)
	}
	if err != nil {
		return err
	}
	s.location(x, ocihttp.Request{Kind: ocihttp.ManifestGet, Repo: x.req.Repo, Digest: m.Digest()})
	x.header(ocihttp.HeaderContentDigest, string(m.Digest()))
	if view.Subject != nil && res.SubjectDone {
		x.header(ocihttp.HeaderSubject, string(view.Subject.Digest))
	}
	if len(x.req.Tags) > 0 {
		for _, t := range res.Tags {
			x.w.Header().Add(ocihttp.HeaderTag, t)
		}
	}
	return x.done(http.StatusCreated)
}

// manifestDelete removes a tag, or by digest a manifest with all its tags.
func (s *Server) manifestDelete(x *exchange) error {
	if err := s.checkDelete(x.req); err != nil {
		return err
	}
	at, err := s.condition(x)
	if err != nil {
		return err
	}
	switch {
	case x.req.Digest != "":
		err = s.api.ManifestDelete(x.r.Context(), x.at())
	case at.Set:
		err = s.api.TagDelete(x.r.Context(), x.at(), scheme.WithTagDeleteAt(at.At))
	default:
		err = s.api.TagDelete(x.r.Context(), x.at())
	}
	if err != nil {
		return err
	}
	return x.done(http.StatusAccepted)
}

// absent reports whether err says that there is no such thing, rather than that asking failed.
func absent(err error) bool { return errors.Is(err, errs.ErrNotFound) }
