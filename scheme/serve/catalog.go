package serve

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

// maxCatalog bounds a page of the catalog, also when the client asks for more, or names no limit.
const maxCatalog = 10000

// catalog answers with a page of the repositories that the subject may read, of all places, in byte order.
func (s *Server) catalog(x *exchange) error {
	limit := maxCatalog
	if x.req.N != nil {
		limit = min(*x.req.N, maxCatalog)
	}
	repos, supported := []string{}, false
	for i := range s.places {
		names, err := s.catalogOf(x, &s.places[i], limit)
		if errors.Is(err, errs.ErrUnsupported) {
			continue
		}
		if err != nil {
			return err
		}
		supported = true
		repos = append(repos, names...)
	}
	if !supported {
		return errs.ErrUnsupported
	}
	slices.Sort(repos)
	if len(repos) > limit {
		repos = repos[:limit]
		if limit > 0 {
			x.req.N = &limit
			s.next(x, repos[limit-1])
		}
	}
	raw, err := json.Marshal(struct {
		Repositories []string `json:"repositories"`
	}{repos})
	if err != nil {
		return err
	}
	return x.send(http.StatusOK, "application/json", raw)
}

// catalogOf returns the first repositories of a place, one more than limit if there are so many.
func (s *Server) catalogOf(x *exchange, p *Place, limit int) ([]string, error) {
	var lister scheme.RepoLister
	if !scheme.As(s.api, p.Root, &lister) {
		return nil, errs.ErrUnsupported
	}
	var names []string
	last := s.places.before(p, x.req.Last)
	err := lister.RepoList(x.r.Context(), p.Root.Base(), last, func(repo string) error {
		name, ok := s.places.name(p, repo)
		if !ok || name <= x.req.Last {
			return nil
		}
		may, err := s.mayPull(x, name)
		if err != nil || !may {
			return err
		}
		names = append(names, name)
		if len(names) > limit {
			return io.EOF
		}
		return nil
	})
	if err != nil && !absent(err) { // a root that nothing was pushed to yet has no repositories
		return nil, err
	}
	return names, nil
}
