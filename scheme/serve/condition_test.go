package serve

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/types/ref"
)

// overPlaces runs a test over what keeps images in memory, and in directories, and over another server of ours with the same
// options.
func overPlaces(t *testing.T, test func(t *testing.T, c *client), opts ...Option) {
	overStores(t, test, opts...)
	t.Run("reg", func(t *testing.T) {
		inner := start(t, mem.New(), opts...)
		api := reg.New(reg.WithCredentials(func(context.Context, string) (reg.Credential, error) { return reg.Credential{}, nil }))
		t.Cleanup(func() { api.Close() })
		test(t, startAt(t, api, ref.Ref{Scheme: ref.SchemeReg, Root: strings.TrimPrefix(inner.srv.URL, "http://")}, opts...))
	})
}

// overStores is overPlaces for what only a place itself can tell.
func overStores(t *testing.T, test func(t *testing.T, c *client), opts ...Option) {
	t.Run("mem", func(t *testing.T) { test(t, start(t, mem.New(), opts...)) })
	t.Run("ocidir", func(t *testing.T) {
		o := ocidir.New(ocidir.WithDurability(ocidir.None))
		t.Cleanup(func() { o.Close() })
		test(t, startAt(t, o, ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}, opts...))
	})
}

func TestPutsOnACondition(t *testing.T) {
	overPlaces(t, func(t *testing.T, c *client) {
		c.push("a", "{}")
		one, two := image(`,"annotations":{"n":"1"}`), image(`,"annotations":{"n":"2"}`)
		quoted := func(doc string) string { return `"` + sum(doc) + `"` }
		put := func(status int, path, doc, name, value string) {
			t.Helper()
			code := ""
			if status == http.StatusPreconditionFailed {
				code = "UNSUPPORTED"
			}
			c.want(status, code, "PUT", "/v2/a/manifests/"+path, doc, header{"Content-Type": typeImage, name: value})
		}
		at := func(tag, doc string) {
			t.Helper()
			c.want(200, "", "GET", "/v2/a/manifests/"+tag, nil, nil).has(t, header{"Docker-Content-Digest": sum(doc)})
		}
		for _, match := range []string{quoted(one), "*", `"foreign"`, `"foreign", "other"`, ""} {
			put(412, "v", one, "If-Match", match)
		}
		c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/manifests/v", nil, nil)
		put(201, "v", one, "If-None-Match", "*")
		put(412, "v", two, "If-None-Match", "*")
		for _, match := range []string{quoted(two), "W/" + quoted(one), `"foreign"`, sum(one)} {
			put(412, "v", two, "If-Match", match)
		}
		put(412, "v", two, "If-None-Match", quoted(two)+", "+quoted(one))
		put(412, "v?tag=w", two, "If-Match", quoted(two))
		c.want(404, "", "HEAD", "/v2/a/manifests/w", nil, nil)
		at("v", one)
		put(201, "v?tag=w", two, "If-Match", quoted(one))
		at("v", two)
		at("w", two)
		put(201, "v", one, "If-Match", quoted(one)+","+quoted(two))
		put(201, "v", one, "If-Match", "*")
		put(201, "v", two, "If-None-Match", quoted(two))
		put(412, sum(two), two, "If-None-Match", "*")
		put(201, sum(two), two, "If-Match", quoted(two))
		for _, h := range []header{{"If-Match": quoted(one)}, {"If-None-Match": quoted(two)}, {"If-None-Match": "*"}} {
			c.want(412, "UNSUPPORTED", "DELETE", "/v2/a/manifests/v", nil, h)
		}
		c.want(202, "", "DELETE", "/v2/a/manifests/v", nil, header{"If-Match": quoted(two)})
		c.want(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/a/manifests/v", nil, header{"If-Match": quoted(two)})
	})
}

// TestOneOfManyCreatesATag: whoever wants to be the first is told whether it was.
func TestOneOfManyCreatesATag(t *testing.T) {
	overPlaces(t, func(t *testing.T, c *client) {
		c.push("a", "{}")
		var created, refused atomic.Int32
		var all errgroup.Group
		for i := range 16 {
			all.Go(func() error {
				switch c.do("PUT", "/v2/a/manifests/v", image(`,"annotations":{"n":"`+string(rune('a'+i))+`"}`), header{"Content-Type": typeImage, "If-None-Match": "*"}).StatusCode {
				case 201:
					created.Add(1)
				case 412:
					refused.Add(1)
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil || created.Load() != 1 || refused.Load() != 15 {
			t.Errorf("%d created the tag, %d were refused, %v", created.Load(), refused.Load(), err)
		}
	})
}
