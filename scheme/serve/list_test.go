package serve

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/ref"
	"github.com/ocisync/ocisync/types/referrer"
)

// refers is a manifest that refers to a digest.
func refers(to, artifactType, note string) string {
	return image(`,"subject":{"mediaType":"` + typeImage + `","digest":"` + to + `","size":7},"artifactType":"` + artifactType + `","annotations":{"note":"` + note + `"}`)
}

// refer pushes n manifests that refer to a digest, of two types in turn, and returns their digests in order.
func (c *client) refer(repo, to string, n int, note string) (all []string) {
	c.t.Helper()
	c.push(repo, "{}")
	for i := range n {
		doc := refers(to, "application/"+[]string{"odd", "even"}[i%2], fmt.Sprint(note, i))
		all = append(all, sum(doc))
		c.want(201, "", "PUT", "/v2/"+repo+"/manifests/"+sum(doc), doc, header{"Content-Type": typeImage})
	}
	slices.Sort(all)
	return all
}

// walk follows the links from target to the end, and returns the digests of every page. between runs after each page.
func (c *client) walk(target string, filtered bool, between func(page int)) (pages [][]string) {
	c.t.Helper()
	for range 10000 {
		a := c.want(200, "", "GET", target, nil, nil)
		if filters := a.Header.Get("OCI-Filters-Applied"); (filters == "artifactType") != filtered || len(a.body) > types.MaxManifestSize/2 {
			c.t.Fatalf("%s: filters %q, %d bytes", target, filters, len(a.body))
		}
		all, err := referrer.ParseIndex([]byte(a.body), "")
		if err != nil {
			c.t.Fatal(err)
		}
		page := []string{}
		for _, d := range all {
			page = append(page, string(d.Digest))
		}
		pages = append(pages, page)
		next, more, err := ocihttp.Next(a.Header.Values("Link"), a.Request.URL)
		if err != nil {
			c.t.Fatal(err)
		}
		if !more {
			return pages
		}
		between(len(pages))
		target = next.RequestURI()
	}
	c.t.Fatal("the pages do not end")
	return nil
}

func TestPagesOfReferrers(t *testing.T) {
	overPlaces(t, func(t *testing.T, c *client) {
		subject := sum("subject")
		all := c.refer("a", subject, 7, "")
		c.refer("a", sum("another"), 3, "")
		c.refer("b", subject, 2, "of another repository ")
		none := func(int) {}
		pages := c.walk("/v2/a/referrers/"+subject, false, none)
		if len(pages) != 3 || len(pages[0]) != 3 || !slices.Equal(slices.Concat(pages...), all) {
			t.Errorf("pages of three: %d", len(pages))
		}
		pages = c.walk("/v2/a/referrers/"+subject+"?n=2", false, none)
		if len(pages) != 4 || !slices.Equal(slices.Concat(pages...), all) {
			t.Errorf("pages of two: %q", pages)
		}
		pages = c.walk("/v2/a/referrers/"+subject+"?artifactType=application/odd&n=1", true, none)
		if len(pages) != 4 || len(slices.Concat(pages...)) != 4 {
			t.Errorf("pages of one, filtered: %q", pages)
		}
		pages = c.walk("/v2/a/referrers/"+subject+"?n=0", false, none)
		if len(pages) != 1 || len(pages[0]) != 0 {
			t.Errorf("pages of none: %q", pages)
		}
		pages = c.walk("/v2/a/referrers/"+subject+"?n=99999999999999999999&last="+all[4], false, none)
		if !slices.Equal(slices.Concat(pages...), all[5:]) {
			t.Errorf("after the fifth: %q", pages)
		}
		for _, last := range []string{"zzz", "sha256:" + strings.Repeat("f", 64), "%0d%0a..%2f"} {
			c.want(200, "", "GET", "/v2/a/referrers/"+subject+"?last="+last, nil, nil).has(t, header{"OCI-Filters-Applied": ""})
		}
		c.want(400, "UNSUPPORTED", "GET", "/v2/a/referrers/"+subject+"?n=x", nil, nil)
		c.want(400, "DIGEST_INVALID", "GET", "/v2/a/referrers/sha256:x", nil, nil)
		c.want(200, "", "HEAD", "/v2/a/referrers/"+subject, nil, nil)
	}, WithMaxPage(3))
}

