package umoci

import (
	"errors"
	"os"

	"github.com/opencontainers/umoci/oci/cas"

	"github.com/ocisync/ocisync/types/errs"
)

// classes says which of umoci's errors a sentinel of ours is. The first that fits counts: finer ones come before those
// they are a case of.
var classes = []struct{ ours, theirs error }{
	{errs.ErrNotFound, cas.ErrNotExist},
	{errs.ErrConflict, cas.ErrClobber},
	{errs.ErrClobber, cas.ErrClobber},
	{errs.ErrExists, cas.ErrClobber},
	{errs.ErrUnknownType, cas.ErrUnknownType},
	{errs.ErrUnsupported, cas.ErrNotImplemented},
	{errs.ErrInvalid, cas.ErrInvalid},
	{errs.ErrCorrupt, cas.ErrInvalid},
}

// classified is an error of ours that is also one of umoci's.
type classified struct {
	err     error
	classes []error
}

func (c *classified) Error() string   { return c.err.Error() }
func (c *classified) Unwrap() []error { return append([]error{c.err}, c.classes...) }

// classify makes err one of umoci's errors as well. What fits none stays as it is.
func classify(err error) error {
	for _, c := range classes {
		if !errors.Is(err, c.ours) {
			continue
		}
		if c.theirs == cas.ErrNotExist { // umoci's own engine says os.ErrNotExist, and some callers look for that
			return &classified{err, []error{cas.ErrNotExist, os.ErrNotExist}}
		}
		return &classified{err, []error{c.theirs}}
	}
	return err
}

// broken is classify for what every layout must have: where it is missing the image is invalid.
func broken(err error) error {
	if errors.Is(err, errs.ErrNotFound) {
		return &classified{err, []error{cas.ErrInvalid}}
	}
	return classify(err)
}
