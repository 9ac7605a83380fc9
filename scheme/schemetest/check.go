package schemetest

import (
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var checkCases = []testCase{
	{
		name: "sound",
		rule: "Check finds nothing wrong with what was put, counts all of it, and says what nothing needs",
		has:  []Capability{Checker},
		run: func(e *env) {
			e.begin()
			e.same("problems of an empty repository", len(e.check()), 0)
			all := e.variety()
			loose := Blob("loose", 100)
			e.put(e.r, loose)
			manifests, blobs, bytes := map[digest.Digest]int64{}, map[digest.Digest]int64{}, int64(0)
			for _, it := range all {
				it.census(manifests, blobs)
			}
			for name, o := range e.twice() {
				for _, deep := range []bool{false, true} {
					var opts []scheme.CheckOption
					if deep {
						opts = append(opts, scheme.WithDeep())
					}
					report, problems := o.checkup(opts...)
					e.same("problems, seen by "+name, problems, []scheme.Problem(nil))
					e.same("Problems", report.Problems, 0)
					e.same("Manifests", report.Manifests, len(manifests))
					bytes = sum(manifests)
					if deep {
						bytes += sum(blobs) + 100 + 10
						e.same("Blobs, with those that nothing needs", report.Blobs, len(blobs)+2)
						e.same("Bytes, WithDeep", report.Bytes, bytes)
					} else {
						e.same("Blobs", report.Blobs, len(blobs))
						if report.Bytes < bytes {
							e.errorf("Bytes is %d: the manifests have %d, and are read", report.Bytes, bytes)
						}
					}
					e.same("Unneeded", report.Unneeded, 2)
				}
			}
		},
	}, {
		name: "progress",
		rule: "WithCheckProgress calls back for every blob that was checked, once",
		has:  []Capability{Checker},
		run: func(e *env) {
			manifests, blobs := map[digest.Digest]int64{}, map[digest.Digest]int64{}
			for _, it := range e.variety() {
				it.census(manifests, blobs)
			}
			seen := map[digest.Digest]int64{}
			e.checkup(scheme.WithDeep(), scheme.WithCheckProgress(func(b blob.Info) {
				if _, twice := seen[b.Digest]; twice {
					e.errorf("progress is told twice of %s", b.Digest)
				}
				seen[b.Digest] = b.Size
			}))
			for d, size := range blobs {
				if seen[d] != size {
					e.errorf("progress was told that %s has %d bytes, want %d", d, seen[d], size)
				}
			}
		},
	}, {
		name:  "missing",
		rule:  "Check names exactly the blob that is missing, all tags that need it, and the manifests that name it; it changes nothing, and once the blob is there again nothing is wrong",
		has:   []Capability{Checker},
		needs: []Feature{BlobDelete},
		run: func(e *env) {
			shared := Blob("shared", 5000)
			layer := describe("application/x", shared)
			e.put(e.r, shared)
			a, b, c := Image("a", Layer(layer)), Image("b", Layer(layer)), Image("c", Layer(layer), Docker)
			e.push(e.r.WithTag("v2"), a)
			e.push(e.r.WithTag("v1"), a)
			e.push(e.r.WithTag("index"), Index([]*Item{Index([]*Item{b}), Image("sound")}))
			e.push(e.r.WithDigest(c.Manifest.Digest()), c)
			e.push(e.r.WithTag("other"), Image("other"))
			e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, layer))
			before := observe(e.ctx, e.api, e.r, []string{"v1", "v2", "index", "other"}, []*Item{a, b, c})
			for name, o := range e.twice() {
				for _, opts := range [][]scheme.CheckOption{nil, {scheme.WithDeep()}} {
					report, problems := o.checkup(opts...)
					e.same("Problems", report.Problems, 1)
					if len(problems) != 1 {
						e.fatalf("%s finds %d problems, want the one blob that is missing: %v", name, len(problems), problems)
					}
					p := problems[0]
					e.same("Kind", p.Kind, scheme.ProblemMissing)
					e.same("Digest", p.Digest, layer.Digest)
					e.same("Want.Size", p.Want.Size, layer.Size)
					e.same("Want.Digest", p.Want.Digest, layer.Digest)
					e.same("Tags", p.Tags, []string{"index", "v1", "v2"})
					needed, want := slices.Clone(p.Needed), []digest.Digest{a.Manifest.Digest(), b.Manifest.Digest(), c.Manifest.Digest()}
					slices.Sort(needed)
					slices.Sort(want)
					e.same("Needed", needed, want)
					e.same("Manifest", p.Manifest, false)
					e.is("Err", p.Err, errs.ErrNotFound)
				}
			}
			e.same("state afterwards", observe(e.ctx, e.api, e.r, []string{"v1", "v2", "index", "other"}, []*Item{a, b, c}), before)
			e.put(e.r, shared)
			e.same("problems once it is there", len(e.check()), 0)
		},
	}, {
		name:  "narrowed",
		rule:  "a tag or digest narrows Check to what that reaches; one that is not there is ErrNotFound",
		has:   []Capability{Checker},
		needs: []Feature{BlobDelete},
		run: func(e *env) {
			a, b := Image("a"), Index([]*Item{Image("b")})
			e.push(e.r.WithTag("a"), a)
			e.push(e.r.WithTag("b"), b)
			e.push(e.r.WithTag("sound"), Image("sound"))
			lost := map[string]digest.Digest{"a": digest.FromBytes(a.Blobs[1]), "b": digest.FromBytes(b.Children[0].Blobs[2])}
			for _, d := range lost {
				e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, types.Descriptor{Digest: d}))
			}
			e.same("problems of all", len(e.check()), 2)
			for r, tag := range map[ref.Ref]string{
				e.r.WithTag("a"): "a", e.r.WithDigest(a.Manifest.Digest()): "a", e.r.WithTag("b"): "b", e.r.WithDigest(b.Children[0].Manifest.Digest()): "b", e.r.WithTag("sound"): "",
			} {
				o := *e
				o.r = r
				var got, want []digest.Digest
				for _, p := range o.check() {
					got = append(got, p.Digest)
				}
				if tag != "" {
					want = append(want, lost[tag])
				}
				e.same("problems of "+r.String(), got, want)
			}
			for _, r := range []ref.Ref{e.r.WithTag("absent"), e.r.WithDigest(digest.FromString("absent"))} {
				_, err := find[scheme.Checker](e, e.r).Check(e.ctx, r, func(scheme.Problem) error { return nil })
				e.refused("Check of "+r.String(), err, errs.ErrNotFound)
			}
		},
	}, {
		name:  "sparse",
		rule:  "manifests that were left out of an index when it was put are counted, and no problem",
		has:   []Capability{Checker},
		needs: []Feature{Sparse},
		run: func(e *env) {
			there := Image("there")
			e.push(e.r.WithDigest(there.Manifest.Digest()), there)
			_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("v1"), Index([]*Item{there, Image("left out"), Image("left out, too")}).Manifest, scheme.WithSparse())
			e.must("ManifestPut", err)
			for name, o := range e.twice() {
				report, problems := o.checkup(scheme.WithDeep())
				e.same("problems, seen by "+name, problems, []scheme.Problem(nil))
				e.same("Sparse", report.Sparse, 2)
				e.same("Manifests", report.Manifests, 2)
			}
		},
	}, {
		name:  "ends",
		rule:  "Check ends with the first error of the callback, and returns it; a context that has ended is its error, and no repository ErrNotFound",
		has:   []Capability{Checker},
		needs: []Feature{BlobDelete},
		run: func(e *env) {
			checker := find[scheme.Checker](e, e.r)
			none := func(scheme.Problem) error { return nil }
			_, err := checker.Check(e.ctx, e.r, none)
			e.refused("Check", err, errs.ErrNotFound)
			e.untouched()
			it := e.push(e.r.WithTag("v1"), Image("a"))
			for _, b := range it.Blobs {
				e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, describe("", b)))
			}
			calls := 0
			_, err = checker.Check(e.ctx, e.r, func(scheme.Problem) error {
				calls++
				return errStop
			})
			e.is("Check", err, errStop)
			e.same("callbacks", calls, 1)
			e.same("problems", len(e.check()), 3)
			ended, cancel := context.WithCancel(e.ctx)
			cancel()
			_, err = checker.Check(ended, e.r, none)
			e.is("Check", err, context.Canceled)
		},
	},
}

