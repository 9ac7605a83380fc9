package regclient

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	rcerrs "github.com/regclient/regclient/types/errs"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// meanings say which sentinel of ours an error of regclient's is. Of several that fit the first counts.
var meanings = []struct{ theirs, ours error }{
	{rcerrs.ErrNotFound, errs.ErrNotFound},
	{fs.ErrNotExist, errs.ErrNotFound}, // what regclient's ocidir answers as the system says it
	{rcerrs.ErrDigestMismatch, errs.ErrDigestMismatch},
	{rcerrs.ErrShortRead, errs.ErrSizeMismatch},
	{rcerrs.ErrSizeLimitExceeded, errs.ErrSizeInvalid},
	{rcerrs.ErrMissingDigest, errs.ErrInvalid},
	{rcerrs.ErrMissingTag, errs.ErrInvalid},
	{rcerrs.ErrMissingTagOrDigest, errs.ErrInvalid},
	{rcerrs.ErrInvalidReference, errs.ErrNameInvalid},
	{rcerrs.ErrParsingFailed, errs.ErrInvalid},
	{rcerrs.ErrUnsupportedMediaType, errs.ErrUnknownType},
	{rcerrs.ErrMountReturnedLocation, errs.ErrUnsupported},
	{rcerrs.ErrUnsupported, errs.ErrUnsupported},
	{rcerrs.ErrUnsupportedAPI, errs.ErrUnsupported},
	{rcerrs.ErrNotImplemented, errs.ErrUnsupported},
	{rcerrs.ErrHTTPRateLimit, errs.ErrRateLimited},
	{rcerrs.ErrHTTPUnauthorized, errs.ErrUnauthorized}, // 403, too: regclient tells them apart no more
	{rcerrs.ErrBackoffLimit, errs.ErrUnavailable},
	{rcerrs.ErrAllRequestsFailed, errs.ErrUnavailable},
	{rcerrs.ErrRetryLimitExceeded, errs.ErrUnavailable},
	{rcerrs.ErrUnavailable, errs.ErrUnavailable},
	{digest.ErrDigestInvalidFormat, errs.ErrDigestInvalid},
	{digest.ErrDigestInvalidLength, errs.ErrDigestInvalid},
	{digest.ErrDigestUnsupported, errs.ErrDigestInvalid},
	{fs.ErrPermission, errs.ErrDenied},
}

// words say what regclient calls a sentinel of ours, as far as it has a word.
var words = []struct{ ours, theirs error }{
	{errs.ErrNotFound, rcerrs.ErrNotFound},
	{errs.ErrDigestMismatch, rcerrs.ErrDigestMismatch},
	{errs.ErrSizeInvalid, rcerrs.ErrSizeLimitExceeded},
	{errs.ErrNameInvalid, rcerrs.ErrInvalidReference},
	{errs.ErrUnknownType, rcerrs.ErrUnsupportedMediaType},
	{errs.ErrUnsupported, rcerrs.ErrUnsupported},
	{errs.ErrRateLimited, rcerrs.ErrHTTPRateLimit},
	{errs.ErrUnauthorized, rcerrs.ErrHTTPUnauthorized},
	{errs.ErrDenied, rcerrs.ErrHTTPUnauthorized},
	{errs.ErrUnavailable, rcerrs.ErrUnavailable},
}

// both is an error that says what it is in the one vocabulary and in the other.
type both struct{ err, kind error }

func (b *both) Error() string   { return b.err.Error() }
func (b *both) Unwrap() []error { return []error{b.err, b.kind} }

// fromTheirs wraps an error of regclient's with its circumstances. One that came from ours, by way of a Scheme, keeps
// what it says.
func fromTheirs(ctx context.Context, op string, r ref.Ref, d digest.Digest, err error) error {
	out := &errs.Error{Op: op, Ref: r.String(), Digest: d, Err: err}
	if ctxErr := ctx.Err(); ctxErr != nil {
		if !errors.Is(err, ctxErr) {
			out.Err = &both{err, ctxErr}
		}
		return out
	}
	var detail *errs.Error
	if errors.As(err, &detail) {
		out.Code, out.Status, out.Missing, out.RetryAfter, out.Hint = detail.Code, detail.Status, detail.Missing, detail.RetryAfter, detail.Hint
		return out
	}
	if a := answer(r, err); a != nil {
		out.Code, out.Status, out.Missing, out.Message = a.Code, a.Status, a.Missing, a.Message
		out.Err = &both{err, a.Err}
		return out
	}
	for _, m := range meanings {
		if errors.Is(err, m.theirs) {
			out.Err = &both{err, m.ours}
			break
		}
	}
	return out
}

var answered = regexp.MustCompile(`(?s)\[http (4\d\d)\]: (\{.*)$`)

// answer is what a registry said. regclient keeps it as a part of the text, and does not read it.
func answer(r ref.Ref, err error) *errs.Error {
	m := answered.FindStringSubmatch(err.Error())
	if r.Scheme != ref.SchemeReg || m == nil {
		return nil
	}
	var raw json.RawMessage
	if json.NewDecoder(strings.NewReader(m[2])).Decode(&raw) != nil {
		return nil
	}
	status, _ := strconv.Atoi(m[1]) // three digits
	return ocihttp.ParseError(status, raw)
}

// toTheirs gives an error of ours the meaning that it has for regclient, if it has one.
func toTheirs(err error) error {
	if err == nil {
		return nil
	}
	for _, w := range words {
		if errors.Is(err, w.ours) {
			return &both{err, w.theirs}
		}
	}
	return err
}
