package serve

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/referrer"
)

// maxReferrers is how many bytes the entries of one page have, unless a single one has more. Clients take a list of
// referrers for a manifest, and read no more than what a manifest may have.
const maxReferrers = 4<<20 - 1<<10

// referrers answers with a page of the list of what refers to a manifest. It is empty, and never a 404, when there is
// nothing: clients take a 404 for a registry without this API, and look for fallback tags instead.
//
// Pages are in the order of digests, and each is made of the list as it is then: what comes or goes meanwhile moves
// nothing else to another page, and a link holds nothing but where the page begins.
func (s *Server) referrers(x *exchange) error {
	var opts []scheme.ReferrerListOption
	if x.req.ArtifactType != "" {
		opts = append(opts, scheme.WithFilter(referrer.Filter{ArtifactType: x.req.ArtifactType}))
	}
	list, err := s.api.ReferrerList(x.r.Context(), x.at(), opts...)
	if err != nil && !absent(err) {
		return err
	}
	all := slices.SortedFunc(slices.Values(list.Descriptors), func(a, b types.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	all = slices.DeleteFunc(all, func(d types.Descriptor) bool { return x.req.Last != "" && string(d.Digest) <= x.req.Last })
	raw, n, err := referrerPage(all, s.limit(x.req.N))
	if err != nil {
		return err
	}
	if x.req.ArtifactType != "" {
		x.header(ocihttp.HeaderFiltersApplied, ocihttp.FilterArtifactType)
	}
	if 0 < n && n < len(all) {
		s.next(x, string(all[n-1].Digest))
	}
	return s.sendHeld(x, types.MediaTypeImageIndex, raw)
}

// referrerPage prints the first entries of a list as an index, limit of them at most, and returns how many these are.
func referrerPage(all []types.Descriptor, limit int) (raw []byte, n int, err error) {
	var b bytes.Buffer
	b.WriteString(`{"schemaVersion":2,"mediaType":"` + types.MediaTypeImageIndex + `","manifests":[`)
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // an entry is not to become much longer than its manifest
	for _, d := range all[:min(limit, len(all))] {
		before := b.Len()
		if n > 0 {
			b.WriteByte(',')
		}
		if err := enc.Encode(d); err != nil {
			return nil, 0, err
		}
		b.Truncate(b.Len() - 1) // the encoder's newline
		if n > 0 && b.Len() > maxReferrers {
			b.Truncate(before)
			break
		}
		n++
	}
	b.WriteString("]}")
	return b.Bytes(), n, nil
}
