package containerd_test

import (
	"context"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/testsuite"

	"github.com/ocisync/ocisync/interop/containerd"
	"github.com/ocisync/ocisync/scheme/mem"
	"github.com/ocisync/ocisync/scheme/ocidir"
	"github.com/ocisync/ocisync/types/ref"
)

// TestContainerdsOwnSuite runs containerd's suite as it is. (Its other three suites are about containerd's namespaces,
// which a Store does not have; its local store skips those.)
func TestContainerdsOwnSuite(t *testing.T) {
	t.Run("mem", func(t *testing.T) {
		testsuite.ContentSuite(t, "mem", func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
			s := containerd.New(mem.New(), ref.Ref{Scheme: mem.Scheme, Root: root, Repo: "repo"})
			return ctx, s, func() error { return nil }, nil
		})
	})
	t.Run("ocidir", func(t *testing.T) {
		testsuite.ContentSuite(t, "ocidir", func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
			api := ocidir.New()
			return ctx, containerd.New(api, dirRef(root)), api.Close, nil
		})
	})
}
