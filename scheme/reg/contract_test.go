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

// serving returns a client of ours before a server of ours that serves api.
func serving(t *testing.T, api scheme.API, root ref.Ref) (*Reg, string) {
	srv, err := serve.New(api, root)
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
	return newTest(t), strings.TrimPrefix(web.URL, "http://") // closed before the server, which waits for its connections
}

// overHTTP is what HTTP has no words for: a put cannot say that an index or image is sparse on purpose, and the referrers
// API has no way to say that there is no repository (distribution-spec, "Listing Referrers": a 200 with an empty list).
var overHTTP = []schemetest.Feature{schemetest.Sparse, schemetest.SparseImages, schemetest.ReferrersTellMissing}

// TestContract runs the contract through HTTP: this client, our server, memory.
func TestContract(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New: func(t *testing.T) (scheme.API, ref.Ref) {
			api, host := serving(t, mem.New(), ref.MustParse("mem://root"))
			return api, ref.Ref{Scheme: ref.SchemeReg, Root: host, Repo: "group/repo"}
		},
		Lacks:        overHTTP,
		Capabilities: []schemetest.Capability{schemetest.BlobOpener, schemetest.RepoLister},
	})
}

// TestContractBehindAServer runs it through HTTP twice: this client, our server, this client, our server, memory. The
// server in the middle makes no difference: results are the same, and so are errors.
func TestContractBehindAServer(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New: func(t *testing.T) (scheme.API, ref.Ref) {
			inner, host := serving(t, mem.New(), ref.MustParse("mem://root"))
			api, front := serving(t, inner, ref.Ref{Scheme: ref.SchemeReg, Root: host, Repo: "behind"})
			return api, ref.Ref{Scheme: ref.SchemeReg, Root: front, Repo: "group/repo"}
		},
		Lacks:        overHTTP,
		Capabilities: []schemetest.Capability{schemetest.BlobOpener, schemetest.RepoLister},
		Steps:        2,
	})
}
