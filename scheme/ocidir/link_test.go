package ocidir

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ocisync/ocisync/scheme"
	"github.com/ocisync/ocisync/scheme/schemetest"
	"github.com/ocisync/ocisync/types/ref"
)

func TestBlobThatIsASymbolicLinkIsCopied(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege on Windows")
	}
	for name, target := range map[string]string{"in blobs": "kept", "elsewhere in the layout": "../../kept"} {
		t.Run(name, func(t *testing.T) {
			o, dir := open(t), t.TempDir()
			src, tgt, via := place(dir+"/src"), place(dir+"/tgt"), place(dir+"/via")
			data := schemetest.Blob("linked", 5000)
			d := putBlob(t, o, src, data)
			file := blobFileOf(src, d.Digest)
			if err := os.Rename(file, filepath.Join(filepath.Dir(file), target)); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, file); err != nil {
				t.Fatal(err)
			}
			if err := o.BlobMount(t.Context(), src, tgt, d); err != nil {
				t.Error(err)
			}
			if _, err := o.BlobPut(t.Context(), via, d, errReader{}, scheme.WithMountFrom(src)); err != nil {
				t.Error(err)
			}
			for _, r := range []ref.Ref{tgt, via} {
				fi, err := os.Lstat(blobFileOf(r, d.Digest))
				if err != nil {
					t.Error(err)
				} else if !fi.Mode().IsRegular() {
					t.Errorf("%s is %v", r, fi.Mode())
				}
				if got, err := os.ReadFile(blobFileOf(r, d.Digest)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s has other bytes (%v)", r, err)
				}
			}
		})
	}
}

// Two layouts share a file: what is known of the blob, and what is done with it, is each layout's own.
func TestSharedBlobIsABlobOfEach(t *testing.T) {
	o, dir := open(t), t.TempDir()
	a, b := place(dir+"/a"), place(dir+"/b")
	data := schemetest.Blob("shared", 5000)
	d := putBlob(t, o, a, data)
	if err := o.BlobMount(t.Context(), a, b, d); err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(stat(t, blobFileOf(a, d.Digest)), stat(t, blobFileOf(b, d.Digest))) {
		t.Skip("this file system has no hard links")
	}
	old, young := map[string]string{"of": "a"}, map[string]string{"of": "b"}
	relabel(t, o, a, d.Digest, old)
	hasLabels(t, o, b, d.Digest, nil)
	relabel(t, o, b, d.Digest, young)
	hasLabels(t, o, a, d.Digest, old)

	if err := o.BlobDelete(t.Context(), b, d); err != nil {
		t.Fatal(err)
	}
	hasLabels(t, o, a, d.Digest, old)
	if err := o.BlobMount(t.Context(), a, b, d); err != nil {
		t.Fatal(err)
	}
	hasLabels(t, o, b, d.Digest, nil)
	relabel(t, o, b, d.Digest, young)

	was := stat(t, blobFileOf(a, d.Digest)).ModTime()
	if err := os.WriteFile(blobFileOf(a, d.Digest), bytes.ToUpper(data), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(blobFileOf(a, d.Digest), was, was); err != nil { // as a disk damages it
		t.Fatal(err)
	}
	o = open(t)
	putBlob(t, o, b, data)
	hasLabels(t, o, b, d.Digest, young)
	if got, err := os.ReadFile(blobFileOf(b, d.Digest)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("b was not healed: %v", err)
	}
	if got, err := os.ReadFile(blobFileOf(a, d.Digest)); err != nil || bytes.Equal(got, data) {
		t.Errorf("the shared file was written into: %v", err)
	}
	if err := o.BlobMount(t.Context(), b, a, d); err != nil {
		t.Fatal(err)
	}
	hasLabels(t, open(t), a, d.Digest, old)
	if got, err := os.ReadFile(blobFileOf(a, d.Digest)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a was not healed: %v", err)
	}
}
