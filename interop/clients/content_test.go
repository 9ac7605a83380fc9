package clients_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sbom and signature are what the artifacts of an image are.
const (
	sbom      = "application/vnd.example.sbom"
	signature = "application/vnd.example.signature"
)

// node is a manifest or a blob.
type node struct {
	desc ocispec.Descriptor
	data []byte
}

// release is an image for two platforms, an SBOM that refers to it, and a signature that refers to the SBOM.
type release struct {
	t         *testing.T
	blobs     []node
	manifests []node // each after what it is made of, or refers to

	index, sbom, signature ocispec.Descriptor
}

func newRelease(t *testing.T, name string) *release {
	r := &release{t: t}
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	shared := r.blob(ocispec.MediaTypeImageLayer, noise(name, 300_000))
	for _, arch := range []string{"amd64", "arm64"} {
		config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"Labels":{"name":%q}}}`, arch, name)
		layers := []ocispec.Descriptor{shared, r.blob(ocispec.MediaTypeImageLayer, noise(name+arch, 20_000))}
		d := r.image(ocispec.Manifest{Config: r.blob(ocispec.MediaTypeImageConfig, config), Layers: layers})
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		ix.Manifests = append(ix.Manifests, d)
	}
	r.index = r.manifest(ix.MediaType, ix)
	empty := r.blob(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	r.sbom = r.image(ocispec.Manifest{ArtifactType: sbom, Subject: plain(r.index), Config: empty, Layers: []ocispec.Descriptor{r.blob("text/plain", []byte("what is in "+name))}})
	r.signature = r.image(ocispec.Manifest{ArtifactType: signature, Subject: plain(r.sbom), Config: empty, Layers: []ocispec.Descriptor{r.blob("text/plain", []byte("by us"))}})
	return r
}

// plain is d as a subject is named.
func plain(d ocispec.Descriptor) *ocispec.Descriptor {
	return &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// noise is n bytes that nothing compresses, and that the same seed makes again.
func noise(seed string, n int) []byte {
	src := rand.NewChaCha8(digestOf(seed))
	data := make([]byte, n)
	_, _ = src.Read(data) // never fails
	return data
}

func digestOf(s string) (sum [32]byte) {
	copy(sum[:], digest.FromString(s).Encoded())
	return sum
}

func (r *release) blob(mt string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.blobs = append(r.blobs, node{d, data})
	return d
}

func (r *release) image(m ocispec.Manifest) ocispec.Descriptor {
	m.SchemaVersion, m.MediaType = 2, ocispec.MediaTypeImageManifest
	return r.manifest(m.MediaType, m)
}

func (r *release) manifest(mt string, doc any) ocispec.Descriptor {
	raw, err := json.MarshalIndent(doc, "", "   ") // as nobody else would write it
	if err != nil {
		r.t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	r.manifests = append(r.manifests, node{d, raw})
	return d
}

// isIn checks that the repository has all of the release to the byte, under tag and by digest, with its referrers.
func (r *release) isIn(reg *registry, repo, tag string) {
	r.t.Helper()
	same := func(path, mt string, n node) {
		r.t.Helper()
		status, header, body := reg.get(path)
		if status != http.StatusOK || !bytes.Equal(body, n.data) {
			r.t.Errorf("%s: status %d, %d bytes, want the %d that were pushed", path, status, len(body), len(n.data))
		}
		if got := header.Get("Docker-Content-Digest"); got != string(n.desc.Digest) {
			r.t.Errorf("%s: digest %q, want %s", path, got, n.desc.Digest)
		}
		if got := header.Get("Content-Type"); mt != "" && got != mt {
			r.t.Errorf("%s: Content-Type %q, want %q", path, got, mt)
		}
	}
	for _, b := range r.blobs {
		same("/v2/"+repo+"/blobs/"+string(b.desc.Digest), "", b)
	}
	for _, m := range r.manifests {
		same("/v2/"+repo+"/manifests/"+string(m.desc.Digest), m.desc.MediaType, m)
		if m.desc.Digest == r.index.Digest {
			same("/v2/"+repo+"/manifests/"+tag, m.desc.MediaType, m)
		}
	}
	for subject, want := range map[digest.Digest]string{r.index.Digest: sbom, r.sbom.Digest: signature} {
		_, _, body := reg.get("/v2/" + repo + "/referrers/" + string(subject))
		var list ocispec.Index
		if err := json.Unmarshal(body, &list); err != nil {
			r.t.Fatal(err)
		}
		if !slices.ContainsFunc(list.Manifests, func(d ocispec.Descriptor) bool { return d.ArtifactType == want }) {
			r.t.Errorf("the referrers of %s are %s, want one of type %s", subject, body, want)
		}
	}
}
