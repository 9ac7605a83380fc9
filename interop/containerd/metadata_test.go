package containerd_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/ocisync/ocisync/interop/containerd"
	"github.com/ocisync/ocisync/scheme/ocidir"
)

// containerd keeps namespaces, leases and its own garbage collection in a metadata database that stands before a content
// store. Here it stands before ours, as in a daemon.

// metadataOver opens such a database beside a layout, with one namespace for each context that the suite asks for.
func metadataOver(opts ...metadata.DBOpt) testsuite.StoreInitFn {
	return func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, &bolt.Options{NoSync: true})
		if err != nil {
			return nil, nil, nil, err
		}
		api := ocidir.New(ocidir.WithDurability(ocidir.None)) // what reaches the disk is the other suite's subject
		store := metadata.NewDB(db, containerd.New(api, dirRef(filepath.Join(root, "layout"))), nil, opts...).ContentStore()
		var n atomic.Int64
		wrap := func(ctx context.Context, shared bool) (context.Context, func(context.Context) error, error) {
			ns := fmt.Sprint("namespace-", n.Add(1))
			ctx = namespaces.WithNamespace(ctx, ns)
			done := func(context.Context) error { return nil }
			if !shared {
				return ctx, done, nil
			}
			err := db.Update(func(tx *bolt.Tx) error {
				return metadata.NewNamespaceStore(tx).SetLabel(ctx, ns, labels.LabelSharedNamespace, "true")
			})
			return ctx, done, err
		}
		closeAll := func() error {
			if err := api.Close(); err != nil {
				return err
			}
			return db.Close()
		}
		return testsuite.SetContextWrapper(ctx, wrap), store, closeAll, nil
	}
}

func TestContainerdsMetadataOverOurs(t *testing.T) {
	testsuite.ContentSuite(t, "metadata", metadataOver())
	testsuite.ContentCrossNSSharedSuite(t, "metadata", metadataOver())
	testsuite.ContentCrossNSIsolatedSuite(t, "metadata", metadataOver(metadata.WithPolicyIsolated))
	testsuite.ContentSharedNSIsolatedSuite(t, "metadata", metadataOver(metadata.WithPolicyIsolated))
}

func TestContainerdsGarbageCollectionOverOurs(t *testing.T) {
	db, err := bolt.Open(filepath.Join(t.TempDir(), "metadata.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	ours, _ := inDir(t, t.TempDir())
	meta := metadata.NewDB(db, ours, nil)
	ctx := namespaces.WithNamespace(t.Context(), "default")
	cs := withContext{meta.ContentStore(), ctx}
	root := put(t, cs, "kept", map[string]string{labelRoot: "yes"})
	put(t, cs, "garbage", nil)
	left := begin(t, cs, "left", "half of something")
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	if got := walked(t, ours); len(got) != 2 {
		t.Errorf("before there are %v", got)
	}
	if _, err := meta.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if got := walked(t, ours); !slices.Equal(got, []digest.Digest{root.Digest}) {
		t.Errorf("left are %v, want %s", got, root.Digest)
	}
	if all, err := ours.ListStatuses(t.Context()); err != nil || len(all) != 1 { // it is kept for a day
		t.Errorf("the ingests are %v, %v", all, err)
	}
}

const labelRoot = "containerd.io/gc.root"

// withContext is a store whose callers all have one context.
type withContext struct {
	content.Store
	ctx context.Context
}

func (w withContext) Writer(_ context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	cw, err := w.Store.Writer(w.ctx, opts...)
	if err != nil {
		return nil, err
	}
	return writerWithContext{cw, w.ctx}, nil
}

type writerWithContext struct {
	content.Writer
	ctx context.Context
}

func (w writerWithContext) Commit(_ context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	return w.Writer.Commit(w.ctx, size, expected, opts...)
}
