package serve_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/types"
)

// HEAD is GET without the body, of what is there and of what is not.
func TestConformHeadIsGetWithoutTheBody(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		s.image(nil, "v1")
		w.pushBlobs(repo1, s)
		w.putManifest(repo1, s, s.manifests[0])
		d, m := w.push(repo1, content("a blob", 10000)), s.manifests[0].Digest.String()
		d512 := digest.SHA512.FromString("by another algorithm")
		w.want("201", "POST", "/v2/"+repo1+"/blobs/uploads/?digest="+d512.String(), "by another algorithm")
		at := w.want("202", "PATCH", w.session(repo1), "part", octets).header("Location")
		absent := digest.FromString("absent").String()
		for target, status := range map[string]string{
			"/v2/": "200", "/v2/_catalog": "200", "/v2/_catalog?n=1": "200", "/v2/_catalog?n=x": "400",
			"/v2/" + repo1 + "/blobs/" + d.String(): "200", "/v2/" + repo1 + "/blobs/" + d512.String(): "200",
			"/v2/" + repo1 + "/blobs/" + absent: "404", "/v2/" + repo1 + "/blobs/sha256:x": "400", "/v2/UPPER/blobs/" + d.String(): "400",
			"/v2/none/blobs/" + d.String(): "404", "/v2/" + repo1 + "/manifests/v1": "200", "/v2/" + repo1 + "/manifests/" + m: "200",
			"/v2/" + repo1 + "/manifests/none": "404", "/v2/" + repo1 + "/manifests/" + absent: "404", "/v2/" + repo1 + "/manifests/.x": "404",
			"/v2/" + repo1 + "/manifests/sha256:x": "400", "/v2/none/manifests/v1": "404", "/v2/UPPER/manifests/v1": "400",
			"/v2/" + repo1 + "/manifests/" + strings.Repeat("t", 129): "404",
			"/v2/" + repo1 + "/tags/list":                             "200", "/v2/none/tags/list": "404", "/v2/" + repo1 + "/tags/list?n=-1": "400",
			"/v2/" + repo1 + "/referrers/" + m: "200", "/v2/none/referrers/" + m: "200", "/v2/" + repo1 + "/referrers/x": "400",
			"/v2/" + repo1 + "/referrers/" + m + "?artifactType=a%2Fb": "200",
			at: "204", at + "x": "404", "/": "404", "/v1/": "404", "/v2/x": "404", "/v2/" + repo1 + "/unknown": "404",
		} {
			get, head := w.want(status, "GET", target, nil), w.want(status, "HEAD", target, nil)
			if w.proxied && status == "404" { // a registry's answer to HEAD does not say what of all it is that is not there
				get.res.Header.Del("Content-Length")
				head.res.Header.Del("Content-Length")
			}
			same(t, get, head)
		}
		blob, manifest := "/v2/"+repo1+"/blobs/"+d.String(), "/v2/"+repo1+"/manifests/v1"
		same(t, w.want("304", "GET", blob, nil, `If-None-Match: "`+d.String()+`"`), w.want("304", "HEAD", blob, nil, `If-None-Match: "`+d.String()+`"`))
		same(t, w.want("304", "GET", manifest, nil, `If-None-Match: "`+m+`"`), w.want("304", "HEAD", manifest, nil, `If-None-Match: "`+m+`"`))
	})
}

// same checks that two answers have the same headers, but for when it was, and the names of the two requests.
func same(t *testing.T, get, head reply) {
	t.Helper()
	names := map[string]bool{}
	for name := range get.res.Header {
		names[name] = true
	}
	for name := range head.res.Header {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if g, h := get.res.Header.Values(name), head.res.Header.Values(name); name != "Date" && name != "X-Request-Id" && !slices.Equal(g, h) {
			t.Errorf("%s: %s is %q, and %q of HEAD", get.asked, name, g, h)
		}
	}
}

func TestConformConditionalRequests(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		s.image(nil, "v1")
		w.pushBlobs(repo1, s)
		w.putManifest(repo1, s, s.manifests[0])
		m := s.manifests[0]
		text := content("conditional", 3000)
		d := w.push(repo1, text)
		for target, d := range map[string]digest.Digest{
			"/v2/" + repo1 + "/blobs/" + d.String(): d, "/v2/" + repo1 + "/manifests/v1": m.Digest, "/v2/" + repo1 + "/manifests/" + m.Digest.String(): m.Digest,
		} {
			for _, cond := range []string{`"` + d.String() + `"`, `W/"` + d.String() + `"`, "*", `"x", "` + d.String() + `"`} {
				a := w.want("304", "GET", target, nil, "If-None-Match: "+cond)
				w.has(a, `ETag: "`+d.String()+`"`, "Content-Length:", "Docker-Content-Digest: "+d.String())
			}
			w.want("304", "GET", target, nil, `If-None-Match: "x"`, `If-None-Match: "`+d.String()+`"`)
			for _, cond := range []string{`"x"`, d.String(), `"` + d.String(), `""`, ",", `"` + strings.ToUpper(d.String()) + `"`} {
				w.want("200", "GET", target, nil, "If-None-Match: "+cond)
			}
		}
		target := "/v2/" + repo1 + "/blobs/" + d.String()
		rng := "Range: bytes=1-9"
		if a := w.want("206", "GET", target, nil, rng, `If-Range: "`+d.String()+`"`); a.body != text[1:10] {
			t.Errorf("If-Range of the blob: %q", a.body)
		}
		for _, cond := range []string{`"x"`, `W/"` + d.String() + `"`, "Tue, 01 Jan 2030 00:00:00 GMT"} { // RFC 9110: only a strong validator that is the same
			if a := w.want("200", "GET", target, nil, rng, "If-Range: "+cond); a.body != text {
				t.Errorf("If-Range: %s: %d bytes", cond, len(a.body))
			}
		}
		w.want("304", "GET", target, nil, rng, `If-None-Match: "`+d.String()+`"`)
		w.want("404", "GET", "/v2/"+repo1+"/blobs/"+digest.FromString("none").String(), nil, "If-None-Match: *")
		w.want("404", "GET", "/v2/"+repo1+"/manifests/none", nil, "If-None-Match: *")
	})
}

