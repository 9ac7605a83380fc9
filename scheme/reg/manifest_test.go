package reg

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
)

// image is a small image manifest, different for each name, that refers to subject if there is one.
func image(t *testing.T, name string, subject ...types.Descriptor) *manifest.Manifest {
	t.Helper()
	doc := map[string]any{
		"schemaVersion": 2, "mediaType": types.MediaTypeImageManifest,
		"config":      types.Descriptor{MediaType: types.MediaTypeEmpty, Digest: digest.FromString("{}"), Size: 2},
		"layers":      []types.Descriptor{},
		"annotations": map[string]string{"name": name},
	}
	if len(subject) > 0 {
		doc["subject"] = subject[0]
		doc["artifactType"] = "application/vnd.example"
	}
	m, err := manifest.FromJSON(doc)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestManifestGet(t *testing.T) {
	m := image(t, "x")
	other := image(t, "y")
	sha512 := digest.SHA512.FromBytes(m.Raw())
	for name, tc := range map[string]struct {
		reference string // :tag or @digest
		header    string // Docker-Content-Digest
		body      []byte
		expect    types.Descriptor
		want      error
	}{
		"by tag":                              {":v1", string(m.Digest()), m.Raw(), types.Descriptor{}, nil},
		"by tag, a registry that says little": {":v1", "", m.Raw(), types.Descriptor{}, nil},
		"by digest":                           {"@" + string(m.Digest()), string(m.Digest()), m.Raw(), types.Descriptor{}, nil},
		"by sha512":                           {"@" + string(sha512), string(m.Digest()), m.Raw(), types.Descriptor{}, nil},
		"as expected":                         {":v1", "", m.Raw(), m.Descriptor(), nil},
		"other content at a digest":           {"@" + string(m.Digest()), "", other.Raw(), types.Descriptor{}, errs.ErrDigestMismatch},
		"other content, cleverly":             {"@" + string(m.Digest()), string(other.Digest()), other.Raw(), types.Descriptor{}, errs.ErrDigestMismatch},
		"other than the header says":          {":v1", string(other.Digest()), m.Raw(), types.Descriptor{}, errs.ErrDigestMismatch},
		"a header that is no digest":          {":v1", "sha256:../../x", m.Raw(), types.Descriptor{}, errs.ErrDigestInvalid},
		"not as expected":                     {":v1", "", other.Raw(), m.Descriptor(), errs.ErrDigestMismatch},
		"not as long as expected":             {":v1", "", m.Raw(), types.Descriptor{Size: 3}, errs.ErrSizeMismatch},
		"too large":                           {":v1", "", make([]byte, types.MaxManifestSize+1), types.Descriptor{}, errs.ErrSizeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				if !strings.Contains(r.Header.Get("Accept"), types.MediaTypeDockerManifest) || !strings.Contains(r.Header.Get("Accept"), "*/*") {
					t.Errorf("Accept %q", r.Header.Get("Accept"))
				}
				w.Header().Set("Content-Type", types.MediaTypeImageManifest)
				if tc.header != "" {
					w.Header().Set(ocihttp.HeaderContentDigest, tc.header)
				}
				_, _ = w.Write(tc.body)
			})
			r := ref.MustParse(s.ref("a").String() + tc.reference)
			got, err := newTest(t).ManifestGet(t.Context(), r, scheme.WithExpected(tc.expect))
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err == nil && (!bytes.Equal(got.Raw(), m.Raw()) || got.MediaType() != types.MediaTypeImageManifest || r.Digest != "" && got.Digest() != r.Digest) {
				t.Errorf("got %v", got.Descriptor())
			}
			s.want("GET /v2/a/manifests/" + r.Reference())
		})
	}
	t.Run("a body that breaks off is asked for again", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 1 {
				abort(w, m.Raw(), 10)
			}
			_, _ = w.Write(m.Raw())
		})
		if _, err := newTest(t).ManifestGet(t.Context(), s.ref("a")); err != nil {
			t.Error(err)
		}
	})
}

