package reg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// tagServer lists tags in the order given, some on each page.
type tagServer struct {
	tags                []string
	page                int // the most that is on one page
	ignoreN, ignoreLast bool
}

func (s tagServer) handle(w http.ResponseWriter, r *http.Request, _ int) {
	q := r.URL.Query()
	rest := s.tags
	if last := q.Get("last"); last != "" && !s.ignoreLast {
		rest = nil
		for i, t := range s.tags {
			if t > last {
				rest = s.tags[i:]
				break
			}
		}
	}
	if skip, err := strconv.Atoi(q.Get("skip")); err == nil {
		rest = s.tags[skip:]
	}
	n := s.page
	if v, err := strconv.Atoi(q.Get("n")); err == nil && !s.ignoreN {
		n = min(n, v)
	}
	if len(rest) > n {
		rest = rest[:n]
		q.Set("skip", strconv.Itoa(slices.Index(s.tags, rest[n-1])+1))
		w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`)
	}
	raw, _ := json.Marshal(map[string]any{"name": "a", "tags": rest})
	_, _ = w.Write(raw)
}

func TestTagList(t *testing.T) {
	sorted := []string{"B", "a", "b", "c", "d"}
	mixed := []string{"d", "a", "c", "B", "b"}
	for name, tc := range map[string]struct {
		server   tagServer
		opts     []scheme.TagListOption
		want     []string
		more     bool
		requests int
	}{
		"all":                         {tagServer{tags: sorted, page: 10}, nil, sorted, false, 1},
		"all, over pages":             {tagServer{tags: sorted, page: 2}, nil, sorted, false, 3},
		"all, in another order":       {tagServer{tags: mixed, page: 2}, nil, sorted, false, 3},
		"none":                        {tagServer{page: 2}, nil, []string{}, false, 1},
		"limit":                       {tagServer{tags: sorted, page: 10}, []scheme.TagListOption{scheme.WithTagLimit(2)}, sorted[:2], true, 1},
		"limit, as many as there are": {tagServer{tags: sorted, page: 10}, []scheme.TagListOption{scheme.WithTagLimit(5)}, sorted, false, 1},
		"limit over smaller pages":    {tagServer{tags: sorted, page: 1}, []scheme.TagListOption{scheme.WithTagLimit(2)}, sorted[:2], true, 3},
		"limit zero":                  {tagServer{tags: sorted, page: 10}, []scheme.TagListOption{scheme.WithTagLimit(0)}, []string{}, false, 1},
		"limit, which is ignored":     {tagServer{tags: sorted, page: 10, ignoreN: true}, []scheme.TagListOption{scheme.WithTagLimit(2)}, sorted[:2], true, 1},
		"last":                        {tagServer{tags: sorted, page: 10}, []scheme.TagListOption{scheme.WithTagLast("a")}, sorted[2:], false, 1},
		"last, which does not exist":  {tagServer{tags: sorted, page: 10}, []scheme.TagListOption{scheme.WithTagLast("aa")}, sorted[2:], false, 1},
		"last, which is ignored":      {tagServer{tags: sorted, page: 10, ignoreLast: true}, []scheme.TagListOption{scheme.WithTagLast("a")}, sorted[2:], false, 2},
		"a page in another order":     {tagServer{tags: mixed, page: 2}, []scheme.TagListOption{scheme.WithTagLimit(2)}, sorted[:2], true, 4},
		"twice the same":              {tagServer{tags: []string{"a", "b", "b"}, page: 10}, nil, []string{"a", "b"}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.server.handle)
			got, err := newTest(t).TagList(t.Context(), s.ref("a"), tc.opts...)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, append([]string{}, got.Tags...)); d != "" || got.More != tc.more {
				t.Errorf("more is %v (-want +got):\n%s", got.More, d)
			}
			if n := len(s.requests()); n != tc.requests {
				t.Errorf("%d requests, want %d: %q", n, tc.requests, s.requests())
			}
		})
	}
}

// What is wrong with a list is an error and not a shorter list.
func TestHostileLists(t *testing.T) {
	for name, tc := range map[string]struct {
		handle func(w http.ResponseWriter, r *http.Request, n int)
		want   error
	}{
		"not there": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			answer(w, 404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`)
		}, errs.ErrNameUnknown},
		"not JSON": {func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 200, "<html>") }, errs.ErrUnavailable},
		"not a tag": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			answer(w, 200, `{"tags":["../../etc"],"repositories":["../../etc"]}`)
		}, errs.ErrUnavailable},
		"pages in a circle": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			answer(w, 200, `{"tags":["a"],"repositories":["a"]}`, "Link", `</v2/a/tags/list?last=a>; rel="next"`)
		}, errs.ErrUnavailable},
		"a next page elsewhere": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			answer(w, 200, `{"tags":["a"],"repositories":["a"]}`, "Link", `<http://127.0.0.1:1/steal>; rel="next"`)
		}, errs.ErrDenied},
		"a page that does not end": {func(w http.ResponseWriter, _ *http.Request, _ int) {
			chunk := strings.Repeat(`"a",`, 1<<15)
			_, err := io.WriteString(w, `{"tags":[`)
			for err == nil {
				_, err = io.WriteString(w, chunk)
			}
		}, errs.ErrSizeInvalid},
		"a page that fails": {func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 1 {
				answer(w, 200, `{"tags":["a"],"repositories":["a"]}`, "Link", `</v2/next>; rel="next"`)
				return
			}
			answer(w, 403, "")
		}, errs.ErrDenied},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.handle)
			if l, err := newTest(t).TagList(t.Context(), s.ref("a")); !errors.Is(err, tc.want) || len(l.Tags) != 0 {
				t.Errorf("tags: got %v, %v, want %v", l.Tags, err, tc.want)
			}
			if tc.want == errs.ErrNameUnknown { // a registry without a catalog is not one without repositories
				tc.want = errs.ErrUnsupported
			}
			s = newScript(t, tc.handle)
			if l, err := scheme.ListRepos(t.Context(), newTest(t), s.ref("")); !errors.Is(err, tc.want) || len(l) != 0 {
				t.Errorf("repositories: got %v, %v, want %v", l, err, tc.want)
			}
		})
	}
}

