package ocidir

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
)

// TestSparseImages: an image without its content keeps nobody from collecting, and a check says what it lacks.
func TestSparseImages(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	it := schemetest.Image("sparse")
	_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest, scheme.WithSparseImages())
	must(t, err)
	_, err = o.Collect(t.Context(), r, scheme.WithGrace(time.Nanosecond))
	must(t, err)
	if _, err := o.ManifestGet(t.Context(), r.WithTag("v1")); err != nil {
		t.Error(err)
	}
	lacks := map[digest.Digest]bool{}
	all, _ := check(t, open(t), r)
	for _, p := range all {
		lacks[p.Digest] = p.Kind == scheme.ProblemMissing
	}
	for _, b := range it.Blobs {
		if !lacks[digest.FromBytes(b)] {
			t.Errorf("%s is not missed: %v", digest.FromBytes(b), all)
		}
	}
}

// TestAPutThatIsRefusedMakesNoLayout: neither for what is missing nor for a tag that is not where it must be.
func TestAPutThatIsRefusedMakesNoLayout(t *testing.T) {
	o, r := open(t), place(t.TempDir()).WithRepo("none")
	it := schemetest.Image("x")
	_, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest, scheme.WithSparseImages(), scheme.WithTagAt(it.Manifest.Digest()))
	if !errors.Is(err, errs.ErrConflict) {
		t.Error(err)
	}
	if _, err := o.ManifestPut(t.Context(), r.WithTag("v1"), it.Manifest, scheme.WithTagAt("")); !errors.Is(err, errs.ErrManifestBlobUnknown) {
		t.Error(err)
	}
	if _, err := os.Stat(r.Root + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a layout: %v", err)
	}
}
