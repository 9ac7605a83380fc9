package reg

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
)

// Ping implements scheme.API, with a GET of /v2/. It says nothing about any repository.
func (r *Reg) Ping(ctx context.Context, rf ref.Ref, _ ...scheme.PingOption) (ping.Result, error) {
	const op = "ping"
	h, err := r.begin(ctx, op, rf, "")
	if err != nil {
		return ping.Result{}, err
	}
	rq := request{op: op, ref: rf, want: []int{http.StatusOK}}
	rq.Kind = ocihttp.Ping
	resp, err := h.do(ctx, rq)
	if errors.Is(err, errs.ErrNotFound) {
		return ping.Result{}, failure(op, rf, "", fmt.Errorf("%w: %s is no registry: %w", errs.ErrUnsupported, h.name, err))
	}
	if err != nil {
		return ping.Result{}, err
	}
	discard(resp)
	cred := Credential{}
	if resp.Request.Header.Get("Authorization") != "" {
		if cred, err = h.auth.account(ctx, ""); err != nil {
			return ping.Result{}, h.fail(ctx, rq, err)
		}
	}
	return ping.Result{
		Exists: true, Writable: true, Authenticated: !cred.anonymous(),
		APIVersion: resp.Header.Get(ocihttp.HeaderAPIVersion),
	}, nil
}
