package ocidir

import (
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

// capabilities are all there are.
var capabilities = []schemetest.Capability{
	schemetest.BlobOpener,
	schemetest.BlobLister,
	schemetest.RepoLister,
	schemetest.BlobFinder,
	schemetest.BlobStater,
	schemetest.Labeler,
	schemetest.Ingester,
	schemetest.Truncater,
	schemetest.IngestManager,
	schemetest.IndexStore,
	schemetest.Leaser,
	schemetest.Syncer,
	schemetest.Cleaner,
	schemetest.Collector,
	schemetest.Checker,
}

func TestContract(t *testing.T) {
	run := func(where func(dir string) ref.Ref, steps int, opts ...Option) func(t *testing.T) {
		return func(t *testing.T) {
			schemetest.Run(t, schemetest.Harness{
				New: func(t *testing.T) (scheme.API, ref.Ref) {
					return open(t, opts...), where(t.TempDir())
				},
				Reopen:       func(t *testing.T, _ scheme.API, _ ref.Ref) scheme.API { return open(t, opts...) },
				Capabilities: capabilities,
				Steps:        steps,
			})
		}
	}
	t.Run("tree", run(func(dir string) ref.Ref { return place(dir).WithRepo("group/repo") }, 4))
	t.Run("single", run(func(dir string) ref.Ref { return place(dir + "/layout") }, 12, WithDurability(None)))
}

// open returns an OCIDir that is closed at the end of the test.
func open(t testing.TB, opts ...Option) *OCIDir {
	o := New(opts...)
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func place(dir string) ref.Ref { return ref.Ref{Scheme: ref.SchemeOCIDir, Root: dir} }
