package serve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/types/errs"
	"github.com/ocisync/ocisync/types/ref"
)

// holds waits until requests hold n bytes.
func (c *client) holds(n int64) {
	c.t.Helper()
	for end := time.Now().Add(patience); c.s.held.Load() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("requests hold %d bytes, want %d", c.s.held.Load(), n)
		}
	}
}

// Manifests that many push slowly, and answers that many take slowly, do not take more memory than there is for them.
func TestManifestsOfManyAtOnceAreBounded(t *testing.T) {
	c := start(t, mem.New())
	c.s.maxHeld = 3 << 20
	kind := header{"Content-Type": "application/x.test"}
	large := strings.Repeat("x", 2<<20)
	conn := c.raw("PUT /v2/a/manifests/slow HTTP/1.1\r\nHost: x\r\nContent-Type: application/x.test\r\nContent-Length: 4000000\r\n\r\n" + large)
	defer conn.Close()
	c.holds(2 << 20)
	a := c.want(503, "UNAVAILABLE", "PUT", "/v2/a/manifests/v1", large, kind)
	a.has(t, header{"Retry-After": "5"})
	c.holds(2 << 20)
	c.want(201, "", "PUT", "/v2/a/manifests/v0", "small", kind)
	conn.Close()
	c.holds(0)
	c.want(201, "", "PUT", "/v2/a/manifests/v1", large, kind)
	c.holds(0)
	c.s.held.Store(2 << 20) // of others
	c.want(503, "UNAVAILABLE", "GET", "/v2/a/manifests/v1", nil, nil).has(t, header{"Retry-After": "5"})
	c.want(200, "", "HEAD", "/v2/a/manifests/v1", nil, nil)
	c.want(200, "", "GET", "/v2/a/manifests/v0", nil, nil)
	c.holds(2 << 20)
	c.s.held.Store(0)
	c.want(200, "", "GET", "/v2/a/manifests/v1", nil, nil)
	c.holds(0)
}

// A place that gives this server no list, as public registries do, does not take the others' away.
func TestTheCatalogWithoutAPlaceThatRefuses(t *testing.T) {
	for _, refusal := range []error{errs.ErrUnauthorized, errs.ErrDenied, errs.ErrUnsupported} {
		m := mem.New()
		at := func(root string) ref.Ref { return ref.Ref{Scheme: mem.Scheme, Root: root} }
		api := listRefused{m, "hub", fmt.Errorf("list: %w", refusal)}
		c := startAt(t, api, at("main"), WithPlace(Place{Name: "hub", Root: at("hub")}))
		c.want(201, "", "PUT", "/v2/a/manifests/v1", "x", header{"Content-Type": "application/x.test"})
		if a := c.want(200, "", "GET", "/v2/_catalog", nil, nil); !strings.Contains(a.body, `["a"]`) {
			t.Errorf("%v: %s", refusal, a.body)
		}
		alone := startAt(t, api, at("hub"))
		want := 403
		if errors.Is(refusal, errs.ErrUnsupported) {
			want = 405
		}
		if a := alone.do("GET", "/v2/_catalog", nil, nil); a.StatusCode != want {
			t.Errorf("%v: without another place it is %d, want %d", refusal, a.StatusCode, want)
		}
	}
}

// listRefused has a root that is not listed.
type listRefused struct {
	*mem.Mem
	root string
	err  error
}

func (l listRefused) RepoList(ctx context.Context, r ref.Ref, last string, fn func(string) error) error {
	if r.Root == l.root {
		return l.err
	}
	return l.Mem.RepoList(ctx, r, last, fn)
}

func (l listRefused) As(r ref.Ref, target any) bool {
	if t, ok := target.(*scheme.RepoLister); ok {
		*t = l
		return true
	}
	return scheme.AsAny(l.Mem, r, target)
}

// stuck is a place whose uploads cannot be cut.
type stuck struct{ *mem.Mem }

func (p stuck) Ingest(ctx context.Context, r ref.Ref, key string, opts ...scheme.IngestOption) (scheme.Upload, error) {
	u, err := p.Mem.Ingest(ctx, r, key, opts...)
	return stuckUpload{u}, err
}

type stuckUpload struct{ scheme.Upload }

func (stuckUpload) Truncate(context.Context, int64) error {
	return errors.New("truncate /srv/private/file: the disk is broken")
}

// What goes wrong with the place while a chunk is refused is not told to the client.
func TestARefusedChunkTellsNoPath(t *testing.T) {
	c := start(t, stuck{mem.New()})
	conn := c.raw("PATCH " + c.session("a") + " HTTP/1.1\r\nHost: x\r\nContent-Range: 0-9\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	defer conn.Close()
	raw := ends(t, conn)
	if code, body := status(t, raw); code != 400 || strings.Contains(body, "private") {
		t.Errorf("%d %s", code, body)
	}
}
