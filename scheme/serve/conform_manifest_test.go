package serve_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/scheme/serve"
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

func TestConformDataSets(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for name, build := range sets {
			t.Run(name, func(t *testing.T) {
				s := newSet()
				build(s)
				w.on(t).holds("conformance/"+name, s)
			})
		}
	})
}

// Indexes some of whose images are elsewhere are accepted where the server was told so, and nowhere else.
func TestConformSparseIndexes(t *testing.T) {
	s := newSet()
	s.index(func(x *v1.Index) {
		x.Manifests[1].Digest = digest.FromString("an image that is elsewhere")
	}, "sparse-index")
	each(t, func(t *testing.T, w *wire) { w.holds("conformance/sparse", s) }, serve.WithSparse())
	each(t, func(t *testing.T, w *wire) {
		w.pushBlobs(repo1, s)
		for _, m := range s.manifests[:2] {
			w.want("201", "PUT", "/v2/"+repo1+"/manifests/"+m.Digest.String(), stream(m.raw), "Content-Type: "+m.MediaType)
		}
		m := s.manifests[2]
		a := w.want("400 MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/"+repo1+"/manifests/sparse-index", m.raw, "Content-Type: "+m.MediaType)
		if !strings.Contains(a.body, digest.FromString("an image that is elsewhere").String()) {
			t.Errorf("the answer does not name what is missing: %s", a.body)
		}
		w.gone("/v2/" + repo1 + "/manifests/sparse-index")
		w.gone("/v2/" + repo1 + "/manifests/" + m.Digest.String())
	})
}

// Nor are images without some of their content accepted, unless the server was told so.
func TestConformSparseImages(t *testing.T) {
	s := newSet()
	s.image(func(m *v1.Manifest) { delete(s.blobs, m.Layers[0].Digest) }, "sparse-image")
	each(t, func(t *testing.T, w *wire) { w.holds("conformance/sparse", s) }, serve.WithSparseImages())
	each(t, func(t *testing.T, w *wire) {
		w.pushBlobs(repo1, s)
		m := s.manifests[0]
		w.want("400 MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/"+repo1+"/manifests/sparse-image", m.raw, "Content-Type: "+m.MediaType)
	}, serve.WithSparse()) // which is for indexes only
}

// holds takes a set through all that the programme does with one: push, list, head, pull, referrers, delete.
func (w *wire) holds(repo string, s *set) {
	w.t.Helper()
	w.pushBlobs(repo, s)
	for _, m := range s.manifests {
		w.putManifest(repo, s, m)
	}
	var tags []string
	for _, m := range s.manifests {
		tags = append(tags, m.tags...)
		for _, at := range append([]string{m.Digest.String()}, m.tags...) {
			w.readsManifest(repo, at, m)
		}
	}
	slices.Sort(tags)
	w.tags(repo, "", tags...)
	if len(tags) >= 2 {
		mid := len(tags) / 2
		w.tags(repo, "?last="+tags[mid-1], tags[mid:]...)
	}
	for d, text := range s.blobs {
		w.reads(repo, d, text)
	}
	w.referrers(repo, s)
	w.deletes(repo, s)
}

func (w *wire) pushBlobs(repo string, s *set) {
	w.t.Helper()
	for d, text := range s.blobs {
		w.want("201", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), text, octets)
	}
}

// putManifest pushes as the programme does: without a Content-Length, by tag if there is one.
func (w *wire) putManifest(repo string, s *set, m pushed) {
	w.t.Helper()
	at := m.Digest.String()
	switch {
	case s.params && len(m.tags) > 0:
		at += "?tag=" + strings.Join(m.tags, "&tag=")
	case len(m.tags) > 0:
		at = m.tags[0]
	}
	a := w.want("201", "PUT", "/v2/"+repo+"/manifests/"+at, stream(m.raw), "Content-Type: "+m.MediaType)
	w.has(a, "Docker-Content-Digest: "+m.Digest.String(), "Content-Length: 0")
	if m.subject != nil {
		w.has(a, "OCI-Subject: "+m.subject.Digest.String())
	} else {
		w.has(a, "OCI-Subject:")
	}
	if s.params && len(m.tags) > 0 {
		listed := strings.Split(strings.ReplaceAll(strings.Join(a.res.Header.Values("OCI-Tag"), ","), " ", ""), ",")
		if slices.Sort(listed); !slices.Equal(listed, slices.Sorted(slices.Values(m.tags))) {
			w.t.Errorf("%s: OCI-Tag %v, want %v", a.asked, listed, m.tags)
		}
	}
	if got := w.want("200", "GET", a.header("Location"), nil); got.body != m.raw {
		w.t.Errorf("%s: Location leads to other bytes", a.asked)
	}
}

// readsManifest checks HEAD and GET, with the Accept of the programme and without.
func (w *wire) readsManifest(repo, at string, m pushed) {
	w.t.Helper()
	accepts := [][]string{{"Accept: " + v1.MediaTypeImageIndex, "Accept: " + v1.MediaTypeImageManifest}, nil}
	if m.Size > 1<<20 {
		accepts = accepts[:1] // for the time that it takes
	}
	for _, method := range []string{"HEAD", "GET"} {
		for _, accept := range accepts {
			a := w.want("200", method, "/v2/"+repo+"/manifests/"+at, nil, accept...)
			w.has(a, "Content-Type: "+m.MediaType, fmt.Sprintf("Content-Length: %d", m.Size), "Docker-Content-Digest: "+m.Digest.String(), `ETag: "`+m.Digest.String()+`"`)
			if method == "GET" && a.body != m.raw {
				w.t.Errorf("%s: other bytes", a.asked)
			}
		}
	}
}

