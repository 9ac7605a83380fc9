package schemetest

import (
	"bytes"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

var mountCases = []testCase{
	{
		name:  "mount",
		rule:  "BlobMount makes a blob of one repository available in another, which then has it on its own",
		needs: []Feature{Mount},
		run: func(e *env) {
			for _, size := range []int{0, 5000} {
				data := Blob("mounted", size)
				d := e.put(e.r, data)
				e.must("BlobMount", e.api.BlobMount(e.ctx, e.r, e.other, d))
				e.holds(e.other, d.Digest, data)
				e.must("BlobMount of what is there", e.api.BlobMount(e.ctx, e.r, e.other, d))
				e.must("BlobMount by digest alone", e.api.BlobMount(e.ctx, e.r, e.other, types.Descriptor{Digest: d.Digest}))
				e.holds(e.r, d.Digest, data)
			}
		},
	}, {
		name:  "mount onto itself",
		rule:  "mounting what is there already succeeds",
		needs: []Feature{Mount},
		run: func(e *env) {
			data := Blob("itself", 5000)
			d := e.put(e.r, data)
			e.must("BlobMount", e.api.BlobMount(e.ctx, e.r, e.r, d))
			e.holds(e.r, d.Digest, data)
		},
	}, {
		name:  "deleted at the source",
		rule:  "a mounted blob outlives the one it was mounted from",
		needs: []Feature{Mount, BlobDelete},
		run: func(e *env) {
			data := Blob("outlives", 5000)
			d := e.put(e.r, data)
			e.must("BlobMount", e.api.BlobMount(e.ctx, e.r, e.other, d))
			e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, d))
			e.lacks(e.r, d.Digest)
			e.holds(e.other, d.Digest, data)
		},
	}, {
		name: "mount of what is missing",
		rule: "BlobMount of a blob that the source lacks is ErrNotFound (ErrUnsupported where the place cannot tell), and changes nothing",
		run: func(e *env) {
			kinds := []error{errs.ErrNotFound}
			if !e.h.can(Mount) || !e.h.can(MountTellsMissing) {
				kinds = append(kinds, errs.ErrUnsupported)
			}
			d := types.Descriptor{Digest: digest.FromString("missing"), Size: 7}
			e.refused("BlobMount from no repository", e.api.BlobMount(e.ctx, e.other, e.r, d), kinds...)
			e.put(e.other, Blob("something else", 10))
			e.refused("BlobMount", e.api.BlobMount(e.ctx, e.other, e.r, d), kinds...)
			e.lacks(e.r, d.Digest)
			_, err := e.api.TagList(e.ctx, e.r)
			e.refused("TagList after failed mounts", err, errs.ErrNotFound)
		},
	}, {
		name:  "put with mount",
		rule:  "BlobPut WithMountFrom tries to mount before it reads the stream",
		needs: []Feature{Mount},
		run: func(e *env) {
			data := Blob("put by mount", 5000)
			d := e.put(e.other, data)
			rdr := &counter{r: bytes.NewReader(data)}
			got, err := e.api.BlobPut(e.ctx, e.r, d, rdr, scheme.WithMountFrom(e.other))
			e.must("BlobPut", err)
			e.same("BlobPut: size", got.Size, int64(5000))
			e.holds(e.r, d.Digest, data)
			if rdr.n > 0 {
				e.errorf("BlobPut read %d bytes of what it could mount", rdr.n)
			}
		},
	}, {
		name: "put with a mount that is refused",
		rule: "BlobPut goes on silently when no mount works, in the order of the references given",
		run: func(e *env) {
			data := Blob("put after all", 5000)
			e.put(e.other, Blob("something else", 10))
			d, err := e.api.BlobPut(e.ctx, e.r, describe("", data), bytes.NewReader(data), scheme.WithMountFrom(e.other, e.r))
			e.must("BlobPut", err)
			e.holds(e.r, d.Digest, data)
			d, err = e.api.BlobPut(e.ctx, e.r, types.Descriptor{}, bytes.NewReader(data[1:]), scheme.WithMountFrom(e.other))
			e.must("BlobPut without a digest", err)
			e.holds(e.r, d.Digest, data[1:])
		},
	}, {
		name: "put with a wrong stream and a mount that is refused",
		rule: "WithMountFrom takes nothing away from the check of what is read",
		run: func(e *env) {
			e.begin()
			data := Blob("wrong all the same", 5000)
			_, err := e.api.BlobPut(e.ctx, e.r, describe("", data), bytes.NewReader(data[1:]), scheme.WithMountFrom(e.other))
			e.refused("BlobPut", err, errs.ErrDigestMismatch)
			e.lacks(e.r, digest.FromBytes(data))
			e.lacks(e.r, digest.FromBytes(data[1:]))
		},
	},
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
