package schemetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/referrer"
)

var indexStoreCases = []testCase{
	{
		name: "get",
		rule: "IndexGet returns the index that says what is tagged; without a repository it is ErrNotFound",
		has:  []Capability{IndexStore},
		run: func(e *env) {
			_, err := e.index().IndexGet(e.ctx, e.r)
			e.refused("IndexGet", err, errs.ErrNotFound)
			e.begin()
			e.same("tags in the index of a repository without any", e.tagsOf(e.indexGet()), map[string]digest.Digest{})
			a := e.push(e.r.WithTag("v1"), Image("a"))
			b := e.push(e.r.WithTag("v2"), Index([]*Item{Image("b")}))
			for _, o := range e.twice() {
				e.same("tags in the index", e.tagsOf(o.indexGet()), map[string]digest.Digest{"v1": a.Manifest.Digest(), "v2": b.Manifest.Digest()})
			}
		},
	}, {
		name: "put",
		rule: "IndexPut replaces the index, byte by byte, whatever there is when old is nil, also nothing; every API sees the tags and referrers it lists, and no others",
		has:  []Capability{IndexStore},
		run: func(e *env) {
			a, b := Image("a"), Image("b")
			sig := Image("signature", Subject(a.Descriptor()), ArtifactType("application/x-sig"))
			all := e.twice()
			for i, doc := range [][]byte{
				indexDoc("", entry("v1", a)),
				indexDoc("\r\n\t", entry("v2", a), entry("v1", b), entry("", sig)),
				indexDoc(" "),
				indexDoc("", entry("v3", a), entry("v4", a), entry("", sig)),
			} {
				e.must("IndexPut", e.index().IndexPut(e.ctx, e.r, nil, doc))
				if i == 0 { // what it names need not be there; now it comes
					for _, it := range []*Item{a, b, sig} {
						e.must("content", it.PushContent(e.ctx, e.api, e.r))
						_, err := e.api.ManifestPut(e.ctx, e.r.WithDigest(it.Manifest.Digest()), it.Manifest)
						e.must("ManifestPut", err)
					}
					e.must("IndexPut", e.index().IndexPut(e.ctx, e.r, nil, doc))
				}
				want := e.tagsOf(doc)
				for name, o := range all {
					if got := o.indexGet(); !bytes.Equal(got, doc) {
						e.errorf("index %d, seen by %s: got\n%q\nwant\n%q", i, name, got, doc)
					}
					o.tags(e.r, keys(want)...)
					for tag, d := range want {
						o.shows(e.r.WithTag(tag), map[digest.Digest]*Item{a.Manifest.Digest(): a, b.Manifest.Digest(): b}[d])
					}
				}
				if bytes.Contains(doc, []byte(sig.Manifest.Digest())) {
					e.referrers(e.r.WithDigest(a.Manifest.Digest()), referrer.Filter{}, sig)
				}
			}
		},
	}, {
		name: "compare and swap",
		rule: "IndexPut whose old is not the index, byte by byte, is ErrConflict, also where there is none, and changes nothing",
		has:  []Capability{IndexStore},
		run: func(e *env) {
			first, second := indexDoc("", entry("v1", Image("a"))), indexDoc("", entry("v2", Image("a")))
			e.refused("IndexPut where there is no index", e.index().IndexPut(e.ctx, e.r, first, second), errs.ErrConflict, errs.ErrNotFound)
			e.untouched()
			e.must("IndexPut", e.index().IndexPut(e.ctx, e.r, nil, first))
			for _, old := range [][]byte{second, append(slices.Clone(first), '\n'), first[:len(first)-1], bytes.Replace(first, []byte("v1"), []byte("v3"), 1)} {
				for name, o := range e.twice() {
					e.refused("IndexPut by "+name, o.index().IndexPut(e.ctx, e.r, old, second), errs.ErrConflict)
					e.same("index", string(e.indexGet()), string(first))
					o.tags(e.r, "v1")
				}
			}
			e.must("IndexPut", e.index().IndexPut(e.ctx, e.r, first, second))
			e.refused("IndexPut again", e.index().IndexPut(e.ctx, e.r, first, second), errs.ErrConflict)
			e.must("IndexPut of what there is", e.index().IndexPut(e.ctx, e.r, second, second))
			e.same("index", string(e.indexGet()), string(second))
			e.push(e.r.WithTag("v9"), Image("a"))
			e.refused("IndexPut after a ManifestPut", e.index().IndexPut(e.ctx, e.r, second, first), errs.ErrConflict)
			e.tags(e.r, "v2", "v9")
		},
	}, {
		name: "no index",
		rule: "IndexPut of what is no image index is ErrInvalid and changes nothing",
		has:  []Capability{IndexStore},
		run: func(e *env) {
			good := indexDoc("", entry("v1", Image("a")))
			bad := []string{
				"", " ", "null", "[]", "1", `"x"`, "garbage", string(good[:len(good)/2]), string(good) + "x", string(good) + string(good),
				`{"schemaVersion":2,"manifests":1}`, `{"schemaVersion":2,"manifests":{}}`, `{"schemaVersion":2,"manifests":[1]}`,
				string(Image("a").Manifest.Raw()),
			}
			refuseAll := func() {
				for _, doc := range bad {
					e.refused(fmt.Sprintf("IndexPut of %.80q", doc), e.index().IndexPut(e.ctx, e.r, nil, []byte(doc)), errs.ErrInvalid)
				}
			}
			refuseAll()
			e.untouched()
			e.must("IndexPut", e.index().IndexPut(e.ctx, e.r, nil, good))
			refuseAll()
			e.same("index", string(e.indexGet()), string(good))
		},
	}, {
		name: "writers at once",
		rule: "of writers who read the index, change it and put it back with what they read, none undoes what another one did; nor what ManifestPut did",
		has:  []Capability{IndexStore},
		run:  indexWriters,
	}, {
		name: "readers meanwhile",
		rule: "who reads while the index is replaced sees the one or the other",
		has:  []Capability{IndexStore},
		run: func(e *env) {
			docs := [][]byte{
				indexDoc("", entry("a1", Image("a")), entry("a2", Image("a"))),
				indexDoc("\n", entry("b1", Image("b")), entry("b2", Image("b")), entry("b3", Image("b"))),
			}
			e.must("IndexPut", e.index().IndexPut(e.ctx, e.r, nil, docs[0]))
			done := make(chan struct{})
			var readers errgroup.Group
			for name, o := range e.twice() {
				readers.Go(func() error { return o.readIndex(name, docs, done) })
			}
			for i := range 20 {
				e.must("IndexPut", e.index().IndexPut(e.ctx, e.r, docs[i%2], docs[(i+1)%2]))
			}
			close(done)
			e.must("a reader", readers.Wait())
		},
	}, {
		name: "read-only",
		rule: "a read-only view gives the index and refuses to put it: ErrReadOnly",
		has:  []Capability{IndexStore},
		run: func(e *env) {
			doc := indexDoc("", entry("v1", Image("a")))
			e.must("IndexPut", e.index().IndexPut(e.ctx, e.r, nil, doc))
			view := *e
			view.api = scheme.ReadOnly(e.api)
			e.same("index", string(view.indexGet()), string(doc))
			e.refused("IndexPut", view.index().IndexPut(e.ctx, e.r, nil, indexDoc("")), errs.ErrReadOnly)
			e.same("index", string(e.indexGet()), string(doc))
		},
	},
}

