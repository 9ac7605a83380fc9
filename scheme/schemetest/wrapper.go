package schemetest

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var wrapperCases = []testCase{
	{
		name: "read-only reads",
		rule: "a read-only view answers every question as what it stands before does",
		run: func(e *env) {
			tags, items := e.furnish()
			e.same("answers of scheme.ReadOnly", observe(e.ctx, scheme.ReadOnly(e.api), e.r, tags, items), observe(e.ctx, e.api, e.r, tags, items))
			res, err := scheme.ReadOnly(e.api).Ping(e.ctx, e.r)
			e.must("Ping", err)
			e.same("Writable", res.Writable, false)
		},
	}, {
		name: "read-only writes nothing",
		rule: "every writing method of a read-only view answers ErrReadOnly, whatever it is given, and changes nothing",
		run: func(e *env) {
			tags, items := e.furnish()
			before := observe(e.ctx, e.api, e.r, tags, items)
			view := scheme.ReadOnly(e.api)
			for _, it := range []*Item{items[0], Image("new")} {
				for _, c := range allCalls(it) {
					if !c.writes {
						continue
					}
					e.refused(c.name+" by tag", c.do(e.ctx, view, e.r.WithTag(tags[0])), errs.ErrReadOnly)
					e.refused(c.name+" by digest", c.do(e.ctx, view, e.r.WithDigest(it.Manifest.Digest())), errs.ErrReadOnly)
					e.refused(c.name+" of nonsense", c.do(e.ctx, view, e.r.WithDigest("sha256:../x")), errs.ErrReadOnly)
				}
			}
			e.same("state afterwards", observe(e.ctx, e.api, e.r, tags, items), before)
		},
	}, {
		name: "nothing escapes a read-only view",
		rule: "a capability of a read-only view is that capability and nothing else: no assertion leads from it to anything that writes",
		run: func(e *env) {
			e.begin()
			view := scheme.ReadOnly(e.api)
			for _, c := range foundBehind(e, view) {
				if _, escaped := c.(scheme.API); escaped {
					e.errorf("%T is a scheme.API", c)
				}
				if _, escaped := c.(scheme.Asser); escaped {
					e.errorf("%T is a scheme.Asser", c)
				}
				if _, escaped := c.(scheme.Closer); escaped {
					e.errorf("%T closes what the view stands before", c)
				}
				if n := countTrue(
					isA[scheme.BlobOpener](c), isA[scheme.BlobLister](c), isA[scheme.RepoLister](c), isA[scheme.BlobFinder](c), isA[scheme.Throttler](c),
					isA[scheme.BlobStater](c), isA[scheme.Labeler](c), isA[scheme.Ingester](c), isA[scheme.IngestManager](c),
					isA[scheme.IndexStore](c), isA[scheme.Leaser](c), isA[scheme.Syncer](c), isA[scheme.Cleaner](c), isA[scheme.Collector](c), isA[scheme.Checker](c),
				); n != 1 {
					e.errorf("%T is %d capabilities", c, n)
				}
			}
			var api scheme.API
			if scheme.As(view, e.r, &api) {
				e.errorf("As finds the API behind the view: %T", api)
			}
			var unknown interface{ BlobGetter() }
			if scheme.As(view, e.r, &unknown) {
				e.errorf("As finds a capability that nobody has")
			}
		},
	}, {
		name: "capabilities of wrappers",
		rule: "a Mux has the capabilities of what it stands before, and a read-only view those that only read; they work",
		run: func(e *env) {
			e.begin()
			mux := scheme.NewMux(map[string]scheme.API{e.r.Scheme: e.api})
			for name, w := range map[string]scheme.API{"ReadOnly": scheme.ReadOnly(e.api), "Mux": mux, "ReadOnly over Mux": scheme.ReadOnly(mux)} {
				for _, c := range capabilities {
					want, wantErr := e.try(e.api, c)
					if name != "Mux" && !slices.Contains(readers, c) {
						want, wantErr = false, nil
					}
					got, err := e.try(w, c)
					if got != want || kind(err) != kind(wantErr) {
						e.errorf("%s of %s: found %v, error %v; of the API itself: found %v, error %v", c, name, got, err, want, wantErr)
					}
				}
			}
		},
	}, {
		name: "mux",
		rule: "a Mux answers as the API that serves the scheme does, also what is wrong",
		run: func(e *env) {
			base := e.api
			e.api = scheme.NewMux(map[string]scheme.API{e.r.Scheme: base})
			tags, items := e.furnish()
			e.same("answers of the Mux", observe(e.ctx, e.api, e.r, tags, items), observe(e.ctx, base, e.r, tags, items))
			for _, c := range allCalls(Image("new")) {
				if !c.writes {
					r := e.r.WithTag("absent")
					e.same(c.name, kind(c.do(e.ctx, e.api, r)), kind(c.do(e.ctx, base, r)))
				}
			}
			for _, d := range badDigests[:3] {
				for _, c := range manifestCalls(items[0]) {
					r := e.r.WithDigest(d)
					e.same(c.name, kind(c.do(e.ctx, e.api, r)), kind(c.do(e.ctx, base, r)))
				}
			}
		},
	},
}

// foundBehind returns the capabilities that a read-only view has.
func foundBehind(e *env, view scheme.API) (found []any) {
	add := func(c any, ok bool) {
		if ok {
			found = append(found, c)
		}
	}
	add(as[scheme.BlobOpener](view, e.r))
	add(as[scheme.BlobLister](view, e.r))
	add(as[scheme.RepoLister](view, e.r))
	add(as[scheme.BlobFinder](view, e.r))
	add(as[scheme.BlobStater](view, e.r))
	add(as[scheme.IndexStore](view, e.r))
	add(as[scheme.Checker](view, e.r))
	add(as[scheme.Throttler](view, e.r))
	return found
}

func as[T any](api scheme.API, r ref.Ref) (any, bool) {
	var c T
	ok := scheme.As(api, r, &c)
	return c, ok
}

func countTrue(all ...bool) (n int) {
	for _, is := range all {
		if is {
			n++
		}
	}
	return n
}

func isA[T any](v any) bool { _, ok := v.(T); return ok }

// furnish fills the repository and names what there is to be seen in it, and something that is not there.
func (e *env) furnish() (tags []string, items []*Item) {
	e.t.Helper()
	a, b := Image("a"), Image("b", Docker)
	ix := Index([]*Item{a, b})
	sig := Image("signature", Subject(ix.Descriptor()), ArtifactType("application/x-sig"), Annotation("k", "v"))
	e.push(e.r.WithTag("v1"), ix)
	e.push(e.r.WithTag("v2"), a)
	e.push(e.r.WithDigest(sig.Manifest.Digest()), sig)
	e.put(e.r, Blob("begin", 10))
	return []string{"v1", "v2", "absent"}, []*Item{a, b, ix, sig, {Manifest: e.opaque("absent").Manifest, Blobs: [][]byte{[]byte("absent " + digest.FromString("x"))}}}
}
