package umoci_test

import (
	"archive/tar"
	"bytes"
	"testing"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/mutate"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/opencontainers/umoci/oci/casext/blobcompress"

	"github.com/ocisync/ocisync/interop/umoci"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
)

// What `umoci repack` does: a layer is added to an image that an index lists, and the whole chain of manifests is
// written anew. Then ours finds every byte of it.
func TestMutateOverOurs(t *testing.T) {
	e, dir := create(t)
	ext := casext.NewEngine(e)
	if err := ext.UpdateReference(t.Context(), "1.0", index(t, e, image(t, e, "image"))); err != nil {
		t.Fatal(err)
	}
	paths, err := ext.ResolveReference(t.Context(), "1.0")
	if err != nil || len(paths) != 1 {
		t.Fatalf("%v, %v", paths, err)
	}
	m, err := mutate.New(e, paths[0])
	if err != nil {
		t.Fatal(err)
	}
	created := time.Unix(1700000000, 0)
	history := &ispec.History{Created: &created, CreatedBy: "a test"}
	added, err := m.Add(t.Context(), ispec.MediaTypeImageLayer, tarball(t), history, blobcompress.Gzip, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := m.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = umoci.Retry(t.Context(), func() error { return ext.UpdateReference(t.Context(), "1.1", changed.Root()) })
	if err != nil {
		t.Fatal(err)
	}

	api := newAPI(t)
	got, err := api.ManifestGet(t.Context(), dirRef(dir).WithTag("1.1"))
	if err != nil || !types.IsIndex(got.Descriptor().MediaType) {
		t.Fatalf("%v", err)
	}
	child, err := api.ManifestGet(t.Context(), dirRef(dir).WithDigest(changed.Descriptor().Digest))
	if err != nil {
		t.Fatal(err)
	}
	v, err := child.View()
	if err != nil || len(v.Layers) != 2 || v.Layers[1].Digest != added.Digest {
		t.Errorf("the layers are %v, %v", v.Layers, err)
	}
	var checker scheme.Checker
	if !scheme.As(api, dirRef(dir), &checker) {
		t.Fatal("a directory cannot be checked")
	}
	report, err := checker.Check(t.Context(), dirRef(dir), func(p scheme.Problem) error {
		t.Errorf("%s %s: %v", p.Kind, p.Digest, p.Err)
		return nil
	}, scheme.WithDeep())
	if err != nil || report.Manifests != 4 {
		t.Errorf("checked %+v, %v", report, err)
	}
}

func tarball(t *testing.T) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: 5, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}
