package reg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ocisync/ocisync/internal/ocihttp"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/manifest"
	"github.com/ocisync/ocisync/types/referrer"
)

func index(t *testing.T, list ...types.Descriptor) string {
	t.Helper()
	raw, err := referrer.Index(list)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func entry(t *testing.T, m *manifest.Manifest) types.Descriptor {
	t.Helper()
	d, _, ok, err := referrer.Describe(m)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return d
}

func TestReferrerList(t *testing.T) {
	subject := image(t, "subject")
	one, two := entry(t, image(t, "one", subject.Descriptor())), entry(t, image(t, "two", subject.Descriptor()))
	two.ArtifactType = "application/other"
	api := "GET /v2/a/referrers/" + string(subject.Digest())
	tag := "GET /v2/a/manifests/" + referrer.FallbackTag(subject.Digest())
	type reply struct {
		status int
		body   string
	}
	ok := func(list ...types.Descriptor) reply { return reply{200, index(t, list...)} }
	missing := reply{404, "404 page not found"}
	for name, tc := range map[string]struct {
		api, tag reply
		want     []types.Descriptor
		err      error
		requests []string // of two lists
	}{
		"from the API":               {ok(one, two), reply{}, []types.Descriptor{one, two}, nil, []string{api, api}},
		"none, says the API":         {ok(), reply{}, []types.Descriptor{}, nil, []string{api, api}},
		"each once":                  {ok(one, two, one), reply{}, []types.Descriptor{one, two}, nil, []string{api, api}},
		"from the tag":               {missing, ok(one), []types.Descriptor{one}, nil, []string{api, tag, tag}},
		"no API and no tag":          {missing, missing, []types.Descriptor{}, nil, []string{api, tag, tag}},
		"the API may yet come":       {reply{404, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`}, missing, []types.Descriptor{}, nil, []string{api, tag, api, tag}},
		"no repository":              {reply{404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`}, reply{404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`}, nil, errs.ErrNameUnknown, []string{api, tag, api, tag}},
		"denied is not none":         {reply{403, ""}, ok(one), nil, errs.ErrDenied, []string{api, api}},
		"bad request is not none":    {reply{400, ""}, ok(one), nil, errs.ErrInvalid, []string{api, api}},
		"not allowed is not none":    {reply{405, ""}, ok(one), nil, errs.ErrUnsupported, []string{api, api}},
		"a page of HTML":             {reply{200, "<html>"}, ok(one), nil, errs.ErrManifestInvalid, []string{api, api}},
		"the subject itself":         {missing, reply{200, string(subject.Raw())}, nil, errs.ErrManifestInvalid, []string{api, tag, tag}},
		"an image in its place":      {missing, reply{200, string(image(t, "x").Raw())}, nil, errs.ErrManifestInvalid, []string{api, tag, tag}},
		"a digest that is none":      {reply{200, `{"schemaVersion":2,"mediaType":"` + types.MediaTypeImageIndex + `","manifests":[{"digest":"sha256:../x","size":1}]}`}, missing, nil, errs.ErrManifestInvalid, []string{api, api}},
		"a tag that may not be read": {missing, reply{403, ""}, nil, errs.ErrDenied, []string{api, tag, tag}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				rep := tc.api
				if strings.Contains(r.URL.Path, "/manifests/") {
					rep = tc.tag
				}
				answer(w, rep.status, rep.body, "Content-Type", types.MediaTypeImageIndex)
			})
			client := newTest(t)
			for range 2 {
				got, err := client.ReferrerList(t.Context(), s.ref("a").WithDigest(subject.Digest()))
				if !errors.Is(err, tc.err) {
					t.Fatalf("got %v, want %v", err, tc.err)
				}
				if err == nil && (!sameList(got.Descriptors, tc.want) || got.Subject.Digest != subject.Digest()) {
					t.Errorf("got %v", got)
				}
			}
			s.want(tc.requests...)
		})
	}
	for _, status := range []int{429, 500, 502, 503} {
		t.Run(fmt.Sprintf("a %d is not none, now or later", status), func(t *testing.T) {
			broken := true
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				switch {
				case strings.Contains(r.URL.Path, "/manifests/"):
					t.Error("the fallback tag was read")
				case broken:
					answer(w, status, "")
				default:
					answer(w, 200, index(t, one))
				}
			})
			client := newTest(t)
			r := s.ref("a").WithDigest(subject.Digest())
			if _, err := client.ReferrerList(t.Context(), r); err == nil {
				t.Error("no error")
			}
			broken = false
			if got, err := client.ReferrerList(t.Context(), r); err != nil || len(got.Descriptors) != 1 {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	t.Run("pages and a filter that the registry ignores", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 1 {
				answer(w, 200, index(t, one), "Link", `<?page=2>; rel="next"`)
				return
			}
			answer(w, 200, index(t, two))
		})
		got, err := newTest(t).ReferrerList(t.Context(), s.ref("a").WithDigest(subject.Digest()), scheme.WithFilter(referrer.Filter{ArtifactType: two.ArtifactType}))
		if err != nil || !sameList(got.Descriptors, []types.Descriptor{two}) {
			t.Errorf("got %v, %v", got, err)
		}
		s.want(api+"?artifactType=application%2Fother", api+"?page=2")
	})
	t.Run("a tag that does not exist", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 404, "") })
		if _, err := newTest(t).ReferrerList(t.Context(), s.ref("a").WithTag("v1")); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		s.want("HEAD /v2/a/manifests/v1")
	})
}

// noAPI is a registry without a referrers API: it keeps manifests by tag and digest.
type noAPI struct {
	mu   sync.Mutex
	held map[string][]byte
	// overwrite is called after a put of a tag, for another writer who comes in between.
	overwrite func(held map[string][]byte, tag string)
}

func (n *noAPI) handle(w http.ResponseWriter, r *http.Request, _ int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	switch r.Method {
	case http.MethodPut:
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		n.held[name] = raw
		n.held[string(digest.FromBytes(raw))] = raw
		if n.overwrite != nil && strings.HasPrefix(name, "sha256-") {
			n.overwrite(n.held, name)
		}
		answer(w, 201, "")
	case http.MethodDelete:
		delete(n.held, name)
		answer(w, 202, "")
	default:
		raw, ok := n.held[name]
		if !ok || strings.Contains(r.URL.Path, "/referrers/") {
			answer(w, 404, "")
			return
		}
		w.Header().Set("Content-Type", "application/json") // the document knows
		_, _ = w.Write(raw)
	}
}

func TestFallbackTagIsMaintained(t *testing.T) {
	subject := image(t, "subject")
	tag := referrer.FallbackTag(subject.Digest())
	sig := image(t, "sig", subject.Descriptor())
	put := func(t *testing.T, n *noAPI) (*script, *Reg, manifest.PutResult, error) {
		if n.held == nil {
			n.held = map[string][]byte{}
		}
		s := newScript(t, n.handle)
		api := newTest(t)
		got, err := api.ManifestPut(t.Context(), s.ref("a").WithDigest(sig.Digest()), sig)
		return s, api, got, err
	}
	t.Run("read, written and read again", func(t *testing.T) {
		s, api, got, err := put(t, &noAPI{})
		if err != nil || got.SubjectDone {
			t.Fatalf("got %+v, %v", got, err)
		}
		at := "/v2/a/manifests/" + tag
		s.want("PUT /v2/a/manifests/"+string(sig.Digest()), "GET "+at, "PUT "+at, "GET "+at)
		list, err := api.ReferrerList(t.Context(), s.ref("a").WithDigest(subject.Digest()))
		if err != nil || !sameList(list.Descriptors, []types.Descriptor{entry(t, sig)}) {
			t.Errorf("got %v, %v", list, err)
		}
		if d := list.Descriptors[0]; d.ArtifactType == "" || d.Annotations["name"] != "sig" {
			t.Errorf("entry %v lacks what the specification asks for", d)
		}
	})
	t.Run("not where the registry does it", func(t *testing.T) {
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
			answer(w, 201, "", ocihttp.HeaderSubject, string(subject.Digest()))
		})
		got, err := newTest(t).ManifestPut(t.Context(), s.ref("a").WithDigest(sig.Digest()), sig)
		if err != nil || !got.SubjectDone {
			t.Errorf("got %+v, %v", got, err)
		}
		s.want("PUT /v2/a/manifests/" + string(sig.Digest()))
	})
	t.Run("what others have listed stays", func(t *testing.T) {
		other := entry(t, image(t, "other", subject.Descriptor()))
		n := &noAPI{held: map[string][]byte{tag: []byte(index(t, other))}}
		if _, _, _, err := put(t, n); err != nil {
			t.Fatal(err)
		}
		if list, err := referrer.ParseIndex(n.held[tag], ""); err != nil || !sameList(list, []types.Descriptor{other, entry(t, sig)}) {
			t.Errorf("got %v, %v", list, err)
		}
	})
	t.Run("what is listed already is not written", func(t *testing.T) {
		s, _, _, err := put(t, &noAPI{held: map[string][]byte{tag: []byte(index(t, entry(t, sig)))}})
		if n := len(s.requests()); err != nil || n != 2 {
			t.Errorf("%q, %v", s.requests(), err)
		}
	})
	t.Run("another writer's overwriting is repaired", func(t *testing.T) {
		other := index(t, entry(t, image(t, "other", subject.Descriptor())))
		times := 0
		n := &noAPI{overwrite: func(held map[string][]byte, tag string) {
			if times++; times <= 2 {
				held[tag] = []byte(other)
			}
		}}
		if _, _, _, err := put(t, n); err != nil {
			t.Fatal(err)
		}
		if list, err := referrer.ParseIndex(n.held[tag], ""); err != nil || len(list) != 2 {
			t.Errorf("got %v, %v", list, err)
		}
	})
	t.Run("a writer that always overwrites is an error", func(t *testing.T) {
		other := index(t)
		_, _, got, err := put(t, &noAPI{overwrite: func(held map[string][]byte, tag string) { held[tag] = []byte(other) }})
		if !errors.Is(err, errs.ErrUnavailable) || got.Descriptor.Digest != sig.Digest() {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("the subject at the tag is left alone", func(t *testing.T) { // GitLab resolves the tag as the digest
		n := &noAPI{held: map[string][]byte{tag: subject.Raw()}}
		s, _, _, err := put(t, n)
		if !errors.Is(err, errs.ErrManifestInvalid) {
			t.Errorf("got %v", err)
		}
		if string(n.held[tag]) != string(subject.Raw()) || slices.ContainsFunc(s.requests(), func(l string) bool { return strings.HasPrefix(l, "DELETE") }) {
			t.Errorf("the subject was touched: %q", s.requests())
		}
	})
	t.Run("writers of one process lose nothing", func(t *testing.T) {
		n := &noAPI{held: map[string][]byte{}}
		s := newScript(t, n.handle)
		api := newTest(t)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				m := image(t, fmt.Sprint(i), subject.Descriptor())
				if _, err := api.ManifestPut(t.Context(), s.ref("a").WithDigest(m.Digest()), m); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if list, err := referrer.ParseIndex(n.held[tag], ""); err != nil || len(list) != 8 {
			t.Errorf("got %d, %v", len(list), err)
		}
	})
	t.Run("a delete takes its entry out, and deletes nothing else", func(t *testing.T) {
		n := &noAPI{}
		s, api, _, err := put(t, n)
		if err != nil {
			t.Fatal(err)
		}
		if err := api.ManifestDelete(t.Context(), s.ref("a").WithDigest(sig.Digest()), scheme.WithReferrerCleanup()); err != nil {
			t.Fatal(err)
		}
		if list, err := referrer.ParseIndex(n.held[tag], ""); err != nil || len(list) != 0 {
			t.Errorf("got %v, %v", list, err)
		}
		deletes := slices.DeleteFunc(s.requests(), func(l string) bool { return !strings.HasPrefix(l, "DELETE") })
		if !slices.Equal(deletes, []string{"DELETE /v2/a/manifests/" + string(sig.Digest())}) {
			t.Errorf("deleted %q", deletes)
		}
	})
}

func TestKeyedMutex(t *testing.T) {
	var k keyedMutex
	unlock, err := k.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := k.lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	unlock()
	if len(k.locks) != 0 {
		t.Errorf("%d locks are kept that nobody uses", len(k.locks))
	}
}
