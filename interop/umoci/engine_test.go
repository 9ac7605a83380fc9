package umoci_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/cas"
	umocidir "github.com/opencontainers/umoci/oci/cas/dir"
	"github.com/opencontainers/umoci/pkg/hardening"

	"github.com/ocisync/ocisync/interop/umoci"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// Restated from umoci's oci/cas/dir: what a cas.Engine over a directory has to do.

func TestCreate(t *testing.T) {
	e, dir := create(t)
	idx, err := e.GetIndex(t.Context())
	if err != nil || len(idx.Manifests) != 0 {
		t.Errorf("a new image has the manifests %v, %v", idx.Manifests, err)
	}
	if all := blobs(t, e); all == nil || len(all) != 0 {
		t.Errorf("a new image has the blobs %v", all)
	}
	_, err = umoci.Create(t.Context(), newAPI(t), dirRef(dir))
	is(t, "create again", err, cas.ErrClobber)

	foreign := t.TempDir()
	overwrite(t, "precious", foreign, "somebody's file")
	_, err = umoci.Create(t.Context(), newAPI(t), dirRef(foreign))
	is(t, "create among foreign files", err, cas.ErrClobber)
	if _, err := os.Stat(filepath.Join(foreign, "index.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left an index: %v", err)
	}

	theirs, err := umocidir.Open(dir)
	if err != nil {
		t.Fatalf("umoci's own engine does not open it: %v", err)
	}
	if err := theirs.Close(); err != nil {
		t.Error(err)
	}
}

