package serve_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// set is content to push: one of the programme's data sets.
type set struct {
	algorithm digest.Algorithm
	blobs     map[digest.Digest]string
	manifests []pushed
	params    bool // tags go into the query
}

type pushed struct {
	v1.Descriptor
	raw     string
	tags    []string
	subject *v1.Descriptor
}

func newSet() *set {
	return &set{algorithm: digest.SHA256, blobs: map[digest.Digest]string{}}
}

func (s *set) blob(mediaType, text string) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: s.algorithm.FromString(text), Size: int64(len(text))}
	s.blobs[d.Digest] = text
	return d
}

// image adds an image of two layers, which change then alters. Its content differs from that of all other images.
func (s *set) image(change func(*v1.Manifest), tags ...string) v1.Descriptor {
	name := fmt.Sprintf("image %d of %d blobs", len(s.manifests), len(s.blobs))
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: s.blob(v1.MediaTypeImageConfig, `{"architecture":"amd64","os":"linux","x":"`+name+`"}`)}
	m.SchemaVersion = 2
	for _, n := range []int{100, 5000} {
		m.Layers = append(m.Layers, s.blob(v1.MediaTypeImageLayerGzip, content(name, n)))
	}
	if change != nil {
		change(&m)
	}
	artifact := m.ArtifactType
	if artifact == "" {
		artifact = m.Config.MediaType
	}
	return s.add(m.MediaType, artifact, m.Annotations, m.Subject, m, tags)
}

// index adds an index of two new images, which change then alters.
func (s *set) index(change func(*v1.Index), tags ...string) v1.Descriptor {
	x := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	x.SchemaVersion = 2
	for _, arch := range []string{"amd64", "arm64"} {
		d := bare(s.image(nil))
		d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		x.Manifests = append(x.Manifests, d)
	}
	if change != nil {
		change(&x)
	}
	return s.add(x.MediaType, x.ArtifactType, x.Annotations, x.Subject, x, tags)
}

func (s *set) add(mediaType, artifact string, notes map[string]string, subject *v1.Descriptor, doc any, tags []string) v1.Descriptor {
	raw, err := json.Marshal(doc)
	if err != nil {
		panic(err) // of a test's own values
	}
	return s.addRaw(pushed{Descriptor: v1.Descriptor{MediaType: mediaType, ArtifactType: artifact, Annotations: notes}, subject: subject, tags: tags}, string(raw))
}

func (s *set) addRaw(p pushed, raw string) v1.Descriptor {
	p.raw, p.Digest, p.Size = raw, s.algorithm.FromString(raw), int64(len(raw))
	s.manifests = append(s.manifests, p)
	return p.Descriptor
}