// tags checks a list of tags.
func (w *wire) tags(repo, query string, want ...string) reply {
	w.t.Helper()
	a := w.want("200", "GET", "/v2/"+repo+"/tags/list"+query, nil)
	w.has(a, "Content-Type: application/json")
	var list struct {
		Name string
		Tags []string
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil {
		w.t.Errorf("%s: %v: %s", a.asked, err, a.body)
	}
	if list.Name != repo || list.Tags == nil || !slices.Equal(list.Tags, want) {
		w.t.Errorf("%s: %.300s, want %s with %v", a.asked, a.body, repo, want)
	}
	return a
}

// deletes removes tags, manifests (parents first) and blobs; each is gone at once.
func (w *wire) deletes(repo string, s *set) {
	w.t.Helper()
	for _, m := range s.manifests {
		for _, tag := range m.tags {
			target := "/v2/" + repo + "/manifests/" + tag
			w.want("202", "DELETE", target, nil)
			w.gone(target)
			w.want("404 MANIFEST_UNKNOWN", "DELETE", target, nil)
			w.want("200", "HEAD", "/v2/"+repo+"/manifests/"+m.Digest.String(), nil) // the tag only
		}
	}
	for _, m := range slices.Backward(s.manifests) {
		target := "/v2/" + repo + "/manifests/" + m.Digest.String()
		w.want("202", "DELETE", target, nil)
		w.gone(target)
		w.want("404 MANIFEST_UNKNOWN", "DELETE", target, nil)
		if m.subject != nil && strings.Contains(w.want("200", "GET", "/v2/"+repo+"/referrers/"+m.subject.Digest.String(), nil).body, m.Digest.String()) {
			w.t.Errorf("%s is still listed as a referrer", m.Digest)
		}
	}
	for d := range s.blobs {
		w.deletesBlob(repo, d)
	}
	w.tags(repo, "")
}

func TestConformDeletingAManifestDeletesItsTags(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		s.image(nil, "one")
		s.image(nil, "other")
		w.pushBlobs(repo1, s)
		for _, m := range s.manifests {
			w.putManifest(repo1, s, m)
		}
		m := s.manifests[0]
		w.want("201", "PUT", "/v2/"+repo1+"/manifests/two", m.raw, "Content-Type: "+m.MediaType)
		w.want("202", "DELETE", "/v2/"+repo1+"/manifests/"+m.Digest.String(), nil)
		w.gone("/v2/" + repo1 + "/manifests/one")
		w.gone("/v2/" + repo1 + "/manifests/two")
		w.tags(repo1, "", "other")
		w.readsManifest(repo1, "other", s.manifests[1])
	})
}

func TestConformATagMoves(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		s.image(nil, "moving")
		s.image(nil, "moving")
		w.pushBlobs(repo1, s)
		for _, m := range s.manifests {
			w.putManifest(repo1, s, m)
			w.readsManifest(repo1, "moving", m)
		}
		w.readsManifest(repo1, s.manifests[0].Digest.String(), s.manifests[0])
		w.tags(repo1, "", "moving")
	})
}

func TestConformManifestErrors(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		s.image(nil, "x")
		w.pushBlobs(repo1, s)
		m := s.manifests[0]
		ct := "Content-Type: " + m.MediaType
		w.gone("/v2/" + repo1 + "/manifests/" + digest.FromString("missing").String())
		w.gone("/v2/" + repo1 + "/manifests/missing")
		w.want("400 DIGEST_INVALID", "PUT", "/v2/"+repo1+"/manifests/sha256:baddigeststring", stream(m.raw), ct)
		w.want("400 DIGEST_INVALID", "GET", "/v2/"+repo1+"/manifests/sha256:baddigeststring", nil)
		w.want("400 DIGEST_INVALID", "PUT", "/v2/"+repo1+"/manifests/"+m.Digest.String(), stream(m.raw+"  "), ct) // bad-digest-image
		w.gone("/v2/" + repo1 + "/manifests/" + m.Digest.String())
		w.gone("/v2/" + repo1 + "/manifests/" + digest.FromString(m.raw+"  ").String())

		missing := strings.ReplaceAll(m.raw, digest.FromString("x").String(), "")
		var doc v1.Manifest
		if err := json.Unmarshal([]byte(missing), &doc); err != nil {
			t.Fatal(err)
		}
		doc.Layers[0].Digest, doc.Layers[1].Digest = digest.FromString("gone 0"), digest.FromString("gone 1")
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		a := w.want("400 MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/"+repo1+"/manifests/x", stream(raw), ct)
		for _, d := range []digest.Digest{doc.Layers[0].Digest, doc.Layers[1].Digest} {
			if !strings.Contains(a.body, d.String()) {
				t.Errorf("the answer does not name %s: %s", d, a.body)
			}
		}
		w.gone("/v2/" + repo1 + "/manifests/x")
		w.gone("/v2/" + repo1 + "/manifests/" + digest.FromBytes(raw).String())
	})
}
