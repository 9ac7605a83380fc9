package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/ocisync/ocisync/types/errs"
)

func TestErrorsHaveAClassAndStayWhatTheyAre(t *testing.T) {
	for _, c := range []struct{ ours, want error }{
		{errs.ErrNotFound, errdefs.ErrNotFound},
		{errs.ErrBlobUnknown, errdefs.ErrNotFound},
		{errs.ErrManifestUnknown, errdefs.ErrNotFound},
		{errs.ErrNameUnknown, errdefs.ErrNotFound},
		{errs.ErrUploadUnknown, errdefs.ErrNotFound},
		{errs.ErrExists, errdefs.ErrAlreadyExists},
		{errs.ErrLocked, errdefs.ErrUnavailable},
		{errs.ErrUnavailable, errdefs.ErrUnavailable},
		{errs.ErrDigestMismatch, errdefs.ErrFailedPrecondition},
		{errs.ErrSizeMismatch, errdefs.ErrFailedPrecondition},
		{errs.ErrDigestInvalid, errdefs.ErrInvalidArgument},
		{errs.ErrInvalid, errdefs.ErrInvalidArgument},
		{errs.ErrNameInvalid, errdefs.ErrInvalidArgument},
		{errs.ErrRangeInvalid, errdefs.ErrOutOfRange},
		{fs.ErrClosed, errdefs.ErrFailedPrecondition},
		{errs.ErrReadOnly, errdefs.ErrFailedPrecondition},
		{errs.ErrClobber, errdefs.ErrFailedPrecondition},
		{errs.ErrUnsupported, errdefs.ErrNotImplemented},
		{errs.ErrConflict, errdefs.ErrConflict},
		{errs.ErrCorrupt, errdefs.ErrDataLoss},
		{errs.ErrNoSpace, errdefs.ErrResourceExhausted},
		{errs.ErrRateLimited, errdefs.ErrResourceExhausted},
		{errs.ErrUnauthorized, errdefs.ErrUnauthenticated},
		{errs.ErrDenied, errdefs.ErrPermissionDenied},
		{context.Canceled, context.Canceled},
		{context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		in := &errs.Error{Op: "blob stat", Ref: "ocidir:///x", Err: fmt.Errorf("detail: %w", c.ours)}
		err := classify(in)
		if !errors.Is(err, c.want) || !errors.Is(err, c.ours) || err.Error() != in.Error() {
			t.Errorf("%v became %v, want %v beside it", c.ours, err, c.want)
		}
		if got := errdefs.Resolve(err); got != c.want { // what containerd sends over gRPC
			t.Errorf("%v is sent as %v, want %v", c.ours, got, c.want)
		}
		var e *errs.Error
		if !errors.As(err, &e) || e.Op != "blob stat" {
			t.Errorf("%v has lost its circumstances", c.ours)
		}
	}
	if classify(nil) != nil {
		t.Error("no error became one")
	}
}

func TestDamageIsTheReadersDataLossAndTheWritersMistake(t *testing.T) {
	for _, err := range []error{errs.ErrDigestMismatch, errs.ErrSizeMismatch} {
		if !errdefs.IsDataLoss(damaged(err)) || errdefs.IsFailedPrecondition(damaged(err)) {
			t.Errorf("read: %v", damaged(err))
		}
		if !errdefs.IsFailedPrecondition(classify(err)) {
			t.Errorf("written: %v", classify(err))
		}
	}
	if !errdefs.IsNotFound(damaged(errs.ErrBlobUnknown)) {
		t.Error("what is absent is not damaged")
	}
}
