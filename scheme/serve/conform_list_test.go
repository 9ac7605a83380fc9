package serve_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocisync/ocisync/internal/ocihttp"
)

// referrers checks the lists of all subjects of a set, each with every filter.
func (w *wire) referrers(repo string, s *set) {
	w.t.Helper()
	want := map[digest.Digest][]v1.Descriptor{}
	for _, m := range s.manifests {
		if m.subject != nil {
			want[m.subject.Digest] = append(want[m.subject.Digest], m.Descriptor)
		}
		if want[m.Digest] == nil {
			want[m.Digest] = []v1.Descriptor{}
		}
	}
	for subject, all := range want {
		w.sameReferrers(repo, subject, "", all)
		for _, artifact := range []string{artifact1, artifact2, v1.MediaTypeImageConfig, "none/such"} {
			var some []v1.Descriptor
			for _, d := range all {
				if d.ArtifactType == artifact {
					some = append(some, d)
				}
			}
			w.sameReferrers(repo, subject, artifact, some)
		}
	}
}

func (w *wire) sameReferrers(repo string, subject digest.Digest, artifact string, want []v1.Descriptor) {
	w.t.Helper()
	target, applied := "/v2/"+repo+"/referrers/"+subject.String(), "OCI-Filters-Applied:"
	if artifact != "" {
		target += "?artifactType=" + url.QueryEscape(artifact)
		applied = "OCI-Filters-Applied: artifactType"
	}
	a := w.want("200", "GET", target, nil)
	w.has(a, "Content-Type: "+v1.MediaTypeImageIndex, applied)
	var x v1.Index
	if err := json.Unmarshal([]byte(a.body), &x); err != nil || x.SchemaVersion != 2 || x.MediaType != v1.MediaTypeImageIndex || x.Manifests == nil {
		w.t.Fatalf("%s: no index: %v %s", a.asked, err, a.body)
	}
	for _, d := range want {
		i := slices.IndexFunc(x.Manifests, func(e v1.Descriptor) bool { return e.Digest == d.Digest })
		if i < 0 {
			w.t.Errorf("%s: %s is missing", a.asked, d.Digest)
			continue
		}
		got, _ := json.Marshal(x.Manifests[i])
		if exp, _ := json.Marshal(d); string(got) != string(exp) {
			w.t.Errorf("%s: %s, want %s", a.asked, got, exp)
		}
	}
	if len(x.Manifests) != len(want) {
		w.t.Errorf("%s: %d entries, want %d", a.asked, len(x.Manifests), len(want))
	}
}

func TestConformPing(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		for _, target := range []string{"/v2/", "/v2"} {
			for _, method := range []string{"GET", "HEAD"} {
				w.has(w.want("200", method, target, nil), "Docker-Distribution-Api-Version: registry/2.0")
			}
		}
	})
}

// A repository that nothing was pushed to has no referrers, and never a 404 for them.
func TestConformRepositoriesWithoutContent(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.want("404 NAME_UNKNOWN", "GET", "/v2/never/pushed/tags/list", nil)
		w.sameReferrers("never/pushed", digest.FromString("x"), "", nil)
		w.sameReferrers("never/pushed", digest.SHA512.FromString("x"), artifact1, nil)
		w.push("pushed", "blob")
		w.sameReferrers("pushed", digest.FromString("x"), "", nil)
		for _, d := range []string{"sha256:x", "x", "sha256:" + strings.Repeat("A", 64), "md5:d41d8cd98f00b204e9800998ecf8427e"} {
			w.want("400 DIGEST_INVALID", "GET", "/v2/pushed/referrers/"+d, nil)
		}
	})
}

// tagged makes a repository with these tags on one image.
func (w *wire) tagged(repo string, tags ...string) {
	w.t.Helper()
	s := newSet()
	s.image(nil)
	w.pushBlobs(repo, s)
	m := s.manifests[0]
	for some := range slices.Chunk(tags, 10) { // ten at least must work
		a := w.want("201", "PUT", "/v2/"+repo+"/manifests/"+m.Digest.String()+"?tag="+strings.Join(some, "&tag="), m.raw, "Content-Type: "+m.MediaType)
		if got := len(ocihttp.List(a.res.Header.Values("OCI-Tag"))); got != len(some) {
			w.t.Errorf("%d tags of %d accepted", got, len(some))
		}
	}
}

