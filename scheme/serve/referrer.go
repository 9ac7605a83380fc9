package serve

import (
	"net/http"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/referrer"
)

// referrers answers with the list of what refers to a manifest. It is empty, and never a 404, when there is nothing:
// clients take a 404 for a registry without this API, and look for fallback tags instead.
func (s *Server) referrers(x *exchange) error {
	var opts []scheme.ReferrerListOption
	if x.req.ArtifactType != "" {
		opts = append(opts, scheme.WithFilter(referrer.Filter{ArtifactType: x.req.ArtifactType}))
		x.header(ocihttp.HeaderFiltersApplied, ocihttp.FilterArtifactType)
	}
	list, err := s.api.ReferrerList(x.r.Context(), x.at(), opts...)
	if err != nil && !absent(err) {
		return err
	}
	raw, err := referrer.Index(list.Descriptors)
	if err != nil {
		return err
	}
	return x.send(http.StatusOK, types.MediaTypeImageIndex, raw)
}
