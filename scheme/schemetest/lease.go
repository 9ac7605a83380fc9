package schemetest

import (
	"bytes"
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
)

// Cases of Leaser: whom Collect spares. Every case collects with an API of its own, as another process would, and
// without a grace period.

var leaseCases = []testCase{
	{
		name: "lease",
		rule: "what is leased is not collected until it is released, whether or not it was there; releasing twice is legal, and one lease does not end another",
		has:  []Capability{Leaser, Collector, BlobLister},
		run: func(e *env) {
			e.renewed()
			a, b := Blob("leased", 100), Blob("not leased", 100)
			leaser := find[scheme.Leaser](e, e.r)
			e.begin()
			first, err := leaser.Lease(e.ctx, e.r, digest.FromBytes(a), digest.FromString("absent"))
			e.must("Lease", err)
			second, err := leaser.Lease(e.ctx, e.r, digest.FromBytes(a))
			e.must("Lease again", err)
			e.abandoned(func(o *env) { o.put(e.r, a); o.put(e.r, b) })
			e.collects("while it is leased", digest.FromBytes(b))
			first()
			first()
			e.collects("while it is leased by another call")
			second()
			e.collects("when it was released", digest.FromBytes(a))
		},
	}, {
		name: "the end of the API",
		rule: "the end of an API ends its leases",
		has:  []Capability{Leaser, Collector, BlobLister},
		run: func(e *env) {
			e.renewed()
			a := Blob("leased", 100)
			e.begin()
			holder := *e
			holder.another()
			_, err := find[scheme.Leaser](&holder, e.r).Lease(e.ctx, e.r, digest.FromBytes(a))
			e.must("Lease", err)
			e.abandoned(func(o *env) { o.put(e.r, a) })
			e.collects("while it is leased")
			e.must("Close", scheme.Close(holder.api))
			e.collects("after Close", digest.FromBytes(a))
		},
	}, {
		name: "what the API puts and finds",
		rule: "what an API puts, finds present or mounts in a repository that it writes to is not collected until it is closed",
		has:  []Capability{Collector, BlobLister},
		run: func(e *env) {
			e.renewed()
			data := Blob("found", 5000)
			d := describe("", data)
			for what, do := range map[string]func(o *env) error{
				"BlobPut":       func(o *env) error { _, err := o.api.BlobPut(e.ctx, e.r, d, bytes.NewReader(data)); return err },
				"BlobPut again": func(o *env) error { _, err := o.api.BlobPut(e.ctx, e.r, d, bytes.NewReader(nil)); return err },
				"BlobHead": func(o *env) error {
					_, err := o.api.BlobHead(e.ctx, e.r, types.Descriptor{Digest: d.Digest})
					return err
				},
				"BlobMount": func(o *env) error {
					if !e.h.can(Mount) {
						return nil
					}
					o.put(e.other, data)
					return o.api.BlobMount(e.ctx, e.other, e.r, d)
				},
				"Commit": func(o *env) error {
					if !e.h.has(Ingester) {
						return nil
					}
					u := o.ingest(e.r, "found")
					o.write(u, data)
					_, err := u.Commit(e.ctx, d, nil)
					if err != nil {
						e.refused("Commit", err, errs.ErrExists)
					}
					return nil
				},
			} {
				o := *e
				o.another()
				o.begin() // it writes to the repository
				if what == "BlobPut again" || what == "BlobHead" {
					e.abandoned(func(o *env) { o.put(e.r, data) })
				}
				e.must(what, do(&o))
				report := e.collects("after "+what, e.unleased(what, d.Digest)...)
				if report.Leased == 0 && len(e.unleased(what, d.Digest)) == 0 {
					e.errorf("the report counts nothing as leased after %s", what)
				}
				e.must("Close", scheme.Close(o.api))
				e.collects("after Close", d.Digest, describe("", Blob("begin", 10)).Digest)
			}
		},
	}, {
		name: "of a manifest",
		rule: "a manifest that is leased, or that an API found by its digest, keeps what it names: who has one need not ask for the rest",
		has:  []Capability{Leaser, Collector, BlobLister},
		run: func(e *env) {
			e.renewed()
			orphan, untagged := Image("put for an index that is to come"), Image("found by its digest")
			e.begin()
			e.abandoned(func(o *env) {
				e.must("content", orphan.PushContent(e.ctx, o.api, e.r))
				_, err := o.api.ManifestPut(e.ctx, e.r, orphan.Manifest, scheme.WithChild())
				e.must("ManifestPut WithChild", err)
				o.push(e.r.WithDigest(untagged.Manifest.Digest()), untagged)
			})
			release, err := find[scheme.Leaser](e, e.r).Lease(e.ctx, e.r, orphan.Manifest.Digest())
			e.must("Lease", err)
			_, err = e.api.ManifestHead(e.ctx, e.r.WithDigest(untagged.Manifest.Digest()))
			e.must("ManifestHead", err)
			e.collects("while both are leased")
			e.removed(e.collect("Collect WithUntagged", scheme.WithGrace(0), scheme.WithUntagged()), map[digest.Digest]int64{})
			e.intact([]*Item{untagged})
			release()
			e.renewed()
			report := e.collect("Collect when nothing is leased", scheme.WithGrace(0), scheme.WithUntagged())
			gone := map[digest.Digest]bool{}
			for _, g := range report.Removed {
				gone[g.Digest] = true
			}
			for _, it := range []*Item{orphan, untagged} {
				it.each(func(d digest.Digest, _ int64) {
					if !gone[d] {
						e.errorf("%s stays although nobody leases it any more", d)
					}
				})
			}
		},
	}, {
		name: "what the collector has put itself",
		rule: "an API that collects spares what it has put itself, too",
		has:  []Capability{Collector, BlobLister},
		run: func(e *env) {
			d := e.put(e.r, Blob("own", 100))
			report, err := find[scheme.Collector](e, e.r).Collect(e.ctx, e.r, scheme.WithGrace(0))
			e.must("Collect", err)
			e.same("removed", len(report.Removed), 0)
			e.holds(e.r, d.Digest, Blob("own", 100))
		},
	}, {
		name: "invalid",
		rule: "Lease of a malformed digest is ErrInvalid; a context that has ended is its error",
		has:  []Capability{Leaser},
		run: func(e *env) {
			e.begin()
			leaser := find[scheme.Leaser](e, e.r)
			for _, d := range append([]digest.Digest{""}, badDigests...) {
				_, err := leaser.Lease(e.ctx, e.r, digest.FromString("fine"), d)
				e.refused("Lease of "+string(d), err, errs.ErrInvalid)
			}
			ended, cancel := context.WithCancel(e.ctx)
			cancel()
			_, err := leaser.Lease(ended, e.r, digest.FromString("fine"))
			e.is("Lease", err, context.Canceled)
		},
	},
}

