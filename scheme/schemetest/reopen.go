package schemetest

import (
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/referrer"
)

var reopenCases = []testCase{
	{
		name: "sees everything",
		rule: "what one API has acknowledged, another one over the same storage sees",
		run: func(e *env) {
			it := e.push(e.r.WithTag("v1"), Index([]*Item{Image("a"), Image("b")}))
			sig := Image("signature", Subject(it.Descriptor()))
			e.push(e.r.WithDigest(sig.Manifest.Digest()), sig)
			e.reopen()
			e.tags(e.r, "v1")
			e.shows(e.r.WithTag("v1"), it)
			for _, c := range it.Children {
				e.shows(e.r.WithDigest(c.Manifest.Digest()), c)
				for _, b := range c.Blobs {
					e.holds(e.r, digest.FromBytes(b), b)
				}
			}
			e.referrers(e.r.WithTag("v1"), referrer.Filter{}, sig)
		},
	}, {
		name: "no stale answers",
		rule: "an API that has looked before sees what another one changed since",
		run: func(e *env) {
			first := e.api
			a, b := Image("a"), Image("b")
			e.push(e.r.WithTag("v"), a)
			e.reopen()
			second := e.api
			for i := range 10 {
				it := []*Item{a, b}[i%2]
				e.api = first
				e.push(e.r.WithTag("v"), it)
				e.api = second
				e.shows(e.r.WithTag("v"), it)
				e.push(e.r.WithTag("w"), it)
				e.api = first
				e.shows(e.r.WithTag("w"), it)
				e.tags(e.r, "v", "w")
			}
		},
	}, {
		name:  "deletes are seen",
		rule:  "an API that has looked before does not see what another one deleted since",
		needs: []Feature{TagDelete, ManifestDelete, BlobDelete},
		run: func(e *env) {
			it := e.push(e.r.WithTag("v"), Image("deleted"))
			e.push(e.r.WithTag("w"), it)
			first := e.api
			e.reopen()
			second := e.api
			e.tags(e.r, "v", "w")
			e.api = first
			e.must("TagDelete", e.api.TagDelete(e.ctx, e.r.WithTag("v")))
			e.api = second
			e.tags(e.r, "w")
			e.absent(e.r.WithTag("v"))
			e.api = first
			e.must("ManifestDelete", e.api.ManifestDelete(e.ctx, e.r.WithDigest(it.Manifest.Digest())))
			e.must("BlobDelete", e.api.BlobDelete(e.ctx, e.r, describe("", it.Blobs[2])))
			e.api = second
			e.tags(e.r)
			e.absent(e.r.WithDigest(it.Manifest.Digest()))
			e.lacks(e.r, digest.FromBytes(it.Blobs[2]))
		},
	},
}

// reopen goes on with a second API over the same storage.
func (e *env) reopen() {
	if e.h.Reopen == nil {
		e.t.Skip("Harness.Reopen is missing: there cannot be a second API over the same storage")
	}
	e.api = e.h.Reopen(e.t, e.api, e.r)
}
