package containerd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/manifest"
)

// What containerd's own helpers do with a Store.

func TestWriteBlobOfWhatIsThereReadsNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		d := put(t, f, "content", nil)
		if err := content.WriteBlob(t.Context(), f, "again", dead{t}, d); err != nil {
			t.Error(err)
		}
	})
}

func TestCopyGoesOnWhereItWasLeft(t *testing.T) {
	const data = "0123456789"
	want := ocispec.Descriptor{Digest: digest.FromString(data), Size: 10}
	for name, reader := range map[string]func() io.Reader{
		"a stream": func() io.Reader { return hidden(data) },
		"a seeker": func() io.Reader { return strings.NewReader(data) },
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, f fixture) {
				leave(t, f, "key", "0123", content.WithDescriptor(want))
				if err := content.WriteBlob(t.Context(), f, "key", reader(), want); err != nil {
					t.Fatal(err)
				}
				if got := read(t, f, want.Digest); got != data {
					t.Errorf("it reads %q", got)
				}
			})
		})
	}
}

func TestCopyRefusesWrongContent(t *testing.T) {
	want := ocispec.Descriptor{Digest: digest.FromString("0123456789"), Size: 10}
	everywhere(t, func(t *testing.T, f fixture) {
		for name, data := range map[string]string{"wrong": "012345678x", "long": "0123456789x"} {
			err := content.WriteBlob(t.Context(), f, name, hidden(data), want)
			is(t, name, err, errdefs.IsFailedPrecondition)
		}
		if err := content.WriteBlob(t.Context(), f, "short", hidden("01234"), want); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("short: %v", err)
		}
		if ok, err := content.Exists(t.Context(), f, want); ok || err != nil {
			t.Errorf("exists: %v, %v", ok, err)
		}
	})
}

func TestOpenWriterWaitsForTheRef(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		w := begin(t, f, "key", "01234")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := content.OpenWriter(ctx, refused{f, nil}, content.WithRef("key"))
		is(t, "the context ended", err, errdefs.IsUnavailable)

		met := make(chan struct{})
		opened := make(chan content.Writer)
		go func() {
			w, err := content.OpenWriter(t.Context(), refused{f, met}, content.WithRef("key"))
			if err != nil {
				t.Error(err)
			}
			opened <- w
		}()
		<-met // it has found the ref locked
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		second := <-opened
		if st, err := second.Status(); err != nil || st.Offset != 5 {
			t.Errorf("%+v, %v", st, err)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
}

// refused tells of the first time that a writer was refused.
type refused struct {
	content.Ingester
	met chan struct{}
}

func (r refused) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	if ctx.Err() != nil { // the place answers with the end of the context; here the refusal is asked for
		ctx = context.WithoutCancel(ctx)
	}
	w, err := r.Ingester.Writer(ctx, opts...)
	if errdefs.IsUnavailable(err) && r.met != nil {
		select {
		case <-r.met:
		default:
			close(r.met)
		}
	}
	return w, err
}

func TestReadHelpers(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		d := put(t, f, "0123456789", nil)
		if ok, err := content.Exists(t.Context(), f, d); !ok || err != nil {
			t.Errorf("exists: %v, %v", ok, err)
		}
		rs, err := content.BlobReadSeeker(t.Context(), f, d)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(rs, []byte("0123456789")); err != nil {
			t.Error(err)
		}
		ra, err := f.ReaderAt(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		defer ra.Close()
		w := begin(t, f, "copy", "")
		if err := content.CopyReaderAt(w, ra, 4); err != nil {
			t.Fatal(err)
		}
		if n, err := content.CopyReader(w, hidden("0123abc")); n != 3 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if w.Digest() != digest.FromString("0123abc") {
			t.Errorf("copied is %s", w.Digest())
		}
	})
}

// pushReferrers pushes an image and two referrers of it, and a referrer of one of those.
func pushReferrers(t *testing.T, f fixture) (subject ocispec.Descriptor, referrers []digest.Digest) {
	t.Helper()
	image := schemetest.Image("image")
	a := schemetest.Image("a", schemetest.Subject(image.Descriptor()), schemetest.ArtifactType("application/vnd.example.a"))
	b := schemetest.Image("b", schemetest.Subject(image.Descriptor()), schemetest.ArtifactType("application/vnd.example.b"))
	c := schemetest.Image("c", schemetest.Subject(a.Descriptor()), schemetest.ArtifactType("application/vnd.example.c"))
	for _, it := range []*schemetest.Item{image, a, b, c} {
		r := f.r.WithDigest(it.Descriptor().Digest)
		if it == image {
			r = f.r.WithTag("1.0")
		}
		if err := it.Push(t.Context(), f.api, r); err != nil {
			t.Fatal(err)
		}
	}
	return image.Descriptor(), []digest.Digest{a.Descriptor().Digest, b.Descriptor().Digest}
}

