package serve

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

// maxCatalog bounds a page of the catalog, also when the client asks for more, or names no limit.
const maxCatalog = 10000

// catalog answers with a page of the repositories below the root.
func (s *Server) catalog(x *exchange) error {
	var lister scheme.RepoLister
	if !scheme.As(s.api, s.root, &lister) {
		return errs.ErrUnsupported
	}
	limit := maxCatalog
	if x.req.N != nil {
		limit = min(*x.req.N, maxCatalog)
	}
	repos, more := []string{}, false
	err := lister.RepoList(x.r.Context(), s.root, x.req.Last, func(repo string) error {
		switch {
		case repo == "": // the root is a single layout, which has no name here
			return nil
		case len(repos) == limit:
			more = true
			return io.EOF
		}
		repos = append(repos, repo)
		return nil
	})
	if err != nil && !absent(err) { // a root that nothing was pushed to yet has no repositories
		return err
	}
	if more && limit > 0 {
		x.req.N = &limit
		x.next(repos[limit-1])
	}
	raw, err := json.Marshal(struct {
		Repositories []string `json:"repositories"`
	}{repos})
	if err != nil {
		return err
	}
	return x.send(http.StatusOK, "application/json", raw)
}
