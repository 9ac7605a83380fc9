package serve

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme/mem"
)

// Nothing that a client sends is answered with a 5xx, and every refusal has a code of the specification.
func FuzzRequests(f *testing.F) {
	for _, target := range []string{
		"/v2/", "/v2/_catalog?n=1", "/v2/a/tags/list?n=1&last=x", "/v2/a/manifests/v1?tag=x&tag=y", "/v2/a/blobs/" + sum("{}"),
		"/v2/a/blobs/uploads/?mount=" + sum("{}") + "&from=a", "/v2/b/blobs/uploads/?digest=" + sum("{}"), "/v2/a/blobs/uploads/SESSION?digest=" + sum("{}"),
		"/v2/a/referrers/" + sum("{}") + "?artifactType=x",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"} {
			f.Add(method, target, "0-1", "bytes=0-0", typeImage, "{}")
		}
	}
	f.Add("PUT", "/v2/a/manifests/v1", "", "", typeImage, image(`,"subject":{"mediaType":"x","digest":"`+sum("x")+`","size":0}`))
	f.Fuzz(func(t *testing.T, method, target, chunk, rng, contentType, body string) {
		s, err := New(mem.New(), root, WithSpoolDir(t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		do := func(method, target string, h http.Header, body string) *httptest.ResponseRecorder {
			u, err := url.ParseRequestURI(target)
			if err != nil {
				return nil
			}
			r := httptest.NewRequest("GET", "/", strings.NewReader(body))
			r.Method, r.URL, r.Header = method, u, h
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w
		}
		do("POST", "/v2/a/blobs/uploads/?digest="+sum("{}"), http.Header{}, "{}")
		session := do("POST", "/v2/a/blobs/uploads/", http.Header{}, "").Header().Get("Docker-Upload-UUID")
		h := http.Header{"Content-Range": {chunk}, "Range": {rng}, "Content-Type": {contentType}}
		w := do(method, strings.Replace(target, "SESSION", session, 1), h, body)
		if w == nil {
			return
		}
		if w.Code >= 500 {
			t.Errorf("%s %q is answered with %d: %s", method, target, w.Code, w.Body)
		}
		if w.Code >= 400 && method != "HEAD" {
			if e := ocihttp.ParseError(w.Code, w.Body.Bytes()); e.Code == "" {
				t.Errorf("%s %q is answered with %d and %q", method, target, w.Code, w.Body)
			}
		}
	})
}
