package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types"
)

// list is an index of one image, which need not exist, with extra fields of the index.
func list(extra string) string {
	return `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[{"mediaType":"` + typeImage + `","digest":"` + sum("x") + `","size":1}]` + extra + `}`
}

// TestDocumentsThatMeanTwoThings: whatever one reader could take for something else than another one is refused.
func TestDocumentsThatMeanTwoThings(t *testing.T) {
	config := `"config":{"mediaType":"x/y","digest":"` + sum("{}") + `","size":2}`
	in := func(field string) string { return strings.Replace(image(""), `"size":2`, field, 1) }
	for name, doc := range map[string]string{
		"two configs":                strings.Replace(image(""), `"layers"`, config+`,"layers"`, 1),
		"two lists of layers":        image(`,"layers":[]`),
		"two types":                  image(`,"mediaType":"` + typeImage + `"`),
		"two versions":               image(`,"schemaVersion":2`),
		"two subjects":               image(`,"subject":null,"subject":null`),
		"another spelling":           image(`,"Subject":null`),
		"the kelvin sign":            strings.Replace(list(""), `"manifests"`, `"manifeſts":[],"manifests"`, 1),
		"an escaped name":            image(`,"l\u0061yers":[]`),
		"manifests in an image":      image(`,"manifests":[]`),
		"null manifests in an image": image(`,"manifests":null`),
		"layers in an index":         list(`,"layers":[]`),
		"null layers in an index":    list(`,"layers":null`),
		"signed layers in an index":  list(`,"fsLayers":[]`),
		"two sizes":                  in(`"size":2,"size":2`),
		"Size":                       in(`"size":2,"Size":3`),
		"two digests of a layer":     strings.Replace(image(""), `"layers":[]`, `"layers":[{"mediaType":"x/y","digest":"`+sum("{}")+`","size":2,"digest":"`+sum("{}")+`"}]`, 1),
		"two data of a subject":      image(`,"subject":{"mediaType":"x/y","digest":"` + sum("{}") + `","size":2,"data":"e30=","data":"e30="}`),
		"another version":            strings.Replace(image(""), `"schemaVersion":2`, `"schemaVersion":1`, 1),
		"a version like 2":           strings.Replace(image(""), `"schemaVersion":2`, `"schemaVersion":2.0`, 1),
		"a mark of byte order":       "\xef\xbb\xbf" + image(""),
		"no UTF-8":                   image(",\"x\":\"\xff\""),
		"data behind it":             image("") + "{}",
		"a huge version":             strings.Replace(image(""), `"schemaVersion":2`, `"schemaVersion":1e999`, 1),
		"a huge size":                in(`"size":99999999999999999999`),
		"a size that is a fraction":  in(`"size":2.5`),
		"a negative size":            in(`"size":-2`),
		"other data":                 in(`"size":2,"data":"e30x"`),
		"data of another size":       in(`"size":2,"data":"e30g"`),
		"data that is none":          in(`"size":2,"data":"###"`),
		"no data":                    in(`"size":2,"data":""`),
		"other data of the subject":  image(`,"subject":{"mediaType":"x/y","digest":"` + sum("x") + `","size":2,"data":"e30="}`),
		"a wrong size of the config": in(`"size":3`),
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, mem.New(), WithSparseImages())
			c.push("a", "{}")
			contentType := typeImage
			if strings.Contains(doc, `"`+typeIndex+`"`) {
				contentType = typeIndex
			}
			c.want(400, "MANIFEST_INVALID", "PUT", "/v2/a/manifests/v1", doc, header{"Content-Type": contentType})
			c.want(404, "", "HEAD", "/v2/a/manifests/v1", nil, nil)
		})
	}
}