// A manifest comes back with the Content-Type that it was pushed with, whatever that is, without parameters.
func TestConformContentTypes(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.push(repo1, "{}")
		for i, tc := range []struct{ sent, doc, want string }{
			{v1.MediaTypeImageManifest, v1.MediaTypeImageManifest, v1.MediaTypeImageManifest},
			{v1.MediaTypeImageManifest + "; charset=utf-8", v1.MediaTypeImageManifest, v1.MediaTypeImageManifest},
			{v1.MediaTypeImageManifest + ";charset=\"utf-8\" ; x=y", "", v1.MediaTypeImageManifest},
			{v1.MediaTypeImageManifest, "", v1.MediaTypeImageManifest},
			{types.MediaTypeDockerManifest, types.MediaTypeDockerManifest, types.MediaTypeDockerManifest},
			{"application/vnd.example.unknown+json", "application/vnd.example.unknown+json", "application/vnd.example.unknown+json"},
			{"application/vnd.example.unknown+json", "", "application/vnd.example.unknown+json"},
			{strings.ToUpper(v1.MediaTypeImageManifest), v1.MediaTypeImageManifest, v1.MediaTypeImageManifest}, // RFC 9110: letters are alike
			{"", v1.MediaTypeImageManifest, v1.MediaTypeImageManifest},
			{"", "", v1.MediaTypeImageManifest}, // what has a config and layers is nothing else
		} {
			raw := imageDoc(tc.doc, fmt.Sprintf(`,"annotations":{"n":"%d"}`, i))
			var h []string
			if tc.sent != "" {
				h = []string{"Content-Type: " + tc.sent}
			}
			w.want("201", "PUT", "/v2/"+repo1+"/manifests/t", raw, h...)
			m := pushed{raw: raw, Descriptor: v1.Descriptor{MediaType: tc.want, Digest: digest.FromString(raw), Size: int64(len(raw))}}
			w.readsManifest(repo1, "t", m)
			w.readsManifest(repo1, m.Digest.String(), m)
		}
	})
}

// imageDoc is an image without layers whose config is {}; mediaType and more may be empty.
func imageDoc(mediaType, more string) string {
	if mediaType != "" {
		mediaType = `"mediaType":"` + mediaType + `",`
	}
	return `{"schemaVersion":2,` + mediaType + `"config":{"mediaType":"` + v1.MediaTypeEmptyJSON + `","digest":"` + digest.FromString("{}").String() + `","size":2},"layers":[]` + more + `}`
}

// 4 MiB must be possible; what is larger is refused in a way that the client can read, with and without a Content-Length.
func TestConformManifestSizes(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.push(repo1, "{}")
		sized := func(n int) string {
			raw := imageDoc(v1.MediaTypeImageManifest, "")
			return raw + strings.Repeat(" ", n-len(raw))
		}
		ct := "Content-Type: " + v1.MediaTypeImageManifest
		most := sized(4 << 20)
		w.want("201", "PUT", "/v2/"+repo1+"/manifests/most", most, ct)
		if a := w.want("200", "GET", "/v2/"+repo1+"/manifests/most", nil); a.body != most {
			t.Error("the largest manifest comes back as something else")
		}
		over := sized(types.MaxManifestSize + 1)
		for _, body := range []any{over, stream(over)} {
			w.want("413 SIZE_INVALID", "PUT", "/v2/"+repo1+"/manifests/over", body, ct)
			w.want("413 SIZE_INVALID", "PUT", "/v2/"+repo1+"/manifests/"+digest.FromString(over).String(), body, ct)
		}
		w.gone("/v2/" + repo1 + "/manifests/over")
		w.gone("/v2/" + repo1 + "/manifests/" + digest.FromString(over).String())
	})
}

// What is no method of a resource is 405 and says what is.
func TestConformMethods(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		d := w.push(repo1, "x").String()
		for target, allow := range map[string]string{
			"/v2/": "GET HEAD", "/v2/_catalog": "GET HEAD", "/v2/" + repo1 + "/tags/list": "GET HEAD", "/v2/" + repo1 + "/referrers/" + d: "GET HEAD",
			"/v2/" + repo1 + "/blobs/" + d: "GET HEAD DELETE", "/v2/" + repo1 + "/manifests/x": "GET HEAD PUT DELETE",
			"/v2/" + repo1 + "/blobs/uploads/": "POST", "/v2/" + repo1 + "/blobs/uploads/x": "GET HEAD PATCH PUT DELETE",
		} {
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "X"} {
				if strings.Contains(" "+allow+" ", " "+method+" ") {
					continue
				}
				a := w.want("405 UNSUPPORTED", method, target, nil)
				for _, m := range strings.Fields(allow) {
					if m != "HEAD" && !strings.Contains(a.header("Allow"), m) {
						t.Errorf("%s: Allow is %q, without %s", a.asked, a.header("Allow"), m)
					}
				}
			}
		}
	})
}
