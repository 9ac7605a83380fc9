package ocidir

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

// lateMarkers is a tree whose layouts are finished just after somebody looked whether they are.
type lateMarkers struct{ fstest.MapFS }

func (f lateMarkers) Stat(name string) (fs.FileInfo, error) {
	if path.Base(name) == markerName {
		f.MapFS[name] = &fstest.MapFile{Data: []byte(markerText)}
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return f.MapFS.Stat(name)
}

func TestLayoutFinishedWhileItIsLookedAtIsNoForeignFile(t *testing.T) {
	tree := lateMarkers{fstest.MapFS{}}
	for _, file := range []string{stateDir + "/lock", indexName, blobsDir + "/sha256/x"} {
		tree.MapFS["a/b/"+file] = &fstest.MapFile{}
	}
	if err := usable(tree, "/t"); err != nil {
		t.Error(err)
	}
	tree.MapFS["c/file"] = &fstest.MapFile{}
	delete(tree.MapFS, "c/"+markerName)
	plain := tree.MapFS
	delete(plain, "a/b/"+markerName)
	if err := usable(plain, "/t"); err == nil {
		t.Error("a directory of somebody else's became a layout")
	}
}

func TestFirstWritersMeetInOneTree(t *testing.T) {
	for range 10 {
		tree := place(filepath.Join(t.TempDir(), "t"))
		refs := []ref.Ref{tree, tree.WithRepo("a"), tree.WithRepo("a/b")}
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i, r := range refs {
			o := open(t, WithDurability(None))
			wg.Go(func() {
				<-start
				if err := schemetest.Opaque(fmt.Sprint(i)).Push(t.Context(), o, r.WithTag("v1")); err != nil {
					t.Errorf("%s: %v", r, err)
				}
			})
		}
		close(start)
		wg.Wait()
	}
}
