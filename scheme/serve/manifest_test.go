package serve

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
)

func TestManifestsKeepTheirBytesAndType(t *testing.T) {
	c := start(t, mem.New())
	c.push("a", "{}")
	for contentType, doc := range map[string]string{
		typeImage:                           image(`,"unknown" : {"field":[1 ,2]}`),
		typeIndex:                           `{"schemaVersion":2, "mediaType":"` + typeIndex + `","manifests":[]}` + "\n",
		types.MediaTypeDockerManifest:       strings.ReplaceAll(image(""), typeImage, types.MediaTypeDockerManifest),
		"application/vnd.example.thing+xml": `<not json>`,
	} {
		d := sum(doc)
		a := c.want(201, "", "PUT", "/v2/a/manifests/v1", doc, header{"Content-Type": contentType})
		a.has(t, header{"Location": "/v2/a/manifests/" + d, "Docker-Content-Digest": d, "OCI-Subject": "", "OCI-Tag": ""})
		for _, ref := range []string{"v1", d} {
			want := header{"Content-Type": contentType, "Docker-Content-Digest": d, "ETag": `"` + d + `"`, "Content-Length": fmt.Sprint(len(doc))}
			a := c.want(200, "", "GET", "/v2/a/manifests/"+ref, nil, nil)
			if a.has(t, want); a.body != doc {
				t.Errorf("%s: %q, want %q", ref, a.body, doc)
			}
			c.want(200, "", "HEAD", "/v2/a/manifests/"+ref, nil, nil).has(t, want)
			c.want(304, "", "GET", "/v2/a/manifests/"+ref, nil, header{"If-None-Match": `"` + d + `"`})
			c.want(304, "", "HEAD", "/v2/a/manifests/"+ref, nil, header{"If-None-Match": `"` + d + `"`})
		}
	}
}

func TestManifestsByDigest(t *testing.T) {
	c := start(t, mem.New())
	c.push("a", "{}")
	doc := image("")
	for _, d := range []digest.Digest{digest.FromString(doc), digest.SHA512.FromString(doc)} {
		a := c.want(201, "", "PUT", "/v2/a/manifests/"+string(d)+"?tag=b&tag=a&tag=b", strings.NewReader(doc), header{"Content-Type": typeImage + "; charset=utf-8"})
		a.has(t, header{"Docker-Content-Digest": string(d), "Location": "/v2/a/manifests/" + string(d), "OCI-Tag": "b|a"})
		c.want(200, "", "GET", "/v2/a/manifests/a", nil, nil).has(t, header{"Docker-Content-Digest": string(d), "Content-Type": typeImage})
	}
	c.want(400, "DIGEST_INVALID", "PUT", "/v2/a/manifests/"+sum("x"), doc, header{"Content-Type": typeImage})
	many := strings.Repeat("&tag=x", defaultMaxTags+1)
	c.want(414, "UNSUPPORTED", "PUT", "/v2/a/manifests/"+sum(doc)+"?"+many[1:], doc, header{"Content-Type": typeImage})
}

func TestManifestsThatAreRefused(t *testing.T) {
	c := start(t, mem.New())
	c.push("a", "{}")
	h := header{"Content-Type": typeImage}
	huge := strings.Repeat(" ", types.MaxManifestSize+1)
	for name, r := range map[string]struct {
		status int
		code   string
		body   any
		h      header
	}{
		"no JSON":                      {400, "MANIFEST_INVALID", "{", h},
		"empty":                        {400, "MANIFEST_INVALID", "", h},
		"no type":                      {400, "MANIFEST_INVALID", "{}", nil},
		"another type":                 {400, "MANIFEST_INVALID", image(""), header{"Content-Type": typeIndex}},
		"another unknown type":         {400, "MANIFEST_INVALID", image(""), header{"Content-Type": "application/x"}},
		"two natures":                  {400, "MANIFEST_INVALID", image(`,"manifests":[]`), h},
		"a bad digest inside":          {400, "MANIFEST_INVALID", strings.ReplaceAll(image(""), "sha256:", "sha256:../"), h},
		"a negative size":              {400, "MANIFEST_INVALID", strings.ReplaceAll(image(""), `"size":2`, `"size":-2`), h},
		"trailing data":                {400, "MANIFEST_INVALID", image("") + "x", h},
		"deeply nested":                {400, "MANIFEST_INVALID", image(`,"x":` + strings.Repeat("[", 200000)), h},
		"too large":                    {413, "SIZE_INVALID", huge, h},
		"too large, of unknown length": {413, "SIZE_INVALID", strings.NewReader(huge), h},
		"compressed":                   {415, "UNSUPPORTED", "\x1f\x8b\x08", header{"Content-Type": typeImage, "Content-Encoding": "gzip"}},
		"compressed, without a word":   {400, "MANIFEST_INVALID", "\x1f\x8b\x08", h},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			c.want(r.status, r.code, "PUT", "/v2/a/manifests/v1", r.body, r.h)
			c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/v1", nil, nil)
		})
	}
}

