package ocidir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// filled makes a layout of n tags, each of another manifest, without the content: only the index has a size here.
func filled(b testing.TB, n int) ref.Ref {
	b.Helper()
	dir := b.TempDir()
	o, r := open(b), place(dir)
	if err := schemetest.Image("first").Push(b.Context(), o, r.WithTag("first")); err != nil {
		b.Fatal(err)
	}
	entries := make([]string, n)
	for i := range entries {
		entries[i] = entryJSON(fmt.Sprint("content ", i), fmt.Sprint("v1.0.", i))
	}
	raw := strings.Replace(indexJSON(entries...), "},{", "},\n{", -1)
	if err := os.WriteFile(filepath.Join(dir, indexName), []byte(raw), 0o644); err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkManifestPut puts new tags of small new images, durably.
func BenchmarkManifestPut(b *testing.B) {
	for _, tags := range []int{100, 1000, 10_000} {
		for _, writers := range []int{1, 16} {
			b.Run(fmt.Sprintf("tags=%d/writers=%d", tags, writers), func(b *testing.B) {
				o, r := open(b), filled(b, tags)
				if _, err := o.ManifestHead(b.Context(), r.WithTag("v1.0.0")); err == nil {
					b.Fatal("the content is not there, and its manifest is")
				}
				var n atomic.Int64
				b.SetParallelism((writers + 1) / 2) // times GOMAXPROCS
				b.ResetTimer()
				put := func() {
					it := schemetest.Opaque(fmt.Sprint(b.Name(), n.Add(1)))
					if _, err := o.ManifestPut(b.Context(), r.WithTag(fmt.Sprint("new-", n.Load())), it.Manifest); err != nil {
						b.Error(err)
					}
				}
				if writers == 1 {
					for b.Loop() {
						put()
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						put()
					}
				})
			})
		}
	}
}

func BenchmarkManifestHead(b *testing.B) {
	o, r := open(b), filled(b, 10_000)
	if err := schemetest.Opaque("head").Push(b.Context(), o, r.WithTag("head")); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := o.ManifestHead(b.Context(), r.WithTag("head")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenIndex(b *testing.B) {
	raw, err := os.ReadFile(filepath.Join(filled(b, 10_000).Root, indexName))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := parseIndex(raw, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBlobPut(b *testing.B) {
	data := schemetest.Blob("blob", 2048)
	o, r := open(b), place(b.TempDir())
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			rdr := strings.NewReader(fmt.Sprint(n.Add(1)) + string(data))
			if _, err := o.BlobPut(b.Context(), r, types.Descriptor{}, rdr); err != nil {
				b.Error(err)
			}
		}
	})
}