func TestConformTagPages(t *testing.T) {
	all := []string{"0.9", "1.0", "1.0-rc1", "A", "B", "_x", "a", "a-b", "a.b", "a0", "a_b", "b", "latest"}
	each(t, func(t *testing.T, w *wire) {
		w.tagged(repo1, "latest", "b", "a", "A", "B", "1.0", "1.0-rc1", "0.9", "_x", "a-b", "a.b", "a0", "a_b")
		for query, want := range map[string][]string{
			"": all, "?last=": all, "?n=": all, "?n=13": all, "?n=14": all, "?n=1000000": all, "?n=9223372036854775808": all,
			"?n=99999999999999999999999999999": all, "?last=latest": nil, "?last=zzz": nil, "?last=A": all[4:], "?last=AA": all[4:],
			"?last=%00": all, "?last=../x": all[0:], "?last=b&n=5": all[12:], "?n=2&last=latest": nil,
		} {
			if want == nil {
				want = []string{}
			}
			w.has(w.tags(repo1, query, want...), "Link:")
		}
		w.has(w.tags(repo1, "?n=0"), "Link:")
		w.has(w.tags(repo1, "?n=0&last=a"), "Link:")
		for _, n := range []string{"-1", "x", "1x", "+1", "1.5", "0x1", "%00", "1e3"} {
			w.want("400", "GET", "/v2/"+repo1+"/tags/list?n="+n, nil)
		}
		for n := 1; n < len(all); n++ {
			w.pages(fmt.Sprintf("/v2/%s/tags/list?n=%d", repo1, n), all, n)
		}
	})
}

// pages follows the links of a list and checks each page.
func (w *wire) pages(target string, want []string, n int) {
	w.t.Helper()
	for target != "" {
		a := w.want("200", "GET", target, nil)
		var list struct{ Tags, Repositories []string }
		if err := json.Unmarshal([]byte(a.body), &list); err != nil {
			w.t.Fatal(err)
		}
		page := append(list.Tags, list.Repositories...)
		k := min(n, len(want))
		if !slices.Equal(page, want[:k]) {
			w.t.Fatalf("%s: %v, want %v", a.asked, page, want[:k])
		}
		want = want[k:]
		next, more, err := ocihttp.Next(a.res.Header.Values("Link"), &url.URL{Path: "/v2/"})
		if err != nil || more != (len(want) > 0) {
			w.t.Fatalf("%s: Link %q with %d entries to come, %v", a.asked, a.header("Link"), len(want), err)
		}
		if target = ""; more {
			target = next.String()
		}
		if link := a.header("Link"); more && (!strings.HasPrefix(link, "</v2/") || !strings.HasSuffix(link, `>; rel="next"`)) {
			w.t.Errorf("%s: Link %q", a.asked, link)
		}
	}
}

func TestConformCatalogPages(t *testing.T) {
	all := []string{"a", "a/b", "a/b/c", "b", "c-d", "c.d", "z/z"}
	each(t, func(t *testing.T, w *wire) {
		for _, repo := range all {
			w.tagged(repo, "x")
		}
		for n := 1; n <= len(all)+1; n++ {
			w.pages(fmt.Sprintf("/v2/_catalog?n=%d", n), slices.Sorted(slices.Values(all)), n)
		}
		for _, n := range []string{"-1", "x", "1.5"} {
			w.want("400", "GET", "/v2/_catalog?n="+n, nil)
		}
	})
}

// An upload that is not finished makes no repository.
func TestConformASessionMakesNoRepository(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		w.push("there", "x")
		at := w.want("202", "PATCH", w.session("not/yet"), "some bytes", octets).header("Location")
		w.want("400 DIGEST_INVALID", "PUT", with(at, "digest="+digest.FromString("other").String()), "")
		w.want("202", "POST", "/v2/not/yet/blobs/uploads/?mount="+digest.FromString("none").String()+"&from=there", "")
		w.want("400 DIGEST_INVALID", "POST", "/v2/not/yet/blobs/uploads/?digest="+digest.FromString("a").String(), "b")
		w.want("404 NAME_UNKNOWN", "GET", "/v2/not/yet/tags/list", nil)
		if a := w.want("200", "GET", "/v2/_catalog", nil); strings.Contains(a.body, "not/yet") {
			t.Errorf("the catalog lists it: %s", a.body)
		}
	})
}