func indexWriters(e *env) {
	e.begin()
	all := []*env{e}
	for _, o := range e.twice() {
		all = append(all, o)
	}
	it := Image("swapped")
	want := []string{}
	var writers errgroup.Group
	for i := range e.h.Writers {
		store, tag := all[i%len(all)].index(), fmt.Sprintf("swapped-%03d", i)
		want = append(want, tag, fmt.Sprintf("put-%03d", i))
		writers.Go(func() error {
			for {
				old, err := store.IndexGet(e.ctx, e.r)
				if err != nil {
					return err
				}
				next, err := withEntry(old, entry(tag, it))
				if err != nil {
					return err
				}
				if err := store.IndexPut(e.ctx, e.r, old, next); !errors.Is(err, errs.ErrConflict) {
					return err
				}
			}
		})
		writers.Go(func() error {
			return it.Push(e.ctx, all[i%len(all)].api, e.r.WithTag(fmt.Sprintf("put-%03d", i)))
		})
	}
	e.must("a writer", writers.Wait())
	slices.Sort(want)
	e.tags(e.r, want...)
	e.same("tags in the index", keys(e.tagsOf(e.indexGet())), want)
}

// readIndex reads until done, and expects only what docs say.
func (e *env) readIndex(who string, docs [][]byte, done <-chan struct{}) error {
	store := e.index()
	for {
		raw, err := store.IndexGet(e.ctx, e.r)
		if err != nil {
			return err
		}
		if !bytes.Equal(raw, docs[0]) && !bytes.Equal(raw, docs[1]) {
			return fmt.Errorf("%s reads an index that nobody put: %q", who, raw)
		}
		l, err := e.api.TagList(e.ctx, e.r)
		if err != nil {
			return err
		}
		if !slices.Equal(l.Tags, []string{"a1", "a2"}) && !slices.Equal(l.Tags, []string{"b1", "b2", "b3"}) {
			return fmt.Errorf("%s lists %q, which is neither index", who, l.Tags)
		}
		select {
		case <-done:
			return nil
		default:
		}
	}
}

func (e *env) index() scheme.IndexStore { return find[scheme.IndexStore](e, e.r) }

func (e *env) indexGet() []byte {
	e.t.Helper()
	raw, err := e.index().IndexGet(e.ctx, e.r)
	e.must("IndexGet", err)
	return raw
}

// entry describes a manifest under a tag, or without one.
func entry(tag string, it *Item) types.Descriptor {
	d := it.Descriptor()
	if tag != "" {
		d.Annotations = map[string]string{types.AnnotationRefName: tag}
	}
	return d
}

// indexDoc is an image index with fields that nobody knows, and with space around it.
func indexDoc(space string, entries ...types.Descriptor) []byte {
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types.MediaTypeImageIndex, "manifests": append([]types.Descriptor{}, entries...),
		"annotations": map[string]string{"k": "v"}, "x-unknown": map[string]any{"a": []int{1, 2}},
	})
	if err != nil {
		panic(err)
	}
	return slices.Concat([]byte(space), raw, []byte(space))
}

// withEntry adds an entry to an index.
func withEntry(raw []byte, d types.Descriptor) ([]byte, error) {
	doc := map[string]any{}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	list, _ := doc["manifests"].([]any)
	doc["manifests"] = append(list, d)
	return json.Marshal(doc)
}

// tagsOf reads the tags of an index.
func (e *env) tagsOf(raw []byte) map[string]digest.Digest {
	e.t.Helper()
	var doc struct{ Manifests []types.Descriptor }
	e.must("the index", json.Unmarshal(raw, &doc))
	tags := map[string]digest.Digest{}
	for _, d := range doc.Manifests {
		if tag := d.Annotations[types.AnnotationRefName]; tag != "" {
			tags[tag] = d.Digest
		}
	}
	return tags
}

// keys returns the keys, sorted.
func keys[T any](m map[string]T) []string {
	all := []string{}
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}
