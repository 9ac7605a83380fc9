package accept_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apex/log"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/plugins/content/local"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/schema"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/umoci/oci/cas/dir"
	"github.com/opencontainers/umoci/oci/casext"
	"github.com/regclient/regclient"
	rcscheme "github.com/regclient/regclient/scheme"
	rcref "github.com/regclient/regclient/types/ref"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/content/oci"
)

// judges are other projects' readers: each one fails the test if it finds fault with a layout.
var judges = []struct {
	name   string
	sha512 bool // it knows that algorithm
	judge  func(t *testing.T, l layoutOf)
}{
	{"image-spec", true, judgeSchema},
	{"go-containerregistry", false, judgeGGCR}, // pkg/v1/hash.go: sha256 only
	{"oras-go", true, judgeOras},
	{"containerd", true, judgeContainerd},
	{"regclient", true, judgeRegclient},
	{"umoci", false, judgeUmoci}, // oci/cas/cas.go: sha256 only
}

func init() { log.SetLevel(log.ErrorLevel) } // umoci tells of every blob that it does not parse

func TestWhatWeWriteIsAccepted(t *testing.T) {
	for _, c := range []struct {
		name string
		alg  digest.Algorithm
		make func(t *testing.T) layoutOf
	}{
		{"written", digest.SHA256, func(t *testing.T) layoutOf { return written(t, digest.SHA256) }},
		{"written with sha512", digest.SHA512, func(t *testing.T) layoutOf { return written(t, digest.SHA512) }},
		{"copied", digest.SHA256, copied},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := c.make(t)
			if len(l.tags) < 3 || len(l.referrers) == 0 || l.count < 10 || len(blobFiles(t, l.dir)) != l.count {
				t.Fatalf("the layout is not what it should be: %+v", l)
			}
			untouched(t, l.dir)
			for _, j := range judges {
				if c.alg == digest.SHA512 && !j.sha512 {
					continue
				}
				t.Run(j.name, func(t *testing.T) { j.judge(t, l) })
			}
		})
	}
}

// judgeSchema holds every document to image-spec's JSON schemas.
func judgeSchema(t *testing.T, l layoutOf) {
	if err := schema.ValidatorMediaTypeLayoutHeader.Validate(bytes.NewReader(file(t, l.dir, "oci-layout"))); err != nil {
		t.Errorf("oci-layout: %v", err)
	}
	if err := schema.ValidatorMediaTypeImageIndex.Validate(bytes.NewReader(file(t, l.dir, "index.json"))); err != nil {
		t.Errorf("index.json: %v", err)
	}
	validators := map[string]schema.Validator{
		ocispec.MediaTypeImageIndex:    schema.ValidatorMediaTypeImageIndex,
		ocispec.MediaTypeImageManifest: schema.ValidatorMediaTypeManifest,
		ocispec.MediaTypeImageConfig:   schema.ValidatorMediaTypeImageConfig,
	}
	seen := map[string]int{}
	var visit func(d ocispec.Descriptor)
	visit = func(d ocispec.Descriptor) {
		v, ok := validators[d.MediaType]
		if !ok {
			return
		}
		seen[d.MediaType]++
		data := blobOf(t, l.dir, d.Digest)
		if int64(len(data)) != d.Size {
			t.Errorf("%s has %d bytes, its descriptor says %d", d.Digest, len(data), d.Size)
		}
		if err := v.Validate(bytes.NewReader(data)); err != nil {
			t.Errorf("%s %s: %v", d.MediaType, d.Digest, err)
		}
		var doc struct {
			Config    *ocispec.Descriptor  `json:"config"`
			Manifests []ocispec.Descriptor `json:"manifests"`
			Layers    []ocispec.Descriptor `json:"layers"`
		}
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Errorf("%s: %v", d.Digest, err)
		}
		for _, child := range append(doc.Manifests, doc.Layers...) {
			visit(child)
		}
		if doc.Config != nil {
			visit(*doc.Config)
		}
	}
	for _, d := range entriesOf(t, l.dir) {
		visit(d)
	}
	if seen[ocispec.MediaTypeImageIndex] < 1 || seen[ocispec.MediaTypeImageManifest] < 4 || seen[ocispec.MediaTypeImageConfig] < 2 {
		t.Errorf("too little was looked at: %v", seen)
	}
}

