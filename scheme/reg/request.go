package reg

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// request is one request of the distribution specification, and what its errors say.
type request struct {
	op     string
	ref    ref.Ref
	digest digest.Digest // for errors, where the reference does not have it

	ocihttp.Request
	url    *url.URL // in place of the request's own: a Location or the Link to a page
	header http.Header
	scope  scope
	body   payload
	commit bool
	want   []int // the statuses of success; any 2xx if empty
}

// begin checks what every operation is given and finds the host: a live context, a sound reference, a sound digest.
func (r *Reg) begin(ctx context.Context, op string, rf ref.Ref, d digest.Digest) (*host, error) {
	err := ctx.Err()
	if err == nil {
		err = rf.Validate()
	}
	if err == nil && d != "" {
		err = types.ValidDigest(d)
	}
	var h *host
	if err == nil {
		h, err = r.host(rf.Root)
	}
	if err != nil {
		return nil, failure(op, rf, d, err)
	}
	return h, nil
}

// beginRepo is begin for operations on a repository.
func (r *Reg) beginRepo(ctx context.Context, op string, rf ref.Ref, d digest.Digest) (*host, error) {
	if err := ref.ValidRepo(rf.Repo); err != nil {
		return nil, failure(op, rf, d, err)
	}
	return r.begin(ctx, op, rf, d)
}

// beginBlob is beginRepo for operations that need a blob's digest.
func (r *Reg) beginBlob(ctx context.Context, op string, rf ref.Ref, d digest.Digest) (*host, error) {
	if d == "" {
		return nil, failure(op, rf, d, fmt.Errorf("%w: it is empty", errs.ErrDigestInvalid))
	}
	return r.beginRepo(ctx, op, rf, d)
}

// try sends rq once, and a second time when the first was answered with a challenge that can be met.
func (h *host) try(ctx context.Context, rq request) (*http.Response, error) {
	need := rq.scope
	for renewed := false; ; renewed = true {
		u := rq.url
		if u == nil {
			u = rq.URL(h.base())
		}
		m := message{method: rq.Method(), url: u, header: rq.header, body: rq.body, commit: rq.commit, owner: h.owns}
		var used *authorization
		if h.owns(u) {
			var err error
			if used, err = h.auth.authorize(ctx, need, rq.Repo); err != nil {
				return nil, err
			}
			m.auth = used.header
		}
		resp, err := h.exchange(ctx, m)
		if err != nil {
			return nil, err
		}
		if rq.wants(resp.StatusCode) {
			return resp, nil
		}
		if resp.StatusCode == http.StatusUnauthorized && used != nil && !renewed && h.owns(resp.Request.URL) {
			extra, again := h.auth.challenged(resp, used)
			need = need.union(extra)
			if again && (rq.body == nil || rq.body.replayable()) {
				discard(resp)
				continue
			}
		}
		return nil, h.refusal(resp, used)
	}
}

func (rq request) wants(status int) bool {
	if len(rq.want) == 0 {
		return status >= 200 && status < 300
	}
	return slices.Contains(rq.want, status)
}

// refusal turns an answer that is no success into an error, and closes it.
func (h *host) refusal(resp *http.Response, used *authorization) error {
	raw, rerr := readAll(resp, ocihttp.MaxErrorBody)
	if rerr != nil {
		raw = nil // the status stands; words that broke off are not worth another failure
	}
	e := ocihttp.ParseError(resp.StatusCode, raw)
	if wait, ok := ocihttp.RetryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
		e.RetryAfter = wait
	}
	if e.Message == "" {
		e.Message = resp.Status
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		e.Message = "unexpected redirect: " + resp.Status
	} else if resp.StatusCode < 300 {
		e.Err, e.Message = errs.ErrUnavailable, "unexpected answer: "+resp.Status
	}
	if errors.Is(e, errs.ErrUnauthorized) || errors.Is(e, errs.ErrDenied) {
		h.explainDenial(e, used)
	}
	if errors.Is(e, errs.ErrRateLimited) && used != nil && used.anonymous {
		e.Hint = "many registries allow more requests to who is known: " + h.loginHint()
	}
	return e
}

// explainDenial tells missing credentials from insufficient ones.
func (h *host) explainDenial(e *errs.Error, used *authorization) {
	switch {
	case used == nil || used.anonymous:
		e.Hint = h.loginHint()
	case used.bearer && e.Status == http.StatusUnauthorized: // the token server knew us; the registry wants more
		e.Err = errs.ErrDenied
		e.Message += ": not found, or no access with these credentials"
	case e.Status == http.StatusUnauthorized:
		e.Message += ": the credentials were not accepted"
		e.Hint = h.loginHint()
	}
}

func (h *host) loginHint() string {
	return fmt.Sprintf("log in with `docker login %s` or `podman login %s`", h.name, h.name)
}

// fail completes err with what rq was.
func (h *host) fail(ctx context.Context, rq request, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w, after %w", ctx.Err(), err)
	}
	var e *errs.Error
	if direct, ok := err.(*errs.Error); ok {
		own := *direct // several requests may have waited for the token whose failure this is
		e = &own
	} else {
		e = &errs.Error{Err: err}
		var inner *errs.Error
		switch {
		case errors.As(err, &inner): // keeps its own status and hint
			e.Status, e.RetryAfter, e.Code = inner.Status, inner.RetryAfter, inner.Code
		case ctx.Err() == nil && !known(err):
			e.Err = fmt.Errorf("%w: %w", errs.ErrUnavailable, err)
			e.Hint = connectHint(h.name, err)
		}
	}
	if e.Op != "" {
		return e
	}
	e.Op, e.Ref, e.Digest = rq.op, rq.ref.String(), rq.digest
	if rq.ref.Repo == "" {
		e.Ref = h.name
	}
	return e
}

// known reports whether err is one of ours already, and not the network's.
func known(err error) bool {
	for _, k := range []error{
		errs.ErrInvalid, errs.ErrNotFound, errs.ErrDenied, errs.ErrUnauthorized, errs.ErrUnsupported,
		errs.ErrUnavailable, errs.ErrRateLimited, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// failure wraps err with its circumstances.
func failure(op string, r ref.Ref, d digest.Digest, err error) error {
	return &errs.Error{Op: op, Ref: r.String(), Digest: d, Err: err}
}
