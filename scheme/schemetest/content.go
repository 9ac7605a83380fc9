package schemetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// Blob returns size bytes that are always the same for a name, and others for another.
func Blob(name string, size int) []byte {
	var seed [32]byte
	copy(seed[:], digest.FromString(name).Encoded())
	data := make([]byte, size)
	rand.NewChaCha8(seed).Read(data) // never fails
	return data
}

// Item is a manifest with all it needs: what a test pushes and expects to read back. Items are not changed once made.
type Item struct {
	Manifest *manifest.Manifest
	Blobs    [][]byte // config and layers, in this order
	Children []*Item  // of an index
}

// Doc is a manifest about to be made. Options change it.
type Doc struct {
	SchemaVersion int                `json:"schemaVersion"`
	MediaType     string             `json:"mediaType,omitempty"`
	ArtifactType  string             `json:"artifactType,omitempty"`
	Config        *types.Descriptor  `json:"config,omitempty"`
	Layers        []types.Descriptor `json:"layers,omitempty"`
	Manifests     []types.Descriptor `json:"manifests,omitempty"`
	Subject       *types.Descriptor  `json:"subject,omitempty"`
	Annotations   map[string]string  `json:"annotations,omitempty"`

	Algorithm digest.Algorithm `json:"-"` // of the manifest's own digest
	Indent    string           `json:"-"`
}

// Docker makes it a Docker image or manifest list.
func Docker(d *Doc) {
	if d.Config == nil {
		d.MediaType = types.MediaTypeDockerManifestList
		return
	}
	d.MediaType, d.Config.MediaType = types.MediaTypeDockerManifest, types.MediaTypeDockerConfig
}

// SHA512Digest gives the manifest a sha512 digest.
func SHA512Digest(d *Doc) { d.Algorithm = digest.SHA512 }

// Indented prints the manifest over several lines, as no library would print it again.
func Indented(d *Doc) { d.Indent = " \t" }

// Subject makes the manifest refer to another.
func Subject(desc types.Descriptor) func(*Doc) {
	return func(d *Doc) {
		d.Subject = &types.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	}
}

// ArtifactType sets the field of that name.
func ArtifactType(mt string) func(*Doc) { return func(d *Doc) { d.ArtifactType = mt } }

// ConfigType sets the media type of an image's config.
func ConfigType(mt string) func(*Doc) { return func(d *Doc) { d.Config.MediaType = mt } }

// Annotation adds one.
func Annotation(key, value string) func(*Doc) { return func(d *Doc) { d.Annotations[key] = value } }

// Layer adds a descriptor to the layers without any content for it.
func Layer(desc types.Descriptor) func(*Doc) {
	return func(d *Doc) { d.Layers = append(d.Layers, desc) }
}

// Image makes an image of a config and two layers, all of them different for another name.
func Image(name string, opts ...func(*Doc)) *Item {
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "author": name})
	if err != nil {
		panic(err)
	}
	it := &Item{Blobs: [][]byte{config, Blob(name+" layer 1", 1000), Blob(name+" layer 2", 40_000)}}
	cfg := describe(types.MediaTypeImageConfig, it.Blobs[0])
	const layer = "application/vnd.oci.image.layer.v1.tar"
	it.make(Doc{
		MediaType: types.MediaTypeImageManifest,
		Config:    &cfg,
		Layers:    []types.Descriptor{describe(layer, it.Blobs[1]), describe(layer, it.Blobs[2])},
	}, opts)
	return it
}

// Index makes an index over children.
func Index(children []*Item, opts ...func(*Doc)) *Item {
	it := &Item{Children: children}
	doc := Doc{MediaType: types.MediaTypeImageIndex, Manifests: []types.Descriptor{}}
	for i, c := range children {
		d := c.Manifest.Descriptor()
		d.Platform = &types.Platform{OS: "linux", Architecture: fmt.Sprintf("arch%d", i)}
		doc.Manifests = append(doc.Manifests, d)
	}
	it.make(doc, opts)
	return it
}

// Opaque makes a manifest of a type that nobody knows.
func Opaque(name string) *Item {
	m, err := manifest.New([]byte(`{"hello": "`+name+`"}`+"\n\n"), manifest.WithMediaType("application/vnd.example.opaque.v1+json"))
	if err != nil {
		panic(err)
	}
	return &Item{Manifest: m}
}

// opaque is Opaque, or where no such thing is stored something else that needs no content.
func (e *env) opaque(name string) *Item {
	if e.h.can(UnknownTypes) {
		return Opaque(name)
	}
	return Index(nil, Annotation("in place of what is opaque", name))
}

func (it *Item) make(doc Doc, opts []func(*Doc)) {
	doc.SchemaVersion, doc.Algorithm, doc.Annotations = 2, digest.SHA256, map[string]string{}
	for _, o := range opts {
		o(&doc)
	}
	raw, err := json.Marshal(doc)
	if err == nil && doc.Indent != "" {
		var b bytes.Buffer
		err = json.Indent(&b, raw, "", doc.Indent)
		raw = append(b.Bytes(), "\r\n "...)
	}
	if err == nil {
		it.Manifest, err = manifest.New(raw, manifest.WithMediaType(doc.MediaType), manifest.WithDigest(doc.Algorithm.FromBytes(raw)))
	}
	if err != nil {
		panic(err) // a fault of the test that asked for it
	}
}

func describe(mt string, data []byte) types.Descriptor {
	return types.Descriptor{MediaType: mt, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// Descriptor describes the manifest.
func (it *Item) Descriptor() types.Descriptor { return it.Manifest.Descriptor() }

// Push puts everything the manifest needs, and then the manifest under r.
func (it *Item) Push(ctx context.Context, api scheme.API, r ref.Ref, opts ...scheme.ManifestPutOption) error {
	if err := it.PushContent(ctx, api, r); err != nil {
		return err
	}
	_, err := api.ManifestPut(ctx, r, it.Manifest, opts...)
	return err
}

// PushContent puts everything the manifest needs, and not the manifest.
func (it *Item) PushContent(ctx context.Context, api scheme.API, r ref.Ref) error {
	for _, data := range it.Blobs {
		if _, err := api.BlobPut(ctx, r, describe("", data), bytes.NewReader(data)); err != nil {
			return err
		}
	}
	for _, c := range it.Children {
		if err := c.Push(ctx, api, r.WithDigest(c.Manifest.Digest())); err != nil {
			return err
		}
	}
	return nil
}
