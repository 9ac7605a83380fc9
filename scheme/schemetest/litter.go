package schemetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
)

// litter fills the repository with everything that is needed in some way, and with garbage.
func (e *env) litter() (kept []*Item, garbage map[digest.Digest]int64) {
	e.t.Helper()
	plain, docker, child := Image("plain"), Image("docker", Docker), Image("child")
	nested := Index([]*Item{Index([]*Item{child, Image("deep", Docker)}, Docker)})
	sig := Image("signature of a child", Subject(child.Descriptor()))
	kept = []*Item{
		plain, docker, nested, e.opaque("opaque"), sig,
		Image("signature of a signature", Subject(sig.Descriptor())),
		Image("signature of what is not there", Subject(Image("absent").Descriptor())),
		Index([]*Item{Image("of an index that refers")}, Subject(plain.Descriptor())),
	}
	if e.h.can(SHA512) {
		kept = append(kept, Image("sha512", SHA512Digest), Index([]*Item{Image("child of sha512", SHA512Digest)}))
	}
	for i, it := range kept {
		r := e.r.WithTag(fmt.Sprint("v", i))
		if i%2 == 1 {
			r = e.r.WithDigest(it.Manifest.Digest())
		}
		e.push(r, it)
	}
	moved := Image("was tagged")
	e.push(e.r.WithTag("moved"), moved)
	e.push(e.r.WithTag("moved"), plain)
	kept = append(kept, moved)
	if e.h.can(Sparse) {
		sparse := Index([]*Item{Image("never put")})
		_, err := e.api.ManifestPut(e.ctx, e.r.WithTag("sparse"), sparse.Manifest, scheme.WithSparse())
		e.must("ManifestPut", err)
	}
	listed := Image("put for an index")
	e.must("content", listed.PushContent(e.ctx, e.api, e.r))
	_, err := e.api.ManifestPut(e.ctx, e.r, listed.Manifest, scheme.WithChild())
	e.must("ManifestPut WithChild", err)
	ix := Index([]*Item{listed})
	_, err = e.api.ManifestPut(e.ctx, e.r.WithTag("listed"), ix.Manifest)
	e.must("ManifestPut", err)
	return append(kept, ix), e.garbage()
}

// garbage puts what nothing needs.
func (e *env) garbage() map[digest.Digest]int64 {
	e.t.Helper()
	garbage := map[digest.Digest]int64{}
	for i, size := range []int{1, 100, 5000} {
		garbage[e.put(e.r, Blob(fmt.Sprint("garbage ", i), size)).Digest] = int64(size)
	}
	orphan := Image("put for an index that never came")
	e.must("content", orphan.PushContent(e.ctx, e.api, e.r))
	_, err := e.api.ManifestPut(e.ctx, e.r, orphan.Manifest, scheme.WithChild())
	e.must("ManifestPut WithChild", err)
	orphan.each(func(d digest.Digest, size int64) { garbage[d] = size })
	if e.h.can(SHA512) {
		data := Blob("garbage of sha512", 10)
		d, err := e.api.BlobPut(e.ctx, e.r, types.Descriptor{Digest: digest.SHA512.FromBytes(data), Size: 10}, strings.NewReader(string(data)))
		e.must("BlobPut", err)
		garbage[d.Digest] = 10
	}
	return garbage
}

// each calls fn for the manifest and everything it needs.
func (it *Item) each(fn func(d digest.Digest, size int64)) {
	fn(it.Manifest.Digest(), it.Descriptor().Size)
	for _, b := range it.Blobs {
		fn(digest.FromBytes(b), int64(len(b)))
	}
	for _, c := range it.Children {
		c.each(fn)
	}
}

// intact expects the manifests, and all that they need, to be there.
func (e *env) intact(items []*Item) {
	e.t.Helper()
	for _, it := range items {
		e.shows(e.r.WithDigest(it.Manifest.Digest()), it)
		for _, b := range it.Blobs {
			e.holds(e.r, digest.FromBytes(b), b)
		}
		e.intact(it.Children)
	}
}

// collect runs Collect with an API that has leased nothing, as another process would.
func (e *env) collect(what string, opts ...scheme.CollectOption) (report scheme.CollectReport) {
	e.t.Helper()
	e.abandoned(func(o *env) {
		var err error
		report, err = find[scheme.Collector](o, e.r).Collect(e.ctx, e.r, opts...)
		e.must(what, err)
	})
	return report
}

// reopenable ends the case where there cannot be a second API.
func (e *env) reopenable() {
	if e.h.Reopen == nil {
		e.t.Skip("Harness.Reopen is missing: there cannot be a second API over the same storage")
	}
}

// removed expects the report to name exactly that garbage.
func (e *env) removed(report scheme.CollectReport, want map[digest.Digest]int64) {
	e.t.Helper()
	got := map[digest.Digest]int64{}
	for _, g := range report.Removed {
		if _, twice := got[g.Digest]; twice {
			e.errorf("Collect names %s twice", g.Digest)
		}
		got[g.Digest] = g.Size
	}
	if want == nil {
		want = map[digest.Digest]int64{}
	}
	e.same("what Collect removed", got, want)
}

// remains expects exactly that garbage to be gone.
func (e *env) remains(before, garbage map[digest.Digest]int64) {
	e.t.Helper()
	want := map[digest.Digest]int64{}
	for d, size := range before {
		if _, gone := garbage[d]; !gone {
			want[d] = size
		}
	}
	e.same("contents after Collect", e.contents(), want)
}

// ordered is a report in an order that does not depend on the run.
func ordered(r scheme.CollectReport) scheme.CollectReport {
	slices.SortFunc(r.Removed, func(a, b scheme.Garbage) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	r.Untagged, r.Vanished = sorted(r.Untagged), sorted(r.Vanished)
	r.Clean = scheme.CleanReport{} // what a run leaves the next one finds
	return r
}

func sum(all map[digest.Digest]int64) (n int64) {
	for _, size := range all {
		n += size
	}
	return n
}
