package umoci_test

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	umocidir "github.com/opencontainers/umoci/oci/cas/dir"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/opencontainers/umoci/pkg/hardening"

	"github.com/ocisync/ocisync/interop/umoci"
	"github.com/ocisync/ocisync/types/errs"
)

// Restated from umoci's oci/casext: what its code does over an Engine.

func TestReferences(t *testing.T) {
	e, dir := create(t)
	ext := casext.NewEngine(e)
	desc := image(t, e, "image")
	for name, valid := range map[string]bool{
		"":                                  false,
		"somepath392/":                      false,
		"some//test/hello":                  false,
		"deadb33fc4f3+123888+":              false,
		"anot++her":                         false,
		"dead-.meme/cafe":                   false,
		"/a/b/c123":                         false,
		"--21js8CAS":                        false,
		".AZ94n18s":                         false,
		":29a.158/2131--91ab":               false,
		"a":                                 true,
		"latest":                            true,
		"v1.3.1+dev":                        true,
		"A--2.C+9@e_3":                      true,
		"etc/passwd/123":                    true,
		"Aa0-Bb1/Cc2-Dd3.Ee4Ff5/Gg6:Hh7@Ii": true,
	} {
		own := desc
		own.Annotations = nil
		before := stored(t, dir)
		err := ext.UpdateReference(t.Context(), name, own)
		if (err == nil) != valid {
			t.Errorf("update %q: %v", name, err)
		}
		if !valid {
			if stored(t, dir) != before {
				t.Errorf("refusing %q changed the index", name)
			}
			continue
		}
		for _, from := range []*umoci.Engine{e, open(t, dir)} {
			paths, err := casext.NewEngine(from).ResolveReference(t.Context(), name)
			if err != nil || len(paths) != 1 || paths[0].Descriptor().Digest != desc.Digest {
				t.Errorf("%q resolves to %v, %v", name, paths, err)
			}
		}
		if _, err := newAPI(t).TagList(t.Context(), dirRef(dir)); err != nil { // not all of them are tags
			t.Errorf("with the reference %q the tags cannot be listed: %v", name, err)
		}
		for range 2 { // deleting what is not there is no error
			if err := ext.DeleteReference(t.Context(), name); err != nil {
				t.Errorf("delete %q: %v", name, err)
			}
		}
		if refs, err := ext.ListReferences(t.Context()); err != nil || len(refs) != 0 {
			t.Errorf("left are %v, %v", refs, err)
		}
	}
}

func TestAReferenceIsReplacedAndIsATagOfOurs(t *testing.T) {
	e, dir := create(t)
	ext := casext.NewEngine(e)
	a, b := image(t, e, "a"), image(t, e, "b")
	for _, d := range []ispec.Descriptor{a, b, a, b} {
		if err := ext.UpdateReference(t.Context(), "1.0", d); err != nil {
			t.Fatal(err)
		}
		m, err := newAPI(t).ManifestGet(t.Context(), dirRef(dir).WithTag("1.0"))
		if err != nil || m.Descriptor().Digest != d.Digest {
			t.Errorf("ours reads %v, want %s", err, d.Digest)
		}
	}
	if refs, err := ext.ListReferences(t.Context()); err != nil || !slices.Equal(refs, []string{"1.0"}) {
		t.Errorf("the references are %v, %v", refs, err)
	}
	if err := newAPI(t).TagDelete(t.Context(), dirRef(dir).WithTag("1.0")); err != nil {
		t.Fatal(err)
	}
	if paths, err := ext.ResolveReference(t.Context(), "1.0"); err != nil || len(paths) != 0 {
		t.Errorf("a tag that ours deleted resolves to %v, %v", paths, err)
	}
}

