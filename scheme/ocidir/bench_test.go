package ocidir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/ref"
)

// sizes are the numbers of tags that are measured.
var sizes = []int{100, 1000, 10_000, 50_000}

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
	if _, err := o.ManifestHead(b.Context(), r.WithTag("v1.0.0")); err == nil {
		b.Fatal("the content is not there, and its manifest is")
	}
	// What is not about this layout must not be synced with it. The first commit copies the index once.
	if err := schemetest.Opaque("second").Push(b.Context(), o, r.WithTag("second")); err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkManifestPut puts new tags of small new manifests, durably: one after another, by 16 writers of one process,
// and by two processes with 8 writers each. ms/put is the time that passes divided by the number of puts.
func BenchmarkManifestPut(b *testing.B) {
	for _, tags := range sizes {
		for name, put := range map[string]func(*testing.B, ref.Ref){
			"writers=1":   func(b *testing.B, r ref.Ref) { putAtOnce(b, r, 1) },
			"writers=16":  func(b *testing.B, r ref.Ref) { putAtOnce(b, r, 16) },
			"writers=2x8": putByProcesses,
		} {
			b.Run(fmt.Sprintf("tags=%d/%s", tags, name), func(b *testing.B) {
				r := filled(b, tags)
				put(b, r)
				b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/put")
			})
		}
	}
}

func putAtOnce(b *testing.B, r ref.Ref, writers int) {
	o := open(b)
	if _, err := o.TagList(b.Context(), r); err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				it := schemetest.Opaque(fmt.Sprint(b.Name(), i))
				if _, err := o.ManifestPut(b.Context(), r.WithTag(fmt.Sprint("new-", i)), it.Manifest); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

func putByProcesses(b *testing.B, r ref.Ref) {
	c := startCrowd(b, r.Root, 2, 8, (b.N+1)/2)
	b.ResetTimer()
	c.run()
	b.StopTimer()
}

// BenchmarkOpen is what a process does that meets a layout for the first time: open it, read the index, and find a tag.
func BenchmarkOpen(b *testing.B) {
	for _, tags := range sizes {
		b.Run(fmt.Sprintf("tags=%d", tags), func(b *testing.B) {
			r := filled(b, tags)
			for b.Loop() {
				o := New()
				if _, err := o.ManifestHead(b.Context(), r.WithTag("second")); err != nil {
					b.Fatal(err)
				}
				if err := o.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkManifestHead(b *testing.B) {
	for _, tags := range sizes {
		b.Run(fmt.Sprintf("tags=%d", tags), func(b *testing.B) {
			o, r := open(b), filled(b, tags)
			for b.Loop() {
				if _, err := o.ManifestHead(b.Context(), r.WithTag("second")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkManifestGet(b *testing.B) {
	for _, tags := range sizes {
		b.Run(fmt.Sprintf("tags=%d", tags), func(b *testing.B) {
			o, r := open(b), filled(b, tags)
			for b.Loop() {
				if _, err := o.ManifestGet(b.Context(), r.WithTag("second")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTagPage lists 100 tags, of an index that was listed before, and of one that another tag was put to since: the
// order must not be made anew for that.
func BenchmarkTagPage(b *testing.B) {
	for _, tags := range sizes {
		page := func(b *testing.B, o *OCIDir, r ref.Ref) {
			if l, err := o.TagList(b.Context(), r, scheme.WithTagLimit(100), scheme.WithTagLast("v1.0.0")); err != nil || len(l.Tags) < 99 {
				b.Fatal(len(l.Tags), err)
			}
		}
		b.Run(fmt.Sprintf("tags=%d", tags), func(b *testing.B) {
			o, r := open(b), filled(b, tags)
			for b.Loop() {
				page(b, o, r)
			}
		})
		b.Run(fmt.Sprintf("tags=%d/after-a-put", tags), func(b *testing.B) {
			o, r := open(b), filled(b, tags)
			page(b, o, r)
			n, pages := 0, time.Duration(0) // the puts, too, use up the time of the benchmark
			for ; b.Loop(); n++ {
				if err := schemetest.Opaque("x").Push(b.Context(), o, r.WithTag(fmt.Sprint("x", n))); err != nil {
					b.Fatal(err)
				}
				begin := time.Now()
				page(b, o, r)
				pages += time.Since(begin)
			}
			b.ReportMetric(float64(pages.Nanoseconds())/float64(n), "ns/page")
		})
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
