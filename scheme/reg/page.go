package reg

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
)

// What a list from a registry may be, at most.
const (
	maxPage  = 16 << 20 // bytes of one page
	maxPages = 20_000
	maxNames = 2_000_000
)

// pages reads a list page by page. visit gets the body of each, and ends the list when it returns true. The links
// between pages are followed on the host itself only, and up to a cap.
func (h *host) pages(ctx context.Context, rq request, limit int64, visit func(resp *http.Response, raw []byte) (done bool, err error)) error {
	seen := map[[sha256.Size]byte]bool{} // of URLs, which may be long
	for n := 0; ; n++ {
		resp, raw, err := h.fetch(ctx, rq, limit)
		if err != nil {
			return err
		}
		next, more, err := h.nextPage(resp)
		if err != nil {
			return h.fail(ctx, rq, err)
		}
		done, err := visit(resp, raw)
		if err != nil {
			return h.fail(ctx, rq, err)
		}
		if done || !more {
			return nil
		}
		key := sha256.Sum256([]byte(next.String()))
		if seen[key] || n == maxPages {
			return h.fail(ctx, rq, fmt.Errorf("%w: the registry's pages do not end", errs.ErrUnavailable))
		}
		seen[key] = true
		rq.url = next
	}
}

// nextPage is the URL of the page after the one in resp.
func (h *host) nextPage(resp *http.Response) (*url.URL, bool, error) {
	next, more, err := ocihttp.Next(resp.Header.Values("Link"), resp.Request.URL)
	if err != nil || !more {
		if err != nil {
			err = fmt.Errorf("%w: the registry's link to the next page: %w", errs.ErrUnavailable, err)
		}
		return nil, false, err
	}
	if err := h.admit(resp.Request.URL, next); err != nil {
		return nil, false, err
	}
	if !h.owns(next) {
		return nil, false, fmt.Errorf("%w: the next page is on another host, %s", errs.ErrDenied, next.Host)
	}
	return next, true, nil
}

// decode reads a page's JSON.
func decode(raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: the answer is not what was asked for: %w", errs.ErrUnavailable, err)
	}
	return nil
}