func TestNestedAndUnknownContentResolves(t *testing.T) {
	e, _ := create(t)
	ext := casext.NewEngine(e)
	a, b := image(t, e, "a"), image(t, e, "b")
	unknown := put(t, e, "application/vnd.example.unknown", []byte("whatever"))
	for name, c := range map[string]struct {
		root ispec.Descriptor
		want []digest.Digest
	}{
		"image":   {a, []digest.Digest{a.Digest}},
		"index":   {index(t, e, a, b), []digest.Digest{a.Digest, b.Digest}},
		"nested":  {index(t, e, index(t, e, index(t, e, b)), a), []digest.Digest{b.Digest, a.Digest}},
		"unknown": {unknown, []digest.Digest{}},
	} {
		if err := ext.UpdateReference(t.Context(), name, c.root); err != nil {
			t.Fatal(err)
		}
		paths, err := ext.ResolveReference(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got := []digest.Digest{}
		for _, p := range paths {
			if p.Root().Digest != c.root.Digest {
				t.Errorf("%s: the root is %s", name, p.Root().Digest)
			}
			if p.Descriptor().MediaType != unknown.MediaType {
				got = append(got, p.Descriptor().Digest)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s resolves to %v, want %v", name, got, c.want)
		}
	}
}

func TestVerifiedBlobs(t *testing.T) {
	e, _ := create(t)
	ext := casext.NewEngine(e)
	good := put(t, e, ispec.MediaTypeImageConfig, []byte("{}"))
	for name, c := range map[string]struct {
		change func(*ispec.Descriptor)
		want   error
	}{
		"good":                {func(*ispec.Descriptor) {}, nil},
		"embedded":            {func(d *ispec.Descriptor) { d.Data = []byte("{}") }, nil},
		"embedded, different": {func(d *ispec.Descriptor) { d.Data = []byte("[]") }, hardening.ErrDigestMismatch},
		"too small":           {func(d *ispec.Descriptor) { d.Size = 1 }, hardening.ErrDigestMismatch},
		"too large":           {func(d *ispec.Descriptor) { d.Size = 3 }, hardening.ErrSizeMismatch},
	} {
		d := good
		c.change(&d)
		rdr, err := ext.GetVerifiedBlob(t.Context(), d)
		if err == nil {
			_, err = io.ReadAll(rdr)
			err = errors.Join(err, rdr.Close())
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	d := good
	d.Size = -1
	if _, err := ext.GetVerifiedBlob(t.Context(), d); err == nil {
		t.Error("a negative size is accepted")
	}
}

func TestGC(t *testing.T) {
	e, dir := create(t)
	ext := casext.NewEngine(e)
	kept := index(t, e, image(t, e, "a"), image(t, e, "b"))
	if err := ext.UpdateReference(t.Context(), "kept", kept); err != nil {
		t.Fatal(err)
	}
	needed := blobs(t, e)
	orphan := put(t, e, "text/plain", []byte("orphan")).Digest

	boom := errors.New("boom")
	if err := ext.GC(t.Context(), func(context.Context, digest.Digest) (bool, error) { return false, boom }); !errors.Is(err, boom) {
		t.Errorf("a policy that fails: %v", err)
	}
	for _, yes := range []bool{false, true} {
		var asked []digest.Digest
		err := ext.GC(t.Context(), func(_ context.Context, d digest.Digest) (bool, error) {
			asked = append(asked, d)
			return yes, nil
		})
		if err != nil || !slices.Equal(asked, []digest.Digest{orphan}) {
			t.Errorf("the policy was asked about %v, %v", asked, err)
		}
		if got := len(blobs(t, e)) == len(needed); got != yes {
			t.Errorf("the policy says %v, and the blobs are %v", yes, blobs(t, e))
		}
	}
	if got := blobs(t, e); !slices.Equal(got, needed) {
		t.Errorf("left are %v, want %v", got, needed)
	}

	if err := ext.DeleteReference(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	if err := ext.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := blobs(t, e); len(got) != 0 {
		t.Errorf("without references there are %v", got)
	}
	if list, err := newAPI(t).TagList(t.Context(), dirRef(dir)); err != nil || len(list.Tags) != 0 {
		t.Errorf("ours has the tags %v, %v", list.Tags, err)
	}
}

// A layout that umoci's own engine made and one of ours are the same to both.
func TestUmocisOwnEngineBesideOurs(t *testing.T) {
	dir := t.TempDir() + "/image"
	if err := umocidir.Create(dir); err != nil {
		t.Fatal(err)
	}
	theirs, err := umocidir.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := theirs.Close(); err != nil {
			t.Error(err)
		}
	}()
	ours := open(t, dir)
	a, b := image(t, ours, "a"), image(t, ours, "b")
	if err := casext.NewEngine(theirs).UpdateReference(t.Context(), "theirs", a); err != nil {
		t.Fatal(err)
	}
	if err := casext.NewEngine(ours).UpdateReference(t.Context(), "ours", b); err != nil {
		t.Fatal(err)
	}
	for name, ext := range map[string]casext.Engine{"theirs": casext.NewEngine(theirs), "ours": casext.NewEngine(ours)} {
		for tag, want := range map[string]digest.Digest{"theirs": a.Digest, "ours": b.Digest} {
			paths, err := ext.ResolveReference(t.Context(), tag)
			if err != nil || len(paths) != 1 || paths[0].Descriptor().Digest != want {
				t.Errorf("%s resolves %s to %v, %v", name, tag, paths, err)
			}
		}
		if err := ext.GC(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got := blobs(t, ours); len(got) != 6 {
		t.Errorf("two images of three blobs each are %v", got)
	}
	if _, err := os.Stat(dir + "/blobs"); err != nil {
		t.Error(err)
	}
}

func TestErrorsStayOurs(t *testing.T) {
	e, _ := create(t)
	_, err := e.GetBlob(t.Context(), digest.FromString("missing"))
	is(t, "a missing blob", err, errs.ErrBlobUnknown)
	var detail *errs.Error
	if !errors.As(err, &detail) || detail.Digest != digest.FromString("missing") {
		t.Errorf("%v has lost its circumstances", err)
	}
}
