package ocidir

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
)

// BenchmarkCollect collects one blob of garbage for each that is needed, while somebody tags. It reports what a blob
// costs, how long others were kept from committing at most, and what a put cost meanwhile.
func BenchmarkCollect(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o, r := open(b, WithDurability(None)), place(b.TempDir())
			it := schemetest.Opaque("tagged")
			if err := it.Push(b.Context(), o, r.WithTag("v1")); err != nil {
				b.Fatal(err)
			}
			var entries []types.Descriptor
			for i := range n {
				entries = append(entries, as(writeBlob(b, r, digest.SHA256, fmt.Sprintf(`{"n":%d}`, i)), "application/vnd.x", fmt.Sprint("t", i)))
			}
			if err := o.Close(); err != nil {
				b.Fatal(err)
			}
			foreignIndex(b, r, entries...)
			var longest, puts, took time.Duration
			for b.Loop() {
				b.StopTimer()
				for i := range n {
					writeBlob(b, r, digest.SHA256, fmt.Sprint("garbage ", i))
				}
				writer := New(WithDurability(None))
				var done atomic.Bool
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					for i := 0; !done.Load(); i++ {
						start := time.Now()
						if _, err := writer.ManifestPut(b.Context(), r.WithTag(fmt.Sprint("w", i%10)), it.Manifest); err != nil {
							b.Error(err)
						}
						took += time.Since(start)
						longest = max(longest, time.Since(start))
						puts++
					}
				}()
				c := New(WithDurability(None))
				b.StartTimer()
				rep, err := c.Collect(b.Context(), r, scheme.WithGrace(0))
				b.StopTimer()
				if err != nil || len(rep.Removed) < n {
					b.Fatal(len(rep.Removed), err)
				}
				done.Store(true)
				<-stopped
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
				if err := writer.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/blob")
			b.ReportMetric(float64(longest.Microseconds())/1000, "ms/longest-put")
			b.ReportMetric(float64(took.Microseconds())/1000/float64(max(puts, 1)), "ms/put")
		})
	}
}