// TestDocumentsThatAreOdd, and mean one thing.
func TestDocumentsThatAreOdd(t *testing.T) {
	c := start(t, mem.New(), WithSparseImages())
	c.push("a", "{}")
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	for name, r := range map[string]struct{ contentType, doc string }{
		"members that nobody knows, twice": {typeImage, image(`,"x":1,"x":{"mediaType":1,"mediaType":2},"annotations":{"digest":"a","Digest":"b"}`)},
		"data":                             {typeImage, strings.Replace(image(""), `"size":2`, `"size":2,"data":"e30="`, 1)},
		"numbers that no machine holds":    {typeImage, image(`,"x":1e999,"y":-123456789012345678901234567890`)},
		"deep":                             {typeImage, image(`,"x":` + deep)},
		"unknown, with layers":             {"application/x", `{"layers":[]}`},
		"unknown, no object":               {"application/x", ` [{"layers":1,"layers":2}]`},
		"unknown, of another version":      {"application/x", `{"schemaVersion":7}`},
		"Docker schema 1":                  {types.MediaTypeDockerSchema1JWS, `{"schemaVersion":1,"name":"a","fsLayers":[],"signatures":[]}`},
		"Docker schema 2":                  {types.MediaTypeDockerManifest, strings.ReplaceAll(image(""), typeImage, types.MediaTypeDockerManifest)},
		"a Docker list":                    {types.MediaTypeDockerManifestList, strings.ReplaceAll(list(""), typeIndex, types.MediaTypeDockerManifestList)},
		"an artifact manifest":             {types.MediaTypeArtifactManifest, `{"mediaType":"` + types.MediaTypeArtifactManifest + `","artifactType":"a/b","blobs":[]}`},
		"an artifact of the empty type":    {typeImage, image(`,"artifactType":"application/vnd.example"`)},
		"lists of something else":          {typeImage, image(`,"blobs":[1,[{}],{"digest":"x"},"y",{}]`)},
		"upper case":                       {strings.ToUpper(typeImage), image("")},
		"parameters":                       {typeImage + ` ;q="a;b"`, image("")},
	} {
		switch name {
		case "lists of something else": // a member that has a form in one type has it in all
			c.want(400, "MANIFEST_INVALID", "PUT", "/v2/a/manifests/v1", r.doc, header{"Content-Type": r.contentType})
			continue
		}
		a := c.do("PUT", "/v2/a/manifests/v1", r.doc, header{"Content-Type": r.contentType})
		if a.StatusCode != 201 {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
			continue
		}
		if a := c.want(200, "", "GET", "/v2/a/manifests/v1", nil, nil); a.body != r.doc || a.Header.Get("Content-Type") != types.CleanMediaType(r.contentType) {
			t.Errorf("%s: comes back as %s %.100q", name, a.Header.Get("Content-Type"), a.body)
		}
	}
}

func TestContentEncodings(t *testing.T) {
	c := start(t, mem.New())
	c.push("a", "{}")
	for encoding, status := range map[string]int{"": 201, "identity": 201, "Identity": 201, "gzip": 415, "identity, gzip": 415, "x\"y": 415} {
		a := c.want(status, "", "PUT", "/v2/a/manifests/v1", image(""), header{"Content-Type": typeImage, "Content-Encoding": encoding})
		if status == 415 && ocihttp.ParseError(status, []byte(a.body)).Code != "UNSUPPORTED" {
			t.Errorf("%s: %s", encoding, a.body)
		}
	}
}

