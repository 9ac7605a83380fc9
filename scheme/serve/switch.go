package serve

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
)

// switches are what a server can be told not to do.
type switches struct {
	noDelete  Deletes // what is true here is off
	noCatalog bool
	names     *regexp.Regexp // what a repository's name must match as a whole; nil is no limit
	maxPage   int
	warnings  []string
}

// Deletes says what clients may remove, as far as the Authorizer lets them.
type Deletes struct{ Tags, Manifests, Blobs bool }

// WithDeletes allows the deletes that are true, and answers the others with 405. By default all are allowed.
func WithDeletes(allowed Deletes) Option {
	return func(c *config) {
		c.noDelete = Deletes{Tags: !allowed.Tags, Manifests: !allowed.Manifests, Blobs: !allowed.Blobs}
	}
}

// WithoutCatalog answers the catalog with 405: it is no part of the specification, and tells what repositories there are.
func WithoutCatalog() Option { return func(c *config) { c.noCatalog = true } }

// WithNamePattern serves only repositories whose whole names match p, for a grammar that is narrower than the
// specification's. Others are answered with NAME_INVALID, and neither listed nor mounted from.
func WithNamePattern(p *regexp.Regexp) Option {
	return func(c *config) { c.names = regexp.MustCompile(`\A(?:` + p.String() + `)\z`) }
}

// WithMaxPage bounds the entries of one page of tags, referrers or repositories, also when the client asks for more, or for
// no number. What follows is linked to. Default: 10,000.
func WithMaxPage(n int) Option { return func(c *config) { c.maxPage = max(n, 1) } }

// WithWarning sends text with every answer as a Warning header (distribution-spec, "Warnings"). Clients show it to their
// users. Of several texts those are sent that fit in ocihttp.MaxWarnings (4096) bytes together.
func WithWarning(text string) Option {
	return func(c *config) {
		all := len(text)
		for _, w := range c.warnings {
			all += len(w)
		}
		if text != "" && all <= ocihttp.MaxWarnings {
			c.warnings = append(c.warnings, text)
		}
	}
}

// warn sets the Warning headers.
func (s *Server) warn(x *exchange) {
	for _, text := range s.warnings {
		x.w.Header().Add("Warning", ocihttp.FormatWarning(text))
	}
}

// known is ocihttp.Parse whose *ocihttp.MethodError allows nothing that is switched off.
func (s *Server) known(method string, u *url.URL) (*ocihttp.Request, error) {
	req, err := ocihttp.Parse(method, u)
	if m := (*ocihttp.MethodError)(nil); errors.As(err, &m) {
		m.Allow = slices.DeleteFunc(m.Allow, func(other string) bool {
			req, err := ocihttp.Parse(other, u)
			return err == nil && !s.does(req)
		})
	}
	return req, err
}

// does reports whether a request is of a kind that is answered here.
func (s *Server) does(req *ocihttp.Request) bool {
	switch rt := routes[req.Kind]; {
	case rt.writes() && s.readOnly:
		return false
	case rt.action == ActionDelete:
		return s.deletes(req)
	}
	return req.Kind != ocihttp.Catalog || !s.noCatalog
}

// named reports whether a repository may have this name here.
func (s *Server) named(repo string) bool { return s.names == nil || s.names.MatchString(repo) }

// checkName refuses a request about a repository that cannot be here.
func (s *Server) checkName(repo string) error {
	if repo == "" || s.named(repo) {
		return nil
	}
	return ocihttp.Public(fmt.Errorf("%w: repositories have other names here than %q", errs.ErrNameInvalid, repo))
}

// limit is how many entries a page has at most, in answer to a request for n of them.
func (s *Server) limit(n *int) int {
	if n == nil {
		return s.maxPage
	}
	return min(*n, s.maxPage)
}

// checkDelete refuses a delete that is switched off.
func (s *Server) checkDelete(req *ocihttp.Request) error {
	if !s.deletes(req) {
		return ocihttp.Public(fmt.Errorf("%w: nothing of this kind can be deleted here", errs.ErrUnsupported))
	}
	return nil
}

// deletes reports whether what req is about can be deleted.
func (s *Server) deletes(req *ocihttp.Request) bool {
	switch req.Kind {
	case ocihttp.BlobGet, ocihttp.BlobHead, ocihttp.BlobDelete:
		return !s.noDelete.Blobs
	}
	return req.Digest != "" && !s.noDelete.Manifests || req.Digest == "" && !s.noDelete.Tags
}

// allowed is what else can be done with what a request is about, after it was told that it is not supported.
func (s *Server) allowed(x *exchange) []string {
	var methods []string
	switch x.ctx.Endpoint {
	case EndpointBlob:
		methods = []string{http.MethodGet, http.MethodHead, http.MethodDelete}
	case EndpointManifest:
		methods = []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete}
	case EndpointUpload:
		methods = []string{http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete}
		if x.req.Kind == ocihttp.UploadStart {
			methods = []string{http.MethodPost}
		}
		return slices.DeleteFunc(methods, func(m string) bool { return m == x.r.Method })
	}
	return slices.DeleteFunc(methods, func(m string) bool {
		return m == x.r.Method || m == http.MethodDelete && !s.deletes(x.req)
	})
}
