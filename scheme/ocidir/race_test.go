package ocidir

import (
	"io/fs"
	"path"
	"testing"
	"testing/fstest"
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
