package errs_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

func TestEveryCodeReadsBackAsASentinelThatPrintsIt(t *testing.T) {
	for _, code := range []string{
		"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
		"MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED",
		"DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
	} {
		kind := errs.FromCode(code)
		if kind == nil {
			t.Errorf("code %s of the specification has no sentinel", code)
			continue
		}
		if got := errs.Code(fmt.Errorf("put: %w", kind)); got != code {
			t.Errorf("Code(FromCode(%s)) = %q", code, got)
		}
	}
	if errs.FromCode("TAG_INVALID") != nil {
		t.Error("a code outside the specification has a sentinel")
	}
}

func TestFinerKindsAreCoarserKindsToo(t *testing.T) {
	for _, c := range []struct{ fine, coarse error }{
		{errs.ErrBlobUnknown, errs.ErrNotFound},
		{errs.ErrManifestUnknown, errs.ErrNotFound},
		{errs.ErrNameUnknown, errs.ErrNotFound},
		{errs.ErrSizeMismatch, errs.ErrDigestMismatch},
		{errs.ErrDigestMismatch, errs.ErrDigestInvalid},
		{errs.ErrDigestMismatch, errs.ErrInvalid},
		{errs.ErrReadOnly, errs.ErrUnsupported},
		{errs.ErrLocked, errs.ErrUnavailable},
	} {
		if !errors.Is(c.fine, c.coarse) {
			t.Errorf("%v is not %v", c.fine, c.coarse)
		}
		if errors.Is(c.coarse, c.fine) {
			t.Errorf("%v is %v", c.coarse, c.fine)
		}
	}
}

func TestErrorSaysWhatWhereAndWhyOnce(t *testing.T) {
	d := digest.FromString("x")
	err := &errs.Error{Op: "blob get", Ref: "host/repo", Digest: d, Err: errs.ErrBlobUnknown, Hint: "try again", Message: "no such blob"}
	want := "blob get host/repo " + d.String() + ": blob not found: no such blob"
	if got := err.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := errs.Hint(fmt.Errorf("copy: %w", err)); got != "try again" {
		t.Errorf("Hint = %q", got)
	}
	if got := errs.Code(&errs.Error{Code: "TAG_INVALID", Err: errs.ErrInvalid}); got != "TAG_INVALID" {
		t.Errorf("the registry's own code is lost: %q", got)
	}
	if got := errs.Code(errors.New("x")); got != "" {
		t.Errorf("Code of a foreign error = %q", got)
	}
}
