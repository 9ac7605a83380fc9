package umoci_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apex/log"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/ocisync/ocisync/interop/umoci"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types/ref"
)

func TestMain(m *testing.M) {
	log.SetLevel(log.ErrorLevel) // umoci tells of every blob that it does not parse
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// dirRef names the layout in dir.
func dirRef(dir string) ref.Ref { return ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir} }

// newAPI returns our API, as a process that just started has it.
func newAPI(t *testing.T, opts ...ocidir.Option) scheme.API {
	t.Helper()
	api := ocidir.New(opts...)
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	return api
}

// create makes a fresh image and returns its directory as well.
func create(t *testing.T, opts ...umoci.Option) (*umoci.Engine, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "image")
	e, err := umoci.Create(t.Context(), newAPI(t), dirRef(dir), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, e), dir
}

// open opens an image with an API of its own.
func open(t *testing.T, dir string, opts ...umoci.Option) *umoci.Engine {
	t.Helper()
	e, err := umoci.Open(t.Context(), newAPI(t), dirRef(dir), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, e)
}

func closing(t *testing.T, e *umoci.Engine) *umoci.Engine {
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// is fails the test unless err is all of wants.
func is(t *testing.T, what string, err error, wants ...error) {
	t.Helper()
	for _, want := range wants {
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
}

// put stores data as a blob of the type mt.
func put(t *testing.T, e *umoci.Engine, mt string, data []byte) ispec.Descriptor {
	t.Helper()
	d, size, err := e.PutBlob(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return ispec.Descriptor{MediaType: mt, Digest: d, Size: size}
}

func putJSON(t *testing.T, e *umoci.Engine, mt string, doc any) ispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return put(t, e, mt, data)
}

// image stores an image of one layer, different for every name.
func image(t *testing.T, e *umoci.Engine, name string) ispec.Descriptor {
	t.Helper()
	m := ispec.Manifest{
		MediaType: ispec.MediaTypeImageManifest,
		Config:    putJSON(t, e, ispec.MediaTypeImageConfig, ispec.Image{Author: name}),
		Layers:    []ispec.Descriptor{put(t, e, ispec.MediaTypeImageLayer, []byte("layer of "+name))},
	}
	m.SchemaVersion = 2
	return putJSON(t, e, m.MediaType, m)
}

// index stores an index over children.
func index(t *testing.T, e *umoci.Engine, children ...ispec.Descriptor) ispec.Descriptor {
	t.Helper()
	return putJSON(t, e, ispec.MediaTypeImageIndex, topLevel(children...))
}

func topLevel(entries ...ispec.Descriptor) ispec.Index {
	idx := ispec.Index{MediaType: ispec.MediaTypeImageIndex, Manifests: entries}
	idx.SchemaVersion = 2
	return idx
}

func read(t *testing.T, e *umoci.Engine, d digest.Digest) string {
	t.Helper()
	rdr, err := e.GetBlob(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rdr)
	if err != nil {
		t.Fatal(err)
	}
	if err := rdr.Close(); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func blobs(t *testing.T, e *umoci.Engine) []digest.Digest {
	t.Helper()
	all, err := e.ListBlobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// stored returns index.json as it is.
func stored(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), umoci.AnnotationState) {
		t.Errorf("the mark of a state is stored: %s", data)
	}
	return string(data)
}

func overwrite(t *testing.T, data string, name ...string) {
	t.Helper()
	path := filepath.Join(name...)
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}
