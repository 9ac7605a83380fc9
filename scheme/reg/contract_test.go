package reg

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/scheme/serve"
	"github.com/ocisync/ocisync/types/ref"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestContract runs the contract through HTTP: this client, our server, memory.
func TestContract(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New: func(t *testing.T) (scheme.API, ref.Ref) {
			srv, err := serve.New(mem.New(), ref.MustParse("mem://root"))
			if err != nil {
				t.Fatal(err)
			}
			web := httptest.NewServer(srv)
			t.Cleanup(func() {
				web.Close()
				if err := srv.Shutdown(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
			api := newTest(t) // closed before the server, which waits for its connections
			return api, ref.Ref{Scheme: ref.SchemeReg, Root: strings.TrimPrefix(web.URL, "http://"), Repo: "group/repo"}
		},
		// A put over HTTP cannot say that an index is sparse on purpose, and the referrers API has no way to say that
		// there is no repository (distribution-spec, "Listing Referrers": a 200 with an empty list).
		Lacks:        []schemetest.Feature{schemetest.Sparse, schemetest.SparseImages, schemetest.ReferrersTellMissing},
		Capabilities: []schemetest.Capability{schemetest.BlobOpener, schemetest.RepoLister},
	})
}
