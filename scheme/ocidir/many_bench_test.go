package ocidir

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
)

// BenchmarkManySmallBlobs puts 3,000 blobs of 2 KiB and an image of them, durably: each by itself, or all together.
func BenchmarkManySmallBlobs(b *testing.B) {
	data := string(schemetest.Blob("small", 2048))
	for name, together := range map[string]bool{"one by one": false, "together": true} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				o, r := New(), place(b.TempDir())
				var layers []func(*schemetest.Doc)
				for i := range 3000 {
					var err error
					var d types.Descriptor
					if together {
						d, err = o.BlobPut(b.Context(), r, types.Descriptor{}, strings.NewReader(fmt.Sprint(i)+data), deferred)
					} else {
						d, err = o.BlobPut(b.Context(), r, types.Descriptor{}, strings.NewReader(fmt.Sprint(i)+data))
					}
					if err != nil {
						b.Fatal(err)
					}
					layers = append(layers, schemetest.Layer(d))
				}
				if err := schemetest.Image("image", layers...).Push(b.Context(), o, r.WithTag("v1")); err != nil {
					b.Fatal(err)
				}
				if err := o.Close(); err != nil {
					b.Error(err)
				}
			}
		})
	}
}
