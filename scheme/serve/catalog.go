package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

// catalog answers with a page of the repositories that the subject may read, of all places, in byte order.
func (s *Server) catalog(x *exchange) error {
	if s.noCatalog {
		return ocihttp.Public(fmt.Errorf("%w: there is no catalog here", errs.ErrUnsupported))
	}
	limit := s.limit(x.req.N)
	repos, supported := []string{}, false
	without := errs.ErrUnsupported
	for i := range s.places {
		names, err := s.catalogOf(x, &s.places[i], limit)
		if refused(err) { // as public registries do: the others are listed all the same
			without = err
			continue
		}
		if err != nil {
			return err
		}
		supported = true
		repos = append(repos, names...)
	}
	if !supported {
		return without
	}
	slices.Sort(repos)
	if len(repos) > limit {
		repos = repos[:limit]
		if limit > 0 {
			s.next(x, repos[limit-1])
		}
	}
	raw, err := json.Marshal(struct {
		Repositories []string `json:"repositories"`
	}{repos})
	if err != nil {
		return err
	}
	return s.sendHeld(x, "application/json", raw)
}

// refused reports whether err says that there is no list to be had from a place: it has none, or none for this server.
func refused(err error) bool {
	return errors.Is(err, errs.ErrUnsupported) || errors.Is(err, errs.ErrDenied) || errors.Is(err, errs.ErrUnauthorized)
}

// catalogOf returns the first repositories of a place, one more than limit if there are so many.
func (s *Server) catalogOf(x *exchange, p *Place, limit int) ([]string, error) {
	var lister scheme.RepoLister
	if !scheme.As(s.api, p.Root, &lister) {
		return nil, errs.ErrUnsupported
	}
	last, some := s.places.before(p, x.req.Last)
	if !some {
		return nil, nil
	}
	var names []string
	err := lister.RepoList(x.r.Context(), p.Root.Base(), last, func(repo string) error {
		if p.passed(repo) {
			return io.EOF
		}
		name, ok := s.places.name(p, repo)
		if !ok || x.req.Last != "" && name <= x.req.Last {
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
