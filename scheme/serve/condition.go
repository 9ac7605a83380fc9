package serve

import (
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

// condition is what a request says about the manifest or tag that it is to replace or remove (RFC 9110, 13.1): the tag of
// the path must be at the precondition's digest. A single digest, and "*" in If-None-Match, are compared by the place, in
// one step with the write. For anything else the tag is looked up first, and must then stay where it was found.
//
// A manifest in the path by its digest is only looked up: what has that digest does not change.
func (s *Server) condition(x *exchange) (scheme.Precondition, error) {
	match := ocihttp.ParseCondition(x.r.Header.Values("If-Match"), false)
	none := ocihttp.ParseCondition(x.r.Header.Values("If-None-Match"), true)
	switch {
	case match == nil && none == nil:
		return scheme.Precondition{}, nil
	case x.req.Tag == "":
	case none == nil && !match.Any && len(match.Digests) == 1:
		return scheme.Precondition{Set: true, At: match.Digests[0]}, nil
	case match == nil && none.Any:
		return scheme.Precondition{Set: true}, nil
	}
	var now digest.Digest
	switch d, err := s.api.ManifestHead(x.r.Context(), x.at()); {
	case err == nil:
		now = d.Digest
	case !absent(err):
		return scheme.Precondition{}, err
	}
	if match != nil && !match.Has(now) || none != nil && none.Has(now) {
		return scheme.Precondition{}, ocihttp.Public(fmt.Errorf("%w: a precondition of the request does not hold", errs.ErrConflict))
	}
	return scheme.Precondition{Set: x.req.Tag != "", At: now}, nil
}