// TestReferrersThatComeWhilePagesAreRead: what was there all the time is listed once, whatever comes and goes.
func TestReferrersThatComeWhilePagesAreRead(t *testing.T) {
	overPlaces(t, func(t *testing.T, c *client) {
		subject := sum("subject")
		all := c.refer("a", subject, 12, "")
		deleted := map[string]bool{}
		pages := c.walk("/v2/a/referrers/"+subject+"?n=3", false, func(page int) {
			c.refer("a", subject, 2, fmt.Sprint("page ", page, " "))
			if gone := all[page*2]; !deleted[gone] {
				deleted[gone] = true
				c.want(202, "", "DELETE", "/v2/a/manifests/"+gone, nil, nil)
			}
		})
		seen := map[string]int{}
		for _, d := range slices.Concat(pages...) {
			seen[d]++
		}
		for _, d := range all {
			if seen[d] > 1 || seen[d] == 0 && !deleted[d] {
				t.Errorf("%s is listed %d times", d, seen[d])
			}
		}
	})
}

// TestManyReferrers: ten thousand of them, with annotations that no page holds all of, and a client of ours that reads all.
func TestManyReferrers(t *testing.T) {
	m := mem.New()
	c := start(t, m)
	c.push("a", "{}")
	subject := sum("subject")
	for i := range 10_000 {
		doc := refers(subject, "application/x", fmt.Sprintf("%d %s", i, strings.Repeat("<&>", 100)))
		mf, err := manifest.New([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.ManifestPut(t.Context(), root.WithRepo("a").WithDigest(mf.Digest()), mf); err != nil {
			t.Fatal(err)
		}
	}
	pages := c.walk("/v2/a/referrers/"+subject+"?artifactType=application/x", true, func(int) {})
	if n := len(slices.Concat(pages...)); n != 10_000 || len(pages) < 2 || len(pages) > 3 {
		t.Errorf("%d referrers in %d pages", n, len(pages))
	}
	r := ref.Ref{Scheme: ref.SchemeReg, Root: strings.TrimPrefix(c.srv.URL, "http://"), Repo: "a", Digest: digest.Digest(subject)}
	api := reg.New(reg.WithCredentials(func(context.Context, string) (reg.Credential, error) { return reg.Credential{}, nil }))
	defer api.Close()
	list, err := api.ReferrerList(t.Context(), r)
	if err != nil || len(list.Descriptors) != 10_000 {
		t.Errorf("reg lists %d, %v", len(list.Descriptors), err)
	}
}

// TestOurClientReadsEveryPage of tags, referrers and repositories, however short the pages are.
func TestOurClientReadsEveryPage(t *testing.T) {
	overPlaces(t, func(t *testing.T, c *client) {
		subject := sum("subject")
		for i := range 7 {
			c.putImage("a", fmt.Sprint("v", i), "")
			c.push(fmt.Sprint("r", i), "x")
		}
		refers := c.refer("a", subject, 7, "")
		r := ref.Ref{Scheme: ref.SchemeReg, Root: strings.TrimPrefix(c.srv.URL, "http://"), Repo: "a"}
		api := reg.New(reg.WithCredentials(func(context.Context, string) (reg.Credential, error) { return reg.Credential{}, nil }))
		defer api.Close()
		tags, err := api.TagList(t.Context(), r)
		if err != nil || len(tags.Tags) != 7 || tags.More {
			t.Errorf("tags: %v, %v", tags, err)
		}
		tags, err = api.TagList(t.Context(), r, scheme.WithTagLimit(5), scheme.WithTagLast("v0"))
		if err != nil || strings.Join(tags.Tags, " ") != "v1 v2 v3 v4 v5" || !tags.More {
			t.Errorf("five tags: %v, %v", tags, err)
		}
		list, err := api.ReferrerList(t.Context(), r.WithDigest(digest.Digest(subject)))
		if err != nil || len(list.Descriptors) != len(refers) {
			t.Errorf("referrers: %v, %v", list, err)
		}
		list, err = api.ReferrerList(t.Context(), r.WithDigest(digest.Digest(subject)), scheme.WithFilter(referrer.Filter{ArtifactType: "application/odd"}))
		if err != nil || len(list.Descriptors) != 4 {
			t.Errorf("odd referrers: %v, %v", list, err)
		}
		repos, err := scheme.ListRepos(t.Context(), api, r.Base())
		if err != nil || strings.Join(repos, " ") != "a r0 r1 r2 r3 r4 r5 r6" {
			t.Errorf("repositories: %q, %v", repos, err)
		}
	}, WithMaxPage(2))
}

// TestAReferrerThatFillsAPage: one that has more bytes than a page is a page of its own.
func TestAReferrerThatFillsAPage(t *testing.T) {
	c := start(t, mem.New())
	subject := sum("subject")
	all := c.refer("a", subject, 2, "")
	doc := refers(subject, "application/x", strings.Repeat("<", maxReferrers-100))
	c.want(201, "", "PUT", "/v2/a/manifests/"+sum(doc), doc, header{"Content-Type": typeImage})
	pages := c.walk("/v2/a/referrers/"+subject, false, func(int) {})
	if got := slices.Concat(pages...); len(got) != len(all)+1 || !slices.IsSorted(got) || len(pages) < 2 {
		t.Errorf("%d referrers in %d pages", len(got), len(pages))
	}
}

// TestFallbackTagsOfOlderClients: what such a tag lists is a referrer if it is there, and says so itself.
func TestFallbackTagsOfOlderClients(t *testing.T) {
	overPlaces(t, func(t *testing.T, c *client) {
		subject := sum("subject")
		all := c.refer("a", subject, 2, "")
		other := c.refer("a", sum("another"), 1, "")[0]
		plain := sum(c.putImage("a", "plain", ""))
		entry := func(d string) string {
			return `{"mediaType":"` + typeImage + `","digest":"` + d + `","size":0,"artifactType":"application/lie","annotations":{"note":"a lie"}}`
		}
		ix := `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[` + strings.Join([]string{entry(all[0]), entry(other), entry(plain), entry(sum("absent"))}, ",") + `]}`
		c.want(201, "", "PUT", "/v2/a/manifests/"+referrer.FallbackTag(digest.Digest(subject)), ix, header{"Content-Type": typeIndex})
		a := c.want(200, "", "GET", "/v2/a/referrers/"+subject, nil, nil)
		list, err := referrer.ParseIndex([]byte(a.body), "")
		if err != nil || len(list) != 2 || string(list[0].Digest) != all[0] || string(list[1].Digest) != all[1] || strings.Contains(a.body, "lie") {
			t.Errorf("got %s, want %q", a.body, all)
		}
		// Once the manifest is deleted the tag says nothing any more.
		c.want(202, "", "DELETE", "/v2/a/manifests/"+all[0], nil, nil)
		if a := c.want(200, "", "GET", "/v2/a/referrers/"+subject, nil, nil); strings.Contains(a.body, all[0]) || !strings.Contains(a.body, all[1]) {
			t.Errorf("after the delete: %s", a.body)
		}
	}, WithSparse())
}

func TestPagesOfTags(t *testing.T) {
	overPlaces(t, func(t *testing.T, c *client) {
		for _, tag := range []string{"a", "B", "c", "d", "_e"} {
			c.putImage("r", tag, "")
		}
		for query, want := range map[string]struct{ tags, link string }{
			"":                {"B _e", `</v2/r/tags/list?last=_e>; rel="next"`},
			"?last=_e":        {"a c", `</v2/r/tags/list?last=c>; rel="next"`},
			"?last=c":         {"d", ""},
			"?n=1&last=X":     {"_e", `</v2/r/tags/list?n=1&last=_e>; rel="next"`},
			"?n=5":            {"B _e", `</v2/r/tags/list?n=5&last=_e>; rel="next"`},
			"?n=0":            {"", ""},
			"?n=0&last=zzz":   {"", ""},
			"?n=2&last=c":     {"d", ""},
			"?n=2147483648":   {"B _e", `</v2/r/tags/list?n=2147483647&last=_e>; rel="next"`},
			"?n=1&last=zzz":   {"", ""},
			"?n=&last=":       {"B _e", `</v2/r/tags/list?last=_e>; rel="next"`},
			"?n=2&n=1&last=a": {"c d", ""},
		} {
			var got tags
			a := c.want(200, "", "GET", "/v2/r/tags/list"+query, nil, nil)
			decode(t, a.body, &got)
			if got.Tags == nil || strings.Join(got.Tags, " ") != want.tags || a.Header.Get("Link") != want.link {
				t.Errorf("%s: %s %v", query, a.body, a.Header["Link"])
			}
		}
		for _, query := range []string{"", "?n=0", "?n=1&last=x"} {
			c.want(404, "NAME_UNKNOWN", "GET", "/v2/none/tags/list"+query, nil, nil)
		}
		for _, query := range []string{"?n=-1", "?n=1e3", "?n=+1", "?n=%201", "?n=0x1", "?last=" + strings.Repeat("x", 5000)} {
			c.want(400, "UNSUPPORTED", "GET", "/v2/r/tags/list"+query, nil, nil)
		}
	}, WithMaxPage(2))
}

// counting counts the names that a place has listed.
type counting struct {
	*mem.Mem
	names *int
}

func (c counting) RepoList(ctx context.Context, r ref.Ref, last string, fn func(string) error) error {
	return c.Mem.RepoList(ctx, r, last, func(repo string) error {
		*c.names++
		return fn(repo)
	})
}

func (c counting) As(r ref.Ref, target any) bool {
	if t, ok := target.(*scheme.RepoLister); ok {
		*t = c
		return true
	}
	return scheme.AsAny(c.Mem, r, target)
}

// TestTheCatalogOfSeveralPlaces: merged, in order, page by page, without what another place hides or the subject may not
// read, and without listing much that is of no use.
func TestTheCatalogOfSeveralPlaces(t *testing.T) {
	m, listed := mem.New(), 0
	at := func(root, repo string) ref.Ref { return ref.Ref{Scheme: mem.Scheme, Root: root, Repo: repo} }
	c := startAt(t, counting{m, &listed}, at("main", ""),
		WithPlace(Place{Name: "hub", Root: at("hub", "")}), WithPlace(Place{Name: "team", Root: at("hub", "org/team")}),
		WithAuthorizer(hides("secret")), WithNamePattern(regexp.MustCompile(`[^0-9]+|hub/[nz][0-9]+`)))
	put := func(r ref.Ref) {
		if _, err := m.BlobPut(t.Context(), r, types.Descriptor{}, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []ref.Ref{
		at("main", "a"), at("main", "hub"), at("main", "hub/hidden"), at("main", "hub-x"), at("main", "team/hidden"), at("main", "z"), at("main", "secret"), at("main", "n7"),
		at("hub", "b"), at("hub", "org/team"), at("hub", "org/team/x"), at("hub", "org/team-x"), at("hub", "org/sea"), at("hub", "org/u"), at("hub", "secret"),
	} {
		put(r)
	}
	want := []string{"a", "hub-x", "hub/b", "hub/org/sea", "hub/org/team", "hub/org/team-x", "hub/org/team/x", "hub/org/u", "hub/secret", "team", "team/x", "z"}
	list := func(query string) (names []string, more bool) {
		t.Helper()
		var got struct{ Repositories []string }
		a := c.want(200, "", "GET", "/v2/_catalog"+query, nil, nil)
		decode(t, a.body, &got)
		if got.Repositories == nil {
			t.Errorf("%s: %s", query, a.body)
		}
		return got.Repositories, a.Header.Get("Link") != ""
	}
	if got, more := list(""); !slices.Equal(got, want) || more {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for n := range len(want) + 1 {
		got, more := list(fmt.Sprintf("?n=%d", n))
		if !slices.Equal(got, want[:n]) || more != (n > 0 && n < len(want)) {
			t.Errorf("n=%d: %q, %v", n, got, more)
		}
		for _, last := range []string{"", "!", "~", "/x"} { // next to the name, before and after
			if n == 0 {
				continue
			}
			after := want[n-1] + last
			i, found := slices.BinarySearch(want, after)
			if found {
				i++
			}
			if got, _ := list("?last=" + strings.ReplaceAll(after, "/", "%2F")); !slices.Equal(got, want[i:]) {
				t.Errorf("after %s: %q, want %q", after, got, want[i:])
			}
		}
	}
	for i := range 1000 {
		put(at("hub", fmt.Sprintf("n%04d", i)))
		put(at("hub", fmt.Sprintf("z%04d", i)))
	}
	for query, most := range map[string]int{"?n=2&last=hub/n0500": 20, "?last=team": 20, "?n=1&last=hub/org/t": 20, "?n=5&last=hub/org/t": 30} {
		listed = 0
		if list(query); listed > most {
			t.Errorf("%s: %d names are listed for it", query, listed)
		}
	}
}

// hides lets everybody do everything, but for one repository.
type hides string

func (h hides) Authorize(_ context.Context, c Context) error {
	if c.Repository == string(h) {
		return errs.ErrDenied
	}
	return nil
}

func TestACatalogThatFails(t *testing.T) {
	boom := errors.New("boom")
	start(t, listFails{mem.New(), boom}).want(500, "UNKNOWN", "GET", "/v2/_catalog", nil, nil)
	start(t, mem.New(), WithoutCatalog()).want(405, "UNSUPPORTED", "GET", "/v2/_catalog?n=1", nil, nil).has(t, header{"Allow": ""})
}

type listFails struct {
	*mem.Mem
	err error
}

func (l listFails) RepoList(context.Context, ref.Ref, string, func(string) error) error { return l.err }
