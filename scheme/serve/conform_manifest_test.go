package serve_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/scheme/serve"
)

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
