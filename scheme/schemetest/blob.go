package schemetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

var blobCases = []testCase{
	{
		name: "roundtrip",
		rule: "what BlobPut stored, BlobGet and BlobHead give back: the same bytes, digest and size, at every size",
		run: func(e *env) {
			for _, size := range []int{0, 1, 4096, e.h.BlobSize} {
				data := Blob(fmt.Sprint("roundtrip ", size), size)
				d := e.put(e.r, data)
				e.same("BlobPut: digest", d.Digest, digest.FromBytes(data))
				e.same("BlobPut: size", d.Size, int64(size))
				e.holds(e.r, d.Digest, data)
			}
		},
	}, {
		name:  "roundtrip of other algorithms",
		rule:  "sha384 and sha512 are digests like sha256",
		needs: []Feature{SHA512},
		run: func(e *env) {
			for _, alg := range []digest.Algorithm{digest.SHA512, digest.SHA384} {
				data := Blob("algorithm", 5000)
				want := types.Descriptor{Digest: alg.FromBytes(data), Size: 5000}
				d, err := e.api.BlobPut(e.ctx, e.r, want, bytes.NewReader(data))
				e.must("BlobPut", err)
				e.same("BlobPut: digest", d.Digest, want.Digest)
				e.holds(e.r, want.Digest, data)
			}
			e.lacks(e.r, digest.FromBytes(Blob("algorithm", 5000)))
		},
	}, {
		name: "absent",
		rule: "a blob that is not there is ErrNotFound, whether the repository exists or not",
		run: func(e *env) {
			for _, state := range []string{"no repository", "repository"} {
				d := types.Descriptor{Digest: digest.FromString("absent"), Size: 6}
				_, err := e.read(e.r, d)
				e.refused(state+": BlobGet", err, errs.ErrNotFound)
				_, err = e.api.BlobHead(e.ctx, e.r, d)
				e.refused(state+": BlobHead", err, errs.ErrNotFound)
				e.begin()
			}
		},
	}, {
		name: "head measures",
		rule: "BlobHead reports the size that is there and never echoes the caller's; the media type is the caller's or application/octet-stream",
		run: func(e *env) {
			d := e.put(e.r, Blob("measured", 4096))
			got, err := e.api.BlobHead(e.ctx, e.r, types.Descriptor{Digest: d.Digest, Size: 7, MediaType: "text/x"})
			e.must("BlobHead with a wrong size", err)
			e.same("size", got.Size, int64(4096))
			e.same("media type", got.MediaType, "text/x")
			got, err = e.api.BlobHead(e.ctx, e.r, types.Descriptor{Digest: d.Digest})
			e.must("BlobHead", err)
			e.same("media type", got.MediaType, types.MediaTypeOctetStream)
		},
	}, {
		name: "get says what it reads",
		rule: "the descriptor of a blob.Reader has the blob's digest",
		run: func(e *env) {
			d := e.put(e.r, Blob("said", 100))
			rdr, err := e.api.BlobGet(e.ctx, e.r, types.Descriptor{Digest: d.Digest})
			e.must("BlobGet", err)
			e.same("digest", rdr.Descriptor().Digest, d.Digest)
			e.must("Close", rdr.Close())
		},
	}, {
		name: "get of a wrong size",
		rule: "a size that the caller knows must be the blob's: anything else is ErrSizeMismatch in place of io.EOF, or before",
		run: func(e *env) {
			d := e.put(e.r, Blob("sized", 4096))
			for _, size := range []int64{1, 4095, 4097} {
				_, err := e.read(e.r, types.Descriptor{Digest: d.Digest, Size: size})
				e.is(fmt.Sprintf("reading 4096 bytes as %d", size), err, errs.ErrSizeMismatch)
			}
		},
	}, {
		name: "get of an unknown size",
		rule: "size 0 is an unknown size unless the digest is that of no bytes",
		run: func(e *env) {
			data := Blob("unsized", 4096)
			d := e.put(e.r, data)
			got, err := e.read(e.r, types.Descriptor{Digest: d.Digest})
			if err != nil || !bytes.Equal(got, data) {
				e.errorf("got %d bytes and %v, want the %d that were put", len(got), err, len(data))
			}
		},
	}, {
		name: "close early",
		rule: "closing a stream before its end is legal, verifies nothing and ends it",
		run: func(e *env) {
			data := Blob("early", e.h.BlobSize)
			d := e.put(e.r, data)
			for _, n := range []int64{0, 10} {
				rdr, err := e.api.BlobGet(e.ctx, e.r, d)
				e.must("BlobGet", err)
				_, err = io.CopyN(io.Discard, rdr, n)
				e.must("reading the beginning", err)
				e.must("Close", rdr.Close())
				if m, err := rdr.Read(make([]byte, 10)); err == nil || err == io.EOF {
					e.errorf("Read after Close: got %d bytes and %v, want an error that is not io.EOF", m, err)
				}
			}
			e.holds(e.r, d.Digest, data)
		},
	}, {
		name: "end is final",
		rule: "a stream that has ended keeps answering io.EOF",
		run: func(e *env) {
			rdr, err := e.api.BlobGet(e.ctx, e.r, e.put(e.r, Blob("end", 10)))
			e.must("BlobGet", err)
			defer rdr.Close()
			_, err = io.Copy(io.Discard, rdr)
			e.must("reading all", err)
			for range 2 {
				if n, err := rdr.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					e.errorf("Read after the end: got %d bytes and %v, want io.EOF", n, err)
				}
			}
		},
	}, {
		name: "repositories are apart",
		rule: "a blob of one repository is not in another until it is put or mounted there",
		run: func(e *env) {
			d := e.put(e.r, Blob("apart", 100))
			_, err := e.api.BlobHead(e.ctx, e.other, d)
			e.is("BlobHead in the other repository", err, errs.ErrNotFound)
			_, err = e.read(e.other, d)
			e.is("BlobGet in the other repository", err, errs.ErrNotFound)
			if _, err := e.api.TagList(e.ctx, e.other); !errors.Is(err, errs.ErrNotFound) {
				e.errorf("TagList of the other repository: got %v, want ErrNotFound: reading must not create it", err)
			}
		},
	}, {
		name: "tag and digest are ignored",
		rule: "methods that work on a repository ignore the reference's tag and digest",
		run: func(e *env) {
			r := e.r.WithTag("ignored")
			r.Digest = digest.FromString("ignored")
			data := Blob("ignoring", 100)
			e.holds(r, e.put(r, data).Digest, data)
			e.tags(r)
		},
	},
}
