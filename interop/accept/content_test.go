package accept_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/testdata"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place names the layout in dir.
func place(dir string) ref.Ref { return ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir} }

// open returns our API, as a process that just started has it.
func open(t *testing.T) scheme.API {
	t.Helper()
	api := ocidir.New()
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	return api
}

// item is a manifest and what it needs.
type item struct {
	desc     ocispec.Descriptor // with artifactType and platform, as an index lists it
	raw      []byte
	blobs    map[digest.Digest][]byte
	children []*item
}

func describe(alg digest.Algorithm, mt string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mt, Digest: alg.FromBytes(data), Size: int64(len(data))}
}

func marshal(t *testing.T, doc any) []byte {
	t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// layer returns a tar with one file, and the same compressed.
func layer(t *testing.T, name, content string) (plain, zipped []byte) {
	t.Helper()
	var tarball, out bytes.Buffer
	tw := tar.NewWriter(&tarball)
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg, ModTime: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	zw := gzip.NewWriter(&out)
	if _, err := zw.Write(tarball.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return tarball.Bytes(), out.Bytes()
}

// image makes an image that a runtime would take: layers with their diff IDs, history and platform.
func image(t *testing.T, name, arch string, alg digest.Algorithm) *item {
	t.Helper()
	created := time.Unix(1700000000, 0).UTC()
	it := &item{blobs: map[digest.Digest][]byte{}}
	config := ocispec.Image{Created: &created, Platform: ocispec.Platform{OS: "linux", Architecture: arch}}
	config.RootFS.Type = "layers"
	doc := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Annotations: map[string]string{"name": name}}
	doc.SchemaVersion = 2
	for _, file := range []string{"etc/hello", "usr/share/" + name} {
		plain, zipped := layer(t, file, name+" for "+arch)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: "a test"})
		d := describe(alg, ocispec.MediaTypeImageLayerGzip, zipped)
		doc.Layers, it.blobs[d.Digest] = append(doc.Layers, d), zipped
	}
	raw := marshal(t, config)
	doc.Config = describe(alg, ocispec.MediaTypeImageConfig, raw)
	it.blobs[doc.Config.Digest] = raw
	it.raw = marshal(t, doc)
	it.desc = describe(alg, doc.MediaType, it.raw)
	return it
}

// index makes an index over images for amd64 and arm64.
func index(t *testing.T, name string, alg digest.Algorithm) *item {
	t.Helper()
	doc := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	doc.SchemaVersion = 2
	it := &item{}
	for _, arch := range []string{"amd64", "arm64"} {
		child := image(t, name, arch, alg)
		d := child.desc
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		doc.Manifests, it.children = append(doc.Manifests, d), append(it.children, child)
	}
	it.raw = marshal(t, doc)
	it.desc = describe(alg, doc.MediaType, it.raw)
	return it
}

// artifact makes an artifact manifest, of the shape that image-spec 1.1 recommends. subject may be nil.
func artifact(t *testing.T, kind, content string, subject *item, alg digest.Algorithm) *item {
	t.Helper()
	d := describe(alg, "text/plain", []byte(content))
	doc := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{d},
	}
	doc.SchemaVersion = 2
	doc.Config.Data = nil
	if subject != nil {
		doc.Subject = &ocispec.Descriptor{MediaType: subject.desc.MediaType, Digest: subject.desc.Digest, Size: subject.desc.Size}
	}
	it := &item{raw: marshal(t, doc), blobs: map[digest.Digest][]byte{d.Digest: []byte(content), doc.Config.Digest: []byte("{}")}}
	it.desc = describe(alg, doc.MediaType, it.raw)
	it.desc.ArtifactType = kind
	return it
}

// push puts it, with all it needs, under tags or, without any, by its digest.
func push(t *testing.T, api scheme.API, r ref.Ref, it *item, tags ...string) {
	t.Helper()
	pushAs(t, api, r, it, false, tags)
}