// bare is a descriptor as indexes and subjects have it.
func bare(d v1.Descriptor) v1.Descriptor {
	return v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

const (
	artifact1 = "application/vnd.example.test.one"
	artifact2 = "application/vnd.example.test.two+json"
)

// artifact makes an image an artifact of that type, with one layer.
func (s *set) artifact(artifactType string, subject *v1.Descriptor) func(*v1.Manifest) {
	return func(m *v1.Manifest) {
		m.ArtifactType, m.Config, m.Subject = artifactType, s.blob(v1.MediaTypeEmptyJSON, "{}"), subject
		m.Layers = m.Layers[:1]
		m.Annotations = map[string]string{"org.example.number": strconv.Itoa(len(s.manifests)), "org.example.quote": "\"<&>\" ü"}
	}
}

// sets are the programme's data sets; sparse ones have a test of their own.
var sets = map[string]func(s *set){
	"image": func(s *set) { s.image(nil, "image") },
	"image-uncompressed": func(s *set) {
		s.image(func(m *v1.Manifest) {
			for i := range m.Layers {
				m.Layers[i].MediaType = v1.MediaTypeImageLayer
			}
		}, "image-uncompressed")
	},
	"large-manifest": func(s *set) {
		s.image(func(m *v1.Manifest) {
			m.Annotations = map[string]string{}
			for i := range 390 {
				m.Annotations[fmt.Sprintf("large-annotation-%d", i)] = strings.Repeat("A", 10000)
			}
		}, "large-manifest")
	},
	"index": func(s *set) { s.index(nil, "index") },
	"nested-index": func(s *set) {
		a, b := bare(s.index(nil)), bare(s.index(nil))
		s.index(func(x *v1.Index) { x.Manifests = []v1.Descriptor{a, b} }, "index-of-index")
	},
	"empty-index": func(s *set) { s.index(func(x *v1.Index) { x.Manifests = []v1.Descriptor{} }, "index") },
	"artifact":    func(s *set) { s.image(s.artifact(artifact1, nil), "artifact") },
	"artifact-index": func(s *set) {
		a, b := bare(s.image(s.artifact(artifact1, nil))), bare(s.image(s.artifact(artifact1, nil)))
		s.index(func(x *v1.Index) { x.ArtifactType, x.Manifests = artifact1, []v1.Descriptor{a, b} }, "artifact-index")
	},
	"artifact-without-layers": func(s *set) {
		s.image(func(m *v1.Manifest) {
			s.artifact(artifact1, nil)(m)
			m.Layers = []v1.Descriptor{s.blob(v1.MediaTypeEmptyJSON, "{}")}
		}, "artifact-without-layers")
	},
	"artifacts-with-subject": func(s *set) {
		subject := bare(s.image(nil, "image"))
		s.image(func(m *v1.Manifest) { m.Subject = &subject }) // no artifactType: the config's type counts
		s.image(s.artifact(artifact1, &subject), "tagged-artifact1")
		s.image(s.artifact(artifact2, &subject), "tagged-artifact2")
	},
	"index-with-subject": func(s *set) {
		subject := bare(s.index(nil, "index"))
		s.index(func(x *v1.Index) {
			x.ArtifactType, x.Subject, x.Annotations = artifact1, &subject, map[string]string{"a": "b"}
		}, "tagged-artifact")
		s.index(func(x *v1.Index) { x.Subject = &subject }) // no artifactType at all
	},
	"missing-subject": func(s *set) {
		subject := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Size: 123, Digest: digest.FromString("missing content")}
		s.image(s.artifact(artifact1, &subject), "tagged-artifact")
	},
	"data-field": func(s *set) {
		s.image(func(m *v1.Manifest) {
			m.Config.Data = []byte(s.blobs[m.Config.Digest])
			for i := range m.Layers {
				m.Layers[i].Data = []byte(s.blobs[m.Layers[i].Digest])
			}
		}, "data-field")
	},
	"non-distributable-layers": func(s *set) {
		s.image(func(m *v1.Manifest) {
			//lint:ignore SA1019 deprecated, and still about
			for i, mediaType := range []string{v1.MediaTypeImageLayerNonDistributableGzip, v1.MediaTypeImageLayerNonDistributable} {
				d := digest.FromString(mediaType)
				m.Layers = append(m.Layers, v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(12345 + i), URLs: []string{"https://store.example.com/" + d.Encoded()}})
			}
		}, "non-distributable-image")
	},
	"custom-fields": func(s *set) {
		s.image(nil)
		m := s.manifests[0]
		s.manifests = nil
		s.addRaw(m, strings.Replace(m.raw, `{`, `{ "org.example.unknown" : {"b":1,  "a":[null,1e3]},`, 1)+"\n")
		child := bare(s.manifests[0].Descriptor)
		s.index(func(x *v1.Index) { x.Manifests = append(x.Manifests, child) })
		x := s.manifests[len(s.manifests)-1]
		x.tags = []string{"custom-fields"}
		s.manifests = s.manifests[:len(s.manifests)-1]
		s.addRaw(x, strings.Replace(x.raw, `{`, "{\n\t\"zzz\":\"\\u00e9\",", 1))
	},
	"no-layers": func(s *set) { s.image(func(m *v1.Manifest) { m.Layers = []v1.Descriptor{} }, "no-layers") },
	"sha512":    func(s *set) { s.algorithm = digest.SHA512; s.index(nil) },
	"sha512-referrers": func(s *set) {
		s.algorithm = digest.SHA512
		subject := bare(s.image(nil))
		s.image(s.artifact(artifact1, &subject))
	},
	"tag-param-sha256": func(s *set) { s.params = true; s.index(nil, "tag-param-sha256", "tag-param-sha256-0", "x") },
	"tag-param-sha512": func(s *set) {
		s.params, s.algorithm = true, digest.SHA512
		s.index(nil, "tag-param-sha512", "tag-param-sha512-0")
	},
}
