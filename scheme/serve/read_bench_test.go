package serve_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"

	"bytes"
)

// sink is a ResponseWriter that throws everything away.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

// What a read costs in our own code and the file system, without net/http and the network: bench/serve has the whole.
func BenchmarkRead(b *testing.B) {
	root := ref.Ref{Scheme: ref.SchemeOCIDir, Root: b.TempDir()}
	api := ocidir.New(ocidir.WithDurability(ocidir.None))
	defer api.Close()
	r := root.WithRepo("bench/app")
	small, err := api.BlobPut(b.Context(), r, types.Descriptor{}, bytes.NewReader(schemetest.Blob("small", 64<<10)))
	if err != nil {
		b.Fatal(err)
	}
	large, err := api.BlobPut(b.Context(), r, types.Descriptor{}, bytes.NewReader(schemetest.Blob("large", 100<<10)))
	if err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		m, err := manifest.New(fmt.Appendf(nil, "manifest %d", i), manifest.WithMediaType("text/x-test"))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := api.ManifestPut(b.Context(), r.WithTag(fmt.Sprintf("v%d", i)), m); err != nil {
			b.Fatal(err)
		}
	}
	for name, path := range map[string]string{
		"manifest by tag": "manifests/v7", "blob of 64 KiB": "blobs/" + string(small.Digest), "blob of 100 KiB": "blobs/" + string(large.Digest), "tags": "tags/list",
	} {
		for _, logged := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s, log %v", name, logged), func(b *testing.B) {
				reader := ocidir.New()
				defer reader.Close()
				var opts []serve.Option
				if logged {
					opts = append(opts, serve.WithInspector(serve.AccessLog(slog.New(slog.NewTextHandler(io.Discard, nil)))))
				}
				s, err := serve.New(reader, root, opts...)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Shutdown(context.Background())
				req, err := http.NewRequest("GET", "http://localhost/v2/bench/app/"+path, nil)
				if err != nil {
					b.Fatal(err)
				}
				req.RemoteAddr = "127.0.0.1:1234"
				b.ReportAllocs()
				for b.Loop() {
					s.ServeHTTP(&sink{http.Header{}}, req)
				}
			})
		}
	}
}
