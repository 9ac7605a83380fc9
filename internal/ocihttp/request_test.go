package ocihttp

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
)

var (
	sha256d = digest.FromString("a")
	sha512d = digest.SHA512.FromString("a")
)

func ptr(n int) *int { return &n }

// requests has every kind with every field it uses, and how it is printed.
var requests = []struct {
	want string
	req  Request
}{
	{"GET /v2/", Request{Kind: Ping}},
	{"GET /v2/a/blobs/" + string(sha256d), Request{Kind: BlobGet, Repo: "a", Digest: sha256d}},
	{"HEAD /v2/a/b/blobs/" + string(sha512d), Request{Kind: BlobHead, Repo: "a/b", Digest: sha512d}},
	{"DELETE /v2/a/blobs/" + string(sha256d), Request{Kind: BlobDelete, Repo: "a", Digest: sha256d}},
	{"POST /v2/a/blobs/uploads/", Request{Kind: UploadStart, Repo: "a"}},
	{"POST /v2/blobs/uploads/blobs/uploads/", Request{Kind: UploadStart, Repo: "blobs/uploads"}},
	{"POST /v2/a/blobs/uploads/?mount=" + esc(sha256d) + "&from=b%2Fc", Request{Kind: UploadStart, Repo: "a", Mount: sha256d, From: "b/c"}},
	{"POST /v2/a/blobs/uploads/?mount=" + esc(sha256d), Request{Kind: UploadStart, Repo: "a", Mount: sha256d}},
	{"POST /v2/a/blobs/uploads/?digest=" + esc(sha512d), Request{Kind: UploadStart, Repo: "a", Digest: sha512d}},
	{"POST /v2/a/blobs/uploads/?digest-algorithm=sha512", Request{Kind: UploadStart, Repo: "a", DigestAlgorithm: digest.SHA512}},
	{"PATCH /v2/a/blobs/uploads/x-1_Z.y", Request{Kind: UploadChunk, Repo: "a", UploadID: "x-1_Z.y"}},
	{"PUT /v2/a/blobs/uploads/x?digest=" + esc(sha256d), Request{Kind: UploadFinish, Repo: "a", UploadID: "x", Digest: sha256d}},
	{"GET /v2/a/blobs/uploads/uploads", Request{Kind: UploadStatus, Repo: "a", UploadID: "uploads"}},
	{"DELETE /v2/a/blobs/uploads/x", Request{Kind: UploadCancel, Repo: "a", UploadID: "x"}},
	{"GET /v2/a/manifests/latest", Request{Kind: ManifestGet, Repo: "a", Tag: "latest"}},
	{"GET /v2/a/manifests/manifests/uploads", Request{Kind: ManifestGet, Repo: "a/manifests", Tag: "uploads"}},
	{"GET /v2/a/blobs/uploads/manifests/v1", Request{Kind: ManifestGet, Repo: "a/blobs/uploads", Tag: "v1"}},
	{"HEAD /v2/a/manifests/" + string(sha512d), Request{Kind: ManifestHead, Repo: "a", Digest: sha512d}},
	{"PUT /v2/a/manifests/v1", Request{Kind: ManifestPut, Repo: "a", Tag: "v1"}},
	{"PUT /v2/a/manifests/" + string(sha256d) + "?tag=b&tag=a&tag=b", Request{Kind: ManifestPut, Repo: "a", Digest: sha256d, Tags: []string{"b", "a", "b"}}},
	{"DELETE /v2/a/manifests/_x", Request{Kind: ManifestDelete, Repo: "a", Tag: "_x"}},
	{"GET /v2/a/tags/list", Request{Kind: TagList, Repo: "a"}},
	{"GET /v2/tags/list/tags/list", Request{Kind: TagList, Repo: "tags/list"}},
	{"GET /v2/a/tags/list?n=0&last=v%261%0D%0A", Request{Kind: TagList, Repo: "a", N: ptr(0), Last: "v&1\r\n"}},
	{"GET /v2/a/referrers/" + string(sha256d), Request{Kind: Referrers, Repo: "a", Digest: sha256d}},
	{"GET /v2/a/referrers/" + string(sha256d) + "?artifactType=application%2Fx%2By", Request{Kind: Referrers, Repo: "a", Digest: sha256d, ArtifactType: "application/x+y"}},
	{"GET /v2/a/referrers/" + string(sha256d) + "?artifactType=x&n=7&last=" + url.QueryEscape(string(sha256d)), Request{Kind: Referrers, Repo: "a", Digest: sha256d, ArtifactType: "x", N: new(7), Last: string(sha256d)}},
	{"GET /v2/_catalog", Request{Kind: Catalog}},
	{"GET /v2/_catalog?n=7&last=a%2Fb", Request{Kind: Catalog, N: ptr(7), Last: "a/b"}},
}

