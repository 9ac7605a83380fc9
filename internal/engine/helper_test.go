package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/internal/engine"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/blob"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
	"github.com/ocisync/ocisync/types/tag"
	"github.com/ocisync/ocisync/types/transfer"
)

// world is two places and an engine between them. Both are memory behind a spy; as their schemes differ, nothing can
// be linked unless a test says otherwise.
type world struct {
	t        *testing.T
	src, dst *spy
	from, to ref.Ref
	engine   *engine.Engine
}

func newWorld(t *testing.T) *world { return worldOf(t, "src", "dst") }

// worldOf makes a world whose places have these schemes. Equal ones are one memory, with one spy.
func worldOf(t *testing.T, src, dst string) *world {
	w := &world{t: t, src: newSpy(t), from: ref.Ref{Scheme: src, Root: "a.example", Repo: "app"}, to: ref.Ref{Scheme: dst, Root: "b.example", Repo: "app"}}
	w.dst = w.src
	apis := map[string]scheme.API{src: w.src}
	if src != dst {
		w.dst = newSpy(t)
		apis[dst] = w.dst
	}
	w.engine = engine.New(scheme.NewMux(apis), 2)
	return w
}

// copy copies and expects no error.
func (w *world) copy(o engine.Options) *transfer.Report {
	w.t.Helper()
	rep, err := w.engine.Copy(context.Background(), w.from, w.to, o)
	if err != nil {
		w.t.Fatalf("copy: %v", err)
	}
	return rep
}

// forget drops the calls that were seen.
func (w *world) forget() { w.src.reset(); w.dst.reset() }

// tags copies these tags only, all of them named by their whole text.
func tags(names ...string) engine.Options { return engine.Options{AllTags: true, Tags: names} }

var plain = engine.Options{NoReferrers: true}

// builder puts content into a place, without being seen by its spy.
type builder struct {
	t  *testing.T
	to scheme.API
	r  ref.Ref
}

func (w *world) atSource() *builder { return &builder{w.t, w.src.base, w.from.Place()} }
func (w *world) atTarget() *builder { return &builder{w.t, w.dst.base, w.to.Place()} }

// noBlob describes a blob that is put later: of what is there, no manifest may say a wrong size.
func noBlob(text string) types.Descriptor {
	return types.Descriptor{Digest: digest.FromString(text), MediaType: ocispec.MediaTypeImageLayer, Size: int64(len(text))}
}

func (b *builder) blob(text string) types.Descriptor {
	b.t.Helper()
	d, err := b.to.BlobPut(context.Background(), b.r, noBlob(text), strings.NewReader(text))
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// image puts an image with these layers under each of the tags, or by digest. Its config is named by the layers.
func (b *builder) image(layers []string, names ...string) types.Descriptor {
	b.t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: b.blob("config of " + strings.Join(layers, "+"))}
	m.SchemaVersion = 2
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	for _, l := range layers {
		m.Layers = append(m.Layers, b.blob(l))
	}
	return b.put(m, names...)
}

// index puts an index of these manifests; a descriptor may have a platform.
func (b *builder) index(list []types.Descriptor, names ...string) types.Descriptor {
	b.t.Helper()
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	ix.SchemaVersion = 2
	return b.put(ix, names...)
}

// artifact puts a manifest that refers to subject.
func (b *builder) artifact(subject types.Descriptor, text string, names ...string) types.Descriptor {
	b.t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "test/signature", Subject: &types.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}, Config: b.blob("{}"), Layers: []types.Descriptor{b.blob(text)}}
	m.SchemaVersion = 2
	return b.put(m, names...)
}

func (b *builder) put(doc any, names ...string) types.Descriptor {
	b.t.Helper()
	raw, err := json.Marshal(doc)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.putRaw(raw, names...)
}