func TestManifestHead(t *testing.T) {
	m := image(t, "x")
	whole := []string{"Content-Type", types.MediaTypeImageManifest, "Content-Length", strconv.Itoa(len(m.Raw())), ocihttp.HeaderContentDigest, string(m.Digest())}
	for name, tc := range map[string]struct {
		status int
		header []string
		want   error
		get    bool
	}{
		"one request":         {200, whole, nil, false},
		"no digest":           {200, whole[:4], nil, true},
		"no type":             {200, whole[2:], nil, true},
		"no HEAD":             {405, nil, nil, true},
		"not there":           {404, nil, errs.ErrNotFound, false},
		"a digest that lies":  {200, append(whole[:4:4], ocihttp.HeaderContentDigest, string(image(t, "y").Digest())), nil, false},
		"a digest that is no": {200, append(whole[:4:4], ocihttp.HeaderContentDigest, "x"), errs.ErrDigestInvalid, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				if r.Method == http.MethodGet {
					answer(w, 200, string(m.Raw()), "Content-Type", types.MediaTypeImageManifest)
					return
				}
				answer(w, tc.status, "", tc.header...)
			})
			got, err := newTest(t).ManifestHead(t.Context(), s.ref("a").WithTag("v1"))
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err == nil && name != "a digest that lies" && (got.Digest != m.Digest() || got.Size != int64(len(m.Raw())) || got.MediaType != m.MediaType()) {
				t.Errorf("got %v", got)
			}
			if n := len(s.requests()); (n == 2) != tc.get {
				t.Errorf("requests %q", s.requests())
			}
		})
	}
	t.Run("another digest than was asked for", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 200, "", whole...) })
		_, err := newTest(t).ManifestHead(t.Context(), s.ref("a").WithDigest(image(t, "y").Digest()))
		if !errors.Is(err, errs.ErrDigestMismatch) {
			t.Errorf("got %v", err)
		}
	})
}