func TestImagesWalk(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		subject, referrers := pushReferrers(t, f)
		var seen []digest.Digest
		note := images.HandlerFunc(func(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			seen = append(seen, d.Digest)
			return nil, nil
		})
		if err := images.Walk(t.Context(), images.Handlers(note, images.ChildrenHandler(f)), subject); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 4 {
			t.Errorf("walked %v, want manifest, config and two layers", seen)
		}
		seen = nil
		err := images.Walk(t.Context(), images.Handlers(note, images.SetReferrers(f, images.ChildrenHandler(f))), subject)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range referrers {
			if !slices.Contains(seen, d) {
				t.Errorf("the referrer %s was not walked", d)
			}
		}
	})
}

func TestSetChildrenLabels(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		m, _ := writeImage(t, f)
		handler := images.SetChildrenLabels(f, images.ChildrenHandler(f))
		if err := images.Walk(t.Context(), handler, m.Descriptor()); err != nil {
			t.Fatal(err)
		}
		v, err := m.View()
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Info(t.Context(), m.Descriptor().Digest)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"containerd.io/gc.ref.content.config": string(v.Config.Digest)}
		for i, l := range v.Layers {
			want[fmt.Sprint("containerd.io/gc.ref.content.l.", i)] = string(l.Digest)
		}
		sameLabels(t, "the manifest", info.Labels, want)
		got := walked(t, f, `labels."containerd.io/gc.ref.content.l.0"==`+string(v.Layers[0].Digest))
		if !slices.Equal(got, []digest.Digest{m.Descriptor().Digest}) {
			t.Errorf("filtered by its label: %v", got)
		}
	})
}

// writeImage writes an image through containerd's interface only.
func writeImage(t *testing.T, cs content.Store) (*manifest.Manifest, []ocispec.Descriptor) {
	t.Helper()
	config := put(t, cs, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, nil)
	config.MediaType = ocispec.MediaTypeImageConfig
	layers := []ocispec.Descriptor{put(t, cs, "layer 0", nil), put(t, cs, "layer 1", nil)}
	doc := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers}
	doc.SchemaVersion = 2
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	put(t, cs, string(raw), nil)
	m, err := manifest.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	return m, append(layers, config)
}

func TestWhatContainerdWritesBecomesAnImage(t *testing.T) {
	everywhere(t, func(t *testing.T, f fixture) {
		m, _ := writeImage(t, f)
		if _, err := f.api.ManifestPut(t.Context(), f.r.WithTag("1.0"), m); err != nil {
			t.Fatal(err)
		}
		got, err := f.api.ManifestGet(t.Context(), f.r.WithTag("1.0"))
		if err != nil || string(got.Raw()) != string(m.Raw()) {
			t.Errorf("%v", err)
		}
	})
}

func TestFetchGoesOnAfterABrokenConnection(t *testing.T) {
	data := string(schemetest.Blob("layer", 100_000))
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(data), Size: int64(len(data))}
	everywhere(t, func(t *testing.T, f fixture) {
		src := &flaky{data: data, breakAt: 60_000}
		if err := remotes.Fetch(t.Context(), f, src, d); !errors.Is(err, errBroken) {
			t.Fatalf("a connection that breaks: %v", err)
		}
		all, err := f.ListStatuses(t.Context())
		if err != nil || len(all) != 1 || all[0].Offset == 0 || all[0].Offset > 60_000 || all[0].Total != d.Size {
			t.Fatalf("kept is %+v, %v", all, err)
		}
		src.breakAt = len(data) + 1
		if err := remotes.Fetch(t.Context(), f, src, d); err != nil {
			t.Fatal(err)
		}
		if src.from != all[0].Offset {
			t.Errorf("it was fetched again from %d, kept were %d bytes", src.from, all[0].Offset)
		}
		if got := read(t, f, d.Digest); got != data {
			t.Error("it reads as something else")
		}
	})
}

var errBroken = errors.New("the connection broke")

// flaky is a registry whose connections break.
type flaky struct {
	data    string
	breakAt int
	from    int64 // where the last one began
}

func (f *flaky) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	f.from = 0
	return &flakyBody{f: f}, nil
}

type flakyBody struct {
	f   *flaky
	pos int64
}

func (b *flakyBody) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, errors.New("only from the start")
	}
	b.pos, b.f.from = offset, offset
	return offset, nil
}

func (b *flakyBody) Read(p []byte) (int, error) {
	end := min(len(b.f.data), b.f.breakAt)
	if b.pos >= int64(end) {
		if end == len(b.f.data) {
			return 0, io.EOF
		}
		return 0, errBroken
	}
	n := copy(p, b.f.data[b.pos:end])
	b.pos += int64(n)
	return n, nil
}

func (b *flakyBody) Close() error { return nil }