func TestBlobs(t *testing.T) {
	e, _ := create(t)
	for _, data := range []string{"", "some blob", "another blob"} {
		want := digest.FromString(data)
		d, size, err := e.PutBlob(t.Context(), strings.NewReader(data))
		if d != want || size != int64(len(data)) || err != nil {
			t.Fatalf("put %q: %s, %d, %v", data, d, size, err)
		}
		if d, _, err = e.PutBlob(t.Context(), strings.NewReader(data)); d != want || err != nil {
			t.Errorf("put %q again: %s, %v", data, d, err)
		}
		if got := read(t, e, d); got != data {
			t.Errorf("%q reads as %q", data, got)
		}
		if there, err := e.StatBlob(t.Context(), d); !there || err != nil { // umoci's own says false: it looks elsewhere
			t.Errorf("stat %q: %v, %v", data, there, err)
		}
		if all := blobs(t, e); !slices.Equal(all, []digest.Digest{d}) {
			t.Errorf("the blobs are %v", all)
		}
		for range 2 { // deleting what is not there is no error
			if err := e.DeleteBlob(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		_, err = e.GetBlob(t.Context(), d)
		is(t, "get what was deleted", err, cas.ErrNotExist, os.ErrNotExist)
		there, err := e.StatBlob(t.Context(), d)
		if is(t, "stat what was deleted", err, cas.ErrNotExist); there {
			t.Error("it is there all the same")
		}
	}
	boom := errors.New("boom")
	if _, _, err := e.PutBlob(t.Context(), io.MultiReader(strings.NewReader("half"), failing{boom})); !errors.Is(err, boom) {
		t.Errorf("a reader that fails: %v", err)
	}
	if all := blobs(t, e); len(all) != 0 {
		t.Errorf("left are %v", all)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestListBlobsKnowsAllAlgorithmsAndNoJunk(t *testing.T) {
	api, dir := newAPI(t), t.TempDir()
	var want []digest.Digest
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		d, err := api.BlobPut(t.Context(), dirRef(dir), types.Descriptor{Digest: alg.FromString("x")}, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, d.Digest)
	}
	overwrite(t, "junk", dir, "blobs", "sha256", "junk")
	overwrite(t, "junk", dir, "blobs", "sha256", strings.Repeat("A", 64))
	e := open(t, dir)
	if all := blobs(t, e); !slices.Equal(all, want) {
		t.Errorf("the blobs are %v, want %v", all, want)
	}
	for _, d := range want {
		if got := read(t, e, d); got != "x" {
			t.Errorf("%s reads as %q", d, got)
		}
	}
}

func TestDamagedBlobs(t *testing.T) {
	for name, data := range map[string]string{"changed": "preCious", "short": "prec", "long": "precious and more"} {
		e, dir := create(t)
		d := put(t, e, "text/plain", []byte("precious"))
		path := filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded())
		overwrite(t, data, path)
		e = open(t, dir)
		rdr, err := e.GetBlob(t.Context(), d.Digest)
		if err == nil {
			_, err = io.ReadAll(rdr)
			is(t, name+", read", err, hardening.ErrDigestMismatch)
			is(t, name+", close", rdr.Close(), hardening.ErrDigestMismatch)
			if rdr, err = e.GetBlob(t.Context(), d.Digest); err == nil { // Close reads what nobody has read
				is(t, name+", close at once", rdr.Close(), hardening.ErrDigestMismatch)
			}
		}
		if err != nil && !errors.Is(err, hardening.ErrDigestMismatch) { // it may be known by now, and set aside
			is(t, name+", get", err, cas.ErrNotExist)
		}
		put(t, e, "text/plain", []byte("precious"))
		if got := read(t, e, d.Digest); got != "precious" {
			t.Errorf("put again it reads as %q", got)
		}
	}
}

func TestOpenRefusesWhatIsNoImage(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
	}{
		{"an empty directory", func(t *testing.T, dir string) { empty(t, dir) }},
		{"oci-layout is no JSON", func(t *testing.T, dir string) { overwrite(t, "invalid JSON", dir, "oci-layout") }},
		{"oci-layout has no version", func(t *testing.T, dir string) { overwrite(t, "{}", dir, "oci-layout") }},
		{"there is no oci-layout", func(t *testing.T, dir string) { remove(t, dir, "oci-layout") }},
		{"there is no index.json", func(t *testing.T, dir string) { remove(t, dir, "index.json") }},
		{"index.json is a directory", func(t *testing.T, dir string) {
			remove(t, dir, "index.json")
			overwrite(t, "", dir, "index.json", "file")
		}},
		{"index.json is no JSON", func(t *testing.T, dir string) { overwrite(t, "{", dir, "index.json") }},
		{"there is no directory", func(t *testing.T, dir string) { remove(t, dir) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, dir := create(t)
			c.spoil(t, dir)
			e, err := umoci.Open(t.Context(), newAPI(t), dirRef(dir))
			is(t, "open", err, cas.ErrInvalid)
			if e != nil {
				t.Error("there is an engine beside the error")
			}
		})
	}
}

// umoci's own engine refuses to open these two. An Engine stands before a place, whose files are not its business: such
// a layout has no blobs.
func TestAnImageWithoutBlobs(t *testing.T) {
	for name, isFile := range map[string]bool{"there is no blobs": false, "blobs is a file": true} {
		_, dir := create(t)
		remove(t, dir, "blobs")
		if isFile {
			overwrite(t, "", dir, "blobs")
		}
		e := open(t, dir)
		_, err := e.GetBlob(t.Context(), digest.FromString("x"))
		is(t, name+", get", err, cas.ErrNotExist)
		_, err = e.StatBlob(t.Context(), digest.FromString("x"))
		is(t, name+", stat", err, cas.ErrNotExist)
		if all, err := e.ListBlobs(t.Context()); len(all) != 0 || err != nil && !isFile {
			t.Errorf("%s: the blobs are %v, %v", name, all, err)
		}
		if _, _, err = e.PutBlob(t.Context(), strings.NewReader("x")); (err != nil) != isFile {
			t.Errorf("%s, put: %v", name, err)
		}
	}
}

func remove(t *testing.T, name ...string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(name...)); err != nil {
		t.Fatal(err)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	remove(t, dir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestAReadOnlyImage(t *testing.T) {
	e, dir := create(t)
	d := put(t, e, "text/plain", []byte("x"))
	ro, err := umoci.Open(t.Context(), scheme.ReadOnly(newAPI(t)), dirRef(dir))
	if err != nil {
		t.Fatal(err)
	}
	idx, err := ro.GetIndex(t.Context())
	if err != nil || read(t, ro, d.Digest) != "x" || len(blobs(t, ro)) != 1 {
		t.Errorf("it cannot be read: %v", err)
	}
	_, _, err = ro.PutBlob(t.Context(), strings.NewReader("y"))
	is(t, "put", err, cas.ErrNotImplemented)
	is(t, "delete", ro.DeleteBlob(t.Context(), d.Digest), cas.ErrNotImplemented)
	is(t, "put index", ro.PutIndex(t.Context(), idx), cas.ErrNotImplemented)
	is(t, "clean", ro.Clean(t.Context()), cas.ErrNotImplemented)
	if got := blobs(t, e); !slices.Equal(got, []digest.Digest{d.Digest}) {
		t.Errorf("then there are %v", got)
	}
}

// TestTheFiveErrors: umoci's own engine returns ErrInvalid only.
func TestTheFiveErrors(t *testing.T) {
	e, dir := create(t)
	ctx := t.Context()
	_, err := e.GetBlob(ctx, digest.FromString("missing"))
	is(t, "a missing blob", err, cas.ErrNotExist)

	for _, d := range []digest.Digest{"", "sha256:x", "sha256:../../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		_, err = e.GetBlob(ctx, d)
		is(t, "get "+string(d), err, cas.ErrInvalid)
		_, err = e.StatBlob(ctx, d)
		is(t, "stat "+string(d), err, cas.ErrInvalid)
		is(t, "delete "+string(d), e.DeleteBlob(ctx, d), cas.ErrInvalid)
	}

	list := topLevel()
	list.MediaType = types.MediaTypeDockerManifestList
	is(t, "an index of another type", e.PutIndex(ctx, list), cas.ErrUnknownType)
	before := stored(t, dir)
	overwrite(t, `{"schemaVersion":2,"mediaType":"`+list.MediaType+`","manifests":[]}`, dir, "index.json")
	_, err = e.GetIndex(ctx)
	is(t, "somebody else's index of another type", err, cas.ErrUnknownType)
	overwrite(t, before, dir, "index.json")

	_, err = umoci.Open(ctx, mem.New(), ref.Ref{Scheme: mem.Scheme, Root: "x", Repo: "repo"})
	is(t, "a place without an index", err, cas.ErrNotImplemented)

	idx, err := e.GetIndex(ctx)
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, dir)
	if err := other.PutIndex(ctx, topLevel(ispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("x"), Size: 1})); err != nil {
		t.Fatal(err)
	}
	is(t, "an index that was changed meanwhile", e.PutIndex(ctx, idx), cas.ErrClobber)

	remove(t, dir, "index.json")
	_, err = open2(t, dir)
	is(t, "no index", err, cas.ErrInvalid)
}

func open2(t *testing.T, dir string) (*umoci.Engine, error) {
	t.Helper()
	return umoci.Open(t.Context(), newAPI(t), dirRef(dir))
}

func TestAClosedEngine(t *testing.T) {
	e, _ := create(t)
	ctx := t.Context()
	for range 2 {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	d := digest.FromString("x")
	_, _, err := e.PutBlob(ctx, strings.NewReader("x"))
	is(t, "put", err, os.ErrClosed)
	_, err = e.GetBlob(ctx, d)
	is(t, "get", err, os.ErrClosed)
	_, err = e.StatBlob(ctx, d)
	is(t, "stat", err, os.ErrClosed)
	_, err = e.GetIndex(ctx)
	is(t, "get index", err, os.ErrClosed)
	_, err = e.ListBlobs(ctx)
	is(t, "list", err, os.ErrClosed)
	is(t, "put index", e.PutIndex(ctx, topLevel()), os.ErrClosed)
	is(t, "delete", e.DeleteBlob(ctx, d), os.ErrClosed)
	is(t, "clean", e.Clean(ctx), os.ErrClosed)
}