func (b *builder) putRaw(raw []byte, names ...string) types.Descriptor {
	b.t.Helper()
	m, err := manifest.New(raw)
	if err != nil {
		b.t.Fatal(err)
	}
	at := b.r.WithDigest(m.Digest())
	if len(names) > 0 {
		at = b.r.WithTag(names[0])
		names = names[1:]
	}
	if _, err := b.to.ManifestPut(context.Background(), at, m, scheme.WithTags(names...), scheme.WithSparseImages()); err != nil {
		b.t.Fatal(err)
	}
	return m.Descriptor()
}

func on(d types.Descriptor, platform string) types.Descriptor {
	p := strings.Split(platform, "/")
	d.Platform = &types.Platform{OS: p[0], Architecture: p[1]}
	return d
}

// tag returns the digest that the target's tag has, or "".
func (w *world) tag(name string) digest.Digest {
	w.t.Helper()
	d, err := w.dst.base.ManifestHead(context.Background(), w.to.Place().WithTag(name))
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		w.t.Fatal(err)
	}
	return d.Digest
}

// has reports whether the target has the manifest d with everything below it.
func (w *world) has(d types.Descriptor) bool {
	return missingBelow(w.dst.base, w.to.Place(), d) == ""
}

// missingBelow returns what r's place lacks of the manifest d, or "".
func missingBelow(api scheme.API, r ref.Ref, d types.Descriptor) digest.Digest {
	ctx := context.Background()
	m, err := api.ManifestGet(ctx, r.WithDigest(d.Digest))
	if err != nil {
		return d.Digest
	}
	v, err := m.View()
	if err != nil {
		return d.Digest
	}
	for _, child := range v.Manifests {
		if types.IsManifest(child.MediaType) {
			if lost := missingBelow(api, r, child); lost != "" {
				return lost
			}
		}
	}
	blobs := v.Layers
	if v.Config != nil {
		blobs = append(slices.Clone(blobs), *v.Config)
	}
	for _, b := range blobs {
		if _, err := api.BlobHead(ctx, r, b); err != nil && !types.IsForeignLayer(b.MediaType) {
			return b.Digest
		}
	}
	return ""
}

// spy is a place that writes down what it is asked, and can be told to fail.
type spy struct {
	scheme.API
	base *mem.Mem
	t    *testing.T

	mu          sync.Mutex
	calls       []string
	incident    func(call string) error        // before a call
	stream      func(d types.Descriptor) error // what a blob's stream ends with after its first half
	check       bool                           // that every manifest put is complete
	noMounts    bool
	liesOnMount bool // it says that it mounted, and did not
}

func newSpy(t *testing.T) *spy {
	m := mem.New()
	return &spy{API: m, base: m, t: t, check: true}
}

func (s *spy) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