// renewed ends what the API of the case has leased: it goes on with another one.
func (e *env) renewed() {
	e.t.Helper()
	first := e.api
	e.reopen()
	e.must("Close", scheme.Close(first))
}

// abandoned does something with an API that is closed afterwards, so that nothing of it is leased.
func (e *env) abandoned(do func(o *env)) {
	e.t.Helper()
	o := *e
	o.reopen()
	do(&o)
	e.must("Close", scheme.Close(o.api))
}

// collects runs Collect without a grace period, with an API of its own, and expects it to remove exactly these, but for
// the blob of begin.
func (e *env) collects(when string, want ...digest.Digest) scheme.CollectReport {
	e.t.Helper()
	begin := describe("", Blob("begin", 10)).Digest
	before := e.contents()
	var report scheme.CollectReport
	e.abandoned(func(o *env) {
		var err error
		report, err = find[scheme.Collector](o, e.r).Collect(e.ctx, e.r, scheme.WithGrace(0))
		e.must("Collect "+when, err)
	})
	after := e.contents()
	expected := map[digest.Digest]bool{}
	for _, d := range want {
		expected[d] = true
	}
	for d := range before {
		_, there := after[d]
		if d != begin && there == expected[d] {
			e.errorf("%s: after Collect %s is there: %v", when, d, there)
		}
	}
	for _, g := range report.Removed {
		if g.Digest != begin && !expected[g.Digest] {
			e.errorf("%s: Collect says that it removed %s", when, g.Digest)
		}
	}
	return report
}

// contents lists the blobs and manifests of the repository with their sizes, by an API that leases nothing.
func (e *env) contents() map[digest.Digest]int64 {
	e.t.Helper()
	all := map[digest.Digest]int64{}
	e.abandoned(func(o *env) {
		e.must("BlobList", o.list(e.r, func(b blob.Info) error {
			all[b.Digest] = b.Size
			return nil
		}))
	})
	return all
}

// unleased is d where what leases nothing, as the place cannot do it.
func (e *env) unleased(what string, d digest.Digest) []digest.Digest {
	if what == "BlobMount" && !e.h.can(Mount) || what == "Commit" && !e.h.has(Ingester) {
		return []digest.Digest{d}
	}
	return nil
}
