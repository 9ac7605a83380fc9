package ref_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

var (
	hex64  = strings.Repeat("a", 64)
	sha256 = "sha256:" + hex64
	sha512 = "sha512:" + hex64 + hex64
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in, out string
		want    ref.Ref
	}{
		{"alpine", "docker.io/library/alpine", ref.Ref{Scheme: "reg", Root: "docker.io", Repo: "library/alpine"}},
		{"alpine:3", "docker.io/library/alpine:3", ref.Ref{Scheme: "reg", Root: "docker.io", Repo: "library/alpine", Tag: "3"}},
		{"a/b", "docker.io/a/b", ref.Ref{Scheme: "reg", Root: "docker.io", Repo: "a/b"}},
		{"index.docker.io/a", "docker.io/library/a", ref.Ref{Scheme: "reg", Root: "docker.io", Repo: "library/a"}},
		{"localhost/a", "localhost/a", ref.Ref{Scheme: "reg", Root: "localhost", Repo: "a"}},
		{"HOST/a", "reg://host/a", ref.Ref{Scheme: "reg", Root: "host", Repo: "a"}},
		{"localhost:5000/a/b__c:v1.0@" + sha256, "localhost:5000/a/b__c:v1.0@" + sha256, ref.Ref{Scheme: "reg", Root: "localhost:5000", Repo: "a/b__c", Tag: "v1.0", Digest: digest.Digest(sha256)}},
		{"ghcr.io/a/b@" + sha512, "ghcr.io/a/b@" + sha512, ref.Ref{Scheme: "reg", Root: "ghcr.io", Repo: "a/b", Digest: digest.Digest(sha512)}},
		{"[::1]:5000/a", "[::1]:5000/a", ref.Ref{Scheme: "reg", Root: "[::1]:5000", Repo: "a"}},
		{"reg://example.com", "reg://example.com", ref.Ref{Scheme: "reg", Root: "example.com"}},
		{"reg://registry/a:1", "reg://registry/a:1", ref.Ref{Scheme: "reg", Root: "registry", Repo: "a", Tag: "1"}},
		{"ocidir:///srv/x", "ocidir:///srv/x", ref.Ref{Scheme: "ocidir", Root: "/srv/x"}},
		{"ocidir://./m/:v1", "ocidir://m:v1", ref.Ref{Scheme: "ocidir", Root: "m", Tag: "v1"}},
		{"ocidir://../m@" + sha256, "ocidir://../m@" + sha256, ref.Ref{Scheme: "ocidir", Root: "../m", Digest: digest.Digest(sha256)}},
		{"ocidir:///a%3Ab/c%40d:t", "ocidir:///a%3Ab/c%40d:t", ref.Ref{Scheme: "ocidir", Root: "/a:b/c@d", Tag: "t"}},
		{"ocidir:///a:b/c", "ocidir:///a%3Ab/c", ref.Ref{Scheme: "ocidir", Root: "/a:b/c"}},
		{"ocidir://100%/ä ö:t", "ocidir://100%25/ä ö:t", ref.Ref{Scheme: "ocidir", Root: "100%/ä ö", Tag: "t"}},
		{`ocidir://C:\imgs\a:v1`, "ocidir://C:/imgs/a:v1", ref.Ref{Scheme: "ocidir", Root: "C:/imgs/a", Tag: "v1"}},
		{"ocidir://C:/imgs/a", "ocidir://C:/imgs/a", ref.Ref{Scheme: "ocidir", Root: "C:/imgs/a"}},
		{"ocidir://c:", "ocidir://c:", ref.Ref{Scheme: "ocidir", Root: "c:"}},
		{"ocidir://c:v1", "ocidir://c:v1", ref.Ref{Scheme: "ocidir", Root: "c", Tag: "v1"}},
		{"s3://bucket/x:1", "s3://bucket/x:1", ref.Ref{Scheme: "s3", Root: "bucket/x", Tag: "1"}},
	} {
		got, err := ref.Parse(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if got != c.want {
			t.Errorf("%s:\ngot  %#v\nwant %#v", c.in, got, c.want)
		}
		if s := got.String(); s != c.out {
			t.Errorf("%s: prints %s, want %s", c.in, s, c.out)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: parsed, but invalid: %v", c.in, err)
		}
	}
}

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "empty",
		"Alpine":                       `"A" is not allowed`,
		"a//b":                         "empty component",
		"example.com/":                 "repository is missing",
		"example.com/a:":               "tag is empty",
		"example.com/a:-x":             `"-" is not allowed at byte 1`,
		"example.com/a:x/y@sha256":     "at byte 19: invalid digest",
		"a@sha256:abc":                 "at byte 3: invalid digest",
		"a@" + strings.ToUpper(sha256): "invalid digest",
		"bad_host!:99999/a":            `is not a host`,
		"host:99999/a":                 `"host:99999" is not a host`,
		"-/a":                          "begins or ends with a separator",
		"a..b/c":                       "is not",
		"Reg://x":                      "a scheme is lower-case",
		"://x":                         "a scheme is",
		"reg://":                       "needs a host",
		"reg://h@" + sha256:            "needs a host",
		"ocidir://":                    "path is missing",
		"ocidir://:tag":                "path is missing",
		"ocidir://a:b c":               `" " is not allowed at byte 2`,
		"ocidir://a\x00b":              "control characters",
		"ocidir://a%00b":               "%00 is not allowed",
		strings.Repeat("a", 5000):      "more than 4096",
		"example.com/../x":             "separator",
	} {
		r, err := ref.Parse(in)
		if err == nil {
			t.Errorf("%q: parsed as %#v", in, r)
			continue
		}
		if !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v is not ErrInvalid", in, err)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q does not say %q", in, err, want)
		}
	}
}

