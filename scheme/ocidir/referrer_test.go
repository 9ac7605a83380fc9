package ocidir

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

func push(t *testing.T, o *OCIDir, r ref.Ref, it *schemetest.Item, opts ...scheme.ManifestPutOption) {
	t.Helper()
	if err := it.Push(t.Context(), o, r, opts...); err != nil {
		t.Fatal(err)
	}
}

func TestALostReferrerIsNoEmptyList(t *testing.T) {
	changes := map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"a directory": func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, change := range damages {
		changes[name] = func(t *testing.T, path string) { damage(t, path, change) }
	}
	for name, change := range changes {
		for _, tag := range []string{"", "signature"} {
			for _, known := range []bool{false, true} {
				t.Run(name+" "+tag, func(t *testing.T) {
					o, r := open(t), place(t.TempDir())
					image := schemetest.Image("image")
					sig := schemetest.Image("sig", schemetest.Subject(image.Descriptor()), schemetest.ArtifactType("test/sig"))
					at := r.WithDigest(sig.Manifest.Digest())
					if tag != "" {
						at = r.WithTag(tag)
					}
					push(t, o, r.WithTag("v1"), image)
					push(t, o, at, sig)
					path := blobFileOf(r, sig.Manifest.Digest())
					change(t, path)
					if !known {
						o = open(t)
					}
					_, err := o.ReferrerList(t.Context(), r.WithTag("v1"))
					if !errors.Is(err, errs.ErrCorrupt) && !errors.Is(err, errs.ErrDigestMismatch) || errors.Is(err, errs.ErrNotFound) {
						t.Fatalf("got %v, want that it is damaged, and not that nothing is found", err)
					}
					if !strings.Contains(err.Error(), path) || errs.Hint(err) != healHint {
						t.Errorf("%v: it does not name the file, or has no hint", err)
					}
					if name == "a directory" {
						return // a put does not remove what somebody else has made
					}
					push(t, o, at, sig)
					if list, err := o.ReferrerList(t.Context(), r.WithTag("v1")); err != nil || len(list.Descriptors) != 1 {
						t.Errorf("after a put: %v, %v", list, err)
					}
				})
			}
		}
	}
}

func TestALostListOfReferrersIsNoEmptyOne(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	image, list := schemetest.Image("image"), schemetest.Index(nil)
	push(t, o, r.WithTag("v1"), image)
	push(t, o, r.WithTag(referrer.FallbackTag(image.Manifest.Digest())), list)
	if err := os.Remove(blobFileOf(r, list.Manifest.Digest())); err != nil {
		t.Fatal(err)
	}
	if got, err := open(t).ReferrerList(t.Context(), r.WithTag("v1")); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestWhatCannotReferDoesNotDisturbAListOfReferrers(t *testing.T) {
	o, r := open(t), place(t.TempDir())
	image, other, absent := schemetest.Image("image"), schemetest.Image("other"), schemetest.Image("absent")
	sparse := schemetest.Index([]*schemetest.Item{image, absent})
	push(t, o, r.WithTag("v1"), image)
	push(t, o, r.WithTag("v2"), other)
	if _, err := o.ManifestPut(t.Context(), r.WithDigest(sparse.Manifest.Digest()), sparse.Manifest, scheme.WithSparse()); err != nil {
		t.Fatal(err)
	}
	damage(t, blobFileOf(r, other.Manifest.Digest()), damages["flipped"])
	if list, err := open(t).ReferrerList(t.Context(), r.WithTag("v1")); err != nil || len(list.Descriptors) != 0 {
		t.Errorf("a damaged image of another tag, an image left out of a sparse copy: %v, %v", list, err)
	}
}
