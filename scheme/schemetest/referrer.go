package schemetest

import (
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

var referrerCases = []testCase{
	{
		name: "list",
		rule: "every manifest with a subject is listed as its referrer, with artifactType (an image's config type stands in for it) and annotations",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("subject"))
			r := e.r.WithDigest(it.Manifest.Digest())
			e.referrers(r, referrer.Filter{})
			all := []*Item{
				Image("by type", Subject(it.Descriptor()), ArtifactType("application/x-sbom"), Annotation("a", "1")),
				Image("by config", Subject(it.Descriptor()), ConfigType("application/x-sig"), Annotation("a", "2"), Annotation("b", "")),
				Image("with both", Subject(it.Descriptor()), ArtifactType("application/x-sbom"), ConfigType("application/x-sig")),
				Index([]*Item{Image("child")}, Subject(it.Descriptor()), ArtifactType("application/x-index")),
				Index(nil, Subject(it.Descriptor())),
			}
			for i, a := range all {
				if i%2 == 0 {
					e.push(e.r.WithDigest(a.Manifest.Digest()), a)
				} else {
					e.push(e.r.WithTag("signature"), a)
				}
				e.referrers(r, referrer.Filter{}, all[:i+1]...)
			}
			e.referrers(e.r.WithTag("v1"), referrer.Filter{}, all...)
			e.referrers(r, referrer.Filter{ArtifactType: "application/x-sbom"}, all[0], all[2])
			e.referrers(r, referrer.Filter{ArtifactType: "application/x-sig"}, all[1])
			e.referrers(r, referrer.Filter{ArtifactType: "application/x-none"})
			e.referrers(r, referrer.Filter{Annotations: map[string]string{"a": ""}}, all[0], all[1])
			e.referrers(r, referrer.Filter{Annotations: map[string]string{"a": "2"}}, all[1])
			e.referrers(r, referrer.Filter{Annotations: map[string]string{"a": "", "b": ""}}, all[1])
			e.referrers(r, referrer.Filter{ArtifactType: "application/x-sbom", Annotations: map[string]string{"a": "2"}})
			e.shows(e.r.WithTag("v1"), it)
		},
	}, {
		name: "put says so",
		rule: "a put with a subject is listed at once, and a put without one is listed nowhere",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("subject"))
			sig := Image("signature", Subject(it.Descriptor()))
			e.must("content", sig.PushContent(e.ctx, e.api, e.r))
			for range 2 {
				res, err := e.api.ManifestPut(e.ctx, e.r.WithTag("sig"), sig.Manifest)
				e.must("ManifestPut", err)
				e.same("descriptor", res.Descriptor, sig.Descriptor())
				e.referrers(e.r.WithTag("v1"), referrer.Filter{}, sig)
			}
			e.referrers(e.r.WithTag("sig"), referrer.Filter{})
		},
	}, {
		name: "referrers of referrers",
		rule: "a referrer is a manifest like any other, and may have referrers",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("subject"))
			sbom := Image("sbom", Subject(it.Descriptor()))
			e.push(e.r.WithDigest(sbom.Manifest.Digest()), sbom)
			sig := Image("signature", Subject(sbom.Descriptor()))
			e.push(e.r.WithDigest(sig.Manifest.Digest()), sig)
			e.referrers(e.r.WithTag("v1"), referrer.Filter{}, sbom)
			e.referrers(e.r.WithDigest(sbom.Manifest.Digest()), referrer.Filter{}, sig)
		},
	}, {
		name: "of a child",
		rule: "the manifests of an index have referrers of their own",
		run: func(e *env) {
			child := Image("child")
			e.push(e.r.WithTag("v1"), Index([]*Item{child}))
			sig := Image("signature", Subject(child.Descriptor()))
			e.push(e.r.WithDigest(sig.Manifest.Digest()), sig)
			e.referrers(e.r.WithDigest(child.Manifest.Digest()), referrer.Filter{}, sig)
			e.referrers(e.r.WithTag("v1"), referrer.Filter{})
		},
	}, {
		name: "before the subject",
		rule: "a manifest that is not there, in a repository that is, has no referrers or those that were put before it",
		run: func(e *env) {
			it := Image("comes later")
			r := e.r.WithDigest(it.Manifest.Digest())
			e.begin()
			e.referrers(r, referrer.Filter{})
			sig := Image("comes first", Subject(it.Descriptor()))
			e.push(e.r.WithDigest(sig.Manifest.Digest()), sig)
			e.referrers(r, referrer.Filter{}, sig)
			e.push(e.r.WithTag("v1"), it)
			e.referrers(r, referrer.Filter{}, sig)
		},
	}, {
		name: "absent",
		rule: "an error is never an empty list: a tag that does not exist is ErrNotFound, and so is a repository where the place can tell",
		run: func(e *env) {
			l, err := e.api.ReferrerList(e.ctx, e.r.WithDigest(digest.FromString("absent")))
			if e.h.can(ReferrersTellMissing) || err != nil {
				e.refused("ReferrerList without a repository", err, errs.ErrNotFound)
			}
			e.same("referrers of nothing", len(l.Descriptors), 0)
			_, err = e.api.ReferrerList(e.ctx, e.r.WithTag("absent"))
			e.refused("ReferrerList of a tag, without a repository", err, errs.ErrNotFound)
			e.begin()
			_, err = e.api.ReferrerList(e.ctx, e.r.WithTag("absent"))
			e.refused("ReferrerList of a tag", err, errs.ErrNotFound)
			_, err = e.api.ReferrerList(e.ctx, e.r)
			e.refused("ReferrerList of latest", err, errs.ErrNotFound)
		},
	}, {
		name:  "deleted",
		rule:  "a manifest that is deleted is no referrer any more; the others stay",
		needs: []Feature{ManifestDelete},
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("subject"))
			a, b := Image("a", Subject(it.Descriptor())), Image("b", Subject(it.Descriptor()))
			e.push(e.r.WithDigest(a.Manifest.Digest()), a)
			e.push(e.r.WithTag("b"), b)
			e.must("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r.WithDigest(b.Manifest.Digest()), scheme.WithReferrerCleanup()))
			e.referrers(e.r.WithTag("v1"), referrer.Filter{}, a)
			e.must("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r.WithDigest(a.Manifest.Digest()), scheme.WithReferrerCleanup()))
			e.referrers(e.r.WithTag("v1"), referrer.Filter{})
			e.shows(e.r.WithTag("v1"), it)
		},
	}, {
		name:  "untagged",
		rule:  "a referrer that loses its tag stays a referrer",
		needs: []Feature{TagDelete},
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("subject"))
			sig := e.push(e.r.WithTag("sig"), Image("signature", Subject(it.Descriptor())))
			e.must("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("sig")))
			e.referrers(e.r.WithTag("v1"), referrer.Filter{}, sig)
			e.must("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("v1")))
			e.referrers(e.r.WithDigest(it.Manifest.Digest()), referrer.Filter{}, sig)
		},
	}, {
		name: "tag moves on",
		rule: "a referrer whose tag moves to another manifest stays a referrer",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("subject"))
			a := e.push(e.r.WithTag("sig"), Image("a", Subject(it.Descriptor())))
			b := e.push(e.r.WithTag("sig"), Image("b", Subject(it.Descriptor())))
			e.referrers(e.r.WithTag("v1"), referrer.Filter{}, a, b)
		},
	}, {
		name: "repositories are apart",
		rule: "a referrer in one repository says nothing about another",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Image("subject"))
			e.push(e.other.WithTag("v1"), it)
			sig := e.push(e.other.WithTag("sig"), Image("signature", Subject(it.Descriptor())))
			e.referrers(e.r.WithTag("v1"), referrer.Filter{})
			e.referrers(e.other.WithTag("v1"), referrer.Filter{}, sig)
		},
	},
}

