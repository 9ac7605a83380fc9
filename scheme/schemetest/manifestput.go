package schemetest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

var manifestPutCases = []testCase{
	{
		name: "result",
		rule: "ManifestPut says what it stored, and under which tags",
		run: func(e *env) {
			it := Image("result")
			e.must("content", it.PushContent(e.ctx, e.api, e.r))
			res, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest, scheme.WithTags("v1.2", "v1.2.3", "v1"))
			e.must("ManifestPut", err)
			e.same("descriptor", res.Descriptor, it.Descriptor())
			e.same("tags", slices.Compact(slices.Sorted(slices.Values(res.Tags))), []string{"v1", "v1.2", "v1.2.3"})
			for _, t := range []string{"v1", "v1.2", "v1.2.3"} {
				e.shows(e.r.WithTag(t), it)
			}
			e.tags(e.r, "v1", "v1.2", "v1.2.3")
		},
	}, {
		name: "tags of a digest",
		rule: "a manifest that is put by digest WithTags gets these tags and no other",
		run: func(e *env) {
			it := Image("tags")
			e.must("content", it.PushContent(e.ctx, e.api, e.r))
			_, err := e.api.ManifestPut(e.ctx, e.r.WithDigest(it.Manifest.Digest()), it.Manifest, scheme.WithTags("b", "a"))
			e.must("ManifestPut", err)
			e.tags(e.r, "a", "b")
			e.shows(e.r.WithTag("b"), it)
		},
	}, {
		name: "tag and digest",
		rule: "a reference with tag and digest puts by digest, and tags",
		run: func(e *env) {
			it := Image("both")
			r := e.r.WithTag("v1")
			r.Digest = it.Manifest.Digest()
			e.push(r, it)
			e.tags(e.r, "v1")
			e.shows(e.r.WithTag("v1"), it)
		},
	}, {
		name: "wrong digest",
		rule: "a reference's digest must be the manifest's: anything else is ErrDigestMismatch and stores nothing",
		run: func(e *env) {
			old := e.push(e.r.WithTag("v1"), Image("old"))
			it := Image("new")
			e.must("content", it.PushContent(e.ctx, e.api, e.r))
			for _, d := range []digest.Digest{digest.FromString("wrong"), old.Manifest.Digest()} {
				r := e.r.WithTag("v1")
				r.Digest = d
				_, err := e.api.ManifestPut(e.ctx, r, it.Manifest, scheme.WithTags("v2"))
				e.refused("ManifestPut", err, errs.ErrDigestMismatch)
			}
			e.absent(e.r.WithDigest(it.Manifest.Digest()))
			e.absent(e.r.WithDigest(digest.FromString("wrong")))
			e.shows(e.r.WithTag("v1"), old)
			e.tags(e.r, "v1")
		},
	}, {
		name: "twice",
		rule: "putting what is there already succeeds",
		run: func(e *env) {
			it := Index([]*Item{Image("a"), Image("b")})
			for range 3 {
				e.push(e.r.WithTag("v1"), it)
				e.shows(e.r.WithTag("v1"), it)
			}
			e.tags(e.r, "v1")
		},
	}, {
		name: "tag moves",
		rule: "a tag points to what was put last; what it pointed to before stays readable by digest",
		run: func(e *env) {
			var before []*Item
			for _, it := range []*Item{Image("1"), Index([]*Item{Image("2")}), e.opaque("3"), Image("1"), Image("4")} {
				e.push(e.r.WithTag("v"), it)
				before = append(before, it)
				e.shows(e.r.WithTag("v"), it)
				for _, b := range before {
					e.shows(e.r.WithDigest(b.Manifest.Digest()), b)
				}
			}
			e.tags(e.r, "v")
		},
	}, {
		name:  "missing content",
		rule:  "ManifestPut refuses what is not complete with ErrManifestBlobUnknown, names every missing digest in errs.Error.Missing, and stores nothing",
		needs: []Feature{CheckContent},
		run: func(e *env) {
			e.begin()
			it := Image("incomplete")
			config, one, two := digest.FromBytes(it.Blobs[0]), digest.FromBytes(it.Blobs[1]), digest.FromBytes(it.Blobs[2])
			put := func() error {
				_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest, scheme.WithTags("v2"))
				return err
			}
			e.missing("nothing is there", put(), config, one, two)
			e.put(e.r, it.Blobs[1])
			e.missing("one layer is there", put(), config, two)
			e.put(e.r, it.Blobs[0])
			e.missing("the config is there", put(), two)
			e.put(e.other, it.Blobs[2])
			e.missing("a layer is in another repository", put(), two)
			e.absent(e.r.WithTag("v1"))
			e.absent(e.r.WithTag("v2"))
			e.absent(e.r.WithDigest(it.Manifest.Digest()))
			e.tags(e.r)
			e.put(e.r, it.Blobs[2])
			e.must("everything is there", put())
			e.shows(e.r.WithTag("v1"), it)
		},
	}, {
		name:  "missing in a new repository",
		rule:  "an incomplete manifest makes no repository",
		needs: []Feature{CheckContent},
		run: func(e *env) {
			it := Image("incomplete")
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest)
			e.missing("ManifestPut", err, digest.FromBytes(it.Blobs[0]), digest.FromBytes(it.Blobs[1]), digest.FromBytes(it.Blobs[2]))
			_, err = e.api.TagList(e.ctx, e.r)
			e.refused("TagList", err, errs.ErrNotFound)
		},
	}, {
		name:  "missing content of Docker's types",
		rule:  "Docker images and lists must be complete like OCI's",
		needs: []Feature{CheckContent},
		run: func(e *env) {
			e.begin()
			it := Image("docker", Docker)
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest)
			e.missing("image", err, digest.FromBytes(it.Blobs[0]), digest.FromBytes(it.Blobs[1]), digest.FromBytes(it.Blobs[2]))
			_, err = e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), Index([]*Item{it}, Docker).Manifest)
			e.missing("list", err, it.Manifest.Digest())
		},
	}, {
		name:  "missing manifests",
		rule:  "an index is complete when all its manifests are there; a nested index counts by itself",
		needs: []Feature{CheckContent},
		run: func(e *env) {
			a, b := Image("a"), Image("b")
			inner := Index([]*Item{b})
			outer := Index([]*Item{a, inner})
			e.push(e.r.WithDigest(a.Manifest.Digest()), a)
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("outer"), outer.Manifest)
			e.missing("outer index", err, inner.Manifest.Digest())
			_, err = e.api.ManifestPut(e.ctx, e.r.WithTag("inner"), inner.Manifest)
			e.missing("inner index", err, b.Manifest.Digest())
			e.tags(e.r)
			e.push(e.r.WithTag("outer"), outer)
			e.shows(e.r.WithTag("outer"), outer)
		},
	}, {
		name: "foreign layers",
		rule: "layers that are to be fetched from elsewhere may be missing",
		run: func(e *env) {
			for _, mt := range []string{
				"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
				"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
			} {
				d := describe(mt, []byte("elsewhere"))
				d.URLs = []string{"http://127.0.0.1:9/layer"}
				it := Image("foreign", Layer(d))
				e.push(e.r.WithTag("v1"), it)
				e.shows(e.r.WithTag("v1"), it)
			}
		},
	}, {
		name: "missing subject",
		rule: "a subject may always be missing",
		run: func(e *env) {
			it := Image("refers", Subject(describe(types.MediaTypeImageManifest, []byte("absent"))))
			e.push(e.r.WithTag("v1"), it)
			e.shows(e.r.WithTag("v1"), it)
		},
	}, {
		name:  "sparse index",
		rule:  "WithSparse stores an index whose manifests are missing; the missing ones stay absent",
		needs: []Feature{Sparse},
		run: func(e *env) {
			a, b := Image("a"), Image("b")
			ix := Index([]*Item{a, b})
			e.push(e.r.WithDigest(a.Manifest.Digest()), a)
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), ix.Manifest, scheme.WithSparse())
			e.must("ManifestPut", err)
			e.shows(e.r.WithTag("v1"), ix)
			e.shows(e.r.WithDigest(a.Manifest.Digest()), a)
			e.absent(e.r.WithDigest(b.Manifest.Digest()))
			e.push(e.r.WithDigest(b.Manifest.Digest()), b)
			e.shows(e.r.WithDigest(b.Manifest.Digest()), b)
		},
	}, {
		name:  "sparse is not for images",
		rule:  "WithSparse leaves out the manifests of an index only: an image's config and layers must be there",
		needs: []Feature{CheckContent},
		run: func(e *env) {
			e.begin()
			it := Image("not sparse")
			e.put(e.r, it.Blobs[0])
			e.put(e.r, it.Blobs[1])
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest, scheme.WithSparse())
			e.missing("ManifestPut", err, digest.FromBytes(it.Blobs[2]))
			e.absent(e.r.WithTag("v1"))
		},
	}, {
		name:  "sparse image",
		rule:  "WithSparseImages stores an image, or an index of images, whose content is missing; the missing content stays absent, and can be put later",
		needs: []Feature{SparseImages},
		run: func(e *env) {
			it := Image("sparse")
			e.put(e.r, it.Blobs[0])
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), it.Manifest, scheme.WithSparseImages())
			e.must("ManifestPut", err)
			e.shows(e.r.WithTag("v1"), it)
			e.lacks(e.r, digest.FromBytes(it.Blobs[1]))
			ix := Index([]*Item{it, Image("absent")})
			_, err = e.api.ManifestPut(e.ctx, e.r.WithTag("v2"), ix.Manifest, scheme.WithSparseImages())
			e.must("ManifestPut of an index", err)
			e.shows(e.r.WithTag("v2"), ix)
			e.push(e.r.WithTag("v1"), it)
			for _, b := range it.Blobs {
				e.holds(e.r, digest.FromBytes(b), b)
			}
		},
	}, {
		name:  "wrong sizes",
		rule:  "a manifest that says a wrong size of content that is there is ErrManifestInvalid, sparse or not, and stores nothing",
		needs: []Feature{CheckContent},
		run: func(e *env) {
			it := e.push(e.r.WithTag("there"), Image("sized"))
			img := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"x/y","digest":"%s","size":%d},"layers":[]}`, digest.FromBytes(it.Blobs[0]), len(it.Blobs[0])+1)
			ix := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"%s","digest":"%s","size":%d}]}`, it.Manifest.MediaType(), it.Manifest.Digest(), it.Descriptor().Size-1)
			for mt, doc := range map[string]string{types.MediaTypeImageManifest: img, types.MediaTypeImageIndex: ix} {
				m, err := manifest.New([]byte(doc), manifest.WithMediaType(mt))
				e.must("manifest.New", err)
				for name, opts := range map[string][]scheme.ManifestPutOption{"": nil, " WithSparseImages": {scheme.WithSparseImages()}} {
					_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), m, opts...)
					e.refused("ManifestPut"+name, err, errs.ErrManifestInvalid)
				}
				e.absent(e.r.WithTag("v1"))
			}
		},
	}, {
		name: "children first",
		rule: "a manifest put WithChild can be read by its digest before and after the index that lists it is put",
		run: func(e *env) {
			a, b := Image("a"), Image("b")
			inner := Index([]*Item{b})
			ix := Index([]*Item{a, inner})
			for _, it := range []*Item{a, b, inner} {
				for _, data := range it.Blobs {
					e.put(e.r, data)
				}
				r := e.r.WithDigest(it.Manifest.Digest())
				_, err := e.api.ManifestPut(e.ctx, r, it.Manifest, scheme.WithChild())
				e.must("ManifestPut WithChild", err)
				e.shows(r, it)
			}
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), ix.Manifest)
			e.must("ManifestPut of the index", err)
			e.shows(e.r.WithTag("v1"), ix)
			for _, it := range []*Item{a, b, inner} {
				e.shows(e.r.WithDigest(it.Manifest.Digest()), it)
			}
			e.tags(e.r, "v1")
		},
	}, {
		name: "child of two",
		rule: "a manifest can be in several indexes and have a tag of its own",
		run: func(e *env) {
			a := Image("shared")
			e.push(e.r.WithTag("one"), Index([]*Item{a}, Annotation("n", "1")))
			e.push(e.r.WithTag("two"), Index([]*Item{a}, Annotation("n", "2")))
			e.push(e.r.WithTag("own"), a)
			e.shows(e.r.WithTag("own"), a)
			e.shows(e.r.WithDigest(a.Manifest.Digest()), a)
			e.tags(e.r, "one", "own", "two")
		},
	}, {
		name: "malformed",
		rule: "a document that is not of its media type, or of two natures (GHSA-77vh-xpmg-72qh), is ErrInvalid and not stored",
		run: func(e *env) {
			e.begin()
			for name, c := range map[string]struct{ mt, doc string }{
				"no JSON":              {types.MediaTypeImageManifest, `{"schemaVersion":2,`},
				"empty":                {types.MediaTypeImageManifest, ``},
				"image with manifests": {types.MediaTypeImageManifest, `{"schemaVersion":2,"config":{"mediaType":"x/y","digest":"` + string(digest.FromString("c")) + `","size":1},"layers":[],"manifests":[]}`},
				"index with layers":    {types.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`},
				"another type":         {types.MediaTypeImageIndex, `{"schemaVersion":2,"mediaType":"` + types.MediaTypeImageManifest + `","manifests":[]}`},
				"no config":            {types.MediaTypeImageManifest, `{"schemaVersion":2,"layers":[]}`},
				"bad digest":           {types.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[{"mediaType":"` + types.MediaTypeImageManifest + `","digest":"sha256:../../../etc/passwd","size":1}]}`},
				"negative size":        {types.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[{"mediaType":"` + types.MediaTypeImageManifest + `","digest":"` + string(digest.FromString("c")) + `","size":-1}]}`},
			} {
				m, err := manifest.New([]byte(c.doc), manifest.WithMediaType(c.mt))
				e.must("manifest.New", err)
				_, err = e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), m)
				e.refused(name, err, errs.ErrInvalid)
				e.absent(e.r.WithTag("v1"))
				e.absent(e.r.WithDigest(m.Digest()))
			}
		},
	},
}

// missing expects a put to be refused because exactly these digests are missing.
func (e *env) missing(what string, err error, want ...digest.Digest) {
	e.t.Helper()
	e.refused(what, err, errs.ErrManifestBlobUnknown)
	var detail *errs.Error
	if errors.As(err, &detail) {
		e.same(what+": errs.Error.Missing", slices.Sorted(slices.Values(detail.Missing)), slices.Sorted(slices.Values(want)))
	}
}
