package reg

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/referrer"
)

// A put whose context ends leaves a Read of its source behind. Closing the source meanwhile is what everybody does, and
// must not meet that Read (the race detector sees when it does).
func TestClosingASourceThatAPutHasLeftBehind(t *testing.T) {
	data, d := content(1 << 20)
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		half := make(chan struct{}, 2*testLimits.attempts)
		src := newScript(t, func(w http.ResponseWriter, r *http.Request, _ int) {
			w.Header().Set("Content-Length", "1048576")
			_, _ = w.Write(data[:1<<19]) // the client may have left
			_ = http.NewResponseController(w).Flush()
			half <- struct{}{}
			<-r.Context().Done()
		})
		up := newUploads()
		dst := newScript(t, up.handle)
		api := newTest(t)
		in, rdr, err := scheme.BlobSource(ctx, api, src.ref("a"), d)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer cancel()
			select {
			case <-half:
			case <-ctx.Done():
			}
		}()
		if _, err := api.BlobPut(ctx, dst.ref("a"), d, in); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := rdr.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// What a token server does not find are not the referrers.
func TestATokenServersNotFoundIsNoEmptyList(t *testing.T) {
	subject := image(t, "subject")
	one := entry(t, image(t, "one", subject.Descriptor()))
	g := newGuarded(t, func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains([]string{"/v2/a/manifests/" + referrer.FallbackTag(subject.Digest())}, r.URL.Path) {
			answer(w, 200, index(t, one))
			return
		}
		answer(w, 404, "404 page not found")
	})
	g.life = "0.000001"
	api := newTest(t)
	at := g.ref("a").WithDigest(subject.Digest())
	list, err := api.ReferrerList(t.Context(), at)
	if err != nil || len(list.Descriptors) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	g.token = func(w http.ResponseWriter, _ *http.Request) bool {
		answer(w, 404, "gone")
		return true
	}
	if list, err := api.ReferrerList(t.Context(), at); !errors.Is(err, errs.ErrUnauthorized) {
		t.Errorf("%+v, %v", list, err)
	}
}
