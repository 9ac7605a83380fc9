package serve

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types/ref"
)

// Whatever a client sends: no 5xx (a panic is one), every refusal has a code of the specification, no answer tells where
// the store is, and nothing is made beside it. headers are lines; SESSION stands for an upload that is open.
func FuzzRequests(f *testing.F) {
	headers := "Content-Range: 0-1\nRange: bytes=0-0\nContent-Type: " + typeImage
	for _, target := range []string{
		"/v2/", "/v2/_catalog?n=1", "/v2/a/tags/list?n=1&last=x", "/v2/a/manifests/v1?tag=x&tag=y", "/v2/a/blobs/" + sum("{}"),
		"/v2/a/blobs/uploads/?mount=" + sum("{}") + "&from=a", "/v2/b/blobs/uploads/?digest=" + sum("{}"), "/v2/a/blobs/uploads/SESSION?digest=" + sum("{}"),
		"/v2/a/referrers/" + sum("{}") + "?artifactType=x",
	} {
		for i, method := range []string{"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"} {
			f.Add(i%2 == 0, method, target, headers, "{}")
		}
	}
	for _, target := range []string{"/v2/../x/manifests/v1", "/v2/%2e%2e/blobs/uploads/?digest=" + sum("{}"), "/v2/a%2f..%2f../tags/list", "/v2/blobs/tags/list", "/v2/index.json/blobs/uploads/"} {
		f.Add(true, "POST", target, headers, "{}")
	}
	f.Add(true, "PUT", "/v2/a/manifests/v1", "Content-Type: "+typeImage, image(`,"subject":{"mediaType":"x","digest":"`+sum("x")+`","size":0}`))
	f.Add(false, "PUT", "/v2/a/manifests/v1?tag=..", "Content-Type: "+typeIndex+"\nContent-Encoding: gzip\nExpect: 100-continue", `{"manifests":[[[[`)
	f.Add(true, "GET", "/v2/a/blobs/"+sum("{}"), "Range: bytes=1-0,0-9\nIf-Range: x\nIf-None-Match: W/\"x\", *\nX-Forwarded-For: ,,1", "")
	f.Fuzz(func(t *testing.T, onDisk bool, method, target, headers, body string) {
		outer := t.TempDir()
		s, done := fuzzed(t, outer, onDisk)
		defer done()
		do := func(method, target, headers, body string) *httptest.ResponseRecorder {
			u, err := url.ParseRequestURI(target)
			if err != nil {
				return nil
			}
			r := httptest.NewRequest("GET", "/", strings.NewReader(body))
			r.Method, r.URL, r.Header = method, u, http.Header{}
			for line := range strings.SplitSeq(headers, "\n") {
				name, value, _ := strings.Cut(line, ":")
				r.Header.Add(name, strings.TrimSpace(value))
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w
		}
		do("POST", "/v2/a/blobs/uploads/?digest="+sum("{}"), "", "{}")
		session := do("POST", "/v2/a/blobs/uploads/", "", "").Header().Get("Location")
		if w := do(method, strings.Replace(target, "/v2/a/blobs/uploads/SESSION", session, 1), headers, body); w != nil {
			holds(t, method, target, outer, w)
		}
		entries, err := os.ReadDir(outer)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "tree" {
				t.Errorf("%s %q made %s beside the store", method, target, e.Name())
			}
		}
	})
}

// fuzzed returns a server over memory, or over a tree in a directory of its own.
func fuzzed(t *testing.T, outer string, onDisk bool) (s *Server, done func()) {
	t.Helper()
	var api scheme.API = mem.New()
	at := root
	closes := func() error { return nil }
	if onDisk {
		store := ocidir.New(ocidir.WithDurability(ocidir.None))
		api, at, closes = store, ref.Ref{Scheme: ref.SchemeOCIDir, Root: filepath.Join(outer, "tree")}, store.Close
	}
	s, err := New(api, at)
	if err != nil {
		t.Fatal(err)
	}
	return s, func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := closes(); err != nil {
			t.Error(err)
		}
	}
}

// holds checks what is true of every answer.
func holds(t *testing.T, method, target, outer string, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code >= 500 {
		t.Errorf("%s %q is answered with %d: %s", method, target, w.Code, w.Body)
	}
	if w.Code >= 400 && method != http.MethodHead {
		if e := ocihttp.ParseError(w.Code, w.Body.Bytes()); !slices.Contains(specCodes, e.Code) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %q is answered with %d and %q", method, target, w.Code, w.Body)
		}
	}
	if method == http.MethodHead && w.Body.Len() > 0 {
		t.Errorf("HEAD %q is answered with a body: %s", target, w.Body)
	}
	if l := w.Header().Get("Location"); l != "" && !strings.HasPrefix(l, "/v2/") {
		t.Errorf("%s %q leads to %q", method, target, l)
	}
	for name, values := range w.Header() {
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") || strings.Contains(v, outer) {
				t.Errorf("%s %q is answered with %s: %q", method, target, name, v)
			}
		}
	}
	if strings.Contains(w.Body.String(), outer) {
		t.Errorf("the answer to %s %q tells where the store is: %s", method, target, w.Body)
	}
}

// specCodes are those that the specification has for 4xx answers ("Error Codes").
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID",
	"MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}
