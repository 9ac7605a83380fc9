package schemetest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types/ref"
)

// Random operations are done to the implementation and to a model, which is memory. Both must answer alike, and look
// alike afterwards. What the contract leaves open is not done: no manifest is read as a blob, and no index is deleted
// whose manifests might lose their only entry with it.

var modelCases = []testCase{{
	name: "random operations",
	rule: "any sequence of operations has the same results and errors, and leaves the same state, as in the model (scheme/mem)",
	run: func(e *env) {
		rapid.Check(e.t, func(t *rapid.T) {
			api, r := e.h.New(e.t)
			w := &world{t: t, e: e, got: place{api, r, e.h.sibling(r)}}
			root := ref.Ref{Scheme: mem.Scheme, Root: "model"}
			w.want = place{mem.New(), root.WithRepo("a"), root.WithRepo("b")}
			w.fill()
			for range rapid.IntRange(1, e.h.Steps).Draw(t, "steps") {
				w.step()
			}
			want := observe(e.ctx, w.want.api, w.want.r, w.tags, w.items)
			got := observe(e.ctx, w.got.api, w.got.r, w.tags, w.items)
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("the state differs (-model +implementation):\n%s\n    rule: %s", d, e.rule)
			}
		})
	},
}}

// place is where an operation is done: at the implementation's, and at the model's.
type place struct {
	api   scheme.API
	r     ref.Ref
	other ref.Ref
}

// world is what operations choose from.
type world struct {
	t         *rapid.T
	e         *env
	got, want place
	tags      []string
	items     []*Item
	blobs     [][]byte
}

// modelItems is the content that may be put.
var modelItems = sync.OnceValue(func() []*Item {
	a, b := Image("a"), Image("b", Docker)
	index := Index([]*Item{a, b})
	return []*Item{
		a, b, index, Opaque("c"),
		Image("signature", Subject(a.Descriptor()), ArtifactType("application/x-sig")),
		Image("sbom", Subject(index.Descriptor()), Annotation("k", "v")),
		Index([]*Item{index}, Subject(b.Descriptor())),
	}
})

// fill chooses what is there at the beginning.
func (w *world) fill() {
	w.tags = []string{"v1", "v2", "latest"}
	w.items = slices.Clone(modelItems())
	w.items[3] = w.e.opaque("c")
	for _, it := range w.items {
		w.blobs = append(w.blobs, it.Blobs...)
	}
	if !w.e.h.can(ReferrersTellMissing) || rapid.Bool().Draw(w.t, "exists") {
		w.both("begin", func(p place) error {
			_, err := p.api.BlobPut(w.e.ctx, p.r, describe("", nil), bytes.NewReader(nil))
			return err
		})
	}
	if !w.e.h.can(CheckContent) || rapid.Bool().Draw(w.t, "content") {
		for _, it := range w.items {
			w.both("content", func(p place) error { return it.PushContent(w.e.ctx, p.api, p.r) })
		}
	}
	w.both("other", func(p place) error { return w.items[0].Push(w.e.ctx, p.api, p.other) })
}

// both does one operation in both places and compares the errors.
func (w *world) both(what string, do func(p place) error) {
	want, got := do(w.want), do(w.got)
	if kind(want) != kind(got) {
		w.t.Fatalf("%s: got %q, the model says %q\n    got %v\n    rule: %s", what, kind(got), kind(want), got, w.e.rule)
	}
}

// step does one operation that is chosen at random among those that the place has.
func (w *world) step() {
	type op struct {
		name string
		do   func()
	}
	ops := []op{{"push", w.push}, {"put a manifest", w.put}, {"put a blob", w.putBlob}, {"put a wrong blob", w.putWrong}}
	can := w.e.h.can
	if can(BlobDelete) && can(CheckContent) {
		ops = append(ops, op{"delete a blob", w.deleteBlob})
	}
	if can(ManifestDelete) && can(CheckContent) {
		ops = append(ops, op{"delete a manifest", w.deleteManifest})
	}
	if can(TagDelete) {
		ops = append(ops, op{"delete a tag", w.deleteTag})
	}
	if can(Mount) && can(MountTellsMissing) {
		ops = append(ops, op{"mount a blob", w.mount})
	}
	names := make([]string, len(ops))
	for i, o := range ops {
		names[i] = o.name
	}
	name := rapid.SampledFrom(names).Draw(w.t, "operation")
	for _, o := range ops {
		if o.name == name {
			o.do()
		}
	}
}

func (w *world) item() *Item { return w.items[rapid.IntRange(0, len(w.items)-1).Draw(w.t, "item")] }

func (w *world) blob() []byte { return w.blobs[rapid.IntRange(0, len(w.blobs)-1).Draw(w.t, "blob")] }

func (w *world) tag() string { return rapid.SampledFrom(w.tags).Draw(w.t, "tag") }

func (w *world) push() {
	it, tag := w.item(), w.tag()
	w.both("push "+tag, func(p place) error { return it.Push(w.e.ctx, p.api, p.r.WithTag(tag)) })
}

func (w *world) put() {
	it, tag := w.item(), w.tag()
	if !w.e.h.can(CheckContent) {
		w.both("content", func(p place) error { return it.PushContent(w.e.ctx, p.api, p.r) })
	}
	form := rapid.SampledFrom([]string{"tag", "digest", "both", "wrong digest", "tags", "nothing"}).Draw(w.t, "reference")
	w.both("ManifestPut by "+form, func(p place) error {
		r := p.r.WithTag(tag)
		var opts []scheme.ManifestPutOption
		switch form {
		case "digest":
			r = p.r.WithDigest(it.Manifest.Digest())
		case "both":
			r.Digest = it.Manifest.Digest()
		case "wrong digest":
			r.Digest = digest.FromString("wrong")
		case "tags":
			opts = append(opts, scheme.WithTags(w.tags...))
		case "nothing":
			r = p.r
		}
		res, err := p.api.ManifestPut(w.e.ctx, r, it.Manifest, opts...)
		if err == nil && res.Descriptor.Digest != it.Manifest.Digest() {
			return fmt.Errorf("the result is %s", res.Descriptor.Digest)
		}
		return err
	})
}

func (w *world) putBlob() {
	data := w.blob()
	w.both("BlobPut", func(p place) error {
		_, err := p.api.BlobPut(w.e.ctx, p.r, describe("", data), bytes.NewReader(data))
		return err
	})
}

// putWrong puts what is not in either place, so that neither may leave it unread.
func (w *world) putWrong() {
	w.both("BlobPut", func(p place) error {
		_, err := p.api.BlobPut(w.e.ctx, p.r, describe("", []byte("right")), bytes.NewReader([]byte("wrong")))
		return err
	})
}

func (w *world) deleteBlob() {
	d := describe("", w.blob())
	w.both("BlobDelete", func(p place) error { return p.api.BlobDelete(w.e.ctx, p.r, d) })
}

func (w *world) deleteManifest() {
	it := w.item()
	if it.Manifest.IsIndex() {
		return
	}
	w.both("ManifestDelete", func(p place) error {
		return p.api.ManifestDelete(w.e.ctx, p.r.WithDigest(it.Manifest.Digest()), scheme.WithReferrerCleanup())
	})
}

func (w *world) deleteTag() {
	tag := w.tag()
	w.both("TagDelete "+tag, func(p place) error { return p.api.TagDelete(w.e.ctx, p.r.WithTag(tag)) })
}

func (w *world) mount() {
	d := describe("", w.blob())
	w.both("BlobMount", func(p place) error { return p.api.BlobMount(w.e.ctx, p.other, p.r, d) })
}
