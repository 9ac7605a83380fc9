package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// health stands before a registry and answers what those ask who watch over the process: /livez, whether it lives, and
// /readyz, whether it can be used. Neither says why not: that is for the log, as anybody may ask.
type health struct {
	next     http.Handler
	api      scheme.API
	places   []served
	readOnly bool // nobody pushes, to any place
	stopping atomic.Bool

	asking singleflight.Group
	last   atomic.Pointer[readiness]
}

// readiness is what the places answered, and when.
type readiness struct {
	at time.Time
	ok bool
}

const (
	// readyFor is how long an answer of the places is good: who asks often costs no more.
	readyFor = 5 * time.Second
	// readyWithin is how long the places have for it.
	readyWithin = 10 * time.Second
)

func newHealth(api scheme.API, places []served, readOnly bool, next http.Handler) *health {
	return &health{next: next, api: api, places: places, readOnly: readOnly}
}

func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/livez":
		plainAnswer(w, r, http.StatusOK, "alive\n")
	case "/readyz":
		switch {
		case h.stopping.Load():
			plainAnswer(w, r, http.StatusServiceUnavailable, "stopping\n")
		case !h.ready(r.Context()):
			plainAnswer(w, r, http.StatusServiceUnavailable, "a place cannot be used\n")
		default:
			plainAnswer(w, r, http.StatusOK, "ready\n")
		}
	default:
		h.next.ServeHTTP(w, r)
	}
}

// ready reports whether all places answer. However many ask, the places are asked once.
func (h *health) ready(ctx context.Context) bool {
	if r, ok := h.known(); ok {
		return r
	}
	ok, _, _ := h.asking.Do("", func() (any, error) {
		if r, ok := h.known(); ok { // somebody asked in between
			return r, nil
		}
		// Who asked may be gone before the answer, which others wait for.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyWithin)
		defer cancel()
		ok := !slices.ContainsFunc(h.places, func(p served) bool { return !h.usable(ctx, p) })
		h.last.Store(&readiness{at: time.Now(), ok: ok})
		return ok, nil
	})
	return ok.(bool)
}

// usable reports whether a place can do what it is served for. A directory has to be there, as at the start: one that is
// gone is no empty registry; and a file system that was mounted again without writing takes no push.
func (h *health) usable(ctx context.Context, p served) bool {
	dir := p.Root.Scheme == ref.SchemeOCIDir
	if dir {
		if _, err := os.Stat(filepath.FromSlash(p.Root.Path())); err != nil {
			return false
		}
	}
	res, err := h.api.Ping(ctx, p.Root)
	switch {
	case errors.Is(err, errs.ErrClobber): // files beside the layouts are no obstacle
		return true
	case err != nil:
		return false
	}
	return !dir || res.Writable || h.readOnly || p.ReadOnly
}

// known returns the last answer of the places, if it is good still.
func (h *health) known() (answer, ok bool) {
	r := h.last.Load()
	if r == nil || time.Since(r.at) >= readyFor {
		return false, false
	}
	return r.ok, true
}

func plainAnswer(w http.ResponseWriter, r *http.Request, status int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, text) // a client that is gone needs no answer
	}
}
