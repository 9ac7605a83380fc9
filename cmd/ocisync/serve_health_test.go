package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ping"
	"github.com/ocisync/ocisync/types/ref"
)

// pinged is a place whose Ping answers what the test wants, and counts.
type pinged struct {
	scheme.API
	mu     sync.Mutex
	err    error
	result ping.Result
	asked  int
	hold   chan struct{} // nil, or what a Ping waits for
}

func (p *pinged) Ping(ctx context.Context, _ ref.Ref, _ ...scheme.PingOption) (ping.Result, error) {
	p.mu.Lock()
	p.asked++
	err := p.err
	p.mu.Unlock()
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-ctx.Done():
			return ping.Result{}, ctx.Err()
		}
	}
	return p.result, err
}

func (p *pinged) answer(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func TestHealth(t *testing.T) {
	place := &pinged{API: mem.New()}
	behind := 0
	h := newHealth(place, []served{{Place: serve.Place{Root: ref.MustParse("mem://x")}}}, false, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { behind++ }))
	get := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	status := func(what, path string, want int) {
		t.Helper()
		if w := get(http.MethodGet, path); w.Code != want || w.Body.Len() == 0 || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s answers %d %q, want %d", what, path, w.Code, w.Body, want)
		}
	}
	forget := func() { h.last.Store(nil) } // as after readyFor
	status("at first", "/readyz", http.StatusOK)
	status("asked again", "/readyz", http.StatusOK)
	if place.asked != 1 {
		t.Errorf("two questions in a moment cost %d of the place, want 1", place.asked)
	}
	place.answer(errs.ErrUnavailable)
	forget()
	status("without its place", "/readyz", http.StatusServiceUnavailable)
	status("without its place", "/livez", http.StatusOK)
	place.answer(errs.ErrClobber)
	forget()
	status("with files beside the layouts", "/readyz", http.StatusOK)
	h.stopping.Store(true)
	status("while it stops", "/readyz", http.StatusServiceUnavailable)
	status("while it stops", "/livez", http.StatusOK)
	if w := get(http.MethodHead, "/livez"); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d %q", w.Code, w.Body)
	}
	if w := get(http.MethodPost, "/livez"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
	for _, path := range []string{"/v2/", "/", "/livez/", "/v2/livez/manifests/readyz"} {
		get(http.MethodGet, path)
	}
	if behind != 4 {
		t.Errorf("%d of 4 requests reached the registry", behind)
	}
}

// TestManyWhoAskForHealthAskOnce: a place that answers slowly is not asked by everybody who waits, and not given up
// when the first of them goes.
func TestManyWhoAskForHealthAskOnce(t *testing.T) {
	place := &pinged{API: mem.New(), hold: make(chan struct{})}
	h := newHealth(place, []served{{Place: serve.Place{Root: ref.MustParse("mem://x")}}}, false, http.NotFoundHandler())
	gone, leave := context.WithCancel(t.Context())
	answers := make(chan bool, 20)
	for i := range 20 {
		ctx := t.Context()
		if i == 0 {
			ctx = gone
		}
		go func() { answers <- h.ready(ctx) }()
	}
	leave()
	close(place.hold)
	for range 20 {
		select {
		case ok := <-answers:
			if !ok {
				t.Error("somebody was told that the place cannot be used")
			}
		case <-time.After(scriptPatience):
			t.Fatal("no answer")
		}
	}
	place.mu.Lock()
	defer place.mu.Unlock()
	if place.asked != 1 {
		t.Errorf("the place was asked %d times", place.asked)
	}
}

// TestDirectoryIsReady while it is there, and can be written where somebody may push.
func TestDirectoryIsReady(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	for name, c := range map[string]struct {
		place             string
		writable          bool
		readOnly, allRead bool
		err               error
		want              int
	}{
		"written":           {place: dir, writable: true, want: 200},
		"gone":              {place: dir + "/gone", writable: true, want: 503},
		"gone, and read":    {place: dir + "/gone", allRead: true, want: 503},
		"not to be written": {place: dir, want: 503},
		"only read":         {place: dir, readOnly: true, want: 200},
		"all only read":     {place: dir, allRead: true, want: 200},
		"foreign files":     {place: dir, err: errs.ErrClobber, want: 200},
		"damaged":           {place: dir, writable: true, err: errs.ErrCorrupt, want: 503},
	} {
		api := &pinged{API: mem.New(), err: c.err, result: ping.Result{Writable: c.writable}}
		p := served{Place: serve.Place{Root: ref.MustParse("ocidir://" + c.place), ReadOnly: c.readOnly}}
		w := httptest.NewRecorder()
		newHealth(api, []served{p}, c.allRead, http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if w.Code != c.want {
			t.Errorf("%s: status %d, want %d", name, w.Code, c.want)
		}
	}
}
