package ocidir

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/errs"
)

// Whatever is wrong with one child, the others keep their place in the layout, or nothing is deleted.
func TestDeleteOfAnIndexKeepsItsChildren(t *testing.T) {
	for name, c := range map[string]struct {
		spoil   func(path string) error
		refused bool
	}{
		"a child is absent":             {func(string) error { return nil }, false},
		"a child's file is a directory": {func(path string) error { return os.Mkdir(path, 0o755) }, false},
		"a child's file cannot be asked for": {func(path string) error {
			return os.Symlink(filepath.Base(path), path)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && c.refused {
				t.Skip("symbolic links need a privilege on Windows")
			}
			bad, good := schemetest.Image("bad"), schemetest.Image("good")
			idx := schemetest.Index([]*schemetest.Item{bad, good})
			r := handmade(t, []string{itemJSON(idx, named("v1"), "")}, idx)
			path := blobFileOf(r, bad.Manifest.Digest())
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(filepath.Join(r.Root, indexName))
			if err != nil {
				t.Fatal(err)
			}
			err = open(t).ManifestDelete(t.Context(), r.WithDigest(idx.Manifest.Digest()))
			if (err != nil) != c.refused {
				t.Errorf("delete: %v", err)
			}
			after, rerr := os.ReadFile(filepath.Join(r.Root, indexName))
			if rerr != nil {
				t.Fatal(rerr)
			}
			if c.refused && !bytes.Equal(before, after) {
				t.Errorf("the delete failed, and index.json became %s", after)
			}
			o := open(t)
			if _, err := o.ManifestGet(t.Context(), r.WithDigest(good.Manifest.Digest())); err != nil {
				t.Errorf("the other child: %v", err)
			}
			_, err = o.ManifestGet(t.Context(), r.WithTag("v1"))
			if c.refused && err != nil || !c.refused && !errors.Is(err, errs.ErrManifestUnknown) {
				t.Errorf("the index: %v", err)
			}
		})
	}
}
