package reg

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/tag"
)

// TagList implements scheme.API, with one request for each page of the registry's choosing. Registries that do not
// order tags by bytes, or ignore where a page is to begin, are noticed by what they answer; their whole list is then
// read and ordered here.
func (r *Reg) TagList(ctx context.Context, rf ref.Ref, opts ...scheme.TagListOption) (tag.List, error) {
	const op = "tag list"
	rf = rf.Place()
	h, err := r.beginRepo(ctx, op, rf, "")
	if err != nil {
		return tag.List{}, err
	}
	o := scheme.Collect(opts)
	rq := request{op: op, ref: rf, scope: scopePull(rf.Repo), want: []int{http.StatusOK}}
	rq.Kind, rq.Repo, rq.Last = ocihttp.TagList, rf.Repo, o.Last
	limit := o.PageLimit()
	if limit >= 0 {
		n := max(limit, 0) + 1 // one more than wanted says whether there are more
		rq.N = &n
	}
	names, ordered, err := h.names(ctx, rq, limit+1, tagPage)
	if err != nil {
		return tag.List{}, err
	}
	if !ordered {
		rq.N, rq.Last = nil, ""
		if names, _, err = h.names(ctx, rq, 0, tagPage); err != nil {
			return tag.List{}, err
		}
	}
	return tag.Page(names, o.Last, limit), nil
}

// names reads a list of names until it has enough of them (0 is all), and returns them sorted, each once. ordered is
// false, and the reading stops early, if enough or a beginning was asked for and the registry does not give names in
// byte order after it.
func (h *host) names(ctx context.Context, rq request, enough int, read func(raw []byte) ([]string, error)) (all []string, ordered bool, err error) {
	ordered = true
	part := enough > 0 || rq.Last != ""
	err = h.pages(ctx, rq, maxPage, func(_ *http.Response, raw []byte) (bool, error) {
		page, err := read(raw)
		if err != nil {
			return false, err
		}
		for _, name := range page {
			if ordered && len(all) > 0 && name <= all[len(all)-1] || rq.Last != "" && name <= rq.Last {
				ordered = false
			}
			all = append(all, name)
		}
		if len(all) > maxNames {
			return false, fmt.Errorf("%w: more than %d names", errs.ErrSizeInvalid, maxNames)
		}
		return part && !ordered || enough > 0 && len(all) >= enough, nil
	})
	if err != nil {
		return nil, false, err
	}
	slices.Sort(all)
	return slices.Compact(all), ordered || !part, nil
}

// tagPage reads the tags of one page. What is no tag must not become part of a URL or a path.
func tagPage(raw []byte) ([]string, error) {
	var page struct {
		Tags []string `json:"tags"`
	}
	if err := decode(raw, &page); err != nil {
		return nil, err
	}
	for _, t := range page.Tags {
		if err := ref.ValidTag(t); err != nil {
			return nil, fmt.Errorf("%w: the registry lists what is no tag: %w", errs.ErrUnavailable, err)
		}
	}
	return page.Tags, nil
}