// seen returns the calls so far: operation and what it was about.
func (s *spy) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// count returns how many calls begin with prefix.
func (s *spy) count(prefix string) (n int) {
	for _, c := range s.seen() {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

func (s *spy) note(ctx context.Context, op string, what any) error {
	call := fmt.Sprintf("%s %v", op, what)
	s.mu.Lock()
	s.calls = append(s.calls, call)
	incident := s.incident
	s.mu.Unlock()
	if incident != nil {
		if err := incident(call); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *spy) BlobGet(ctx context.Context, r ref.Ref, d types.Descriptor, o ...scheme.BlobGetOption) (blob.Reader, error) {
	if err := s.note(ctx, "BlobGet", d.Digest); err != nil {
		return nil, err
	}
	rdr, err := s.base.BlobGet(ctx, r, d, o...)
	if err != nil || s.stream == nil {
		return rdr, err
	}
	if broken := s.stream(d); broken != nil {
		half, _ := io.ReadAll(io.LimitReader(rdr, d.Size/2))
		return blob.NewReader(io.NopCloser(io.MultiReader(bytes.NewReader(half), failing{broken})), d)
	}
	return rdr, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (s *spy) BlobHead(ctx context.Context, r ref.Ref, d types.Descriptor, o ...scheme.BlobHeadOption) (types.Descriptor, error) {
	if err := s.note(ctx, "BlobHead", d.Digest); err != nil {
		return types.Descriptor{}, err
	}
	return s.base.BlobHead(ctx, r, d, o...)
}

func (s *spy) BlobPut(ctx context.Context, r ref.Ref, d types.Descriptor, rdr io.Reader, o ...scheme.BlobPutOption) (types.Descriptor, error) {
	if !scheme.Collect(o).DeferredSync {
		s.t.Error("a blob is put that is made durable by itself")
	}
	op := "BlobPut"
	if from := scheme.Collect(o).MountFrom; len(from) > 0 {
		var repos []string
		for _, f := range from {
			repos = append(repos, f.Repo)
		}
		op = "BlobPut(from " + strings.Join(repos, ",") + ")"
	}
	if op == "BlobPut" && !blob.Verifies(rdr, d) {
		s.t.Error("a stream that would have to be hashed again")
	}
	if err := s.note(ctx, op, d.Digest); err != nil {
		return types.Descriptor{}, err
	}
	if s.noMounts {
		o = nil
	}
	if s.liesOnMount && len(scheme.Collect(o).MountFrom) > 0 {
		return d, nil
	}
	return s.base.BlobPut(ctx, r, d, rdr, o...)
}

func (s *spy) BlobMount(ctx context.Context, src, tgt ref.Ref, d types.Descriptor, o ...scheme.BlobMountOption) error {
	if err := s.note(ctx, "BlobMount", d.Digest); err != nil {
		return err
	}
	return s.base.BlobMount(ctx, src, tgt, d, o...)
}

func (s *spy) ManifestGet(ctx context.Context, r ref.Ref, o ...scheme.ManifestGetOption) (*manifest.Manifest, error) {
	if err := s.note(ctx, "ManifestGet", r.Reference()); err != nil {
		return nil, err
	}
	return s.base.ManifestGet(ctx, r, o...)
}

func (s *spy) ManifestHead(ctx context.Context, r ref.Ref, o ...scheme.ManifestHeadOption) (types.Descriptor, error) {
	if err := s.note(ctx, "ManifestHead", r.Reference()); err != nil {
		return types.Descriptor{}, err
	}
	return s.base.ManifestHead(ctx, r, o...)
}

func (s *spy) ManifestPut(ctx context.Context, r ref.Ref, m *manifest.Manifest, o ...scheme.ManifestPutOption) (manifest.PutResult, error) {
	op := "ManifestPut"
	if scheme.Collect(o).Child {
		op = "ManifestPut(child)"
	}
	if err := s.note(ctx, op, r.Reference()); err != nil {
		return manifest.PutResult{}, err
	}
	res, err := s.base.ManifestPut(ctx, r, m, o...)
	if err == nil && s.check && !scheme.Collect(o).Sparse {
		if lost := missingBelow(s.base, r.Place(), m.Descriptor()); lost != "" {
			s.t.Errorf("after the put of %s the target lacks %s", r.Reference(), lost)
		}
	}
	return res, err
}

func (s *spy) TagList(ctx context.Context, r ref.Ref, o ...scheme.TagListOption) (tag.List, error) {
	if err := s.note(ctx, "TagList", r.Repo); err != nil {
		return tag.List{}, err
	}
	return s.base.TagList(ctx, r, o...)
}

func (s *spy) ReferrerList(ctx context.Context, r ref.Ref, o ...scheme.ReferrerListOption) (referrer.List, error) {
	if err := s.note(ctx, "ReferrerList", r.Reference()); err != nil {
		return referrer.List{}, err
	}
	return s.base.ReferrerList(ctx, r, o...)
}

// fails makes the calls that begin with prefix fail.
func (s *spy) fails(prefix string, err error) {
	s.incident = func(call string) error {
		if strings.HasPrefix(call, prefix) {
			return err
		}
		return nil
	}
}