func TestRepoList(t *testing.T) {
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Query().Get("last") == "" {
			answer(w, 200, `{"repositories":["z/z","b"]}`, "Link", `</v2/_catalog?last=b>; rel="next"`)
			return
		}
		answer(w, 200, `{"repositories":["a/b","b"]}`)
	})
	api := newTest(t)
	got, err := scheme.ListRepos(t.Context(), api, s.ref("ignored"))
	if err != nil || !slices.Equal(got, []string{"a/b", "b", "z/z"}) {
		t.Errorf("got %q, %v", got, err)
	}
	var after []string
	err = api.RepoList(t.Context(), s.ref(""), "a/b", func(name string) error {
		after = append(after, name)
		return io.EOF
	})
	if err != nil || !slices.Equal(after, []string{"b"}) {
		t.Errorf("got %q, %v", after, err)
	}
}

func TestPing(t *testing.T) {
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if _, _, ok := r.BasicAuth(); !ok && r.Host != "" && r.URL.Query().Get("open") == "" {
			answer(w, 401, "", "WWW-Authenticate", "Basic")
			return
		}
		answer(w, 200, "{}", "Docker-Distribution-Api-Version", "registry/2.0")
	})
	got, err := newTest(t, WithHost(s.host(), Host{Username: "u", Password: "p"})).Ping(t.Context(), s.ref("a"))
	if err != nil || !got.Exists || !got.Writable || !got.Authenticated || got.APIVersion != "registry/2.0" {
		t.Errorf("got %+v, %v", got, err)
	}
	s.want("GET /v2/", "GET /v2/")
	if _, err := newTest(t).Ping(t.Context(), s.ref("a")); !errors.Is(err, errs.ErrUnauthorized) {
		t.Errorf("got %v", err)
	}
	web := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 404, "") })
	if _, err := newTest(t).Ping(t.Context(), web.ref("a")); !errors.Is(err, errs.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	gone := ref.Ref{Scheme: ref.SchemeReg, Root: "127.0.0.1:1"}
	if _, err := newTest(t).Ping(t.Context(), gone); !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
}