// referrers expects exactly these referrers of r's manifest, in any order.
func (e *env) referrers(r ref.Ref, f referrer.Filter, want ...*Item) {
	e.t.Helper()
	l, err := e.api.ReferrerList(e.ctx, r, scheme.WithFilter(f))
	if err != nil {
		e.errorf("ReferrerList %s: %v", r, err)
		return
	}
	if r.Digest != "" && l.Subject.Digest != r.Digest {
		e.errorf("ReferrerList %s: the subject is %q", r, l.Subject.Digest)
	}
	e.same("ReferrerList "+r.String(), sorted(l.Descriptors), sorted(listed(want)))
}

// listed returns the descriptors under which all are listed.
func listed(all []*Item) []types.Descriptor {
	var list []types.Descriptor
	for _, it := range all {
		d, _, _, err := referrer.Describe(it.Manifest)
		if err != nil {
			panic(err) // a fault of the test that made it
		}
		list = append(list, d)
	}
	return list
}

// sorted orders by digest, and takes no maps for empty ones.
func sorted(list []types.Descriptor) []types.Descriptor {
	out := append([]types.Descriptor{}, list...)
	for i := range out {
		if len(out[i].Annotations) == 0 {
			out[i].Annotations = nil
		}
	}
	slices.SortFunc(out, func(a, b types.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return out
}
