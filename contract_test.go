package ocisync_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ocisync/ocisync"
	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/scheme/reg"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

// TestADirectoryServedAndReadBackKeepsTheContract holds the whole chain to the contract: a client's API, the registry
// client, HTTP, the server, and directories on disk.
func TestADirectoryServedAndReadBackKeepsTheContract(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New: func(t *testing.T) (scheme.API, ref.Ref) {
			store := ocidir.New(ocidir.WithDurability(ocidir.None)) // durability is ocidir's own test
			srv, err := serve.New(store, ref.Ref{Scheme: ref.SchemeOCIDir, Root: t.TempDir()})
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
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			})
			return c.API(), ref.Ref{Scheme: ref.SchemeReg, Root: host, Repo: "group/repo"}
		},
		// HTTP has no words for these two; see TestContract of scheme/reg.
		Lacks:        []schemetest.Feature{schemetest.Sparse, schemetest.SparseImages, schemetest.ReferrersTellMissing},
		Capabilities: []schemetest.Capability{schemetest.BlobOpener, schemetest.RepoLister},
		Steps:        4,
	})
}