func TestEveryMissingDigestIsNamed(t *testing.T) {
	c := start(t, mem.New())
	layer := func(s string) string { return `{"mediaType":"application/x","digest":"` + sum(s) + `","size":1}` }
	doc := strings.Replace(image(""), `"layers":[]`, `"layers":[`+layer("a")+","+layer("b")+"]", 1)
	a := c.want(400, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/a/manifests/v1", doc, header{"Content-Type": typeImage})
	want := []digest.Digest{digest.FromString("{}"), digest.FromString("a"), digest.FromString("b")}
	if d := cmp.Diff(want, ocihttp.ParseError(400, []byte(a.body)).Missing); d != "" {
		t.Error(d)
	}
}

func TestSparseIndexes(t *testing.T) {
	doc := `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[{"mediaType":"` + typeImage + `","digest":"` + sum("x") + `","size":1}]}`
	start(t, mem.New()).want(400, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/a/manifests/v1", doc, header{"Content-Type": typeIndex})
	start(t, mem.New(), WithSparse()).want(201, "", "PUT", "/v2/a/manifests/v1", doc, header{"Content-Type": typeIndex})
}

// TestSparseImages: an image without its content is taken where that was asked for only, and what it lacks stays absent.
func TestSparseImages(t *testing.T) {
	for name, allowed := range map[string][]Option{"complete": nil, "sparse indexes": {WithSparse()}, "sparse images": {WithSparseImages()}} {
		t.Run(name, func(t *testing.T) {
			overPlaces(t, func(t *testing.T, c *client) {
				for _, doc := range []struct{ contentType, raw string }{{typeImage, image("")}, {typeIndex, list("")}} {
					if name != "sparse images" && (doc.contentType == typeImage || allowed == nil) {
						c.want(400, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/a/manifests/v1", doc.raw, header{"Content-Type": doc.contentType})
						continue
					}
					c.want(201, "", "PUT", "/v2/a/manifests/v1", doc.raw, header{"Content-Type": doc.contentType})
					c.want(200, "", "GET", "/v2/a/manifests/"+sum(doc.raw), nil, nil)
				}
				c.want(404, "", "HEAD", "/v2/a/blobs/"+sum("{}"), nil, nil)
				c.want(404, "", "HEAD", "/v2/a/manifests/"+sum("x"), nil, nil)
			}, allowed...)
		})
	}
}

func TestDeletingATagKeepsTheManifest(t *testing.T) {
	c := start(t, mem.New())
	doc := c.putImage("a", "v1", "")
	c.putImage("a", "v2", "")
	c.want(202, "", "DELETE", "/v2/a/manifests/v1", nil, nil)
	c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/v1", nil, nil)
	c.want(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/a/manifests/v1", nil, nil)
	c.want(200, "", "GET", "/v2/a/manifests/"+sum(doc), nil, nil)
	c.want(202, "", "DELETE", "/v2/a/manifests/"+sum(doc), nil, nil)
	for _, ref := range []string{"v2", sum(doc)} {
		c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/"+ref, nil, nil)
	}
	c.want(404, "NAME_UNKNOWN", "DELETE", "/v2/none/manifests/v1", nil, nil)
}

type tags struct {
	Name string
	Tags []string
}

func TestTagPages(t *testing.T) {
	c := start(t, mem.New())
	for _, tag := range []string{"b", "A", "c", "a"} {
		c.putImage("r/x", tag, "")
	}
	for query, want := range map[string]struct{ tags, link string }{
		"":                 {"A a b c", ""},
		"?n=2":             {"A a", `</v2/r/x/tags/list?n=2&last=a>; rel="next"`},
		"?n=2&last=a":      {"b c", ""},
		"?n=4":             {"A a b c", ""},
		"?n=0":             {"", ""},
		"?last=aa":         {"b c", ""},
		"?last=c&n=5":      {"", ""},
		"?last=%0d%0a&n=1": {"A", `</v2/r/x/tags/list?n=1&last=A>; rel="next"`},
	} {
		var got tags
		a := c.want(200, "", "GET", "/v2/r/x/tags/list"+query, nil, nil)
		decode(t, a.body, &got)
		if got.Name != "r/x" || got.Tags == nil || strings.Join(got.Tags, " ") != want.tags || a.Header.Get("Link") != want.link {
			t.Errorf("%s: %s %v", query, a.body, a.Header["Link"])
		}
	}
	c.want(404, "NAME_UNKNOWN", "GET", "/v2/r/tags/list?n=0", nil, nil)
}

func TestCatalogPages(t *testing.T) {
	c := start(t, mem.New())
	for _, repo := range []string{"b", "a/x", "c"} {
		c.push(repo, "x")
	}
	for query, want := range map[string]struct{ repos, link string }{
		"":              {"a/x b c", ""},
		"?n=2":          {"a/x b", `</v2/_catalog?n=2&last=b>; rel="next"`},
		"?n=1&last=a":   {"a/x", `</v2/_catalog?n=1&last=a%2Fx>; rel="next"`},
		"?n=2&last=a/x": {"b c", ""},
		"?n=0":          {"", ""},
		"?last=zz":      {"", ""},
	} {
		var got struct{ Repositories []string }
		a := c.want(200, "", "GET", "/v2/_catalog"+query, nil, nil)
		decode(t, a.body, &got)
		if got.Repositories == nil || strings.Join(got.Repositories, " ") != want.repos || a.Header.Get("Link") != want.link {
			t.Errorf("%s: %s %v", query, a.body, a.Header["Link"])
		}
	}
	start(t, noOpener{mem.New()}).want(405, "UNSUPPORTED", "GET", "/v2/_catalog", nil, nil)
	var empty struct{ Repositories []string }
	decode(t, start(t, mem.New()).want(200, "", "GET", "/v2/_catalog", nil, nil).body, &empty)
}

func TestReferrers(t *testing.T) {
	c := start(t, mem.New())
	subject := sum("subject")
	extra := `,"subject":{"mediaType":"` + typeImage + `","digest":"` + subject + `","size":7},"annotations":{"k":"v"},"artifactType":"application/`
	c.push("a", "{}")
	var docs []string
	for _, at := range []string{"sbom", "sig"} {
		doc := image(extra + at + `"`)
		docs = append(docs, doc)
		c.want(201, "", "PUT", "/v2/a/manifests/"+sum(doc), doc, header{"Content-Type": typeImage}).has(t, header{"OCI-Subject": subject})
	}
	type index struct {
		SchemaVersion int
		MediaType     string
		Manifests     []types.Descriptor
	}
	get := func(target, filters string) index {
		t.Helper()
		var ix index
		a := c.want(200, "", "GET", target, nil, nil)
		a.has(t, header{"Content-Type": typeIndex, "OCI-Filters-Applied": filters})
		decode(t, a.body, &ix)
		if ix.SchemaVersion != 2 || ix.MediaType != typeIndex || ix.Manifests == nil {
			t.Errorf("%s: %s", target, a.body)
		}
		return ix
	}
	if ix := get("/v2/a/referrers/"+subject, ""); len(ix.Manifests) != 2 {
		t.Errorf("%+v", ix)
	}
	for range 2 { // also the second time
		ix := get("/v2/a/referrers/"+subject+"?artifactType=application/sig", "artifactType")
		want := []types.Descriptor{{MediaType: typeImage, Digest: digest.FromString(docs[1]), Size: int64(len(docs[1])), ArtifactType: "application/sig", Annotations: map[string]string{"k": "v"}}}
		if d := cmp.Diff(want, ix.Manifests); d != "" {
			t.Error(d)
		}
	}
	if ix := get("/v2/a/referrers/"+sum("none"), ""); len(ix.Manifests) != 0 {
		t.Errorf("%+v", ix)
	}
	get("/v2/never/pushed/referrers/"+subject, "")
}