func TestManifestPutRequests(t *testing.T) {
	m := image(t, "x")
	sha512 := digest.SHA512.FromBytes(m.Raw())
	byTag := func(tag string) string { return "PUT /v2/a/manifests/" + tag }
	byDigest := byTag(string(m.Digest()))
	for name, tc := range map[string]struct {
		reference string
		tags      []string
		accepts   bool // ?tag=
		want      []string
		again     []string // the same put once more
	}{
		"by tag":                    {":v1", nil, false, []string{byTag("v1")}, []string{byTag("v1")}},
		"without tag":               {"", nil, false, []string{byTag("latest")}, []string{byTag("latest")}},
		"by digest":                 {"@" + string(m.Digest()), nil, false, []string{byDigest}, []string{byDigest}},
		"the same tag twice":        {":v1", []string{"v1"}, true, []string{byTag("v1")}, []string{byTag("v1")}},
		"several at once":           {":v1", []string{"v2"}, true, []string{byDigest + "?tag=v1&tag=v2"}, []string{byDigest + "?tag=v1&tag=v2"}},
		"several, one by one":       {":v1", []string{"v2"}, false, []string{byDigest + "?tag=v1&tag=v2", byTag("v1"), byTag("v2")}, []string{byTag("v1"), byTag("v2")}},
		"sha512 with a tag":         {":v1@" + string(sha512), nil, true, []string{byTag(string(sha512)) + "?tag=v1"}, []string{byTag(string(sha512)) + "?tag=v1"}},
		"sha512, not taken at once": {":v1@" + string(sha512), nil, false, []string{byTag(string(sha512)) + "?tag=v1", byTag("v1")}, []string{byTag(string(sha512)) + "?tag=v1", byTag("v1")}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				body, err := io.ReadAll(r.Body)
				if err != nil || !bytes.Equal(body, m.Raw()) || r.Header.Get("Content-Type") != m.MediaType() {
					t.Errorf("%d bytes of %s, %v", len(body), r.Header.Get("Content-Type"), err)
				}
				for _, tag := range r.URL.Query()["tag"] {
					if tc.accepts {
						w.Header().Add(ocihttp.HeaderTag, tag)
					}
				}
				answer(w, 201, "")
			})
			api := newTest(t)
			r := ref.MustParse(s.ref("a").String() + tc.reference)
			for range 2 {
				got, err := api.ManifestPut(t.Context(), r, m, scheme.WithTags(tc.tags...))
				if err != nil {
					t.Fatal(err)
				}
				if want := len(tc.tags) + 1; name != "by digest" && name != "the same tag twice" && len(got.Tags) != want || got.SubjectDone {
					t.Errorf("got %+v", got)
				}
			}
			s.want(append(tc.want, tc.again...)...)
		})
	}
	t.Run("what is wrong is not sent", func(t *testing.T) {
		s := newScript(t, func(http.ResponseWriter, *http.Request, int) {})
		api := newTest(t)
		huge, err := manifest.New(bytes.Repeat([]byte(" "), types.MaxManifestSize+1))
		if err != nil {
			t.Fatal(err)
		}
		_, e1 := api.ManifestPut(t.Context(), s.ref("a").WithDigest(image(t, "y").Digest()), m)
		_, e2 := api.ManifestPut(t.Context(), s.ref("a"), m, scheme.WithTags("no tag"))
		_, e3 := api.ManifestPut(t.Context(), s.ref("a"), huge)
		if !errors.Is(e1, errs.ErrDigestMismatch) || !errors.Is(e2, errs.ErrNameInvalid) || !errors.Is(e3, errs.ErrSizeInvalid) {
			t.Errorf("got %v; %v; %v", e1, e2, e3)
		}
		s.want()
	})
	t.Run("a registry that stored something else", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
			answer(w, 201, "", ocihttp.HeaderContentDigest, string(image(t, "y").Digest()))
		})
		if _, err := newTest(t).ManifestPut(t.Context(), s.ref("a"), m); !errors.Is(err, errs.ErrDigestMismatch) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("what is missing is named", func(t *testing.T) {
		_, d := content(3)
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
			answer(w, 400, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown","detail":"`+string(d.Digest)+`"}]}`)
		})
		_, err := newTest(t).ManifestPut(t.Context(), s.ref("a"), m)
		var e *errs.Error
		if !errors.Is(err, errs.ErrManifestBlobUnknown) || !errors.As(err, &e) || len(e.Missing) != 1 || e.Missing[0] != d.Digest {
			t.Errorf("got %v", err)
		}
	})
}

func TestDeletes(t *testing.T) {
	d := image(t, "x").Digest()
	for name, tc := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"done":               {202, "", nil},
		"not allowed":        {405, `{"errors":[{"code":"UNSUPPORTED"}]}`, errs.ErrUnsupported},
		"unsupported, a 400": {400, `{"errors":[{"code":"UNSUPPORTED"}]}`, errs.ErrUnsupported},
		"not there":          {404, "", errs.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, tc.status, tc.body) })
			api := newTest(t)
			if err := api.TagDelete(t.Context(), s.ref("a").WithTag("v1")); !errors.Is(err, tc.want) {
				t.Errorf("tag: got %v", err)
			}
			if err := api.ManifestDelete(t.Context(), s.ref("a").WithDigest(d)); !errors.Is(err, tc.want) {
				t.Errorf("manifest: got %v", err)
			}
			s.want("DELETE /v2/a/manifests/v1", "DELETE /v2/a/manifests/"+string(d))
		})
	}
	t.Run("only what was named is deleted", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 202, "") })
		api := newTest(t)
		if err := api.ManifestDelete(t.Context(), s.ref("a").WithTag("v1")); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("got %v", err)
		}
		if err := api.TagDelete(t.Context(), s.ref("a").WithDigest(d)); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("got %v", err)
		}
		s.want()
	})
}
