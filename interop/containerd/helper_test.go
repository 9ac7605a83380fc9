package containerd_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/ocisync/ocisync/interop/containerd"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types/ref"
)

func TestMain(m *testing.M) {
	if job := os.Getenv(childEnv); job != "" {
		child(job, os.Getenv(childDirEnv))
		return
	}
	goleak.VerifyTestMain(m)
}

// dirRef names the layout in dir.
func dirRef(dir string) ref.Ref { return ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir} }

// inDir returns a new value over the layout in dir, as a process that just started has one.
func inDir(t *testing.T, dir string) (*containerd.Store, scheme.API) {
	t.Helper()
	api := ocidir.New()
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	return containerd.New(api, dirRef(dir)), api
}

// fixture is a fresh Store, and what stands behind it.
type fixture struct {
	*containerd.Store
	api scheme.API
	r   ref.Ref
}

// everywhere runs test over every place that can be a content store.
func everywhere(t *testing.T, test func(t *testing.T, f fixture)) {
	t.Run("mem", func(t *testing.T) {
		api, r := mem.New(), ref.Ref{Scheme: mem.Scheme, Root: "x", Repo: "repo"}
		test(t, fixture{containerd.New(api, r), api, r})
	})
	t.Run("ocidir", func(t *testing.T) {
		dir := t.TempDir()
		s, api := inDir(t, dir)
		test(t, fixture{s, api, dirRef(dir)})
	})
}

// put stores data with labels, and returns its descriptor.
func put(t *testing.T, cs content.Store, data string, labels map[string]string) ocispec.Descriptor {
	t.Helper()
	return putAs(t, cs, digest.SHA256, data, labels)
}

func putAs(t *testing.T, cs content.Store, alg digest.Algorithm, data string, labels map[string]string) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: alg.FromString(data), Size: int64(len(data))}
	var opts []content.Opt
	if labels != nil {
		opts = append(opts, content.WithLabels(labels))
	}
	if err := content.WriteBlob(t.Context(), cs, "put-"+d.Digest.String(), strings.NewReader(data), d, opts...); err != nil {
		t.Fatal(err)
	}
	return d
}

// begin opens the ingest key and writes data.
func begin(t *testing.T, cs content.Ingester, key, data string, opts ...content.WriterOpt) content.Writer {
	t.Helper()
	w, err := cs.Writer(t.Context(), append(opts, content.WithRef(key))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	write(t, w, data)
	return w
}

func write(t *testing.T, w io.Writer, data string) {
	t.Helper()
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
}

// leave begins the ingest key and closes it.
func leave(t *testing.T, cs content.Ingester, key, data string, opts ...content.WriterOpt) {
	t.Helper()
	if err := begin(t, cs, key, data, opts...).Close(); err != nil {
		t.Fatal(err)
	}
}

func withSize(n int64) content.WriterOpt {
	return content.WithDescriptor(ocispec.Descriptor{Size: n})
}

// read returns the whole blob, verified.
func read(t *testing.T, p content.Provider, d digest.Digest) string {
	t.Helper()
	data, err := content.ReadBlob(t.Context(), p, ocispec.Descriptor{Digest: d})
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		t.Fatalf("the blob %s has the digest %s", d, got)
	}
	return string(data)
}

// is fails the test unless err is of the class that holds tests for.
func is(t *testing.T, what string, err error, holds func(error) bool) {
	t.Helper()
	if !holds(err) {
		t.Errorf("%s: %v: not the error it has to be", what, err)
	}
}

// walked returns the digests that Walk names, in its order.
func walked(t *testing.T, cs content.Store, fs ...string) []digest.Digest {
	t.Helper()
	var got []digest.Digest
	if err := cs.Walk(t.Context(), func(i content.Info) error {
		got = append(got, i.Digest)
		return nil
	}, fs...); err != nil {
		t.Fatal(err)
	}
	return got
}

func sameLabels(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: labels %v, want %v", what, got, want)
	}
}

// dead is a reader that must not be read.
type dead struct{ t *testing.T }

func (d dead) Read([]byte) (int, error) {
	d.t.Error("it was read")
	return 0, errors.New("must not be read")
}

// hidden is a reader that can neither seek nor anything else.
func hidden(data string) io.Reader {
	return struct{ io.Reader }{bytes.NewReader([]byte(data))}
}
