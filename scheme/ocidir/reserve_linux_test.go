package ocidir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types"
	"github.com/ocisync/ocisync/types/errs"
)

// On a disk that is full to the last byte everything can be deleted: first the tags, which frees next to nothing, then
// the manifests, then the blobs. Afterwards there is room. Another process, which only reads, keeps the files that were
// index.json open.
func TestFullDiskCanBeEmptied(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: a full disk needs root, to mount a tmpfs")
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("NOT TESTED: a full disk needs a tmpfs:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o, reader, r := open(t), open(t), place(filepath.Join(disk, "layout"))
	var items []*schemetest.Item
	var err error
	for i := 0; err == nil; i++ {
		it := schemetest.Image(fmt.Sprint("image ", i))
		if err = it.Push(t.Context(), o, r.WithTag(fmt.Sprint("v", i))); err == nil {
			items = append(items, it)
		}
	}
	if !errors.Is(err, errs.ErrNoSpace) {
		t.Fatalf("got %v, want a full disk", err)
	}
	fill, ferr := os.Create(filepath.Join(disk, "fill"))
	for ferr == nil {
		_, ferr = fill.Write(make([]byte, 512))
	}
	fill.Close()
	if !errors.Is(ferr, unix.ENOSPC) {
		t.Fatal(ferr)
	}
	for i := range items {
		if _, err := reader.ManifestHead(t.Context(), r.WithTag(fmt.Sprint("v", i))); err != nil {
			t.Fatal(err)
		}
		if err := o.TagDelete(t.Context(), r.WithTag(fmt.Sprint("v", i))); err != nil {
			t.Fatalf("tag %d of %d: %v", i, len(items), err)
		}
	}
	gone := map[digest.Digest]bool{}
	for i, it := range items {
		if err := o.ManifestDelete(t.Context(), r.WithDigest(it.Manifest.Digest())); err != nil {
			t.Fatalf("manifest %d of %d: %v", i, len(items), err)
		}
		for _, b := range it.Blobs {
			d := digest.FromBytes(b)
			if err := o.BlobDelete(t.Context(), r, types.Descriptor{Digest: d}); err != nil && !gone[d] {
				t.Fatalf("blob %s: %v", d, err)
			}
			gone[d] = true
		}
	}
	if tags := tagsOf(t, open(t), r); len(tags) > 0 {
		t.Errorf("the tags are %q", tags)
	}
	if raw, err := os.ReadFile(filepath.Join(r.Root, indexName)); err != nil || strings.Contains(string(raw), "sha256:") {
		t.Errorf("the index is %s, %v", raw, err)
	}
	if err := items[0].Push(t.Context(), o, r.WithTag("again")); err != nil {
		t.Errorf("the disk is not full any more: %v", err)
	}
	if len(items) < 20 {
		t.Errorf("only %d images were on the disk", len(items))
	}
}