func TestContentTypesThatAreNone(t *testing.T) {
	c := start(t, mem.New())
	c.push("a", "{}")
	for _, contentType := range []string{"x", "a/b/c", "é/x", "a /b", "/", "a/b,c/d", strings.Repeat("a", 128) + "/b", ";", "a/"} {
		c.want(400, "MANIFEST_INVALID", "PUT", "/v2/a/manifests/v1", image(""), header{"Content-Type": contentType})
		c.want(400, "MANIFEST_INVALID", "PUT", "/v2/a/manifests/v1", "opaque", header{"Content-Type": contentType})
	}
	r, err := http.NewRequestWithContext(t.Context(), "PUT", c.srv.URL+"/v2/a/manifests/v1", strings.NewReader(image("")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header["Content-Type"] = []string{typeImage, typeImage}
	res, err := c.srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 400 {
		t.Errorf("two Content-Types: %d", res.StatusCode)
	}
	c.want(400, "MANIFEST_INVALID", "PUT", "/v2/a/manifests/v1", image(""), header{"Content-Type": typeImage + "+x"})
	c.want(400, "MANIFEST_INVALID", "PUT", "/v2/a/manifests/v1", strings.Replace(image(""), typeImage, typeImage+";x=y", 1), header{"Content-Type": typeImage})
}

// TestLimitsOfManifests: what is too much is said while the client can read it, whether it announced it or not.
func TestLimitsOfManifests(t *testing.T) {
	c := start(t, mem.New(), WithMaxManifest(1), WithMaxTags(1)) // which are raised to what the specification asks for
	c.push("a", "{}")
	most := image("")
	most += strings.Repeat(" ", 4<<20-len(most))
	c.want(201, "", "PUT", "/v2/a/manifests/v1", most, header{"Content-Type": typeImage})
	for name, body := range map[string]any{
		"one more": most + " ", "one more, of unknown length": strings.NewReader(most + " "), "much more": most + most + most,
		"much more, of unknown length": strings.NewReader(most + most + most),
	} {
		a := c.want(413, "SIZE_INVALID", "PUT", "/v2/a/manifests/v2", body, header{"Content-Type": typeImage})
		if !strings.Contains(a.body, fmt.Sprint(4<<20)) {
			t.Errorf("%s: the limit is not named: %s", name, a.body)
		}
	}
	c.want(404, "", "HEAD", "/v2/a/manifests/v2", nil, nil)
	target := "/v2/a/manifests/v1?tag=a&tag=b&tag=c&tag=d&tag=e&tag=f&tag=g&tag=h&tag=i&tag=j"
	c.want(201, "", "PUT", target, image(""), header{"Content-Type": typeImage}).has(t, header{"OCI-Tag": "v1|a|b|c|d|e|f|g|h|i|j"})
	c.want(414, "UNSUPPORTED", "PUT", target+"&tag=k", image(""), header{"Content-Type": typeImage})
}

// TestSizesThatLie: over every place that stores, of blobs and of manifests, with the digest in question named.
func TestSizesThatLie(t *testing.T) {
	overStores(t, func(t *testing.T, c *client) {
		doc := c.putImage("a", "v1", "")
		child := `{"mediaType":"` + typeImage + `","digest":"` + sum(doc) + `","size":` + fmt.Sprint(len(doc)+1) + `}`
		for digest, m := range map[string]struct{ contentType, doc string }{
			sum("{}"): {typeImage, strings.Replace(image(""), `"size":2`, `"size":1`, 1)},
			sum(doc):  {typeIndex, `{"schemaVersion":2,"manifests":[` + child + `]}`},
		} {
			a := c.want(400, "MANIFEST_INVALID", "PUT", "/v2/a/manifests/lie", m.doc, header{"Content-Type": m.contentType})
			if !strings.Contains(a.body, digest) {
				t.Errorf("the answer does not name %s: %s", digest, a.body)
			}
			c.want(404, "", "HEAD", "/v2/a/manifests/lie", nil, nil)
		}
	})
}

// FuzzDocuments: what is taken reads the same, whether names are compared exactly or as encoding/json does.
func FuzzDocuments(f *testing.F) {
	for _, doc := range []string{image(""), list(""), image(`,"layers":[]`), image(`,"Subject":null`), list(`,"layers":null`), `{"manifests":[{"digest":"x","digest":"y"}]}`} {
		f.Add(doc, typeImage)
		f.Add(doc, typeIndex)
		f.Add(doc, "application/x")
	}
	f.Fuzz(func(t *testing.T, doc, contentType string) {
		x := &exchange{r: &http.Request{Header: http.Header{"Content-Type": {contentType}}}, req: &ocihttp.Request{}}
		m, view, err := parseManifest([]byte(doc), x)
		if err != nil || !view.Known {
			return
		}
		var exact map[string]json.RawMessage
		if err := json.Unmarshal([]byte(doc), &exact); err != nil {
			t.Fatalf("%v: %q", err, doc)
		}
		descriptors := func(name string) []types.Descriptor {
			var raws []map[string]json.RawMessage
			if raw, ok := exact[name]; ok && json.Unmarshal(raw, &raws) != nil {
				t.Fatalf("%s: %q", name, doc)
			}
			var all []types.Descriptor
			for _, raw := range raws {
				var d types.Descriptor
				for member, into := range map[string]any{"mediaType": &d.MediaType, "digest": &d.Digest, "size": &d.Size} {
					if v, ok := raw[member]; ok && json.Unmarshal(v, into) != nil {
						t.Fatalf("%s: %q", member, doc)
					}
				}
				all = append(all, d)
			}
			return all
		}
		layers := descriptors("layers")
		if m.MediaType() == types.MediaTypeArtifactManifest {
			layers = descriptors("blobs")
		}
		same := cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(types.Descriptor{}, "Data", "URLs", "Annotations", "Platform", "ArtifactType")}
		if d := cmp.Diff(layers, view.Layers, same); d != "" && !types.IsIndex(m.MediaType()) {
			t.Errorf("%q: %s", doc, d)
		}
		if d := cmp.Diff(descriptors("manifests"), view.Manifests, same); d != "" {
			t.Errorf("%q: %s", doc, d)
		}
		dec, seen := json.NewDecoder(strings.NewReader(doc)), map[string]bool{}
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		for dec.More() {
			key, err := dec.Token()
			var v json.RawMessage
			if err == nil {
				err = dec.Decode(&v)
			}
			if err != nil {
				t.Fatal(err)
			}
			name := strings.ToLower(key.(string))
			if seen[name] && (name == "layers" || name == "manifests" || name == "config" || name == "mediatype") {
				t.Errorf("%s is there twice in %q", name, doc)
			}
			seen[name] = true
		}
	})
}
