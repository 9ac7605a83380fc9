package reg

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

func TestRetryUntilSuccess(t *testing.T) {
	for _, status := range []int{408, 425, 429, 500, 502, 503, 504} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			data, d := content(10)
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if n < 3 {
					answer(w, status, "")
					return
				}
				part(w, r, data)
			})
			if _, err := newTest(t).BlobHead(t.Context(), s.ref("a"), d); err != nil {
				t.Fatal(err)
			}
			if n := len(s.requests()); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
	t.Run("reset before the answer", func(t *testing.T) {
		data, d := content(10)
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
			if n < 3 {
				reset(t, w, "")
				return
			}
			part(w, r, data)
		})
		if _, err := newTest(t).BlobHead(t.Context(), s.ref("a"), d); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("no answer in time", func(t *testing.T) {
		data, d := content(10)
		l := testLimits
		l.header, l.dial = 50*time.Millisecond, 50*time.Millisecond
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				<-r.Context().Done()
				return
			}
			part(w, r, data)
		})
		l.attempts = 20 // a loaded machine may be late more than once
		if _, err := newTest(t, withLimits(l)).BlobHead(t.Context(), s.ref("a"), d); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFinalStatus(t *testing.T) {
	for status, want := range map[int]error{
		400: errs.ErrInvalid, 403: errs.ErrDenied, 404: errs.ErrNotFound, 405: errs.ErrUnsupported, 409: errs.ErrInvalid,
		416: errs.ErrRangeInvalid, 501: errs.ErrUnsupported,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, status, "") })
			_, d := content(10)
			_, err := newTest(t).BlobHead(t.Context(), s.ref("a"), d)
			var e *errs.Error
			if !errors.As(err, &e) || !errors.Is(err, want) || e.Status != status || e.Op != "blob head" || e.Ref != s.ref("a").String() {
				t.Errorf("got %#v, want %v with operation, place and status", err, want)
			}
			if n := len(s.requests()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		answer(w, 503, `{"errors":[{"code":"X","message":"come back later"}]}`)
	})
	_, err := newTest(t).ManifestGet(t.Context(), s.ref("a"))
	var e *errs.Error
	if !errors.Is(err, errs.ErrUnavailable) || !errors.As(err, &e) || e.Message != "come back later" {
		t.Errorf("got %v, want ErrUnavailable in the registry's words", err)
	}
	if n := len(s.requests()); n != testLimits.attempts {
		t.Errorf("%d requests, want %d", n, testLimits.attempts)
	}
}

func TestRetryAfter(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		header string
		retry  bool
		want   error
	}{
		"nothing to wait for":           {429, "0", true, nil},
		"a date that has passed":        {429, "Wed, 21 Oct 2015 07:28:00 GMT", true, nil},
		"more seconds than we wait":     {429, "3600", false, errs.ErrRateLimited},
		"a date beyond what we wait":    {429, time.Now().Add(24 * time.Hour).UTC().Format(http.TimeFormat), false, errs.ErrRateLimited},
		"a year of maintenance":         {503, "31536000", false, errs.ErrUnavailable},
		"a number that fits in no type": {429, "99999999999999999999", false, errs.ErrRateLimited},
	} {
		t.Run(name, func(t *testing.T) {
			data, d := content(1)
			s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if n == 1 {
					answer(w, tc.status, "", "Retry-After", tc.header)
					return
				}
				part(w, r, data)
			})
			_, err := newTest(t).BlobHead(t.Context(), s.ref("a"), d)
			var e *errs.Error
			if !errors.Is(err, tc.want) || tc.want != nil && (!errors.As(err, &e) || e.RetryAfter < time.Minute) {
				t.Errorf("got %v, want %v with the time to wait", err, tc.want)
			}
			if n := len(s.requests()); (n == 2) != tc.retry {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("seconds within the cap are waited for, in place of the backoff", func(t *testing.T) {
		data, d := content(1)
		s := newScript(t, func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				answer(w, 429, "", "Retry-After", "1")
				return
			}
			part(w, r, data)
		})
		start := time.Now()
		if _, err := newTest(t, withLimits(patient())).BlobHead(t.Context(), s.ref("a"), d); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited < time.Second {
			t.Errorf("came back after %v", waited)
		}
	})
}

func TestContextEndsWaits(t *testing.T) {
	t.Run("backoff", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
			answer(w, 503, "")
			cancel()
		})
		_, err := newTest(t, withLimits(patient())).ManifestGet(ctx, s.ref("a"))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a wait beyond the deadline is not begun", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 503, "") })
		_, err := newTest(t, withLimits(patient())).ManifestGet(ctx, s.ref("a"))
		if !errors.Is(err, errs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the registry's failure", err)
		}
	})
}

// One repository's failures must not slow the others (regclient: six 403s on one repository, and every later request
// to the host waits for seconds).
func TestFailuresOfOneRepositoryStayThere(t *testing.T) {
	data, d := content(10)
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Path == "/v2/good/blobs/"+string(d.Digest) {
			part(w, r, data)
			return
		}
		answer(w, 403, "")
	})
	api := newTest(t, withLimits(patient()))
	for range 8 {
		if _, err := api.BlobHead(t.Context(), s.ref("bad"), d); !errors.Is(err, errs.ErrDenied) {
			t.Fatal(err)
		}
		if err := api.BlobDelete(t.Context(), s.ref("bad"), d); !errors.Is(err, errs.ErrDenied) {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := api.BlobHead(ctx, s.ref("good"), types.Descriptor{Digest: d.Digest}); err != nil {
		t.Error(err)
	}
}

// Deletes must not hold on to connections (regclient blocks for ever at the fourth).
func TestManyDeletes(t *testing.T) {
	_, d := content(10)
	s := newScript(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w, 202, "") })
	api := newTest(t, WithHost(s.host(), Host{Concurrency: 1}))
	for range 20 {
		if err := api.BlobDelete(t.Context(), s.ref("a"), d); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARefusedConnectionIsRetriedOnceTheHostHasAnswered(t *testing.T) {
	data, d := content(10)
	s := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) { part(w, r, data) })
	l := testLimits
	l.attempts = 3
	var log countedLog
	api := newTest(t, withLimits(l), WithLogger(slog.New(&log)))
	if _, err := api.BlobHead(t.Context(), s.ref("a"), d); err != nil {
		t.Fatal(err)
	}
	s.Close() // from here on connections are refused
	log.n.Store(0)
	if _, err := api.BlobHead(t.Context(), s.ref("a"), d); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if n := log.n.Load(); n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}

	log.n.Store(0)
	stranger := newTest(t, withLimits(l), WithLogger(slog.New(&log)))
	if _, err := stranger.BlobHead(t.Context(), s.ref("a"), d); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if n := log.n.Load(); n != 1 {
		t.Errorf("%d attempts at a host that was never there, want 1", n)
	}
}

// countedLog counts the requests that are traced.
type countedLog struct{ n atomic.Int64 }

func (c *countedLog) Enabled(context.Context, slog.Level) bool { return true }
func (c *countedLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "http" {
		c.n.Add(1)
	}
	return nil
}
func (c *countedLog) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c *countedLog) WithGroup(string) slog.Handler      { return c }
