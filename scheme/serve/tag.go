package serve

import (
	"encoding/json"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
)

// tagList answers with a page of tags.
func (s *Server) tagList(x *exchange) error {
	list, err := s.api.TagList(x.r.Context(), x.ref, scheme.WithTagLast(x.req.Last), scheme.WithTagLimit(s.limit(x.req.N)))
	if err != nil {
		return err
	}
	if n := len(list.Tags); list.More && n > 0 {
		s.next(x, list.Tags[n-1])
	}
	if list.Tags == nil {
		list.Tags = []string{} // never null
	}
	raw, err := json.Marshal(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{x.req.Repo, list.Tags})
	if err != nil {
		return err
	}
	return s.sendHeld(x, "application/json", raw)
}

// next links to the page after last, of the length that was asked for.
func (s *Server) next(x *exchange, last string) {
	page := *x.req
	page.Last = last
	x.header("Link", ocihttp.FormatNext(s.prefix, &page))
}