// A list of referrers comes in pages when the client asks for that: each says which filter was applied, none repeats or
// leaves out an entry, and what is pushed or deleted meanwhile moves no other.
func TestConformReferrerPages(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		subject := bare(s.image(nil, "v1"))
		for i := range 7 {
			s.image(s.artifact([]string{artifact1, artifact2}[i%2], &subject))
		}
		w.pushBlobs(repo1, s)
		for _, m := range s.manifests {
			w.putManifest(repo1, s, m)
		}
		var ones, all []string
		for _, m := range s.manifests[1:] {
			all = append(all, m.Digest.String())
			if m.ArtifactType == artifact1 {
				ones = append(ones, m.Digest.String())
			}
		}
		at := "/v2/" + repo1 + "/referrers/" + subject.Digest.String()
		for n := 1; n <= 8; n++ {
			w.referrerPages(fmt.Sprintf("%s?n=%d", at, n), "", n, all)
			w.referrerPages(fmt.Sprintf("%s?n=%d&artifactType=%s", at, n, url.QueryEscape(artifact1)), "artifactType", n, ones)
		}
		for _, n := range []string{"-1", "x", "1.5"} {
			w.want("400", "GET", at+"?n="+n, nil)
		}
		first := w.want("200", "GET", at+"?n=3", nil)
		next, more, err := ocihttp.Next(first.res.Header.Values("Link"), &url.URL{})
		if err != nil || !more {
			t.Fatalf("no second page: %v %v", first.res.Header, err)
		}
		var x v1.Index
		if err := json.Unmarshal([]byte(first.body), &x); err != nil {
			t.Fatal(err)
		}
		w.want("202", "DELETE", "/v2/"+repo1+"/manifests/"+x.Manifests[2].Digest.String(), nil) // where the next page begins
		var rest []string
		for _, d := range all {
			if !slices.ContainsFunc(x.Manifests, func(e v1.Descriptor) bool { return e.Digest.String() == d }) {
				rest = append(rest, d)
			}
		}
		w.referrerPages(next.String(), "", 3, rest)
	})
}

// referrerPages follows the links of a list of referrers, whose entries must be those of want.
func (w *wire) referrerPages(target, filter string, n int, want []string) {
	w.t.Helper()
	var got []string
	for more := true; more; {
		a := w.want("200", "GET", target, nil)
		w.has(a, "OCI-Filters-Applied: "+filter, "Content-Type: "+v1.MediaTypeImageIndex)
		var x v1.Index
		if err := json.Unmarshal([]byte(a.body), &x); err != nil {
			w.t.Fatal(err)
		}
		for _, d := range x.Manifests {
			got = append(got, d.Digest.String())
		}
		next, ok, err := ocihttp.Next(a.res.Header.Values("Link"), &url.URL{})
		if err != nil || len(x.Manifests) > n || ok && len(x.Manifests) == 0 || len(got) > len(want) {
			w.t.Fatalf("%s: %d entries, Link %v, %v", a.asked, len(x.Manifests), a.res.Header["Link"], err)
		}
		if more = ok; more {
			target = next.String()
		}
	}
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		w.t.Errorf("%s: %v, want %v", target, got, want)
	}
}

// Thousands of tags are put a few hundred at a time, and listed whole and in pages of any length.
func TestConformManyTags(t *testing.T) {
	var all []string
	for i := range 2000 {
		all = append(all, fmt.Sprintf("t%05d", i*7%2000))
	}
	each(t, func(t *testing.T, w *wire) {
		s := newSet()
		s.image(nil)
		w.pushBlobs(repo1, s)
		m := s.manifests[0]
		for some := range slices.Chunk(all, 400) {
			a := w.want("201", "PUT", "/v2/"+repo1+"/manifests/"+m.Digest.String()+"?tag="+strings.Join(some, "&tag="), m.raw, "Content-Type: "+m.MediaType)
			if got := len(ocihttp.List(a.res.Header.Values("OCI-Tag"))); got != len(some) {
				t.Fatalf("%d tags of %d accepted", got, len(some))
			}
		}
		sorted := slices.Sorted(slices.Values(all))
		w.tags(repo1, "", sorted...)
		w.pages("/v2/"+repo1+"/tags/list?n=333", sorted, 333)
		w.want("202", "DELETE", "/v2/"+repo1+"/manifests/"+m.Digest.String(), nil)
		w.tags(repo1, "")
	})
}