func pushAs(t *testing.T, api scheme.API, r ref.Ref, it *item, child bool, tags []string) {
	t.Helper()
	for d, data := range it.blobs {
		if _, err := api.BlobPut(t.Context(), r, types.Descriptor{Digest: d, Size: int64(len(data))}, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range it.children {
		pushAs(t, api, r, c, true, nil)
	}
	m, err := manifest.New(it.raw, manifest.WithDigest(it.desc.Digest))
	if err != nil {
		t.Fatal(err)
	}
	var opts []scheme.ManifestPutOption
	if child {
		opts = append(opts, scheme.WithChild())
	}
	if len(tags) > 0 {
		opts = append(opts, scheme.WithTags(tags...))
	}
	if _, err := api.ManifestPut(t.Context(), r.WithDigest(it.desc.Digest), m, opts...); err != nil {
		t.Fatal(err)
	}
}

// layoutOf is a layout that we wrote, and what has to be found in it.
type layoutOf struct {
	dir       string
	tags      map[string]digest.Digest
	subject   ocispec.Descriptor
	referrers []digest.Digest // of subject
	count     int             // of all blobs
}

// written makes a layout of everything that our API puts.
func written(t *testing.T, alg digest.Algorithm) layoutOf {
	t.Helper()
	api, dir := open(t), t.TempDir()
	r := place(dir)
	single, multi := image(t, "single", "amd64", alg), index(t, "multi", alg)
	lone := artifact(t, "application/vnd.example.lone", "lone", nil, alg)
	sbom := artifact(t, "application/vnd.example.sbom", "sbom", multi, alg)
	signature := artifact(t, "application/vnd.example.signature", "signature", multi, alg)
	nested := artifact(t, "application/vnd.example.signature", "of the sbom", sbom, alg)
	push(t, api, r, single, "single", "latest")
	push(t, api, r, multi, "multi")
	push(t, api, r, lone, "artifact")
	push(t, api, r, signature) // a referrer in both orders: before and after what it refers to was tagged again
	push(t, api, r, multi, "latest")
	push(t, api, r, sbom)
	push(t, api, r, nested)
	l := layoutOf{dir: dir, subject: multi.desc, referrers: []digest.Digest{sbom.desc.Digest, signature.desc.Digest}}
	l.tags = map[string]digest.Digest{"single": single.desc.Digest, "latest": multi.desc.Digest, "multi": multi.desc.Digest, "artifact": lone.desc.Digest}
	l.count = len(blobFiles(t, dir))
	return l
}

// copied makes a layout as `ocisync copy --all-tags` of the demo image does.
func copied(t *testing.T) layoutOf {
	t.Helper()
	src, dir := t.TempDir(), t.TempDir()
	if err := os.CopyFS(src, testdata.Demo()); err != nil {
		t.Fatal(err)
	}
	c := ocisync.New()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Copy(t.Context(), place(src), place(dir), ocisync.WithAllTags()); err != nil {
		t.Fatal(err)
	}
	l := layoutOf{dir: dir, tags: map[string]digest.Digest{}, count: len(blobFiles(t, src))}
	for _, e := range entriesOf(t, src) {
		if tag := e.Annotations[ocispec.AnnotationRefName]; tag != "" {
			l.tags[tag] = e.Digest
		}
		if e.ArtifactType == "application/spdx+json" {
			l.referrers = append(l.referrers, e.Digest)
		}
		if e.Annotations[ocispec.AnnotationRefName] == "1.0" {
			l.subject = ocispec.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size}
		}
	}
	return l
}

// entriesOf returns the entries of dir's index.json.
func entriesOf(t *testing.T, dir string) []ocispec.Descriptor {
	t.Helper()
	var idx ocispec.Index
	if err := json.Unmarshal(file(t, dir, "index.json"), &idx); err != nil {
		t.Fatal(err)
	}
	return idx.Manifests
}
