package ocidir

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
)

// repeated is n times the same bytes, and then a number.
func repeated(part []byte, n, number int) io.Reader {
	all := make([]io.Reader, n, n+1)
	for i := range all {
		all[i] = bytes.NewReader(part)
	}
	return io.MultiReader(append(all, bytes.NewReader(fmt.Append(nil, number)))...)
}

// BenchmarkLargeBlobPut puts 1 GiB, durably, from memory: bytes of which nothing is known, and a stream that verifies
// itself, as a registry's is.
func BenchmarkLargeBlobPut(b *testing.B) {
	const parts = 1024
	part := schemetest.Blob("part", 1<<20)
	for name, verified := range map[string]bool{"unknown": false, "verified": true} {
		b.Run(name, func(b *testing.B) {
			o, r := open(b), place(b.TempDir())
			b.SetBytes(parts << 20)
			for i := range b.N {
				want := types.Descriptor{}
				rdr := repeated(part, parts, i)
				if verified {
					b.StopTimer()
					d, err := digest.FromReader(repeated(part, parts, i))
					if err != nil {
						b.Fatal(err)
					}
					want = types.Descriptor{Digest: d, Size: parts<<20 + int64(len(fmt.Sprint(i)))}
					if rdr, err = blob.NewReader(io.NopCloser(rdr), want); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				d, err := o.BlobPut(b.Context(), r, want, rdr)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := o.BlobDelete(b.Context(), r, d); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