func esc(d digest.Digest) string { return url.QueryEscape(string(d)) }

func TestRequestsPrintAndParseBack(t *testing.T) {
	seen := map[Kind]bool{}
	for _, c := range requests {
		t.Run(c.want, func(t *testing.T) {
			seen[c.req.Kind] = true
			if got := c.req.Method() + " " + c.req.String(); got != c.want {
				t.Errorf("printed %q, want %q", got, c.want)
			}
			u := c.req.URL(&url.URL{Scheme: "http", Host: "h:5000"})
			again, err := url.Parse(u.String())
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(c.req.Method(), again)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&c.req, got); d != "" {
				t.Error("parsed:", d)
			}
		})
	}
	for k := Ping; int(k) < Kinds; k++ {
		if !seen[k] {
			t.Errorf("no case for %v", k)
		}
	}
}

func TestParseAcceptsWhatClientsWrite(t *testing.T) {
	for in, want := range map[string]Request{
		"GET /v2":                                    {Kind: Ping},
		"HEAD /v2/":                                  {Kind: Ping},
		"POST /v2/a/blobs/uploads":                   {Kind: UploadStart, Repo: "a"},
		"GET /v2/a/blobs/" + esc(sha256d):            {Kind: BlobGet, Repo: "a", Digest: sha256d},
		"GET /v2/a/manifests/v1?ns=docker.io":        {Kind: ManifestGet, Repo: "a", Tag: "v1"},
		"GET /v2/%61/manifests/v1":                   {Kind: ManifestGet, Repo: "a", Tag: "v1"},
		"GET /v2/a/tags/list?n=99999999999999999999": {Kind: TagList, Repo: "a", N: ptr(math.MaxInt32)},
		"GET /v2/a/tags/list?n=":                     {Kind: TagList, Repo: "a"},
		"HEAD /v2/a/blobs/uploads/x":                 {Kind: UploadStatus, Repo: "a", UploadID: "x"},
	} {
		method, target, _ := strings.Cut(in, " ")
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(in, err)
		}
		got, err := Parse(method, u)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if d := cmp.Diff(&want, got); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	d := string(sha256d)
	for in, want := range map[string]error{
		"GET /":                       errs.ErrNotFound,
		"GET /v1/":                    errs.ErrNotFound,
		"GET /v2x/":                   errs.ErrNotFound,
		"GET /v2/a":                   errs.ErrNotFound,
		"GET /v2/a/tags/lists":        errs.ErrNotFound,
		"GET /v2/manifests/v1":        errs.ErrNotFound,
		"GET /v2//manifests/v1":       errs.ErrNameInvalid,
		"GET /v2/a//b/manifests/v1":   errs.ErrNameInvalid,
		"GET /v2/../manifests/v1":     errs.ErrNameInvalid,
		"GET /v2/%2e%2e/manifests/v1": errs.ErrNameInvalid,
		"GET /v2/a%2fb/manifests/v1":  errs.ErrNameInvalid,
		"GET /v2/a%00/manifests/v1":   errs.ErrNameInvalid,
		"GET /v2/a%0a/manifests/v1":   errs.ErrNameInvalid,
		"GET /v2/a%5cb/manifests/v1":  errs.ErrNameInvalid,
		"GET /v2/A/manifests/v1":      errs.ErrNameInvalid,
		"GET /v2/_catalogs/tags/list": errs.ErrNameInvalid,
		"GET /v2/" + strings.Repeat("a", 256) + "/tags/list":          errs.ErrNameInvalid,
		"PUT /v2/a/manifests/.x":                                      errs.ErrNameInvalid,
		"PUT /v2/a/manifests/" + strings.Repeat("t", 129):             errs.ErrNameInvalid,
		"GET /v2/a/manifests/.x":                                      errs.ErrManifestUnknown,
		"PUT /v2/a/manifests/" + d + "?tag=a&tag=b%0d%0ax":            errs.ErrNameInvalid,
		"PUT /v2/a/manifests/sha256:baddigeststring":                  errs.ErrDigestInvalid,
		"GET /v2/a/manifests/sha256:baddigeststring":                  errs.ErrDigestInvalid,
		"GET /v2/a/blobs/sha256:../..":                                errs.ErrNotFound,
		"GET /v2/a/blobs/sha256:..%2f..":                              errs.ErrNameInvalid,
		"GET /v2/a/blobs/latest":                                      errs.ErrDigestInvalid,
		"GET /v2/a/blobs/" + strings.ToUpper(d):                       errs.ErrDigestInvalid,
		"GET /v2/a/blobs/" + d + "0":                                  errs.ErrDigestInvalid,
		"GET /v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e":        errs.ErrDigestInvalid,
		"GET /v2/a/referrers/x":                                       errs.ErrDigestInvalid,
		"POST /v2/a/blobs/uploads/?digest=x":                          errs.ErrDigestInvalid,
		"POST /v2/a/blobs/uploads/?mount=x&from=b":                    errs.ErrDigestInvalid,
		"POST /v2/a/blobs/uploads/?digest-algorithm=md5":              errs.ErrDigestInvalid,
		"POST /v2/a/blobs/uploads/?mount=" + d + "&from=../x":         errs.ErrNameInvalid,
		"PUT /v2/a/blobs/uploads/x":                                   errs.ErrDigestInvalid,
		"GET /v2/a/blobs/uploads/..":                                  errs.ErrUploadUnknown,
		"GET /v2/a/blobs/uploads/a%3db":                               errs.ErrUploadUnknown,
		"GET /v2/a/blobs/uploads/" + strings.Repeat("a", 129):         errs.ErrUploadUnknown,
		"GET /v2/a/tags/list?n=-1":                                    errs.ErrInvalid,
		"GET /v2/a/tags/list?n=+1":                                    errs.ErrInvalid,
		"GET /v2/a/tags/list?n=1&%zz":                                 errs.ErrInvalid,
		"GET /v2/a/tags/list?last=" + strings.Repeat("a", maxParam+1): errs.ErrInvalid,
		"POST /v2/":                  errs.ErrUnsupported,
		"POST /v2/a/tags/list":       errs.ErrUnsupported,
		"PUT /v2/a/blobs/" + d:       errs.ErrUnsupported,
		"GET /v2/a/blobs/uploads/":   errs.ErrUnsupported,
		"POST /v2/a/manifests/x":     errs.ErrUnsupported,
		"POST /v2/a/blobs/uploads/x": errs.ErrUnsupported,
	} {
		method, target, _ := strings.Cut(in, " ")
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(in, err)
		}
		r, err := Parse(method, u)
		if !errors.Is(err, want) || r != nil {
			t.Errorf("%.120s: %+v, %v, want %v", in, r, err, want)
		}
		var m *MethodError
		if errors.Is(want, errs.ErrUnsupported) && (!errors.As(err, &m) || len(m.Allow) == 0) {
			t.Errorf("%s: no Allow in %v", in, err)
		}
	}
}

