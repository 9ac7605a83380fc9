package reg

import (
	"errors"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
)

// TestWritesOnACondition: the header goes with the write of the reference's tag and nothing else, and a 412 is a conflict,
// whatever the registry calls it.
func TestWritesOnACondition(t *testing.T) {
	m, old := image(t, "x"), digest.FromString("old")
	for name, tc := range map[string]struct {
		at          digest.Digest
		status      int
		match, none string
		want        error
	}{
		"where it is":        {old, 201, ocihttp.ETag(old), "", nil},
		"nowhere":            {"", 201, "", "*", nil},
		"elsewhere":          {old, 412, ocihttp.ETag(old), "", errs.ErrConflict},
		"somewhere":          {"", 412, "", "*", errs.ErrConflict},
		"not a precondition": {old, 400, ocihttp.ETag(old), "", errs.ErrManifestInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
				match, none := tc.match, tc.none
				if r.URL.Path != "/v2/a/manifests/v1" {
					match, none = "", ""
				}
				if r.Header.Get("If-Match") != match || r.Header.Get("If-None-Match") != none {
					t.Errorf("%s: %q, %q", r.URL.Path, r.Header["If-Match"], r.Header["If-None-Match"])
				}
				answer(w, tc.status, `{"errors":[{"code":"MANIFEST_INVALID"}]}`)
			})
			api := newTest(t)
			_, err := api.ManifestPut(t.Context(), s.ref("a").WithTag("v1"), m, scheme.WithTagAt(tc.at), scheme.WithTags("v2"))
			if !errors.Is(err, tc.want) {
				t.Errorf("put: %v", err)
			}
			err = api.TagDelete(t.Context(), s.ref("a").WithTag("v1"), scheme.WithTagDeleteAt(tc.at))
			if tc.status != 400 && !errors.Is(err, tc.want) {
				t.Errorf("delete: %v", err)
			}
			if tc.want == nil {
				s.want("PUT /v2/a/manifests/v1", "PUT /v2/a/manifests/v2", "DELETE /v2/a/manifests/v1")
				return
			}
			s.want("PUT /v2/a/manifests/v1", "DELETE /v2/a/manifests/v1")
		})
	}
	t.Run("not without a condition", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 412, "") })
		if _, err := newTest(t).ManifestPut(t.Context(), s.ref("a").WithTag("v1"), m); err == nil || errors.Is(err, errs.ErrConflict) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a tag of sha512", func(t *testing.T) {
		s := newScript(t, func(http.ResponseWriter, *http.Request, int) {})
		r := s.ref("a").WithTag("v1")
		r.Digest = digest.SHA512.FromBytes(m.Raw())
		if _, err := newTest(t).ManifestPut(t.Context(), r, m, scheme.WithTagAt("")); !errors.Is(err, errs.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
		s.want()
	})
}
