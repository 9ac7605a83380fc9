package containerd

import (
	"errors"
	"io/fs"

	"github.com/containerd/errdefs"

	"github.com/ocisync/ocisync/types/errs"
)

// classes says which class of containerd's errors a sentinel of ours is. The first that fits counts: finer ones come
// before those they are a case of.
var classes = []struct{ ours, theirs error }{
	{errs.ErrNotFound, errdefs.ErrNotFound},
	{errs.ErrExists, errdefs.ErrAlreadyExists},
	{errs.ErrUnavailable, errdefs.ErrUnavailable}, // ErrLocked is one
	{errs.ErrDigestMismatch, errdefs.ErrFailedPrecondition},
	{errs.ErrRangeInvalid, errdefs.ErrOutOfRange},
	{errs.ErrInvalid, errdefs.ErrInvalidArgument},
	{fs.ErrClosed, errdefs.ErrFailedPrecondition},
	{errs.ErrReadOnly, errdefs.ErrFailedPrecondition},
	{errs.ErrUnsupported, errdefs.ErrNotImplemented},
	{errs.ErrClobber, errdefs.ErrFailedPrecondition},
	{errs.ErrConflict, errdefs.ErrConflict},
	{errs.ErrCorrupt, errdefs.ErrDataLoss},
	{errs.ErrNoSpace, errdefs.ErrResourceExhausted},
	{errs.ErrRateLimited, errdefs.ErrResourceExhausted},
	{errs.ErrUnauthorized, errdefs.ErrUnauthenticated},
	{errs.ErrDenied, errdefs.ErrPermissionDenied},
}

// classified is an error of ours that is also of a class of containerd's.
type classified struct{ err, class error }

func (c *classified) Error() string   { return c.err.Error() }
func (c *classified) Unwrap() []error { return []error{c.err, c.class} }

// classify gives err its class in containerd. What has none, the end of a context among it, stays as it is.
func classify(err error) error {
	for _, c := range classes {
		if errors.Is(err, c.ours) {
			return &classified{err: err, class: c.theirs}
		}
	}
	return err
}

// damaged is classify for what was read: there a wrong digest is not the caller's mistake, but lost data.
func damaged(err error) error {
	if errors.Is(err, errs.ErrDigestMismatch) {
		return &classified{err: err, class: errdefs.ErrDataLoss}
	}
	return classify(err)
}
