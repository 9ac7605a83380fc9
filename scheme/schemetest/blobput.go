package schemetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

var errReader = errors.New("the reader's own error")

var blobPutCases = []testCase{
	{
		name: "without a digest",
		rule: "BlobPut computes digest (sha256) and size where they are not given",
		run: func(e *env) {
			for _, size := range []int{0, 100, e.h.BlobSize} {
				data := Blob("computed", size)
				d, err := e.api.BlobPut(e.ctx, e.r, types.Descriptor{}, bytes.NewReader(data))
				e.must("BlobPut", err)
				e.same("digest", d.Digest, digest.FromBytes(data))
				e.same("size", d.Size, int64(size))
				e.holds(e.r, d.Digest, data)
			}
		},
	}, {
		name: "without a size",
		rule: "size 0 is unknown unless the digest is that of no bytes: BlobPut then measures",
		run: func(e *env) {
			data := Blob("measured", 5000)
			d, err := e.api.BlobPut(e.ctx, e.r, types.Descriptor{Digest: digest.FromBytes(data)}, onlyReader{bytes.NewReader(data)})
			e.must("BlobPut", err)
			e.same("size", d.Size, int64(5000))
			e.holds(e.r, d.Digest, data)
		},
	}, {
		name: "odd readers",
		rule: "any io.Reader will do: one byte at a time, the last bytes together with io.EOF, reads of nothing",
		run: func(e *env) {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"one byte": iotest.OneByteReader, "data with EOF": iotest.DataErrReader, "half": iotest.HalfReader,
				"nothing in between": func(r io.Reader) io.Reader { return &hesitant{r: r} },
			} {
				data := Blob(name, 3000)
				_, err := e.api.BlobPut(e.ctx, e.r, describe("", data), wrap(bytes.NewReader(data)))
				e.must(name, err)
				e.holds(e.r, digest.FromBytes(data), data)
			}
		},
	}, {
		name: "source",
		rule: "a blob.Source is stored like any stream",
		run: func(e *env) {
			data := Blob("source", e.h.BlobSize)
			_, err := e.api.BlobPut(e.ctx, e.r, describe("", data), blob.SourceOf(bytes.NewReader(data), int64(len(data))))
			e.must("BlobPut", err)
			e.holds(e.r, digest.FromBytes(data), data)
		},
	}, {
		name: "copy of a stream",
		rule: "a verified stream of one repository can be put into another: it is not closed, and its verdict is believed",
		run: func(e *env) {
			data := Blob("copied", e.h.BlobSize)
			d := e.put(e.r, data)
			src, rdr, err := scheme.BlobSource(e.ctx, e.api, e.r, d)
			e.must("BlobSource", err)
			_, err = e.api.BlobPut(e.ctx, e.other, d, src)
			e.must("BlobPut", err)
			e.must("Close", rdr.Close())
			e.holds(e.other, d.Digest, data)
		},
	}, {
		name: "twice",
		rule: "putting what is there already succeeds",
		run: func(e *env) {
			data := Blob("twice", 5000)
			for range 3 {
				d := e.put(e.r, data)
				e.same("size", d.Size, int64(5000))
			}
			e.holds(e.r, digest.FromBytes(data), data)
		},
	}, {
		name: "wrong content",
		rule: "content that does not have the digest or the size that was said is ErrDigestMismatch, and stores nothing",
		run: func(e *env) {
			e.begin()
			data := Blob("right", 5000)
			wrong := bytes.Clone(data)
			wrong[4999] ^= 1
			want := describe("", data)
			for name, c := range map[string]struct {
				desc types.Descriptor
				data []byte
			}{
				"a flipped bit":                  {want, wrong},
				"a flipped bit, size not given":  {types.Descriptor{Digest: want.Digest}, wrong},
				"one byte short":                 {want, data[:4999]},
				"short, size not given":          {types.Descriptor{Digest: want.Digest}, data[:4999]},
				"one byte long":                  {want, append(bytes.Clone(data), 0)},
				"long, size not given":           {types.Descriptor{Digest: want.Digest}, append(bytes.Clone(data), 0)},
				"nothing":                        {want, nil},
				"right, but another size":        {types.Descriptor{Digest: want.Digest, Size: 4999}, data},
				"a larger size":                  {types.Descriptor{Digest: want.Digest, Size: 5001}, data},
				"size without a digest":          {types.Descriptor{Size: 4999}, data},
				"something for the empty digest": {types.Descriptor{Digest: digest.FromString("")}, data},
			} {
				_, err := e.api.BlobPut(e.ctx, e.r, c.desc, onlyReader{bytes.NewReader(c.data)})
				e.refused(name, err, errs.ErrDigestMismatch)
			}
			for _, b := range [][]byte{data, wrong, data[:4999], append(bytes.Clone(data), 0), nil} {
				e.lacks(e.r, digest.FromBytes(b))
			}
			e.holds(e.r, e.put(e.r, data).Digest, data) // and the place is none the worse for it
		},
	}, {
		name:  "wrong content is missing content",
		rule:  "what a failed BlobPut was writing does not count as there when a manifest needs it",
		needs: []Feature{CheckContent},
		run: func(e *env) {
			it := Image("needs what failed")
			e.put(e.r, it.Blobs[0])
			e.put(e.r, it.Blobs[1])
			_, err := e.api.BlobPut(e.ctx, e.r, describe("", it.Blobs[2]), bytes.NewReader(it.Blobs[2][1:]))
			e.refused("BlobPut", err, errs.ErrDigestMismatch)
			_, err = e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest)
			e.missing("ManifestPut", err, digest.FromBytes(it.Blobs[2]))
		},
	}, {
		name: "failing reader",
		rule: "a reader's error comes back as it is, and nothing is stored: neither what was to come nor what had come",
		run: func(e *env) {
			e.begin()
			data := Blob("failing", e.h.BlobSize)
			for _, n := range []int{0, 1, len(data) / 2, len(data) - 1} {
				fails := func() io.Reader { return io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(errReader)) }
				_, err := e.api.BlobPut(e.ctx, e.r, describe("", data), fails())
				e.is("BlobPut", err, errReader)
				_, err = e.api.BlobPut(e.ctx, e.r, types.Descriptor{}, fails())
				e.is("BlobPut without a digest", err, errReader)
				e.lacks(e.r, digest.FromBytes(data[:n]))
			}
			e.lacks(e.r, digest.FromBytes(data))
		},
	}, {
		name: "nothing comes of a failure",
		rule: "a repository comes into being with the first write that succeeds",
		run: func(e *env) {
			_, err := e.api.BlobPut(e.ctx, e.r, types.Descriptor{}, iotest.ErrReader(errReader))
			e.is("BlobPut", err, errReader)
			_, err = e.api.TagList(e.ctx, e.r)
			e.refused("TagList", err, errs.ErrNotFound)
		},
	}, {
		name: "cancelled in the middle",
		rule: "a context that ends in the middle of BlobPut ends it with the context's error, and nothing is stored, even when the reader goes on",
		run: func(e *env) {
			e.begin()
			data := Blob("cancelled", e.h.BlobSize)
			for name, desc := range map[string]types.Descriptor{"known": describe("", data), "no size": {Digest: digest.FromBytes(data)}, "no digest": {}} {
				ctx, cancel := context.WithCancel(e.ctx)
				_, err := e.api.BlobPut(ctx, e.r, desc, &tripwire{data: data, at: len(data) / 2, trip: cancel})
				e.is("BlobPut, "+name, err, context.Canceled)
				cancel()
			}
			e.lacks(e.r, digest.FromBytes(data))
			e.holds(e.r, e.put(e.r, data).Digest, data)
		},
	}, {
		name: "deferred sync",
		rule: "a blob put WithDeferredSync can be read at once",
		run: func(e *env) {
			it := Image("deferred")
			for _, b := range it.Blobs {
				_, err := e.api.BlobPut(e.ctx, e.r, describe("", b), bytes.NewReader(b), scheme.WithDeferredSync())
				e.must("BlobPut", err)
				e.holds(e.r, digest.FromBytes(b), b)
			}
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest)
			e.must("ManifestPut", err)
		},
	},
}

// onlyReader hides everything but Read, so that sizes cannot be guessed.
type onlyReader struct{ io.Reader }

// hesitant reads nothing every other time.
type hesitant struct {
	r    io.Reader
	idle bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.idle = !h.idle; h.idle {
		return 0, nil
	}
	return h.r.Read(p)
}

// tripwire reads data in small steps and calls trip once it is at that offset; it then goes on.
type tripwire struct {
	data []byte
	off  int
	at   int
	trip func()
}

func (w *tripwire) Read(p []byte) (int, error) {
	if w.off == len(w.data) {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 4096)], w.data[w.off:])
	if w.off += n; w.off >= w.at && w.trip != nil {
		w.trip()
		w.trip = nil
	}
	return n, nil
}
