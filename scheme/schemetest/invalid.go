package schemetest

import (
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

var (
	badDigests = []digest.Digest{
		"sha256:../../x", "../../../etc/passwd", "sha256:", "sha256", "nonsense",
		digest.Digest("sha256:" + strings.Repeat("a", 63)),
		digest.Digest("sha256:" + strings.Repeat("a", 65)),
		digest.Digest("sha256:" + strings.Repeat("A", 64)),
		digest.Digest("sha256:" + strings.Repeat("g", 64)),
		digest.Digest("sha256:" + strings.Repeat("a", 64) + "\n"),
		digest.Digest("sha512:" + strings.Repeat("a", 64)),
		digest.Digest("md5:" + strings.Repeat("a", 32)),
		digest.Digest("sha256:" + strings.Repeat("a", 32) + "/" + strings.Repeat("a", 31)),
	}
	badTags  = []string{"bad tag", "../x", "..", ".dot", "-dash", "a/b", "a:b", "a@b", "a\nb", "a\x00b", "é", "a%2fb", "a?b", strings.Repeat("x", 129)}
	badRepos = []string{"../x", "a/../b", "..", ".", "/abs", "a//b", "a/", "Upper", ".hidden", "a b", "a\x00b", `a\b`, "x:y", "a@b", "é", "a?b", "a%2fb", strings.Repeat("x", 256)}
)

var invalidCases = []testCase{
	{
		name: "blob digests",
		rule: "a digest that is malformed or cannot be verified is ErrInvalid for every method, before it becomes a path or a URL",
		run: func(e *env) {
			for _, d := range badDigests {
				for _, c := range blobCalls(types.Descriptor{Digest: d, Size: 1}, []byte("x")) {
					e.invalid(c, e.r.Place().String()+" "+string(d), c.do(e.ctx, e.api, e.r))
				}
			}
			e.untouched()
		},
	}, {
		name: "no blob digest",
		rule: "a method that needs a digest answers an empty one with ErrInvalid",
		run: func(e *env) {
			e.begin()
			for _, c := range blobCalls(types.Descriptor{}, nil) {
				if c.name != "BlobPut" { // which computes it
					e.invalid(c, "an empty digest", c.do(e.ctx, e.api, e.r))
				}
			}
		},
	}, {
		name: "manifest digests",
		rule: "a reference with a malformed digest is ErrInvalid for every method that looks at it",
		run: func(e *env) {
			for _, d := range badDigests {
				for _, c := range manifestCalls(e.opaque("x")) {
					if c.name != "TagDelete" {
						e.invalid(c, string(d), c.do(e.ctx, e.api, e.r.WithDigest(d)))
					}
				}
			}
			e.untouched()
		},
	}, {
		name: "tags",
		rule: "a tag outside of the specification's grammar is ErrInvalid for every method that looks at it",
		run: func(e *env) {
			for _, t := range badTags {
				for _, c := range manifestCalls(e.opaque("x")) {
					e.invalid(c, t, c.do(e.ctx, e.api, e.r.WithTag(t)))
				}
			}
			e.untouched()
		},
	}, {
		name: "further tags",
		rule: "one malformed tag of WithTags is ErrInvalid, and nothing is stored: neither the manifest nor another tag",
		run: func(e *env) {
			it := e.opaque("x")
			for _, t := range append(slices.Clone(badTags), "") {
				_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("good"), it.Manifest, scheme.WithTags("fine", t))
				e.refused("ManifestPut WithTags "+t, err, errs.ErrInvalid)
			}
			e.absent(e.r.WithTag("good"))
			e.absent(e.r.WithTag("fine"))
			e.absent(e.r.WithDigest(it.Manifest.Digest()))
			e.untouched()
		},
	}, {
		name: "repositories",
		rule: "a repository name outside of the specification's grammar is ErrInvalid for every method, and nothing is created",
		run: func(e *env) {
			for _, name := range badRepos {
				r := e.r.WithRepo(name).WithTag("v1")
				for _, c := range allCalls(Image("x")) {
					if c.name == "Ping" { // which need not look at the repository
						continue
					}
					if c.name == "ManifestDelete" {
						r = r.WithDigest(digest.FromString("x"))
					} else {
						r = r.WithTag("v1")
					}
					e.invalid(c, name, c.do(e.ctx, e.api, r))
				}
			}
			e.untouched()
		},
	},
}

// invalid expects the call to be refused as wrong in itself.
func (e *env) invalid(c call, with string, err error) {
	e.t.Helper()
	kinds := []error{errs.ErrInvalid}
	if c.needs != "" && !e.h.can(c.needs) {
		kinds = append(kinds, errs.ErrUnsupported)
	}
	if len(with) > 70 {
		with = with[:70] + "…"
	}
	if !e.is(c.name+" with "+with, err, kinds...) {
		return
	}
	var detail *errs.Error
	if !errors.As(err, &detail) || detail.Op == "" {
		e.errorf("%s with %q: %q is no errs.Error with an Op", c.name, with, err)
	}
}

// untouched expects that there is no repository.
func (e *env) untouched() {
	e.t.Helper()
	_, err := e.api.TagList(e.ctx, e.r)
	e.refused("TagList afterwards", err, errs.ErrNotFound)
	names, err := scheme.ListRepos(e.ctx, e.api, e.r)
	if err != nil && !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrUnsupported) {
		e.errorf("RepoList afterwards: %v", err)
	}
	if len(names) > 0 {
		e.errorf("there are repositories afterwards: %q", names)
	}
}