// judgeGGCR validates everything: digests, sizes, diff IDs, history and platforms.
func judgeGGCR(t *testing.T, l layoutOf) {
	p, err := layout.FromPath(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range m.Manifests {
		if strings.HasSuffix(e.Annotations[ocispec.AnnotationRefName], ".sig") {
			continue // cosign lists its payload as a diff ID, and it is no layer: validate refuses every signature of it
		}
		if err := validateEntry(idx, e); err != nil {
			t.Errorf("%s: %v", e.Digest, err)
		}
	}
}

func validateEntry(idx v1.ImageIndex, e v1.Descriptor) error {
	if e.MediaType.IsIndex() {
		child, err := idx.ImageIndex(e.Digest)
		if err != nil {
			return err
		}
		return validate.Index(child)
	}
	img, err := idx.Image(e.Digest)
	if err != nil {
		return err
	}
	return validate.Image(img)
}

func judgeOras(t *testing.T, l layoutOf) {
	src, err := oci.NewFromFS(t.Context(), os.DirFS(l.dir))
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range l.tags {
		d, err := src.Resolve(t.Context(), tag)
		if err != nil || d.Digest != want {
			t.Errorf("%s resolves to %s, %v; want %s", tag, d.Digest, err, want)
		}
		if d, err = oras.Copy(t.Context(), src, tag, memory.New(), tag, oras.DefaultCopyOptions); err != nil || d.Digest != want {
			t.Errorf("copying %s: %s, %v", tag, d.Digest, err)
		}
	}
	dst := memory.New()
	if _, err := oras.ExtendedCopy(t.Context(), src, l.subject.Digest.String(), dst, "extended", oras.DefaultExtendedCopyOptions); err != nil {
		t.Fatalf("copying with referrers: %v", err)
	}
	for name, store := range map[string]interface {
		Predecessors(context.Context, ocispec.Descriptor) ([]ocispec.Descriptor, error)
	}{"layout": src, "copy": dst} {
		list, err := store.Predecessors(t.Context(), l.subject)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range l.referrers {
			if !slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == want }) {
				t.Errorf("the predecessors in the %s lack %s", name, want)
			}
		}
	}
}

// judgeContainerd takes the layout for a content store of containerd's, which it is but for ingests.
func judgeContainerd(t *testing.T, l layoutOf) {
	cs, err := local.NewStore(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = cs.Walk(t.Context(), func(i content.Info) error {
		n++
		data, err := content.ReadBlob(t.Context(), cs, ocispec.Descriptor{Digest: i.Digest})
		if err == nil && i.Digest.Algorithm().FromBytes(data) != i.Digest {
			t.Errorf("%s is damaged", i.Digest)
		}
		return err
	})
	if err != nil || n != l.count {
		t.Errorf("%d blobs, %v; want %d", n, err, l.count)
	}
	walked := map[digest.Digest]bool{}
	note := images.HandlerFunc(func(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		walked[d.Digest] = true
		return nil, nil
	})
	if err := images.Walk(t.Context(), images.Handlers(note, images.ChildrenHandler(cs)), entriesOf(t, l.dir)...); err != nil {
		t.Error(err)
	}
	if len(walked) != l.count {
		t.Errorf("from the index %d blobs are reached, want all %d", len(walked), l.count)
	}
}

func judgeRegclient(t *testing.T, l layoutOf) {
	rc := regclient.New()
	src := rcRef(t, l.dir)
	for tag, want := range l.tags {
		m, err := rc.ManifestGet(t.Context(), src.SetTag(tag))
		if err != nil {
			t.Errorf("%s: %v", tag, err)
		} else if got := m.GetDescriptor().Digest; got != want {
			t.Errorf("%s resolves to %s, want %s", tag, got, want)
		}
	}
	list, err := rc.TagList(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if tags, err := list.GetTags(); err != nil || len(tags) != len(l.tags) {
		t.Errorf("the tags are %v, %v; want %v", tags, err, l.tags)
	}
	dst := t.TempDir()
	for tag, want := range l.tags {
		if err := rc.ImageCopy(t.Context(), src.SetTag(tag), rcRef(t, dst).SetTag(tag)); err != nil {
			t.Errorf("copying %s: %v", tag, err)
		} else if got := entryOf(t, dst, tag).Digest; got != want {
			t.Errorf("copying %s gave %s", tag, got)
		}
	}
	// Without the slow search it looks only for fallback tags that it has put itself; its ImageCopy always does that.
	refs, err := rc.ReferrerList(t.Context(), src.SetDigest(l.subject.Digest.String()), rcscheme.WithReferrerSlowSearch())
	if err != nil {
		t.Fatal(err)
	}
	found := map[digest.Digest]bool{}
	for _, d := range refs.Descriptors {
		found[d.Digest] = true
	}
	for _, want := range l.referrers {
		if !found[want] {
			t.Errorf("the referrers lack %s", want)
		}
	}
}

// entryOf returns the entry of dir's index.json with the tag.
func entryOf(t *testing.T, dir, tag string) (found ocispec.Descriptor) {
	t.Helper()
	for _, e := range entriesOf(t, dir) {
		if e.Annotations[ocispec.AnnotationRefName] == tag {
			found = e
		}
	}
	return found
}

// rcRef names a layout for regclient.
func rcRef(t *testing.T, dir string) rcref.Ref {
	t.Helper()
	r, err := rcref.New("ocidir://" + dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// judgeUmoci resolves every tag, and lets umoci's garbage collection find nothing to do. It works on a copy.
func judgeUmoci(t *testing.T, l layoutOf) {
	work := t.TempDir()
	if err := os.CopyFS(work, os.DirFS(l.dir)); err != nil {
		t.Fatal(err)
	}
	engine, err := dir.Open(work)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}()
	ext := casext.NewEngine(engine)
	for tag, want := range l.tags {
		paths, err := ext.ResolveReference(t.Context(), tag)
		if err != nil || len(paths) == 0 || paths[0].Root().Digest != want {
			t.Errorf("%s resolves to %v, %v; want %s", tag, paths, err, want)
		}
	}
	if err := ext.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := blobFiles(t, work); len(left) != l.count {
		t.Errorf("umoci's collection left %d of %d blobs", len(left), l.count)
	}
}