func TestPlaceIsIndependentOfItsDivision(t *testing.T) {
	whole := ref.MustParse("ocidir:///srv/library/alpine:3")
	divided := ref.MustParse("ocidir:///srv").WithRepo("library/alpine").WithTag("3")
	if !ref.SamePlace(whole, divided) || whole.String() != divided.String() {
		t.Errorf("%s and %s are not the same place", whole, divided)
	}
	if got := ref.MustParse("ocidir:///").WithRepo("a").Path(); got != "/a" {
		t.Errorf("Path below the root folder = %s", got)
	}
	if got := whole.Base(); got.Repo != "" || got.Tag != "" {
		t.Errorf("Base = %#v", got)
	}
}

func TestReference(t *testing.T) {
	r := ref.MustParse("example.com/a")
	if r.Reference() != "latest" || r.OrLatest().Tag != "latest" || r.Tag != "" {
		t.Error("a reference without tag means latest where one is needed, and only there")
	}
	if got := r.WithTag("x").WithDigest(ref.MustParse("a@" + sha256).Digest); got.Tag != "" || got.Reference() != sha256 {
		t.Errorf("WithDigest keeps the tag: %#v", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"alpine", "localhost:5000/a/b:t@" + sha256, "ocidir:///a%3Ab:t", `ocidir://C:\x:v`, "reg://h/a", "s3://b/c%2540",
		"ocidir://a@b", "ocidir://%", "reg://H", "a:b/c", "[::1]/x", "ocidir://C:", "X://", "ocidir://a/..", "ocidir://c%3a/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ref.Parse(s)
		if err != nil {
			if !errors.Is(err, errs.ErrInvalid) {
				t.Fatalf("%q: %v is not ErrInvalid", s, err)
			}
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("%q parses as %#v, which is invalid: %v", s, r, err)
		}
		again, err := ref.Parse(r.String())
		if err != nil {
			t.Fatalf("%q parses, but what it prints, %q, does not: %v", s, r, err)
		}
		if again != r {
			t.Fatalf("%q:\nparsed  %#v\nprinted %q\nparsed  %#v", s, r, r, again)
		}
	})
}
