package mem_test

import (
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

func TestContract(t *testing.T) {
	schemetest.Run(t, schemetest.Harness{
		New: func(*testing.T) (scheme.API, ref.Ref) {
			return mem.New(), ref.MustParse("mem://test").WithRepo("group/repo")
		},
		Reopen:       func(_ *testing.T, api scheme.API, _ ref.Ref) scheme.API { return api },
		Capabilities: []schemetest.Capability{schemetest.BlobOpener, schemetest.BlobLister, schemetest.RepoLister},
	})
}