// variety pushes what a repository can hold, whole.
func (e *env) variety() []*Item {
	e.t.Helper()
	child := Image("child")
	plain := Image("plain")
	sig := Image("signature of a child", Subject(child.Descriptor()))
	all := []*Item{
		plain, Image("docker", Docker), e.opaque("opaque"), Index([]*Item{Index([]*Item{child, Image("deep", Docker)}, Docker)}), sig,
		Image("signature of a signature", Subject(sig.Descriptor())),
		Image("signature of what is not there", Subject(Image("absent").Descriptor())),
	}
	if e.h.can(SHA512) {
		all = append(all, Index([]*Item{Image("child of sha512", SHA512Digest)}, SHA512Digest))
	}
	for i, it := range all {
		r := e.r.WithDigest(it.Manifest.Digest())
		if i%2 == 0 {
			r = e.r.WithTag(it.Manifest.Digest().Encoded()[:10])
			if it.Manifest.Digest().Algorithm() != digest.SHA256 {
				r.Digest = it.Manifest.Digest()
			}
		}
		e.push(r, it)
	}
	return all
}

// census counts the manifest and what it needs, each once.
func (it *Item) census(manifests, blobs map[digest.Digest]int64) {
	manifests[it.Manifest.Digest()] = it.Descriptor().Size
	for _, b := range it.Blobs {
		blobs[digest.FromBytes(b)] = int64(len(b))
	}
	for _, c := range it.Children {
		c.census(manifests, blobs)
	}
}

// check is Check without options.
func (e *env) check() []scheme.Problem {
	e.t.Helper()
	_, problems := e.checkup()
	return problems
}

// checkup is Check.
func (e *env) checkup(opts ...scheme.CheckOption) (scheme.CheckReport, []scheme.Problem) {
	e.t.Helper()
	var all []scheme.Problem
	report, err := find[scheme.Checker](e, e.r).Check(e.ctx, e.r, func(p scheme.Problem) error {
		all = append(all, p)
		return nil
	}, opts...)
	e.must("Check", err)
	if report.Problems != len(all) {
		e.errorf("Check reports %d problems and called back for %d", report.Problems, len(all))
	}
	for _, p := range all {
		if p.Kind == "" || p.Err == nil && p.Kind.Bad() || errors.Is(p.Err, context.Canceled) {
			e.errorf("a problem that says too little: %+v", p)
		}
	}
	return report, all
}
