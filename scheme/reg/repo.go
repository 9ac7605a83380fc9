package reg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// RepoList implements scheme.RepoLister with the catalog, which many registries do not have, or not for everybody.
// All pages are read before fn is called first, as registries order names in their own ways.
func (r *Reg) RepoList(ctx context.Context, rf ref.Ref, last string, fn func(repo string) error) error {
	const op = "repository list"
	rf = rf.Base()
	h, err := r.begin(ctx, op, rf, "")
	if err != nil {
		return err
	}
	rq := request{op: op, ref: rf, scope: scopeCatalog, want: []int{http.StatusOK}}
	rq.Kind = ocihttp.Catalog
	names, _, err := h.names(ctx, rq, 0, repoPage)
	if errors.Is(err, errs.ErrNotFound) {
		return failure(op, rf, "", fmt.Errorf("%w: the registry has no catalog: %w", errs.ErrUnsupported, err))
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if last != "" && name <= last {
			continue
		}
		if err := ctx.Err(); err != nil {
			return failure(op, rf, "", err)
		}
		if err := fn(name); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func repoPage(raw []byte) ([]string, error) {
	var page struct {
		Repositories []string `json:"repositories"`
	}
	if err := decode(raw, &page); err != nil {
		return nil, err
	}
	for _, name := range page.Repositories {
		if err := ref.ValidRepo(name); err != nil {
			return nil, fmt.Errorf("%w: the registry lists what is no repository: %w", errs.ErrUnavailable, err)
		}
	}
	return page.Repositories, nil
}