func TestURLKeepsAPathBeforeV2(t *testing.T) {
	r := Request{Kind: TagList, Repo: "a", N: ptr(1)}
	got := r.URL(&url.URL{Scheme: "https", Host: "h", Path: "/proxy/", RawQuery: "x"}).String()
	if want := "https://h/proxy/v2/a/tags/list?n=1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestFinishURLKeepsTheLocationAsItIs(t *testing.T) {
	for in, want := range map[string]string{
		"https://h/v2/a/blobs/uploads/1":          "https://h/v2/a/blobs/uploads/1?digest=" + esc(sha256d),
		"https://h/u%2F1?_state=b/A+%2b~==&z&a=1": "https://h/u%2F1?_state=b/A+%2b~==&z&a=1&digest=" + esc(sha256d),
		"/v2/a/blobs/uploads/1?":                  "/v2/a/blobs/uploads/1?digest=" + esc(sha256d),
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := FinishURL(u, sha256d).String(); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

// Whatever is accepted is printed, and parsed again, as the same request.
func FuzzParse(f *testing.F) {
	for _, c := range requests {
		f.Add(c.req.Method(), c.req.String())
	}
	f.Add("GET", "/v2/a%2fb/manifests/%2e%2e?n=1;2")
	f.Fuzz(func(t *testing.T, method, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r, err := Parse(method, u)
		if (r == nil) == (err == nil) {
			t.Fatal(r, err)
		}
		if err != nil {
			if s, raw := WriteError(err); s < 400 || s >= 500 || len(raw) == 0 {
				t.Fatalf("bad input is status %d: %v", s, err)
			}
			return
		}
		if method == http.MethodHead {
			method = r.Method() // HEAD of what has no kind of its own
		}
		again, err := url.ParseRequestURI(r.String())
		if err != nil {
			t.Fatal(err)
		}
		r2, err := Parse(method, again)
		if err != nil {
			t.Fatalf("%s %s: %v", method, again, err)
		}
		if d := cmp.Diff(r, r2); d != "" {
			t.Fatal(fmt.Sprint(again), d)
		}
	})
}
