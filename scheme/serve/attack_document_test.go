package serve_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/types"
)

// entry is a descriptor of content that was pushed, with the fields of more put before its own.
func entry(mediaType, text, more string) string {
	return fmt.Sprintf(`{%s"mediaType":%q,"digest":%q,"size":%d}`, more, mediaType, digest.FromString(text), len(text))
}

// Documents that mean one thing to one reader and another to the next (CVE-2021-41190), or nothing at all. All of them
// are refused, by tag and by digest, and leave nothing.
func TestAttackAmbiguousDocuments(t *testing.T) {
	config, layer := entry(v1.MediaTypeEmptyJSON, "{}", ""), entry(v1.MediaTypeImageLayer, "layer", "")
	child := entry(v1.MediaTypeImageManifest, imageDoc(v1.MediaTypeImageManifest, ""), "")
	image := func(fields string) string {
		return `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `",` + fields + `}`
	}
	index := func(fields string) string {
		return `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `",` + fields + `}`
	}
	good := `"config":` + config + `,"layers":[` + layer + `]`
	docs := map[string]struct{ contentType, raw string }{
		"layers and manifests, as an image":       {v1.MediaTypeImageManifest, image(good + `,"manifests":[` + child + `]`)},
		"layers and manifests, as an index":       {v1.MediaTypeImageIndex, index(good + `,"manifests":[` + child + `]`)},
		"config and manifests":                    {v1.MediaTypeImageIndex, index(`"config":` + config + `,"manifests":[]`)},
		"an image that says it is an index":       {v1.MediaTypeImageManifest, index(good)},
		"an index that says it is an image":       {v1.MediaTypeImageIndex, image(`"manifests":[` + child + `]`)},
		"Docker's type, OCI's document":           {types.MediaTypeDockerManifest, image(good)},
		"an unknown type, an image's document":    {"application/vnd.example+json", image(good)},
		"the media type twice":                    {v1.MediaTypeImageManifest, image(`"mediaType":"` + v1.MediaTypeImageIndex + `",` + good)},
		"the media type twice, the first one bad": {v1.MediaTypeImageManifest, `{"mediaType":"x/y",` + image(good)[1:]},
		"layers twice":                            {v1.MediaTypeImageManifest, image(good + `,"layers":[]`)},
		"config twice":                            {v1.MediaTypeImageManifest, image(good + `,"config":` + config)},
		"manifests twice":                         {v1.MediaTypeImageIndex, index(`"manifests":[],"manifests":[` + child + `]`)},
		"the subject twice":                       {v1.MediaTypeImageManifest, image(good + `,"subject":` + child + `,"subject":` + layer)},
		"keys that differ in case":                {v1.MediaTypeImageManifest, image(good + `,"LAYERS":[]`)},
		"a mark of the byte order":                {v1.MediaTypeImageManifest, "\xef\xbb\xbf" + image(good)},
		"in UTF-16":                               {v1.MediaTypeImageManifest, "\xff\xfe{\x00}\x00"},
		"data behind the end":                     {v1.MediaTypeImageManifest, image(good) + image(good)},
		"a brace behind the end":                  {v1.MediaTypeImageManifest, image(good) + "}"},
		"NUL behind the end":                      {v1.MediaTypeImageManifest, image(good) + "\x00"},
		"empty":                                   {v1.MediaTypeImageManifest, ""},
		"null":                                    {v1.MediaTypeImageManifest, "null"},
		"a list":                                  {v1.MediaTypeImageManifest, "[" + image(good) + "]"},
		"a text":                                  {v1.MediaTypeImageManifest, `"x"`},
		"no JSON":                                 {v1.MediaTypeImageManifest, "<html>"},
		"cut":                                     {v1.MediaTypeImageManifest, image(good)[:100]},
		"200,000 brackets":                        {v1.MediaTypeImageManifest, strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000)},
		"200,000 brackets inside":                 {v1.MediaTypeImageManifest, image(good + `,"x":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000))},
		"200,000 braces inside":                   {v1.MediaTypeImageManifest, image(good + `,"x":` + strings.Repeat(`{"a":`, 200_000) + "1" + strings.Repeat("}", 200_000))},
		"a negative size":                         {v1.MediaTypeImageManifest, strings.Replace(image(good), `"size":5`, `"size":-5`, 1)},
		"a size of no whole number":               {v1.MediaTypeImageManifest, strings.Replace(image(good), `"size":5`, `"size":5.5`, 1)},
		"a size above all numbers":                {v1.MediaTypeImageManifest, strings.Replace(image(good), `"size":5`, `"size":99999999999999999999`, 1)},
		"a size with a huge exponent":             {v1.MediaTypeImageManifest, strings.Replace(image(good), `"size":5`, `"size":1e999999999`, 1)},
		"a size that is a text":                   {v1.MediaTypeImageManifest, strings.Replace(image(good), `"size":5`, `"size":"5"`, 1)},
		"a digest with a path":                    {v1.MediaTypeImageManifest, strings.Replace(image(good), digest.FromString("layer").String(), "sha256:../../../../etc/passwd", 1)},
		"a digest in upper case":                  {v1.MediaTypeImageManifest, strings.Replace(image(good), digest.FromString("layer").Encoded(), strings.ToUpper(digest.FromString("layer").Encoded()), 1)},
		"a digest of an unknown algorithm":        {v1.MediaTypeImageManifest, strings.Replace(image(good), digest.FromString("layer").String(), "md5:d41d8cd98f00b204e9800998ecf8427e", 1)},
		"no digest":                               {v1.MediaTypeImageManifest, image(`"config":` + config + `,"layers":[{}]`)},
		"a subject without a digest":              {v1.MediaTypeImageManifest, image(good + `,"subject":{"mediaType":"a/b","size":1}`)},
		"a subject with a path":                   {v1.MediaTypeImageManifest, image(good + `,"subject":{"mediaType":"a/b","digest":"sha256:../x","size":1}`)},
		"layers that are no list":                 {v1.MediaTypeImageManifest, image(`"config":` + config + `,"layers":{}`)},
		"annotations that are no texts":           {v1.MediaTypeImageManifest, image(good + `,"annotations":{"a":1}`)},
		"data that is other content":              {v1.MediaTypeImageManifest, image(`"config":` + config + `,"layers":[` + entry(v1.MediaTypeImageLayer, "layer", `"data":"b3RoZXI=",`) + `]`)},
		"data that is no base64":                  {v1.MediaTypeImageManifest, image(`"config":` + config + `,"layers":[` + entry(v1.MediaTypeImageLayer, "layer", `"data":"???",`) + `]`)},
		"a type that is none":                     {"nonsense", image(good)},
		"two types":                               {v1.MediaTypeImageManifest + ", " + v1.MediaTypeImageIndex, image(good)},
	}
	each(t, func(t *testing.T, w *wire) {
		w.push(repo1, "{}")
		w.push(repo1, "layer")
		raw := imageDoc(v1.MediaTypeImageManifest, "")
		w.want("201", "PUT", "/v2/"+repo1+"/manifests/"+digest.FromString(raw).String(), raw, "Content-Type: "+v1.MediaTypeImageManifest)
		for name, doc := range docs {
			t.Run(name, func(t *testing.T) {
				w := w.on(t)
				d := digest.FromString(doc.raw).String()
				tag := "evil-" + digest.FromString(name).Encoded()[:8] // so that one failure is not that of all
				for _, at := range []string{tag, d, d + "?tag=" + tag} {
					a := w.ask("PUT", "/v2/"+repo1+"/manifests/"+at, doc.raw, "Content-Type: "+doc.contentType)
					code, err := a.code()
					if a.res.StatusCode != 400 || err != nil || code != "MANIFEST_INVALID" && code != "DIGEST_INVALID" && code != "SIZE_INVALID" {
						t.Fatalf("%s is answered with %s: %s", a.asked, a.res.Status, a.body)
					}
				}
				w.gone("/v2/" + repo1 + "/manifests/" + tag)
				w.gone("/v2/" + repo1 + "/manifests/" + d)
			})
		}
		w.tags(repo1, "")
		w.sameReferrers(repo1, digest.FromString(raw), "", nil)
	})
}

// A size that is not that of the content which is there is refused: who reads the manifest relies on it. (0 is a size
// that nobody knew.)
func TestAttackSizesThatLie(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.push(repo1, "{}")
		w.push(repo1, "layer")
		for _, size := range []string{"4", "6", "1000000000000", "9223372036854775807"} {
			raw := strings.Replace(`{"schemaVersion":2,"mediaType":"`+v1.MediaTypeImageManifest+`","config":`+entry(v1.MediaTypeEmptyJSON, "{}", "")+`,"layers":[`+entry(v1.MediaTypeImageLayer, "layer", "")+`]}`,
				`"size":5`, `"size":`+size, 1)
			a := w.ask("PUT", "/v2/"+repo1+"/manifests/lie", raw, "Content-Type: "+v1.MediaTypeImageManifest)
			if a.res.StatusCode != 400 && a.res.StatusCode != 413 {
				t.Errorf("a layer of 5 bytes that says it has %s is answered with %s", size, a.res.Status)
			}
			w.gone("/v2/" + repo1 + "/manifests/lie")
		}
	})
}

// A compressed manifest would be one document to who decodes it and another to who hashes it.
func TestAttackCompressedManifests(t *testing.T) {
	raw := imageDoc(v1.MediaTypeImageManifest, "")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(raw)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, w *wire) {
		w.push(repo1, "{}")
		for _, body := range []string{b.String(), raw} {
			for _, at := range []string{"x", digest.FromString(raw).String(), digest.FromString(body).String()} {
				a := w.ask("PUT", "/v2/"+repo1+"/manifests/"+at, body, "Content-Type: "+v1.MediaTypeImageManifest, "Content-Encoding: gzip")
				if a.res.StatusCode != 400 && a.res.StatusCode != 415 {
					t.Errorf("%s with Content-Encoding: gzip is answered with %s", a.asked, a.res.Status)
				}
			}
			w.gone("/v2/" + repo1 + "/manifests/" + digest.FromString(body).String())
		}
		w.gone("/v2/" + repo1 + "/manifests/x")
	})
}

// Documents at the edge of what is legal are taken, and come back byte for byte.
func TestAttackStrangeDocumentsThatAreLegal(t *testing.T) {
	config := entry(v1.MediaTypeEmptyJSON, "{}", "")
	image := func(fields string) string {
		return `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","config":` + config + fields + `}`
	}
	layers := make([]string, 10_000)
	for i := range layers {
		layers[i] = entry(v1.MediaTypeEmptyJSON, "{}", "")
	}
	each(t, func(t *testing.T, w *wire) {
		w.push(repo1, "{}")
		for name, raw := range map[string]string{
			"spaces around":           " \t\r\n" + image(`,"layers":[]`) + "\r\n \t",
			"escapes in keys":         strings.Replace(image(`,"layers":[]`), `"layers"`, `"l\u0061yers"`, 1),
			"huge numbers elsewhere":  image(`,"layers":[],"x":1e999999,"y":` + strings.Repeat("9", 10000)),
			"keys of an index inside": image(`,"layers":[],"x":{"manifests":[],"manifests":[]}`),
			"100 brackets":            image(`,"layers":[],"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100)),
			"NUL in an annotation":    image(`,"layers":[],"annotations":{"a\u0000b":"\u0000"}`),
			"10,000 layers":           image(`,"layers":[` + strings.Join(layers, ",") + `]`),
			"an odd surrogate":        image(`,"layers":[],"annotations":{"a":"\ud800"}`),
			"no annotations":          image(`,"layers":[],"annotations":null,"subject":null`),
		} {
			w.want("201", "PUT", "/v2/"+repo1+"/manifests/strange", raw, "Content-Type: "+v1.MediaTypeImageManifest)
			if a := w.want("200", "GET", "/v2/"+repo1+"/manifests/strange", nil); a.body != raw {
				t.Errorf("%s: other bytes come back", name)
			}
		}
	})
}

// A fallback tag of an older client says who refers to a manifest. What it lists counts only if it is so.
func TestAttackReferrersThatAreNone(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		subject := bare(s.image(nil, "v1"))
		real := bare(s.image(s.artifact(artifact1, &subject)))
		other := bare(s.image(s.artifact(artifact2, nil)))
		absent := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6}
		forged := real
		forged.ArtifactType, forged.Annotations = artifact2, map[string]string{"forged": "yes"}
		s.index(func(x *v1.Index) { x.Manifests = []v1.Descriptor{other, forged, subject} }, strings.Replace(subject.Digest.String(), ":", "-", 1))
		w.pushBlobs(repo1, s)
		for _, m := range s.manifests {
			w.putManifest(repo1, s, m)
		}
		w.sameReferrers(repo1, subject.Digest, "", []v1.Descriptor{s.manifests[1].Descriptor})
		w.sameReferrers(repo1, subject.Digest, artifact2, nil)
		w.sameReferrers(repo1, absent.Digest, "", nil)
		w.sameReferrers(repo1, other.Digest, "", nil)
	})
}
