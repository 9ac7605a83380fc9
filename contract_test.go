package ocisync_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// The whole chain is held to the contract: a client's API, the registry client, HTTP, the server, and what it serves. One
// hop is our client and our server; with two of them the server serves another one. Whatever is between, results and
// errors are the same: what the chains lack is the same, too, and nothing of it is for the number of hops.
func TestWhatIsServedAndReadBackKeepsTheContract(t *testing.T) {
	for name, chain := range map[string]struct {
		hops  int
		store func(t *testing.T) (scheme.API, ref.Ref)
	}{
		"directories":      {1, directories},
		"memory, two hops": {2, memory},
	} {
		t.Run(name, func(t *testing.T) {
			schemetest.Run(t, schemetest.Harness{
				New: func(t *testing.T) (scheme.API, ref.Ref) {
					api, root := chain.store(t)
					for range chain.hops {
						api, root = throughHTTP(t, api, root)
					}
					return api, root.WithRepo("group/repo")
				},
				// HTTP has no words for these; see TestContract of scheme/reg.
				Lacks:        overHTTP,
				Capabilities: []schemetest.Capability{schemetest.BlobOpener, schemetest.RepoLister},
				Steps:        4,
			})
		})
	}
}

// overHTTP is what a place over HTTP is without, whatever the server serves.
var overHTTP = []schemetest.Feature{schemetest.Sparse, schemetest.SparseImages, schemetest.ReferrersTellMissing}

func directories(t *testing.T) (scheme.API, ref.Ref) {
	store := ocidir.New(ocidir.WithDurability(ocidir.None)) // durability is ocidir's own test
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store, ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()}
}

func memory(*testing.T) (scheme.API, ref.Ref) { return mem.New(), ref.MustParse("mem://root") }

// throughHTTP serves root, and returns a client's API of that server.
func throughHTTP(t *testing.T, api scheme.API, root ref.Ref) (scheme.API, ref.Ref) {
	t.Helper()
	srv, err := serve.New(api, root)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(srv)
	host := strings.TrimPrefix(web.URL, "http://")
	c := ocisync.New(ocisync.WithRegistry(reg.WithHost(host, reg.Host{TLS: reg.TLSDisabled})))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
		if err := srv.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return c.API(), ref.Ref{Scheme: ref.SchemeReg, Root: host}
}
