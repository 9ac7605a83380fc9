package schemetest

import (
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

var deleteCases = []testCase{
	{
		name:  "blob",
		rule:  "BlobDelete removes the blob from its repository, and a second one is ErrNotFound",
		needs: []Feature{BlobDelete},
		run: func(e *env) {
			data := Blob("deleted", 5000)
			d := e.put(e.r, data)
			kept := e.put(e.r, Blob("kept", 10))
			e.put(e.other, data)
			e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, d))
			e.lacks(e.r, d.Digest)
			e.refused("BlobDelete again", e.api.BlobDelete(e.ctx, e.r, d), errs.ErrNotFound)
			e.holds(e.r, kept.Digest, Blob("kept", 10))
			e.holds(e.other, d.Digest, data)
			e.holds(e.r, e.put(e.r, data).Digest, data)
		},
	}, {
		name:  "blob that is needed",
		rule:  "BlobDelete removes a blob whether or not a manifest needs it; a put that needs it is refused from then on",
		needs: []Feature{BlobDelete, CheckContent},
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("loses a layer"))
			e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, describe("", it.Blobs[2])))
			e.lacks(e.r, digest.FromBytes(it.Blobs[2]))
			e.shows(e.r.WithTag("v1"), it)
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v2"), it.Manifest)
			e.missing("ManifestPut", err, digest.FromBytes(it.Blobs[2]))
			e.tags(e.r, "v1")
		},
	}, {
		name:  "manifest",
		rule:  "ManifestDelete removes the manifest and every tag that points to it, and nothing else",
		needs: []Feature{ManifestDelete},
		run: func(e *env) {
			it := e.push(e.r.WithTag("b"), Image("deleted"))
			e.push(e.r.WithTag("d"), it)
			kept := e.push(e.r.WithTag("c"), Image("kept"))
			e.must("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r.WithDigest(it.Manifest.Digest())))
			e.absent(e.r.WithDigest(it.Manifest.Digest()))
			e.absent(e.r.WithTag("b"))
			e.absent(e.r.WithTag("d"))
			e.tags(e.r, "c")
			e.shows(e.r.WithTag("c"), kept)
			e.refused("ManifestDelete again", e.api.ManifestDelete(e.ctx, e.r.WithDigest(it.Manifest.Digest())), errs.ErrNotFound)
			e.push(e.r.WithTag("b"), it)
			e.shows(e.r.WithTag("b"), it)
		},
	}, {
		name:  "untagged manifest",
		rule:  "ManifestDelete removes what was put by digest, too",
		needs: []Feature{ManifestDelete},
		run: func(e *env) {
			for _, it := range []*Item{Image("untagged"), e.opaque("untagged"), Index([]*Item{Image("child")})} {
				r := e.r.WithDigest(it.Manifest.Digest())
				e.push(r, it)
				e.must("ManifestDelete", e.api.ManifestDelete(e.ctx, r))
				e.absent(r)
			}
			e.tags(e.r)
		},
	}, {
		name:  "child of an index",
		rule:  "ManifestDelete removes a manifest although an index lists it; the index stays as it is",
		needs: []Feature{ManifestDelete},
		run: func(e *env) {
			a, b := Image("a"), Image("b")
			ix := e.push(e.r.WithTag("v1"), Index([]*Item{a, b}))
			e.must("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r.WithDigest(a.Manifest.Digest())))
			e.absent(e.r.WithDigest(a.Manifest.Digest()))
			e.shows(e.r.WithDigest(b.Manifest.Digest()), b)
			e.shows(e.r.WithTag("v1"), ix)
		},
	}, {
		name:  "manifest that is absent",
		rule:  "ManifestDelete of what is not there is ErrNotFound",
		needs: []Feature{ManifestDelete},
		run: func(e *env) {
			r := e.r.WithDigest(digest.FromString("absent"))
			e.refused("ManifestDelete without a repository", e.api.ManifestDelete(e.ctx, r), errs.ErrNotFound)
			e.begin()
			e.refused("ManifestDelete", e.api.ManifestDelete(e.ctx, r), errs.ErrNotFound)
		},
	}, {
		name: "manifest without a digest",
		rule: "ManifestDelete is by digest: by tag it is ErrInvalid, since TagDelete is what removes a tag",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("kept"))
			e.refused("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r.WithTag("v1")), errs.ErrInvalid)
			e.refused("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r), errs.ErrInvalid)
			e.shows(e.r.WithTag("v1"), it)
		},
	}, {
		name:  "tag",
		rule:  "TagDelete removes the tag and never the manifest",
		needs: []Feature{TagDelete},
		run: func(e *env) {
			for _, it := range []*Item{Image("untagged"), Index([]*Item{Image("child")}), e.opaque("untagged")} {
				e.push(e.r.WithTag("a"), it)
				e.push(e.r.WithTag("b"), it)
				e.must("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("a")))
				e.absent(e.r.WithTag("a"))
				e.tags(e.r, "b")
				e.shows(e.r.WithTag("b"), it)
				e.must("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("b")))
				e.tags(e.r)
				e.shows(e.r.WithDigest(it.Manifest.Digest()), it)
				for _, c := range it.Children {
					e.shows(e.r.WithDigest(c.Manifest.Digest()), c)
				}
			}
		},
	}, {
		name:  "tag that is absent",
		rule:  "TagDelete of what is not there is ErrNotFound",
		needs: []Feature{TagDelete},
		run: func(e *env) {
			e.refused("TagDelete without a repository", e.api.TagDelete(e.ctx, e.r.WithTag("absent")), errs.ErrNotFound)
			e.push(e.r.WithTag("present"), Image("present"))
			e.refused("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("absent")), errs.ErrNotFound)
			e.must("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("present")))
			e.refused("TagDelete again", e.api.TagDelete(e.ctx, e.r.WithTag("present")), errs.ErrNotFound)
		},
	}, {
		name: "tag that is not named",
		rule: "TagDelete needs a tag: without it is ErrInvalid, also where latest exists",
		run: func(e *env) {
			it := e.push(e.r.WithTag("latest"), Image("kept"))
			e.refused("TagDelete without a tag", e.api.TagDelete(e.ctx, e.r), errs.ErrInvalid)
			e.refused("TagDelete by digest", e.api.TagDelete(e.ctx, e.r.WithDigest(it.Manifest.Digest())), errs.ErrInvalid)
			e.shows(e.r, it)
		},
	},
}

// lackingCases hold a place to what it declared: what it cannot do it must say, and not half do.
var lackingCases = []testCase{
	{
		name: "unsupported",
		rule: "what Harness.Lacks declares answers ErrUnsupported and changes nothing; if it works, take it out of Lacks",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("kept"))
			if !e.h.can(BlobDelete) {
				e.refused("BlobDelete", e.api.BlobDelete(e.ctx, e.r, describe("", it.Blobs[1])), errs.ErrUnsupported)
			}
			if !e.h.can(ManifestDelete) {
				e.refused("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r.WithDigest(it.Manifest.Digest())), errs.ErrUnsupported)
			}
			if !e.h.can(TagDelete) {
				e.refused("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("v1")), errs.ErrUnsupported)
			}
			if !e.h.can(Mount) {
				e.put(e.other, Blob("other", 10))
				e.refused("BlobMount", e.api.BlobMount(e.ctx, e.r, e.other, describe("", it.Blobs[1])), errs.ErrUnsupported)
				e.lacks(e.other, digest.FromBytes(it.Blobs[1]))
			}
			if !e.h.can(SHA512) {
				big := Image("big", SHA512Digest)
				_, err := e.api.BlobPut(e.ctx, e.r, types.Descriptor{Digest: digest.SHA512.FromString("x")}, onlyReader{&tripwire{data: []byte("x")}})
				e.refused("BlobPut of sha512", err, errs.ErrUnsupported, errs.ErrInvalid)
				_, err = e.api.ManifestPut(e.ctx, e.r.WithDigest(big.Manifest.Digest()), big.Manifest)
				e.refused("ManifestPut of sha512", err, errs.ErrUnsupported, errs.ErrInvalid)
			}
			if !e.h.can(UnknownTypes) {
				_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("opaque"), Opaque("x").Manifest)
				e.refused("ManifestPut of an unknown type", err, errs.ErrUnsupported, errs.ErrInvalid)
			}
			if !e.h.can(Sparse) {
				_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("sparse"), Index([]*Item{Image("absent")}).Manifest, scheme.WithSparse())
				e.refused("ManifestPut WithSparse", err, errs.ErrManifestBlobUnknown)
			}
			if !e.h.can(SparseImages) && e.h.can(CheckContent) {
				_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("sparse"), Image("absent").Manifest, scheme.WithSparseImages())
				e.refused("ManifestPut WithSparseImages", err, errs.ErrManifestBlobUnknown)
			}
			if !e.h.can(TagAt) {
				_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest, scheme.WithTagAt(it.Manifest.Digest()))
				e.refused("ManifestPut WithTagAt", err, errs.ErrUnsupported)
				e.refused("TagDelete WithTagDeleteAt", e.api.TagDelete(e.ctx, e.r.WithTag("v1"), scheme.WithTagDeleteAt(it.Manifest.Digest())), errs.ErrUnsupported)
			}
			e.tags(e.r, "v1")
			e.shows(e.r.WithTag("v1"), it)
			e.holds(e.r, digest.FromBytes(it.Blobs[1]), it.Blobs[1])
		},
	},
}
