package schemetest

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
)

var manifestCases = []testCase{
	{
		name: "exact bytes",
		rule: "a manifest comes back byte by byte and with its media type, by tag and by digest",
		run: func(e *env) {
			for name, it := range map[string]*Item{
				"oci":      Image("oci"),
				"docker":   Image("docker", Docker),
				"spaces":   Image("spaces", Indented, Annotation("é \u2028", "<&>")),
				"artifact": Image("artifact", ArtifactType("application/x"), ConfigType(types.MediaTypeEmpty)),
				"opaque":   e.opaque("opaque"),
				"index":    Index([]*Item{Image("a"), Image("b")}, Indented),
				"list":     Index([]*Item{Image("c", Docker)}, Docker),
				"empty":    Index(nil),
				"nested":   Index([]*Item{Index([]*Item{Image("d")}), Image("e")}),
			} {
				r := e.r.WithTag(name)
				e.push(r, it)
				e.shows(r, it)
				e.shows(e.r.WithDigest(it.Manifest.Digest()), it)
				for _, c := range it.Children {
					e.shows(e.r.WithDigest(c.Manifest.Digest()), c)
				}
			}
		},
	}, {
		name: "by digest only",
		rule: "a manifest that is put by its digest gets no tag",
		run: func(e *env) {
			for _, it := range []*Item{Image("untagged"), e.opaque("untagged")} {
				r := e.r.WithDigest(it.Manifest.Digest())
				e.push(r, it)
				e.shows(r, it)
			}
			e.tags(e.r)
		},
	}, {
		name:  "sha512",
		rule:  "a manifest is stored by the digest it has, also when that is sha512, and a tag resolves to that digest",
		needs: []Feature{SHA512},
		run: func(e *env) {
			a, b := Image("by digest", SHA512Digest), Image("by tag", SHA512Digest)
			e.push(e.r.WithDigest(a.Manifest.Digest()), a)
			e.shows(e.r.WithDigest(a.Manifest.Digest()), a)
			e.push(e.r.WithTag("v1"), b)
			e.shows(e.r.WithTag("v1"), b)
			e.shows(e.r.WithDigest(b.Manifest.Digest()), b)
			ix := Index([]*Item{a, b}, SHA512Digest)
			e.push(e.r.WithTag("index"), ix)
			e.shows(e.r.WithTag("index"), ix)
		},
	}, {
		name: "default tag",
		rule: "a reference without tag and digest means latest",
		run: func(e *env) {
			it := e.push(e.r, Image("default"))
			e.shows(e.r, it)
			e.shows(e.r.WithTag("latest"), it)
			e.tags(e.r, "latest")
		},
	}, {
		name: "digest before tag",
		rule: "of tag and digest the digest counts when a manifest is read",
		run: func(e *env) {
			a, b := e.push(e.r.WithTag("a"), Image("a")), e.push(e.r.WithTag("b"), Image("b"))
			r := e.r.WithTag("b")
			r.Digest = a.Manifest.Digest()
			e.shows(r, a)
			r.Tag = "no-such-tag"
			e.shows(r, a)
			r.Tag, r.Digest = "b", digest.FromString("absent")
			e.absent(r)
			e.shows(e.r.WithTag("b"), b)
		},
	}, {
		name: "absent",
		rule: "a manifest, tag or repository that is not there is ErrNotFound",
		run: func(e *env) {
			for _, state := range []string{"no repository", "no manifest", "another manifest"} {
				e.absent(e.r)
				e.absent(e.r.WithTag("absent"))
				e.absent(e.r.WithDigest(digest.FromString("absent")))
				e.absent(e.r.WithDigest(digest.SHA512.FromString("absent")))
				if state == "no manifest" {
					e.push(e.r.WithTag("present"), Image("present"))
				} else {
					e.begin()
				}
			}
		},
	}, {
		name: "expected",
		rule: "WithExpected makes anything else than the expected manifest an ErrDigestMismatch",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("expected"))
			want := it.Descriptor()
			_, err := e.api.ManifestGet(e.ctx, e.r.WithTag("v1"), scheme.WithExpected(want))
			e.must("ManifestGet of what is expected", err)
			want.Digest = digest.FromString("another")
			_, err = e.api.ManifestGet(e.ctx, e.r.WithTag("v1"), scheme.WithExpected(want))
			e.refused("ManifestGet of another digest", err, errs.ErrDigestMismatch)
			want = it.Descriptor()
			want.Size++
			_, err = e.api.ManifestGet(e.ctx, e.r.WithTag("v1"), scheme.WithExpected(want))
			e.refused("ManifestGet of another size", err, errs.ErrDigestMismatch)
		},
	}, {
		name: "repositories are apart",
		rule: "a manifest of one repository is not in another",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("apart"))
			for _, r := range []struct{ tag, digest bool }{{true, false}, {false, true}} {
				other := e.other.WithTag("v1")
				if r.digest {
					other = e.other.WithDigest(it.Manifest.Digest())
				}
				_, err := e.api.ManifestGet(e.ctx, other)
				e.is("ManifestGet "+other.String(), err, errs.ErrNotFound)
			}
		},
	}, {
		name: "a blob is no manifest",
		rule: "what was put as a layer is not readable as a manifest",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("no manifest"))
			for _, b := range it.Blobs {
				e.absent(e.r.WithDigest(digest.FromBytes(b)))
			}
		},
	}, {
		name: "many",
		rule: "every manifest stays readable by tag and digest, however many there are",
		run: func(e *env) {
			var all []*Item
			for i := range 40 {
				all = append(all, e.push(e.r.WithTag(fmt.Sprint("v", i)), e.opaque(fmt.Sprint("many ", i))))
			}
			for i, it := range all {
				e.shows(e.r.WithTag(fmt.Sprint("v", i)), it)
				e.shows(e.r.WithDigest(it.Manifest.Digest()), it)
			}
		},
	}, {
		name: "large",
		rule: "a manifest of 4 MiB is taken (distribution-spec, \"Pushing Manifests\"); one above types.MaxManifestSize is ErrSizeInvalid",
		run: func(e *env) {
			padded := func(n int) *Item {
				if !e.h.can(UnknownTypes) {
					return Index(nil, Annotation("padding", strings.Repeat("x", n-len(Index(nil, Annotation("padding", "")).Manifest.Raw()))))
				}
				raw := append([]byte(`{"padding":"`), make([]byte, n-14)...)
				for i := 12; i < len(raw); i++ {
					raw[i] = 'x'
				}
				m, err := manifest.New(append(raw, `"}`...), manifest.WithMediaType("application/vnd.example.large+json"))
				e.must("manifest.New", err)
				return &Item{Manifest: m}
			}
			e.shows(e.r.WithTag("large"), e.push(e.r.WithTag("large"), padded(4<<20)))
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("huge"), padded(types.MaxManifestSize+1).Manifest)
			e.refused("ManifestPut", err, errs.ErrSizeInvalid)
			e.absent(e.r.WithTag("huge"))
		},
	},
}
